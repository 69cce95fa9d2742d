//! Turns the errors of the client into one line, hints and an exit code.
//!
//! Not the errors of the modules below the client (`report.rs`). Invariant: the exit code of every kind of
//! error is chosen explicitly, by matches without a catch-all.

use agentspool::client;

use super::exit_code::ExitCode;
use super::notice;
use super::report::CliError;

impl From<client::NewRecipeError> for CliError {
    fn from(error: client::NewRecipeError) -> CliError {
        use client::NewRecipeError;
        let message = error.to_string();
        match error {
            NewRecipeError::NotOwner(error) => error.into(),
            NewRecipeError::Exists { .. } => {
                CliError::usage(message).hint("choose another name, or edit the existing recipe")
            }
            NewRecipeError::Copy(_) => CliError::usage(message).hint("choose another name"),
            NewRecipeError::Unseen(error) => error.into(),
            NewRecipeError::Io(error) => error.into(),
        }
    }
}

impl From<client::SubmitError> for CliError {
    fn from(error: client::SubmitError) -> CliError {
        use client::SubmitError;
        let message = error.to_string();
        match error {
            SubmitError::Recipe(error) => error.into(),
            SubmitError::Request(error) => error.into(),
            SubmitError::Resolve(error) => error.into(),
            SubmitError::Store(error) => error.into(),
            SubmitError::Io(error) => error.into(),
            SubmitError::VariableName(_) => CliError::usage(format!("--env: {message}")),
            SubmitError::VariablesInGroup => CliError::new(
                ExitCode::Refused,
                "--env is not accepted in a group spool: the whole group can read requests",
            )
            .hint("ask the spool's owner for an env_file in the recipe"),
            SubmitError::VariableNotAccepted { .. } => CliError::new(ExitCode::Refused, message)
                .hint("the recipe's owner can add it to env_accept in recipe.toml"),
            SubmitError::AttachmentOfGroupUser => CliError::new(
                ExitCode::Refused,
                "--attach works only for the spool's owner: group users submit with one file in the drop box, and it cannot carry an attachment",
            )
            .hint("put the data in a file that the recipe can read, and its path into the input"),
            SubmitError::NotAdmitted { id, .. } => CliError::new(ExitCode::General, message)
                .hint("it becomes a task once a watcher is running")
                .detail("task_id", id.to_string()),
            SubmitError::Interrupted(_) => CliError::new(ExitCode::Interrupted, message),
            SubmitError::Nothing => CliError::new(ExitCode::General, message),
        }
    }
}

impl From<client::CancelError> for CliError {
    fn from(error: client::CancelError) -> CliError {
        use client::CancelError;
        let message = error.to_string();
        match error {
            CancelError::Resolve(error) => error.into(),
            CancelError::Io(error) => error.into(),
            CancelError::NotAdmitted(name) => CliError::new(ExitCode::General, message).hint(
                format!("remove incoming/{name}.json, or wait until it is admitted"),
            ),
            CancelError::Abandoned(_) => CliError::new(ExitCode::General, message)
                .hint("a watcher was killed while it admitted this drop; run `agentspool watch`"),
            CancelError::Removed(_) => CliError::new(ExitCode::NotFound, message),
            CancelError::TaskOfAnotherUser(_) | CancelError::DropOfAnotherUser(_) => {
                CliError::new(ExitCode::Refused, message)
                    .hint("only the user who submitted it and the spool's owner may cancel it")
            }
            CancelError::OfUnknownUser(_) => CliError::new(ExitCode::Refused, message).hint(
                "ask the spool's owner to cancel it; in future, drop files that only you can write",
            ),
            CancelError::Refused { hint, .. } => {
                CliError::new(ExitCode::Refused, message).hint(hint)
            }
            CancelError::InterruptedAtDrop(_) | CancelError::Interrupted(_) => {
                CliError::new(ExitCode::Interrupted, message)
            }
            CancelError::Unwritten { error, .. } => CliError {
                message,
                ..error.into()
            }
            .hint("free some space; then a watcher or another `agentspool cancel` ends the task"),
        }
    }
}

impl From<client::WaitError> for CliError {
    fn from(error: client::WaitError) -> CliError {
        use client::WaitError;
        let message = error.to_string();
        match error {
            WaitError::Resolve(error) => error.into(),
            WaitError::Io(error) => error.into(),
            WaitError::Removed(_) => CliError::new(ExitCode::NotFound, message),
            WaitError::Unattended { spool, is_owner } => CliError::new(ExitCode::Missing, message)
                .hint(format!(
                    "{}; the tasks wait until one is running",
                    notice::how_to_start(&spool, is_owner)
                ))
                .detail("watcher", false),
            WaitError::TimedOut { .. } => CliError::new(ExitCode::WaitTimedOut, message),
            WaitError::Interrupted { .. } => CliError::new(ExitCode::Interrupted, message),
        }
    }
}

impl From<client::Unaccepted> for CliError {
    fn from(failed: client::Unaccepted) -> CliError {
        let error = CliError::from(failed.error);
        let left: Vec<String> = failed.in_the_box.iter().map(ToString::to_string).collect();
        if left.is_empty() {
            return error;
        }
        let hint = format!(
            "{} more requests are in the drop box; check each of them",
            left.len()
        );
        error.hint(hint).detail("in_the_box", left)
    }
}

impl From<client::ClearError> for CliError {
    fn from(error: client::ClearError) -> CliError {
        use client::ClearError;
        let message = error.to_string();
        match error {
            ClearError::Cancel(error) => error.into(),
            ClearError::Lookup(error) => error.into(),
            ClearError::Io(error) => error.into(),
            ClearError::NotEnded(id) => CliError::new(ExitCode::General, message)
                .hint(format!("cancel it first: `agentspool cancel {id}`")),
            ClearError::NotOwner => CliError::new(ExitCode::Refused, message)
                .hint("finished tasks are removed automatically, as the retention settings define"),
            ClearError::OnlyFinished => {
                CliError::usage(message).hint(
                    "add --all to cancel these tasks first; without --status it cancels and removes every task",
                )
            }
        }
    }
}

impl From<client::LookupError> for CliError {
    fn from(error: client::LookupError) -> CliError {
        use client::LookupError;
        let message = error.to_string();
        match error {
            LookupError::Resolve(error) => error.into(),
            LookupError::Read(error) => error.into(),
            LookupError::Io(error) => error.into(),
            LookupError::NotAdmitted(_) => CliError::new(ExitCode::General, message),
            LookupError::Removed(_) => CliError::new(ExitCode::NotFound, message),
        }
    }
}

impl From<client::ResultError> for CliError {
    fn from(error: client::ResultError) -> CliError {
        use client::ResultError;
        let message = error.to_string();
        match error {
            ResultError::Lookup(error) => error.into(),
            ResultError::NotYet { id, .. } => CliError::new(ExitCode::General, message)
                .hint(format!("wait for it with `agentspool wait {id}`")),
        }
    }
}

impl From<client::OutputError> for CliError {
    fn from(error: client::OutputError) -> CliError {
        use client::OutputError;
        let message = error.to_string();
        match error {
            OutputError::Gone(_) => CliError::new(ExitCode::General, message),
            OutputError::Io(error) => error.into(),
        }
    }
}

impl From<client::LogError> for CliError {
    fn from(error: client::LogError) -> CliError {
        use client::LogError;
        let message = error.to_string();
        match error {
            LogError::Lookup(error) => error.into(),
            LogError::Io(error) => error.into(),
            LogError::Removed | LogError::NoSuchAttempt { .. } => {
                CliError::new(ExitCode::NotFound, message)
            }
            LogError::TooLarge(_) => {
                CliError::usage(message).hint("use --lines N, or logs without --json")
            }
        }
    }
}

impl From<client::FollowError> for CliError {
    fn from(error: client::FollowError) -> CliError {
        use client::FollowError;
        let message = error.to_string();
        match error {
            FollowError::Resolve(error) => error.into(),
            FollowError::Read(error) => error.into(),
            FollowError::Io(error) => error.into(),
            FollowError::JustRemoved | FollowError::Removed(_) | FollowError::ResultRemoved => {
                CliError::new(ExitCode::NotFound, message)
            }
            FollowError::InterruptedAtDrop(_) | FollowError::Interrupted(_) => {
                CliError::new(ExitCode::Interrupted, message)
            }
        }
    }
}

impl From<client::NotOwner> for CliError {
    fn from(error: client::NotOwner) -> CliError {
        CliError::new(ExitCode::Refused, error.to_string())
    }
}

impl From<client::InitError> for CliError {
    fn from(error: client::InitError) -> CliError {
        use client::InitError;
        match error {
            InitError::Open(error) => error.into(),
            InitError::Exposed(_) => CliError::new(ExitCode::Refused, error.to_string()),
        }
    }
}

impl From<client::SettingError> for CliError {
    fn from(error: client::SettingError) -> CliError {
        use client::SettingError;
        match error {
            SettingError::Invalid(error) => error.into(),
            SettingError::NotOwner(error) => error.into(),
            SettingError::Write(error) => error.into(),
        }
    }
}

impl From<client::PauseError> for CliError {
    fn from(error: client::PauseError) -> CliError {
        use client::PauseError;
        match error {
            PauseError::NotOwner(error) => error.into(),
            PauseError::Io(error) => error.into(),
        }
    }
}

impl From<client::SweepError> for CliError {
    fn from(error: client::SweepError) -> CliError {
        use client::SweepError;
        match error {
            SweepError::NotOwner(error) => error.into(),
            SweepError::Io(error) => error.into(),
        }
    }
}
