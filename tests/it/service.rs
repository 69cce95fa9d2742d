//! What a watcher that runs as a service reports over the notification socket.
//!
//! Not systemd itself (`tests/systemd`). Here the test listens on a socket of its own.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, names_in};

struct Service {
    socket: UnixDatagram,
    watcher: Child,
    messages: Vec<String>,
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
            messages: Vec::new(),
        }
    }

    /// Receives the messages since the last call.
    fn receive(&mut self) {
        let mut bytes = [0u8; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.messages.push(text.trim_end().replace('\n', " "));
        }
    }

    fn has_received(&mut self, text: &str) -> bool {
        self.receive();
        self.messages.iter().any(|message| message == text)
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
    world.wait_until("it is ready", || service.has_received("READY=1"));
    assert_eq!(
        names_in(&world.path("incoming")),
        Vec::<String>::new(),
        "ready before its first scan: {:?}",
        service.messages
    );
}

#[test]
fn it_reports_counts_and_its_watchdog() {
    let world = World::new();
    world.recipe(
        "stays",
        "#!/bin/sh\ntouch ready\nwhile [ ! -e ../../../gate ]; do sleep 0.05; done\n",
    );
    let mut service = Service::start(&world);
    world.wait_until("it reports no task", || {
        service.has_received("STATUS=0 running, 0 pending")
    });
    world.submit(&["stays"]);
    world.wait_until("it reports a running task", || {
        service.has_received("STATUS=1 running, 0 pending")
    });
    service.messages.clear();
    world.wait_until("it reports its watchdog again and again", || {
        service.receive();
        let signs = service
            .messages
            .iter()
            .filter(|message| *message == "WATCHDOG=1");
        signs.count() >= 3
    });
}

#[test]
fn it_reports_a_reload_and_its_end() {
    let world = World::new();
    let mut service = Service::start(&world);
    world.wait_until("it is ready", || service.has_received("READY=1"));
    service.messages.clear();
    service.signal(Signal::HUP);
    world.wait_until("it has reloaded", || service.has_received("READY=1"));
    let reloading = service
        .messages
        .iter()
        .position(|message| message.starts_with("RELOADING=1 MONOTONIC_USEC="));
    let ready = service
        .messages
        .iter()
        .position(|message| message == "READY=1");
    assert!(
        reloading.is_some() && reloading < ready,
        "{:?}",
        service.messages
    );
    service.signal(Signal::TERM);
    world.wait_until("it reports its end", || service.has_received("STOPPING=1"));
}
