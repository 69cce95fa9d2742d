//! Names of recipes, tasks and sessions. They have one form, because all three become parts of paths.
//!
//! Not a display text: a text that does not have this form becomes an escaped *label*, and never a part of a
//! path. Invariant: a [`Name`] has no separator, no leading dot, no control character and at most 100 bytes.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::TaskId;
use super::characters::{Marks, is_unsafe};

const MAX_LEN: usize = 100;
const SESSION_PREFIX: &str = "session_";

/// A name that may become a path: `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is not a name. The message does not repeat the text, because it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("a name has 1 to 100 characters of A-Z a-z 0-9 . _ - and starts with a letter or a digit")]
pub struct InvalidName;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a *task* may have this name. `last`, ids and texts that look like a part of an id are not
    /// allowed, because commands accept them in place of a name.
    pub fn is_allowed_for_a_task(&self) -> bool {
        self.0 != "last" && !self.0.starts_with(TaskId::PREFIX) && !self.is_like_part_of_id()
    }

    /// Whether the name has 8 to 26 characters of ids, with a digit before a letter (lists show eight
    /// characters). Words, words with a number at the end, and dates are not like an id: they are common
    /// names of tasks, and parts of ids rarely look like them.
    fn is_like_part_of_id(&self) -> bool {
        let first_digit = self.0.find(|c: char| c.is_ascii_digit());
        let last_letter = self.0.rfind(|c: char| c.is_ascii_alphabetic());
        (8..=26).contains(&self.0.len())
            && TaskId::has_its_characters(&self.0)
            && first_digit
                .zip(last_letter)
                .is_some_and(|(digit, letter)| digit < letter)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Name, InvalidName> {
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(InvalidName)?;
        let rest_fits = bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if first.is_ascii_alphanumeric() && rest_fits && text.len() <= MAX_LEN {
            Ok(Name(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Name, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The session of a task whose request does not name one. It contains the digits of the task's id, so that a
/// later task of that session can find the first task without another file.
pub fn session_of(id: TaskId) -> Name {
    Name(format!("{SESSION_PREFIX}{}", id.digits()))
}

/// The first task of a generated session. `None` if the session was not generated.
pub fn task_of_session(session: &Name) -> Option<TaskId> {
    let digits = session.as_str().strip_prefix(SESSION_PREFIX)?;
    format!("{}{digits}", TaskId::PREFIX).parse().ok()
}

/// Any bytes as a printable label of at most 100 characters. Control characters, quotes and backslashes are
/// escaped, bytes that are not UTF-8 become `\xNN`, and a longer label is cut.
pub fn escape_label(bytes: &[u8]) -> String {
    let mut label = String::new();
    for chunk in bytes.utf8_chunks() {
        let mut marks = Marks::default();
        for c in chunk.valid().chars() {
            if marks.are_too_many(c) || is_unsafe(c) || c == '\\' || c == '"' {
                label.extend(c.escape_default());
            } else {
                label.push(c);
            }
        }
        for byte in chunk.invalid() {
            label.push_str(&format!("\\x{byte:02x}"));
        }
    }
    match label.char_indices().nth(MAX_LEN) {
        Some((cut, _)) => format!("{}…", &label[..cut]),
        None => label,
    }
}

/// Any bytes as one line that is safe on a terminal, never cut. Bytes that are not UTF-8 become `\xNN`.
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape_text(text);
    }
    let mut safe = String::new();
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape_text(chunk.valid()));
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(safe)
}

/// A path as one line that is safe on a terminal.
pub fn escape_path(path: &Path) -> Cow<'_, str> {
    escape_bytes(path.as_os_str().as_encoded_bytes())
}

/// An untrusted text as one line that is safe on a terminal. Characters that would move the cursor, set
/// colours or hide text are escaped.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe)
}

/// A row of a table as one line that is safe on a terminal. Tabs are kept, because they separate columns.
pub fn escape_row(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unsafe(c) && c != '\t')
}

/// A text of several lines that is safe on a terminal. Line breaks and tabs are kept.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    let mut marks = Marks::default();
    if !text.chars().any(|c| is_escaped(c) || marks.are_too_many(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut marks = Marks::default();
    for c in text.chars() {
        if marks.are_too_many(c) || is_escaped(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_valid_names_are_parsed() {
        for good in ["a", "9", "my-recipe", "news.monitor_2", &"x".repeat(100)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "_x",
            "a/b",
            "a b",
            "a\n",
            "é",
            &"x".repeat(101),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_task_may_not_be_called_last_or_like_an_id() {
        for (text, allowed) in [
            ("last", false),
            ("task_1", false),
            ("lasts", true),
            ("tasks", true),
            ("ada", true),
            ("cafe", true),
            ("test1234", true),
            ("20261127", true),
            ("2026-11-27", true),
            ("1abcdef", true),
            ("1abcdefg", false),
            ("1abcdefu", true),
            ("1ABCDEFG", true),
            ("01m85x90", false),
            ("01m85x906pb06zhxqqsktssv9k", false),
        ] {
            assert_eq!(
                text.parse::<Name>().unwrap().is_allowed_for_a_task(),
                allowed,
                "{text}"
            );
        }
    }

    #[test]
    fn a_generated_session_leads_to_its_first_task() {
        let id = TaskId::from_parts(1_700_000_000_000, 42);
        assert_eq!(task_of_session(&session_of(id)), Some(id));
        assert_eq!(task_of_session(&"session_123".parse().unwrap()), None);
    }

    #[test]
    fn too_many_marks_on_one_character_are_escaped() {
        let word = "e\u{301}\u{323}tude";
        assert_eq!(escape_text(word), word);
        let tower = format!("e{}", "\u{336}".repeat(6));
        let safe = format!("e{}{}", "\u{336}".repeat(4), r"\u{336}".repeat(2));
        assert_eq!(escape_text(&tower), safe);
        assert_eq!(escape_label(tower.as_bytes()), safe);
    }

    proptest! {
        #[test]
        fn a_name_is_one_path_component(text in ".{0,120}") {
            if let Ok(name) = text.parse::<Name>() {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
            }
        }

        #[test]
        fn a_label_prints_on_one_line(bytes: Vec<u8>) {
            let label = escape_label(&bytes);
            prop_assert!(!label.chars().any(char::is_control), "{}", label);
            prop_assert!(label.chars().count() <= 101);
        }
    }
}
