//! Checks that the interpreter of a script's first line and the loader of a binary exist.
//!
//! Not whether the program itself exists (`check.rs`). This check is needed because the kernel reports "No
//! such file or directory" for the script if its interpreter is missing. Invariant: only what is certain to
//! fail is a problem. A first line that is not understood is not a problem.

use std::path::Path;

use super::error::fix_command;
use super::file;
use super::path::SCRIPT_ENDINGS;
use super::program::{is_executable, on_path};
use super::search::Search;
use crate::task::escape_path;

/// What is wrong, and what to do about it.
pub(super) struct Complaint {
    pub problem: String,
    pub fix: String,
}

fn complaint(problem: impl Into<String>, fix: impl Into<String>) -> Option<Complaint> {
    Some(Complaint {
        problem: problem.into(),
        fix: fix.into(),
    })
}

/// Why an executable program would not start. `None` if no problem is found.
pub(super) fn complaint_of(program: &Path, search: Option<&Search>) -> Option<Complaint> {
    let shown = escape_path(program);
    let head = match file::read_head(program, 4096) {
        Ok(head) => head,
        Err(error) if is_denied(&error) && has_script_ending(program) => {
            let problem = format!("{shown} may not be read, so its interpreter cannot run it");
            return complaint(problem, fix_command("chmod u+r", program));
        }
        Err(_) => return None,
    };
    if head.starts_with(b"\xef\xbb\xbf#!") {
        let problem = format!(
            "{shown} starts with a byte order mark, so the kernel does not find its interpreter"
        );
        let fix = fix_command(r"sed -i '1s/^\xef\xbb\xbf//'", program);
        return complaint(problem, fix);
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        let problem = format!("{shown} is UTF-16 text, which no interpreter can read");
        return complaint(problem, "save it as UTF-8 without a byte order mark");
    }
    if let Some(loader) = loader(&head) {
        return missing_loader(program, Path::new(loader));
    }
    let Some(rest) = head.strip_prefix(b"#!") else {
        return without_first_line(program, &head);
    };
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    if line.contains('\r') {
        let problem = format!(
            "{shown} has Windows line endings, so the interpreter's name in its first line ends in a carriage return"
        );
        return complaint(problem, fix_command(r"sed -i 's/\r$//'", program));
    }
    of_first_line(program, line, search)
}

/// Whether this user may execute the program and not read it. A binary starts all the same, a script does not.
pub(super) fn is_unreadable(program: &Path) -> bool {
    file::read_head(program, 1).is_err_and(|error| is_denied(&error))
}

fn is_denied(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

fn has_script_ending(program: &Path) -> bool {
    let ending = program.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| SCRIPT_ENDINGS.contains(&ending))
}

/// A script without `#!` is run by `/bin/sh`, which is wrong for Python.
fn without_first_line(program: &Path, head: &[u8]) -> Option<Complaint> {
    let is_python = program.extension().is_some_and(|ending| ending == "py");
    if !is_python || head.starts_with(b"\x7fELF") {
        return None;
    }
    let shown = escape_path(program);
    complaint(
        format!("the first line of {shown} names no interpreter, so /bin/sh would run it"),
        "write `#!/usr/bin/env python3` as its first line",
    )
}

fn of_first_line(program: &Path, line: &str, search: Option<&Search>) -> Option<Complaint> {
    let mut words = line.split_ascii_whitespace();
    let interpreter = Path::new(words.next()?);
    let shown = escape_path(program);
    let base = interpreter.file_name()?.to_string_lossy();
    let other = format!("change the first line of {shown} to `#!/usr/bin/env {base}`");
    let named = format!(
        "the first line of {shown} names the interpreter {}",
        escape_path(interpreter)
    );
    if !interpreter.is_absolute() {
        return complaint(format!("{named}, which is not a full path"), other);
    }
    if let Err(error) = std::fs::metadata(interpreter) {
        let is_absent = error.kind() == std::io::ErrorKind::NotFound;
        return complaint(
            format!("{named}, which does not exist"),
            format!("install it, or {other}"),
        )
        .filter(|_| is_absent);
    }
    if !is_executable(interpreter) {
        return complaint(format!("{named}, which is not executable"), other);
    }
    if base == "env" {
        return of_env(program, &words.collect::<Vec<_>>(), search);
    }
    None
}

/// Checks the program that `env` would start. Lines with variables or options other than `-S` are not
/// checked.
fn of_env(program: &Path, words: &[&str], search: Option<&Search>) -> Option<Complaint> {
    let shown = escape_path(program);
    let first = *words.first()?;
    let split = first.strip_prefix("-S");
    if split.is_none() && words.len() > 1 && !first.starts_with('-') && !first.contains('=') {
        let all = words.join(" ");
        return complaint(
            format!(
                "the first line of {shown} gives `env` several words, but `env` reads them as one program named `{all}`"
            ),
            format!("write `#!/usr/bin/env -S {all}`"),
        );
    }
    let named = match split {
        Some("") => *words.get(1)?,
        Some(rest) => rest,
        None => first,
    };
    if named.starts_with('-') || named.contains(['=', '"', '\'', '$', '\\']) {
        return None;
    }
    let starts = format!("the first line of {shown} starts {named} with `env`");
    if named.contains('/') {
        let is_there = !Path::new(named).is_absolute() || is_executable(Path::new(named));
        return complaint(format!("{starts}, which does not exist"), "install it")
            .filter(|_| !is_there);
    }
    let search = search?;
    if on_path(named, search.path()).is_some() {
        return None;
    }
    complaint(
        format!("{starts}, which is not on {}", search.named()),
        search.fix(),
    )
}

/// The loader that a 64-bit ELF binary names.
fn loader(head: &[u8]) -> Option<&str> {
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at + size)?;
        let number = bytes
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    };
    // 64 bits, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let is_loader = |entry: &usize| number(*entry, 4) == Some(3);
    let mut entries = (0..count).map(|at| table + at * size);
    let entry = entries.find(is_loader)?;
    let from = number(entry + 8, 8)?;
    let text = head.get(from..from.checked_add(number(entry + 32, 8)?)?)?;
    std::str::from_utf8(text).ok()?.strip_suffix('\0')
}

fn missing_loader(program: &Path, loader: &Path) -> Option<Complaint> {
    let is_absent =
        std::fs::metadata(loader).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    complaint(
        format!(
            "{} needs the loader {}, which does not exist: the program was built for another system",
            escape_path(program),
            escape_path(loader)
        ),
        "install the program for this system, or a static build of it",
    )
    .filter(|_| is_absent)
}
