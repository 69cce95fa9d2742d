//! What a watcher tells whoever started it as a service, over the socket that systemd would give it.
//!
//! Not systemd itself: that is tests/systemd. Here a socket of the test's own listens.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, names_in};

struct Service {
    socket: UnixDatagram,
    watcher: Child,
    heard: Vec<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

impl Service {
    /// A watcher as systemd starts it, with a watchdog of 200 ms.
    fn start(world: &World) -> Service {
        let path = world.root().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let sealed = world.command(&["watch"]);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" watch"])
            .arg(sealed.get_program())
            .env_clear();
        for (name, value) in sealed.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let watcher = command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Service {
            socket,
            watcher,
            heard: Vec::new(),
        }
    }

    /// Takes in what was said since the last call.
    fn listen(&mut self) {
        let mut bytes = [0u8; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.heard.push(text.trim_end().replace('\n', " "));
        }
    }

    fn has_said(&mut self, text: &str) -> bool {
        self.listen();
        self.heard.iter().any(|message| message == text)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.watcher), signal).unwrap();
    }
}

#[test]
fn it_is_ready_once_the_first_scan_is_done() {
    let world = World::new();
    world.recipe("quick", "#!/bin/sh\n");
    world.drop_in("early.json", r#"{"recipe": "quick"}"#);
    let mut service = Service::start(&world);
    world.wait_until("it is ready", || service.has_said("READY=1"));
    assert_eq!(
        names_in(&world.path("incoming")),
        Vec::<String>::new(),
        "ready before it looked: {:?}",
        service.heard
    );
}

#[test]
fn it_counts_and_shows_that_it_lives() {
    let world = World::new();
    world.recipe(
        "stays",
        "#!/bin/sh\ntouch ready\nwhile [ ! -e ../../../gate ]; do sleep 0.05; done\n",
    );
    let mut service = Service::start(&world);
    world.wait_until("it counts nothing", || {
        service.has_said("STATUS=0 running, 0 pending")
    });
    world.submit(&["stays"]);
    world.wait_until("it counts a running task", || {
        service.has_said("STATUS=1 running, 0 pending")
    });
    service.heard.clear();
    world.wait_until("it lives, and says so again and again", || {
        service.listen();
        let signs = service.heard.iter().filter(|said| *said == "WATCHDOG=1");
        signs.count() >= 3
    });
}

#[test]
fn it_tells_that_it_reloads_and_that_it_leaves() {
    let world = World::new();
    let mut service = Service::start(&world);
    world.wait_until("it is ready", || service.has_said("READY=1"));
    service.heard.clear();
    service.signal(Signal::HUP);
    world.wait_until("it has reloaded", || service.has_said("READY=1"));
    let reloading = service
        .heard
        .iter()
        .position(|said| said.starts_with("RELOADING=1 MONOTONIC_USEC="));
    let ready = service.heard.iter().position(|said| said == "READY=1");
    assert!(
        reloading.is_some() && reloading < ready,
        "{:?}",
        service.heard
    );
    service.signal(Signal::TERM);
    world.wait_until("it says that it leaves", || service.has_said("STOPPING=1"));
}
