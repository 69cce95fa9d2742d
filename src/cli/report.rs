//! Turns the library's typed errors into one line, hints and an exit code.
//!
//! Not the wording of the errors: that is in the library. Invariant: the exit code of every kind of error is
//! chosen explicitly, by matches without a catch-all.

use agentspool::client::{FindError, IoError, OpenError, ReadError, ResolveError, StoreError};
use agentspool::config::SettingsError;
use agentspool::runner::{ControlError, RunnerError};
use agentspool::task::{InvalidName, RequestError, quote_path, quote_word};
use agentspool::watcher::WatchError;
use serde_json::Value;

use super::exit_code::ExitCode;
use super::retention;

/// An error as it is printed.
#[derive(Debug)]
pub(crate) struct CliError {
    pub code: ExitCode,
    pub message: String,
    pub hints: Vec<String>,
    /// Further keys of the JSON object, for scripts.
    pub details: Vec<(&'static str, Value)>,
    /// Nothing is printed: the reader of our output is gone.
    pub is_silent: bool,
}

impl CliError {
    pub fn new(code: ExitCode, message: impl Into<String>) -> CliError {
        CliError {
            code,
            message: message.into(),
            hints: Vec::new(),
            details: Vec::new(),
            is_silent: false,
        }
    }

    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(ExitCode::Usage, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hints.push(hint.into());
        self
    }

    pub fn detail(mut self, key: &'static str, value: impl Into<Value>) -> CliError {
        self.details.push((key, value.into()));
        self
    }
}

impl From<IoError> for CliError {
    fn from(error: IoError) -> CliError {
        use rustix::io::Errno;
        let cannot_use = matches!(
            error.errno(),
            Some(
                Errno::NOSPC
                    | Errno::DQUOT
                    | Errno::FBIG
                    | Errno::ROFS
                    | Errno::ACCESS
                    | Errno::PERM
                    | Errno::IO
                    | Errno::NOENT
                    | Errno::NOTDIR
            )
        );
        let code = if cannot_use {
            ExitCode::SpoolUnusable
        } else {
            ExitCode::General
        };
        let hint = match error.errno() {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                Some("free some space, for instance with `agentspool clear`")
            }
            Some(Errno::FBIG) => Some("raise the file size limit (`ulimit -f`)"),
            Some(Errno::ROFS) => Some("mount the file system writable, or choose another --spool"),
            Some(Errno::ACCESS | Errno::PERM) => Some(
                "run the command as the spool's owner, or in a group spool as a user of the group; the owner checks the modes with `agentspool doctor`",
            ),
            _ => None,
        };
        let report = CliError::new(code, error.to_string());
        match hint {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> CliError {
        let message = error.to_string();
        match error {
            OpenError::Io(error) => error.into(),
            OpenError::Absent { path } => CliError::new(ExitCode::SpoolUnusable, message).hint(
                format!("create one with `agentspool init {}`", quote_path(&path)),
            ),
            OpenError::Older { path } => {
                let spool = quote_path(path.parent().unwrap_or(&path));
                CliError::new(ExitCode::SpoolUnusable, message)
                    .hint(format!("convert it with `agentspool init {spool}`"))
            }
            OpenError::Settings { setting, .. } => {
                let error = CliError::new(ExitCode::SpoolUnusable, message);
                match setting {
                    Some(name) => error.hint(format!(
                        "correct it in the file, or remove it with `agentspool config unset {}`",
                        quote_word(&name)
                    )),
                    None => error,
                }
            }
            OpenError::Busy { .. } => CliError::new(ExitCode::SpoolUnusable, message)
                .hint("stop the watcher, wait for running tasks, then run `agentspool init` again"),
            OpenError::Occupied { .. }
            | OpenError::SettingsLost { .. }
            | OpenError::Mounted { .. }
            | OpenError::OtherKind { .. }
            | OpenError::Newer { .. }
            | OpenError::NotText { .. }
            | OpenError::Network { .. } => CliError::new(ExitCode::SpoolUnusable, message),
            OpenError::Foreign { .. }
            | OpenError::Planted { .. }
            | OpenError::OpenToOthers { .. }
            | OpenError::Breach(_)
            | OpenError::NotInGroup { .. } => CliError::new(ExitCode::Refused, message),
            OpenError::NoGroup(_) => CliError::usage(message),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        let message = error.to_string();
        match error {
            StoreError::NoRoom { .. } => CliError::new(ExitCode::SpoolUnusable, message),
            StoreError::Request(error) => error.into(),
            StoreError::Environment { .. } => CliError::usage(message),
            StoreError::Late => CliError::new(ExitCode::General, message),
            StoreError::Io(error) => CliError {
                message,
                ..error.into()
            },
        }
    }
}

impl From<RequestError> for CliError {
    fn from(error: RequestError) -> CliError {
        CliError::usage(error.to_string())
    }
}

impl From<ReadError> for CliError {
    fn from(error: ReadError) -> CliError {
        let message = error.to_string();
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::Damaged { .. } | ReadError::Newer { .. } => {
                CliError::new(ExitCode::General, message)
            }
        }
    }
}

impl From<ResolveError> for CliError {
    fn from(error: ResolveError) -> CliError {
        let message = error.to_string();
        match error {
            ResolveError::NotFound {
                kept,
                is_group_user,
                ..
            } => {
                let error = CliError::new(ExitCode::NotFound, message).hint(format!(
                    "see `agentspool list`; a finished task may have been removed: {}",
                    retention::words(&kept)
                ));
                match is_group_user {
                    true => error.hint(
                        "a request that no watcher has admitted yet is found only by the id that `submit` printed",
                    ),
                    false => error,
                }
            }
            ResolveError::Empty => {
                CliError::new(ExitCode::NotFound, message).hint("see `agentspool list`")
            }
            ResolveError::Rejected { .. } => CliError::new(ExitCode::NotFound, message),
            ResolveError::Ambiguous {
                ref text,
                ref candidates,
                ..
            } if candidates
                .iter()
                .any(|id| !id.to_string().contains(text.as_str())) =>
            {
                CliError::usage(message).hint("give the id")
            }
            ResolveError::Ambiguous { .. } => {
                CliError::usage(message).hint("give more characters of the id")
            }
            ResolveError::Io(error) => error.into(),
        }
    }
}

/// The exit code of a command whose recipe cannot be used.
pub(crate) fn code_of(error: &FindError) -> ExitCode {
    match error {
        FindError::NotFound { .. } => ExitCode::NotFound,
        FindError::Broken { .. } => ExitCode::Usage,
        FindError::Open { .. } => ExitCode::Refused,
        FindError::Unseen { .. } => ExitCode::General,
        FindError::Missing { .. } => ExitCode::Missing,
    }
}

impl From<FindError> for CliError {
    fn from(error: FindError) -> CliError {
        let shown = CliError::new(code_of(&error), error.to_string());
        match &error {
            // The messages of the other errors include the fix.
            FindError::NotFound { .. } | FindError::Unseen { .. } => shown.hint(error.fix()),
            FindError::Broken { .. } | FindError::Open { .. } | FindError::Missing { .. } => shown,
        }
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> CliError {
        CliError::usage(error.to_string()).hint("see `agentspool config`")
    }
}

impl From<InvalidName> for CliError {
    fn from(error: InvalidName) -> CliError {
        CliError::usage(error.to_string())
    }
}

impl From<WatchError> for CliError {
    fn from(error: WatchError) -> CliError {
        let message = error.to_string();
        match error {
            WatchError::NotOwner(_) | WatchError::Exposed { .. } => {
                CliError::new(ExitCode::Refused, message)
            }
            WatchError::Signals(_) => CliError::new(ExitCode::General, message),
            WatchError::Open(error) => error.into(),
            WatchError::Io(error) => error.into(),
        }
    }
}

impl From<RunnerError> for CliError {
    fn from(error: RunnerError) -> CliError {
        match error {
            RunnerError::NotOwner(_) => CliError::new(ExitCode::Refused, error.to_string()),
            RunnerError::Open(error) => error.into(),
        }
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> CliError {
        CliError::new(ExitCode::General, error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    /// An error of our own output. If the reader of a pipe is gone, the command ends without a message.
    fn from(error: std::io::Error) -> CliError {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            let gone = CliError::new(ExitCode::Done, "the reader of the output is gone");
            return CliError {
                is_silent: true,
                ..gone
            };
        }
        CliError::new(
            ExitCode::General,
            format!("failed to write the output: {error}"),
        )
    }
}
