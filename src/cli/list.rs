//! `agentspool list`: a page of tasks, newest first, as a panel, as lines, or as JSON.
//!
//! Not the selection of tasks (`client/list.rs`). Invariant: a row takes one line, whatever the task's name
//! is.

use std::collections::BTreeMap;
use std::time::Duration;

use agentspool::client::{Counts, ListOptions, Page, TaskView};
use agentspool::task::{Status, format_duration};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::Context;
use super::args::ListArgs;
use super::exit_code::ExitCode;
use super::json::{self, TaskJson};
use super::label;
use super::report::CliError;

/// The documented width of the panel; on a narrower terminal the panel is narrower.
const PANEL_WIDTH: usize = 79;

/// Tasks on a page, if no number is given.
const PAGE_SIZE: u64 = 20;

/// What `list --json` prints after `ok`.
#[derive(Serialize)]
struct ListJson {
    tasks: Vec<TaskJson>,
    total: Option<usize>,
    page: u64,
    page_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<BTreeMap<&'static str, usize>>,
    /// Files in the drop box; only its owner may list it.
    #[serde(skip_serializing_if = "Option::is_none")]
    drops: Option<usize>,
}

pub(super) fn run(context: &Context, args: &ListArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let is_paged = args.page.is_some() || args.page_size.is_some();
    let is_shown_to_a_person = context.out.is_fancy() && !context.out.is_quiet();
    let (number, size) = (args.page.unwrap_or(1), args.page_size.unwrap_or(PAGE_SIZE));
    // A script that reads lines expects all of them.
    let limit = match is_paged || context.out.is_json() || is_shown_to_a_person {
        true => usize::try_from(size).unwrap_or(usize::MAX),
        false => usize::MAX,
    };
    let skip = usize::try_from(number - 1)
        .unwrap_or(usize::MAX)
        .saturating_mul(limit);
    let page = client.list(&ListOptions {
        filter: args.filter.filter(),
        skip,
        limit,
        // Only JSON shows the results themselves.
        with_results: context.out.is_json(),
    })?;
    let counts = match args.counts {
        true => Some(client.counts()?),
        false => None,
    };
    if context.out.is_json() {
        let rows = page.tasks.iter();
        let by_status = |counts: &Counts| {
            let counts = counts.tasks.iter();
            counts
                .map(|(status, count)| (status.as_str(), *count))
                .collect()
        };
        context.out.object(&json::Ok(ListJson {
            tasks: rows.map(|view| TaskJson::of(&client, view)).collect(),
            total: page.total,
            page: number,
            page_size: size,
            counts: counts.as_ref().map(by_status),
            drops: counts.and_then(|counts| counts.drops),
        }))?;
    } else if context.out.is_quiet() {
        for view in &page.tasks {
            context.out.line(view.status.task_id.to_string())?;
        }
    } else if context.out.is_fancy() {
        for line in panel(&page, context.out.width(), args.absolute) {
            context.out.line(line)?;
        }
        if let Some(counts) = counts {
            context.out.line(counts_line(&counts))?;
        }
    } else {
        for view in &page.tasks {
            context.out.line(row(context, view))?;
        }
        if let Some(counts) = counts {
            context.out.note(counts_line(&counts));
        }
    }
    Ok(ExitCode::Done)
}

/// The counts in one line. The drop box is named only if files wait there.
fn counts_line(counts: &Counts) -> String {
    let waiting = counts.drops.filter(|drops| *drops > 0);
    let waiting = waiting.map(|drops| format!("{drops} in the drop box"));
    let words = counts.tasks.iter();
    let words = words.map(|(status, count)| format!("{count} {status}"));
    words.chain(waiting).collect::<Vec<_>>().join(", ")
}

/// A task's title in lists: its name, else its label, else its recipe.
pub(super) fn title(view: &TaskView, columns: Option<usize>) -> String {
    let recipe = || view.status.recipe.as_ref().map(ToString::to_string);
    let title = label::shown(view, columns).or_else(recipe);
    title.unwrap_or_else(|| "?".to_owned())
}

/// One tab-separated line: id, status, name, recipe, seconds. On a terminal a long name is cut to fit the
/// line.
pub(super) fn row(context: &Context, view: &TaskView) -> String {
    /// The last column where the name may start: after the id, a tab, the status and a tab.
    const NAME_START: usize = 48;
    let status = &view.status;
    let name = label::shown(view, label::room_after(context, NAME_START));
    let recipe = status.recipe.as_ref().map(|recipe| recipe.as_str());
    let seconds = status
        .duration_seconds
        .map(|seconds| format!("{seconds:.1}"));
    format!(
        "{}\t{}\t{}\t{}\t{}",
        status.task_id,
        status.status,
        name.as_deref().unwrap_or("-"),
        recipe.unwrap_or("-"),
        seconds.as_deref().unwrap_or("-"),
    )
}

fn symbol(status: Status) -> &'static str {
    match status {
        Status::Pending => "⏳",
        Status::Running => "🔄",
        Status::Completed => "✅",
        Status::Failed => "❌",
        Status::Cancelled => "🚫",
    }
}

fn panel(page: &Page, terminal: usize, absolute: bool) -> Vec<String> {
    let inner = PANEL_WIDTH.min(terminal.max(40)) - 2;
    let title = "─ Background Tasks ";
    let mut lines = vec![format!("╭{title}{}╮", "─".repeat(inner - title.width()))];
    for view in &page.tasks {
        lines.push(boxed(&panel_row(view, absolute, inner), inner));
    }
    if page.tasks.is_empty() {
        lines.push(boxed("  No tasks", inner));
    }
    lines.push(format!("╰{}╯", "─".repeat(inner)));
    if let Some(total) = page.total
        && total > page.tasks.len()
    {
        lines.push(format!(
            "{} of {total} tasks; see --page and --page-size",
            page.tasks.len()
        ));
    }
    lines
}

/// A row of this many columns. Only the name is cut, never the text after it.
fn panel_row(view: &TaskView, absolute: bool, columns: usize) -> String {
    let status = &view.status;
    let before = format!("  {} [{}] ", symbol(status.status), status.task_id.short());
    let mut after = format!(" - {}", status.status);
    if absolute {
        let moment = status
            .completed_at
            .or(status.started_at)
            .unwrap_or(status.created_at);
        after.push_str(&format!(" ({moment})"));
    } else if status.status == Status::Running
        && let Some(seconds) = status.duration_seconds
    {
        let whole = Duration::from_secs(seconds as u64);
        after.push_str(&format!(" ({})", format_duration(whole)));
    }
    if let Some(condition) = status.condition {
        after.push_str(&format!(" ({})", condition.as_str()));
    }
    let room = columns.saturating_sub(before.width() + after.width());
    let title = label::cut(&title(view, Some(room)), room);
    format!("{before}{title}{after}")
}

/// A line between the panel's borders, cut if it is too wide.
fn boxed(text: &str, inner: usize) -> String {
    let shown = label::cut(text, inner);
    let padding = inner.saturating_sub(shown.width());
    format!("│{shown}{}│", " ".repeat(padding))
}
