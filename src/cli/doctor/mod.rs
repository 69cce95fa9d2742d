//! `agentspool doctor`: look whether all is well, and say what to do where it is not.
//!
//! The list of checks, and how they are told; each file beside this one holds checks of a kind.
//! Invariants: it changes nothing; the exit code is 0 only if every check is `ok`; a check that
//! cannot be made is a problem, never left out in silence.

mod disk;
mod launcher;
mod leftovers;
mod processes;
mod recipes;

use agentspool::spool::{IoError, Spool};
use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and somebody should know.
    Warn,
    /// It does not work as it should.
    Problem,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Verdict,
    message: String,
    /// What to do.
    hint: Option<String>,
    /// Whether the spool cannot be used like this.
    #[serde(skip)]
    is_unusable: bool,
}

impl Check {
    fn ok(name: &'static str, message: impl Into<String>) -> Check {
        Check {
            name,
            status: Verdict::Ok,
            message: message.into(),
            hint: None,
            is_unusable: false,
        }
    }

    fn warn(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check {
            status: Verdict::Warn,
            hint: Some(hint.into()),
            ..Check::ok(name, message)
        }
    }

    fn problem(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check {
            status: Verdict::Problem,
            ..Check::warn(name, message, hint)
        }
    }

    /// The check itself could not be made.
    fn failed(name: &'static str, error: &IoError) -> Check {
        let hint = "see to it that this can be read";
        Check::problem(name, error.to_string(), hint)
    }

    fn unusable(mut self) -> Check {
        self.is_unusable = true;
        self
    }
}

pub(super) fn run(context: &Context) -> Result<ExitCode, CliError> {
    let (path, _) = context.spool_path()?;
    let checks = match Spool::open_as_it_is(&path, context.overrides()?) {
        Ok(spool) => all(context, &spool),
        Err(error) => {
            let told = CliError::from(error);
            let hint = told.hints.first().cloned();
            let hint = hint.unwrap_or_else(|| "see docs/operating.md".to_owned());
            vec![Check::problem("spool", told.message, hint).unusable()]
        }
    };
    tell(context, &checks)
}

/// Every check, in the order of the answer.
fn all(context: &Context, spool: &Spool) -> Vec<Check> {
    type Checker = fn(&Context, &Spool) -> Result<Vec<Check>, IoError>;
    let checkers: [(&'static str, Checker); 16] = [
        ("spool", disk::spool),
        ("writable", disk::writable),
        ("folders above", disk::above),
        ("file system", disk::file_system),
        ("identity", disk::identity),
        ("paused", disk::paused),
        ("clock", disk::clock),
        ("watcher", processes::watcher),
        ("sweeps", processes::sweeps),
        ("linger", processes::linger),
        ("launcher", launcher::launcher),
        ("limits", processes::limits),
        ("recipes", recipes::runnable),
        ("recipe path", recipes::path),
        ("leftovers", leftovers::litter),
        ("tasks", leftovers::tasks),
    ];
    // The rest is the owner's to see to, and much of it closed to a user of the group.
    let of_everybody = ["spool", "writable", "file system", "identity", "watcher"];
    let is_owner = spool.is_owner();
    let mut checks = Vec::new();
    for (name, checker) in checkers {
        if !is_owner && !of_everybody.contains(&name) {
            continue;
        }
        match checker(context, spool) {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(Check::failed(name, &error)),
        }
    }
    checks
}

fn tell(context: &Context, checks: &[Check]) -> Result<ExitCode, CliError> {
    let code = if checks.iter().any(|check| check.is_unusable) {
        ExitCode::SpoolUnusable
    } else if checks.iter().all(|check| check.status == Verdict::Ok) {
        ExitCode::Done
    } else {
        ExitCode::General
    };
    let out = &context.out;
    if out.is_json() {
        let is_ok = code == ExitCode::Done;
        let mut object = json!({ "ok": is_ok, "checks": checks });
        if !is_ok {
            let is_bad = |check: &&Check| check.status != Verdict::Ok;
            let first = checks.iter().find(|check| check.is_unusable);
            let first = first.or_else(|| checks.iter().find(is_bad));
            let told = first.map(|check| format!("{}: {}", check.name, check.message));
            object["error"] = told.into();
            object["code"] = code.number().into();
        }
        out.object(&object)?;
        return Ok(code);
    }
    for check in checks {
        if out.is_quiet() && check.status == Verdict::Ok {
            continue;
        }
        let hint = check.hint.as_ref().map(|hint| format!("; {hint}"));
        let hint = hint.unwrap_or_default();
        let text = format!("  {}: {}{hint}", check.name, check.message);
        out.line_after(&sign(check.status), text)?;
    }
    Ok(code)
}

fn sign(status: Verdict) -> String {
    match status {
        Verdict::Ok => format!("{:7}", "ok".green()),
        Verdict::Warn => format!("{:7}", "warn".yellow()),
        Verdict::Problem => format!("{:7}", "problem".red()),
    }
}

/// `1 task`, `3 tasks`.
fn count(n: usize, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}
