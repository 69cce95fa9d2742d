//! Builds the result of an attempt.
//!
//! Does not write it to the disk (`ending/finish.rs`). Invariant: a result holds only what the recipe
//! wrote or the kernel reported.

use std::fs::File;
use std::time::Instant;

use super::start::explained;
use super::state::Prepared;
use super::supervise::{Ending, Supervised};
use crate::ending::unstarted;
use crate::launcher;
use crate::recipe::Recipe;
use crate::spool::Attempt;
use crate::task::{
    ErrorKind, Exit, Metrics, Outcome, Request, ResultFile, Timestamp, format_duration,
};

/// The outcome of the task after this attempt. `None` if the runner was stopped, which ends only the
/// attempt.
pub(super) fn outcome_of(
    supervised: &Supervised,
    recipe: Option<&Recipe>,
    prepared: &Prepared,
) -> Option<Outcome> {
    match supervised.ending {
        Ending::ByItself => {
            let id = prepared.run.task_id;
            let outcome = launcher::outcome(id, prepared.oom_kills, supervised.exit);
            let outcome = with_reason(outcome, supervised.exit, recipe, prepared);
            Some(with_result(outcome, recipe, &prepared.attempt))
        }
        early => outcome_of_early(early, prepared),
    }
}

/// The outcome if the attempt was ended before its recipe exited. `None` as in [`outcome_of`].
pub(super) fn outcome_of_early(ending: Ending, prepared: &Prepared) -> Option<Outcome> {
    match ending {
        Ending::Cancelled => Some(Outcome::Cancelled),
        Ending::TimedOut => Some(Outcome::failed(
            ErrorKind::Timeout,
            format!(
                "stopped after its timeout of {}{}",
                format_duration(prepared.timeout),
                prepared.timeout_from
            ),
        )),
        Ending::RunnerStopped | Ending::ByItself => None,
    }
}

/// The result of an attempt whose processes have all ended. Reads its output.
pub(super) fn of_attempt(
    request: &Request,
    prepared: &Prepared,
    outcome: Outcome,
    exit: Exit,
    mut metrics: Metrics,
    begun: Instant,
) -> ResultFile {
    let (attempt, run, files) = (&prepared.attempt, &prepared.run, &prepared.files);
    let id = run.task_id;
    let output = attempt.output().unwrap_or_else(|error| {
        tracing::warn!(task = %id, "the output is kept as a file: {error}");
        attempt.unread_output()
    });
    if output.is_not_a_file {
        tracing::warn!(task = %id, "the recipe's result file is not a regular file: its stdout is used as the output");
    }
    let size = |file: &File| file.metadata().ok().map(|metadata| metadata.len());
    let waited = run
        .started_at
        .seconds_since(Timestamp::from_unix_ms(id.unix_ms()));
    metrics.queued_seconds(waited.max(0.0));
    metrics.log_bytes(size(&files.stdout), size(&files.stderr));
    ResultFile {
        output: output.value,
        output_file: output.file,
        output_encoding: output.encoding,
        exit_code: exit.code(),
        signal: exit.signal(),
        attempt: run.attempt,
        started_at: Some(run.started_at),
        duration_seconds: Some(begun.elapsed().as_secs_f64()),
        metrics,
        ..unstarted(id, Some(request), outcome)
    }
}

/// Adds a known reason to a failure: `env` cannot start the program, an interpreter is given its options
/// with a carriage return, or a file of the recipe's folder by its bare name.
fn with_reason(
    outcome: Outcome,
    exit: Exit,
    recipe: Option<&Recipe>,
    prepared: &Prepared,
) -> Outcome {
    let (Some(recipe), Outcome::Failed(error)) = (recipe, &outcome) else {
        return outcome;
    };
    let known = match exit {
        Exit::Code(_) => explained(recipe, prepared),
        Exit::Signal(_) => None,
    };
    match known.or_else(|| recipe.advice().into_iter().next()) {
        Some(known) => Outcome::failed(error.kind, format!("{}; {known}", error.message)),
        None => outcome,
    }
}

/// Makes success a failure if the recipe requires a result file and there is none. If that cannot be
/// checked now, the file counts as present; the result then names it.
fn with_result(outcome: Outcome, recipe: Option<&Recipe>, attempt: &Attempt) -> Outcome {
    let is_needed = recipe.is_some_and(|recipe| recipe.manifest.needs_result);
    if outcome != Outcome::Completed || !is_needed || attempt.has_result_file().unwrap_or(true) {
        return outcome;
    }
    let why = "the recipe exited with code 0 but gave no result, which `needs_result` in its recipe.toml requires";
    Outcome::failed(ErrorKind::Exit, why)
}
