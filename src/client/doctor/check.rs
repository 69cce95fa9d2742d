//! The result of one check: its name, its verdict, the finding, and a hint.
//!
//! Not the checks, and not how they are shown. Invariant: every warning and every problem has a hint.

use serde::Serialize;

use crate::spool::IoError;

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No problem was found.
    Ok,
    /// It works, but the user should know about it.
    Warn,
    /// It does not work correctly.
    Problem,
}

/// The result of one check, shown as one line.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The name of the check, in one or two words.
    pub name: &'static str,
    /// The verdict.
    pub status: Verdict,
    /// What was found.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
    /// Whether the spool is unusable because of this.
    #[serde(skip)]
    pub is_unusable: bool,
}

impl Check {
    /// No problem was found.
    pub fn ok(name: &'static str, message: impl Into<String>) -> Check {
        Check {
            name,
            status: Verdict::Ok,
            message: message.into(),
            hint: None,
            is_unusable: false,
        }
    }

    /// It works, but the user should know about it.
    pub fn warn(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check {
            status: Verdict::Warn,
            hint: Some(hint.into()),
            ..Check::ok(name, message)
        }
    }

    /// It does not work correctly.
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

    /// The check itself failed.
    pub(super) fn failed(name: &'static str, error: &IoError) -> Check {
        let hint = "make sure that this can be read";
        Check::problem(name, error.to_string(), hint)
    }

    /// Sets `is_unusable`.
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
