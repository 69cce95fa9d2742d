//! `agentspool result TASK…`: a task's output.
//!
//! Not where it is read from (`client/result.rs`). Invariant: stdout gets the output and nothing else.

use std::io::Read as _;

use agentspool::client::{OutputFile, ResultError, Stream, TaskResult};

use super::Context;
use super::args::ResultArgs;
use super::exit_code::ExitCode;
use super::follow::copy_to_end;
use super::report::CliError;
use super::select::Several;

pub(super) fn run(context: &Context, args: &ResultArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let selection = args.select.selection(args.all)?;
    if let Some(text) = args.select.one() {
        let result = client.result(text)?;
        show_output(context, &result)?;
        return Ok(ExitCode::of_result(&result.result));
    }
    if !context.out.is_json() {
        return Err(
            CliError::usage("the outputs of several tasks cannot be told apart on stdout")
                .hint("use --json, or name one task"),
        );
    }
    let mut several = Several::new();
    for text in client.texts_of(&selection)? {
        match client.result(&text) {
            Ok(result) => {
                let code = ExitCode::of_result(&result.result);
                several.add(result.result, code);
            }
            // Of the tasks that a filter selects, only those that have ended are meant.
            Err(ResultError::NotYet { .. }) if args.select.tasks.is_empty() => {}
            Err(error) => several.fail(&text, error.into()),
        }
    }
    several.end(context)
}

/// Prints a result's output to stdout, and the error, if there is one, to stderr.
pub(super) fn show_output(context: &Context, of: &TaskResult) -> Result<(), CliError> {
    let out = &context.out;
    let result = &of.result;
    if out.is_json() {
        return out.object(result);
    }
    if let Some(value) = &result.output {
        out.value(value)?;
    } else {
        copy_file(context, of)?;
    }
    if result.output_truncated {
        out.note("note: the disk was full, so the output is only in the log");
    }
    if let Some(error) = &result.error {
        out.note(format!("{}: {}", result.status, error.message));
    } else if !result.ok {
        out.note(result.status.to_string());
    }
    Ok(())
}

/// Copies an output that is kept as a file to stdout, whatever its size.
fn copy_file(context: &Context, of: &TaskResult) -> Result<(), CliError> {
    let mut file = match of.output_file()? {
        None => return Ok(()),
        Some(OutputFile::Log(mut log)) => return copy_to_end(context, &mut log, Stream::Stdout),
        Some(OutputFile::File(file)) => file,
    };
    let mut bytes = vec![0u8; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(()),
            read => context.out.task_bytes(&bytes[..read])?,
        }
    }
}
