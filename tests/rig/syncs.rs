//! Each fsync of the protocol: that it is called, that the order is right, and what is lost without it.
//!
//! `strace` answers one fsync in place of the kernel, so that the call has no effect. Then the power is cut,
//! and the same witness as under load must report what is wrong. This shows that those tests can fail. The
//! program has no code for this. On ext4 some syncs that POSIX requires are not missed, because its one
//! journal commits a folder together with its files. Those are named here, and only the order of the calls
//! checks them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cut::{Disk, kill_all};
use crate::scale;
use crate::support::{Ran, Task, World, marker, names_in};
use crate::witness::Witness;

/// Nothing is committed by the clock, so the cut loses everything that was not synced.
const AT_ONCE: &str = "commit=600";
const AT_ONCE_PLAIN: &str = "commit=600,noauto_da_alloc";
/// The journal commits by itself, and file data long after it.
const AFTER_COMMIT: &str = "commit=1";

/// The program under strace. strace answers some of its syncs as `answer` says in strace's syntax: how, and
/// which of them, counted from 1. It means `fsync` unless it names another call.
fn traced(world: &World, arguments: &[&str], answer: Option<&str>) -> Command {
    let sealed = world.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-qq", "-y", "-s", "300", "-o"]);
    command.arg(log_of(world));
    command.args(["-e", "trace=fsync,fdatasync,syncfs,sync,renameat2,unlinkat"]);
    if let Some(answer) = answer {
        let call = if answer.starts_with("syncfs:") {
            ""
        } else {
            "fsync:"
        };
        command.args(["-e", &format!("inject={call}{answer}")]);
    }
    command
        .arg("--")
        .arg(sealed.get_program())
        .args(sealed.get_args());
    let set = sealed
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(set).current_dir(world.root());
    command.stdin(Stdio::null());
    command
}

fn log_of(world: &World) -> std::path::PathBuf {
    world.root().parent().unwrap().join("strace.log")
}

/// What the victim synced, renamed and removed from tasks and claims, in order: `sync PATH`, `rename NAME`
/// and `remove NAME`, with the task's id as ID.
fn steps(world: &World, id: &str) -> Vec<String> {
    let text = fs::read_to_string(log_of(world)).unwrap();
    let spool = world.spool().to_str().unwrap();
    let step = |line: &str| {
        let (call, rest) = line.split_once('(')?;
        let message = if call == "renameat2" {
            format!("rename {}", rest.rsplit('"').nth(1)?)
        } else if call == "unlinkat" {
            let name = rest.split('"').nth(1)?;
            let is_marker = name.starts_with(".new.");
            let is_of_claim = name.ends_with(".claim") || name == "drop.json";
            match (is_marker, is_of_claim) {
                (true, _) => "remove .new.MARKER".to_owned(),
                (_, true) => format!("remove {name}"),
                (false, false) => return None,
            }
        } else {
            let path = rest.split_once('<')?.1.split_once('>')?.0;
            let path = path.strip_prefix(spool)?.trim_start_matches('/');
            format!("sync {path}")
        };
        Some(message.replace(id, "ID"))
    };
    text.lines().filter_map(step).collect()
}

fn recipe(world: &World, disk: &Disk, name: &str, rest: &str) {
    let script = format!(
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT\" >> '{}'\n{rest}\n",
        disk.outside("starts").display()
    );
    let manifest = "env_accept = [\"TOKEN\"]";
    world.recipe_folder(name, manifest, &script);
}

/// A victim: what it does up to the cut, with the named syncs left out.
type Victim = fn(&Disk, &World, Option<&str>) -> Witness;

/// What is wrong after the victim, the cut and the recovery.
fn violations(options: &str, victim: Victim, left_out: Option<&str>, wait: bool) -> Vec<String> {
    let disk = Disk::new(options);
    let world = disk.world();
    recipe(&world, &disk, "once", "echo fine");
    recipe(
        &world,
        &disk,
        "large",
        "head -c 2000000 /dev/zero | tr '\\0' a",
    );
    let held = format!(
        "[ -e '{}' ] || exec sleep 1000",
        disk.outside("open").display()
    );
    recipe(&world, &disk, "held", &held);
    disk.finalize();
    let witness = victim(&disk, &world, left_out);
    if wait {
        // This does not wait for an event: the test is about what the journal does by the clock.
        std::thread::sleep(Duration::from_millis(2200));
    }
    disk.cut();
    disk.mount_again(&world);
    fs::write(disk.outside("open"), "").unwrap();
    let mut wrong = witness.of_files(&world);
    let drained = disk.run(&world, &["watch", "--drain"]);
    if drained.code == 0 {
        world.wait_until("the runners have exited", || world.processes().is_empty());
        wrong.extend(witness.of_recovered(&world));
    } else {
        wrong.push(format!("the spool cannot be used: {}", drained.stderr));
    }
    wrong
}

/// A victim with all its syncs loses nothing. Without the sync it does, if `is_seen`.
#[track_caller]
fn mutant(name: &str, options: &str, victim: Victim, when: &str, is_seen: bool) {
    let wait = options == AFTER_COMMIT;
    for _ in 0..scale::pick(1, 5) {
        let wrong = violations(options, victim, None, wait);
        assert!(wrong.is_empty(), "{name}, with all syncs: {wrong:#?}");
        let left_out = format!("retval=0:when={when}");
        let wrong = violations(options, victim, Some(&left_out), wait);
        println!("without the sync of {name}: {wrong:#?}");
        assert_eq!(
            !wrong.is_empty(),
            is_seen,
            "without the sync of {name} ({options}): {wrong:#?}"
        );
    }
    let message = if is_seen {
        "seen"
    } else {
        "not detected on ext4"
    };
    scale::figure(&format!("sync left out: {name} ({options})"), message);
}

fn submit(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    let arguments = [
        "submit",
        "--recipe",
        "once",
        "--env",
        "TOKEN=secret",
        "--quiet",
    ];
    let ran = Ran::of(&mut traced(world, &arguments, left_out));
    ran.succeeds();
    let mut witness = Witness::new(disk.outside("starts"));
    witness.accepted.push(ran.stdout.trim().to_owned());
    witness
}

/// This many tasks at once, so that they are synced together.
fn submit_batch(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    fs::write(disk.outside("lines"), "{\"recipe\": \"once\"}\n".repeat(40)).unwrap();
    let lines = disk.outside("lines");
    let arguments = ["submit", "--batch", lines.to_str().unwrap(), "--quiet"];
    let ran = Ran::of(&mut traced(world, &arguments, left_out));
    ran.succeeds();
    let mut witness = Witness::new(disk.outside("starts"));
    witness.accepted = ran.stdout.lines().map(str::to_owned).collect();
    assert_eq!(witness.accepted.len(), 40);
    witness
}

/// Accepted and synced long before, not started.
fn waiting(disk: &Disk, world: &World, recipe: &str) -> (Task, Witness) {
    let task = world.submit(&[recipe]);
    disk.finalize();
    let mut witness = Witness::new(disk.outside("starts"));
    witness.accepted.push(task.id.clone());
    (task, witness)
}

/// A runner whose recipe has started and continues.
fn start(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    let (task, witness) = waiting(disk, world, "held");
    let mut child = traced(world, &["runner", "--once", &task.id], left_out)
        .spawn()
        .unwrap();
    world.wait_for_lines(&disk.outside("starts"), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    witness
}

/// A task from its start to its end, with an output that stays a file.
fn finish(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    let (task, mut witness) = waiting(disk, world, "large");
    Ran::of(&mut traced(
        world,
        &["runner", "--once", &task.id],
        left_out,
    ))
    .succeeds();
    let result = task.read("result.json");
    witness.ended.insert(task.id.clone(), Some(result));
    assert!(task.has_result());
    witness
}

/// A cancellation that is only requested, because the holder of the lock does not react.
fn cancel(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    let (task, mut witness) = waiting(disk, world, "held");
    let mut runner = world
        .command(&["runner", "--once", &task.id])
        .spawn()
        .unwrap();
    world.wait_running(&task);
    world.signal(runner.id() as i32, Signal::STOP);
    disk.finalize();
    let asked = ["cancel", "--no-wait", &task.id];
    Ran::of(&mut traced(world, &asked, left_out)).succeeds();
    witness.cancelled.push(task.id);
    runner.kill().unwrap();
    runner.wait().unwrap();
    witness
}

fn init(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    fs::remove_dir_all(world.spool()).unwrap();
    disk.finalize();
    Ran::of(&mut traced(world, &["init"], left_out)).succeeds();
    Witness::new(disk.outside("starts"))
}

fn set(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    let words = ["config", "set", "max_concurrent", "3"];
    Ran::of(&mut traced(world, &words, left_out)).succeeds();
    let mut witness = Witness::new(disk.outside("starts"));
    witness
        .settings
        .insert("max_concurrent".to_owned(), 3.into());
    witness
}

/// On ext4 the first sync that comes after the rename commits the folder and its name as well, so only the
/// files themselves are missed. The order of the calls checks the other two syncs.
#[test]
fn submit_without_one_of_its_syncs() {
    for options in [AT_ONCE, AFTER_COMMIT] {
        mutant("request.json", options, submit, "1", true);
        mutant("env.json", options, submit, "2", true);
    }
    mutant("tasks/ID of submit", AT_ONCE, submit, "3", false);
    mutant("tasks", AT_ONCE, submit, "4", false);
    mutant(
        "tasks/ID of submit, and tasks",
        AT_ONCE,
        submit,
        "3+",
        false,
    );
    mutant("all of a submission", AT_ONCE, submit, "1+", true);
}

/// An attachment can have any size, so it is synced before its task is visible, with all the rest.
#[test]
fn a_task_with_an_attachment_is_synced_before_it_is_published() {
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(&world, &disk, "once", "echo fine");
    fs::write(disk.outside("attached"), "bytes").unwrap();
    let attached = disk.outside("attached");
    let attached = attached.to_str().unwrap();
    let arguments = ["submit", "--recipe", "once", "-q", "--attach", attached];
    let ran = Ran::of(&mut traced(&world, &arguments, None));
    let expected = [
        "rename lock",
        "sync staging/ID/request.json",
        "sync staging/ID/attachment",
        "sync staging/ID",
        "rename ID",
        "sync tasks",
    ];
    assert_eq!(steps(&world, ran.succeeds().stdout.trim()), expected);
}

/// A submitter that is killed between the rename and the syncs. The test stops it at its n-th sync.
fn unsynced(world: &World, sync: usize) -> Task {
    let when = format!("signal=KILL:when={sync}");
    let arguments = ["submit", "--recipe", "held", "--env", "TOKEN=secret"];
    Ran::of(&mut traced(world, &arguments, Some(&when))).ends_with(128 + 9);
    let task = world.only_task();
    assert_eq!(marker::markers(&task).len(), 1);
    task
}

/// The holder of the lock syncs what a killed submitter did not sync. Otherwise a power cut could take the
/// request of a task that has started.
#[test]
fn a_holder_syncs_an_unacknowledged_task_before_its_start_record() {
    fn hold(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
        let task = unsynced(world, 1);
        let mut child = traced(world, &["runner", "--once", &task.id], left_out)
            .spawn()
            .unwrap();
        world.wait_for_lines(&disk.outside("starts"), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut witness = Witness::new(disk.outside("starts"));
        witness.accepted.push(task.id);
        witness
    }
    mutant("request.json by the holder", AT_ONCE, hold, "1", true);
    mutant("env.json by the holder", AT_ONCE, hold, "2", true);
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(&world, &disk, "held", "echo fine");
    let task = unsynced(&world, 1);
    Ran::of(&mut traced(&world, &["runner", "--once", &task.id], None)).succeeds();
    let expected = [
        "sync tasks/ID/request.json",
        "sync tasks/ID/env.json",
        "sync tasks/ID",
        "sync tasks",
        "remove .new.MARKER",
        "sync tasks/ID/attempts",
    ];
    assert_eq!(steps(&world, &task.id)[..expected.len()], expected);
    assert!(marker::markers(&task).is_empty());
}

/// A drop that its producer synced. The cut comes just after its claim is gone.
fn admit(disk: &Disk, world: &World, left_out: Option<&str>) -> Witness {
    world.run(&["pause"]).succeeds();
    world.drop_in(
        "drop.json",
        r#"{"recipe": "once", "metadata": {"drop": 1}}"#,
    );
    disk.finalize();
    let mut watcher = traced(world, &["watch"], left_out).spawn().unwrap();
    let is_admitted =
        || names_in(&world.path("staging")).is_empty() && names_in(&world.path("tasks")).len() == 1;
    world.wait_until("the drop is admitted", is_admitted);
    // Not only strace, without which the watcher would go on.
    world.wait_until("the watcher is gone", || kill_all(world) == 0);
    watcher.wait().unwrap();
    let mut witness = Witness::new(disk.outside("starts"));
    witness.accepted.push(world.only_task().id);
    witness.drops.insert(1);
    // The pause is durable, and the drain after the cut is to run the task.
    world.run(&["resume"]).succeeds();
    witness
}

/// If nothing of the task was committed, nothing of its claim was: the drop is in the box again. So the clock
/// commits here before the cut.
#[test]
fn an_admission_without_one_of_its_syncs() {
    mutant("request.json of a drop", AFTER_COMMIT, admit, "1", true);
    mutant("tasks/ID of a drop", AFTER_COMMIT, admit, "2", false);
    mutant("tasks with a drop", AFTER_COMMIT, admit, "3", false);
}

/// The claim of a drop goes only after the syncs of its task.
#[test]
fn a_claim_goes_after_the_syncs_of_its_task() {
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(&world, &disk, "once", "echo fine");
    world.run(&["pause"]).succeeds();
    world.drop_in("drop.json", r#"{"recipe": "once"}"#);
    let mut watcher = traced(&world, &["watch"], None).spawn().unwrap();
    world.wait_until("the drop is admitted", || {
        names_in(&world.path("tasks")).len() == 1 && names_in(&world.path("staging")).is_empty()
    });
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let steps = steps(&world, &world.only_task().id);
    let first = steps.iter().position(|step| step == "rename ID").unwrap();
    let expected = [
        "rename ID",
        "sync tasks/ID/request.json",
        "sync tasks/ID",
        "sync tasks",
        "remove drop.json",
        "remove ID.claim",
    ];
    let steps: Vec<&String> = steps[first..]
        .iter()
        .filter(|step| !step.starts_with("remove .new."))
        .collect();
    assert_eq!(steps[..expected.len()], expected);
}

#[test]
fn a_batch_without_one_of_its_syncs() {
    mutant("a batch's tasks", AT_ONCE, submit_batch, "1", true);
    for options in [AT_ONCE, AFTER_COMMIT] {
        let wait = options == AFTER_COMMIT;
        let wrong = violations(options, submit_batch, Some("syncfs:retval=0"), wait);
        assert!(!wrong.is_empty(), "without the sync of all files");
    }
    let message = violations(AFTER_COMMIT, submit_batch, None, true);
    assert!(message.is_empty(), "{message:#?}");
}

/// The files of a batch's tasks are on the disk before the first task is visible, and the tasks are reported
/// when all of them are accepted.
#[test]
fn a_batch_is_synced_before_any_of_it_is_published() {
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(&world, &disk, "once", "echo fine");
    let witness = submit_batch(&disk, &world, None);
    let ids = &witness.accepted;
    let mut expected = vec!["rename lock".to_owned(); ids.len()];
    expected.push("sync staging".to_owned());
    expected.extend(ids.iter().map(|id| format!("rename {id}")));
    expected.push("sync tasks".to_owned());
    assert_eq!(steps(&world, "no id"), expected);
}

#[test]
fn a_start_without_its_sync() {
    mutant("tasks/ID/attempts", AT_ONCE, start, "1", true);
}

#[test]
fn a_finish_without_one_of_its_syncs() {
    mutant(
        "stdout.log that the result names",
        AT_ONCE,
        finish,
        "2",
        true,
    );
    mutant("tasks/ID/attempts/1", AT_ONCE, finish, "3", false);
    mutant("result.part", AT_ONCE, finish, "4", true);
    mutant("result.part", AT_ONCE_PLAIN, finish, "4", true);
    mutant("tasks/ID", AT_ONCE, finish, "5", true);
}

#[test]
fn a_cancellation_without_its_syncs() {
    // On ext4 each of the two syncs also writes what the other one is for.
    mutant("cancel", AT_ONCE, cancel, "1", false);
    mutant("tasks/ID of cancel", AT_ONCE, cancel, "2", false);
    mutant("cancel and tasks/ID of cancel", AT_ONCE, cancel, "1+", true);
}

#[test]
fn init_without_one_of_its_syncs() {
    mutant("spool.json", AT_ONCE, init, "1", true);
    // The syncs of the identity also write the name of the settings file.
    mutant("the root with spool.json", AT_ONCE, init, "2", false);
    mutant("identity.json", AT_ONCE, init, "3", true);
    // Without its name the next command creates another identity, which works as well.
    mutant("the root with identity.json", AT_ONCE, init, "4", false);
}

#[test]
fn a_setting_without_one_of_its_syncs() {
    // By default ext4 itself usually writes a file that replaces another one, but it does not guarantee this.
    mutant("spool.json set again", AT_ONCE_PLAIN, set, "1", true);
    mutant(
        "the root with spool.json set again",
        AT_ONCE,
        set,
        "2",
        true,
    );
}

/// The runner's last sync is refused, and it tries again without end. Its result is visible by then.
#[test]
fn a_result_is_reported_only_once_it_is_durable() {
    fn message(disk: &Disk, world: &World, refused: Option<&str>) -> Witness {
        let (task, mut witness) = waiting(disk, world, "once");
        let mut runner = traced(world, &["runner", "--once", &task.id], refused)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        world.result_of(&task);
        world.run(&["wait", &task.id]).succeeds();
        let result = task.read("result.json");
        witness.ended.insert(task.id.clone(), Some(result));
        runner.kill().unwrap();
        runner.wait().unwrap();
        witness
    }
    let refused = "error=EIO:when=3+";
    let wrong = violations(AT_ONCE, message, Some(refused), false);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The syncs of the first one were refused, or it was killed before them. The second one reports success.
#[test]
fn a_cancellation_that_another_process_started_is_durable() {
    fn again(disk: &Disk, world: &World, refused: Option<&str>) -> Witness {
        let (task, mut witness) = waiting(disk, world, "held");
        let mut runner = world
            .command(&["runner", "--once", &task.id])
            .spawn()
            .unwrap();
        world.wait_running(&task);
        world.signal(runner.id() as i32, Signal::STOP);
        disk.finalize();
        let asked = ["cancel", "--no-wait", &task.id];
        Ran::of(&mut traced(world, &asked, refused)).ends_with(8);
        world.run(&asked).succeeds();
        witness.cancelled.push(task.id);
        runner.kill().unwrap();
        runner.wait().unwrap();
        witness
    }
    let wrong = violations(AT_ONCE, again, Some("error=EIO:when=1+"), false);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The steps without the status `running`, which only a task that takes some time has.
fn without_running(mut steps: Vec<String>) -> Vec<String> {
    if steps
        .get(1)
        .is_some_and(|step| step == "rename status.json")
    {
        steps.remove(1);
    }
    steps
}

#[test]
fn every_sync_comes_before_the_step_that_needs_it() {
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(&world, &disk, "once", "echo fine");
    recipe(
        &world,
        &disk,
        "large",
        "head -c 2000000 /dev/zero | tr '\\0' a",
    );
    let ran = Ran::of(&mut traced(
        &world,
        &["submit", "--recipe", "once", "--quiet"],
        None,
    ));
    ran.succeeds();
    let id = ran.stdout.trim();
    let accepted = steps(&world, id);
    let expected = [
        "rename lock",
        "rename ID",
        "sync tasks/ID/request.json",
        "sync tasks/ID",
        "sync tasks",
        "remove .new.MARKER",
    ];
    assert_eq!(accepted, expected);
    Ran::of(&mut traced(&world, &["runner", "--once", id], None)).succeeds();
    let ended = without_running(steps(&world, id));
    let expected = [
        "sync tasks/ID/attempts",
        "sync tasks/ID/attempts/1/result.part",
        "rename result.json",
        "sync tasks/ID",
        "rename status.json",
    ];
    assert_eq!(ended, expected);
    let syncs = |steps: &[String]| {
        steps
            .iter()
            .filter(|step| step.starts_with("sync "))
            .count()
    };
    scale::figure(
        "syncs of a task from submit to result",
        syncs(&accepted) + syncs(&ended),
    );
    let large = world.submit(&["large"]);
    Ran::of(&mut traced(&world, &["runner", "--once", &large.id], None)).succeeds();
    let expected = [
        "sync tasks/ID/attempts",
        "sync tasks/ID/attempts/1/stdout.log",
        "sync tasks/ID/attempts/1",
        "sync tasks/ID/attempts/1/result.part",
        "rename result.json",
        "sync tasks/ID",
        "rename status.json",
    ];
    assert_eq!(without_running(steps(&world, &large.id)), expected);
    let pending = world.submit(&["once"]);
    Ran::of(&mut traced(&world, &["cancel", &pending.id], None)).succeeds();
    let expected = [
        "sync tasks/ID/cancel",
        "sync tasks/ID",
        "sync tasks/ID/result.part",
        "rename result.json",
        "sync tasks/ID",
        "rename status.json",
    ];
    assert_eq!(steps(&world, &pending.id), expected);
}

#[test]
fn durability_process_syncs_nothing() {
    let disk = Disk::new(AT_ONCE);
    let world = disk.world();
    recipe(
        &world,
        &disk,
        "large",
        "head -c 2000000 /dev/zero | tr '\\0' a",
    );
    world.set("durability", "process");
    let mut seen = Vec::new();
    let submitted = [
        "submit",
        "--recipe",
        "large",
        "--env",
        "TOKEN=secret",
        "--quiet",
    ];
    for _ in 0..2 {
        let ran = Ran::of(&mut traced(&world, &submitted, None));
        ran.succeeds();
        seen.extend(steps(&world, ran.stdout.trim()));
    }
    let [first, second] = &world.tasks()[..] else {
        panic!("{}", world.describe())
    };
    Ran::of(&mut traced(&world, &["runner", "--once", &first.id], None)).succeeds();
    seen.extend(steps(&world, &first.id));
    Ran::of(&mut traced(&world, &["cancel", &second.id], None)).succeeds();
    seen.extend(steps(&world, &second.id));
    Ran::of(&mut traced(&world, &["wait", &first.id], None)).succeeds();
    seen.extend(steps(&world, &first.id));
    // The renames show that the process was traced at all.
    assert!(
        seen.iter().any(|step| step == "rename result.json"),
        "{seen:?}"
    );
    let synced: Vec<_> = seen
        .iter()
        .filter(|step| step.starts_with("sync"))
        .collect();
    assert!(synced.is_empty(), "{synced:?}");
    let result: Value = first.result();
    assert_eq!(result["status"], "completed");
    scale::figure("syncs of a task with durability = process", synced.len());
}
