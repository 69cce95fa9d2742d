//! The command line, as clap reads it: the documented verbs and flags, and ours beside them.
//!
//! Definitions only. Not here: what a verb does (its own file). The verbs stand at the top level
//! and, as documented, under `background`.

use std::path::PathBuf;
use std::time::Duration;

use agentspool::client::Cursor;
use agentspool::task::{InvalidName, Name, Status, parse_duration};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::exit_code::ExitCode;
use super::recipe_args::RecipeVerb;
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
    /// The spool [default: $AGENTSPOOL_DIR, else $XDG_STATE_HOME/agentspool]
    #[arg(long, global = true, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Print one JSON object and nothing else; `ok` is true if the exit code is 0
    #[arg(long, global = true)]
    pub json: bool,
    /// Print less: the bare id, no notes
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to stderr; again for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Colour and symbols
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// A setting for this command, over the environment and spool.json
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
    /// Manage background tasks (the same verbs, as documented)
    Background {
        #[command(subcommand)]
        verb: TaskVerb,
    },
    /// Make a spool
    Init(InitArgs),
    #[command(flatten)]
    Task(TaskVerb),
    /// Run tasks: find pending ones and dispatch them
    Watch(WatchArgs),
    /// Start no more tasks; running ones go on
    Pause,
    /// Start tasks again after `pause`, or in a copy of a spool
    Resume,
    /// Remove what is old: once, or again and again
    Sweep(SweepArgs),
    /// Say why a task does not run
    Why(WhyArgs),
    /// Print what happened, oldest first
    Events(EventsArgs),
    /// Recipes: what can be run
    Recipe {
        #[command(subcommand)]
        verb: RecipeVerb,
    },
    /// Install the watcher and the sweep timer as systemd units, and start them
    Install(InstallArgs),
    /// Stop and remove what `install` made; the spool stays
    Uninstall(InstallArgs),
    /// Report progress from inside a task
    Progress(ProgressArgs),
    /// Show and set the spool's settings
    Config {
        #[command(subcommand)]
        verb: Option<ConfigVerb>,
    },
    /// Look whether all is well, and say what to do where it is not
    Doctor,
    /// Supervise tasks (started by `watch` and by units)
    #[command(hide = true)]
    Runner(RunnerArgs),
    /// Print shell completions, or manual pages into a folder
    Completions(CompletionsArgs),
}

/// The documented verbs: at the top level, and under `background`.
#[derive(Subcommand)]
#[command(defer = true)]
pub(crate) enum TaskVerb {
    /// Submit a recipe as background task
    Submit(SubmitArgs),
    /// List tasks, newest first
    List(ListArgs),
    /// Show where a task stands
    Status(StatusArgs),
    /// Cancel a task and wait until nothing of it is left
    Cancel(CancelArgs),
    /// Remove finished tasks
    Clear(ClearArgs),
    /// Print what a task gave
    Result(ResultArgs),
    /// Print a task's logs: its stdout to stdout, its stderr to stderr
    Logs(LogsArgs),
    /// Wait until tasks end
    Wait(WaitArgs),
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// The folder [default: the spool of --spool and the environment]
    pub dir: Option<PathBuf>,
    /// Let users of this group submit
    #[arg(long)]
    pub group: Option<String>,
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// For your own spool, by your own systemd, instead of the machine's
    #[arg(long)]
    pub user: bool,
    /// Only show the files and the commands
    #[arg(long)]
    pub print: bool,
}

// What a task is made of; shared by `submit` and `recipe run`.
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
    /// How long it may run: 300, 90s, 1h30m [default: the recipe's, else the spool's 300]
    #[arg(long, value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// What to call the task in commands: letters, digits, `.`, `_` and `-`
    #[arg(long, value_parser = parse_task_name)]
    pub name: Option<Name>,
    /// Any text to show for the task, and to find it by where no other task has it
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Your own notes: a JSON object
    #[arg(long)]
    pub metadata: Option<String>,
    /// A variable for the recipe, if it accepts it; without a value, the one of this shell
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
}

#[derive(Args)]
pub(crate) struct SubmitArgs {
    /// Recipe name to execute
    #[arg(long, required_unless_present = "batch")]
    pub recipe: Option<Name>,
    #[command(flatten)]
    pub task: TaskArgs,
    /// A file of any size for the recipe: its content becomes `attachment` in the task's folder
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub attach: Option<PathBuf>,
    /// Wait for the end: the log goes to stderr, the output to stdout
    #[arg(long, conflicts_with = "batch")]
    pub wait: bool,
    /// Requests as JSON Lines from a file, or - for stdin; prints one id a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "input", "config", "session_id", "timeout", "name", "label", "metadata", "env"])]
    pub batch: Option<String>,
}

#[derive(Args)]
pub(crate) struct WhyArgs {
    /// The task: an id, a name, the beginning of an id, or `last`
    pub task: String,
}

#[derive(Args)]
pub(crate) struct EventsArgs {
    /// Go on printing events as they happen, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only events from this moment on: 2026-11-27T09:00:00Z, or how long ago: 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Only events of this task (repeatable): an id, a name, or the beginning of an id
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Only events behind the one whose `cursor` this is
    #[arg(long, conflicts_with = "since")]
    pub after: Option<Cursor>,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only tasks of this status: pending, running, completed, failed, cancelled
    #[arg(long)]
    pub status: Option<Status>,
    /// Only tasks of this name
    #[arg(long)]
    pub name: Option<Name>,
    /// Only tasks of this label
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Which page
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub page: u64,
    /// Tasks on a page
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub page_size: u64,
    /// Count the tasks of each status, and what waits in the drop box, as well
    #[arg(long)]
    pub counts: bool,
    /// Show moments instead of durations
    #[arg(long)]
    pub absolute: bool,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Id, part of an id, name, or `last`
    pub task: String,
    /// Show moments as well
    #[arg(long)]
    pub absolute: bool,
}

#[derive(Args)]
pub(crate) struct CancelArgs {
    /// Id, part of an id, name, or `last`
    pub task: String,
    /// Leave the marker and do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Args)]
pub(crate) struct ClearArgs {
    /// Cancel what is pending or running first, then remove everything
    #[arg(long)]
    pub all: bool,
    /// Only tasks that ended at least so long ago: 3600, 90s, 1h30m
    #[arg(long, value_name = "N", value_parser = parse_duration)]
    pub older_than: Option<Duration>,
    /// Only tasks of this status
    #[arg(long)]
    pub status: Option<Status>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask: on a terminal --all asks before it cancels tasks
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args)]
pub(crate) struct ResultArgs {
    /// Id, part of an id, name, or `last`
    pub task: String,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// Id, part of an id, name, or `last`
    pub task: String,
    /// Follow until the task ends: from the first byte, or from the last N lines
    #[arg(short, long, conflicts_with = "attempt")]
    pub follow: bool,
    /// Only what the task wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only what the task wrote to stderr; it is printed to stderr, so a pipe needs `2>&1`
    #[arg(long)]
    pub stderr: bool,
    /// Only the last N lines of each; of a line that was written over, as by a progress bar, only its end
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Of this attempt [default: the latest]
    #[arg(long)]
    pub attempt: Option<u32>,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Ids, parts of ids, names, or `last`
    #[arg(required_unless_present_any = ["all", "session"])]
    pub tasks: Vec<String>,
    /// All tasks that are pending or running now
    #[arg(long, conflicts_with = "tasks")]
    pub all: bool,
    /// All tasks of a session that are pending or running now
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["tasks", "all"])]
    pub session: Option<Name>,
    /// Give up waiting after this (exit code 124); the tasks go on
    #[arg(long, value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Exit with the recipe's own code
    #[arg(long)]
    pub propagate: bool,
    /// Give up (exit code 6) when nothing runs, no watcher lives and none may be started
    #[arg(long)]
    pub need_watcher: bool,
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    /// Leave as soon as nothing is left to do
    #[arg(long)]
    pub drain: bool,
    /// On TERM and INT stop the tasks as well, and leave last: always so as the first process of a container
    #[arg(long)]
    pub stop_tasks: bool,
    /// Started by a command, with the start lock as stdin
    #[arg(long, hide = true)]
    pub autostarted: bool,
}

#[derive(Args)]
pub(crate) struct SweepArgs {
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Go on, with a pass now and then one each time this has passed: 90s, 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_period, conflicts_with_all = ["cron", "dry_run"])]
    pub every: Option<Duration>,
    /// Go on, with a pass whenever this cron line says so, in local time: '*/5 * * * *'
    #[arg(long, value_name = "LINE", value_parser = super::schedule::parse_cron, conflicts_with = "dry_run")]
    pub cron: Option<croner::Cron>,
}

impl SweepArgs {
    /// Whether it goes on after one pass.
    pub fn repeats(&self) -> bool {
        self.every.is_some() || self.cron.is_some()
    }
}

#[derive(Args)]
pub(crate) struct ProgressArgs {
    /// Percent, from 0 to 100
    pub percent: f64,
    /// What is being done
    #[arg(short, long)]
    pub message: Option<String>,
}

#[derive(Subcommand)]
#[command(defer = true)]
pub(crate) enum ConfigVerb {
    /// Print one setting
    Get {
        /// Its name
        key: String,
    },
    /// Write a setting into spool.json
    Set {
        /// Its name
        key: String,
        /// Its value
        value: String,
    },
    /// Take a setting out of spool.json
    Unset {
        /// Its name
        key: String,
    },
}

#[derive(Args)]
pub(crate) struct RunnerArgs {
    /// Run this one task (0: a result stands; 75: taken, or no slot free)
    #[arg(long, value_name = "ID")]
    pub once: Option<agentspool::task::TaskId>,
}

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    #[arg(required_unless_present = "man")]
    pub shell: Option<clap_complete::Shell>,
    /// Write manual pages into this folder instead
    #[arg(long, value_name = "DIR")]
    pub man: Option<PathBuf>,
}

/// A name for a task; any other text is a label.
fn parse_task_name(text: &str) -> Result<Name, String> {
    text.parse()
        .map_err(|error: InvalidName| format!("{error}; --label takes any text"))
}

/// A duration after which something is done again.
fn parse_period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text).map_err(|error| error.to_string())?;
    if period < Duration::from_secs(1) {
        return Err("at least one second".to_owned());
    }
    Ok(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    // clap looks at a subcommand's arguments only when that subcommand is used, and in a release
    // build not at all.
    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }
}
