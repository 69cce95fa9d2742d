//! A terminal for a command: a pty of a known width whose output is kept to the byte.
//!
//! Only one stream is put on it, as when the other one is redirected; the other one is a pipe.
//! Not a screen: nothing here interprets escape codes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Ran, World};

/// Which stream is the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    Stdout,
    Stderr,
}

/// A command that runs with a terminal.
pub struct Terminal {
    child: Child,
    screen: JoinHandle<String>,
    other: JoinHandle<String>,
    on: On,
    what: String,
}

impl World {
    /// Runs a command to its end with a terminal of this many columns.
    pub fn run_on_terminal(&self, on: On, columns: u16, arguments: &[&str]) -> Ran {
        Terminal::start(&mut self.command(arguments), on, columns).end()
    }
}

impl Terminal {
    pub fn start(command: &mut Command, on: On, columns: u16) -> Terminal {
        let (master, slave) = pair(columns);
        command.env("TERM", "xterm");
        match on {
            On::Stdout => command.stdout(slave).stderr(Stdio::piped()),
            On::Stderr => command.stderr(slave).stdout(Stdio::piped()),
        };
        let mut child = command.spawn().unwrap();
        // The command keeps copies of the terminal's other end: with them alive here, the end of
        // the output would never come.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let other: Box<dyn Read + Send> = match on {
            On::Stdout => Box::new(child.stderr.take().unwrap()),
            On::Stderr => Box::new(child.stdout.take().unwrap()),
        };
        Terminal {
            child,
            screen: std::thread::spawn(move || read_all(Box::new(File::from(master)))),
            other: std::thread::spawn(move || read_all(other)),
            on,
            what: format!("{command:?}"),
        }
    }

    /// Waits for the end. The terminal's line ends come as plain newlines.
    pub fn end(mut self) -> Ran {
        let code = self.child.wait().unwrap().code().unwrap();
        let screen = self.screen.join().unwrap().replace("\r\n", "\n");
        let other = self.other.join().unwrap();
        let (stdout, stderr) = match self.on {
            On::Stdout => (screen, other),
            On::Stderr => (other, screen),
        };
        Ran {
            code,
            stdout,
            stderr,
            what: self.what,
        }
    }
}

fn pair(columns: u16) -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&slave, size).unwrap();
    (master, slave)
}

/// Reads until the last writer is gone, which a pty tells by an error.
fn read_all(mut source: Box<dyn Read + Send>) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    while let Ok(read @ 1..) = source.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
