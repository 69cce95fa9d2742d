//! `agentspool submit` and what `recipe run` shares with it: from arguments to an accepted task.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use agentspool::recipe::{Recipe, RecipePath, is_variable_name};
use agentspool::spool::{Spool, Submission, TaskDir};
use agentspool::task::{Json, MAX_REQUEST_BYTES, Name, Request, TaskId, session_of};
use serde_json::{Map, Value, json};

use super::Context;
use super::admission::{AcceptedSome, drop_in};
use super::args::{SubmitArgs, TaskArgs};
use super::exit_code::ExitCode;
use super::place::recipe_path;
use super::report::CliError;
use super::wait;

/// Tasks that are accepted together by `--batch`: they share their syncs, and each holds two files
/// open until then.
const BATCH: usize = 200;

pub(super) fn run(context: &Context, args: SubmitArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_or_make_spool()?;
    if let Some(source) = &args.batch {
        return submit_batch(context, &spool, source);
    }
    let Some(recipe) = &args.recipe else {
        return Err(CliError::usage("--recipe is missing"));
    };
    let accepted = submit_one(context, &spool, recipe, &args.task, args.attach.as_deref())?;
    if args.wait {
        return wait::wait_and_show(context, &spool, accepted);
    }
    tell(context, &accepted, None)?;
    Ok(ExitCode::Done)
}

/// What was accepted.
pub(super) struct Accepted {
    pub id: TaskId,
    /// Its folder; `None` where it is a drop that the watcher of a group spool has yet to admit.
    pub task: Option<TaskDir>,
    recipe: Name,
    session: Name,
    path: PathBuf,
}

/// Accepts one task and sees to it that somebody runs it.
pub(super) fn submit_one(
    context: &Context,
    spool: &Spool,
    recipe: &Name,
    args: &TaskArgs,
    attach: Option<&Path>,
) -> Result<Accepted, CliError> {
    let recipe = recipe_path(spool).find(recipe)?;
    check_recipe(context, spool, &recipe)?;
    let mut request = Request::new(recipe.name.clone());
    request.input = args.input.as_deref().map(read_input).transpose()?;
    request.config = args
        .config
        .as_deref()
        .map(|text| read_object("--config", text))
        .transpose()?;
    request.metadata = args
        .metadata
        .as_deref()
        .map(|text| read_object("--metadata", text))
        .transpose()?;
    request.session_id = args.session_id.clone();
    request.timeout_sec = args.timeout.map(|timeout| timeout.as_secs_f64());
    request.name = args.name.clone();
    let environment = read_variables(context, spool, &recipe, &args.env)?;
    let attachment = attach
        .map(|path| open_attachment(spool, path))
        .transpose()?;
    let (name, session) = (request.name.clone(), request.session_id.clone());
    let (id, task) = if spool.is_owner() {
        let submission = Submission {
            id: spool.new_id(),
            request,
            environment,
            attachment,
            origin: None,
        };
        let task = spool.submit(vec![submission])?.pop();
        let task = task.ok_or_else(|| CliError::new(ExitCode::General, "nothing was accepted"))?;
        if let Some(name) = &name {
            link_name(context, spool, name, &task);
        }
        (task.id(), Some(task))
    } else {
        let some = drop_in(spool, &[request])?;
        match (some.ids.first(), some.failed) {
            (Some((_, id)), None) => (*id, None),
            (_, failed) => {
                let nothing = || CliError::new(ExitCode::General, "nothing was accepted");
                return Err(failed.unwrap_or_else(nothing));
            }
        }
    };
    let accepted = Accepted {
        id,
        task,
        recipe: recipe.name,
        session: session.unwrap_or_else(|| session_of(id)),
        path: spool.task_path(id),
    };
    context.note_pause(spool);
    context.ensure_watcher(spool);
    Ok(accepted)
}

/// Prints what was accepted.
pub(super) fn tell(
    context: &Context,
    accepted: &Accepted,
    message: Option<&str>,
) -> Result<(), CliError> {
    // Whatever cannot be said now, it must not look as if there were no task.
    tell_all(context, accepted, message)
        .map_err(|error| error.hint(format!("the task {} was accepted", accepted.id)))
}

fn tell_all(context: &Context, accepted: &Accepted, message: Option<&str>) -> Result<(), CliError> {
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

fn check_recipe(context: &Context, spool: &Spool, recipe: &Recipe) -> Result<(), CliError> {
    // Where our own watcher will run it, our PATH is the one that counts.
    let search = context.search_for(spool).filter(|_| !spool.is_group());
    Ok(recipe.check_runnable(search)?)
}

/// JSON Lines in, one id a line out, each printed only once its task is accepted. A bad line ends
/// it; the lines before it are accepted, so that whoever mends it knows where to go on.
fn submit_batch(context: &Context, spool: &Spool, source: &str) -> Result<ExitCode, CliError> {
    let mut reader = open_source("--batch", source)?;
    let mut batch = Batch {
        context,
        spool,
        recipes: recipe_path(spool),
        known: Vec::new(),
        waiting: Vec::new(),
        ids: Vec::new(),
    };
    let read = batch.read(&mut *reader);
    let ended = read.and(batch.accept());
    let ids = batch.ids;
    if !ids.is_empty() {
        context.note_pause(spool);
        context.ensure_watcher(spool);
    }
    let counted = ids.len();
    ended.map_err(|error| {
        error
            .hint(format!("{counted} tasks of the lines before were accepted"))
            .detail("submitted", counted)
            .detail("task_ids", ids.as_slice())
    })?;
    if context.out.is_json() {
        context
            .out
            .object(&json!({ "ok": true, "submitted": counted, "task_ids": ids }))?;
    }
    Ok(ExitCode::Done)
}

/// Where a batch stands.
struct Batch<'a> {
    context: &'a Context,
    spool: &'a Spool,
    recipes: RecipePath,
    /// Recipes that were found runnable.
    known: Vec<Name>,
    /// Read and not accepted yet.
    waiting: Vec<Request>,
    /// Accepted and, without `--json`, printed.
    ids: Vec<String>,
}

impl Batch<'_> {
    /// Reads to the end or to the first bad line; what is left in `waiting` is good.
    fn read(&mut self, reader: &mut dyn BufRead) -> Result<(), CliError> {
        let mut number = 1u64;
        while let Some(line) = read_line(reader, number)? {
            if !line.trim_ascii().is_empty() {
                let request = self.parse(&line).map_err(|error| CliError {
                    message: format!("line {number}: {}", error.message),
                    ..error
                })?;
                self.waiting.push(request);
            }
            if self.waiting.len() == BATCH {
                self.accept()?;
            }
            number += 1;
        }
        Ok(())
    }

    fn parse(&mut self, line: &[u8]) -> Result<Request, CliError> {
        let request = Request::parse(line)?;
        if !self.known.contains(&request.recipe) {
            let recipe = self.recipes.find(&request.recipe)?;
            check_recipe(self.context, self.spool, &recipe)?;
            self.known.push(request.recipe.clone());
        }
        Ok(request)
    }

    fn accept_all(&self, requests: Vec<Request>) -> Result<AcceptedSome, CliError> {
        let (context, spool) = (self.context, self.spool);
        let asked: Vec<_> = requests
            .iter()
            .map(|it| (it.name.clone(), it.recipe.clone(), it.session_id.clone()))
            .collect();
        let (some, tasks) = if spool.is_owner() {
            let submissions = requests
                .into_iter()
                .map(|request| Submission {
                    id: spool.new_id(),
                    request,
                    environment: Map::new(),
                    attachment: None,
                    origin: None,
                })
                .collect();
            let tasks = spool.submit(submissions)?;
            let ids = tasks.iter().map(TaskDir::id).enumerate().collect();
            (AcceptedSome { ids, failed: None }, tasks)
        } else {
            (drop_in(spool, &requests)?, Vec::new())
        };
        for (task, (name, ..)) in tasks.iter().zip(&asked) {
            if let Some(name) = name {
                link_name(context, spool, name, task);
            }
        }
        Ok(some)
    }

    fn accept(&mut self) -> Result<(), CliError> {
        let requests = std::mem::take(&mut self.waiting);
        if requests.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        let some = self.accept_all(requests)?;
        for (_, id) in some.ids {
            lines.push_str(&format!("{id}\n"));
            self.ids.push(id.to_string());
        }
        if !self.context.out.is_json() {
            self.context.out.bytes(lines.as_bytes())?;
        }
        some.failed.map_or(Ok(()), Err)
    }
}

/// The task is accepted whatever becomes of its link.
fn link_name(context: &Context, spool: &Spool, name: &Name, task: &TaskDir) {
    if let Err(error) = spool.link_name(name, task.id()) {
        context.out.note(format!("note: {error}"));
    }
}

/// A line without its newline, `None` at the end; one that is too long is an error and is not kept.
fn read_line(reader: &mut dyn BufRead, number: u64) -> Result<Option<Vec<u8>>, CliError> {
    let mut line = Vec::new();
    let most = MAX_REQUEST_BYTES as u64 + 2;
    let read = reader
        .take(most)
        .read_until(b'\n', &mut line)
        .map_err(|error| CliError::usage(format!("failed to read --batch: {error}")))?;
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
    reason = "a file the person named, not one of the spool"
)]
fn open_source(flag: &str, source: &str) -> Result<Box<dyn BufRead>, CliError> {
    if source == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = std::fs::File::open(source)
        .map_err(|error| CliError::usage(format!("failed to open {flag} {source}: {error}")))?;
    Ok(Box::new(std::io::BufReader::new(file)))
}

/// `--attach FILE`: only where the task's folder is made here.
#[expect(
    clippy::disallowed_methods,
    reason = "a file the person named, not one of the spool"
)]
fn open_attachment(spool: &Spool, path: &Path) -> Result<File, CliError> {
    if !spool.is_owner() {
        return Err(CliError::new(
            ExitCode::Refused,
            "--attach is only for the spool's owner: users of the group submit by a file in the drop box, which cannot carry another one",
        )
        .hint("put the data where the recipe can read it, and its path into the input"));
    }
    let told =
        |why: &str| CliError::usage(format!("failed to read --attach {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| told(&error.to_string()))?;
    let metadata = file.metadata().map_err(|error| told(&error.to_string()))?;
    if metadata.is_dir() {
        return Err(told("it is a folder"));
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
        return Err(CliError::usage(message).hint("put its path into the input instead"));
    }
    String::from_utf8(bytes)
        .map_err(|_| CliError::usage(format!("{flag} {source} is not UTF-8 text")))
}

/// `--input`: JSON; text that does not look like JSON is wrapped.
fn read_input(argument: &str) -> Result<Json, CliError> {
    let text = read_text("--input", argument)?;
    let looks_like_json = text.trim_start().starts_with(['{', '[', '"']);
    match Json::parse(&text) {
        Ok(value) => Ok(value),
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

/// The value of `--env NAME`. It is stored as JSON, which holds nothing but text.
fn variable_of_shell(context: &Context, name: &str) -> Result<String, CliError> {
    let value = context.env.get(name);
    let value = value
        .ok_or_else(|| CliError::usage(format!("--env: {name} is not set in this shell")))?
        .to_str();
    value.map(str::to_owned).ok_or_else(|| {
        CliError::usage(format!("--env: the value of {name} is not UTF-8 text"))
            .hint("put it into a file and give its path")
    })
}

/// `--env NAME[=VALUE]`: only what the recipe lists, and only where nobody else can read it.
fn read_variables(
    context: &Context,
    spool: &Spool,
    recipe: &Recipe,
    arguments: &[String],
) -> Result<Map<String, Value>, CliError> {
    let mut variables = Map::new();
    for argument in arguments {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        if !is_variable_name(name) {
            return Err(CliError::usage(format!(
                "--env: {name:?} is no name of a variable"
            )));
        }
        if spool.is_group() {
            return Err(CliError::new(
                ExitCode::Refused,
                "--env is not taken in a group spool, where the group can read requests",
            )
            .hint("ask the spool's owner for an env_file in the recipe"));
        }
        if !recipe
            .manifest
            .env_accept
            .iter()
            .any(|accepted| accepted == name)
        {
            return Err(CliError::new(
                ExitCode::Refused,
                format!(
                    "the recipe {} does not accept the variable {name}",
                    recipe.name
                ),
            )
            .hint("its owner can list it under env_accept in recipe.toml"));
        }
        let value = match value {
            Some(value) => value,
            None => variable_of_shell(context, name)?,
        };
        variables.insert(name.to_owned(), value.into());
    }
    Ok(variables)
}
