//! `agentspool completions SHELL | --man DIR`: completions and manual pages, generated from the definitions.
//!
//! Not the definitions (`args.rs`). Invariant: verbs and options that the help hides are never completed and
//! never suggested.

use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory};

use super::Context;
use super::args::{Cli, CompletionsArgs};
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    if let Some(folder) = &args.man {
        clap_mangen::generate_to(Cli::command(), folder).map_err(|error| {
            let message = format!(
                "failed to write manual pages to {}: {error}",
                folder.display()
            );
            CliError::new(ExitCode::General, message)
        })?;
        return Ok(ExitCode::Done);
    }
    if let Some(shell) = args.shell {
        let mut script = Vec::new();
        let command = built();
        let mut command = visible(&command, &hidden_verbs(&command));
        clap_complete::generate(shell, &mut command, "agentspool", &mut script);
        context.out.bytes(&script)?;
    }
    Ok(ExitCode::Done)
}

/// The whole command line, including the subcommands that clap builds only on use.
fn built() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// The names of hidden verbs. `help` has copies of all verbs, and the copies are not hidden.
fn hidden_verbs(command: &Command) -> Vec<&str> {
    let hidden = command.get_subcommands().filter(|it| it.is_hide_set());
    hidden.map(Command::get_name).collect()
}

/// The same command without its hidden verbs and options.
fn visible(command: &Command, hidden: &[&str]) -> Command {
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set());
    let verbs = command.get_subcommands();
    let verbs = verbs.filter(|it| !hidden.contains(&it.get_name()));
    let about = command.get_about().cloned().unwrap_or_default();
    // clap requires a name with a static lifetime. The program ends after the script is printed.
    let name: &'static str = command.get_name().to_owned().leak();
    Command::new(name)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        // The help and version flags and the help verb are already among the arguments and verbs.
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(arguments.cloned())
        .subcommands(verbs.map(|verb| visible(verb, hidden)))
}

/// clap's error for a command line, without suggestions of hidden verbs and options.
pub(super) fn without_hidden(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg] {
        let suggested = match error.remove(kind) {
            Some(ContextValue::String(one)) => vec![one],
            Some(ContextValue::Strings(many)) => many,
            Some(other) => {
                error.insert(kind, other);
                continue;
            }
            None => continue,
        };
        let mut kept = suggested;
        kept.retain(|word| !is_hidden(&built(), word));
        match kept.pop() {
            None => {}
            Some(only) if kept.is_empty() && kind == ContextKind::SuggestedArg => {
                error.insert(kind, ContextValue::String(only));
            }
            Some(last) => {
                kept.push(last);
                error.insert(kind, ContextValue::Strings(kept));
            }
        }
    }
    error
}

/// Whether a verb or an option of this name is hidden anywhere.
fn is_hidden(command: &Command, word: &str) -> bool {
    let option = word.strip_prefix("--").unwrap_or_default();
    let mut arguments = command.get_arguments().filter(|it| it.is_hide_set());
    arguments.any(|it| it.get_long() == Some(option))
        || command
            .get_subcommands()
            .any(|verb| (verb.is_hide_set() && verb.get_name() == word) || is_hidden(verb, word))
}
