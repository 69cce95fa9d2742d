//! `agentspool runner` (hidden): a runner as a process, for the watcher's pool and for units.

use std::os::fd::OwnedFd;

use agentspool::runner::{Control, Runner, Surroundings};
use agentspool::task::Answer;

use super::Context;
use super::args::RunnerArgs;
use super::env::tools;
use super::exit_code::ExitCode;
use super::report::CliError;

/// The exit code of `runner --once` if another runner holds the task or no slot is free: EX_TEMPFAIL of
/// sysexits.
const TRY_AGAIN: u8 = 75;

pub(super) fn run(context: &Context, args: &RunnerArgs) -> Result<ExitCode, CliError> {
    let _ = rustix::thread::set_name(c"agentspool");
    let surroundings = Surroundings {
        umask: context.umask,
        environment: context.env.for_recipes(args.once.is_some()),
        tools: tools(),
    };
    let (path, _) = context.spool_path()?;
    let open = |control| {
        Runner::open(&path, context.overrides()?, surroundings, control).map_err(CliError::from)
    };
    let Some(id) = args.once else {
        open(Control::new(take_stdin()?, take_stdout()?)?)?.serve()?;
        return Ok(ExitCode::Done);
    };
    match open(Control::new(None, None)?)?.once(id)? {
        Answer::Finished(_) => Ok(ExitCode::Done),
        Answer::Blocked(_) | Answer::Held(_) | Answer::Retry(..) => {
            Ok(ExitCode::Propagated(TRY_AGAIN))
        }
    }
}

/// Moves the pipe to a file of this process, and puts /dev/null in its place: a process started from here
/// cannot keep the pipe open.
fn take_stdin() -> Result<Option<OwnedFd>, CliError> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(lost)?;
    rustix::stdio::dup2_stdin(dev_null()?).map_err(lost)?;
    Ok(Some(pipe))
}

fn take_stdout() -> Result<Option<OwnedFd>, CliError> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(lost)?;
    rustix::stdio::dup2_stdout(dev_null()?).map_err(lost)?;
    Ok(Some(pipe))
}

fn dev_null() -> Result<OwnedFd, CliError> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).map_err(lost)
}

fn lost(errno: rustix::io::Errno) -> CliError {
    CliError::new(
        ExitCode::General,
        format!("failed to take the watcher's pipes: {errno}"),
    )
}
