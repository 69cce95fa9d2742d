//! Why a task that is pending does not run now, in words that say what to do.
//!
//! Not the checks themselves (`ready/`). Invariant: each reason has one word for programs and one sentence for
//! people.

use serde::Serialize;

use super::{Condition, Name, TaskId};

/// One thing that a pending task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody starts tasks.
    NoWatcher,
    /// Somebody paused the spool.
    Paused,
    /// The spool is a copy of another one, and was not resumed.
    Copy,
    /// What the status says of the task: somebody must act, or another attempt follows.
    Condition(Condition),
    /// An earlier task of its session is not over.
    Session {
        /// The session.
        session: Name,
        /// The first of the earlier tasks.
        earlier: TaskId,
    },
    /// As many tasks of its recipe run as may.
    RecipeSlots {
        /// The recipe.
        recipe: Name,
        /// How many may.
        limit: u32,
    },
    /// As many tasks run as may.
    Slots {
        /// How many may.
        limit: u32,
    },
    /// This user may not see what it waits for, if for anything.
    Unseen,
    /// Nothing holds it back: a runner takes it next, or has just taken it.
    Soon,
}

impl Reason {
    /// The word for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::NoWatcher => "watcher",
            Reason::Paused | Reason::Copy => "paused",
            Reason::Condition(condition) => condition.as_str(),
            Reason::Session { .. } => "session",
            Reason::RecipeSlots { .. } | Reason::Slots { .. } => "slot",
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
                "the spool is a copy of another one, where the same tasks may run: `agentspool resume` lets them start here",
            ),
            Reason::Condition(Condition::Retrying) => {
                f.write_str("an attempt was lost, and another one follows")
            }
            Reason::Condition(Condition::Interrupted) => {
                f.write_str("its runner died: the watcher finds out what became of the attempt")
            }
            Reason::Condition(Condition::Stuck) => f.write_str(
                "something of an attempt cannot be ended: `agentspool doctor` and the watcher's log name it",
            ),
            Reason::Condition(Condition::Damaged) => {
                f.write_str("its files cannot be read: `agentspool doctor` says what is wrong")
            }
            Reason::Condition(Condition::Newer) => {
                f.write_str("a later version of agentspool wrote it: use that version")
            }
            Reason::Session { session, earlier } => {
                write!(f, "waits for {earlier}, an earlier task of the session {session}")
            }
            Reason::RecipeSlots { recipe, limit } => write!(
                f,
                "waits for another task of the recipe {recipe}: at most {limit} of them run at once (`max_concurrent` in its recipe.toml)"
            ),
            Reason::Slots { limit } => write!(
                f,
                "waits for another task: at most {limit} run at once (`agentspool config set max_concurrent N`)"
            ),
            Reason::Unseen => f.write_str(
                "what it waits for is not known: only the spool's owner may see that",
            ),
            Reason::Soon => f.write_str("nothing holds it back: it starts in a moment"),
        }
    }
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
            Reason::NoWatcher
            | Reason::Paused
            | Reason::Copy
            | Reason::Condition(_)
            | Reason::Unseen
            | Reason::Soon => {}
        }
        map.end()
    }
}
