//! The arguments that select tasks, the same for every verb that takes tasks, and the answer for several.
//!
//! Not which tasks match (`client/select.rs`). Invariant: no verb takes all tasks unless `--all` or a filter
//! is given, and what fails for one task is reported after all others are done.

use agentspool::client::{Filter, Selection};
use agentspool::task::{Name, Status};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;
use super::since::{Since, parse_since};

// What a task must have to be selected.
#[derive(Args, Clone, Default)]
pub(crate) struct FilterArgs {
    /// Only tasks with this status: pending, running, completed, failed, cancelled (repeatable)
    #[arg(long, value_delimiter = ',')]
    pub status: Vec<Status>,
    /// Only tasks of this recipe
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<Name>,
    /// Only tasks with this name
    #[arg(long)]
    pub name: Option<Name>,
    /// Only tasks with this label
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    pub label: Option<String>,
    /// Only tasks of this session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<Name>,
    /// Only tasks submitted since this time: 2026-11-27T09:00:00Z, or how long ago: 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
}

impl FilterArgs {
    pub fn filter(&self) -> Filter {
        Filter {
            statuses: self.status.clone(),
            recipe: self.recipe.clone(),
            name: self.name.clone(),
            label: self.label.clone(),
            session: self.session.clone(),
            since: self.since.map(Since::moment),
        }
    }
}

// The tasks of a verb: named, or by a filter, or all.
#[derive(Args, Clone, Default)]
pub(crate) struct Select {
    /// Task ids, starts or ends of ids, names, labels, or `last`
    #[arg(value_name = "TASK")]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl Select {
    /// The selected tasks. `all` is the verb's flag `--all`.
    pub fn selection(&self, all: bool) -> Result<Selection, CliError> {
        let filter = self.filter.filter();
        if all && !filter.is_empty() {
            return Err(CliError::usage(
                "--all selects every task, so it cannot be used with a filter",
            ));
        }
        match (self.tasks.is_empty(), filter.is_empty() && !all) {
            (true, true) => Err(CliError::usage("a task is required").hint(
                "name one or more tasks, select some with --status or another filter, or use --all",
            )),
            (false, false) => Err(CliError::usage(
                "tasks cannot be both named and selected by a filter or --all",
            )),
            (false, true) => Ok(Selection::Named(self.tasks.clone())),
            (true, false) => Ok(Selection::Matching(filter)),
        }
    }

    /// The text that names the only task. `None` if the answer is for several tasks.
    pub fn one(&self) -> Option<&str> {
        match self.tasks.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// Refuses an empty label, which is mostly a shell variable that is not set.
fn parse_label(text: &str) -> Result<String, &'static str> {
    match text.trim().is_empty() {
        true => Err("the label is empty"),
        false => Ok(text.to_owned()),
    }
}

/// The answers for several tasks.
#[derive(Default)]
pub(crate) struct Several<T> {
    done: Vec<T>,
    failed: Vec<(String, CliError)>,
    /// The first code that is not 0.
    code: Option<ExitCode>,
}

/// What a command for several tasks prints with `--json`.
#[derive(Serialize)]
struct SeveralJson<'a, T> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    tasks: &'a [T],
    failed: Vec<serde_json::Value>,
}

impl<T: Serialize> Several<T> {
    pub fn new() -> Several<T> {
        Several {
            done: Vec::new(),
            failed: Vec::new(),
            code: None,
        }
    }

    pub fn add(&mut self, answer: T, code: ExitCode) {
        self.done.push(answer);
        self.note_code(code);
    }

    pub fn fail(&mut self, text: &str, error: CliError) {
        self.note_code(error.code);
        self.failed.push((text.to_owned(), error));
    }

    fn note_code(&mut self, code: ExitCode) {
        if code != ExitCode::Done && self.code.is_none() {
            self.code = Some(code);
        }
    }

    /// Prints what failed, or with `--json` the whole answer.
    pub fn end(self, context: &Context) -> Result<ExitCode, CliError> {
        let code = self.code.unwrap_or(ExitCode::Done);
        let out = &context.out;
        if out.is_json() {
            let failed = self.failed.iter().map(failure).collect();
            out.object(&SeveralJson {
                ok: code == ExitCode::Done,
                error: self.failed.first().map(|(_, error)| error.message.as_str()),
                code: (code != ExitCode::Done).then(|| code.number()),
                tasks: &self.done,
                failed,
            })?;
            return Ok(code);
        }
        for (_, error) in &self.failed {
            out.error(error);
        }
        if self.done.is_empty() && self.failed.is_empty() {
            out.note("note: no task matches");
        }
        Ok(code)
    }
}

/// One failure, as scripts read it.
pub(super) fn failure((text, error): &(String, CliError)) -> serde_json::Value {
    json!({ "task": text, "code": error.code.number(), "error": error.message })
}
