//! A terminal for a command: a pty of a known width whose output is kept byte for byte.
//!
//! Either one stream is the terminal, as if the other one were redirected into a pipe, or both are, as for a
//! person. Not a screen: escape codes are not interpreted.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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
    /// Both streams and stdin; the output is returned as stdout.
    All,
}

/// A command that runs with a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Reader,
    other: Reader,
    on: On,
    what: String,
}

impl World {
    /// Runs a command to its end on a terminal of this many columns.
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
            On::All => command
                .stdin(slave.try_clone().unwrap())
                .stdout(slave.try_clone().unwrap())
                .stderr(slave),
        };
        let mut child = command.spawn().unwrap();
        // The command keeps copies of the terminal's other end. With copies open here, the output would never
        // end.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let other: Box<dyn Read + Send> = match on {
            On::Stdout => Box::new(child.stderr.take().unwrap()),
            On::Stderr => Box::new(child.stdout.take().unwrap()),
            On::All => Box::new(std::io::empty()),
        };
        Terminal {
            child,
            keyboard: File::from(master.try_clone().unwrap()),
            screen: Reader::start(Box::new(File::from(master))),
            other: Reader::start(other),
            on,
            what: format!("{command:?}"),
        }
    }

    /// The output so far, escape codes included.
    pub fn seen(&self) -> String {
        self.screen.text()
    }

    /// Types this text, with [`On::All`].
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end. The terminal's line ends are returned as plain newlines.
    pub fn end(mut self) -> Ran {
        let code = self.child.wait().unwrap().code().unwrap();
        let screen = self.screen.end().replace("\r\n", "\n");
        let other = self.other.end();
        let (stdout, stderr) = match self.on {
            On::Stdout | On::All => (screen, other),
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

/// The two ends of a terminal: the first one reads the output.
pub fn pair(columns: u16) -> (OwnedFd, OwnedFd) {
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

/// Reads a stream as it comes, so that no writer has to wait.
struct Reader {
    thread: JoinHandle<()>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Reader {
    fn start(mut source: Box<dyn Read + Send>) -> Reader {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut piece = [0u8; 4096];
            // After the last writer closed it, a pty returns an error and a pipe returns nothing.
            while let Ok(length @ 1..) = source.read(&mut piece) {
                read.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Reader { thread, bytes }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn end(self) -> String {
        self.thread.join().unwrap();
        let bytes = self.bytes.lock().unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
