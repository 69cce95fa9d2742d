//! Background tasks on a file-system spool.
//!
//! # Theory of operation
//!
//! A folder, the *spool*, is the queue. A *task* is a folder in it. The files in that folder are the state of
//! the task. Three kinds of processes work on the spool. They never call each other; they share only the
//! disk:
//!
//! - the **watcher** ([`watcher`]) admits drops, finds tasks that are not finished, and offers their ids to
//!   runners over a pipe. It does not supervise tasks, and it may be killed at any moment;
//! - a **runner** ([`runner`]) takes a task's lock, starts the recipe, supervises it until its last
//!   descendant has ended, writes the result, and releases the lock. Runners are pooled processes;
//! - the **sweeper** (`sweeper`) removes what is old. It never recovers a task and never kills a process.
//!
//! The commands (the binary's `cli` module) are the interface for people. They need no watcher: `submit`
//! writes the task itself, `cancel` finishes a task that no process holds, `status` reads.
//!
//! Three facts are durable, and one directory operation creates each: `tasks/<id>/` exists (the task was
//! accepted), `attempts/<n>/` exists (it may have started), `result.json` exists (it is finished). Everything
//! else can be derived from them. A reader checks `result.json`, then the lock, then `attempts/`, then
//! `status.json`, and writes nothing.
//!
//! # On the disk
//!
//! ```text
//! spool.json                    v, shared, and the settings that differ from the defaults
//! identity.json                 v, uuid
//! incoming/NAME.json            the drop box
//! tasks/<id>/request.json       the request; written once
//!           /status.json        the state that the last lock holder wrote
//!           /result.json        how the task ended; written once, never changes
//!           /cancel             marker: the task is to be cancelled
//!           /lock               flocked while a process works on the task
//!           /env.json           variables of `submit --env`, until the task ends
//!           /attachment         the file of `submit --attach`, until the task ends
//!           /attempts/<n>/      run.json input.json stdout.log stderr.log progress output work/
//!           /attempts/.<n>.<boot>   boot record: which boot created attempt <n>
//! names/<name>                  symbolic link to the newest task of that name
//! sessions/<id>/                lock, queue/<task id>, state/
//! open/<id>                     index entry: not finished yet; open/.boot: when the index was last checked
//! staging/<id>/  <id>.claim/    tasks being created; drops being admitted
//! trash/  rejected/             being removed; refused drops with the reason
//! slots/<k>  recipe.<name>.<k>  flocked while a task runs: the kernel counts the limits
//! watchers/                     one flocked file per watcher; start, log
//! sweep.json  sweep.lock        the clock times of the last sweep; allows one sweep at a time
//! recipes/                      the recipes that can be run
//! ```
//!
//! `docs/spool-format.md` is the full contract.
//!
//! # States
//!
//! ```text
//!              locked by a runner               exit code 0
//!  submit ──► pending ─────────────► running ───────────────► completed
//!              │ │ ▲                 │ │ │
//!              │ │ └─────────────────┘ │ └──────────────────► failed
//!              │ │   lost, on_lost =   │   exit, signal, timeout, lost, recipe, spawn
//!              │ │   "requeue"         └────────────────────► cancelled
//!              │ └──────────────────────────────────────────► cancelled
//!              └────────────────────────────────────────────► failed (recipe, lost)
//! ```
//!
//! [`task::Status::may_become`] is this table. A task is reported as `running` only if its lock is held
//! and it has an attempt. If `status.json` differs, the reader corrects what it reports.
//!
//! # The lock rule
//!
//! A process that writes a task's status, result or attempts holds an exclusive `flock` on the task's `lock`
//! file while it works. After locking, it checks that the locked file is still the one at the task's path. A
//! lock is released by closing the file, never by unlocking it. A `lock` file is removed only together with
//! its folder. Locks are taken in one order (`spool/disk/lock_order.rs`). Every wait for a lock has a limit.
//!
//! # The modules, in reading order
//!
//! [`task`] (data types) → `spool` (the disk) → `recipe` (what can be run) → `ready` (why a task does not
//! run), `ending` (how a task ends), `launcher` (how a runner or a unit is started), `intake` (how a drop
//! becomes a task) → [`watcher`], [`runner`], `sweeper` (the processes) → [`client`] (the interface for
//! programs) → `cli` (the interface for people). Each module uses only modules to its left. Watcher, runner
//! and sweeper never use each other. [`config`], `clock`, `log_limit`, `way`, `sys` and `proc` are small
//! tools that all modules use. `docs/architecture.md` follows a request and a cancellation through the
//! modules.

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
