//! `init` in folders that others could write: other users' folders, open folders, and group spools of version
//! 1.
//!
//! Needs root and strace. Checked: nothing of another user is changed; nothing that a group user put, renamed
//! or wrote counts; neither he nor one damaged task stops a conversion; an interrupted conversion is
//! continued.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::group::{GROUP, GROUP_USER, OWNER, STRANGER, Shared};
use crate::support::{Ran, names_in};

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Changes the spool to what a program of version 1 would have left.
pub fn age(shared: &Shared) {
    let spool = shared.spool();
    for folder in ["staging", "tasks", "names", "open", "sessions"] {
        mode(&spool.join(folder), 0o2770);
    }
    for id in names_in(&spool.join("tasks")) {
        let task = spool.join("tasks").join(id);
        mode(&task, 0o2770);
        mode(&task.join("attempts"), 0o2770);
        for file in ["request.json", "status.json", "lock"] {
            mode(&task.join(file), 0o660);
        }
    }
    let text = "{\"v\": 1, \"shared\": true, \"rescan_sec\": 0.3}";
    fs::write(spool.join("spool.json"), text).unwrap();
}

pub fn init(shared: &Shared, uid: u32, more: &[&str]) -> Ran {
    let spool = shared.spool();
    let arguments = [&["init", spool.to_str().unwrap()], more].concat();
    shared.run(uid, &arguments)
}

/// A process that holds a lock until it is killed.
pub fn hold(shared: &Shared, uid: u32, file: &Path) -> Child {
    const HOLD: &str =
        "open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; print 'h'; sleep 1000";
    let mut holder = shared
        .as_user(uid, "perl")
        .args(["-e", HOLD])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0u8]).unwrap();
    holder
}

#[test]
fn init_changes_no_folder_of_another_user() {
    let shared = Shared::new();
    age(&shared);
    let empty = shared.world.root().join("owner/empty");
    fs::create_dir(&empty).unwrap();
    chown(&empty, Some(OWNER), Some(GROUP)).unwrap();
    let before = shared.tree();
    let own = shared.world.command(&[]).get_program().to_owned();
    for path in [shared.spool(), empty.clone()] {
        let as_root = Ran::of(std::process::Command::new(&own).arg("init").arg(&path));
        as_root.ends_with(4);
        assert!(
            as_root.stderr.contains("belongs to user"),
            "{}",
            as_root.stderr
        );
    }
    assert_eq!(shared.tree(), before);
    assert!(names_in(&empty).is_empty());
}

#[test]
fn files_that_others_put_into_an_open_folder_are_not_in_a_new_spool() {
    let shared = Shared::new();
    let above = shared.world.root().join("owner");
    let place = |name: &str| {
        let folder = above.join(name);
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(OWNER), Some(GROUP)).unwrap();
        mode(&folder, 0o2777);
        folder
    };
    // A lock that he holds, and settings that are his.
    for planted in ["spool.lock", "spool.json"] {
        let folder = place(&format!("with-{planted}"));
        let file = folder.join(planted);
        let plant = format!("umask 0; echo '{{\"v\": 2}}' >{}", file.display());
        shared.shell(STRANGER, &plant).succeeds();
        let ran = shared.run(OWNER, &["init", folder.to_str().unwrap()]);
        ran.ends_with(4);
        assert!(ran.stderr.contains(planted), "{}", ran.stderr);
        assert_eq!(
            (mode_of(&folder), names_in(&folder)),
            (0o2777, vec![planted.to_owned()])
        );
    }
    // He acts as early as possible: from the first file on, while the owner's first sync takes long.
    let folder = place("raced");
    let plant = "while [ ! -e spool.lock ]; do :; done; echo seen; \
                 mkdir recipes && echo planted; read line";
    let mut planter = shared
        .as_user(GROUP_USER, "sh")
        .args(["-c", plant])
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let program = shared.world.command(&[]).get_program().to_owned();
    Ran::of(
        shared
            .as_user(OWNER, "timeout")
            .args(["10", "strace", "-f", "-qq", "-o", "/dev/null", "-e"])
            .arg("inject=fsync:delay_enter=500000:when=1")
            .arg(program)
            .arg("init")
            .arg(&folder),
    )
    .succeeds();
    planter.kill().unwrap();
    planter.wait().unwrap();
    assert_eq!(fs::metadata(folder.join("recipes")).unwrap().uid(), OWNER);
    assert_eq!(mode_of(&folder), 0o700);
}

#[test]
fn init_of_a_group_spool_reports_what_it_cannot_do() {
    let shared = Shared::new();
    let spool = shared.spool();
    let group = GROUP.to_string();
    let private = shared.world.root().join("owner/private");
    let path = private.to_str().unwrap();
    shared.run(OWNER, &["init", path]).succeeds();
    let ran = shared.run(OWNER, &["init", path, "--group", &group]);
    ran.ends_with(8);
    assert!(ran.stderr.contains("a private spool"), "{}", ran.stderr);
    let own = (OWNER + 1000).to_string();
    let ran = init(&shared, OWNER, &["--group", &own]);
    ran.ends_with(8);
    assert!(
        ran.stderr.contains(&format!("group {GROUP}")),
        "{}",
        ran.stderr
    );
    // Each time, and nothing is created.
    let new = shared.world.root().join("owner/new");
    for _ in 0..2 {
        let ran = shared.run(OWNER, &["init", new.to_str().unwrap(), "--group", "9999"]);
        ran.ends_with(4);
        assert!(!new.exists());
    }
    shared
        .run(
            OWNER,
            &["init", new.to_str().unwrap(), "--group", "4294967295"],
        )
        .ends_with(2);
    // Modes that differ from the layout are fixed.
    mode(&spool, 0o750);
    mode(&spool.join("tasks"), 0o755);
    init(&shared, OWNER, &["--group", &group]).succeeds();
    assert_eq!(
        (mode_of(&spool), mode_of(&spool.join("tasks"))),
        (0o2750, 0o2750)
    );
}

/// Whatever modes a restore or a person has set, `doctor` names them, and one `init` lets the group in again.
#[test]
fn lost_modes_are_named_and_set_again() {
    let group = GROUP.to_string();
    let own = (OWNER + 1000).to_string();
    let shared = Shared::new();
    let held = shared.submit(OWNER, &[]);
    let changes = [
        "chmod 700 spool",
        "chmod 700 spool/incoming",
        "chmod 3770 spool/incoming",
        "chmod 600 spool/identity.json",
        "chmod 600 spool/spool.json",
        "chmod 2755 spool/tasks",
        "chmod 755 spool/sessions",
        "chmod 2755 spool/staging",
        "chmod 644 spool/spool.lock",
        "chmod 700 spool/recipes",
        "setfacl -m u:64004:rx spool/tasks",
        "setfacl -d -m u:64004:rwx spool/open",
        "chgrp OWN spool/identity.json",
        "chgrp OWN spool",
    ];
    for change in changes {
        let change = change.replace("OWN", &own);
        shared.shell(OWNER, &change).succeeds();
        let path = change.rsplit(' ').next().unwrap();
        let path = shared.spool().parent().unwrap().join(path);
        let doctor = shared.run(OWNER, &["doctor"]).stdout;
        let named = format!("problem  spool: {} ", path.display());
        assert!(doctor.contains(&named), "{change}: {doctor}");
        let lines = doctor.matches("problem  spool: ").count();
        assert_eq!(lines, 1, "{change}: {doctor}");
        // A person has to decide which of two groups is right.
        let is_root_group = change == format!("chgrp {own} spool");
        if is_root_group {
            init(&shared, OWNER, &[]).succeeds();
            assert!(shared.run(OWNER, &["doctor"]).stdout.contains(&named));
        }
        let more: &[&str] = if is_root_group {
            &["--group", &group]
        } else {
            &[]
        };
        init(&shared, OWNER, more).succeeds();
        let doctor = shared.run(OWNER, &["doctor"]).stdout;
        assert!(doctor.contains("ok       spool: "), "{change}: {doctor}");
        shared.submit(GROUP_USER, &[]);
        shared.run(STRANGER, &["list"]).ends_with(8);
    }
    // Many of them add one line, not one line each.
    shared
        .shell(
            OWNER,
            "chmod 700 spool spool/incoming spool/tasks spool/names spool/open",
        )
        .succeeds();
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    assert!(doctor.contains(", and 2 more like it"), "{doctor}");
    init(&shared, OWNER, &[]).succeeds();
    // A file that nobody can open does not count as complete, and neither does a lock that others can open.
    let tasks = shared.spool().join("tasks");
    mode(&tasks.join(&held).join("lock"), 0o644);
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    assert!(
        doctor.contains("`lock` that other users can open"),
        "{doctor}"
    );
    mode(&tasks, 0);
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    assert!(doctor.contains(&tasks.display().to_string()), "{doctor}");
}

#[test]
fn an_interrupted_init_is_continued() {
    let shared = Shared::new();
    let program = shared.world.command(&[]).get_program().to_owned();
    let path = shared.world.root().join("owner/cut");
    let group = GROUP.to_string();
    for call in ["fchmodat", "fchownat", "renameat", "mkdirat", "renameat2"] {
        for when in [1, 2, 3] {
            let _ = fs::remove_dir_all(&path);
            let init = |command: &mut std::process::Command| {
                Ran::of(command.arg("init").arg(&path).args(["--group", &group]))
            };
            let inject = format!("inject={call}:signal=KILL:when={when}");
            init(
                shared
                    .as_user(OWNER, "strace")
                    .args(["-f", "-qq", "-o", "/dev/null", "-e", &inject])
                    .arg(&program),
            );
            init(&mut shared.as_user(OWNER, "agentspool")).succeeds();
            for (entry, expected) in [("", 0o2750), ("incoming", 0o3730), ("spool.json", 0o640)] {
                let metadata = fs::metadata(path.join(entry)).unwrap();
                let is = (metadata.mode() & 0o7777, metadata.gid());
                assert_eq!(is, (expected, GROUP), "{call} {when} {entry}");
            }
        }
    }
}

#[test]
fn files_that_a_group_user_renamed_do_not_count() {
    let shared = Shared::new();
    let ids: Vec<String> = (0..8).map(|_| shared.submit(OWNER, &[])).collect();
    let done = shared.submit(OWNER, &["--name", "done"]);
    shared.drain();
    let waiting = shared.submit(OWNER, &[]);
    let other = shared.submit(OWNER, &[]);
    age(&shared);
    let spool = shared.spool();
    // A result, an origin, an attempt, and a folder that all can write, under the names that count.
    let forge = format!(
        "cd spool/tasks; a={} b={} c={} d={} e={} f={} w={waiting} o={other}; \
         sed s/$a/$w/ $a/result.json >$a/request.json && mv $a/request.json $w/result.json; \
         echo '{{\"v\": 2, \"uid\": {GROUP_USER}}}' >$b/request.json && mv $b/request.json $w/origin.json; \
         mv $c/request.json $w/attempts/4294967295; mv $d/request.json $w/readers; \
         mv $e/attempts $f/deep; mv $e $w/attempts/1; mkdir -p $o/cancel/in; chmod 0 $o/cancel; \
         mv $b ../names/plain; mv $c .rejected.mine",
        ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]
    );
    shared.shell(GROUP_USER, &forge).succeeds();
    // He holds a lock that he can open, and the owner made a backup with hard links.
    let start = spool.join("watchers/start");
    fs::write(&start, "").unwrap();
    chown(&start, Some(OWNER), Some(GROUP)).unwrap();
    mode(&start, 0o640);
    let mut holder = hold(&shared, GROUP_USER, &start);
    shared.shell(OWNER, "cp -al spool backup");
    init(&shared, OWNER, &[]).succeeds();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let find = "find spool ! -path 'spool/incoming*' \\( -type d -o -type f \\) -writable";
    let writable = shared.shell(GROUP_USER, find);
    assert_eq!(writable.stdout, "", "{}", shared.tree());
    let task = spool.join("tasks").join(&waiting);
    let mut left = names_in(&task);
    left.sort();
    assert_eq!(left, ["attempts", "lock", "request.json"]);
    assert!(names_in(&task.join("attempts")).is_empty());
    assert_eq!(
        shared.json(OWNER, &["status", "done"])["status"],
        "completed"
    );
    let kept = spool.join("tasks").join(&done).join("attempts/1");
    assert!(kept.is_dir(), "{}", shared.tree());
    shared.drain();
    for id in [&waiting, &other] {
        assert_eq!(shared.json(OWNER, &["status", id])["status"], "completed");
    }
    // Folders that he has closed are not removed by a sweep, and do not make it fail.
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    for _ in 0..2 {
        shared.run(OWNER, &["sweep"]).succeeds();
    }
    let doctor = shared.run(OWNER, &["doctor"]);
    assert!(
        doctor.stdout.contains(&format!(
            "belongs to user {GROUP_USER}, so a sweep cannot remove it"
        )),
        "{}",
        doctor.stdout
    );
}

#[test]
fn a_recipe_that_the_group_can_write_is_not_run() {
    let shared = Shared::new();
    let recipes = shared.spool().join("recipes");
    let make = "cd spool/recipes; mkdir rdir; echo 'command = [\"true\"]' >rdir/recipe.toml; \
                cp echo listed; chmod 755 listed rdir";
    shared.shell(OWNER, make).succeeds();
    shared
        .run(OWNER, &["submit", "--recipe", "rdir"])
        .succeeds();
    shared
        .shell(OWNER, "chmod 664 spool/recipes/rdir/recipe.toml")
        .succeeds();
    shared
        .shell(
            OWNER,
            &format!("setfacl -m u:{GROUP_USER}:rwx spool/recipes/listed"),
        )
        .succeeds();
    for (recipe, what) in [("rdir", "rdir/recipe.toml"), ("listed", "listed")] {
        let what = recipes.join(what).display().to_string();
        let ran = shared.run(GROUP_USER, &["submit", "--recipe", recipe]);
        ran.ends_with(4);
        assert!(ran.stderr.contains(&what), "{}", ran.stderr);
        let doctor = shared.run(OWNER, &["doctor"]);
        assert!(
            doctor.stdout.contains(&format!("recipe path: {what}")),
            "{}",
            doctor.stdout
        );
    }
    // Also not a recipe whose task was submitted before.
    shared.drain();
    let id = shared.json(OWNER, &["list"])["tasks"][0]["task_id"].clone();
    let status = shared.json(OWNER, &["status", id.as_str().unwrap()]);
    assert_eq!(status["status"], "failed", "{status}");
}

/// Only the owner and root may be able to change files that a manifest names, and links on the way to them,
/// as with the recipe itself.
#[test]
fn programs_that_a_recipe_names_need_the_same_trust() {
    let shared = Shared::new();
    let owner = shared.world.root().join("owner");
    let make = format!(
        "umask 022; mkdir team real real/lib; chgrp {GROUP} team; chmod 2775 team; cp /bin/true team/prog; \
         echo A=b >team/job.env; echo PATH={0}/team >real/path.env; chmod 600 team/job.env real/path.env; \
         ln -s ../real team/turn; cd spool/recipes; mkdir envfile envpath path helper turned; \
         printf 'command = [\"true\"]\nenv_file = \"{0}/team/job.env\"\n' >envfile/recipe.toml; \
         printf 'command = [\"prog\"]\nenv_file = \"{0}/real/path.env\"\n' >envpath/recipe.toml; \
         printf 'command = [\"prog\"]\n[env]\nPATH = \"/bin:{0}/team/absent\"\n' >path/recipe.toml; \
         for r in helper turned; do echo 'command = [\"true\"]' >$r/recipe.toml; done; \
         ln -s {0}/team/turn/lib helper/lib; mv turned {0}/real; ln -s {0}/team/turn/turned turned",
        owner.display()
    );
    shared.shell(OWNER, &make).succeeds();
    let team = owner.join("team").display().to_string();
    for recipe in ["envfile", "envpath", "path", "helper", "turned"] {
        let ran = shared.run(OWNER, &["submit", "--recipe", recipe]);
        ran.ends_with(4);
        assert!(
            ran.stderr
                .contains(&format!("{team}: group {GROUP} may write")),
            "{}",
            ran.stderr
        );
        let doctor = shared.run(OWNER, &["doctor"]).stdout;
        assert!(
            doctor.contains(&format!("the recipe {recipe} is not run: {team}")),
            "{doctor}"
        );
    }
    mode(&owner.join("team"), 0o755);
    for recipe in ["envfile", "helper", "turned"] {
        shared
            .run(OWNER, &["submit", "--recipe", recipe])
            .succeeds();
    }
}

/// Opens and locks a file, prints a line, and becomes another program that runs for long.
fn hold_as(shared: &Shared, uid: u32, file: &Path, program: &Path) -> Child {
    const HOLD: &str = "$^F = 9; open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; \
                        print 'h'; exec($ARGV[1], 1000) or die";
    let mut holder = shared
        .as_user(uid, "perl")
        .args(["-e", HOLD])
        .args([file, program])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0u8]).unwrap();
    let pid = holder.id();
    shared.world.wait_until("it is the program", || {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
    });
    holder
}

/// For a set-user-id program that a group user started, `/proc` shows root as the owner.
#[test]
fn a_set_user_id_program_with_a_lock_does_not_stop_a_conversion() {
    let shared = Shared::new();
    let id = shared.submit(OWNER, &[]);
    age(&shared);
    let program = shared.world.root().join("as-root");
    fs::copy("/bin/sleep", &program).unwrap();
    mode(&program, 0o4755);
    let lock = shared.spool().join("tasks").join(&id).join("lock");
    let mut holder = hold_as(&shared, GROUP_USER, &lock, &program);
    let owner = fs::metadata(format!("/proc/{}", holder.id()))
        .unwrap()
        .uid();
    assert_eq!(owner, 0, "the file system allows no set-user-id programs");
    let ran = init(&shared, OWNER, &[]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    ran.succeeds();
    shared.run(OWNER, &["status", &id]).succeeds();
}

/// `init` in a container, which sees neither the holder in `/proc` nor its lock in the kernel's table.
fn init_in_container(shared: &Shared) -> Ran {
    let command = shared.as_user(OWNER, "agentspool");
    let mut within = std::process::Command::new("unshare");
    within.args(["--pid", "--fork", "--mount-proc"]);
    within.arg(command.get_program()).args(command.get_args());
    within.arg("init").arg(shared.spool()).current_dir("/");
    within.env_clear().envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    Ran::of(&mut within)
}

#[test]
fn a_lock_of_an_unseen_process_counts_only_with_a_record_of_the_owner() {
    let shared = Shared::new();
    let id = shared.submit(OWNER, &[]);
    age(&shared);
    let lock = shared.spool().join("tasks").join(&id).join("lock");
    let mut holder = hold(&shared, GROUP_USER, &lock);
    let ran = init_in_container(&shared);
    holder.kill().unwrap();
    holder.wait().unwrap();
    ran.succeeds();

    // A task that does run.
    let shared = Shared::new();
    shared.recipe("long", "#!/bin/sh\n: >ready\nexec sleep 1000\n");
    let id = shared.json(OWNER, &["submit", "--recipe", "long"])["task_id"].clone();
    let task = shared.spool().join("tasks").join(id.as_str().unwrap());
    let mut watching = shared.watcher();
    shared
        .world
        .wait_for_file(&task.join("attempts/1/work/ready"));
    age(&shared);
    let ran = init_in_container(&shared);
    ran.ends_with(8);
    assert!(ran.stderr.contains("a watcher"), "{}", ran.stderr);
    watching.kill();
    let ran = init_in_container(&shared);
    ran.ends_with(8);
    let message = format!(
        "if there is no such process, remove {}",
        task.join("lock").display()
    );
    assert!(ran.stderr.contains(&message), "{}", ran.stderr);
    // If the holder can be seen, it is named.
    let ran = init(&shared, OWNER, &[]);
    ran.ends_with(8);
    assert!(ran.stderr.contains("(pid "), "{}", ran.stderr);
    let text = "{\"v\": 2, \"shared\": true}";
    fs::write(shared.spool().join("spool.json"), text).unwrap();
    for folder in ["staging", "tasks", "names", "open", "sessions"] {
        mode(&shared.spool().join(folder), 0o2750);
    }
    shared
        .run(OWNER, &["cancel", id.as_str().unwrap()])
        .succeeds();
}
