//! Quotes paths and words of a command that a person may copy into a shell.
//!
//! Not for a message without a command (`name.rs`). Invariant: a POSIX shell reads the returned text as one
//! word and executes no part of it. The text is one line that is safe on a terminal.

use std::path::Path;

use super::name::escape_bytes;

/// Quotes a path as one shell word. A path with invisible characters or bytes that are not UTF-8 is quoted as
/// `$'…'`. A shell that does not support `$'…'` reads such a word as a path that does not exist.
pub fn quote_path(path: &Path) -> String {
    quote(path.as_os_str().as_encoded_bytes())
}

/// Quotes a text as one shell word.
pub fn quote_word(text: &str) -> String {
    quote(text.as_bytes())
}

fn quote(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(byte);
    let shown = escape_bytes(bytes);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return shown.into_owned();
    }
    if shown.as_bytes() == bytes {
        return format!("'{}'", shown.replace('\'', "'\\''"));
    }
    let is_safe = |byte: u8| byte.is_ascii_graphic() && byte != b'\'' && byte != b'\\';
    let quoted = bytes.iter().map(|byte| match is_safe(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("\\{byte:03o}"),
    });
    format!("$'{}'", quoted.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_path_and_executes_nothing() {
        for path in [
            &b"/srv/spool"[..],
            b"/srv/my spool",
            b"/x;cd ..;touch $HOME`id -u` #",
            b"/it's $(id)",
            b"/back\\slash \\",
            "/b\u{e4}r".as_bytes(),
            b"/b\xe4r's \\",
            b"/a\nok       forged",
            "/\u{202e}x $(id)".as_bytes(),
            b"~",
            b"",
        ] {
            let quoted = quote_path(Path::new(OsStr::from_bytes(path)));
            assert_eq!(escape_bytes(quoted.as_bytes()), quoted);
            let script = format!("printf %s {quoted}");
            let ran = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(ran.stdout, path, "{quoted}");
        }
        assert_eq!(quote_path(Path::new("/srv/spool")), "/srv/spool");
    }
}
