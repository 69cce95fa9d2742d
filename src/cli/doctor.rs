//! `agentspool doctor`: prints the result of each check, with a fix for each problem.
//!
//! Not the checks (`client/doctor/`). Invariant: the exit code is 0 only if every check is `ok`.

use agentspool::client::{Check, Client, DoctorOptions, Verdict};
use clap::builder::styling::AnsiColor;
use serde_json::json;

use super::Context;
use super::env::tools;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context) -> Result<ExitCode, CliError> {
    let (path, _) = context.spool_path()?;
    let options = DoctorOptions {
        default_spool: context.env.default_spool(),
        tools: tools(),
    };
    let checks = match Client::open_as_it_is(&path, context.options()?) {
        Ok(client) => client.doctor(&options),
        Err(error) => {
            let report = CliError::from(error);
            let hint = report.hints.first().cloned();
            let hint = hint.unwrap_or_else(|| "see docs/operating.md".to_owned());
            vec![Check::problem("spool", report.message, hint).unusable()]
        }
    };
    print_checks(context, &checks)
}

fn print_checks(context: &Context, checks: &[Check]) -> Result<ExitCode, CliError> {
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
            let report = first.map(|check| format!("{}: {}", check.name, check.message));
            object["error"] = report.into();
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
    let (colour, word) = match status {
        Verdict::Ok => (AnsiColor::Green, "ok     "),
        Verdict::Warn => (AnsiColor::Yellow, "warn   "),
        Verdict::Problem => (AnsiColor::Red, "problem"),
    };
    super::output::painted(colour.on_default(), word)
}
