//! The words for what there is to know besides an answer, on stderr.
//!
//! Not errors (`report.rs`). Invariant: every kind of notice has words, by a match without a catch-all.

use std::path::Path;

use agentspool::client::{Client, Notice};
use agentspool::task::quote_path;

use super::Context;
use super::env::variable_of;

impl Context {
    /// Says each; nothing with `--quiet`.
    pub fn note_all(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            self.out.note(words(client, &notice));
        }
    }

    /// The same while somebody waits. What may keep the task from ever ending is said with `--quiet` as well: else it
    /// would seem that the task takes long.
    pub fn note_while_waiting(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            let text = words(client, &notice);
            match notice {
                Notice::NoWatcher { .. } | Notice::WatcherUnseen | Notice::WaitsInTask { .. } => {
                    self.out.warn(text)
                }
                Notice::NameNotLinked(_)
                | Notice::Paused(_)
                | Notice::SettingOfWatcher { .. }
                | Notice::Recipe(_)
                | Notice::EndsWith(_)
                | Notice::NotStarted(_) => self.out.note(text),
            }
        }
    }
}

fn words(client: &Client, notice: &Notice) -> String {
    let path = client.path().display();
    let quoted = quote_path(client.path());
    match notice {
        Notice::NameNotLinked(error) => format!("note: {error}"),
        Notice::NotStarted(error) => format!("note: {error}"),
        Notice::EndsWith(service) => format!(
            "note: the watcher was started inside {service}, and ends with it together with its tasks: have one of its own (`agentspool --spool {quoted} install --user`), or let this user linger (`loginctl enable-linger`)"
        ),
        Notice::Paused(why) => {
            format!("note: {why}: no task starts until `agentspool --spool {quoted} resume`")
        }
        Notice::WatcherUnseen => format!(
            "note: whether a watcher is running on {path} cannot be seen, because the system's table of locks is very long; ask the spool's owner"
        ),
        Notice::SettingOfWatcher {
            key,
            is_flag,
            value,
        } => {
            let given = match is_flag {
                true => format!("--set {key}"),
                false => variable_of(key),
            };
            format!(
                "note: {given} changes nothing here: the watcher runs the tasks, by spool.json and its own flags and variables; use `agentspool --spool {quoted} config set {key} '{value}'`"
            )
        }
        Notice::Recipe(advice) => format!("note: {advice}"),
        Notice::WaitsInTask {
            own,
            awaited,
            reason,
        } => match reason {
            Some(reason) => format!(
                "note: the task {own} waits here for {awaited}, and keeps its own slot meanwhile, so both may wait for ever: {awaited} {reason}"
            ),
            None => format!("note: the task {own} waits here for itself, so it never ends"),
        },
        Notice::NoWatcher { is_owner } => {
            let what_to_do = how_to_start(client.path(), *is_owner);
            format!(
                "note: no watcher is running on {path}, and nothing is done until one runs; {what_to_do}"
            )
        }
    }
}

/// How a watcher comes to run, for a user who may start one and for one who may not.
pub(super) fn how_to_start(spool: &Path, is_owner: bool) -> String {
    match is_owner {
        true => format!(
            "start one with `agentspool --spool {} watch`",
            quote_path(spool)
        ),
        false => "ask the spool's owner to start one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_start_a_watcher_is_not_asked_to() {
        let spool = Path::new("/s");
        assert!(how_to_start(spool, true).contains("`agentspool --spool /s watch`"));
        assert!(!how_to_start(spool, false).contains("watch`"));
    }
}
