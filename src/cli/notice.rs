//! The texts of notes about an answer, printed to stderr.
//!
//! Not errors (`report.rs`). Invariant: every kind of notice has a text, by a match without a catch-all.

use std::path::Path;

use agentspool::client::{Client, Notice};
use agentspool::task::quote_path;

use super::Context;
use super::env::variable_of;

impl Context {
    /// Prints each notice; nothing with `--quiet`.
    pub fn note_all(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            self.out.note(text_of(client, &notice));
        }
    }

    /// Prints each notice while the command waits for a task. A notice that the task may never end is printed
    /// also with `--quiet`: without it, the task would only seem slow.
    pub fn note_while_waiting(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            let text = text_of(client, &notice);
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

fn text_of(client: &Client, notice: &Notice) -> String {
    let path = client.path().display();
    let quoted = quote_path(client.path());
    match notice {
        Notice::NameNotLinked(error) => format!("note: {error}"),
        Notice::NotStarted(error) => format!("note: {error}"),
        Notice::EndsWith(service) => format!(
            "note: the watcher was started inside {service}, and stops with it, together with its tasks; install a service for it (`agentspool --spool {quoted} install --user`), or enable lingering for this user (`loginctl enable-linger`)"
        ),
        Notice::Paused(why) => {
            format!("note: {why}: no task starts until `agentspool --spool {quoted} resume`")
        }
        Notice::WatcherUnseen => format!(
            "note: failed to check whether a watcher is running on {path}: the system's table of locks is too long; ask the spool's owner"
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
                "note: {given} has no effect here: the watcher runs the tasks, with spool.json and its own flags and variables; use `agentspool --spool {quoted} config set {key} '{value}'`"
            )
        }
        Notice::Recipe(advice) => format!("note: {advice}"),
        Notice::WaitsInTask {
            own,
            awaited,
            reason,
        } => match reason {
            Some(reason) => format!(
                "note: the task {own} waits for {awaited} and keeps its own slot while it waits, so both may wait forever: {awaited} {reason}"
            ),
            None => format!("note: the task {own} waits for itself, so it never ends"),
        },
        Notice::NoWatcher { is_owner } => {
            let what_to_do = how_to_start(client.path(), *is_owner);
            format!(
                "note: no watcher is running on {path}, and no task starts until one is running; {what_to_do}"
            )
        }
    }
}

/// How to get a watcher running, for the spool's owner and for other users.
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
    fn only_the_owner_is_advised_to_start_a_watcher() {
        let spool = Path::new("/s");
        assert!(how_to_start(spool, true).contains("`agentspool --spool /s watch`"));
        assert!(!how_to_start(spool, false).contains("watch`"));
    }
}
