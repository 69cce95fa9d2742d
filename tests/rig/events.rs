//! What the ears miss the rescan finds: a queue that overflows, no inotify to be had, a drop box
//! that is replaced or mounted over.
//!
//! The machine's limits are not used up for everybody: instances and watches are counted in a user
//! namespace of the watcher's own, and the short queue is set back as soon as the watcher has its.

use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal};

use crate::herd::{log_to_file, signal_process};
use crate::mount::run;
use crate::scale::{self, figure};
use crate::support::{World, names_in};

/// So long that nothing is found by the clock.
const NEVER: &str = "100000";
const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("echo", "#!/bin/sh\ncat\n");
    world
}

/// A watcher that is ended with the test.
struct Watcher(Child);

impl Watcher {
    /// Starts it and waits until it is seen.
    fn start(world: &World, command: &mut Command) -> Watcher {
        let watcher = Watcher(log_to_file(world, command).spawn().unwrap());
        world.wait_until("a watcher is seen", || !world.watcher_pids().is_empty());
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

/// The machine's event queues are short for who asks for one now; put back when dropped.
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

/// What a watcher said on stderr.
fn said(world: &World) -> String {
    std::fs::read_to_string(world.root().join("watch.log")).unwrap_or_default()
}

#[test]
fn an_overflowing_queue_loses_no_task() {
    // Tasks are told one by one, and what is told of them is lost but for the first few. Nothing
    // finds the others but the overflow's own word: the clock never does here.
    let tasks = scale::pick(60, 2_000);
    let drops = scale::pick(300, 20_000);
    let world = world();
    world.set("rescan_sec", NEVER);
    let short = ShortQueue::set("16");
    let watcher = Watcher::start(&world, &mut world.command(&["watch"]));
    drop(short);
    // It listens before its first scan, and has scanned once this is done.
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
    figure("events: tasks told to a full queue", tasks);
    figure("events: drops told to a full queue", drops);
    figure("events: lost by a full queue", 0);
}

/// A watcher that gets no more than so many of something the kernel counts by user.
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
fn without_inotify_the_clock_finds_everything() {
    let drops = scale::pick(40, 1_000);
    for (what, most) in [
        ("max_inotify_instances", 0),
        ("max_inotify_watches", 0),
        // Enough for the first folder alone.
        ("max_inotify_watches", 1),
    ] {
        let world = world();
        let _watcher = Watcher::start(&world, &mut limited(&world, what, most));
        world.wait_until("it says that it is deaf", || {
            said(&world).contains("changes are noticed only every")
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

/// Whether a process listens to this very folder, as the kernel says.
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
fn a_drop_box_that_is_replaced_is_listened_to_again() {
    let world = world();
    let watcher = Watcher::start(&world, &mut world.command(&["watch"]));
    let incoming = world.path("incoming");
    for turn in 0..scale::pick(3, 50) {
        let away = world.root().join(format!("old-{turn}"));
        std::fs::rename(&incoming, &away).unwrap();
        // What lies in the old one is nobody's any more; what lies in the new one is a drop.
        std::fs::create_dir_all(&incoming).unwrap();
        world.drop_in(&format!("before-{turn}.json"), r#"{"recipe": "echo"}"#);
        wait_for_all(&world, 2 * turn + 1);
        world.wait_until("the new box is listened to", || {
            listens_to(watcher.pid(), &incoming)
        });
        world.drop_in(&format!("after-{turn}.json"), r#"{"recipe": "echo"}"#);
        wait_for_all(&world, 2 * turn + 2);
    }
    // From now on only by being told.
    world.set("rescan_sec", NEVER);
    assert!(signal_process(watcher.pid(), Signal::HUP));
    world.drop_in("last.one.json", r#"{"recipe": "echo"}"#);
    wait_for_all(&world, 2 * scale::pick(3, 50) + 1);
}

/// A mount that goes with the test.
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

/// A wrong drop cannot leave the mount; it is kept there, out of sight, and the reason says so.
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
fn a_mounted_drop_box_is_served_while_it_is_there_and_after() {
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
    world.wait_until("the mounted box is listened to", || {
        listens_to(watcher.pid(), &incoming)
    });
}
