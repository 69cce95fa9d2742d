//! The command line as clap reads it: PraisonAI's documented verbs and flags, and our own.
//!
//! Definitions only. Not here: what a verb does (its own file). Invariant: the documented verbs work at the
//! top level and under `background`.

use std::path::PathBuf;
use std::time::Duration;

use agentspool::client::Cursor;
use agentspool::task::{InvalidName, Name, parse_duration, parse_timeout};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::exit_code::ExitCode;
use super::recipe_args::RecipeVerb;
use super::select::{FilterArgs, Select};
use super::since::{Since, parse_since};

/// Background tasks for agents and recipes on a file-system spool.
#[derive(Parser)]
#[command(name = "agentspool", version, after_help = ExitCode::table_text(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Global options")]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Use this spool [default: $AGENTSPOOL_DIR, else $XDG_STATE_HOME/agentspool]
    #[arg(long, global = true, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Print one JSON object and nothing else; `ok` is true if the exit code is 0
    #[arg(long, global = true)]
    pub json: bool,
    /// Print less: only the id, no notes
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to stderr; repeat for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to print colour and symbols
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Override a setting for this command; it takes precedence over the environment and spool.json
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Manage background tasks (these verbs also exist at the top level)
    Background {
        #[command(subcommand)]
        verb: TaskVerb,
    },
    /// Create a spool
    Init(InitArgs),
    #[command(flatten)]
    Task(TaskVerb),
    /// Run the watcher: start pending tasks as they arrive
    Watch(WatchArgs),
    /// Stop starting tasks; running tasks continue
    Pause,
    /// Start tasks again after `pause`, or in a copy of a spool
    Resume,
    /// Remove old tasks and leftover files, once or repeatedly
    Sweep(SweepArgs),
    /// Show why a task is not running
    Why(WhyArgs),
    /// Print the recorded events, oldest first
    Events(EventsArgs),
    /// List, check, create and run recipes
    Recipe {
        #[command(subcommand)]
        verb: RecipeVerb,
    },
    /// Install the watcher and the sweep timer as systemd units, and start them
    Install(InstallArgs),
    /// Stop and remove the units of `install`; keep the spool
    Uninstall(InstallArgs),
    /// Report progress from inside a task
    Progress(ProgressArgs),
    /// Show or change the spool's settings
    Config {
        #[command(subcommand)]
        verb: Option<ConfigVerb>,
    },
    /// Check the spool and this machine for problems, and suggest fixes
    #[command(
        after_help = "Exit code: 0 if every check is `ok`, 8 if the spool cannot be used, else 1"
    )]
    Doctor,
    /// Supervise tasks (started by `watch` and by units)
    #[command(hide = true)]
    Runner(RunnerArgs),
    /// Print shell completions, or write manual pages into a folder
    Completions(CompletionsArgs),
}

/// The documented verbs: at the top level, and under `background`.
#[derive(Subcommand)]
#[command(defer = true)]
pub(crate) enum TaskVerb {
    /// Submit a recipe as a background task
    Submit(SubmitArgs),
    /// List tasks, newest first
    List(ListArgs),
    /// Show a task's status
    Status(StatusArgs),
    /// Cancel a task and wait until its processes have ended
    Cancel(CancelArgs),
    /// Remove finished tasks
    Clear(ClearArgs),
    /// Print a task's output
    Result(ResultArgs),
    /// Print a task's logs: its stdout to stdout, its stderr to stderr
    Logs(LogsArgs),
    /// Wait until tasks end
    Wait(WaitArgs),
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// Folder of the spool [default: see --spool]
    pub dir: Option<PathBuf>,
    /// Let users of this group submit tasks
    #[arg(long)]
    pub group: Option<String>,
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// Use your own spool and your user's systemd, not the system's
    #[arg(long)]
    pub user: bool,
    /// Only print the files and the commands; change nothing
    #[arg(long)]
    pub print: bool,
}

// The parts of a request; shared by `submit` and `recipe run`.
#[derive(Args, Default)]
pub(crate) struct TaskArgs {
    /// Input data: JSON, @FILE, or - for stdin; other text becomes {"input": "…"}
    #[arg(short, long)]
    pub input: Option<String>,
    /// Config overrides: a JSON object, @FILE, or - for stdin
    #[arg(short, long)]
    pub config: Option<String>,
    /// Session: its tasks run one after another and share a folder
    #[arg(short, long)]
    pub session_id: Option<Name>,
    /// Stop the task after this time: 300, 90s, 1h30m [default: the recipe's timeout, else timeout_sec]
    #[arg(long, value_parser = parse_timeout, allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// Name of the task, to use in commands: letters, digits, `.`, `_` and `-`
    #[arg(long, value_parser = parse_task_name)]
    pub name: Option<Name>,
    /// Any text to show for the task; commands accept it if no other task has the same label
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Your own data about the task: a JSON object
    #[arg(long)]
    pub metadata: Option<String>,
    /// Pass a variable to the recipe, if it accepts it; without =VALUE, pass this shell's value
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Pass a file of any size to the recipe; it is copied to `attachment` in the task's folder
    #[arg(long, value_name = "FILE")]
    pub attach: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SubmitArgs {
    /// Recipe name to execute
    #[arg(long, required_unless_present = "batch")]
    pub recipe: Option<Name>,
    #[command(flatten)]
    pub task: TaskArgs,
    /// Wait until the task ends; print its stderr to stderr and its output to stdout
    #[arg(long, conflicts_with = "batch")]
    pub wait: bool,
    /// Submit requests from a JSON Lines file, or - for stdin; print one id per line. The lines before a bad
    /// line stay accepted
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "input", "config", "session_id", "timeout", "name", "label", "metadata", "env", "attach"])]
    pub batch: Option<String>,
}

#[derive(Args)]
pub(crate) struct WhyArgs {
    /// Task id, start or end of an id, name, label, or `last`
    pub task: String,
}

#[derive(Args)]
pub(crate) struct EventsArgs {
    /// Keep printing events as they happen, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only events since this time: 2026-11-27T09:00:00Z, or how long ago: 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Only events of this task: id, part of an id, or name (repeatable)
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Only events after the event with this `cursor`
    #[arg(long, conflicts_with = "since")]
    pub after: Option<Cursor>,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Page to show [default: 1; in a pipe and with -q all tasks are printed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub page: Option<u64>,
    /// Tasks per page [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub page_size: Option<u64>,
    /// Also count the tasks of each status and the files in the drop box
    #[arg(long)]
    pub counts: bool,
    /// Show timestamps instead of durations
    #[arg(long)]
    pub absolute: bool,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub select: Select,
    /// All tasks
    #[arg(long)]
    pub all: bool,
    /// Also show timestamps
    #[arg(long)]
    pub absolute: bool,
}

#[derive(Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub select: Select,
    /// All pending and running tasks
    #[arg(long)]
    pub all: bool,
    /// Request the cancellation and return at once
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Args)]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    pub select: Select,
    /// Cancel pending and running tasks first, then remove all tasks
    #[arg(long)]
    pub all: bool,
    /// Only tasks that ended at least this long ago: 3600, 90s, 1h30m
    #[arg(long, value_name = "N", value_parser = parse_duration, allow_negative_numbers = true)]
    pub older_than: Option<Duration>,
    /// Only print what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask for confirmation; --all asks on a terminal before it cancels tasks
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args)]
pub(crate) struct ResultArgs {
    #[command(flatten)]
    pub select: Select,
    /// All finished tasks
    #[arg(long)]
    pub all: bool,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// Task id, start or end of an id, name, label, or `last`
    pub task: String,
    /// Follow the log until the task ends, from the start or from the last N lines
    #[arg(short, long, conflicts_with = "attempt")]
    pub follow: bool,
    /// Only what the task wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only what the task wrote to stderr; it is printed to stderr, so a pipe needs `2>&1`
    #[arg(long)]
    pub stderr: bool,
    /// Only the last N lines of each stream; if a progress bar overwrote a line, only the end of that line
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub lines: Option<usize>,
    /// Print the logs of this attempt [default: the latest]
    #[arg(long)]
    pub attempt: Option<u32>,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub select: Select,
    /// All tasks that are pending or running now
    #[arg(long)]
    pub all: bool,
    /// Stop waiting after this time (exit code 124); the tasks continue
    #[arg(long, value_parser = parse_duration, allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// Exit with the recipe's own exit code
    #[arg(long)]
    pub propagate: bool,
    /// Stop waiting (exit code 6) if no task and no watcher is running and the command may not start one
    #[arg(long)]
    pub need_watcher: bool,
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    /// Exit as soon as nothing is left to do
    #[arg(long)]
    pub drain: bool,
    /// On SIGTERM and SIGINT, stop the running tasks before exiting; always on for a container's first
    /// process
    #[arg(long)]
    pub stop_tasks: bool,
    /// Set by the command that starts this watcher: the start lock is stdin
    #[arg(long, hide = true)]
    pub autostarted: bool,
}

#[derive(Args)]
pub(crate) struct SweepArgs {
    /// Only print what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Keep running: one pass now, then one per period, such as 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_period, conflicts_with_all = ["cron", "dry_run"])]
    pub every: Option<Duration>,
    /// Keep running: one pass at each time of this cron line, in local time: '*/5 * * * *'
    #[arg(long, value_name = "LINE", value_parser = super::schedule::parse_cron, conflicts_with = "dry_run")]
    pub cron: Option<croner::Cron>,
}

impl SweepArgs {
    /// Whether it keeps running after one pass.
    pub fn repeats(&self) -> bool {
        self.every.is_some() || self.cron.is_some()
    }
}

#[derive(Args)]
pub(crate) struct ProgressArgs {
    /// Percent, from 0 to 100
    pub percent: f64,
    /// What the task is doing
    #[arg(short, long)]
    pub message: Option<String>,
}

#[derive(Subcommand)]
#[command(defer = true)]
pub(crate) enum ConfigVerb {
    /// Print one setting
    Get {
        /// Name of the setting
        key: String,
    },
    /// Write a setting to spool.json
    Set {
        /// Name of the setting
        key: String,
        /// New value
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Remove a setting from spool.json
    Unset {
        /// Name of the setting
        key: String,
    },
}

#[derive(Args)]
pub(crate) struct RunnerArgs {
    /// Run this one task (exit code 0: it has a result; 75: another runner holds it, or no slot is free)
    #[arg(long, value_name = "ID")]
    pub once: Option<agentspool::task::TaskId>,
}

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to print completions for
    #[arg(required_unless_present = "man")]
    pub shell: Option<clap_complete::Shell>,
    /// Write manual pages into this folder instead
    #[arg(long, value_name = "DIR")]
    pub man: Option<PathBuf>,
}

/// Parses a task's name. The error points to `--label`, which takes any text.
fn parse_task_name(text: &str) -> Result<Name, String> {
    text.parse()
        .map_err(|error: InvalidName| format!("{error}; --label takes any text"))
}

/// Parses the period of `sweep --every`: at least one second.
fn parse_period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text).map_err(|error| error.to_string())?;
    if period < Duration::from_secs(1) {
        return Err("must be at least one second".to_owned());
    }
    Ok(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    // clap checks a subcommand's arguments only when that subcommand is used, and in a release
    // build it checks nothing.
    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }
}
