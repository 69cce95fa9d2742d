//! The disk: the only module that opens, writes or removes anything in a spool.
//!
//! These files keep all guarantees of the protocol, so a review needs to read only them. Not here: which
//! process runs what and when (`watcher/`, `runner/`, `sweeper/`). In reading order: `layout` (names and
//! modes) · `open` (how a spool is opened, created and identified) · `disk` (folders, files, locks) · `tasks`
//! (publish, read, lock, attempts, results, logs) · `index` (index entries, names, sessions) · `limits`
//! (slots) · `waiting` (what a task waits for) · `events` (what happened) · `inbox` (the drop box) · `trash`
//! (what is removed) · `watchers` (running watchers) · `new_recipe` (creating a recipe) · `wake` (notice of
//! changes) · `called` and `resolve` (how a person refers to a task) · `health` (checks) · `convert` (from an
//! earlier version).
//!
//! The lock rule: **a `flock` is released by closing the file, never by unlocking it**, and a `lock` file is
//! removed only together with its folder.

mod called;
mod convert;
mod disk;
mod events;
mod events_cap;
mod health;
mod inbox;
mod index;
mod layout;
mod limits;
mod new_recipe;
mod open;
mod resolve;
mod tasks;
mod trash;
mod waiting;
mod wake;
mod watchers;

pub use called::is_label;
pub use disk::{Guard, IoError};
pub use events::{Cursor, EventRead, EventReader};
pub use health::FileSystem;
pub use inbox::{
    Admission, ControlFile, Controlled, DropFile, DropRefusal, Fingerprint, InBox, Pickup, Reason,
    Rules,
};
pub use index::{OpenEntry, SessionOrder, SessionState};
pub use limits::Slot;
pub use new_recipe::RecipeFile;
pub use open::{Breach, Exposed, OpenError, PathLeads, Pause, Spool, group_id};
pub use resolve::{ResolveError, Target};
pub use tasks::{
    Attempt, Claim, Files, LogCuts, LogReader, Piece, PreallocatedResult, ProgressReader,
    ReadError, Record, RunFile, Stream, Submission, SubmitError, TaskDir, TaskLock, TaskView,
    WriteAlarm,
};
pub use trash::{Candidate, Cleared, Clearing, FinishedTask, SweepClock};
pub use wake::{Seen, Wake};
pub use watchers::{WatcherFile, WatcherLock};
