//! `agentspool runner` (hidden): a runner as a process, for the pool and for units.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use agentspool::runner::{Control, Runner, Surroundings};
use agentspool::task::Answer;

use super::Context;
use super::args::RunnerArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

/// What `runner --once` ends with when the task was taken or no slot was free: sysexits' EX_TEMPFAIL.
const TRY_AGAIN: u8 = 75;

pub(super) fn run(context: &Context, args: &RunnerArgs) -> Result<ExitCode, CliError> {
    let _ = rustix::thread::set_name(c"agentspool");
    let surroundings = Surroundings {
        environment: context.env.for_recipes(args.once.is_some()),
        tools: own_folder(),
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

/// The folder of this program.
pub(super) fn own_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent().map(Path::to_owned)
}

/// The pipes as files of our own; /dev/null takes their places, so that nothing started from here
/// can hold them open.
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
