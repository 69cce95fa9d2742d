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
    let opened = match &verb {
        None | Some(ConfigVerb::Get { .. }) => context.open_client_to_read(),
        Some(_) => context.open_client(),
    };
    let is_removed = match (&opened, &verb) {
        (Err(_), Some(ConfigVerb::Unset { key })) => is_removed(context, key)?,
        _ => false,
    };
    let mut client = match is_removed {
        true => context.open_client()?,
        false => opened?,
    };
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
        // A setting that this program does not know was removed above, and has no value now.
        Some(ConfigVerb::Unset { key }) if client.setting(&key).is_err() && is_removed => {
            report_removal(context, &key)
        }
        Some(ConfigVerb::Unset { key }) => write(context, &mut client, &key, None),
    }
}

/// Removes a setting because of which the spool may be unusable.
fn is_removed(context: &Context, key: &str) -> Result<bool, CliError> {
    let (path, _) = context.spool_path()?;
    Ok(Client::remove_setting(&path, key)?)
}

fn report_removal(context: &Context, key: &str) -> Result<ExitCode, CliError> {
    if context.out.is_json() {
        let object = json!({ "ok": true, "key": key, "value": null });
        context.out.object(&object)?;
    } else if !context.out.is_quiet() {
        context.out.line(format!("{key} is removed"))?;
    }
    Ok(ExitCode::Done)
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
    if key == "launcher"
        && let Some(why) = client.launcher_problem()
    {
        context.out.note(format!(
            "note: with this setting no task can start: systemd starts no unit ({why}); `agentspool doctor` shows a fix"
        ));
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
