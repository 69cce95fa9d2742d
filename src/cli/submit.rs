//! `agentspool submit` and what `recipe run` shares with it: from arguments to an accepted task.

use std::io::{BufRead, Read};

use agentspool::recipe::{Recipe, RecipePath, is_variable_name};
use agentspool::spool::{Spool, Submission, TaskDir};
use agentspool::task::{Json, MAX_REQUEST_BYTES, Name, Request, session_of};
use serde_json::{Map, Value, json};

use super::Context;
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
    let task = submit_one(context, &spool, recipe, &args.task)?;
    if args.wait {
        return wait::wait_and_show(context, &spool, &task);
    }
    tell(context, &task, None)?;
    Ok(ExitCode::Done)
}

/// Accepts one task and sees to it that somebody runs it.
pub(super) fn submit_one(
    context: &Context,
    spool: &Spool,
    recipe: &Name,
    args: &TaskArgs,
) -> Result<TaskDir, CliError> {
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
    let (name, session) = (request.name.clone(), request.session_id.clone());
    let submission = Submission {
        id: spool.new_id(),
        request,
        environment,
    };
    let task = spool.submit(vec![submission])?.pop();
    let task = task.ok_or_else(|| CliError::new(ExitCode::General, "nothing was accepted"))?;
    tell_accepted(&task, &recipe.name, session);
    if let Some(name) = &name {
        link_name(context, spool, name, &task);
    }
    context.ensure_watcher(spool);
    Ok(task)
}

/// Prints what was accepted.
pub(super) fn tell(
    context: &Context,
    task: &TaskDir,
    message: Option<&str>,
) -> Result<(), CliError> {
    // Whatever cannot be said now, it must not look as if there were no task.
    tell_all(context, task, message)
        .map_err(|error| error.hint(format!("the task {} was accepted", task.id())))
}

fn tell_all(context: &Context, task: &TaskDir, message: Option<&str>) -> Result<(), CliError> {
    let out = &context.out;
    let request = task.request()?;
    if out.is_json() {
        let mut object = json!({
            "ok": true,
            "task_id": task.id(),
            "recipe": request.recipe,
            "session_id": request.session_id,
            "id": task.id(),
            "status": "pending",
            "created_at": agentspool::task::Timestamp::from_unix_ms(task.id().unix_ms()),
            "dir": task.path(),
            "duplicate": false,
        });
        if let Some(message) = message {
            object["message"] = message.into();
        }
        return out.object(&object);
    }
    if out.is_quiet() {
        return out.line(task.id().to_string());
    }
    out.line(format!("Task: {}", task.id()))?;
    out.line("Status: pending")?;
    out.line(format!("Recipe: {}", request.recipe))?;
    if let Some(session) = &request.session_id {
        out.line(format!("Session: {session}"))?;
    }
    Ok(())
}

fn check_recipe(context: &Context, spool: &Spool, recipe: &Recipe) -> Result<(), CliError> {
    // Where our own watcher will run it, our PATH is the one that counts.
    let search = (!spool.is_group())
        .then(|| context.env.get("PATH"))
        .flatten();
    Ok(recipe.check_runnable(search.map(|path| path.as_os_str()))?)
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

    fn accept(&mut self) -> Result<(), CliError> {
        let requests = std::mem::take(&mut self.waiting);
        if requests.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = requests
            .iter()
            .map(|request| {
                let Request {
                    name,
                    recipe,
                    session_id,
                    ..
                } = request;
                (name.clone(), recipe.clone(), session_id.clone())
            })
            .collect();
        let submissions = requests
            .into_iter()
            .map(|request| Submission {
                id: self.spool.new_id(),
                request,
                environment: Map::new(),
            })
            .collect();
        let mut lines = String::new();
        let tasks = self.spool.submit(submissions)?;
        for (task, (name, recipe, session)) in tasks.into_iter().zip(asked) {
            tell_accepted(&task, &recipe, session);
            if let Some(name) = name {
                link_name(self.context, self.spool, &name, &task);
            }
            lines.push_str(&format!("{}\n", task.id()));
            self.ids.push(task.id().to_string());
        }
        if !self.context.out.is_json() {
            self.context.out.bytes(lines.as_bytes())?;
        }
        Ok(())
    }
}

fn tell_accepted(task: &TaskDir, recipe: &Name, session: Option<Name>) {
    let session = session.unwrap_or_else(|| session_of(task.id()));
    tracing::info!(task = %task.id(), recipe = %recipe, session = %session, "accepted");
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
                "--env is not taken in a group spool, whose members could read the values",
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
