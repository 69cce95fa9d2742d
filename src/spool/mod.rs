//! The disk: the only room that opens, writes or removes anything in a spool.
//!
//! Everything the protocol promises is kept in these files, so that one room is enough to review
//! it. Not here: who runs what when (`watcher/`, `runner/`, `sweeper/`). In reading order:
//! `layout` and `settings_file` (what lies where, and how it is set) · `identity` and `pause` (which spool it is, and whether it starts anything) · `disk` (folders, files, locks) · `publish` (submit) · `store` (read) ·
//! `claim` (locks) · `attempt` and `output` (one execution's files, and what it gave) · `foreign` (what a recipe put in the place of a result) · `view` (what is true of a task) ·
//! `queue` (hints and names) · `box_listing`, `incoming`, `box_entry`, `drop_read`, `drop_claim`, `refusing` and `rejected` (the drop box) · `submit_drop` and
//! `control` (what users of a group put there) · `unnamed` (what they left half-way) · `watchers` (who lives) ·
//! `init` and `modes` (how one is made, and who may do what in it) · `convert` (from an earlier version) · `removed` (ids that are not to come again) ·
//! `clearing` (finished tasks go) · `trash` (the rest goes) · `logs` and `log_cut` (what it printed, kept under a cap) ·
//! `progress_file` (reports while it runs) · `wake` (being told) · `write_alarm` (waking at a write) · `resolve` (what a person may call a task) · `health` (can it work at all).
//!
//! The lock rule: **a `flock` is released by closing the file, never by unlocking it**, and a
//! `lock` file is never removed but together with its folder.

mod above;
mod attempt;
mod box_entry;
mod box_listing;
mod claim;
mod clearing;
mod control;
mod convert;
mod disk;
mod drop_claim;
mod drop_read;
mod events;
mod foreign;
mod health;
mod identity;
mod incoming;
mod init;
mod layout;
mod log_cut;
mod logs;
mod modes;
mod output;
mod pause;
mod progress_file;
mod publish;
mod queue;
mod refusing;
mod rejected;
mod removed;
mod resolve;
mod settings_file;
mod store;
mod submit_drop;
mod trash;
mod unnamed;
mod view;
mod waiting;
mod wake;
mod watchers;
mod write_alarm;

pub use above::Exposed;
pub use attempt::{Attempt, Files, ReservedResult, RunFile, StartRecord};
pub use box_listing::InBox;
pub use claim::{Claim, SessionState, SessionTurn, Slot, TaskLock};
pub use clearing::{Candidate, Cleared, Clearing, FinishedTask, Removal};
pub use control::{ControlFile, Controlled};
pub use disk::{Guard, IoError};
pub use drop_read::{DropRefusal, Fingerprint, Pickup};
pub use events::{Cursor, EventRead, EventReader, InvalidCursor};
pub use health::FileSystem;
pub use identity::PathLeads;
pub use incoming::{Admission, DropFile, Rules};
pub use layout::{OpenError, Spool, group_id};
pub use log_cut::LogCuts;
pub use logs::{LogReader, Piece, Stream};
pub use modes::Strayed;
pub use output::Output;
pub use pause::Pause;
pub use progress_file::ProgressReader;
pub use publish::{Submission, SubmitError};
pub use queue::OpenHint;
pub use rejected::Reason;
pub use resolve::{ResolveError, Target};
pub use store::{ReadError, TaskDir};
pub use submit_drop::{Dropped, DroppedRequest};
pub use trash::SweepClock;
pub use view::TaskView;
pub use wake::{Seen, Wake};
pub use watchers::{StartLock, WatcherFile, WatcherSeat};
pub use write_alarm::WriteAlarm;
