//! The journal as a place for events, with their fields apart: `journalctl TASK_ID=…`.
//!
//! Used only when stderr is the journal anyway. The crate tracing-journald was looked at: its
//! message is the bare word, so that plain `journalctl -u agentspool` would not say of which task.
//! Here `MESSAGE=` is the line that a terminal shows. Invariant: what the journal does not take
//! goes to stderr, which is the journal as well.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;

use agentspool::task::escape_text;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "agentspool";

/// The journal's socket.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal, if `JOURNAL_STREAM` says that this process's stderr leads there: a variable
    /// alone is inherited by whoever is started with another stderr.
    pub fn of_stderr(stream: &str) -> Option<Journal> {
        let stat = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        // A journal that hangs must not stop anybody.
        socket.set_nonblocking(true).ok()?;
        Some(Journal(socket))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let log = super::output::log();
        let dropped = log.dropped();
        let line = entry.line();
        if dropped > 0 {
            entry.fields.push(("dropped_lines", dropped.to_string()));
        }
        let datagram = entry.datagram(*event.metadata().level());
        match self.0.send(&datagram) {
            Ok(_) => log.forget_dropped(dropped),
            Err(_) => log.line(line.as_bytes()),
        }
    }
}

/// An event's message and fields, in their order.
#[derive(Default)]
struct Entry {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

impl Entry {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }

    /// What a person reads: one line, whatever a path or a message in it holds.
    fn line(&self) -> String {
        let mut line = escape_text(&self.message).into_owned();
        for (name, value) in &self.fields {
            let _ = write!(line, " {name}={}", quoted(value));
        }
        line
    }

    /// The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
    fn datagram(&self, level: Level) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, "PRIORITY", priority(level));
        put(&mut bytes, "SYSLOG_IDENTIFIER", IDENTIFIER);
        put(&mut bytes, "MESSAGE", &self.line());
        for (name, value) in &self.fields {
            put(&mut bytes, &journal_name(name), value);
        }
        bytes
    }
}

/// A value as it stands in a line, so that it cannot pass for another field.
fn quoted(value: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_whitespace() && c != '"' && c != '=';
    match escape_text(value) {
        escaped if escaped.chars().all(is_plain) => escaped,
        escaped => format!("\"{}\"", escaped.replace('"', "\\\"")).into(),
    }
}

/// As syslog(3) numbers them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Ids are called so in the files as well; the rest keeps its name. None may begin with `_` or hold
/// anything but letters, digits and `_`.
fn journal_name(name: &str) -> String {
    match name {
        "task" => "TASK_ID".to_owned(),
        "session" => "SESSION_ID".to_owned(),
        other => other.to_ascii_uppercase().replace('.', "_"),
    }
}

/// One field. A value of several lines is told with its length, so that nothing in it can pass for
/// a field.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_line_and_its_fields() {
        let entry = Entry {
            message: "completed".to_owned(),
            fields: vec![
                ("task", "task_0".to_owned()),
                ("session", "chat".to_owned()),
                ("exit_code", "0".to_owned()),
            ],
        };
        let text = String::from_utf8(entry.datagram(Level::INFO)).unwrap();
        assert_eq!(
            text,
            "PRIORITY=6\nSYSLOG_IDENTIFIER=agentspool\n\
             MESSAGE=completed task=task_0 session=chat exit_code=0\n\
             TASK_ID=task_0\nSESSION_ID=chat\nEXIT_CODE=0\n"
        );
    }

    #[test]
    fn what_others_named_stays_in_its_place() {
        let entry = Entry {
            message: "left\nforged\u{1b}[2J".to_owned(),
            fields: vec![("drop", "a task=\"x\"\n\u{202e}".to_owned())],
        };
        let line = r#"left\nforged\u{1b}[2J drop="a task=\"x\"\n\u{202e}""#;
        assert_eq!(entry.line(), line);
    }

    #[test]
    fn a_value_cannot_pass_for_a_field() {
        let mut bytes = Vec::new();
        put(&mut bytes, "MESSAGE", "one\nTASK_ID=two");
        assert_eq!(bytes, b"MESSAGE\n\x0f\0\0\0\0\0\0\0one\nTASK_ID=two\n");
    }
}
