//! Several watchers on one spool, killed with -9 and replaced during the test.
//!
//! Not a test. A pid is signalled only through a handle that was taken before the process was checked again,
//! so no foreign process is hit. Invariant: no watcher of the test is left, whatever happens.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::chance::Chance;
use crate::support::World;

/// How often a victim is chosen.
const WATCHER_EVERY: Duration = Duration::from_millis(200);
const RUNNER_EVERY: Duration = Duration::from_millis(500);

pub struct Herd<'w> {
    world: &'w World,
    chance: Chance,
    environment: Vec<(&'static str, PathBuf)>,
    watchers: Vec<Child>,
    next_watcher: Instant,
    next_runner: Instant,
    pub watchers_killed: usize,
    pub runners_killed: usize,
}

impl<'w> Herd<'w> {
    pub fn start(world: &'w World, watchers: usize, chance: Chance) -> Herd<'w> {
        Herd::start_with(world, watchers, chance, &[])
    }

    /// With more variables in the watchers' environment.
    pub fn start_with(
        world: &'w World,
        watchers: usize,
        chance: Chance,
        environment: &[(&'static str, &Path)],
    ) -> Herd<'w> {
        let now = Instant::now();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (*name, value.to_path_buf()))
            .collect();
        Herd {
            world,
            chance,
            watchers: (0..watchers).map(|_| spawn(world, &environment)).collect(),
            environment,
            next_watcher: now + WATCHER_EVERY,
            next_runner: now + RUNNER_EVERY,
            watchers_killed: 0,
            runners_killed: 0,
        }
    }

    /// Kills a watcher when a kill is due. Another watcher takes its place.
    pub fn kill_watchers(&mut self) {
        if Instant::now() < self.next_watcher {
            return;
        }
        self.next_watcher = Instant::now() + WATCHER_EVERY;
        let at = self.chance.below(self.watchers.len());
        let victim = &mut self.watchers[at];
        victim.kill().unwrap();
        victim.wait().unwrap();
        self.watchers[at] = spawn(self.world, &self.environment);
        self.watchers_killed += 1;
    }

    /// Kills a runner when a kill is due.
    pub fn kill_runners(&mut self) {
        if Instant::now() < self.next_runner {
            return;
        }
        self.next_runner = Instant::now() + RUNNER_EVERY;
        let mut runners = self.world.runners();
        // Mostly a runner with a task, sometimes a runner between two tasks.
        if self.chance.below(4) > 0 && runners.iter().any(|pid| has_child(*pid)) {
            runners.retain(|pid| has_child(*pid));
        }
        if let Some(victim) = self.chance.of(&runners)
            && signal_runner(self.world, victim, Signal::KILL)
        {
            self.runners_killed += 1;
        }
    }

    /// Stops the watchers as a service manager does. Their runners exit when their pipes close.
    pub fn stop(mut self) {
        for watcher in &self.watchers {
            let pid = Pid::from_child(watcher);
            // A watcher that is just starting does not handle TERM yet.
            self.world
                .wait_until("the watcher is shown as running", || {
                    let seen = self.world.watcher_pids();
                    seen.contains(&pid.as_raw_nonzero().get())
                });
            rustix::process::kill_process(pid, Signal::TERM).unwrap();
        }
        for watcher in &mut self.watchers {
            assert!(watcher.wait().unwrap().success());
        }
        self.watchers.clear();
        let world = self.world;
        world.wait_until("no process of the world runs", || {
            world.processes().is_empty()
        });
    }
}

impl Drop for Herd<'_> {
    fn drop(&mut self) {
        for watcher in &mut self.watchers {
            let _ = watcher.kill();
            let _ = watcher.wait();
        }
    }
}

/// Signals a runner of this world; `false` if it had exited.
pub fn signal_runner(world: &World, pid: i32, signal: Signal) -> bool {
    let Ok(handle) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else {
        return false;
    };
    world.runners().contains(&pid) && pidfd_send_signal(&handle, signal).is_ok()
}

/// Signals a process that the test itself has not reaped yet.
pub fn signal_process(pid: i32, signal: Signal) -> bool {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).is_ok()
}

/// Whether any of its threads has a child.
fn has_child(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children"));
        children.is_ok_and(|children| !children.is_empty())
    })
}

fn spawn(world: &World, environment: &[(&'static str, PathBuf)]) -> Child {
    let mut command = world.command(&["watch"]);
    log_to_file(world, command.envs(environment.iter().cloned()))
        .spawn()
        .unwrap()
}

/// Where the world searches for the log of its watchers.
pub fn log_to_file<'c>(world: &World, command: &'c mut Command) -> &'c mut Command {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(world.root().join("watch.log"))
        .unwrap();
    command.stdout(Stdio::null()).stderr(Stdio::from(log))
}
