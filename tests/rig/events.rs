//! The rescan finds what file events miss: a queue that overflows, no inotify at all, a drop box that is
//! replaced or mounted over.
//!
//! The machine's limits stay free for others: instances and watches are counted in a user namespace of the
//! watcher's own, and the short queue is restored as soon as the watcher has its own.

use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal};

use crate::herd::{log_to_file, signal_process};
use crate::mount::run;
use crate::scale::{self, figure};
use crate::support::{World, names_in};

/// So long that no rescan happens by time.
const NEVER: &str = "100000";
const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("echo", "#!/bin/sh\ncat\n");
    world
}

/// A watcher that is killed at the end of the test.
struct Watcher(Child);

impl Watcher {
    /// Starts it and waits until it is shown as running.
    fn start(world: &World, command: &mut Command) -> Watcher {
        let watcher = Watcher(log_to_file(world, command).spawn().unwrap());
        world.wait_until("a watcher is shown as running", || {
            !world.watcher_pids().is_empty()
        });
        watcher
    }

    fn pid(&self) -> i32 {
        Pid::from_child(&self.0).as_raw_nonzero().get()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The event queues of the machine are short for new instances. Restored when dropped.
struct ShortQueue(String);

impl ShortQueue {
    fn set(events: &str) -> ShortQueue {
        let before = std::fs::read_to_string(QUEUE).unwrap();
        std::fs::write(QUEUE, events).expect("this test needs root");
        ShortQueue(before)
    }
}

impl Drop for ShortQueue {
    fn drop(&mut self) {
        std::fs::write(QUEUE, self.0.trim()).unwrap();
    }
}

fn wait_for_all(world: &World, tasks: usize) {
    let mut done = 0;
    while done < tasks {
        let before = done;
        world.wait_until(&format!("more than {before} of {tasks} are done"), || {
            let all = world.tasks();
            done = all.iter().filter(|task| task.has_result()).count();
            done > before
        });
    }
    assert_eq!(names_in(&world.path("incoming")), Vec::<String>::new());
    assert_eq!(world.tasks().len(), tasks);
}

/// The log of a watcher on stderr.
fn log(world: &World) -> String {
    std::fs::read_to_string(world.root().join("watch.log")).unwrap_or_default()
}

#[test]
fn an_overflowing_queue_loses_no_task() {
    // Tasks are reported one by one, and all reports except the first few are lost. The others are found only
    // by the overflow event: no rescan happens by time here.
    let tasks = scale::pick(60, 2_000);
    let drops = scale::pick(300, 20_000);
    let world = world();
    world.set("rescan_sec", NEVER);
    let short = ShortQueue::set("16");
    let watcher = Watcher::start(&world, &mut world.command(&["watch"]));
    drop(short);
    // It listens before its first scan, and has scanned once this is finished.
    let first = world.submit(&["echo"]);
    world.result_of(&first);

    assert!(signal_process(watcher.pid(), Signal::STOP));
    let line = "{\"recipe\": \"echo\"}\n".repeat(tasks);
    let ran = world.run_with_stdin(&["submit", "--batch", "-"], line.as_bytes());
    ran.succeeds();
    for n in 0..drops {
        world.drop_in(&format!("drop-{n}.json"), r#"{"recipe": "echo"}"#);
    }
    assert!(signal_process(watcher.pid(), Signal::CONT));
    wait_for_all(&world, 1 + tasks + drops);
    figure("events: tasks reported to a full queue", tasks);
    figure("events: drops reported to a full queue", drops);
    figure("events: lost by a full queue", 0);
}

/// A watcher that gets only this many of a resource that the kernel counts by user.
fn limited(world: &World, what: &str, most: usize) -> Command {
    let sealed = world.command(&["watch"]);
    let mut command = Command::new("unshare");
    let script = format!("echo {most} >/proc/sys/user/{what} && exec \"$@\"");
    command
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .arg(sealed.get_program())
        .args(sealed.get_args())
        .env_clear();
    for (name, value) in sealed.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

#[test]
fn without_inotify_the_rescan_finds_everything() {
    let drops = scale::pick(40, 1_000);
    for (what, most) in [
        ("max_inotify_instances", 0),
        ("max_inotify_watches", 0),
        // Enough for the first folder alone.
        ("max_inotify_watches", 1),
    ] {
        let world = world();
        let _watcher = Watcher::start(&world, &mut limited(&world, what, most));
        world.wait_until("it logs that it gets no events", || {
            log(&world).contains("changes are noticed only every")
        });
        for n in 0..drops {
            world.drop_in(&format!("drop-{n}.json"), r#"{"recipe": "echo"}"#);
        }
        let task = world.submit(&["echo"]);
        world.result_of(&task);
        wait_for_all(&world, drops + 1);
        figure(&format!("events: drops with {what}={most}"), drops);
    }
}

/// Whether a process listens to exactly this folder, as the kernel reports it.
fn listens_to(pid: i32, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(" ino:{:x} ", std::fs::metadata(folder).unwrap().ino());
    let fds = format!("/proc/{pid}/fdinfo");
    names_in(Path::new(&fds)).iter().any(|fd| {
        let text = std::fs::read_to_string(format!("{fds}/{fd}")).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with("inotify ") && line.contains(&inode))
    })
}

#[test]
fn a_drop_box_that_is_replaced_is_watched_again() {
    let world = world();
    let watcher = Watcher::start(&world, &mut world.command(&["watch"]));
    let incoming = world.path("incoming");
    for round in 0..scale::pick(3, 50) {
        let away = world.root().join(format!("old-{round}"));
        std::fs::rename(&incoming, &away).unwrap();
        // A file in the old folder belongs to no spool any more. A file in the new folder is a drop.
        std::fs::create_dir_all(&incoming).unwrap();
        world.drop_in(&format!("before-{round}.json"), r#"{"recipe": "echo"}"#);
        wait_for_all(&world, 2 * round + 1);
        world.wait_until("the new box is watched", || {
            listens_to(watcher.pid(), &incoming)
        });
        world.drop_in(&format!("after-{round}.json"), r#"{"recipe": "echo"}"#);
        wait_for_all(&world, 2 * round + 2);
    }
    // From now on only by events.
    world.set("rescan_sec", NEVER);
    assert!(signal_process(watcher.pid(), Signal::HUP));
    world.drop_in("last.one.json", r#"{"recipe": "echo"}"#);
    wait_for_all(&world, 2 * scale::pick(3, 50) + 1);
}

/// A mount that is removed with the test.
struct Bind<'p>(&'p Path);

impl<'p> Bind<'p> {
    fn new(from: &Path, to: &'p Path) -> Bind<'p> {
        run(
            "mount",
            &["--bind", from.to_str().unwrap(), to.to_str().unwrap()],
        );
        Bind(to)
    }
}

impl Drop for Bind<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// A wrong drop cannot leave the mount. It is kept there under a hidden name, and the reason says so.
fn refused_in_its_place(world: &World) {
    world.drop_in("wrong.json", r#"{"recipe": "nobody"}"#);
    let mut message = String::new();
    world.wait_until("the wrong drop is refused", || {
        message = world.json(&["status", "wrong"]).to_string();
        message.contains("incoming/.task_")
    });
    let left = names_in(&world.path("incoming"));
    let [kept] = &left[..] else {
        panic!("{left:?}");
    };
    assert!(
        kept.ends_with("-wrong.json") && message.contains(kept),
        "{message}"
    );
    std::fs::remove_file(world.path("incoming").join(kept)).unwrap();
}

#[test]
fn drops_are_taken_from_a_mounted_drop_box_and_after_it_is_unmounted() {
    let world = world();
    let elsewhere = world.root().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let incoming = world.path("incoming");
    let bind = Bind::new(&elsewhere, &incoming);
    let watcher = Watcher::start(&world, &mut world.command(&["watch"]));
    world.drop_in("mounted.json", r#"{"recipe": "echo"}"#);
    wait_for_all(&world, 1);
    refused_in_its_place(&world);
    drop(bind);
    world.drop_in("after.json", r#"{"recipe": "echo"}"#);
    wait_for_all(&world, 2);
    let _bind = Bind::new(&elsewhere, &incoming);
    world.drop_in("again.json", r#"{"recipe": "echo"}"#);
    wait_for_all(&world, 3);
    world.wait_until("the mounted box is watched", || {
        listens_to(watcher.pid(), &incoming)
    });
}
