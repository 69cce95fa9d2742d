//! Why a pending task does not run now, with a message that says what to do.
//!
//! Not the checks themselves (`ready/`). Invariant: each reason has one code for programs and one sentence
//! for people.

use serde::Serialize;

use super::{Condition, Name, TaskId};

/// One reason why a pending task does not run.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// No watcher is running.
    NoWatcher,
    /// The spool is paused.
    Paused,
    /// The spool is a copy of another spool, and was not resumed.
    Copy,
    /// The condition in the task's status: a person must act, or another attempt follows.
    Condition(Condition),
    /// An earlier task of its session is not finished.
    Session {
        /// The session.
        session: Name,
        /// The first of the earlier tasks.
        earlier: TaskId,
    },
    /// The limit of running tasks of its recipe is reached.
    RecipeSlots {
        /// The recipe.
        recipe: Name,
        /// How many tasks may run at once.
        limit: u32,
    },
    /// The limit of running tasks of the spool is reached.
    Slots {
        /// How many tasks may run at once.
        limit: u32,
    },
    /// It is a drop that the watcher has not admitted yet.
    Admission {
        /// After this time in seconds, an incomplete or unreadable drop is refused.
        patience_sec: f64,
    },
    /// systemd starts no unit for the task.
    Launcher {
        /// What systemd answered.
        why: String,
    },
    /// This user may not read what would show the reason.
    Unseen,
    /// Nothing blocks the task: a runner takes it next, or has just taken it.
    Soon,
}

impl Reason {
    /// The code for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::NoWatcher => "watcher",
            Reason::Paused | Reason::Copy => "paused",
            Reason::Condition(condition) => condition.as_str(),
            Reason::Session { .. } => "session",
            Reason::RecipeSlots { .. } | Reason::Slots { .. } => "slot",
            Reason::Admission { .. } => "admission",
            Reason::Launcher { .. } => "launcher",
            Reason::Unseen => "unseen",
            Reason::Soon => "soon",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::NoWatcher => f.write_str("no watcher is running: the spool's owner starts one with `agentspool watch`"),
            Reason::Paused => {
                f.write_str("the spool is paused: `agentspool resume` lets tasks start again")
            }
            Reason::Copy => f.write_str(
                "the spool is a copy of another spool, where the same tasks may run: `agentspool resume` lets them start here",
            ),
            Reason::Condition(Condition::Retrying) => {
                f.write_str("an attempt was lost, and another one follows")
            }
            Reason::Condition(Condition::Interrupted) => {
                f.write_str("its runner was killed: the watcher finds out how the attempt ended")
            }
            Reason::Condition(Condition::Stuck) => f.write_str(
                "a process or unit of an attempt cannot be ended: `agentspool doctor` and the watcher's log name it",
            ),
            Reason::Condition(Condition::Damaged) => {
                f.write_str("its files cannot be read: `agentspool doctor` shows what is wrong")
            }
            Reason::Condition(Condition::Newer) => {
                f.write_str("a later version of agentspool wrote it: use that version")
            }
            Reason::Session { session, earlier } => {
                write!(f, "waits for {earlier}, an earlier task of the session {session}")
            }
            Reason::RecipeSlots { recipe, limit } => write!(
                f,
                "waits for another task of the recipe {recipe}: at most {limit} of them {} at once (`max_concurrent` in its recipe.toml)",
                run(*limit)
            ),
            Reason::Slots { limit } => write!(
                f,
                "waits for another task: at most {limit} {} at once (`agentspool config set max_concurrent N`)",
                run(*limit)
            ),
            Reason::Admission { patience_sec } => write!(
                f,
                "the watcher has not admitted the file yet; a file that is incomplete or cannot be read is refused after {patience_sec} seconds (`drop_patience_sec`)"
            ),
            Reason::Launcher { why } => write!(
                f,
                "systemd starts no unit for the task ({}): `agentspool doctor` shows a fix",
                super::escape_text(why)
            ),
            Reason::Unseen => f.write_str(
                "the reason is not known: only the spool's owner may see it",
            ),
            Reason::Soon => f.write_str("nothing blocks the task: it starts in a moment"),
        }
    }
}

fn run(tasks: u32) -> &'static str {
    if tasks == 1 { "runs" } else { "run" }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("reason", self.as_str())?;
        map.serialize_entry("message", &self.to_string())?;
        match self {
            Reason::Session { session, earlier } => {
                map.serialize_entry("session_id", session)?;
                map.serialize_entry("task_id", earlier)?;
            }
            Reason::RecipeSlots { recipe, limit } => {
                map.serialize_entry("recipe", recipe)?;
                map.serialize_entry("limit", limit)?;
            }
            Reason::Slots { limit } => map.serialize_entry("limit", limit)?,
            Reason::Admission { patience_sec } => {
                map.serialize_entry("patience_sec", patience_sec)?;
            }
            Reason::NoWatcher
            | Reason::Paused
            | Reason::Copy
            | Reason::Condition(_)
            | Reason::Launcher { .. }
            | Reason::Unseen
            | Reason::Soon => {}
        }
        map.end()
    }
}
