//! The data types of a task: its name, its request, its status and its result.
//!
//! Not the spool and not the output for scripts (`cli/json.rs`): this module defines the stored form of the
//! JSON files, which may change more often than the output. Invariant: only data and pure functions. Nothing
//! here opens a file, reads a clock or starts a process.

mod answer;
mod characters;
mod control;
mod duration;
mod event;
mod id;
mod json;
mod name;
mod nearest;
mod origin;
mod outcome;
mod quoted;
mod reason;
mod request;
mod status;
mod time;
mod unknown_field;

pub use answer::{Answer, Blocker, Holder, Order, When, Why};
pub use control::{Action, Control};
pub use duration::{
    DurationError, TIMEOUT_RANGE, format_duration, is_timeout, parse_duration, parse_size,
    parse_timeout, seconds, seconds_or_null,
};
pub use event::{Event, Happened};
pub use id::{IdSequence, InvalidId, TaskId};
pub use json::{Json, JsonError, MAX_DEPTH, describe_json_error, in_plain_words, without_bom};
pub use name::{
    InvalidName, Name, escape_bytes, escape_label, escape_lines, escape_path, escape_row,
    escape_text, session_of, task_of_session,
};
pub use nearest::{is_typo_of, nearest};
pub use origin::Origin;
pub use outcome::{Condition, ErrorKind, Exit, Outcome, Status, TaskError};
pub use quoted::{quote_path, quote_word};
pub use reason::Reason;
pub use request::{MAX_REQUEST_BYTES, Request, RequestError, StoredRequest};
pub(crate) use status::to_pretty;
pub use status::{BootMoment, Metrics, OutputEncoding, ResultFile, StatusFile};
pub use time::Timestamp;

/// The format version of requests, statuses, results and most other JSON files this program writes.
/// This program does not read or overwrite a file with a larger version.
pub const FORMAT_VERSION: u32 = 1;

/// The version of a spool as a whole: its layout, its modes and its permissions. It is written into
/// `spool.json`, control files and `origin.json`.
pub const SPOOL_VERSION: u32 = 2;
