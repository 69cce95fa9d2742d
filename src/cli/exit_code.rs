//! The exit codes: one public table for all commands.
//!
//! `--help` and the docs print this table. Invariant: every command ends with one of these codes, chosen by
//! an exhaustive match.

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
        (ExitCode::Usage, "usage or validation error"),
        (ExitCode::TaskFailed, "the task that was waited for failed"),
        (ExitCode::Refused, "refused by policy (limits, permissions)"),
        (
            ExitCode::TaskTimedOut,
            "the task that was waited for timed out",
        ),
        (
            ExitCode::Missing,
            "a requirement is missing (a recipe's program, praisonai)",
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
            "`wait --timeout` ran out; the task continues",
        ),
        (
            ExitCode::Interrupted,
            "Ctrl-C while waiting or following; the task continues",
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

    /// The exit code of a command that waited for this result.
    pub fn of_result(result: &ResultFile) -> ExitCode {
        match (result.status, result.error.as_ref().map(|error| error.kind)) {
            (Status::Completed, _) => ExitCode::Done,
            (Status::Cancelled, _) => ExitCode::TaskCancelled,
            (Status::Failed, Some(ErrorKind::Timeout)) => ExitCode::TaskTimedOut,
            (Status::Failed, _) => ExitCode::TaskFailed,
            // No runner writes a result with this status. It does not count as a success.
            (Status::Pending | Status::Running, _) => ExitCode::General,
        }
    }

    /// The recipe's own code, as a shell would report it. If agentspool stopped the recipe, the code is not
    /// the recipe's own, and [`ExitCode::of_result`] applies.
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
