//! `agentspool config [get | set | unset]`: each setting with where it comes from.

use agentspool::config::{Settings, parse_value};
use serde_json::{Map, Value, json};

use super::Context;
use super::args::ConfigVerb;
use super::env;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, verb: Option<ConfigVerb>) -> Result<ExitCode, CliError> {
    let mut spool = context.open_spool()?;
    match verb {
        None => show(context, &spool),
        Some(ConfigVerb::Get { key }) => {
            let value = spool.settings().to_map().remove(&key);
            // The same complaint as for setting it, with the same suggestion.
            let value = match value {
                Some(value) => value,
                None => parse_value(&key, "null")?,
            };
            if context.out.is_json() {
                context
                    .out
                    .object(&json!({ "ok": true, "key": key, "value": value }))?;
            } else {
                context.out.line(text_of(&value))?;
            }
            Ok(ExitCode::Done)
        }
        Some(ConfigVerb::Set { key, value }) => {
            let value = parse_value(&key, &value)?;
            write(context, &mut spool, &key, Some(value))
        }
        Some(ConfigVerb::Unset { key }) => {
            if !Settings::default().to_map().contains_key(&key) {
                parse_value(&key, "null")?;
            }
            write(context, &mut spool, &key, None)
        }
    }
}

fn write(
    context: &Context,
    spool: &mut agentspool::spool::Spool,
    key: &str,
    value: Option<Value>,
) -> Result<ExitCode, CliError> {
    if !spool.is_owner() {
        let told = "only the owner of a spool may change its settings";
        return Err(CliError::new(ExitCode::Refused, told));
    }
    spool.set(key, value)?;
    let now = spool.settings().to_map().remove(key).unwrap_or(Value::Null);
    if context.out.is_json() {
        context
            .out
            .object(&json!({ "ok": true, "key": key, "value": now }))?;
    } else if !context.out.is_quiet() {
        context.out.line(format!("{key} = {}", text_of(&now)))?;
    }
    Ok(ExitCode::Done)
}

fn show(context: &Context, spool: &agentspool::spool::Spool) -> Result<ExitCode, CliError> {
    let (file, overrides) = (spool.settings_file(), spool.overrides());
    let settings = spool.settings().to_map();
    let out = &context.out;
    if out.is_json() {
        let mut all = Map::new();
        for (key, value) in &settings {
            let origin = Settings::origin(key, file, overrides);
            all.insert(
                key.clone(),
                json!({ "value": value, "origin": origin, "variable": env::variable_of(key) }),
            );
        }
        out.object(&json!({
            "ok": true, "spool": spool.path(), "uuid": spool.uuid(), "settings": all,
        }))?;
        return Ok(ExitCode::Done);
    }
    out.line(format!("spool {}", spool.path().display()))?;
    let widest = settings.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in &settings {
        let origin = Settings::origin(key, file, overrides);
        let origin = serde_json::to_value(origin).unwrap_or_default();
        let origin = origin.as_str().unwrap_or_default().to_owned();
        let from = match origin.as_str() {
            "environment" => format!("environment ({})", env::variable_of(key)),
            "file" => "spool.json".to_owned(),
            _ => origin,
        };
        out.line(format!("{key:widest$}  {:<10}  {from}", text_of(value)))?;
    }
    Ok(ExitCode::Done)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
