//! The exit codes: a public table, one for all commands.
//!
//! What `--help` and the docs print comes from here. Invariant: every way a command can end is one
//! of these, chosen by an exhaustive match.

use std::process::ExitCode as ProcessExitCode;

use agentspool::task::{ErrorKind, ResultFile, Status};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    Done,
    General,
    Usage,
    TaskFailed,
    Refused,
    TaskTimedOut,
    Missing,
    NotFound,
    SpoolUnusable,
    TaskCancelled,
    WaitTimedOut,
    Interrupted,
    /// The recipe's own code, by `wait --propagate`.
    Propagated(u8),
}

impl ExitCode {
    /// The table, in the order of the numbers.
    pub const TABLE: [(ExitCode, &'static str); 12] = [
        (ExitCode::Done, "done"),
        (ExitCode::General, "general error"),
        (ExitCode::Usage, "usage or validation"),
        (ExitCode::TaskFailed, "the task that was waited for failed"),
        (ExitCode::Refused, "refused by policy (limits, permissions)"),
        (
            ExitCode::TaskTimedOut,
            "the task that was waited for timed out",
        ),
        (
            ExitCode::Missing,
            "something needed is missing (a recipe's program, praisonai)",
        ),
        (ExitCode::NotFound, "no such task or recipe"),
        (
            ExitCode::SpoolUnusable,
            "spool unusable (absent, wrong version, not writable, no space)",
        ),
        (
            ExitCode::TaskCancelled,
            "the task that was waited for was cancelled",
        ),
        (
            ExitCode::WaitTimedOut,
            "our own `wait --timeout` ran out; the task goes on",
        ),
        (
            ExitCode::Interrupted,
            "Ctrl-C while waiting or following; the task goes on",
        ),
    ];

    /// The number.
    pub fn number(self) -> u8 {
        match self {
            ExitCode::Done => 0,
            ExitCode::General => 1,
            ExitCode::Usage => 2,
            ExitCode::TaskFailed => 3,
            ExitCode::Refused => 4,
            ExitCode::TaskTimedOut => 5,
            ExitCode::Missing => 6,
            ExitCode::NotFound => 7,
            ExitCode::SpoolUnusable => 8,
            ExitCode::TaskCancelled => 9,
            ExitCode::WaitTimedOut => 124,
            ExitCode::Interrupted => 130,
            ExitCode::Propagated(code) => code,
        }
    }

    /// What waiting for this result ends with.
    pub fn of_result(result: &ResultFile) -> ExitCode {
        match (result.status, result.error.as_ref().map(|error| error.kind)) {
            (Status::Completed, _) => ExitCode::Done,
            (Status::Cancelled, _) => ExitCode::TaskCancelled,
            (Status::Failed, Some(ErrorKind::Timeout)) => ExitCode::TaskTimedOut,
            (Status::Failed, _) => ExitCode::TaskFailed,
            // A result with another status is nobody's: it counts as no success.
            (Status::Pending | Status::Running, _) => ExitCode::General,
        }
    }

    /// The recipe's own code, as a shell would give it. What it ended with because we stopped it
    /// is not its own.
    pub fn propagated(result: &ResultFile) -> ExitCode {
        let message = ExitCode::of_result(result);
        if message != ExitCode::TaskFailed {
            return message;
        }
        let own = result
            .exit_code
            .or_else(|| result.signal.map(|signal| 128 + signal));
        match own.and_then(|code| u8::try_from(code & 0xff).ok()) {
            Some(0) | None => message,
            Some(code) => ExitCode::Propagated(code),
        }
    }

    /// For `--help`.
    pub fn table_text() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for (code, meaning) in ExitCode::TABLE {
            text.push_str(&format!("  {:>3}  {meaning}\n", code.number()));
        }
        text
    }
}

impl From<ExitCode> for ProcessExitCode {
    fn from(code: ExitCode) -> ProcessExitCode {
        ProcessExitCode::from(code.number())
    }
}
