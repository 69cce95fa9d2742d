//! `agentspool completions SHELL | --man DIR`: what can be generated from the command line.

use clap::CommandFactory;

use super::Context;
use super::args::{Cli, CompletionsArgs};
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut command = Cli::command();
    if let Some(folder) = &args.man {
        clap_mangen::generate_to(command, folder).map_err(|error| {
            let told = format!(
                "failed to write manual pages to {}: {error}",
                folder.display()
            );
            CliError::new(ExitCode::General, told)
        })?;
        return Ok(ExitCode::Done);
    }
    if let Some(shell) = args.shell {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "agentspool", &mut script);
        context.out.bytes(&script)?;
    }
    Ok(ExitCode::Done)
}
