//! `agentspool init [DIR] [--group G]`: creates a spool.

use agentspool::client::Client;
use serde_json::json;

use super::Context;
use super::args::InitArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<ExitCode, CliError> {
    let path = match &args.dir {
        Some(dir) => dir.clone(),
        None => context.spool_path()?.0,
    };
    let client = Client::init(&path, args.group.as_deref(), context.options()?)?;
    let (out, path) = (&context.out, client.path());
    if out.is_json() {
        out.object(&json!({ "ok": true, "spool": path, "uuid": client.uuid() }))?;
    } else if out.is_quiet() {
        out.line(path.display().to_string())?;
    } else {
        out.line(format!("spool ready: {}", path.display()))?;
    }
    Ok(ExitCode::Done)
}
