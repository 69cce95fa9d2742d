//! The words for what there is to know besides an answer, on stderr.
//!
//! Not errors (`report.rs`). Invariant: every kind of notice has words, by a match without a catch-all.

use agentspool::client::{Client, Notice};

use super::Context;

impl Context {
    /// Says each; nothing with `--quiet`.
    pub fn note_all(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            self.out.note(words(client, &notice));
        }
    }

    /// The same while somebody waits. That no watcher runs is said with `--quiet` as well: else it would look as if
    /// the task took long.
    pub fn note_while_waiting(&self, client: &Client, notices: Vec<Notice>) {
        for notice in notices {
            let text = words(client, &notice);
            match notice {
                Notice::NoWatcher { .. } | Notice::WatcherUnseen => self.out.warn(text),
                Notice::NameNotLinked(_) | Notice::Paused(_) | Notice::NotStarted(_) => {
                    self.out.note(text);
                }
            }
        }
    }
}

fn words(client: &Client, notice: &Notice) -> String {
    let path = client.path().display();
    match notice {
        Notice::NameNotLinked(error) => format!("note: {error}"),
        Notice::NotStarted(error) => format!("note: {error}"),
        Notice::Paused(why) => {
            format!("note: {why}: no task starts until `agentspool --spool {path} resume`")
        }
        Notice::WatcherUnseen => format!(
            "note: whether a watcher is running on {path} cannot be seen, because the system's table of locks is very long; ask the spool's owner"
        ),
        Notice::NoWatcher { is_owner } => {
            let what_to_do = if *is_owner {
                format!("start one with `agentspool --spool {path} watch`")
            } else {
                "ask the spool's owner to start one".to_owned()
            };
            format!(
                "note: no watcher is running on {path}, and nothing is done until one runs; {what_to_do}"
            )
        }
    }
}
