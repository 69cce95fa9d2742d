//! The text about how long a task may run, and how long finished tasks are kept.
//!
//! Not the sweeping (`sweeper/`). Invariant: each time is printed with the setting or flag that changes it.

use std::time::Duration;

use agentspool::client::{Client, Recipe};
use agentspool::config::Retention;
use agentspool::task::format_duration;

/// How long finished tasks are kept.
pub(super) fn words(kept: &Retention) -> String {
    let mut words = match kept.cancelled_sec {
        Some(cancelled) => format!(
            "completed tasks are kept for {} (`cleanup_delay_sec`), cancelled ones for {} (`cancelled_cleanup_delay_sec`)",
            shown(kept.completed_sec),
            shown(cancelled),
        ),
        None => format!(
            "completed and cancelled tasks are kept for {} (`cleanup_delay_sec`)",
            shown(kept.completed_sec)
        ),
    };
    let failed = shown(kept.failed_sec);
    words.push_str(&format!(
        ", failed ones for {failed} (`failed_cleanup_delay_sec`)"
    ));
    if kept.is_bounded {
        words.push_str(
            "; their number and size are limited (`max_finished_tasks`, `max_finished_bytes`)",
        );
    }
    words
}

/// The note that is printed after a submission.
pub(super) fn promise(client: &Client, recipe: &Recipe, asked: Option<Duration>) -> String {
    let kept = words(&client.retention());
    match asked {
        Some(_) => format!("note: {kept}"),
        None => format!(
            "note: the task is stopped after {} (change this with --timeout); {kept}",
            format_duration(client.timeout_of(recipe))
        ),
    }
}

fn shown(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    format_duration(time)
}
