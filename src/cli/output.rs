//! Everything that is printed: text for people, JSON for scripts, errors.
//!
//! The only file that writes to stdout and stderr. Invariants: with `--json` stdout gets one JSON object and
//! nothing else; colour and symbols are printed only to a terminal that supports them; no text can move the
//! cursor, hide something or start a new line, also in a pipe. Exceptions are the bytes that a task printed
//! (`task_bytes`) and our own texts (`bytes`).

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use agentspool::task::{Json, escape_lines, escape_row, escape_text, quote_path};
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;

use super::args::{Color, Global};
use super::env::Environment;
use super::exit_code::ExitCode;
use super::log_line::LineWriter;
use super::report::CliError;

/// The width of the terminal on stderr; 80 if stderr is not a terminal.
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
    /// Whether a task's output may hold another user's text, and is escaped on a terminal.
    is_guarded: Cell<bool>,
    /// The incomplete character at the end of a task's output, which the next piece may complete: for stdout
    /// and for stderr.
    incomplete: [RefCell<Vec<u8>>; 2],
    /// The spool that `--spool` named, for commands in advice.
    spool: Option<String>,
}

impl Output {
    pub fn new(global: &Global, env: &Environment) -> Output {
        let choice = match global.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let is_dumb = env.get("TERM").is_none_or(|term| term == "dumb") || !env.shows_unicode();
        Output {
            json: global.json,
            quiet: global.quiet,
            color: global.color,
            is_dumb,
            is_guarded: Cell::new(false),
            incomplete: Default::default(),
            spool: global.spool.as_deref().map(quote_path),
        }
    }

    /// Text with commands of ours in backquotes, which then name the same spool as this command does.
    pub fn with_spool(&self, text: &str) -> String {
        const COMMAND: &str = "`agentspool ";
        let Some(spool) = &self.spool else {
            return text.to_owned();
        };
        let mut parts = text.split(COMMAND);
        let mut all = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            all += COMMAND;
            let names_one = part.starts_with("--spool ") || part.starts_with("init ");
            if !names_one {
                all += &format!("--spool {spool} ");
            }
            all += part;
        }
        all
    }

    /// From now on, a task's output is escaped on a terminal: in a group spool it may repeat another user's
    /// input.
    pub fn guard_terminal(&self) {
        self.is_guarded.set(true);
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether to print panels and symbols to stdout.
    pub fn is_fancy(&self) -> bool {
        // NO_COLOR and `--color never` remove the colour, not the panel.
        self.color == Color::Always || (io::stdout().is_terminal() && !self.is_dumb)
    }

    /// Whether a progress bar may be drawn on stderr.
    pub fn may_animate(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal() && !self.is_dumb
    }

    /// The width of the terminal on stdout; 80 if stdout is not a terminal.
    pub fn width(&self) -> usize {
        width_of(io::stdout())
    }

    /// Whether a person reads stderr. Notes that only a person needs are printed only then.
    pub fn is_read_by_a_person(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Prints one line for people to stdout. Tabs stay: they separate columns.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        self.line_after("", text)
    }

    /// Prints one line after a prefix of our own, which may be coloured.
    pub fn line_after(&self, prefix: &str, text: impl AsRef<str>) -> Result<(), CliError> {
        self.end_pieces();
        let text = escape_row(text.as_ref());
        Ok(writeln!(anstream::stdout(), "{prefix}{text}")?)
    }

    /// Prints a piece of a task's output to stdout, escaped only on a guarded terminal. A piece may end in
    /// the middle of a character.
    pub fn task_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let is_guarded = self.is_guarded.get() && io::stdout().is_terminal();
        self.piece(0, bytes, is_guarded)
    }

    /// Prints a piece of a task's output to stderr, like [`Output::task_bytes`].
    pub fn task_error_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let is_guarded = self.is_guarded.get() && io::stderr().is_terminal();
        self.piece(1, bytes, is_guarded)
    }

    fn piece(&self, stream: usize, bytes: &[u8], is_guarded: bool) -> Result<(), CliError> {
        if !is_guarded {
            return Ok(write_to(stream, bytes)?);
        }
        let incomplete = self.incomplete.get(stream).map(RefCell::take);
        let mut whole = incomplete.unwrap_or_default();
        whole.extend(bytes);
        let incomplete = whole.split_off(whole.len() - incomplete_at_the_end(&whole));
        if let Some(place) = self.incomplete.get(stream) {
            place.replace(incomplete);
        }
        Ok(write_to(stream, &escaped(&whole))?)
    }

    /// Prints incomplete characters, escaped: no piece of a task's output follows for now.
    pub fn end_pieces(&self) {
        for (stream, incomplete) in self.incomplete.iter().enumerate() {
            let incomplete = incomplete.take();
            if !incomplete.is_empty() {
                let _ = write_to(stream, &escaped(&incomplete));
            }
        }
    }

    /// Prints bytes to stdout, unchanged.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.end_pieces();
        Ok(write_to(0, bytes)?)
    }

    /// Prints a task's output: text as text, anything else as JSON. Escape codes are part of the output, so
    /// they are kept in a pipe.
    pub fn value(&self, value: &Json) -> Result<(), CliError> {
        let text = value.to::<String>();
        let text = text.as_deref().unwrap_or(value.text());
        self.task_bytes(format!("{text}\n").as_bytes())
    }

    /// Prints the one JSON object of this command.
    pub fn object<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| {
            CliError::new(
                ExitCode::General,
                format!("failed to write the output as JSON: {e}"),
            )
        })?;
        self.bytes(format!("{}\n", escape_in_json(&text)).as_bytes())
    }

    /// Prints a note to stderr; nothing with `--quiet`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints a note to stderr, also with `--quiet`.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.end_pieces();
        let _ = writeln!(anstream::stderr(), "{}", note_text(text.as_ref()));
    }

    /// Prints a question to stderr, without a newline: the answer is typed on the same line.
    pub fn question(&self, text: impl AsRef<str>) {
        self.end_pieces();
        let mut stderr = anstream::stderr();
        let _ = write!(stderr, "{}", note_text(text.as_ref()));
        let _ = stderr.flush();
    }

    /// Prints an error. Returns the exit code of the command.
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
        let message = note_text(&error.message);
        let _ = writeln!(stderr, "{} {message}", painted(ERROR, "error:"));
        for hint in &error.hints {
            let _ = writeln!(
                stderr,
                "{} {}",
                painted(AnsiColor::Cyan.on_default(), "hint:"),
                note_text(&self.with_spool(hint))
            );
        }
        error.code
    }
}

/// A note of one or more lines, for instance a parser's message. The lines after the first are indented: if
/// the text is another user's, none of them looks like our own line.
fn note_text(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape_row).collect();
    lines.join("\n  ")
}

/// The style of the word `error:`.
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// A number with its noun: `1 task`, `3 tasks`.
pub(super) fn counted(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// Our own text in a colour. The stream removes the colour if none is wanted.
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

/// The number of bytes at the end that start a character without completing it.
fn incomplete_at_the_end(bytes: &[u8]) -> usize {
    const LONGEST: usize = 4;
    // Only the bytes from the last start of a character on matter.
    let end = &bytes[bytes.len().saturating_sub(LONGEST)..];
    let first = end.iter().rposition(|byte| byte & 0xc0 != 0x80);
    let last = first.map_or(&[][..], |first| &end[first..]);
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    }
}

/// A task's output in a form that is safe on a terminal.
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

/// A JSON text in which no character can move a terminal's cursor or hide something. Such characters occur
/// only in strings, where `\u` has the same meaning.
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

/// The log of an unattended process: stderr. Writing to it never blocks.
pub(super) fn log() -> &'static LineWriter {
    open_log(None)
}

/// Opens the log of an unattended process. `own_disk` is the device of the spool.
pub(super) fn open_log(own_disk: Option<u64>) -> &'static LineWriter {
    LOG.get_or_init(|| LineWriter::new(rustix::stdio::stderr(), 2, own_disk))
}

/// Waits a moment for the last lines of the log, at the end of the process.
pub(super) fn flush_log() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// Prints clap's error for a command line, or the help or version that was asked for.
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
    // The error repeats the arguments, which may hold a name that another user chose.
    if as_json {
        let line = one_line(&error.to_string());
        let object = json!({ "ok": false, "error": line, "code": ExitCode::Usage.number() });
        let _ = writeln!(io::stdout(), "{}", escape_in_json(&object.to_string()));
    } else {
        // Without clap's own colours: they cannot be distinguished from escape codes in the arguments.
        let text = error.to_string();
        // Without a verb the text is the help.
        let text = match text.strip_prefix("error: ") {
            Some(text) => format!("{} {}", painted(ERROR, "error:"), escape_lines(text)),
            None => escape_lines(&text).into_owned(),
        };
        let _ = write!(anstream::stderr(), "{text}");
    }
    ExitCode::Usage
}

/// clap's error without its advice, as one line: all text up to the first empty line. Missing arguments are
/// on lines of their own.
fn one_line(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let words = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    words.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_json_parses_to_the_same_value() {
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
    fn task_output_is_escaped_on_a_guarded_terminal() {
        let bytes = b"one\tline\n\x1b[31mred\xff\r";
        let safe = escaped(bytes);
        assert_eq!(&*safe, b"one\tline\n\\u{1b}[31mred\\xff\\r");
    }

    #[test]
    fn an_incomplete_character_waits_for_its_last_bytes() {
        for (bytes, incomplete) in [
            (&b""[..], 0),
            (b"abc", 0),
            (b"abc\xc3", 1),
            (b"\xe8\xa1", 2),
            (b"ab\xf0\x9f\x91", 3),
            ("ü".as_bytes(), 0),
            ("👩".as_bytes(), 0),
            // Not the start of a character.
            (b"a\x80\x80", 0),
            (b"\xff", 0),
            (b"\xe0\x80", 0),
            (b"\x80\x80\x80\x80\x80", 0),
        ] {
            assert_eq!(incomplete_at_the_end(bytes), incomplete, "{bytes:?}");
        }
    }

    #[test]
    fn a_note_of_several_lines_cannot_look_like_several_notes() {
        assert_eq!(
            note_text("at line 1\n | \u{1b}[2J\nerror: \u{202e}\r"),
            "at line 1\n   | \\u{1b}[2J\n  error: \\u{202e}\\r"
        );
    }

    #[test]
    fn a_clap_error_of_several_lines_is_reported_in_one_line() {
        let text = "error: these are missing:\n  --recipe <RECIPE>\n\nUsage: agentspool submit\n";
        assert_eq!(one_line(text), "these are missing: --recipe <RECIPE>");
    }
}
