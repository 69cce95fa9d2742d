//! The first line of a script, as the kernel and `env` read it, and the programs that it names.
//!
//! Not whether others could change them (`trust.rs`). Invariant: the line is read as bytes and cut where the
//! kernel cuts it. If a line could start a program that it does not name, no names are returned.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::file;

/// How many bytes of a file's first line the kernel uses: it reads `BINPRM_BUF_SIZE` bytes, 256, and replaces the
/// last one by a zero.
const KERNEL_READS: u64 = 255;
/// The characters with a special meaning in `env -S`, besides spaces and tabs.
const SPECIAL: &[u8] = b"\"'\\$#\r\x0b\x0c";

/// The text after `#!`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FirstLine {
    /// The program that the kernel starts.
    pub interpreter: PathBuf,
    /// Its first argument: the whole rest of the line. Empty if there is no argument.
    argument: Vec<u8>,
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The text up to the first zero byte, as a C program reads it.
fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(byte));
    let end = text.iter().rposition(|byte| !is_blank(byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => &[],
    }
}

/// Whether a word means one thing for every program: a name, an option that contains no path, or an absolute
/// path. A list (`a:/b`), a shell command (`a;/b`) and a relative path may lead anywhere. So may a name that
/// starts with a dot: `..` leads up. An option may consist of several, which some programs separate.
fn is_clear(word: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    match word.first() {
        Some(b'/') => word
            .iter()
            .all(|byte| is_letter(byte) || b"/@%,=~".contains(byte) || !byte.is_ascii()),
        Some(b'-') => word
            .iter()
            .all(|byte| is_letter(byte) || b"=,".contains(byte) || is_blank(byte)),
        Some(b'.') | None => false,
        Some(_) => word.iter().all(is_letter),
    }
}

impl FirstLine {
    /// Reads the first line. `None` if the file does not start with `#!` or cannot be read.
    pub fn of(script: &Path) -> Option<FirstLine> {
        FirstLine::parse(&file::read_head(script, KERNEL_READS).ok()?)
    }

    fn parse(head: &[u8]) -> Option<FirstLine> {
        let line = head.strip_prefix(b"#!")?;
        let line = trim(line.split(|byte| *byte == b'\n').next()?);
        let end = line.iter().position(|byte| is_blank(byte) || *byte == 0);
        let (interpreter, rest) = line.split_at(end.unwrap_or(line.len()));
        Some(FirstLine {
            interpreter: PathBuf::from(OsStr::from_bytes(interpreter)),
            argument: until_zero(trim(rest)).to_vec(),
        })
    }

    /// Arguments of the interpreter that it may start or read: absolute paths, and names of programs. `None`
    /// if the line does not show this for certain: the interpreter is a relative path, a word is anything else
    /// than a name, an absolute path or a plain option, or `env` gets an option other than `-S`.
    pub fn named(&self) -> Option<Vec<OsString>> {
        if !self.interpreter.is_absolute() {
            return None;
        }
        let words = match self.is_env() {
            true => self.words_of_env()?,
            false if self.argument.is_empty() => Vec::new(),
            false => vec![&*self.argument],
        };
        if !words.iter().all(|word| is_clear(word)) {
            return None;
        }
        let words = words.into_iter().filter(|word| !word.starts_with(b"-"));
        Some(words.map(|word| OsStr::from_bytes(word).into()).collect())
    }

    /// Whether the interpreter is `env`, even if `env` is a link to a program such as busybox.
    fn is_env(&self) -> bool {
        let resolved = std::fs::canonicalize(&self.interpreter);
        let mut both = [Some(&self.interpreter), resolved.as_ref().ok()]
            .into_iter()
            .flatten();
        both.any(|path| path.file_name() == Some(OsStr::new("env")))
    }

    /// The program that `env` starts and its arguments. `None` if there is anything else in the line.
    fn words_of_env(&self) -> Option<Vec<&[u8]>> {
        let words: Vec<&[u8]> = match self.argument.strip_prefix(b"-S") {
            Some(split) if split.iter().any(|byte| SPECIAL.contains(byte)) => return None,
            Some(split) => split
                .split(is_blank)
                .filter(|word| !word.is_empty())
                .collect(),
            None if self.argument.is_empty() => Vec::new(),
            None => vec![&*self.argument],
        };
        let is_program = |first: &&[u8]| !first.starts_with(b"-");
        words.first().is_none_or(is_program).then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_kernel_reads_it() {
        for (line, interpreter, argument) in [
            (&b"#!/bin/sh\nx"[..], &b"/bin/sh"[..], &b""[..]),
            (b"#! \t/bin/sh -e  x \t\n", b"/bin/sh", b"-e  x"),
            (b"#!/b\xe4r/sh\n", b"/b\xe4r/sh", b""),
            (
                "#!/a\u{a0}b/sh\n".as_bytes(),
                "/a\u{a0}b/sh".as_bytes(),
                b"",
            ),
            (b"#!/bin/sh\r\n", b"/bin/sh\r", b""),
            (b"#!/bin/sh\x0bx\n", b"/bin/sh\x0bx", b""),
            (b"#!/bin/sh\0x y\n", b"/bin/sh", b""),
        ] {
            let read = FirstLine::parse(line).unwrap();
            assert_eq!(read.interpreter.as_os_str().as_bytes(), interpreter);
            assert_eq!(read.argument, argument);
        }
        assert_eq!(FirstLine::parse(b"\x7fELF"), None);
    }

    #[test]
    fn names_are_returned_only_if_the_line_is_understood() {
        let named = |line: &str| {
            let line = FirstLine::parse(format!("#!{line}\n").as_bytes()).unwrap();
            let words = line.named()?.into_iter();
            Some(
                words
                    .map(|word| word.into_string().unwrap())
                    .collect::<Vec<_>>(),
            )
        };
        for (line, expected) in [
            ("/bin/sh", &[][..]),
            ("/bin/sh -e", &[]),
            ("/bin/sh /team/wrap.sh", &["/team/wrap.sh"]),
            ("/usr/bin/nice prog", &["prog"]),
            ("/usr/bin/env", &[]),
            ("/usr/bin/env python3", &["python3"]),
            ("/usr/bin/env -S uv run --script", &["uv", "run"]),
            ("/usr/bin/env -Spython3 -u", &["python3"]),
            ("/usr/bin/env -S uv run --python=3.12", &["uv", "run"]),
            ("/usr/bin/perl -w -T", &[]),
            (
                "/bin/sh /h\u{f6}me/a_b/x+y-1.sh",
                &["/h\u{f6}me/a_b/x+y-1.sh"],
            ),
        ] {
            assert_eq!(named(line).unwrap(), expected, "{line}");
        }
        for line in [
            "/usr/bin/env -i prog",
            "/usr/bin/env A=b",
            "/usr/bin/env -S PATH=/team prog",
            "/usr/bin/env -SPATH=/team prog",
            "/usr/bin/env -iSPATH=/team prog",
            "/usr/bin/env --split-string=prog",
            "/usr/bin/env -S \"prog\"",
            "/usr/bin/env -S ${PROG}",
            "/usr/bin/env -S pr\\og",
            "/usr/bin/env -S -i prog",
            "/usr/bin/env -S nice env PATH=/team prog",
            "/usr/bin/env -S /bin/sh\u{b}/team/x",
            "/usr/bin/perl -I/team",
            "/usr/bin/env -S java -cp /own:/team/classes Main",
            "/usr/bin/env -S java -cp own:/team/classes Main",
            "/usr/bin/env -S ld.so --preload libm.so.6:/team/x.so /bin/true",
            "/usr/bin/env -S sh -c true;/team/x",
            "/usr/bin/env -S sh -c /bin/true|/team/x",
            "/usr/bin/env -S sh -c exec</team/x",
            "/usr/bin/env -S bash -c ~/x",
            "/usr/bin/env -S env -C .. x",
            "/usr/bin/env ../../team/x",
            "/usr/bin/env team/x",
            "/bin/sh ../../team/x",
            "/bin/sh /own/x /team/x",
            "/bin/sh -c /team/x",
            "../../team/x",
            "team/x",
            "",
        ] {
            assert_eq!(named(line), None, "{line}");
        }
    }
}
