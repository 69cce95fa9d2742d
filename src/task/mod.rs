//! The nouns: what a task is called, what it asks for, where it stands and how it ended.
//!
//! Pure data and pure functions. Nothing here opens a file, reads a clock or starts a process, so
//! everything here can be tested as a table. The stored form of the three JSON files lives here;
//! the form promised to scripts lives in `cli/json.rs`, because the two change at different speeds.

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
pub use duration::{DurationError, parse_duration, seconds, seconds_or_null};
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

/// The format version of requests, statuses, results and most other JSON files this program writes. A
/// file with a larger one is read by nobody and overwritten by nobody.
pub const FORMAT_VERSION: u32 = 1;

/// The version of a spool as a whole: its layout, its modes and who may do what in it. It stands in
/// `spool.json`, in control files and in `origin.json`.
pub const SPOOL_VERSION: u32 = 2;
