//! A user of the group who attacks the owner: his files, processes and secrets, or the work of the watcher.
//!
//! Not ordinary use of a group spool (`group.rs`) and not files in the drop box (`hostile.rs`,
//! `drop_box.rs`). A group user may write only in the drop box, so everything that he tries to plant
//! elsewhere fails. Checked: he writes, removes, signals, locks and sees nothing of the owner's, and other
//! tasks continue.

use std::fs;
use std::path::{Path, PathBuf};

use crate::group::{GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::scale::{figure, pick};
use crate::support::names_in;

const SECRET: &str = "hunter2 of sesame";

/// The owner's own folder next to the spool, and what must be unchanged at the end.
struct Precious {
    path: PathBuf,
    before: Vec<(PathBuf, String)>,
}

impl Precious {
    fn of(shared: &Shared) -> Precious {
        let path = shared.world.root().join("owner/precious");
        for folder in [
            "",
            "1",
            "1/work",
            "attempts",
            "attempts/1",
            "state",
            "queue",
        ] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        for file in [
            "secret.json",
            "1/output",
            "1/work/x",
            "attempts/1/x",
            "state/x",
            "lock",
            "stdout.log",
            "status.json",
            "result.json",
            "queue/x",
        ] {
            fs::write(path.join(file), format!("{{\"{SECRET}\": \"{SECRET}\"}}\n")).unwrap();
        }
        let all = walkdir::WalkDir::new(&path).into_iter().map(Result::unwrap);
        for entry in all {
            std::os::unix::fs::chown(entry.path(), Some(OWNER), Some(OWNER)).unwrap();
        }
        let before = contents(&path);
        Precious { path, before }
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(contents(&self.path), self.before);
    }
}

fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all: Vec<_> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| {
            let path = entry.unwrap().path().to_owned();
            let text = fs::read_to_string(&path).unwrap_or_default();
            (path, text)
        })
        .collect();
    all.sort();
    all
}

/// Places where users other than the owner can see the secret: any regular file of the spool, and the
/// watcher's log.
fn leaks(shared: &Shared, log: &str) -> Vec<String> {
    let mut leaks: Vec<String> = walkdir::WalkDir::new(shared.spool())
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(SECRET)
        })
        .map(|entry| entry.path().display().to_string())
        .collect();
    if log.contains(SECRET) {
        leaks.push("the log".into());
    }
    leaks
}

/// Each line is a shell script that the group user runs in the folder above the spool. `$T` is a new task of
/// his that does not run yet, `$P` the owner's precious folder, `$ID` an id that no task has.
const PLANTED: &[&str] = &[
    "ln -s $P spool/tasks/$ID; : >spool/open/$ID",
    "ln -s $P/secret.json spool/tasks/$ID; : >spool/open/$ID",
    ": >spool/tasks/$ID; : >spool/open/$ID",
    "mkfifo spool/tasks/$ID; : >spool/open/$ID",
    "mkdir spool/tasks/$ID; : >spool/open/$ID",
    "mkdir spool/open/$ID",
    "ln -s $P spool/open/$ID",
    "mkdir -p spool/open/.boot.d; mkdir spool/open/x",
    "rmdir $T/attempts; ln -s $P $T/attempts",
    "rmdir $T/attempts; ln -s $P/attempts $T/attempts",
    "rmdir $T/attempts; : >$T/attempts",
    "ln -s $P/1 $T/attempts/1",
    "mkdir $T/attempts/1; ln -s $P/1/work $T/attempts/1/work; ln -s $P/1/output $T/attempts/1/output",
    "mkdir -p $T/attempts/4294967295",
    "mkdir -p $T/attempts/1; mkfifo $T/attempts/1/run.json",
    "rm $T/lock; ln -s $P/lock $T/lock",
    "rm $T/lock; mkfifo $T/lock",
    "rm $T/lock; mkdir $T/lock",
    "rm $T/lock",
    "rm $T/request.json; ln -s $P/secret.json $T/request.json",
    "rm $T/request.json; mkfifo $T/request.json",
    "rm $T/request.json; mkdir $T/request.json",
    "rm $T/request.json; truncate -s 2G $T/request.json",
    "rm $T/status.json; ln -s $P/status.json $T/status.json",
    "rm $T/status.json; mkdir $T/status.json",
    "rm $T/status.json; mkfifo $T/status.json",
    "ln -s $P/status.json $T/.status.json.new",
    "mkdir $T/.status.json.new",
    "ln -s $P/result.json $T/result.json",
    "mkfifo $T/result.json",
    "ln -s $P/result.json $T/result.part",
    "ln -s $P/secret.json $T/env.json",
    "mkfifo $T/env.json",
    "mkdir $T/cancel",
    "ln -s $P/secret.json $T/cancel",
    "mv $T spool/tasks/gone; ln -s ../../precious $T",
    "mkdir spool/names/good",
    "ln -s $P spool/names/other",
    "mkdir -p spool/sessions/s1; ln -s $P/state spool/sessions/s1/state",
    "ln -s $P spool/sessions/s2",
    "mkdir -p spool/sessions/s3; ln -s $P/queue spool/sessions/s3/queue",
    "mkdir -p spool/sessions/s4/queue/$ID; ln -s $P/lock spool/sessions/s4/lock",
    ": >spool/sessions/s5",
    "ln -s $P spool/staging/$ID",
    "mkdir spool/staging/$ID; ln -s $P/lock spool/staging/$ID/lock",
    "ln -s $P spool/staging/$ID.claim",
    "mkdir -p spool/staging/$ID.claim/x.json; chmod 700 spool/staging/$ID.claim/x.json",
    "mkdir -p spool/staging/$ID.claim; ln -s $P/secret.json spool/staging/$ID.claim/x.json",
    "mkdir -p spool/staging/$ID.claim; mkfifo spool/staging/$ID.claim/y.json",
];

fn plant(shared: &Shared, precious: &Precious, number: usize, script: &str) {
    println!("{script}");
    let id = format!("task_0{:0>25}", number + 1);
    let session = format!("own-{number}");
    let task = shared.submit(GROUP_USER, &["--session-id", &session]);
    let precious = precious.path.display();
    // The task may have run already. Then a part of the script fails, and that case is valid too.
    shared.shell(
        GROUP_USER,
        &format!("T=spool/tasks/{task}; P={precious}; ID={id}; {script}"),
    );
}

/// After each script the owner's watcher still runs, takes drops and runs submitted tasks.
#[test]
fn files_that_a_group_user_plants_have_no_effect() {
    let shared = Shared::new();
    let precious = Precious::of(&shared);
    let mut watching = shared.watcher();
    let planted: Vec<(usize, &&str)> = PLANTED.iter().enumerate().collect();
    // Several at once on every change, one by one at full scale.
    for together in planted.chunks(pick(10, 1)) {
        for (number, script) in together {
            plant(&shared, &precious, *number, script);
        }
        let number = together[0].0;
        let name = format!("good-{number}");
        let dropped = format!(
            "printf '{{\"recipe\": \"echo\", \"input\": {number}}}' > spool/incoming/{name}.json"
        );
        shared.shell(GROUP_USER, &dropped).succeeds();
        watching.answers(&name, &format!("{number}\n"));
        assert!(watching.is_alive());
    }
    for session in ["s1", "s2", "s3", "s4", "s5"] {
        // Refused or left, but never followed.
        shared.run(
            GROUP_USER,
            &["submit", "--recipe", "echo", "--session-id", session],
        );
    }
    shared.submit(GROUP_USER, &["--name", "good", "--input", "1"]);
    let last = shared.submit(GROUP_USER, &["--input", "\"last\""]);
    watching.answers(&last, "last\n");
    // Reading, cancelling and clearing do not follow the links either.
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["cancel", "--all"],
        &["clear"],
        &["sweep"],
    ] {
        let ran = shared.run(OWNER, arguments);
        assert!(
            !format!("{}{}", ran.stdout, ran.stderr).contains(SECRET),
            "{}",
            ran.stdout
        );
    }
    shared.run(OWNER, &["list"]).succeeds();
    precious.is_untouched();
    assert_eq!(leaks(&shared, &watching.log()), Vec::<String>::new());
    assert!(watching.is_alive());
    figure("hostile group users: things planted", PLANTED.len());
    figure("hostile group users: violations", 0);
}

/// A recipe writes by path, so nobody may exchange the folders above its files while it runs.
#[test]
fn a_recipe_writes_only_in_the_folders_that_the_runner_created() {
    let shared = Shared::new();
    let precious = Precious::of(&shared);
    let root = shared.world.root().to_owned();
    let go = root.join("go");
    let began = root.join("owner/began");
    shared.recipe(
        "slow",
        &format!(
            "#!/bin/sh\n: >{began}\nuntil [ -e {go} ]; do sleep 0.05; done\n\
             echo result >\"$AGENTSPOOL_RESULT_FILE\"\necho 50 >>\"$AGENTSPOOL_PROGRESS_FILE\"\n\
             echo x >x\necho x >\"$TMPDIR/x\"\necho x >\"$AGENTSPOOL_SESSION_DIR/x\"\n\
             echo x >\"$PWD/y\"\ncat \"$AGENTSPOOL_INPUT_FILE\"\n",
            began = began.display(),
            go = go.display()
        ),
    );
    let _watching = shared.watcher();
    let submitted = [
        "submit",
        "--recipe",
        "slow",
        "--session-id",
        "s",
        "--input",
        "7",
    ];
    let object = shared.json(GROUP_USER, &submitted);
    let id = object["task_id"].as_str().unwrap().to_owned();
    shared.world.wait_until("it runs", || began.exists());
    let precious_path = precious.path.display();
    for script in [
        format!("mv spool/tasks/{id} spool/tasks/moved"),
        format!("mv spool/tasks/{id} spool/incoming/moved"),
        format!("ln -s {precious_path}/attempts spool/tasks/{id}/attempts/2"),
        format!("mv spool/tasks/{id}/attempts/1 spool/incoming/1"),
        format!("chmod 0 spool/tasks/{id}"),
        format!("setfacl -d -m u:{GROUP_USER}:rwx spool/tasks/{id}"),
        format!("touch spool/tasks/{id}/cancel"),
        format!("echo '{{}}' > spool/tasks/{id}/result.json"),
        "mv spool/sessions/s spool/sessions/moved".to_owned(),
        "ls spool/sessions/s".to_owned(),
        "mkdir spool/tasks/mine".to_owned(),
        format!("mkdir spool/staging/{id}"),
        "touch spool/open/x".to_owned(),
        format!("ln -s {precious_path} spool/names/x"),
    ] {
        assert_ne!(shared.shell(GROUP_USER, &script).code, 0, "{script}");
    }
    fs::write(&go, "").unwrap();
    let folder = shared.spool().join("tasks").join(&id);
    shared
        .world
        .wait_until("it ended", || folder.join("result.json").exists());
    precious.is_untouched();
    let result = crate::support::read_json(&folder.join("result.json"));
    assert_eq!(result["output"], "result", "{result}");
    assert!(shared.spool().join("sessions/s/state/x").exists());
    for file in ["x", "y"] {
        assert!(folder.join("attempts/1/work").join(file).exists(), "{file}");
    }
}

/// A process that can open a file can lock it: a group user locks everything that he can open, for as long as
/// he likes.
#[test]
fn a_group_user_cannot_hold_a_lock_that_others_need() {
    let shared = Shared::new();
    let first = shared.submit(GROUP_USER, &["--session-id", "s", "--name", "first"]);
    shared.drain();
    const HOLD: &str = "use File::Find; my @held; \
        find({ no_chdir => 1, wanted => sub { -l $_ and return; -p $_ and return; \
        open(my $file, '<', $_) or return; flock($file, 6) and push @held, $file; } }, $ARGV[0]); \
        $| = 1; print scalar(@held), \"\\n\"; sleep 1000";
    let mut holder = shared
        .as_user(GROUP_USER, "perl")
        .args(["-e", HOLD, shared.spool().to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut counted = String::new();
    let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut counted).unwrap();
    let held: usize = counted.trim().parse().unwrap();
    assert!(held > 5, "{counted}");
    shared
        .run(OWNER, &["init", shared.spool().to_str().unwrap()])
        .succeeds();
    shared
        .run(OWNER, &["config", "set", "max_concurrent", "2"])
        .succeeds();
    let next = shared.submit(OTHER_GROUP_USER, &["--session-id", "s", "--name", "first"]);
    let own = shared.submit(OWNER, &["--session-id", "s", "--name", "first"]);
    shared.drain();
    for id in [&next, &own] {
        assert_eq!(shared.json(OWNER, &["status", id])["status"], "completed");
    }
    shared.run(OWNER, &["sweep"]).succeeds();
    let cleared = shared.json(OWNER, &["clear"]);
    assert_eq!(cleared["cleared"], 3, "{cleared} {first}");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// The owner keeps a task from removal with a lock that nobody else can take.
#[test]
fn only_the_owners_readers_keep_a_task_from_removal() {
    let shared = Shared::new();
    for (key, value) in [("cleanup_delay_sec", "0"), ("sweep_every_sec", "86400")] {
        shared.run(OWNER, &["config", "set", key, value]).succeeds();
    }
    let (kept, other) = (shared.submit(OWNER, &[]), shared.submit(OWNER, &[]));
    shared.drain();
    const HOLD: &str = "use Fcntl; umask 077; sysopen(F, $ARGV[0], O_RDWR | O_CREAT) or \
        open(F, '<', $ARGV[1]) or die; flock(F, 5) or die; $| = 1; print \"held\\n\"; sleep 1000";
    let hold = |uid, id: &str| {
        let folder = shared.spool().join("tasks").join(id);
        let mut holder = shared
            .as_user(uid, "perl")
            .args(["-e", HOLD])
            .args([folder.join("readers"), folder])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = [0u8; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut printed).unwrap();
        holder
    };
    let mut holders = [hold(OWNER, &kept), hold(GROUP_USER, &other)];
    let sweep = || {
        // The first pass only records the clocks.
        shared.run(OWNER, &["sweep"]).succeeds();
        shared.run(OWNER, &["sweep"]).succeeds();
        names_in(&shared.spool().join("tasks"))
    };
    assert_eq!(sweep(), std::slice::from_ref(&kept), "{other}");
    for holder in &mut holders {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    assert!(sweep().is_empty(), "{}", shared.tree());
}

/// Only users who can open a file can lock it.
#[test]
fn a_group_user_holds_no_slot() {
    let shared = Shared::new();
    let first = shared.submit(GROUP_USER, &[]);
    shared.drain();
    for script in [
        "ls spool/slots",
        "flock -n spool/slots true",
        "flock -n spool/slots/0 true",
    ] {
        assert_ne!(shared.shell(GROUP_USER, script).code, 0, "{script}");
    }
    assert_eq!(
        shared.json(GROUP_USER, &["status", &first])["status"],
        "completed"
    );
}

/// A hard link to a file of the owner's. Some kernels forbid it, others do not.
#[test]
fn a_hard_link_to_a_file_of_the_owner_is_refused_and_not_shown() {
    let shared = Shared::new();
    let precious = Precious::of(&shared);
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let linked = shared.spool().join("incoming/linked.json");
    fs::hard_link(precious.path.join("secret.json"), linked).unwrap();
    shared.drain();
    let message = shared.run(GROUP_USER, &["status", "linked"]);
    message.ends_with(7);
    assert!(message.stderr.contains("hard link"), "{}", message.stderr);
    assert!(!message.stderr.contains(SECRET), "{}", message.stderr);
    let rejected = shared.spool().join("rejected");
    let kept = names_in(&rejected)
        .into_iter()
        .find(|name| name.ends_with("-linked.json"))
        .unwrap();
    // The file keeps its own mode and owner.
    assert_ne!(
        shared
            .shell(
                GROUP_USER,
                &format!("cat {}", rejected.join(kept).display())
            )
            .stdout,
        SECRET
    );
    precious.is_untouched();
}

/// Files that a recipe leaves open in its own folder, or that its umask leaves writable, are closed to the
/// group.
#[test]
fn files_that_a_recipe_leaves_writable_are_closed_to_the_group() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "umask", "000"])
        .succeeds();
    shared.recipe(
        "open",
        "#!/bin/sh\numask >\"$AGENTSPOOL_RESULT_FILE\"\ntouch scratch\nchmod 666 scratch\n",
    );
    let submitted = shared.json(GROUP_USER, &["submit", "--recipe", "open"]);
    let id = submitted["task_id"].as_str().unwrap();
    shared.drain();
    assert_eq!(shared.json(GROUP_USER, &["result", id])["output"], "0022");
    let attempt = shared.spool().join("tasks").join(id).join("attempts/1");
    let scratch = attempt.join("work/scratch");
    let tried = shared.shell(GROUP_USER, &format!("echo mine >{}", scratch.display()));
    assert_ne!(tried.code, 0, "{}", shared.tree());
    let output = attempt.join("output");
    let tried = shared.shell(
        GROUP_USER,
        &format!("cat {0} && echo mine >{0}", output.display()),
    );
    assert_eq!(tried.stdout, "0022\n", "{}", shared.tree());
    assert_ne!(tried.code, 0);
}
