//! `agentspool submit`, and the parts that `recipe run` shares with it: turns arguments into a call of the
//! client, and prints the answer.
//!
//! Not the submission (`client/submit.rs`). Invariant: an id is printed only after its task was accepted.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;

use agentspool::client::{Accepted, Batch, Client, Door, NewTask, Recipe};
use agentspool::task::{Json, MAX_REQUEST_BYTES, Name, without_bom};
use serde_json::json;

use super::Context;
use super::args::{SubmitArgs, TaskArgs};
use super::exit_code::ExitCode;
use super::interrupt::LateInterrupt;
use super::output::counted;
use super::report::CliError;
use super::retention;
use super::stdin::UnreadStdin;
use super::wait;

pub(super) fn run(context: &Context, args: SubmitArgs) -> Result<ExitCode, CliError> {
    let client = context.open_or_make_client()?;
    if let Some(source) = &args.batch {
        return submit_batch(context, &client, source);
    }
    let Some(recipe) = &args.recipe else {
        return Err(CliError::usage("--recipe is missing"));
    };
    let mut stdin = unread_stdin(&args.task);
    let accepted = submit_one(context, &client, recipe, &args.task)?;
    stdin.note(context);
    if args.wait {
        let code = wait::wait_and_show(context, &client, accepted)?;
        stdin.note(context);
        return Ok(code);
    }
    print_accepted(context, &accepted, None)?;
    Ok(ExitCode::Done)
}

/// Warns about an input on stdin that is not read. If the input is an argument, stdin is not meant for us.
pub(super) fn unread_stdin(args: &TaskArgs) -> UnreadStdin {
    let is_read = |text: &Option<String>| text.as_deref() == Some("-");
    UnreadStdin::new(args.input.is_some() || is_read(&args.config) || is_read(&args.metadata))
}

/// Submits one task, and prints the notes about it.
pub(super) fn submit_one(
    context: &Context,
    client: &Client,
    recipe: &Name,
    args: &TaskArgs,
) -> Result<Accepted, CliError> {
    // Before stdin and files are read: a recipe that cannot run does not need them.
    let recipe = client.runnable(recipe)?;
    let object = |flag, text: &Option<String>| {
        let text = text.as_deref();
        text.map(|text| read_object(flag, text)).transpose()
    };
    let task = NewTask {
        input: args.input.as_deref().map(read_input).transpose()?,
        config: object("--config", &args.config)?,
        metadata: object("--metadata", &args.metadata)?,
        session_id: args.session_id.clone(),
        timeout: args.timeout,
        name: args.name.clone(),
        label: args.label.clone().filter(|label| !label.trim().is_empty()),
        variables: read_variables(context, client, &recipe, &args.env)?,
        attachment: (args.attach.as_deref())
            .map(|path| open_attachment(client, path))
            .transpose()?,
        ..NewTask::new(Door::Cli)
    };
    let promise = retention::promise(client, &recipe, args.timeout);
    let (accepted, notices) = client.submit_to(recipe, task, &LateInterrupt::default())?;
    context.note_all(client, notices);
    if context.out.is_read_by_a_person() {
        context.out.note(promise);
    }
    Ok(accepted)
}

/// Prints the accepted task.
pub(super) fn print_accepted(
    context: &Context,
    accepted: &Accepted,
    message: Option<&str>,
) -> Result<(), CliError> {
    // The task exists, even if its answer cannot be printed.
    print_answer(context, accepted, message)
        .map_err(|error| error.hint(format!("the task {} was accepted", accepted.id)))
}

fn print_answer(
    context: &Context,
    accepted: &Accepted,
    message: Option<&str>,
) -> Result<(), CliError> {
    let out = &context.out;
    let Accepted {
        id,
        recipe,
        session,
        path,
        ..
    } = accepted;
    if out.is_json() {
        let mut object = json!({
            "ok": true,
            "task_id": id,
            "recipe": recipe,
            "session_id": session,
            "id": id,
            "status": "pending",
            "created_at": agentspool::task::Timestamp::from_unix_ms(id.unix_ms()),
            "dir": path,
            "duplicate": false,
        });
        if let Some(message) = message {
            object["message"] = message.into();
        }
        return out.object(&object);
    }
    if out.is_quiet() {
        return out.line(id.to_string());
    }
    out.line(format!("Task: {id}"))?;
    out.line("Status: pending")?;
    out.line(format!("Recipe: {recipe}"))?;
    out.line(format!("Session: {session}"))
}

/// Reads JSON Lines and prints one id per line, each only after its task was accepted. A bad line ends the
/// command. The lines before it are accepted, so the user can fix the line and continue there.
fn submit_batch(context: &Context, client: &Client, source: &str) -> Result<ExitCode, CliError> {
    let mut reader = open_source("--batch", source)?;
    let mut ids = Vec::new();
    agentspool::internals::raise_file_limit();
    let mut batch = client.batch(Door::Cli);
    let read = read_batch(
        context,
        client,
        (&mut *reader, source),
        &mut batch,
        &mut ids,
    );
    let ended = read.and(accept(context, client, &mut batch, &mut ids));
    if !ids.is_empty() {
        context.note_all(client, client.make_ready());
    }
    ended.map_err(|error| {
        let accepted = counted(ids.len(), "earlier line was", "earlier lines were");
        let error = match ids.is_empty() {
            true => error,
            false => error.hint(format!(
                "{accepted} accepted: correct the file and submit it from the line named above on"
            )),
        };
        error
            .detail("submitted", ids.len())
            .detail("task_ids", ids.as_slice())
    })?;
    if context.out.is_json() {
        context
            .out
            .object(&json!({ "ok": true, "submitted": ids.len(), "task_ids": ids }))?;
    }
    Ok(ExitCode::Done)
}

/// Reads to the end or to the first bad line. The batch holds only good lines.
fn read_batch(
    context: &Context,
    client: &Client,
    (reader, source): (&mut dyn BufRead, &str),
    batch: &mut Batch<'_>,
    ids: &mut Vec<String>,
) -> Result<(), CliError> {
    let mut number = 1u64;
    while let Some(line) = read_line(reader, source, number)? {
        if !without_bom(&line).trim_ascii().is_empty() {
            batch.add(&line).map_err(|error| {
                let error = CliError::from(error);
                // A request of a batch is one line, so its own line number says nothing.
                let message = error.message.replace(" at line 1 column ", " at column ");
                let message = format!("line {number}: {message}");
                CliError { message, ..error }
            })?;
        }
        if batch.is_full() {
            accept(context, client, batch, ids)?;
        }
        number += 1;
    }
    Ok(())
}

/// Submits the tasks of the batch and, without `--json`, prints their ids.
fn accept(
    context: &Context,
    client: &Client,
    batch: &mut Batch<'_>,
    ids: &mut Vec<String>,
) -> Result<(), CliError> {
    let done = batch.accept(&LateInterrupt::default())?;
    context.note_all(client, done.notices);
    let mut lines = String::new();
    for task in done.accepted {
        lines.push_str(&format!("{}\n", task.id));
        ids.push(task.id.to_string());
    }
    if !lines.is_empty() && !context.out.is_json() {
        context.out.bytes(lines.as_bytes())?;
    }
    done.failed.map_or(Ok(()), |failed| Err(failed.into()))
}

/// A line without its newline; `None` at the end. A line that is too long is an error.
fn read_line(
    reader: &mut dyn BufRead,
    source: &str,
    number: u64,
) -> Result<Option<Vec<u8>>, CliError> {
    let mut line = Vec::new();
    let most = MAX_REQUEST_BYTES as u64 + 2;
    let read = reader
        .take(most)
        .read_until(b'\n', &mut line)
        .map_err(|error| CliError::usage(format!("failed to read --batch {source}: {error}")))?;
    if read as u64 == most {
        let message =
            format!("line {number}: the request is larger than {MAX_REQUEST_BYTES} bytes");
        return Err(CliError::usage(message));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok((read > 0).then_some(line))
}

/// `-` is stdin, anything else a file.
#[expect(
    clippy::disallowed_methods,
    reason = "a file that the user named, not a file of the spool"
)]
fn open_source(flag: &str, source: &str) -> Result<Box<dyn BufRead>, CliError> {
    if source == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    if source.is_empty() {
        return Err(CliError::usage(format!("{flag} needs the name of a file")));
    }
    let file = std::fs::File::open(source)
        .map_err(|error| CliError::usage(format!("failed to open {flag} {source}: {error}")))?;
    Ok(Box::new(std::io::BufReader::new(file)))
}

/// `--attach FILE`: only if this process creates the task's folder.
#[expect(
    clippy::disallowed_methods,
    reason = "a file that the user named, not a file of the spool"
)]
fn open_attachment(client: &Client, path: &Path) -> Result<File, CliError> {
    client.check_attachment()?;
    let report =
        |why: &str| CliError::usage(format!("failed to read --attach {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| report(&error.to_string()))?;
    let metadata = file
        .metadata()
        .map_err(|error| report(&error.to_string()))?;
    if metadata.is_dir() {
        return Err(report("it is a folder"));
    }
    Ok(file)
}

/// The text of an argument, or of the file or stdin it names.
fn read_text(flag: &str, argument: &str) -> Result<String, CliError> {
    let source = match argument.strip_prefix('@') {
        Some(path) => path,
        None if argument == "-" => "-",
        None => return Ok(argument.to_owned()),
    };
    let mut bytes = Vec::new();
    open_source(flag, source)?
        .take(MAX_REQUEST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::usage(format!("failed to read {flag} {source}: {error}")))?;
    if bytes.len() > MAX_REQUEST_BYTES {
        let message = format!("{flag} {source} is larger than {MAX_REQUEST_BYTES} bytes");
        return Err(CliError::usage(message).hint("put the file's path into the input instead"));
    }
    String::from_utf8(without_bom(&bytes).to_vec())
        .map_err(|_| CliError::usage(format!("{flag} {source} is not UTF-8 text")))
}

/// Whether an argument names a file or stdin, and is not the text itself.
fn is_source(argument: &str) -> bool {
    argument.starts_with('@') || argument == "-"
}

/// `--input`: JSON. Text that does not look like JSON is wrapped.
fn read_input(argument: &str) -> Result<Json, CliError> {
    let text = read_text("--input", argument)?;
    let looks_like_json = text.trim_start().starts_with(['{', '[', '"']);
    match Json::parse(&text) {
        Ok(value) => Ok(value),
        Err(error) if looks_like_json && is_source(argument) => Err(CliError::usage(format!(
            "--input {argument} is not valid JSON: {error}"
        ))),
        Err(error) if looks_like_json => Err(CliError::usage(format!(
            "--input is not valid JSON: {error}"
        ))
        .hint("quote it for the shell: --input '{\"key\": \"value\"}'")),
        Err(_) => Json::of(&json!({ "input": text.trim_end_matches('\n') }))
            .map_err(|error| CliError::usage(error.to_string())),
    }
}

/// `--config` and `--metadata`: a JSON object.
fn read_object(flag: &str, argument: &str) -> Result<Json, CliError> {
    let text = read_text(flag, argument)?;
    let value = Json::parse(&text)
        .map_err(|error| CliError::usage(format!("{flag} is not valid JSON: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(CliError::usage(format!("{flag} must be a JSON object")))
    }
}

/// The value of `--env NAME`. It is stored as JSON, which holds only text.
fn variable_of_shell(context: &Context, name: &str) -> Result<String, CliError> {
    let value = context.env.get(name);
    let value = value
        .ok_or_else(|| CliError::usage(format!("--env: {name} is not set in this shell")))?
        .to_str();
    value.map(str::to_owned).ok_or_else(|| {
        CliError::usage(format!("--env: the value of {name} is not UTF-8 text"))
            .hint("put the value into a file and pass the file's path")
    })
}

/// `--env NAME[=VALUE]`. The recipe's consent is checked before the value is read from this shell.
fn read_variables(
    context: &Context,
    client: &Client,
    recipe: &Recipe,
    arguments: &[String],
) -> Result<Vec<(String, String)>, CliError> {
    let mut variables = Vec::new();
    for argument in arguments {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        client.check_variable(recipe, name)?;
        let value = match value {
            Some(value) => value,
            None => variable_of_shell(context, name)?,
        };
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}
