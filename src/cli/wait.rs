//! `agentspool wait`, and the waiting of `submit --wait` and `recipe run`.
//!
//! Woken when a hint leaves `open/`; looks by the clock as well, because being woken is only a
//! convenience. A drop that is not admitted yet is waited for too.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agentspool::client::{Accepted, Attendance, Client};
use agentspool::spool::{Spool, Stream, Target, TaskView, Wake};
use agentspool::task::{Name, ResultFile, Status, TaskId, escape_text};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Context;
use super::args::WaitArgs;
use super::exit_code::ExitCode;
use super::follow::FollowedLog;
use super::interrupt::Interrupt;
use super::json::TaskJson;
use super::list;
use super::place::check_still_there;
use super::report::CliError;
use super::result;

/// How often to look although nothing was heard.
const LOOK: Duration = Duration::from_millis(1000);
/// How often while a log or a bar is shown: what a person sees should move.
const LOOK_AT_LOG: Duration = Duration::from_millis(100);

/// The columns that a name takes in the bar; its line is cut where the terminal ends.
const MOST_OF_A_TITLE: usize = 40;

/// One thing that is waited for.
enum Awaited {
    Drop(Name),
    Open(TaskId),
    Ended(Box<TaskView>),
}

pub(super) fn run(context: &Context, args: &WaitArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let spool = client.spool();
    let wake = Wake::for_waiting(spool)?;
    let mut awaited = chosen(spool, args)?;
    let interrupt = Interrupt::listen()?;
    if awaited.is_empty() {
        context.out.note("nothing to wait for");
    }
    let mut attendance = Attendance::new();
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let bar = Bar::new(context, awaited.len());
    loop {
        look(spool, &mut awaited)?;
        bar.show(spool, &awaited);
        let open = awaited
            .iter()
            .filter(|one| !matches!(one, Awaited::Ended(..)))
            .count();
        if open == 0 {
            break;
        }
        context.note_while_waiting(&client, attendance.look(&client)?);
        if args.need_watcher && attendance.is_hopeless() && !anything_runs(spool, &awaited)? {
            return Err(unattended(spool));
        }
        interrupt.check(&going_on(open, awaited.len()))?;
        let pause = if bar.is_shown() { LOOK_AT_LOG } else { LOOK };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            bar.clear();
            let told = format!("the wait ran out; {}", going_on(open, awaited.len()));
            return Err(CliError::new(ExitCode::WaitTimedOut, told));
        }
        wake.wait(Some(interrupt.as_fd()), left.unwrap_or(pause).min(pause));
        wake.take();
    }
    bar.clear();
    tell(context, spool, &awaited, args.propagate)
}

fn going_on(open: usize, all: usize) -> String {
    match (open, all) {
        (_, 1) => "the task goes on".to_owned(),
        (1, _) => format!("1 of {all} tasks goes on"),
        _ => format!("{open} of {all} tasks go on"),
    }
}

/// What the arguments name.
fn chosen(spool: &Spool, args: &WaitArgs) -> Result<Vec<Awaited>, CliError> {
    if args.all || args.session.is_some() {
        let mut open = Vec::new();
        for id in spool.open_ids()? {
            let Some(task) = spool.task(id)? else {
                continue;
            };
            // The hint of a task that has just ended may still be there.
            if task.has_result()? {
                continue;
            }
            let session = task.request().ok().and_then(|request| request.session_id);
            if args.session.is_none() || session == args.session {
                open.push(Awaited::Open(id));
            }
        }
        return Ok(open);
    }
    let mut awaited = Vec::new();
    for text in &args.tasks {
        awaited.push(match spool.resolve(text)? {
            Target::Task(id) => Awaited::Open(id),
            Target::Drop(name) => Awaited::Drop(name),
        });
    }
    Ok(awaited)
}

/// Whether one of them runs: its runner needs no watcher.
fn anything_runs(spool: &Spool, awaited: &[Awaited]) -> Result<bool, CliError> {
    for one in awaited {
        if let Awaited::Open(id) = one
            && let Some(task) = spool.task(*id)?
            && task.is_worked_on()?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unattended(spool: &Spool) -> CliError {
    let path = spool.path().display();
    let told = format!("no watcher runs on {path}, and none may be started from here");
    CliError::new(ExitCode::Missing, told)
        .hint(format!(
            "start one with `agentspool --spool {path} watch`; the tasks wait for it"
        ))
        .detail("watcher", false)
}

/// Moves on what has become of each.
fn look(spool: &Spool, awaited: &mut [Awaited]) -> Result<(), CliError> {
    for one in awaited {
        if let Awaited::Drop(name) = one {
            match spool.resolve(name.as_str())? {
                Target::Drop(_) => continue,
                Target::Task(id) => *one = Awaited::Open(id),
            }
        }
        if let Awaited::Open(id) = one {
            let id = *id;
            let Some(task) = spool.task(id)? else {
                let told = format!("the task {id} was removed while it was waited for");
                return Err(CliError::new(ExitCode::NotFound, told));
            };
            if task.has_result()? {
                *one = Awaited::Ended(Box::new(task.view()?));
            }
        }
    }
    Ok(())
}

/// What `wait --json` prints.
#[derive(Serialize)]
struct WaitJson {
    ok: bool,
    code: u8,
    tasks: Vec<TaskJson>,
}

fn tell(
    context: &Context,
    spool: &Spool,
    awaited: &[Awaited],
    propagate: bool,
) -> Result<ExitCode, CliError> {
    let views: Vec<&TaskView> = awaited
        .iter()
        .filter_map(|one| match one {
            Awaited::Ended(view) => Some(&**view),
            Awaited::Open(_) | Awaited::Drop(_) => None,
        })
        .collect();
    let code = code_of(&views, propagate);
    if context.out.is_json() {
        context.out.object(&WaitJson {
            ok: code == ExitCode::Done,
            code: code.number(),
            tasks: views.iter().map(|view| TaskJson::of(spool, view)).collect(),
        })?;
    } else if !context.out.is_quiet() {
        for view in views {
            context.out.line(list::row(context, view))?;
        }
    }
    Ok(code)
}

/// The first that applies of failed, timed out, cancelled.
fn code_of(views: &[&TaskView], propagate: bool) -> ExitCode {
    let ends: Vec<(ExitCode, Option<&ResultFile>)> = views
        .iter()
        .map(|view| match &view.result {
            Some(result) => (ExitCode::of_result(result), Some(result)),
            // A result stands and cannot be read.
            None => (ExitCode::General, None),
        })
        .collect();
    let order = [
        ExitCode::TaskFailed,
        ExitCode::TaskTimedOut,
        ExitCode::TaskCancelled,
        ExitCode::General,
    ];
    let worst = order
        .iter()
        .find_map(|code| ends.iter().find(|(end, _)| end == code));
    match worst {
        Some((_, Some(result))) if propagate => ExitCode::propagated(result),
        Some((code, _)) => *code,
        None => ExitCode::Done,
    }
}

/// Waits for a task that was just submitted: its stderr goes to stderr as it comes, its output to
/// stdout at the end.
pub(super) fn wait_and_show(
    context: &Context,
    client: &Client,
    accepted: Accepted,
) -> Result<ExitCode, CliError> {
    let spool = client.spool();
    let wake = Wake::for_waiting(spool)?;
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new(context, 1);
    let mut log = FollowedLog::default();
    let mut attendance = Attendance::after_submission(!context.out.is_quiet());
    let task = loop {
        if let Some(task) = accepted.task {
            break task;
        }
        // A refusal ends it.
        if let Target::Task(id) = spool.resolve(&accepted.id.to_string())?
            && let Some(task) = spool.task(id)?
        {
            break task;
        }
        context.note_while_waiting(client, attendance.look(client)?);
        interrupt.check(&format!("the drop {} goes on", accepted.id))?;
        wake.wait(Some(interrupt.as_fd()), LOOK_AT_LOG);
        wake.take();
    };
    let task = &task;
    let result = loop {
        let has_ended = task.has_result()?;
        bar.hide_while(|| log.copy(context, task, Stream::Stderr))?;
        if has_ended {
            break task.result()?;
        }
        check_still_there(spool, task.id())?;
        bar.show(spool, &[Awaited::Open(task.id())]);
        context.note_while_waiting(client, attendance.look(client)?);
        interrupt.check(&format!("the task {} goes on", task.id()))?;
        wake.wait(Some(interrupt.as_fd()), LOOK_AT_LOG);
        wake.take();
    };
    bar.clear();
    let Some(result) = result else {
        return Err(CliError::new(ExitCode::NotFound, "the task was removed"));
    };
    result::show_output(context, task, &result)?;
    Ok(ExitCode::of_result(&result))
}

/// The bar on a terminal; nothing anywhere else.
struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    fn new(context: &Context, tasks: usize) -> Bar {
        if !context.out.may_animate() || tasks == 0 {
            return Bar { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {wide_msg}")
        {
            bar.set_style(style);
        }
        Bar { bar: Some(bar) }
    }

    fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    fn show(&self, spool: &Spool, awaited: &[Awaited]) {
        let Some(bar) = &self.bar else { return };
        let mut done = 0.0;
        let mut message = String::new();
        for one in awaited {
            match one {
                Awaited::Ended(..) => done += 1.0,
                Awaited::Drop(name) => message = format!("{name}: not admitted yet"),
                Awaited::Open(id) => {
                    let view = spool.views(&[*id]).ok().and_then(|mut views| views.pop());
                    let Some(view) = view else { continue };
                    done += view.status.progress;
                    if view.status.status == Status::Running || message.is_empty() {
                        let said = view.status.message.as_deref().unwrap_or_default();
                        let said = escape_text(said);
                        let title = list::title(&view, Some(MOST_OF_A_TITLE));
                        message = format!("{title} {} {said}", view.status.status);
                    }
                }
            }
        }
        let share = done / awaited.len().max(1) as f64;
        bar.set_position((share * 1000.0) as u64);
        bar.set_message(message);
    }

    /// Takes the bar away while a log is written over its line.
    fn hide_while<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
