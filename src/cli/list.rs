//! `agentspool list`: a page of tasks, newest first.
//!
//! Costs one listing of names and one status file for each shown row. A filter by `pending` or
//! `running` reads only what the hints say is open.

use std::collections::BTreeMap;
use std::time::Duration;

use agentspool::spool::{Spool, TaskView};
use agentspool::task::{Status, TaskId};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::Context;
use super::args::ListArgs;
use super::exit_code::ExitCode;
use super::json::{self, TaskJson};
use super::label;
use super::report::CliError;

/// The documented width of the panel; a narrower terminal gets a narrower one.
const PANEL_WIDTH: usize = 79;

/// The tasks of a page, and how many there are in all where that is known.
struct Page {
    rows: Vec<TaskView>,
    total: Option<usize>,
}

/// What `list --json` prints behind `ok`.
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
    let spool = context.open_spool()?;
    let size = usize::try_from(args.page_size).unwrap_or(usize::MAX);
    let skip = usize::try_from(args.page - 1)
        .unwrap_or(usize::MAX)
        .saturating_mul(size);
    let page = match args.status {
        None => all(&spool, skip, size)?,
        Some(status) => filtered(&spool, status, skip, size)?,
    };
    let counts = if args.counts {
        Some(count(&spool)?)
    } else {
        None
    };
    let drops = match args.counts && spool.is_owner() {
        true => Some(spool.in_box()?.waiting()),
        false => None,
    };
    if context.out.is_json() {
        // Only here the results themselves are shown, so only here they are read.
        let ids: Vec<TaskId> = page.rows.iter().map(|view| view.status.task_id).collect();
        let views = spool.views(&ids)?;
        context.out.object(&json::Ok(ListJson {
            tasks: views
                .iter()
                .map(|view| TaskJson::of(&spool, view))
                .collect(),
            total: page.total,
            page: args.page,
            page_size: args.page_size,
            counts,
            drops,
        }))?;
    } else if context.out.is_quiet() {
        for view in &page.rows {
            context.out.line(view.status.task_id.to_string())?;
        }
    } else if context.out.is_fancy() {
        for line in panel(&page, context.out.width(), args.absolute) {
            context.out.line(line)?;
        }
        if let Some(counts) = counts {
            context.out.line(counts_line(&counts, drops))?;
        }
    } else {
        for view in &page.rows {
            context.out.line(row(context, view))?;
        }
        if let Some(counts) = counts {
            context.out.note(counts_line(&counts, drops));
        }
    }
    Ok(ExitCode::Done)
}

fn all(spool: &Spool, skip: usize, size: usize) -> Result<Page, CliError> {
    let ids = spool.task_ids()?;
    let shown: Vec<TaskId> = ids.iter().copied().skip(skip).take(size).collect();
    let mut rows = Vec::with_capacity(shown.len());
    for id in shown {
        rows.extend(spool.glance(id)?);
    }
    Ok(Page {
        rows,
        total: Some(ids.len()),
    })
}

fn filtered(spool: &Spool, status: Status, skip: usize, size: usize) -> Result<Page, CliError> {
    let is_open = !status.is_terminal();
    let ids = if is_open {
        let mut open = spool.open_ids()?;
        open.reverse();
        open
    } else {
        spool.task_ids()?
    };
    let mut rows = Vec::new();
    let mut found = 0;
    for id in ids {
        let Some(view) = spool.glance(id)? else {
            continue;
        };
        if view.status.status != status {
            continue;
        }
        if found >= skip && rows.len() < size {
            rows.push(view);
        }
        found += 1;
        // Of what is open all is counted; of what is finished only the page is read.
        if !is_open && rows.len() == size {
            break;
        }
    }
    Ok(Page {
        rows,
        total: is_open.then_some(found),
    })
}

fn count(spool: &Spool) -> Result<BTreeMap<&'static str, usize>, CliError> {
    let mut counts: BTreeMap<&'static str, usize> = Status::ALL
        .iter()
        .map(|status| (status.as_str(), 0))
        .collect();
    for id in spool.task_ids()? {
        if let Some(view) = spool.glance(id)? {
            *counts.entry(view.status.status.as_str()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// What waits in the drop box is named only where there is something.
fn counts_line(counts: &BTreeMap<&'static str, usize>, drops: Option<usize>) -> String {
    let waiting = drops.filter(|drops| *drops > 0);
    let waiting = waiting.map(|drops| format!("{drops} in the drop box"));
    let words = Status::ALL.iter().map(|status| {
        format!(
            "{} {status}",
            counts.get(status.as_str()).copied().unwrap_or(0)
        )
    });
    words.chain(waiting).collect::<Vec<_>>().join(", ")
}

/// What a task is called in lists: its name, its label, else its recipe.
pub(super) fn title(view: &TaskView, columns: Option<usize>) -> String {
    let recipe = || view.status.recipe.as_ref().map(ToString::to_string);
    let title = label::shown(view, columns).or_else(recipe);
    title.unwrap_or_else(|| "?".to_owned())
}

/// One tab-separated line: id, status, name, recipe, seconds. On a terminal the name stays in its line.
pub(super) fn row(context: &Context, view: &TaskView) -> String {
    /// Where the name begins at most: behind the id, a tab, the status and a tab.
    const NAME_BEGINS: usize = 48;
    let status = &view.status;
    let name = label::shown(view, label::room_behind(context, NAME_BEGINS));
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
    for view in &page.rows {
        lines.push(boxed(&panel_row(view, absolute, inner), inner));
    }
    if page.rows.is_empty() {
        lines.push(boxed("  No tasks", inner));
    }
    lines.push(format!("╰{}╯", "─".repeat(inner)));
    if let Some(total) = page.total
        && total > page.rows.len()
    {
        lines.push(format!(
            "{} of {total} tasks; see --page and --page-size",
            page.rows.len()
        ));
    }
    lines
}

/// A row of so many columns. The name is cut, and never what stands behind it.
fn panel_row(view: &TaskView, absolute: bool, columns: usize) -> String {
    let status = &view.status;
    let before = format!("  {} [{}] ", symbol(status.status), status.task_id.short());
    let mut behind = format!(" - {}", status.status);
    if absolute {
        let moment = status
            .completed_at
            .or(status.started_at)
            .unwrap_or(status.created_at);
        behind.push_str(&format!(" ({moment})"));
    } else if status.status == Status::Running
        && let Some(seconds) = status.duration_seconds
    {
        let whole = Duration::from_secs(seconds as u64);
        behind.push_str(&format!(" ({})", humantime::format_duration(whole)));
    }
    if let Some(condition) = status.condition {
        behind.push_str(&format!(" ({})", condition.as_str()));
    }
    let room = columns.saturating_sub(before.width() + behind.width());
    let title = label::cut(&title(view, Some(room)), room);
    format!("{before}{title}{behind}")
}

/// A line between the panel's borders; what is too wide is cut.
fn boxed(text: &str, inner: usize) -> String {
    let shown = label::cut(text, inner);
    let padding = inner.saturating_sub(shown.width());
    format!("│{shown}{}│", " ".repeat(padding))
}
