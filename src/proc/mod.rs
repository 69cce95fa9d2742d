//! Information about processes from `/proc`, which is read and never written.
//!
//! Not the decision to which task a process belongs (`ending/search.rs`) and not the end of a task
//! (`runner/group.rs`). A pid identifies a process only together with its start time (docs/hazards.md,
//! 45). Invariant: a process is reported as ended only if that is certain. A failure to read is an error. A
//! process with one running thread is alive.
#![expect(clippy::disallowed_methods, reason = "/proc is not the spool")]

mod cgroup;
mod children;
mod evidence;
mod nobody;
mod open_files;
mod place;
mod signals;
mod start_limits;
mod table;

pub use cgroup::{Cgroup, own_cgroup, remove_left_cgroups, unescape};
pub use children::{Usage, children, descendants, has_living_children, reap_any, reap_others};
pub use evidence::{
    Environment, cgroup_of, environment, has_open_to_write, hides_processes, is_at,
    is_in_namespace_of, name_of, path_of, prints_into, real_uid, real_uid_of, writes_to,
};
pub use nobody::{is_no_group, is_nobody};
pub use open_files::{acts_for, open_files};
pub use place::{OwnService, is_below_a_runner, own_service, path_for_others};
pub use signals::{
    ignore_terminal_stop, ignored_signals, let_large_writes_fail, set_default, unblock_signals,
};
pub use start_limits::{as_started, file_limit, raise_file_limit, raised_file_limit, set_umask};
pub use table::{
    Entry, ProcessKey, check_mounted, entry, highest_number, is_alive, is_process, numbers,
    open_locks, own_key, parse_stat, pid_namespace, read_text, signal, time_namespace,
};
