//! The command line: the commands, what they print, and their exit codes.
//!
//! Part of the binary, not of the library: only this module prints, reads the environment and chooses exit
//! codes. One file per verb. Invariant: every command ends through [`run`], and with `--json` stdout is one
//! JSON object, also for an error.

mod args;
mod cancel;
mod clear;
mod client_errors;
mod completions;
mod config;
mod doctor;
mod env;
mod events;
mod exit_code;
mod follow;
mod inherited;
mod init;
mod install;
mod interrupt;
mod journal;
mod json;
mod label;
mod list;
mod log;
mod log_line;
mod log_queue;
mod logs;
mod notice;
mod output;
mod pause;
mod place;
mod progress;
mod recipe;
mod recipe_args;
mod recipe_check;
mod recipe_new;
mod report;
mod result;
mod retention;
mod runner;
mod schedule;
mod select;
mod served;
mod since;
mod status;
mod stdin;
mod submit;
mod sweep;
mod wait;
mod watch;
mod why;

use std::ffi::OsString;
use std::process::ExitCode as ProcessExitCode;

use args::{Cli, TaskVerb, Verb};
use clap::Parser;
use exit_code::ExitCode;
use output::Output;
use report::CliError;

/// What a verb needs besides its own arguments.
pub(crate) struct Context {
    pub out: Output,
    /// The umask that this process was started with.
    pub umask: u32,
    pub env: env::Environment,
    pub global: args::Global,
}

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ProcessExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    inherited::keep_from_children();
    agentspool::internals::let_large_writes_fail();
    // Spools are shared through their group, never with all users.
    let umask = agentspool::internals::set_umask(0o007);
    let env = env::Environment::read();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let error = completions::without_hidden(error);
            return output::clap_error(&error, wants_json(&arguments)).into();
        }
    };
    let out = Output::new(&cli.global, &env);
    let mut context = Context {
        out,
        umask,
        env,
        global: cli.global,
    };
    let ended = dispatch(&mut context, cli.verb);
    let code = match ended {
        Ok(code) => code,
        Err(error) => context.out.error(&error),
    };
    context.out.end_pieces();
    output::flush_log();
    code.into()
}

fn wants_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json")
}

fn dispatch(context: &mut Context, verb: Verb) -> Result<ExitCode, CliError> {
    log::start(context, &verb)?;
    match verb {
        Verb::Background { verb } | Verb::Task(verb) => dispatch_task(context, verb),
        Verb::Init(args) => init::run(context, &args),
        Verb::Watch(args) => watch::run(context, &args),
        Verb::Pause => pause::pause(context),
        Verb::Resume => pause::resume(context),
        Verb::Sweep(args) => sweep::run(context, &args),
        Verb::Events(args) => events::run(context, &args),
        Verb::Why(args) => why::run(context, &args),
        Verb::Install(args) => install::install(context, &args),
        Verb::Uninstall(args) => install::uninstall(context, &args),
        Verb::Recipe { verb } => recipe::run(context, verb),
        Verb::Progress(args) => progress::run(context, &args),
        Verb::Config { verb } => config::run(context, verb),
        Verb::Doctor => doctor::run(context),
        Verb::Runner(args) => runner::run(context, &args),
        Verb::Completions(args) => completions::run(context, &args),
    }
}

fn dispatch_task(context: &mut Context, verb: TaskVerb) -> Result<ExitCode, CliError> {
    match verb {
        TaskVerb::Submit(args) => submit::run(context, args),
        TaskVerb::List(args) => list::run(context, &args),
        TaskVerb::Status(args) => status::run(context, &args),
        TaskVerb::Cancel(args) => cancel::run(context, &args),
        TaskVerb::Clear(args) => clear::run(context, &args),
        TaskVerb::Result(args) => result::run(context, &args),
        TaskVerb::Logs(args) => logs::run(context, &args),
        TaskVerb::Wait(args) => wait::run(context, &args),
    }
}
