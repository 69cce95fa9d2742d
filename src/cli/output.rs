//! Everything that is printed: what people read, what scripts read, what goes wrong.
//!
//! The one file that writes to stdout and stderr. Invariants: with `--json` stdout gets one JSON
//! object and nothing else; colour and symbols only where a terminal wants them; and whatever a text
//! holds, it moves no cursor, hides nothing and begins no line, also in a pipe. Only what a task
//! printed goes out as it is (`task_bytes`), and texts of our own (`bytes`).

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use agentspool::task::{Json, escape_lines, escape_row, escape_text};
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;

use super::args::{Color, Global};
use super::env::Environment;
use super::exit_code::ExitCode;
use super::log_line::LineWriter;
use super::report::CliError;

/// The width of the terminal that stderr is; 80 where it is none.
pub(super) fn error_width() -> usize {
    width_of(io::stderr())
}

fn width_of(stream: impl std::os::fd::AsFd) -> usize {
    let size = rustix::termios::tcgetwinsize(stream);
    size.ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|width| *width > 0)
        .unwrap_or(80)
}

/// Where and how to print.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    color: Color,
    is_dumb: bool,
    /// Whether what tasks print may be another user's text, and is escaped on a terminal.
    is_guarded: Cell<bool>,
    /// The begun character at the end of what a task printed, which its next piece may complete: of
    /// stdout and of stderr.
    begun: [RefCell<Vec<u8>>; 2],
}

impl Output {
    pub fn new(global: &Global, env: &Environment) -> Output {
        let choice = match global.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let is_dumb = env.get("TERM").is_none_or(|term| term == "dumb");
        Output {
            json: global.json,
            quiet: global.quiet,
            color: global.color,
            is_dumb,
            is_guarded: Cell::new(false),
            begun: Default::default(),
        }
    }

    /// From here on, what a task printed is escaped where it would reach a terminal: in a group spool
    /// it may repeat what another user gave it.
    pub fn guard_terminal(&self) {
        self.is_guarded.set(true);
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether panels and symbols are wanted on stdout.
    pub fn is_fancy(&self) -> bool {
        // NO_COLOR and `--color never` take the colour away, not the panel.
        self.color == Color::Always || (io::stdout().is_terminal() && !self.is_dumb)
    }

    /// Whether a progress bar may be painted on stderr.
    pub fn may_animate(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal() && !self.is_dumb
    }

    /// The width of the terminal; 80 where there is none.
    pub fn width(&self) -> usize {
        width_of(io::stdout())
    }

    /// Whether a person reads our remarks: what only a person needs to know is not written anywhere else.
    pub fn is_read_by_a_person(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// One line for people, on stdout. Tabs stay: they part columns.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        self.line_after("", text)
    }

    /// The same behind a mark of ours, which may be coloured.
    pub fn line_after(&self, mark: &str, text: impl AsRef<str>) -> Result<(), CliError> {
        self.end_pieces();
        let text = escape_row(text.as_ref());
        Ok(writeln!(anstream::stdout(), "{mark}{text}")?)
    }

    /// A piece of what a task printed, on stdout: as it is, but on a terminal that is guarded. A piece
    /// may end within a character.
    pub fn task_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let is_guarded = self.is_guarded.get() && io::stdout().is_terminal();
        self.piece(0, bytes, is_guarded)
    }

    /// The same on stderr.
    pub fn task_error_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let is_guarded = self.is_guarded.get() && io::stderr().is_terminal();
        self.piece(1, bytes, is_guarded)
    }

    fn piece(&self, stream: usize, bytes: &[u8], is_guarded: bool) -> Result<(), CliError> {
        if !is_guarded {
            return Ok(write_to(stream, bytes)?);
        }
        let begun = self.begun.get(stream).map(RefCell::take);
        let mut whole = begun.unwrap_or_default();
        whole.extend(bytes);
        let begun = whole.split_off(whole.len() - begun_at_the_end(&whole));
        if let Some(place) = self.begun.get(stream) {
            place.replace(begun);
        }
        Ok(write_to(stream, &escaped(&whole))?)
    }

    /// No more of what a task printed follows for now: what waits to be completed is printed as it is.
    pub fn end_pieces(&self) {
        for (stream, begun) in self.begun.iter().enumerate() {
            let begun = begun.take();
            if !begun.is_empty() {
                let _ = write_to(stream, &escaped(&begun));
            }
        }
    }

    /// Bytes on stdout, as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.end_pieces();
        Ok(write_to(0, bytes)?)
    }

    /// A task's output: text as text, anything else as JSON. Escape codes in it are a part of it,
    /// so nothing is taken out of it for a pipe.
    pub fn value(&self, value: &Json) -> Result<(), CliError> {
        let text = value.to::<String>();
        let text = text.as_deref().unwrap_or(value.text());
        self.task_bytes(format!("{text}\n").as_bytes())
    }

    /// The one JSON object of this command.
    pub fn object<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| {
            CliError::new(
                ExitCode::General,
                format!("failed to write the output as JSON: {e}"),
            )
        })?;
        self.bytes(format!("{}\n", escape_in_json(&text)).as_bytes())
    }

    /// A remark on stderr; nothing with `--quiet`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// A remark on stderr that is needed also with `--quiet`.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.end_pieces();
        let _ = writeln!(anstream::stderr(), "{}", remark(text.as_ref()));
    }

    /// A question to a person at a terminal, who answers in the same line.
    pub fn question(&self, text: impl AsRef<str>) {
        self.end_pieces();
        let mut stderr = anstream::stderr();
        let _ = write!(stderr, "{}", remark(text.as_ref()));
        let _ = stderr.flush();
    }

    /// Tells an error, and what the command ends with.
    pub fn error(&self, error: &CliError) -> ExitCode {
        if error.is_silent {
            return error.code;
        }
        self.end_pieces();
        if self.json {
            let mut object = json!({
                "ok": false, "error": error.message, "code": error.code.number(),
            });
            for (key, value) in &error.details {
                object[*key] = value.clone();
            }
            let _ = self.object(&object);
            return error.code;
        }
        let mut stderr = anstream::stderr();
        let message = remark(&error.message);
        let _ = writeln!(stderr, "{} {message}", painted(ERROR, "error:"));
        for hint in &error.hints {
            let _ = writeln!(
                stderr,
                "{} {}",
                painted(AnsiColor::Cyan.on_default(), "hint:"),
                remark(hint)
            );
        }
        error.code
    }
}

/// A remark of one or more lines, as a parser's complaint has them. Those after the first are indented:
/// where the text is another user's, none of them looks like a line of ours.
fn remark(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape_row).collect();
    lines.join("\n  ")
}

/// Of the word that begins an error.
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// A text of ours in a colour; the streams that it is written to take that away where none is wanted.
pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// stdout is 0, stderr 1.
fn write_to(stream: usize, bytes: &[u8]) -> io::Result<()> {
    if stream == 1 {
        return io::stderr().write_all(bytes);
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// How many bytes at the end are the beginning of a character.
fn begun_at_the_end(bytes: &[u8]) -> usize {
    const LONGEST: usize = 4;
    // Not before the last byte that begins one: what is before it is no matter here.
    let end = &bytes[bytes.len().saturating_sub(LONGEST)..];
    let first = end.iter().rposition(|byte| byte & 0xc0 != 0x80);
    let last = first.map_or(&[][..], |first| &end[first..]);
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    }
}

/// What a task printed, as it is safe on a terminal.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape_lines(chunk.valid()));
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    safe.into_bytes()
}

/// A JSON text in which no character can move a terminal's cursor or hide something. Such characters
/// stand in strings only, where `\u` means the same.
fn escape_in_json(text: &str) -> Cow<'_, str> {
    let escaped = escape_text(text);
    if matches!(escaped, Cow::Borrowed(_)) {
        return escaped;
    }
    let mut safe = String::with_capacity(text.len());
    let mut units = [0u16; 2];
    for c in text.chars() {
        let mut buffer = [0u8; 4];
        let c_text: &str = c.encode_utf8(&mut buffer);
        if matches!(escape_text(c_text), Cow::Borrowed(_)) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(safe)
}

static LOG: OnceLock<LineWriter> = OnceLock::new();

/// The log of a process that runs unattended: stderr, which is never waited for.
pub(super) fn log() -> &'static LineWriter {
    open_log(None)
}

/// The same, opened by who knows on which device the spool is.
pub(super) fn open_log(own_disk: Option<u64>) -> &'static LineWriter {
    LOG.get_or_init(|| LineWriter::new(rustix::stdio::stderr(), 2, own_disk))
}

/// The process ends: its last lines are given a moment.
pub(super) fn flush_log() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// A command line that clap refuses, or asks clap about.
pub(crate) fn clap_error(error: &clap::Error, as_json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    let is_answer = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if is_answer {
        let _ = error.print();
        return ExitCode::Done;
    }
    // It repeats what was typed, which may be a name that somebody else chose.
    if as_json {
        let line = one_line(&error.to_string());
        let object = json!({ "ok": false, "error": line, "code": ExitCode::Usage.number() });
        let _ = writeln!(io::stdout(), "{}", escape_in_json(&object.to_string()));
    } else {
        // Without clap's own colours, which could not be told from what was typed.
        let text = error.to_string();
        let text = escape_lines(text.trim_start_matches("error: "));
        let _ = write!(anstream::stderr(), "{} {text}", painted(ERROR, "error:"));
    }
    ExitCode::Usage
}

/// clap's complaint without its advice: all up to the first empty line, since what is missing
/// stands on lines of its own.
fn one_line(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let words = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    words.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_json() {
        let value = json!({"text": "a\u{9b}31m\u{202e}b\u{e0041} ü\n\u{7f}"});
        let text = value.to_string();
        let safe = escape_in_json(&text);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
        assert!(
            safe.contains("\\u009b31m\\u202eb\\udb40\\udc41 ü"),
            "{safe}"
        );
        assert!(!safe.contains('\u{7f}'));
    }

    #[test]
    fn what_a_task_printed_is_safe_where_it_is_guarded() {
        let bytes = b"one\tline\n\x1b[31mred\xff\r";
        let safe = escaped(bytes);
        assert_eq!(&*safe, b"one\tline\n\\u{1b}[31mred\\xff\\r");
    }

    #[test]
    fn a_begun_character_waits_for_its_rest() {
        for (bytes, begun) in [
            (&b""[..], 0),
            (b"abc", 0),
            (b"abc\xc3", 1),
            (b"\xe8\xa1", 2),
            (b"ab\xf0\x9f\x91", 3),
            ("ü".as_bytes(), 0),
            ("👩".as_bytes(), 0),
            // No beginning of a character.
            (b"a\x80\x80", 0),
            (b"\xff", 0),
            (b"\xe0\x80", 0),
            (b"\x80\x80\x80\x80\x80", 0),
        ] {
            assert_eq!(begun_at_the_end(bytes), begun, "{bytes:?}");
        }
    }

    #[test]
    fn a_remark_of_several_lines_forges_none() {
        assert_eq!(
            remark("at line 1\n | \u{1b}[2J\nerror: \u{202e}\r"),
            "at line 1\n   | \\u{1b}[2J\n  error: \\u{202e}\\r"
        );
    }

    #[test]
    fn a_complaint_of_several_lines_is_reported_whole_and_in_one() {
        let text = "error: these are missing:\n  --recipe <RECIPE>\n\nUsage: agentspool submit\n";
        assert_eq!(one_line(text), "these are missing: --recipe <RECIPE>");
    }
}
