//! The program's own log: one line per transition, on stderr or in the journal.
//!
//! Not a task's log. The library only emits events; this module decides which are shown, and how. Invariant:
//! the text of an event is the same everywhere; the journal gets the fields separately as well.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;

use super::Context;
use super::args::Verb;
use super::env;
use super::journal::Journal;
use super::report::CliError;

/// From the least to the most verbose.
const LEVELS: [LevelFilter; 5] = [
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// Starts logging. Unattended processes log their transitions; other commands log only warnings.
pub(super) fn start(context: &Context, verb: &Verb) -> Result<(), CliError> {
    let journal = context
        .env
        .get(env::JOURNAL_STREAM)
        .and_then(|stream| Journal::of_stderr(&stream.to_string_lossy()));
    let unattended = match verb {
        Verb::Watch(_) | Verb::Runner(_) => true,
        Verb::Sweep(args) => args.repeats() || journal.is_some(),
        _ => false,
    };
    let level = level(unattended, context.global.verbose, context.global.quiet);
    let filter = match context.env.get(env::LOG) {
        Some(text) => Targets::from_str(&text.to_string_lossy())
            .map_err(|error| CliError::usage(format!("{}: {error}", env::LOG)))?,
        None => Targets::new().with_target("agentspool", level),
    };
    // An unattended process never waits for a reader of its log, also when it panics.
    let lines_out = match verb {
        Verb::Watch(_) | Verb::Runner(_) | Verb::Sweep(_) => {
            agentspool::internals::ignore_terminal_stop();
            super::output::open_log(disk_of_spool(context));
            std::panic::set_hook(Box::new(|panic| {
                super::output::log().line(panic.to_string().as_bytes());
            }));
            BoxMakeWriter::new(super::output::log)
        }
        _ => BoxMakeWriter::new(std::io::stderr),
    };
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(lines_out)
            // The crate's feature for colour is not built in: enabling colour would panic.
            .with_ansi(false)
            .with_target(false)
    });
    // A `background` verb calls this twice; only the first call has an effect.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(journal)
        .with(filter)
        .try_init();
    Ok(())
}

/// The device of the spool. A log file on it is written without a thread of its own.
pub(super) fn disk_of_spool(context: &Context) -> Option<u64> {
    let (path, _) = context.spool_path().ok()?;
    Some(rustix::fs::stat(path).ok()?.st_dev)
}

fn level(unattended: bool, verbose: u8, quiet: bool) -> LevelFilter {
    let by_itself = if unattended { 2 } else { 1 };
    let at = (by_itself + usize::from(verbose)).saturating_sub(usize::from(quiet));
    LEVELS[at.min(LEVELS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_one_step() {
        for (unattended, verbose, quiet, expected) in [
            (false, 0, true, LevelFilter::ERROR),
            (false, 0, false, LevelFilter::WARN),
            (false, 1, false, LevelFilter::INFO),
            (false, 2, false, LevelFilter::DEBUG),
            (false, 9, false, LevelFilter::TRACE),
            (true, 0, true, LevelFilter::WARN),
            (true, 0, false, LevelFilter::INFO),
            (true, 1, false, LevelFilter::DEBUG),
            (true, 2, false, LevelFilter::TRACE),
        ] {
            let got = level(unattended, verbose, quiet);
            assert_eq!(got, expected, "{unattended} {verbose} {quiet}");
        }
    }
}
