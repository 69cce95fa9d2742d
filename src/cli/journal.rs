//! Writes events to the journal, with separate fields: `journalctl TASK_ID=…`.
//!
//! Not used unless stderr is connected to the journal. The crate tracing-journald does not fit: its message
//! is only the event's word, so plain `journalctl -u agentspool` would not show the task. Here `MESSAGE=` is
//! the line that a terminal shows. Invariant: an event that the journal does not accept is written to stderr,
//! which also leads to the journal.

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
    /// The journal, if `JOURNAL_STREAM` names this process's stderr. The variable alone is not enough: a
    /// process that is started with another stderr inherits it.
    pub fn of_stderr(stream: &str) -> Option<Journal> {
        let stat = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        // A journal that hangs must not block this process.
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

    /// The line for people: one line, whatever a path or a message in it contains.
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

/// A value as it is written into a line, quoted so that it cannot look like another field.
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

/// The field's name in the journal. Ids have the same names as in the files; the other fields keep their
/// names. A name may not start with `_`, and may hold only letters, digits and `_`.
fn journal_name(name: &str) -> String {
    match name {
        "task" => "TASK_ID".to_owned(),
        "session" => "SESSION_ID".to_owned(),
        other => other.to_ascii_uppercase().replace('.', "_"),
    }
}

/// Adds one field. A value of several lines is written with its length, so that no line of it looks like a
/// field.
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
    fn a_name_chosen_by_a_user_stays_in_its_field() {
        let entry = Entry {
            message: "left\nforged\u{1b}[2J".to_owned(),
            fields: vec![("drop", "a task=\"x\"\n\u{202e}".to_owned())],
        };
        let line = r#"left\nforged\u{1b}[2J drop="a task=\"x\"\n\u{202e}""#;
        assert_eq!(entry.line(), line);
    }

    #[test]
    fn a_value_cannot_look_like_a_field() {
        let mut bytes = Vec::new();
        put(&mut bytes, "MESSAGE", "one\nTASK_ID=two");
        assert_eq!(bytes, b"MESSAGE\n\x0f\0\0\0\0\0\0\0one\nTASK_ID=two\n");
    }
}
