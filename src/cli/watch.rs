//! `agentspool watch`: the watcher as a process.

use std::io::Write;
use std::path::{Path, PathBuf};

use agentspool::client::READY;
use agentspool::watcher::{Left, Options, Watcher};
use serde_json::json;

use super::Context;
use super::args::WatchArgs;
use super::exit_code::ExitCode;
use super::place::OWN_PROGRAM;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &WatchArgs) -> Result<ExitCode, CliError> {
    let _ = rustix::thread::set_name(c"agentspool");
    if args.autostarted {
        // Leave the terminal and the session of the shell that started this process.
        let _ = rustix::process::setsid();
    }
    agentspool::internals::raise_file_limit();
    let options = Options {
        program: PathBuf::from(OWN_PROGRAM),
        arguments: context.arguments_for_children(),
        autostarted: args.autostarted,
        drain: args.drain,
        stop_tasks: args.stop_tasks,
        search: context.env.search(),
    };
    let (path, _) = context.spool_path()?;
    let watcher = Watcher::open(&path, context.overrides()?, options)?;
    if args.autostarted {
        release_start_lock()?;
    }
    let Some(mut watcher) = watcher else {
        return Ok(ExitCode::Done);
    };
    tracing::info!(
        spool = %watcher.path().display(),
        pid = rustix::process::getpid().as_raw_nonzero().get(),
        "watching"
    );
    let left = watcher.run();
    let running = watcher.running();
    let (why, waiting) = log_end(left, running, watcher.path());
    // Release the watcher's lock before printing, which may block.
    drop(watcher);
    if context.out.is_json() {
        let mut object = json!({ "ok": true, "left": why, "running": running });
        if let Some(waiting) = waiting {
            object["waiting"] = waiting.into();
        }
        context.out.object(&object)?;
    }
    Ok(ExitCode::Done)
}

/// Logs why the watcher exits. Returns the reason and, if the spool is paused, the number of waiting tasks.
fn log_end(left: Left, running: usize, path: &Path) -> (&'static str, Option<usize>) {
    let path = path.display();
    let (why, waiting) = match left {
        Left::Stopped => ("stopped", None),
        Left::StoppedWithTasks => ("stopped with its tasks", None),
        Left::Idle => ("nothing is left to do", None),
        Left::Replaced => ("another watcher took over", None),
        Left::Paused(waiting) => ("the spool is paused", Some(waiting)),
        Left::Moved => ("the spool was moved or removed", None),
    };
    match left {
        Left::Paused(waiting) => {
            let tasks = if waiting == 1 {
                "task waits"
            } else {
                "tasks wait"
            };
            tracing::warn!(
                running,
                "{why}: {waiting} {tasks} for `agentspool --spool {path} resume`"
            );
        }
        Left::Moved => tracing::warn!(
            running,
            "{why}: {path} is no longer this spool; running tasks continue"
        ),
        Left::StoppedWithTasks => tracing::info!(running, "{why}"),
        Left::Stopped | Left::Idle | Left::Replaced => {
            tracing::info!(running, "{why}; running tasks continue");
        }
    }
    (why, waiting)
}

/// Reports to the process that started this watcher that it is ready, and closes the start lock (stdin) and
/// the pipe (stdout) that were passed on.
fn release_start_lock() -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    // If the other process was killed, no answer is needed.
    let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let replaced = null.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)
    });
    replaced.map_err(|errno| {
        CliError::new(
            ExitCode::General,
            format!("failed to close the start lock and the pipe: {errno}"),
        )
    })
}
