//! The nouns: what a task is called, what it asks for, where it stands and how it ended.
//!
//! Pure data and pure functions. Nothing here opens a file, reads a clock or starts a process, so
//! everything here can be tested as a table. The stored form of the three JSON files lives here;
//! the form promised to scripts lives in `cli/json.rs`, because the two change at different speeds.

mod answer;
mod id;
mod json;
mod name;
mod outcome;
mod request;
mod status;
mod time;

pub use answer::{Answer, Order};
pub use id::{IdSequence, InvalidId, TaskId};
pub use json::{Json, JsonError, MAX_DEPTH, describe_json_error};
pub use name::{InvalidName, Name, escape_label, session_of, task_of_session};
pub use outcome::{Condition, ErrorKind, Exit, Outcome, Status, TaskError};
pub use request::{MAX_REQUEST_BYTES, Request, RequestError, StoredRequest};
pub use status::{BootMoment, Metrics, OutputEncoding, ResultFile, StatusFile};
pub use time::Timestamp;

/// The format version of every JSON file this program writes. A file with a larger one is read by
/// nobody and overwritten by nobody.
pub const FORMAT_VERSION: u32 = 1;
