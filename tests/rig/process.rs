//! Recipes with badly behaved processes, and a runner that is killed at random times.
//!
//! For each kind: first a run without a kill, whose correct end must be reported; then kill -9 of the runner
//! at times spread over such a run, and one recovery. When a task is called finished, and when its next
//! attempt starts, no process of the attempt before is running. The test searches for such processes by the
//! program's own tag and by a token that only the recipe knows.
//!
//! Not covered: a process that, after its runner was killed, has dropped its environment, its session, its
//! folder and its output. Nothing then shows which task it belongs to.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::scale::{self, figure};
use crate::support::processes::is_alive;
use crate::support::{Task, World, all_pids};
use crate::traced::under_strace;

/// The smallest limit, so that a little output exceeds it.
const LOG_CAP: u64 = 1 << 20;

struct Kind {
    name: &'static str,
    /// Lines of shell. `$token` is exported, so every process that the script starts has it.
    script: String,
    /// The exit code if the runner is not killed. `None` if the recipe kills it.
    code: Option<i32>,
}

fn kind(name: &'static str, code: i32, script: &str) -> Kind {
    Kind {
        name,
        script: script.to_owned(),
        code: Some(code),
    }
}

/// The start of every script. A second attempt only searches for what the first one left.
const BEGIN: &str = r#"#!/bin/sh
token=rig-token-$AGENTSPOOL_TASK_ID
if [ "$AGENTSPOOL_ATTEMPT" -gt 1 ]; then
    last=$((AGENTSPOOL_ATTEMPT - 1))
    folder=$(stat -c %d:%i "$AGENTSPOOL_TASK_DIR/attempts/$last")
    tag="AGENTSPOOL_MARK=${AGENTSPOOL_MARK%/*/*}/$last/$folder"
    grep -lzsx -e "token=$token" -e "$tag" /proc/[0-9]*/environ >survivors
    touch searched
    exit 0
fi
export token
"#;

fn world_of(kind: &Kind) -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("log_cap_bytes", &LOG_CAP.to_string());
    // Long enough to be useful, and no longer.
    world.set("leftover_wait_sec", "0.1");
    world.set("cancel_grace_sec", "0.5");
    let script = format!("{BEGIN}{}\n", kind.script);
    world.recipe_folder("fail", "", &script);
    world.recipe_folder(
        "requeue",
        "on_lost = \"requeue\"\nmax_attempts = 2",
        &script,
    );
    world
}

/// Processes of a task, found by the tag or by the token.
fn alive(task: &Task) -> Vec<i32> {
    let token = format!("rig-token-{}", task.id);
    let read = |pid: i32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut found = task.processes();
    found.extend(
        all_pids()
            .into_iter()
            .filter(|pid| read(*pid, "environ").contains(&token)),
    );
    found
}

fn assert_none_alive(world: &World, task: &Task) {
    let left = alive(task);
    let message = || format!("{left:?} are left of {}\n{}", task.id, world.describe());
    assert!(left.is_empty(), "{}", message());
}

/// The outcome of a task whose runner was killed.
#[derive(Default)]
struct Tally {
    lost: usize,
    again: usize,
    true_ends: usize,
}

fn kill_at_random_moments(kind: &Kind) {
    let world = world_of(kind);
    let started = Instant::now();
    let task = world.submit(&["fail"]);
    let ran = world.run(&["runner", "--once", &task.id]);
    let span = started.elapsed();
    if kind.code.is_none() {
        assert_eq!(ran.code, 128 + 9, "the runner was to be killed");
        recover(&world, &task);
    }
    assert_none_alive(&world, &task);
    assert_end(kind, &world, &task);

    let moments = scale::pick(4, 50);
    let mut chance = Chance::new(kind.name);
    let mut tally = Tally::default();
    for moment in 0..moments {
        let recipe = ["fail", "requeue"][moment % 2];
        let task = world.submit(&[recipe]);
        let mut command = world.command(&["runner", "--once", &task.id]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut runner = command.spawn().unwrap();
        // Not a wait for an event: the test is about the time at which the runner is hit.
        std::thread::sleep(chance.time(span));
        runner.kill().unwrap();
        let status = runner.wait().unwrap();
        if status.signal().is_some() {
            recover(&world, &task);
        }
        assert_none_alive(&world, &task);
        count_end(kind, &world, &task, recipe, status.success(), &mut tally);
    }
    let message = |what: &str| format!("process {}: {what}", kind.name);
    figure(&message("runners killed"), moments);
    figure(&message("lost"), tally.lost);
    figure(&message("tried again"), tally.again);
    figure(&message("true ends"), tally.true_ends);
    figure(&message("survivors"), 0);
}

/// The next runner takes over. If the runner before was killed before it started anything, a recipe that
/// kills its runner kills this one, and one more runner is needed.
fn recover(world: &World, task: &Task) {
    let ran = || world.run(&["runner", "--once", &task.id]).code;
    assert!((0..3).any(|_| ran() == 0), "{}", world.describe());
    assert!(task.has_result());
}

/// The end of a run without a kill.
fn assert_end(kind: &Kind, world: &World, task: &Task) {
    let result = task.result();
    let message = || format!("{}: {result}\n{}", kind.name, world.describe());
    match kind.code {
        Some(code) => {
            assert_eq!(result["exit_code"], code, "{}", message());
            assert_eq!(result["signal"], Value::Null, "{}", message());
        }
        None => assert_eq!(result["error"]["kind"], "lost", "{}", message()),
    }
}

/// The end of a run whose runner was killed, or almost.
fn count_end(
    kind: &Kind,
    world: &World,
    task: &Task,
    recipe: &str,
    lived: bool,
    tally: &mut Tally,
) {
    let result = task.result();
    let message = || format!("{} {recipe}: {result}\n{}", kind.name, world.describe());
    let attempts = task.attempts();
    if attempts == 2 {
        assert_eq!((recipe, lived), ("requeue", false), "{}", message());
        assert!(task.work(2, "searched").exists(), "{}", message());
        let survivors = std::fs::read_to_string(task.work(2, "survivors")).unwrap();
        assert_eq!(survivors, "", "{}", message());
        assert_eq!(result["exit_code"], 0, "{}", message());
        tally.again += 1;
        return;
    }
    assert_eq!(attempts, 1, "{}", message());
    if result["error"]["kind"] == "lost" {
        assert!(!lived && recipe == "fail", "{}", message());
        let none = json!([null, null]);
        assert_eq!(json!([result["exit_code"], result["signal"]]), none);
        tally.lost += 1;
        return;
    }
    // The first runner, which was killed after it had reported; or the second, if nothing had run before it.
    assert_eq!(result["exit_code"], json!(kind.code), "{}", message());
    tally.true_ends += 1;
}

#[test]
fn escaping_by_setsid_and_double_fork() {
    kill_at_random_moments(&kind(
        "escapes",
        21,
        "(setsid sh -c '(sleep 1000 &); cd /; exec sleep 1000' >/dev/null 2>&1 &)\n\
         sleep 0.1\nexit 21",
    ));
}

#[test]
fn ignoring_term() {
    kill_at_random_moments(&kind(
        "ignores TERM",
        22,
        "trap '' TERM HUP INT\n(setsid sleep 1000 &)\nsleep 1000 &\nsleep 0.1\nexit 22",
    ));
}

#[test]
fn stopping_itself() {
    kill_at_random_moments(&kind(
        "stops itself",
        23,
        "sh -c 'kill -STOP $$; sleep 1000' &\n\
         (setsid sh -c 'kill -STOP $$; sleep 1000' &)\n\
         (sleep 0.1; kill -CONT $$) &\nkill -STOP $$\nexit 23",
    ));
}

#[test]
fn closing_all_files() {
    kill_at_random_moments(&kind(
        "closes all files",
        24,
        "exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-\n\
         (setsid sleep 1000 &)\nsleep 1000 &\nsleep 0.1\nexit 24",
    ));
}

#[test]
fn holding_stdout_in_a_grandchild() {
    kill_at_random_moments(&kind(
        "holds stdout",
        25,
        "(sh -c 'sleep 3600; echo late' &)\necho now\nsleep 0.1\nexit 25",
    ));
}

#[test]
fn wiping_the_environment() {
    kill_at_random_moments(&kind(
        "wipes its environment",
        26,
        "env -i token=$token sleep 1000 &\n\
         (env -i token=$token sh -c 'sleep 1000 >/dev/null 2>&1 & wait' &)\n\
         sleep 0.1\nexit 26",
    ));
}

/// The runner is stopped before it can record the process that it started, and killed there.
#[test]
fn a_runner_killed_before_it_recorded_its_recipe_leaves_nothing_running() {
    let world = world_of(&kind(
        "wipes",
        0,
        "env -i token=$token sleep 1000 &\ntouch ready\nsleep 1000",
    ));
    let task = world.submit(&["fail"]);
    let options = [
        "-o",
        "/dev/null",
        "-e",
        "trace=pread64",
        "-e",
        "inject=pread64:delay_enter=10000000",
    ]
    .map(str::to_owned);
    let mut strace = under_strace(&world, &["runner", "--once", &task.id], &options)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.wait_for_file(&task.work(1, "ready"));
    // Only the intent names the process yet, and after it the recipe's own record.
    assert!(!task.path.join("attempts/1/run.json").exists());
    let intent = task.read("attempts/1/result.part");
    let run: Value = serde_json::from_str(intent.lines().next().unwrap()).unwrap();
    assert_eq!(run["child"], Value::Null, "{run}");
    let runner = i32::try_from(run["runner"]["pid"].as_i64().unwrap()).unwrap();
    world.signal(runner, rustix::process::Signal::KILL);
    world.wait_until("the runner has exited", || !is_alive(runner));
    // It would sleep through the pause.
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert!(!alive(&task).is_empty(), "no process was left to find");
    recover(&world, &task);
    assert_none_alive(&world, &task);
    assert_eq!(task.result()["error"]["kind"], "lost");
}

#[test]
fn ending_at_once() {
    kill_at_random_moments(&kind("ends at once", 27, "exit 27"));
}

/// Bounded: at most some hundred at once, and a chain of forks that ends.
#[test]
fn forking_wildly() {
    let hop = r#"cat >hop <<'END'
[ "$1" -gt 0 ] || exec sleep 1000
setsid sh ./hop $(($1 - 1)) &
END
n=0
while [ $n -lt 40 ]; do
    (setsid sh -c 'sleep 1000 & sleep 1000 & wait' &)
    [ $((n % 10)) -ne 0 ] || sh ./hop 100 &
    n=$((n + 1))
done
exit 28"#;
    kill_at_random_moments(&kind("forks wildly", 28, hop));
}

/// Its runner is its parent. The pid is used only while it belongs to this test.
#[test]
fn killing_the_runner() {
    let script = "(setsid sleep 1000 &)\nsleep 1000 &\n\
                  [ \"$(cat /proc/$PPID/comm)\" != agentspool ] || kill -KILL $PPID\n\
                  sleep 1000";
    kill_at_random_moments(&Kind {
        name: "kills its runner",
        script: script.to_owned(),
        code: None,
    });
}

#[test]
fn writing_without_end() {
    let bytes: u64 = scale::pick(64 << 20, 1 << 30);
    let script = format!("yes >&2 &\nhead -c {bytes} /dev/zero\nexit 29");
    let kind = kind("writes without end", 29, &script);
    kill_at_random_moments(&kind);

    let world = world_of(&kind);
    let task = world.submit(&["fail"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    let log = |name: &str| std::fs::metadata(task.path.join("attempts/1").join(name)).unwrap();
    assert_eq!(log("stdout.log").len(), bytes);
    for name in ["stdout.log", "stderr.log"] {
        let taken = log(name).blocks() * 512;
        assert!(taken <= LOG_CAP, "{name} takes {taken} bytes");
    }
    let dropped = task.status()["log_bytes_dropped"].as_u64().unwrap();
    assert!(dropped > bytes - LOG_CAP, "{dropped}");
    figure("process writes without end: bytes", bytes);
}

/// Stopped by its deadline and not by a kill.
#[test]
fn writing_until_the_deadline() {
    let world = world_of(&kind("writes", 0, "yes &\nexec yes"));
    let task = world.submit(&["fail", "--timeout", "1"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    assert_none_alive(&world, &task);
    let result = task.result();
    assert_eq!(result["error"]["kind"], "timeout", "{result}");
    let log = std::fs::metadata(task.path.join("attempts/1/stdout.log")).unwrap();
    assert!(log.blocks() * 512 <= LOG_CAP, "{} blocks", log.blocks());
    // A task that starts normally still runs.
    let whole = task.read("attempts/1/stdout.log");
    assert!(whole.starts_with("y\ny\n") && whole.ends_with("y\n"));
}
