//! What others could write in a group spool of version 1 is copied or left. `init` never moves it into the new
//! spool.
//!
//! Needs root and strace. A spool of version 2 in which others can write is in `breach.rs`. Checked: a planted
//! file, a file or folder that a process has open, and a mount do not count afterwards;
//! finished tasks stay finished, and waiting tasks run; a private file of the owner is shown to nobody; an
//! interrupted conversion is continued.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use crate::convert::{age, hold, init, mode, mode_of};
use crate::group::{GROUP, GROUP_USER, OWNER, Shared};
use crate::support::{Ran, names_in};

/// A request of a task that a group user made up.
fn planted_id(n: u32) -> String {
    format!("task_01m8et7c6hppy6t50nbny5ydp{n}")
}

/// Runs `init` while something is mounted over a folder. The mount is removed afterwards.
fn init_with_mount(shared: &Shared, over: &Path) -> Ran {
    let command = shared.as_user(OWNER, "agentspool");
    let script = "mount -t tmpfs -o mode=700 none \"$0\" && exec \"$@\"";
    let mut within = Command::new("unshare");
    within.args(["--mount", "sh", "-c", script]).arg(over);
    within.arg(command.get_program()).args(command.get_args());
    within.arg("init").arg(shared.spool()).current_dir("/");
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let path = std::env::var("PATH").unwrap_or_default();
    within.env_clear().env("PATH", path).envs(variables);
    Ran::of(&mut within)
}

/// Everything that was put away, as text.
fn put_away(shared: &Shared) -> String {
    let rejected = shared.spool().join("rejected");
    let listed = Command::new("find").arg(rejected).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

fn status(shared: &Shared, id: &str) -> String {
    shared.json(OWNER, &["status", id])["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn nothing_is_writable(shared: &Shared) {
    let find = "find spool ! -path 'spool/incoming*' \\( -type d -o -type f \\) -writable";
    assert_eq!(
        shared.shell(GROUP_USER, find).stdout,
        "",
        "{}",
        shared.tree()
    );
}

/// The logs, the output and the record of an attempt are kept, as new files. Everything else in its folder is
/// put away, also if a process has it open.
#[test]
fn a_file_that_a_process_has_open_is_not_in_the_converted_attempt() {
    let shared = Shared::new();
    shared.recipe("big", "#!/bin/sh\necho said\nhead -c 1500000 /dev/zero | tr '\\0' a >\"$AGENTSPOOL_RESULT_FILE\"\n");
    let id = shared.json(OWNER, &["submit", "--recipe", "big"])["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    shared.drain();
    let result = shared.run(OWNER, &["result", &id]).stdout;
    assert_eq!(result.trim_end().len(), 1_500_000);
    let attempt = shared.spool().join("tasks").join(&id).join("attempts/1");
    let leave = format!(
        "umask 002; cd {}; mkdir -p shut/deep; chgrp {GROUP} shut shut/deep; chmod 2770 shut/deep shut; \
         printf whole >shut/deep/f; chmod 664 output shut/deep/f; chgrp {GROUP} output shut/deep/f",
        attempt.display()
    );
    shared.shell(OWNER, &leave).succeeds();
    age(&shared);
    let plant = format!(
        "mkdir {0}/shut/.anew; touch {0}/shut/.anew/x",
        attempt.display()
    );
    shared.shell(GROUP_USER, &plant).succeeds();
    let held = fs::File::options()
        .write(true)
        .open(attempt.join("output"))
        .unwrap();
    let mut writer = shared.as_user(GROUP_USER, "sh");
    writer.current_dir(attempt.join("shut/deep"));
    writer.args(["-c", "echo here; read line; echo forged >f; touch new; :"]);
    writer
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut [0u8; 4]).unwrap();
    mode(&attempt.join("shut"), 0o700);
    init(&shared, OWNER, &[]).succeeds();
    held.write_all_at(b"forged", 0).unwrap();
    writer.stdin.as_mut().unwrap().write_all(b"now\n").unwrap();
    writer.wait().unwrap();
    assert_eq!(shared.run(OWNER, &["result", &id]).stdout, result);
    assert_eq!(shared.run(OWNER, &["logs", &id]).stdout, "said\n");
    let mut names = names_in(&attempt);
    names.sort();
    assert_eq!(
        names,
        ["output", "run.json", "stderr.log", "stdout.log"],
        "{}",
        shared.tree()
    );
    assert!(!put_away(&shared).contains("/new"), "{}", put_away(&shared));
    assert!(
        put_away(&shared).contains("shut/deep/f"),
        "{}",
        put_away(&shared)
    );
    nothing_is_writable(&shared);
}

#[test]
fn a_private_file_that_was_moved_into_a_task_is_not_shown() {
    for (file, list) in [
        ("request.json", false),
        ("status.json", false),
        ("request.json", true),
    ] {
        let shared = Shared::new();
        let id = shared.submit(OWNER, &[]);
        age(&shared);
        let team = shared.spool().parent().unwrap().join("team");
        let task = shared.spool().join("tasks").join(&id);
        let own_group = OWNER + 1000;
        let (chmod, chgrp) = if list {
            (
                format!("setfacl -m u:{}:rw,g::--- team/private", OWNER + 500),
                GROUP,
            )
        } else {
            ("chmod 640 team/private".to_owned(), own_group)
        };
        let make = format!(
            "mkdir team; chgrp {GROUP} team; chmod 2775 team; cp {0}/{file} team/private; \
             chgrp {chgrp} team/private; chmod 600 team/private; {chmod}",
            task.display()
        );
        shared.shell(OWNER, &make).succeeds();
        assert_ne!(shared.shell(GROUP_USER, "cat team/private").code, 0);
        let take = format!("mv -f {}/private {}/{file}", team.display(), task.display());
        shared.shell(GROUP_USER, &take).succeeds();
        init(&shared, OWNER, &[]).succeeds();
        let shown = shared.shell(GROUP_USER, &format!("cat {}/{file}", task.display()));
        assert_eq!(shown.stdout, "", "{file} {list}");
        assert_eq!(task.exists(), file == "status.json", "{}", shared.tree());
    }
}

/// A file can be long and use no disk space, so its length must not become blocks.
#[test]
fn a_long_file_with_holes_fills_no_disk() {
    let shared = Shared::new();
    let ids = ["1", "2"].map(|input| shared.submit(OWNER, &["--input", input]));
    shared.drain();
    age(&shared);
    let log = |id: &String| {
        let attempt = shared.spool().join("tasks").join(id).join("attempts/1");
        attempt.join("stdout.log")
    };
    for (id, length) in ids.iter().zip([1u64 << 40, 1 << 29]) {
        let file = fs::File::options().write(true).open(log(id)).unwrap();
        file.set_len(length).unwrap();
    }
    init(&shared, OWNER, &[]).succeeds();
    assert!(!log(&ids[0]).exists(), "{}", shared.tree());
    let kept = fs::metadata(log(&ids[1])).unwrap();
    assert_eq!(kept.len(), 1 << 29);
    assert!(kept.blocks() < 1000, "{}", kept.blocks());
    for id in &ids {
        assert_eq!(status(&shared, id), "completed");
    }
}

/// A group user can mount a file system of his own over a folder that he can write, and unmount it later.
#[test]
fn files_under_a_mount_are_not_in_the_new_spool() {
    let shared = Shared::new();
    let done = shared.submit(OWNER, &["--input", "7"]);
    shared.drain();
    age(&shared);
    let tasks = shared.spool().join("tasks");
    let his = tasks.join(planted_id(0));
    let make = format!(
        "umask 0; mkdir -p {0}/attempts; echo '{{\"v\": 1, \"recipe\": \"echo\"}}' >{0}/request.json",
        his.display()
    );
    shared.shell(GROUP_USER, &make).succeeds();
    init_with_mount(&shared, &his).succeeds();
    assert!(!his.exists(), "{}", shared.tree());
    assert_eq!(status(&shared, &done), "completed");
    // A task that another program has finished stays finished, whatever is mounted in its folder.
    age(&shared);
    init_with_mount(&shared, &tasks.join(&done).join("attempts")).succeeds();
    assert_eq!(status(&shared, &done), "completed");
    assert_eq!(shared.run(OWNER, &["result", &done]).stdout, "7\n");
    nothing_is_writable(&shared);
}

#[test]
fn a_mount_over_a_folder_of_the_root_is_named() {
    for folder in ["names", "open", "tasks"] {
        let shared = Shared::new();
        let id = shared.submit(OWNER, &["--name", "kept"]);
        age(&shared);
        let path = shared.spool().join(folder);
        let ran = init_with_mount(&shared, &path);
        ran.ends_with(8);
        let named = format!("cannot create {} again", path.display());
        assert!(
            ran.stderr.contains(&named) && ran.stderr.contains("umount"),
            "{}",
            ran.stderr
        );
        init(&shared, OWNER, &[]).succeeds();
        assert_eq!(shared.json(OWNER, &["status", "kept"])["task_id"], id);
    }
}

/// The group user keeps a descriptor of a folder that was put away, and moves a folder of the owner into it.
#[test]
fn a_sweep_removes_no_file_that_was_moved_into_a_folder_put_away() {
    let shared = Shared::new();
    let id = shared.submit(OWNER, &[]);
    age(&shared);
    let task = shared.spool().join("tasks").join(&id);
    let make = format!(
        "mkdir -p team/a/closed team/b/closed; chgrp {GROUP} team team/a team/b; chmod 2775 team team/a team/b; \
         echo precious | tee team/a/closed/file >team/b/closed/file; chmod 755 team/?/closed"
    );
    shared.shell(OWNER, &make).succeeds();
    shared
        .shell(GROUP_USER, &format!("mkdir -m 777 {}/his", task.display()))
        .succeeds();
    // Into a folder of his own, and into one of the owner's.
    let team = shared.spool().parent().unwrap().join("team");
    let mut movers = Vec::new();
    for (within, what) in [(task.join("his"), "a"), (task.clone(), "b")] {
        let mut mover = shared.as_user(GROUP_USER, "sh");
        let script = format!("echo here; read line; mv {}/{what} .", team.display());
        mover.args(["-c", &script]).current_dir(within);
        mover
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut mover = mover.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::io::Read::read_exact(mover.stdout.as_mut().unwrap(), &mut [0u8; 4]).unwrap();
        movers.push(mover);
    }
    init(&shared, OWNER, &[]).succeeds();
    for mover in &mut movers {
        mover.stdin.as_mut().unwrap().write_all(b"now\n").unwrap();
        mover.wait().unwrap();
    }
    assert!(!team.join("a").exists(), "it was moved");
    assert!(
        team.join("b").exists(),
        "a group user moved a file into a folder of the owner's"
    );
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    for _ in 0..2 {
        shared.run(OWNER, &["sweep"]).succeeds();
    }
    let find = "find . -name file -path '*closed*'";
    assert_eq!(
        shared.shell(OWNER, find).stdout.lines().count(),
        2,
        "{}",
        shared.tree()
    );
}

/// A lock of the root that others can open is replaced by a new file, so a process that holds the old file
/// blocks nobody.
#[test]
fn locks_that_others_could_hold_are_replaced() {
    let shared = Shared::new();
    shared.run(OWNER, &["sweep"]).succeeds();
    shared.submit(OWNER, &["--name", "n"]);
    let files = ["spool.lock", "names.lock", "sweep.lock"].map(|file| shared.spool().join(file));
    let mut holders = Vec::new();
    for file in &files {
        mode(file, 0o644);
        chown(file, None, Some(GROUP)).unwrap();
        holders.push(hold(&shared, GROUP_USER, file));
    }
    init(&shared, OWNER, &[]).succeeds();
    for file in &files {
        assert_eq!(mode_of(file), 0o600, "{}", file.display());
    }
    shared.run(OWNER, &["sweep"]).succeeds();
    shared.submit(OWNER, &["--name", "n"]);
    // A lock that a process of the owner holds is not replaced.
    holders.push(hold(&shared, OWNER, &files[2]));
    let inode = fs::metadata(&files[2]).unwrap().ino();
    mode(&files[2], 0o644);
    init(&shared, OWNER, &[]).succeeds();
    let now = fs::metadata(&files[2]).unwrap();
    assert_eq!((now.ino(), now.mode() & 0o777), (inode, 0o600));
    for mut holder in holders {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}

/// Also in version 1 others could not write in the root and in these folders.
#[test]
fn a_spool_of_version_one_with_lost_modes_is_refused() {
    let shared = Shared::new();
    age(&shared);
    for entry in [
        "",
        "rejected",
        "watchers",
        "recipes",
        "events",
        "spool.json",
    ] {
        let path = shared.spool().join(entry);
        let had = mode_of(&path);
        mode(&path, had | 0o020);
        let before = shared.tree();
        let ran = init(&shared, OWNER, &[]);
        ran.ends_with(4);
        let shown = path.to_str().unwrap().trim_end_matches('/').to_owned();
        let named = format!("error: {shown} can be written by group");
        assert!(ran.stderr.starts_with(&named), "{}", ran.stderr);
        assert_eq!(shared.tree(), before);
        mode(&path, had);
    }
    init(&shared, OWNER, &[]).succeeds();
}

/// A file of the owner that a user moved into an open folder belongs to the owner, but proves nothing.
#[test]
fn a_moved_file_does_not_make_a_spool_of_an_open_folder() {
    let shared = Shared::new();
    let owner = shared.spool().parent().unwrap().to_owned();
    let group = GROUP.to_string();
    for (file, others) in [
        ("spool.json", 0o2775),
        ("spool.lock", 0o2775),
        ("notes", 0o2777),
    ] {
        let folder = owner.join(format!("with-{file}-{others}"));
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(OWNER), Some(GROUP)).unwrap();
        mode(&folder, others);
        let text = "{\"v\": 2, \"shared\": true, \"recipe_path\": [\"/usr/bin\"]}";
        let moved = format!("umask 002; echo '{text}' >{}/{file}", folder.display());
        shared.shell(OWNER, &moved).succeeds();
        let mut holder = hold(&shared, GROUP_USER, &folder.join(file));
        for more in [&["--group", &group][..], &[]] {
            let ran = shared.run(OWNER, &[&["init", folder.to_str().unwrap()], more].concat());
            ran.ends_with(4);
            let named = format!("{} can be written by", folder.display());
            assert!(ran.stderr.contains(&named), "{}", ran.stderr);
            assert_eq!(mode_of(&folder), others);
        }
        // An `init` that found it empty was killed, and the file was moved there in that moment.
        mode(&folder, 0o1700);
        let ran = shared.run(OWNER, &["init", folder.to_str().unwrap()]);
        ran.ends_with(4);
        assert_eq!(mode_of(&folder), 0o1700);
        mode(&folder, others);
        let watch = ["--spool", folder.to_str().unwrap(), "watch", "--drain"];
        assert_ne!(shared.run(OWNER, &watch).code, 0);
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    // An empty folder is accepted.
    let empty = owner.join("empty");
    fs::create_dir(&empty).unwrap();
    chown(&empty, Some(OWNER), Some(GROUP)).unwrap();
    mode(&empty, 0o2777);
    shared
        .run(OWNER, &["init", empty.to_str().unwrap(), "--group", &group])
        .succeeds();
    assert_eq!(mode_of(&empty), 0o2750);
}

fn kill_at(shared: &Shared, call: &str, when: usize) -> i32 {
    let program = shared.world.command(&[]).get_program().to_owned();
    let inject = format!("inject={call}:signal=KILL:when={when}");
    let mut command = shared.as_user(OWNER, "strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]);
    Ran::of(command.arg(program).arg("init").arg(shared.spool())).code
}

/// Killed at each step, by each kind of step, and run again: the result is the same.
#[test]
fn an_interrupted_conversion_is_continued() {
    for (call, steps) in [
        ("renameat2", 1..20),
        ("fchmodat", 1..20),
        ("renameat", 1..5),
    ] {
        for when in steps.step_by(3) {
            let shared = Shared::new();
            let done = shared.submit(OWNER, &["--input", "7", "--name", "done"]);
            shared.drain();
            let waiting = shared.submit(OWNER, &[]);
            age(&shared);
            let plant = format!("mkdir spool/tasks/{}", planted_id(2));
            shared.shell(GROUP_USER, &plant).succeeds();
            kill_at(&shared, call, when);
            init(&shared, OWNER, &[]).succeeds();
            let what = format!("{call} {when}\n{}", shared.tree());
            let planted = shared.spool().join("tasks").join(planted_id(2));
            assert!(!shared.spool().join(".converting").exists(), "{what}");
            assert!(!planted.exists(), "{what}");
            assert_eq!(mode_of(&shared.spool()), 0o2750, "{what}");
            let result = shared.run(OWNER, &["result", "done"]);
            assert_eq!(result.stdout, "7\n", "{what}");
            assert_eq!(status(&shared, &done), "completed", "{what}");
            nothing_is_writable(&shared);
            shared.drain();
            assert_eq!(status(&shared, &waiting), "completed", "{what}");
        }
    }
}
