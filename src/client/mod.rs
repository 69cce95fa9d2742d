//! The public interface of the library: every operation on a spool.
//!
//! [`Client`] has the verbs, with typed options, answers and errors. A front end parses, calls and prints.
//! The command line (`cli/`) is a front end. Not here: texts for people, exit codes, the environment,
//! signals. Invariant: nothing is printed, and every call that waits stops when its caller asks for it
//! ([`Stop`]).
//!
//! In reading order: `open` (the client and its options) · `stop` and `notice` (further input and output of
//! a call) · `submit`, `batch`, `admission` and `submit_error` · `autostart` and `attendance` (a watcher for
//! the submitted tasks) · `select` (which tasks) · `wait` · `cancel`, `ask` and `cancel_answer` · `clear` · `lookup`, `status`,
//! `list`, `result`, `logs`, `follow`, `why`, `events` and `recipes` (reading) · `recipe_new`, `settings`,
//! `pause` and `sweep`, only for the owner (`not_owner`) · `doctor` (checks).

mod admission;
mod ask;
mod attendance;
mod autostart;
mod batch;
mod cancel;
mod cancel_answer;
mod clear;
mod doctor;
mod events;
mod follow;
mod list;
mod logs;
mod lookup;
mod not_owner;
mod notice;
mod open;
mod pause;
mod recipe_new;
mod recipes;
mod result;
mod select;
mod settings;
mod status;
mod stop;
mod submit;
mod submit_error;
mod sweep;
#[cfg(test)]
mod tests;
mod wait;
mod why;

pub use attendance::Attendance;
pub use autostart::READY;
pub use batch::{AcceptedBatch, Batch};
pub use cancel_answer::{CancelError, CancelOutcome, Cancelled};
pub use clear::{ClearError, ClearOptions, ClearPlan, ClearReport};
pub use doctor::{Check, DoctorOptions, Verdict};
pub use events::{EventOptions, Events};
pub use follow::{Follow, FollowError, Followed};
pub use list::{Counts, ListOptions, Page};
pub use logs::{LogError, LogText, Logs};
pub use lookup::LookupError;
pub use not_owner::NotOwner;
pub use notice::{Notice, StartError};
pub use open::{Autostart, Client, Door, InitError, Options};
pub use pause::{PauseError, Resumed};
pub use recipe_new::{Language, NewRecipe, NewRecipeError};
pub use recipes::{ListedRecipe, RecipeCheck, RecipeInfo};
pub use result::{OutputError, OutputFile, ResultError, TaskResult};
pub use select::{Filter, Selection};
pub use settings::{Setting, SettingError};
pub use status::Found;
pub use stop::{NeverStop, Stop};
pub use submit::{Accepted, NewTask};
pub use submit_error::{SubmitError, Unaccepted};
pub use sweep::SweepError;
pub use wait::{Awaited, WaitError, WaitOptions, Waiting};

/// Answers and errors of the verbs that are defined in other modules.
pub use crate::recipe::{FindError, Kind, LeftOut, OnLost, Recipe, SessionMode};
pub use crate::spool::SubmitError as StoreError;
pub use crate::spool::{
    Breach, Cursor, EventRead, IoError, LogReader, OpenError, Piece, ReadError, ResolveError,
    Stream, TaskView,
};
pub use crate::sweeper::Swept;
