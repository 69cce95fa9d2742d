//! `agentspool wait`, and the display of `submit --wait` and `recipe run` while they wait and at the end.
//!
//! Not the waiting (`client/wait.rs`). Invariant: the exit code is that of the worst result.

use std::time::Duration;

use agentspool::client::{
    Accepted, Attendance, Awaited, Client, Followed, Stream, TaskView, WaitOptions, Waiting,
};
use agentspool::task::{ResultFile, Status, escape_text};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Context;
use super::args::WaitArgs;
use super::exit_code::ExitCode;
use super::follow::show_piece;
use super::interrupt::Interrupt;
use super::json::TaskJson;
use super::label;
use super::list;
use super::output;
use super::report::CliError;
use super::result;

/// How often the tasks are read while a bar is shown, so that it moves smoothly.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// The columns that a name takes in the bar, at most.
const MAX_TITLE: usize = 40;

/// The columns before the message, at most: the bar, the percentage, the time, and the spaces between them.
const MESSAGE_START: usize = 30 + 1 + 4 + 1 + 5 + 1;

pub(super) fn run(context: &Context, args: &WaitArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let what = args.select.selection(args.all)?;
    let options = WaitOptions {
        timeout: args.timeout,
        need_watcher: args.need_watcher,
    };
    let mut waiting = client.waiting(&what, &options)?;
    let interrupt = Interrupt::listen()?;
    if waiting.awaited().is_empty() {
        context.out.note("nothing to wait for");
    }
    let bar = Bar::new(context, waiting.awaited().len());
    let pause = match bar.is_shown() {
        true => BAR_INTERVAL,
        false => Waiting::LONGEST_PAUSE,
    };
    loop {
        let is_over = waiting.look()?;
        bar.show(&client, waiting.awaited());
        if is_over {
            break;
        }
        let notices = waiting.attend()?;
        bar.hide_while(|| context.note_while_waiting(&client, notices));
        if let Err(error) = waiting.pause(pause, &interrupt) {
            bar.clear();
            return Err(error.into());
        }
    }
    bar.clear();
    print_ended(context, &client, &waiting.into_ended(), args.propagate)
}

/// What `wait --json` prints.
#[derive(Serialize)]
struct WaitJson {
    ok: bool,
    code: u8,
    tasks: Vec<TaskJson>,
}

fn print_ended(
    context: &Context,
    client: &Client,
    views: &[TaskView],
    propagate: bool,
) -> Result<ExitCode, CliError> {
    let code = code_of(views, propagate);
    if context.out.is_json() {
        context.out.object(&WaitJson {
            ok: code == ExitCode::Done,
            code: code.number(),
            tasks: views
                .iter()
                .map(|view| TaskJson::of(client, view))
                .collect(),
        })?;
    } else if !context.out.is_quiet() {
        for view in views {
            context.out.line(list::row(context, view))?;
        }
    }
    Ok(code)
}

/// The first of these that applies: failed, timed out, cancelled.
fn code_of(views: &[TaskView], propagate: bool) -> ExitCode {
    let ends: Vec<(ExitCode, Option<&ResultFile>)> = views
        .iter()
        .map(|view| match &view.result {
            Some(result) => (ExitCode::of_result(result), Some(result)),
            // There is a result, but it cannot be read.
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

/// Waits for a task that was just submitted. Its stderr is copied to stderr as it is written, its output to
/// stdout at the end.
pub(super) fn wait_and_show(
    context: &Context,
    client: &Client,
    accepted: Accepted,
) -> Result<ExitCode, CliError> {
    let mut follow = client.follow_accepted(accepted, &[Stream::Stderr])?;
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new(context, 1);
    let mut attendance = Attendance::after_submission(!context.out.is_quiet());
    while let Some(event) = follow.next(&interrupt)? {
        match event {
            Followed::Begun => {}
            Followed::Piece(stream, piece) => {
                bar.hide_while(|| show_piece(context, piece, stream))?;
            }
            Followed::Looked => {
                let open = Vec::from_iter(follow.task_id());
                if let Some(id) = open.first() {
                    bar.show(client, &[Awaited::Open(*id)]);
                }
                let notices = attendance.look(client, &open)?;
                bar.hide_while(|| context.note_while_waiting(client, notices));
            }
        }
    }
    let result = follow.into_result()?;
    bar.clear();
    result::show_output(context, &result)?;
    Ok(ExitCode::of_result(&result.result))
}

/// A text without the characters that join emoji. Terminals differ in how they join emoji, so the width is
/// unknown.
fn without_joins(text: &str) -> String {
    let joins = |c: char| matches!(c, '\u{200d}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    text.replace(joins, "")
}

/// The progress bar on a terminal; nothing elsewhere.
///
/// The message is cut by its columns: a line that is wider than the terminal would be printed again on new
/// lines at every update.
struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    fn new(context: &Context, tasks: usize) -> Bar {
        if !context.out.may_animate() || tasks == 0 {
            return Bar { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {msg}") {
            bar.set_style(style);
        }
        Bar { bar: Some(bar) }
    }

    fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    fn show(&self, client: &Client, awaited: &[Awaited]) {
        let Some(bar) = &self.bar else { return };
        // At every update, since the width may change. The last column stays free: some terminals wrap there.
        let room = output::error_width().saturating_sub(MESSAGE_START + 1);
        let mut done = 0.0;
        let mut message = String::new();
        for one in awaited {
            match one {
                Awaited::Ended(..) => done += 1.0,
                Awaited::Drop(name) => message = format!("{name}: not admitted yet"),
                Awaited::Open(id) => {
                    let view = client.view(*id).ok().flatten();
                    let Some(view) = view else { continue };
                    done += view.status.progress;
                    if view.status.status == Status::Running || message.is_empty() {
                        let said = view.status.message.as_deref().unwrap_or_default();
                        let said = escape_text(said);
                        let title = list::title(&view, Some(MAX_TITLE));
                        message = format!("{title} {} {said}", view.status.status);
                    }
                }
            }
        }
        let share = done / awaited.len().max(1) as f64;
        bar.set_position((share * 1000.0) as u64);
        bar.set_message(label::cut(&without_joins(&message), room));
    }

    /// Hides the bar while a log is written on its line.
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
