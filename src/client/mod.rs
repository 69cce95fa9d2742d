//! The public face of the library: what people, scripts and other programs ask of a spool.
//!
//! [`Client`] has the verbs, with typed options, answers and errors. A front door parses, calls, and prints: the
//! command line is one (`cli/`). Not here: words for people, exit codes, the environment, signals. Invariant:
//! nothing is printed, and whatever waits gives up when its caller says so ([`Stop`]).
//!
//! In reading order: `open` (the client and its options) · `stop` and `notice` (what goes in and out beside the
//! question and the answer) · `submit`, `batch`, `admission` and `submit_error` · `autostart` and `attendance` (who
//! runs what was submitted) · `wait` · `cancel`, `ask` and `cancel_answer` · `clear` · `lookup`, `status`, `list`,
//! `result`, `logs`, `follow`, `why`, `events` and `recipes` (looking) · `recipe_new`, `settings`, `pause` and `sweep`, which are the
//! owner's (`not_owner`) · `doctor` (whether all is well).

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
pub use settings::{Setting, SettingError};
pub use status::Found;
pub use stop::{NeverStop, Stop};
pub use submit::{Accepted, NewTask};
pub use submit_error::{SubmitError, Unaccepted};
pub use sweep::SweepError;
pub use wait::{Awaited, WaitError, WaitFor, WaitOptions, Waiting};

/// What the verbs answer with and fail with, of the rooms below.
pub use crate::recipe::{FindError, Kind, LeftOut, OnLost, Recipe, SessionMode};
pub use crate::spool::SubmitError as StoreError;
pub use crate::spool::{
    Cursor, EventRead, IoError, LogReader, OpenError, Piece, ReadError, ResolveError, Stream,
    TaskView,
};
pub use crate::sweeper::Swept;
