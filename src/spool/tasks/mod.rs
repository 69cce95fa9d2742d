//! The tasks in a spool: how a task is created, read, locked, run and finished on the disk.
//!
//! In reading order: `publish` (accepts a task) · `new_marker` (a task that was not accepted) · `store` (a task's folder and its files) · `view` (the state
//! of a task) · `lock` (which process works on it) · `status` · `start_record`, `attempt` and `run_record`
//! (one attempt) · `result` (the step that finishes a task) · `foreign` (a result that a recipe put there) ·
//! `output` · `logs`, `log_cut` and `written_over` · `progress_file` · `write_alarm`.
//! Not how a task is run (`runner/`). Invariant: only the holder of a task's lock writes its status, result
//! and attempts.

mod attempt;
mod foreign;
mod lock;
mod log_cut;
mod logs;
mod new_marker;
mod output;
mod progress_file;
mod publish;
mod result;
mod run_record;
mod start_record;
mod status;
mod store;
mod view;
mod write_alarm;
mod written_over;

pub use attempt::{Attempt, Files, Stream};
pub use lock::{Claim, TaskLock};
pub use log_cut::LogCuts;
pub use logs::{LogReader, Piece};
pub use progress_file::ProgressReader;
pub use publish::{Submission, SubmitError};
pub use result::PreallocatedResult;
pub use run_record::{Record, RunFile};
pub(in crate::spool) use status::pending_status;
pub(in crate::spool) use store::ids_in;
pub use store::{ReadError, TaskDir};
pub use view::TaskView;
pub(in crate::spool) use view::shown;
pub use write_alarm::WriteAlarm;
