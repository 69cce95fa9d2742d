//! Background tasks on a file-system spool.
//!
//! # Theory of operation
//!
//! A directory, the *spool*, is the queue. A *task* is a folder in it, and its state is what lies in that
//! folder. Three kinds of processes work on it and never call each other; they meet on the disk:
//!
//! - the **watcher** ([`watcher`]) takes drops in, finds tasks that are not finished, and offers their ids to
//!   runners over a pipe. It supervises nothing and may die at any moment;
//! - a **runner** ([`runner`]) takes a task's lock, starts the recipe, watches over it to the last
//!   descendant, writes the result, and lets go of the lock. Runners are pooled processes;
//! - the **sweeper** (`sweeper`) removes what is old. It never recovers and never kills.
//!
//! The commands (the binary's `cli` module) are people's way in. They need no watcher: `submit` writes the task
//! itself, `cancel` finishes a task that nobody holds, `status` reads.
//!
//! Three things are durable truths, each made by one directory operation: `tasks/<id>/` exists (the task was
//! accepted), `attempts/<n>/` exists (it may have started), `result.json` exists (it is finished). Everything else can be
//! derived or is a hint. A reader goes by `result.json`, then the lock, then `attempts/`, then `status.json`,
//! and writes nothing.
//!
//! # On the disk
//!
//! ```text
//! spool.json                    v, shared, and the settings that differ from the defaults
//! identity.json                 v, uuid
//! incoming/NAME.json            the drop box
//! tasks/<id>/request.json       what was asked; written once
//!           /status.json        the last holder's word on where it stands
//!           /result.json        how it ended; appears once, never changes
//!           /cancel             somebody wants it stopped
//!           /lock               flocked while a process works on the task
//!           /env.json           variables of `submit --env`, until the task ends
//!           /attachment         the file of `submit --attach`, until the task ends
//!           /attempts/<n>/      run.json input.json stdout.log stderr.log progress output work/
//!           /attempts/.<n>.<boot>   which boot made attempt <n>
//! names/<name>                  symbolic link to the newest task of that name
//! sessions/<id>/                lock, queue/<task id>, state/
//! open/<id>                     hint: not finished yet; open/.boot: when hints were last compared
//! staging/<id>/  <id>.claim/    tasks being made; drops being admitted
//! trash/  rejected/             being removed; refused drops and why
//! slots/<k>  recipe.<name>.<k>  flocked while a task runs: the kernel counts the limits
//! watchers/                     one flocked file per watcher; start, log
//! sweep.json  sweep.lock        the clocks of the last sweep; one sweep at a time
//! recipes/                      what can be run
//! ```
//!
//! `docs/spool-format.md` is the full contract.
//!
//! # States
//!
//! ```text
//!              claimed by a runner              exit code 0
//!  submit ──► pending ─────────────► running ───────────────► completed
//!              │ │ ▲                 │ │ │
//!              │ │ └─────────────────┘ │ └──────────────────► failed
//!              │ │   lost, on_lost =   │   exit, signal, timeout, lost, recipe, spawn
//!              │ │   "requeue"         └────────────────────► cancelled
//!              │ └──────────────────────────────────────────► cancelled
//!              └────────────────────────────────────────────► failed (recipe, lost)
//! ```
//!
//! [`task::Status::may_become`] is this table. `running` is said only of a task whose lock is held and that has an
//! attempt; a `status.json` that says otherwise is corrected by the reader.
//!
//! # The lock rule
//!
//! Whoever writes a task's status, result or attempts holds an exclusive `flock` on its `lock` file, for as long as
//! it works, and has seen that the file it locked still stands under the task's path. A lock is released by
//! closing the file, never by unlocking it, and a `lock` file is never removed except together with its folder. Locks are
//! taken in one order (`spool/disk/lock_order.rs`), and no wait for one is without a limit.
//!
//! # The rooms, in reading order
//!
//! [`task`] (nouns) → `spool` (the disk) → `recipe` (what can be run) → `ready` (why a task does not run),
//! `ending` (how a task ends), `launcher` (how a runner or a unit is started), `intake` (how a drop becomes a task) →
//! [`watcher`], [`runner`], `sweeper` (the processes) → [`client`] (what is asked of a spool) → `cli` (people). Each uses
//! only what stands to its left; watcher, runner and sweeper never use each other. [`config`], `clock`, `log_limit`,
//! `way`, `sys` and `proc` are small tools of all of them. `docs/architecture.md` follows a request and a cancellation
//! through the rooms.

pub mod client;
mod clock;
pub mod config;
mod ending;
mod intake;
#[doc(hidden)]
pub mod internals;
mod launcher;
mod log_limit;
mod proc;
mod ready;
mod recipe;
pub mod runner;
mod spool;
mod sweeper;
mod sys;
pub mod task;
pub mod watcher;
mod way;
