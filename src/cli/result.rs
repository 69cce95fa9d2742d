//! `agentspool result ID`: what a task gave.

use agentspool::spool::{LogReader, Stream, Target, TaskDir};
use agentspool::task::ResultFile;

use super::Context;
use super::args::ResultArgs;
use super::exit_code::ExitCode;
use super::follow::copy_to_end;
use super::place::not_admitted;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &ResultArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    let id = match spool.resolve(&args.task)? {
        Target::Task(id) => id,
        Target::Drop(name) => return Err(not_admitted(&name)),
    };
    let gone = || {
        CliError::new(
            ExitCode::NotFound,
            format!("the task {id} was just removed"),
        )
    };
    let task = spool.task(id)?.ok_or_else(gone)?;
    let Some(result) = task.result()? else {
        let status = task.view()?.status.status;
        let told = format!("the task {id} is {status}: there is no result yet");
        return Err(CliError::new(ExitCode::General, told)
            .hint(format!("`agentspool wait {id}` waits for it")));
    };
    if context.out.is_json() {
        context.out.object(&result)?;
    } else {
        show_output(context, &task, &result)?;
    }
    Ok(ExitCode::of_result(&result))
}

/// A result's output on stdout, and why there may be none on stderr.
pub(super) fn show_output(
    context: &Context,
    task: &TaskDir,
    result: &ResultFile,
) -> Result<(), CliError> {
    let out = &context.out;
    if out.is_json() {
        return out.object(result);
    }
    if let Some(value) = &result.output {
        out.value(value)?;
    } else if let Some(file) = &result.output_file {
        copy_file(context, task, result.attempt, file)?;
    }
    if result.output_truncated {
        out.note("note: the disk was full: the output stands only in the log");
    }
    if let Some(error) = &result.error {
        out.note(format!("{}: {}", result.status, error.message));
    } else if !result.ok {
        out.note(result.status.to_string());
    }
    Ok(())
}

/// A large output stays a file; here it is copied, however large it is.
fn copy_file(
    context: &Context,
    task: &TaskDir,
    attempt: u32,
    relative: &str,
) -> Result<(), CliError> {
    use std::io::Read;
    // A log may have had its middle cut out, which its own reader tells; only of this attempt,
    // since what an earlier one printed before it was lost is no part of the result.
    if relative.ends_with("/stdout.log")
        && let Some(mut log) = LogReader::open(task, attempt, Stream::Stdout)?
    {
        copy_to_end(context, &mut log, Stream::Stdout)?;
        return Ok(());
    }
    let Some(mut file) = task.named_file(relative)? else {
        let path = task.path().join(relative);
        let told = format!("the output {} is not there any more", path.display());
        return Err(CliError::new(ExitCode::General, told));
    };
    let mut bytes = vec![0u8; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(()),
            read => context.out.task_bytes(&bytes[..read])?,
        }
    }
}
