//! `agentspool init [DIR] [--group G]`: make a spool.

use agentspool::spool::{Spool, group_id};
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
    let gid = args.group.as_deref().map(group_id).transpose()?;
    let spool = Spool::init(&path, gid, context.overrides()?)?;
    if spool.is_group()
        && let Some(exposed) = spool.exposed_above()?
    {
        let why = format!("no watcher will run its tasks: {exposed}");
        return Err(CliError::new(ExitCode::Refused, why));
    }
    if context.out.is_json() {
        context
            .out
            .object(&json!({ "ok": true, "spool": spool.path(), "uuid": spool.uuid() }))?;
    } else if context.out.is_quiet() {
        context.out.line(spool.path().display().to_string())?;
    } else {
        context
            .out
            .line(format!("spool ready: {}", spool.path().display()))?;
    }
    Ok(ExitCode::Done)
}
