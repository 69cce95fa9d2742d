//! `agentspool config [get | set | unset]`: each setting, and where its value comes from.

use agentspool::client::Client;
use agentspool::config::Origin;
use serde_json::{Map, Value, json};

use super::Context;
use super::args::ConfigVerb;
use super::env;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, verb: Option<ConfigVerb>) -> Result<ExitCode, CliError> {
    let mut client = context.open_client()?;
    match verb {
        None => show(context, &client),
        Some(ConfigVerb::Get { key }) => {
            let value = client.setting(&key)?;
            if context.out.is_json() {
                context
                    .out
                    .object(&json!({ "ok": true, "key": key, "value": value }))?;
            } else {
                context.out.line(text_of(&value))?;
            }
            Ok(ExitCode::Done)
        }
        Some(ConfigVerb::Set { key, value }) => write(context, &mut client, &key, Some(&value)),
        Some(ConfigVerb::Unset { key }) => write(context, &mut client, &key, None),
    }
}

fn write(
    context: &Context,
    client: &mut Client,
    key: &str,
    value: Option<&str>,
) -> Result<ExitCode, CliError> {
    let now = client.set_setting(key, value)?;
    if context.out.is_json() {
        context
            .out
            .object(&json!({ "ok": true, "key": key, "value": now }))?;
    } else if !context.out.is_quiet() {
        context.out.line(format!("{key} = {}", text_of(&now)))?;
    }
    Ok(ExitCode::Done)
}

fn show(context: &Context, client: &Client) -> Result<ExitCode, CliError> {
    let settings = client.settings();
    let out = &context.out;
    if out.is_json() {
        let mut all = Map::new();
        for setting in settings {
            let variable = env::variable_of(&setting.key);
            all.insert(
                setting.key,
                json!({ "value": setting.value, "origin": setting.origin, "variable": variable }),
            );
        }
        out.object(&json!({
            "ok": true, "spool": client.path(), "uuid": client.uuid(), "settings": all,
        }))?;
        return Ok(ExitCode::Done);
    }
    out.line(format!("spool {}", client.path().display()))?;
    let widest = settings.iter().map(|setting| setting.key.len()).max();
    let widest = widest.unwrap_or(0);
    for setting in settings {
        let from = match setting.origin {
            Origin::Flag => "flag".to_owned(),
            Origin::Environment => format!("environment ({})", env::variable_of(&setting.key)),
            Origin::File => "spool.json".to_owned(),
            Origin::Default => "default".to_owned(),
        };
        out.line(format!(
            "{:widest$}  {:<10}  {from}",
            setting.key,
            text_of(&setting.value)
        ))?;
    }
    Ok(ExitCode::Done)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
