//! A member of the group who wants what is the owner's: files, processes, secrets, or peace.
//!
//! Not ordinary use of a group spool (`group.rs`) and not what lies in the drop box (`hostile.rs`). A member
//! may write in `staging tasks names open sessions`, so he can put anything there. What is held: nothing of the owner's outside the spool
//! is written, removed, signalled or shown by it, and other tasks go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::group::{MEMBER, OWNER, Shared};
use crate::scale::{figure, pick};
use crate::support::names_in;

const SECRET: &str = "hunter2 of sesame";

/// The owner's own folder beside the spool, and what must still be so at the end.
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

/// Where the secret is seen by others than the owner: in any regular file of the spool, and in what
/// the watcher said.
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

/// Each line is a shell script of the member's, in the folder above the spool; `$T` is a new task
/// of his that nobody runs yet, `$P` the owner's precious folder, `$ID` an id that nobody has.
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
    let task = shared.submit(MEMBER, &["--session-id", &session]);
    let precious = precious.path.display();
    // It may have run already: then some of it fails, which is as good a case.
    shared.shell(
        MEMBER,
        &format!("T=spool/tasks/{task}; P={precious}; ID={id}; {script}"),
    );
}

/// After each of them the owner's watcher lives, takes what is dropped and runs what is submitted.
#[test]
fn what_a_member_plants_leads_nowhere_and_stops_nothing() {
    let shared = Shared::new();
    let precious = Precious::of(&shared);
    let mut watching = shared.watcher();
    let planted: Vec<(usize, &&str)> = PLANTED.iter().enumerate().collect();
    // Several at once on every change, one by one when there is time.
    for together in planted.chunks(pick(10, 1)) {
        for (number, script) in together {
            plant(&shared, &precious, *number, script);
        }
        let number = together[0].0;
        let name = format!("good-{number}");
        let dropped = format!(
            "printf '{{\"recipe\": \"echo\", \"input\": {number}}}' > spool/incoming/{name}.json"
        );
        shared.shell(MEMBER, &dropped).succeeds();
        watching.answers(&name, &format!("{number}\n"));
        assert!(watching.is_alive());
    }
    for session in ["s1", "s2", "s3", "s4", "s5"] {
        // Refused or left, but never followed.
        shared.run(
            MEMBER,
            &["submit", "--recipe", "echo", "--session-id", session],
        );
    }
    shared.submit(MEMBER, &["--name", "good", "--input", "1"]);
    let last = shared.submit(MEMBER, &["--input", "\"last\""]);
    watching.answers(&last, "last\n");
    // Nor does reading, cancelling or clearing go where the links lead.
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
    figure("hostile members: things planted", PLANTED.len());
    figure("hostile members: violations", 0);
}

/// What a runner of the owner's looks like on the disk is easy to copy, numbers included.
#[test]
fn a_forged_attempt_signals_nobody() {
    let shared = Shared::new();
    let real = shared.submit(MEMBER, &[]);
    shared.drain();
    // Somebody of the owner's who has nothing to do with the spool, and leads a group.
    let mut command = shared.as_user(OWNER, "setsid");
    let mut bystander = command.args(["sleep", "1000"]).spawn().unwrap();
    let pid = bystander.id();
    let is_sleeping = || {
        let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text.starts_with("sleep")
    };
    shared.world.wait_until("the bystander sleeps", is_sleeping);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();

    let forged = shared.submit(MEMBER, &["--name", "forged"]);
    let attempts = shared.spool().join("tasks").join(&real).join("attempts");
    let mut run: Value = crate::support::read_json(&attempts.join("1/run.json"));
    run["mark"] = json!(run["mark"].as_str().unwrap().replace(&real, &forged));
    run["task_id"] = json!(forged);
    run["child"] = json!({"pid": pid, "start": start});
    let copy = shared.world.root().join("run.json");
    fs::write(&copy, run.to_string()).unwrap();
    let boot = names_in(&attempts)
        .into_iter()
        .find(|name| name.starts_with(".1."))
        .unwrap();
    let script = format!(
        "cd spool/tasks/{forged}/attempts && mkdir 1 && cp {} 1/run.json && : >{boot}",
        copy.display()
    );
    shared.shell(MEMBER, &script).succeeds();
    shared.drain();
    let told = shared.json(OWNER, &["status", "forged"]);
    assert_eq!(told["status"], "failed", "{told}");
    assert_eq!(told["error"]["kind"], "lost", "{told}");
    assert!(
        is_sleeping() && bystander.try_wait().unwrap().is_none(),
        "it was signalled"
    );
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// A recipe writes by path, so the paths it is told must not go through folders that a member can
/// exchange while it runs.
#[test]
fn a_recipe_writes_where_the_runner_made_room_and_nowhere_else() {
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
             cat \"$AGENTSPOOL_INPUT_FILE\"\n",
            began = began.display(),
            go = go.display()
        ),
    );
    let _watching = shared.watcher();
    let object = shared.json(
        MEMBER,
        &[
            "submit",
            "--recipe",
            "slow",
            "--session-id",
            "s",
            "--input",
            "7",
        ],
    );
    let id = object["task_id"].as_str().unwrap().to_owned();
    shared.world.wait_until("it runs", || began.exists());
    let swapped = format!(
        "P={p}; cd spool; mv tasks/{id} tasks/moved && mkdir -p tasks/{id} && ln -s $P/attempts tasks/{id}/attempts; \
         mv sessions/s sessions/moved && ln -s $P sessions/s",
        p = precious.path.display()
    );
    shared.shell(MEMBER, &swapped).succeeds();
    fs::write(&go, "").unwrap();
    let moved = shared.spool().join("tasks/moved");
    shared
        .world
        .wait_until("it ended", || moved.join("result.json").exists());
    precious.is_untouched();
    let result = crate::support::read_json(&moved.join("result.json"));
    assert_eq!(result["output"], "result", "{result}");
    assert!(shared.spool().join("sessions/moved/state/x").exists());
    assert!(moved.join("attempts/1/work/x").exists());
}

/// The runner holds the only place there is, and cannot write its result.
#[test]
fn a_member_who_shuts_his_task_keeps_no_place() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "max_concurrent", "1"])
        .succeeds();
    let go = shared.world.root().join("go");
    let began = shared.world.root().join("owner/began");
    let script = format!(
        "#!/bin/sh\n: >{}\nuntil [ -e {} ]; do sleep 0.05; done\n",
        began.display(),
        go.display()
    );
    shared.recipe("slow", &script);
    let watching = shared.watcher();
    let object = shared.json(MEMBER, &["submit", "--recipe", "slow"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    shared.world.wait_until("it runs", || began.exists());
    shared
        .shell(MEMBER, &format!("chmod 0 spool/tasks/{id}"))
        .succeeds();
    fs::write(&go, "").unwrap();
    let next = shared.submit(MEMBER, &["--input", "2"]);
    watching.answers(&next, "2\n");
    // The others are listed, and this one is shown as what it is.
    let listed = shared.json(OWNER, &["list"]);
    assert_eq!(listed["total"], 2, "{listed}");
    // Once it is open again it is settled: what ran is not run again.
    shared
        .shell(MEMBER, &format!("chmod 770 spool/tasks/{id}"))
        .succeeds();
    shared.world.wait_until("it is settled", || {
        shared.json(OWNER, &["status", &id])["status"] == "failed"
    });
    assert_eq!(
        shared.json(OWNER, &["status", &id])["error"]["kind"],
        "lost"
    );
}

/// Only those who can open a file can lock it.
#[test]
fn a_member_holds_no_slot() {
    let shared = Shared::new();
    let first = shared.submit(MEMBER, &[]);
    shared.drain();
    for script in [
        "ls spool/slots",
        "flock -n spool/slots true",
        "flock -n spool/slots/0 true",
    ] {
        assert_ne!(shared.shell(MEMBER, script).code, 0, "{script}");
    }
    assert_eq!(
        shared.json(MEMBER, &["status", &first])["status"],
        "completed"
    );
}

/// A second name for a file of the owner's: the kernel may forbid it and may not.
#[test]
fn a_hard_link_to_a_file_of_the_owner_is_refused_and_not_read_aloud() {
    let shared = Shared::new();
    let precious = Precious::of(&shared);
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let linked = shared.spool().join("incoming/linked.json");
    fs::hard_link(precious.path.join("secret.json"), linked).unwrap();
    shared.drain();
    let told = shared.run(MEMBER, &["status", "linked"]);
    told.ends_with(7);
    assert!(told.stderr.contains("hard link"), "{}", told.stderr);
    assert!(!told.stderr.contains(SECRET), "{}", told.stderr);
    let rejected = shared.spool().join("rejected");
    let kept = names_in(&rejected)
        .into_iter()
        .find(|name| name.ends_with("-linked.json"))
        .unwrap();
    // It keeps its own mode and owner there.
    assert_ne!(
        shared
            .shell(MEMBER, &format!("cat {}", rejected.join(kept).display()))
            .stdout,
        SECRET
    );
    precious.is_untouched();
}
