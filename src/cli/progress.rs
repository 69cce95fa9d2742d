//! `agentspool progress 45 -m "…"`: reports progress from inside a task.
//!
//! Appends one line to the file that the runner named. Invariant: a line stays whole even if several
//! processes of a recipe report at once, because a short write to a file opened for appending is atomic.

use std::io::Write;

use serde_json::json;

use super::Context;
use super::args::ProgressArgs;
use super::env;
use super::exit_code::ExitCode;
use super::report::CliError;

#[expect(
    clippy::disallowed_methods,
    reason = "the runner created this file for the recipe's reports"
)]
pub(super) fn run(context: &Context, args: &ProgressArgs) -> Result<ExitCode, CliError> {
    if !(0.0..=100.0).contains(&args.percent) {
        return Err(CliError::usage(
            "the progress must be a percentage from 0 to 100",
        ));
    }
    let Some(path) = context.env.get(env::PROGRESS_FILE) else {
        return Err(CliError::usage(
            "this process is not in a task: AGENTSPOOL_PROGRESS_FILE is not set",
        )
        .hint("use `agentspool progress` only inside a recipe"));
    };
    let mut report = json!({ "progress": args.percent / 100.0 });
    if let Some(message) = &args.message {
        report["message"] = message.as_str().into();
    }
    let written = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{report}\n").as_bytes()));
    written.map_err(|error| {
        let path = path.to_string_lossy();
        CliError::new(
            ExitCode::General,
            format!("failed to write progress to {path}: {error}"),
        )
    })?;
    if context.out.is_json() {
        context.out.object(&json!({ "ok": true }))?;
    }
    Ok(ExitCode::Done)
}
