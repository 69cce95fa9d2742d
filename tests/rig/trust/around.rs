//! Trust outside the recipes: the program's own folder, advised commands, and the number of a session.
//!
//! Not the recipes themselves (`trust.rs`). Checked: through these, only the owner and root run anything as
//! the owner, and no other user keeps a task from its end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::make;
use crate::group::{GROUP, GROUP_USER, OWNER, Shared};
use crate::support::processes::{is_alive, session_of};
use crate::support::{Ran, all_pids, names_in, read_json};

/// Recipes search the program's own folder only if no other user could add a program there.
#[test]
fn a_folder_in_which_others_can_add_programs_is_not_added_to_path() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner");
    shared.recipe("path", "#!/bin/sh\nprintf %s \"$PATH\"\n");
    make(
        &shared,
        "mkdir closed; open 1775 sticky; open 2775 open; mkdir closed/within open/within",
    );
    let program = shared.world.command(&[]).get_program().to_owned();
    let own = here.join("own");
    for (folder, is_added) in [
        ("closed", true),
        ("sticky", false),
        ("open/within", false),
        ("closed/within", true),
    ] {
        let folder = here.join(folder);
        let copy = folder.join("agentspool");
        fs::copy(&program, &copy).unwrap();
        chown(&copy, Some(OWNER), None).unwrap();
        for spool in [shared.spool(), own.clone()] {
            let with = |arguments: &[&str]| {
                let mut command = shared.as_user(OWNER, copy.to_str().unwrap());
                command.env("AGENTSPOOL_DIR", &spool).args(arguments);
                Ran::of(&mut command)
            };
            if !spool.exists() {
                with(&["init"]).succeeds();
                fs::copy(
                    shared.spool().join("recipes/path"),
                    own.join("recipes/path"),
                )
                .unwrap();
                chown(own.join("recipes/path"), Some(OWNER), None).unwrap();
            }
            let doctor = with(&["doctor"]).stdout;
            let says = doctor.contains("the folder of this program: other users could add");
            assert_eq!(says, !is_added, "{}: {doctor}", folder.display());
            let arguments = ["submit", "--recipe", "path", "--json"];
            let mut command = shared.as_user(OWNER, "agentspool");
            command.env("AGENTSPOOL_DIR", &spool);
            command.env("AGENTSPOOL_AUTOSTART", "false").args(arguments);
            let id = Ran::of(&mut command).json()["task_id"].clone();
            with(&["watch", "--drain"]).succeeds();
            let path = with(&["result", id.as_str().unwrap()])
                .succeeds()
                .stdout
                .clone();
            let mut folders = std::env::split_paths(path.trim_end());
            let is_there = folders.any(|searched| searched == folder);
            assert_eq!(is_there, is_added, "{}: {path}", folder.display());
        }
        fs::remove_file(&copy).unwrap();
    }
}

/// A process that has a file open can continue to write to it, whatever the file's mode is by then.
#[test]
fn the_advised_commands_replace_a_recipe_that_others_have_open() {
    let shared = Shared::new();
    make(
        &shared,
        &format!(
            "recipe two 'command = [\"./run.sh\"]\\n'; chgrp {GROUP} $R/two/run.sh; chmod 775 $R/two/run.sh"
        ),
    );
    let script = shared.spool().join("recipes/two/run.sh");
    let mut holder = shared.as_user(GROUP_USER, "sh");
    let write = format!(
        "exec 3>>{}; echo held; read go; echo evil >&3; echo done",
        script.display()
    );
    let mut holder = holder
        .args(["-c", &write])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(says.next().unwrap().unwrap(), "held");
    let ran = shared
        .run(OWNER, &["submit", "--recipe", "two"])
        .ends_with(4)
        .stderr
        .clone();
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    let advised = |printed: &str| {
        let (_, from) = printed.split_once("run.sh: group").unwrap();
        from.split('`').nth(1).unwrap().to_owned()
    };
    assert_eq!(advised(&ran), advised(&doctor));
    shared.shell(OWNER, &advised(&ran)).succeeds();
    holder.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(says.next().unwrap().unwrap(), "done");
    holder.wait().unwrap();
    assert_eq!(fs::read_to_string(&script).unwrap(), "#!/bin/sh\ntrue\n");
    assert_eq!(fs::metadata(&script).unwrap().mode() & 0o7777, 0o755);
    shared.run(OWNER, &["submit", "--recipe", "two"]).succeeds();
}

/// Root is advised to run a command, and a name in it must run nothing.
#[test]
fn a_name_in_an_advised_command_is_one_word_of_the_shell() {
    let shared = Shared::new();
    let odd = shared
        .spool()
        .join("rejected/x;cd ..;touch $HOME`id -u` it's #");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("f"), "").unwrap();
    chown(&odd, Some(GROUP_USER), None).unwrap();
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    let (_, advised) = doctor.split_once("remove it as root: `").unwrap();
    let advised = advised.lines().next().unwrap().strip_suffix('`').unwrap();
    Ran::of(Command::new("sh").args(["-c", advised])).succeeds();
    assert!(!odd.exists(), "{advised}");
    assert_eq!(names_in(&shared.spool().join("rejected")), [""; 0]);
}

/// A process of another user that got the number of an ended attempt's session keeps no task from its end.
#[test]
fn another_users_session_with_the_same_number_delays_no_task() {
    let shared = Shared::new();
    shared.recipe("slow", "#!/bin/sh\nexec sleep 1000\n");
    let mut watcher = shared.watcher();
    let submitted = shared.json(OWNER, &["submit", "--recipe", "slow"]);
    let id = submitted["task_id"].as_str().unwrap();
    let record = shared
        .spool()
        .join(format!("tasks/{id}/attempts/1/run.json"));
    shared.world.wait_until("it runs", || {
        record.exists() && !read_json(&record)["child"].is_null()
    });
    watcher.kill();
    let mut run = read_json(&record);
    let pid = |who: &Value| i32::try_from(who["pid"].as_i64().unwrap()).unwrap();
    for process in [pid(&run["runner"]), pid(&run["child"])] {
        shared.world.signal(process, rustix::process::Signal::KILL);
        shared
            .world
            .wait_until("it has exited", || !is_alive(process));
    }
    // A session whose leader alone has exited. Its number is recorded here as the attempt's.
    let mut leader = shared.as_user(GROUP_USER, "setsid");
    let script = "echo $$; sleep 1000 >/dev/null & exec 1>&-; kill -STOP $$";
    let mut leader = leader
        .args(["-w", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut number = String::new();
    leader
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut number)
        .unwrap();
    let number: i32 = number.trim().parse().unwrap();
    run["child"]["pid"] = number.into();
    fs::write(&record, run.to_string()).unwrap();
    shared.world.signal(number, rustix::process::Signal::KILL);
    leader.wait().unwrap();
    shared
        .world
        .wait_until("its leader has exited", || !is_alive(number));
    let left = || {
        all_pids()
            .into_iter()
            .filter(|pid| session_of(*pid) == Some(number))
    };
    let others: Vec<i32> = left().collect();
    assert_eq!(others.len(), 1);
    let watcher = shared.watcher();
    shared.world.wait_until("it is lost", || {
        shared.json(OWNER, &["status", id])["status"] == "failed"
    });
    drop(watcher);
    assert_eq!(left().collect::<Vec<_>>(), others);
    shared
        .world
        .signal(others[0], rustix::process::Signal::KILL);
}
