//! One answer of the doctor: what was looked at, how it went, what to do.
//!
//! Not the looking, and not how it is shown. Invariant: what is not well comes with something to do.

use serde::Serialize;

use crate::spool::IoError;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It works, and somebody should know.
    Warn,
    /// It does not work as it should.
    Problem,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How it went.
    pub status: Verdict,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether the spool cannot be used like this.
    #[serde(skip)]
    pub is_unusable: bool,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, message: impl Into<String>) -> Check {
        Check {
            name,
            status: Verdict::Ok,
            message: message.into(),
            hint: None,
            is_unusable: false,
        }
    }

    /// It works, and somebody should know.
    pub fn warn(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check {
            status: Verdict::Warn,
            hint: Some(hint.into()),
            ..Check::ok(name, message)
        }
    }

    /// It does not work as it should.
    pub fn problem(
        name: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Check {
        Check {
            status: Verdict::Problem,
            ..Check::warn(name, message, hint)
        }
    }

    /// The check itself could not be made.
    pub(super) fn failed(name: &'static str, error: &IoError) -> Check {
        let hint = "see to it that this can be read";
        Check::problem(name, error.to_string(), hint)
    }

    /// The same of a spool that cannot be used like this.
    #[must_use]
    pub fn unusable(mut self) -> Check {
        self.is_unusable = true;
        self
    }
}

/// `1 task`, `3 tasks`.
pub(super) fn count(n: usize, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}
