//! What the processes say of themselves on stderr: one line per transition.
//!
//! Not a task's log. The library only emits events; whether and how they are seen is decided here.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use super::Context;
use super::args::Verb;
use super::env;
use super::report::CliError;

/// Turns logging on. Processes that run unattended tell their transitions, commands only warnings.
pub(super) fn start(context: &Context, verb: &Verb) -> Result<(), CliError> {
    let unattended = matches!(verb, Verb::Watch(_) | Verb::Runner(_));
    let level = match (context.global.verbose, context.global.quiet, unattended) {
        (0, true, _) => LevelFilter::ERROR,
        (0, false, true) => LevelFilter::INFO,
        (0, false, false) => LevelFilter::WARN,
        (1, _, false) => LevelFilter::INFO,
        (1, _, true) | (2, _, false) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = match context.env.get(env::LOG) {
        Some(text) => Targets::from_str(&text.to_string_lossy())
            .map_err(|error| CliError::usage(format!("{}: {error}", env::LOG)))?,
        None => Targets::new().with_target("agentspool", level),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colour here is a feature of the crate that is not built in: asking for it would panic.
        .with_ansi(false)
        .with_target(false);
    // A `background` verb comes here twice; the first one counts.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .try_init();
    Ok(())
}
