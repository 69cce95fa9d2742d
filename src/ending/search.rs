//! Which processes belong to an attempt whose runner is dead.
//!
//! Not the killing (`recover.rs`): nothing here sends a signal. A living runner does not need this, because all
//! its orphans become its children. Invariants: a process that is shown to be somebody else's is never counted
//! as the attempt's; one that may be the attempt's and cannot be read is never ignored.
//!
//! A process that started no earlier than the attempt belongs to it if
//! - it is in the recorded session or group, and nothing shows that the number was reused; or
//! - it carries the attempt's tag, runs as this user, and could have been born in the attempt; or
//! - it prints into one of the attempt's logs; or
//! - it has another file of the attempt open to write, and could have been born in the attempt.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::Pid;

use super::tag::TAG_VARIABLE;
use crate::proc::{self, Entry, Environment, ProcessKey};
use crate::spool::RunFile;

/// The names of programs that orphans come to, besides the first process: systemd of a user, and a
/// runner that runs this one's watcher in a task.
const ADOPTERS: [&[u8]; 2] = [b"systemd", b"agentspool"];

/// The logs of an attempt.
const LOGS: [&str; 2] = ["stdout.log", "stderr.log"];

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The attempt's processes.
    pub ours: Vec<Entry>,
    /// Processes of the attempt that `/proc` does not show: by number, in the recorded session.
    pub hidden: Vec<i32>,
    /// The first process that might be the attempt's, and why it cannot be told.
    pub doubt: Option<Doubt>,
    /// Whether all were seen to the end. One that went away, or was becoming another program, may have left
    /// a child that was not there yet when the others were listed.
    pub is_whole: bool,
}

/// A process of which nobody can tell whose it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("process {pid} may belong to this task and cannot be looked at: {why}")]
pub(super) struct Doubt {
    pid: i32,
    why: &'static str,
}

/// Whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Others,
    Unknown(&'static str),
    /// It went or changed in this moment.
    Moving,
}

/// What is known of the attempt.
pub(super) struct Search<'a> {
    /// The attempt's folder, or the task's where that is gone.
    folder: BorrowedFd<'a>,
    tag: Vec<u8>,
    child: Option<ProcessKey>,
    /// Nothing of the attempt started before.
    begin: u64,
    /// The cgroup in which the runner was, where the attempt had none of its own.
    cgroup: Option<String>,
    /// Whether the attempt's cgroup was emptied: then only what moved out of it can be left.
    is_emptied: bool,
    us: u32,
    /// Whether the tag is no evidence without the place.
    asks_for_place: bool,
    /// Processes that are known to be others', which a process stays.
    others: HashMap<i32, ProcessKey>,
}

impl<'a> Search<'a> {
    /// A search for what an attempt of this tag left. What its record says counts only if it is of this
    /// boot and this tag, which the caller has seen.
    pub fn new(folder: BorrowedFd<'a>, tag: &str, run: Option<&RunFile>, is_emptied: bool) -> Self {
        let child = run.and_then(|run| run.child);
        let begin = child
            .or(run.map(|run| run.runner))
            .map_or(0, |key| key.start);
        Search {
            folder,
            tag: format!("{TAG_VARIABLE}={tag}").into_bytes(),
            child,
            begin,
            cgroup: run.and_then(|run| run.runner_cgroup.clone()),
            is_emptied,
            us: rustix::process::geteuid().as_raw(),
            asks_for_place: false,
            others: HashMap::new(),
        }
    }

    /// The attempt was made by a program of version 1, whose tag does not tell a copy from its original: only
    /// what stands in this attempt's folder, or prints there, is believed to be its.
    pub fn ask_for_place(&mut self, tag: &str) {
        let old = tag.rsplit_once('/').map_or(tag, |(before, _)| before);
        self.tag = format!("{TAG_VARIABLE}={old}").into_bytes();
        self.child = None;
        self.asks_for_place = true;
    }

    /// Looks through all processes.
    ///
    /// # Errors
    /// They cannot be looked at. That is never "nobody".
    pub fn look(&mut self) -> io::Result<Look> {
        let mut look = Look {
            is_whole: true,
            ..Look::default()
        };
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut seen = Vec::new();
        let mut rounds = 0;
        // What forks and leaves is followed: only numbers that are new are looked at again.
        loop {
            let mut numbers = proc::numbers()?;
            numbers.sort_unstable();
            numbers.retain(|pid| *pid != me && seen.binary_search(pid).is_err());
            if numbers.is_empty() || rounds == 50 {
                break;
            }
            rounds += 1;
            for pid in &numbers {
                self.look_at(*pid, rounds == 1, &mut look)?;
            }
            seen.extend(numbers);
            seen.sort_unstable();
        }
        if look.ours.is_empty() && look.hidden.is_empty() && proc::hides_processes() {
            self.look_for_hidden(&seen, &mut look);
        }
        Ok(look)
    }

    fn look_at(&mut self, pid: i32, is_first_round: bool, look: &mut Look) -> io::Result<()> {
        // In the rounds that follow others, the ones known from before need no second look.
        if !is_first_round && self.others.contains_key(&pid) {
            return Ok(());
        }
        let entry = match proc::entry(pid) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                look.is_whole = false;
                return Ok(());
            }
            Err(error) if is_refusal(&error) => {
                self.look_at_hidden(pid, look);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if entry.is_zombie || self.others.get(&pid) == Some(&entry.key) {
            return Ok(());
        }
        match self.whose(&entry, 0)? {
            Whose::Ours => look.ours.push(entry),
            Whose::Others => {
                self.others.insert(pid, entry.key);
            }
            Whose::Moving => look.is_whole = false,
            Whose::Unknown(why) => {
                look.doubt.get_or_insert(Doubt { pid, why });
            }
        }
        Ok(())
    }

    fn whose(&self, entry: &Entry, depth: u32) -> io::Result<Whose> {
        if entry.key.start < self.begin {
            return Ok(Whose::Others);
        }
        let session = self.session_of(entry)?;
        if session == Session::Surely {
            return Ok(Whose::Ours);
        }
        // The number could have been given to somebody else's session, whose leader is gone as well.
        let in_session =
            session == Session::Perhaps && !self.is_emptied && !self.is_in_another_cgroup(entry);
        let environment = match proc::environment(entry)? {
            Environment::Is(environment) => environment,
            Environment::Kernel => return Ok(Whose::Others),
            Environment::Gone | Environment::Changes => return Ok(Whose::Moving),
            Environment::Refused => return self.whose_unread(entry, in_session),
        };
        let mut entries = environment.split(|byte| *byte == 0);
        let name = format!("{TAG_VARIABLE}=");
        let tag = entries.find(|item| item.starts_with(name.as_bytes()));
        if tag.is_some_and(|tag| self.is_of_attempt(tag)) {
            // A person may have copied a task's environment, or another user have read it.
            if self.is_another_uids(entry) || self.is_of_older_session(entry) {
                return Ok(Whose::Others);
            }
            if in_session || proc::is_at(entry, &self.folder) {
                return Ok(Whose::Ours);
            }
            let has_moved_out = self.is_emptied || self.asks_for_place;
            return if has_moved_out || self.is_from_outside(entry, depth)? {
                Ok(Whose::Others)
            } else {
                Ok(Whose::Ours)
            };
        }
        if tag.is_some_and(|tag| tag.len() > name.len()) {
            // Another task's.
            return Ok(Whose::Others);
        }
        Ok(match (in_session, self.is_another_uids(entry)) {
            (true, false) => Whose::Ours,
            (true, true) => self.whose_of_another(entry),
            (false, false) if self.prints_here(entry) || self.writes_here(entry, depth)? => {
                Whose::Ours
            }
            (false, _) => Whose::Others,
        })
    }

    /// Of a process whose environment is not shown.
    fn whose_unread(&self, entry: &Entry, in_session: bool) -> io::Result<Whose> {
        let is_own = proc::real_uid(entry).is_none_or(|uid| uid == self.us);
        Ok(match (in_session, is_own) {
            (true, true) => Whose::Ours,
            (true, false) => self.whose_of_another(entry),
            (false, false) => Whose::Others,
            (false, true) => {
                // Without a record every process of this user would be in doubt.
                let is_elsewhere = self.is_emptied
                    || self.begin == 0
                    || self.is_in_another_cgroup(entry)
                    || self.is_from_outside(entry, 0)?;
                if is_elsewhere {
                    Whose::Others
                } else {
                    Whose::Unknown("the kernel does not show its environment")
                }
            }
        })
    }

    /// Of a process that another user started, in the recorded session, whose leader is gone: the number may have
    /// been given to a session of that user. An attempt of root's becomes any user. One of another user's becomes
    /// root (`sudo`), or a user of a namespace that maps its own.
    fn whose_of_another(&self, entry: &Entry) -> Whose {
        let is_possible = |uid| uid == 0 || proc::is_nobody(uid);
        let may_be_ours = self.us == 0
            || proc::real_uid(entry).is_none_or(is_possible)
            || proc::is_in_namespace_of(entry, self.us);
        match may_be_ours {
            true => Whose::Unknown("it runs as another user in the task's session"),
            false => Whose::Others,
        }
    }

    /// Whether it is in the recorded session or group.
    fn session_of(&self, entry: &Entry) -> io::Result<Session> {
        let Some(child) = self.child else {
            return Ok(Session::No);
        };
        if entry.session != child.pid && entry.group != child.pid {
            return Ok(Session::No);
        }
        match proc::entry(child.pid) {
            // The number cannot be anybody else's while its first holder is there, dead or alive.
            Ok(Some(leader)) if leader.key == child => Ok(Session::Surely),
            // It was given away, so the recorded session is empty.
            Ok(Some(_)) => Ok(Session::No),
            Ok(None) if child.start == 0 => Ok(Session::No),
            Ok(None) => Ok(Session::Perhaps),
            Err(error) if is_refusal(&error) => Ok(Session::Perhaps),
            Err(error) => Err(error),
        }
    }

    /// Whether it cannot have been born in the attempt: a process stays in the session it was born in or makes
    /// one of its own, and its parent is the one who made it or one who takes orphans.
    fn is_from_outside(&self, entry: &Entry, depth: u32) -> io::Result<bool> {
        const DEEPEST: u32 = 64;
        if self.is_of_older_session(entry) {
            return Ok(true);
        }
        if entry.parent <= 1 || depth == DEEPEST {
            return Ok(false);
        }
        match proc::entry(entry.parent) {
            Ok(Some(parent)) if parent.key.start < self.begin => {
                Ok(!ADOPTERS.contains(&proc::name_of(&parent).as_slice()))
            }
            Ok(Some(parent)) => Ok(self.whose(&parent, depth + 1)? == Whose::Others),
            // It has left, and its child has come to somebody else by now.
            Ok(None) => Ok(false),
            Err(_) => Ok(self.is_another_users(entry.parent)),
        }
    }

    /// Whether a process that `/proc` does not show runs as another user.
    fn is_another_users(&self, pid: i32) -> bool {
        let refused = Err(rustix::io::Errno::PERM);
        self.us != 0
            && Pid::from_raw(pid)
                .is_some_and(|pid| rustix::process::test_kill_process(pid) == refused)
    }

    fn is_in_another_cgroup(&self, entry: &Entry) -> bool {
        match (&self.cgroup, proc::cgroup_of(entry)) {
            (Some(runners), Some(its)) => {
                let below = its.strip_prefix(runners.trim_end_matches('/'));
                below.is_none_or(|below| !below.is_empty() && !below.starts_with('/'))
            }
            _ => false,
        }
    }

    /// Whether a tag is the attempt's. The inode of a folder that is gone is not known; then the tag ends
    /// where it would stand.
    fn is_of_attempt(&self, tag: &[u8]) -> bool {
        tag == self.tag || (self.tag.ends_with(b":") && tag.starts_with(&self.tag))
    }

    /// Whether its output is one of the attempt's logs, which nobody else writes.
    fn prints_here(&self, entry: &Entry) -> bool {
        !self.is_of_older_session(entry) && proc::prints_into(entry, &self.folder, &LOGS)
    }

    /// Whether it has any file of the attempt open to write, and could have been born in the attempt. That is more
    /// than the logs: a person may work in that folder, in a session that is newer.
    fn writes_here(&self, entry: &Entry, depth: u32) -> io::Result<bool> {
        Ok(!self.is_of_older_session(entry)
            && proc::has_open_to_write(entry, &self.folder)
            && !self.is_from_outside(entry, depth)?)
    }

    fn is_another_uids(&self, entry: &Entry) -> bool {
        proc::real_uid(entry).is_some_and(|uid| uid != self.us)
    }

    /// Whether it is in a session that is older than the attempt: a process stays in the one it was born in or
    /// makes one of its own.
    fn is_of_older_session(&self, entry: &Entry) -> bool {
        if entry.session == entry.key.pid {
            return false;
        }
        match proc::entry(entry.session) {
            Ok(leader) => leader.is_some_and(|leader| leader.key.start < self.begin),
            Err(_) => self.is_another_users(entry.session),
        }
    }

    /// One that `/proc` does not show: its session can be asked for all the same.
    fn look_at_hidden(&self, pid: i32, look: &mut Look) {
        let Some(number) = Pid::from_raw(pid) else {
            return;
        };
        let may_signal = rustix::process::test_kill_process(number).is_ok();
        let session = rustix::process::getsid(Some(number));
        let in_session = self
            .child
            .is_some_and(|child| session == Ok(pid_of(child.pid)) && !self.is_given_away(child));
        match (in_session, may_signal && self.us != 0) {
            (true, true) => look.hidden.push(pid),
            (true, false) => {
                let why = "/proc does not show it, and it is in the task's session";
                look.doubt.get_or_insert(Doubt { pid, why });
            }
            (false, true) if !self.is_emptied && self.begin > 0 => {
                let why = "/proc does not show it (hidepid=)";
                look.doubt.get_or_insert(Doubt { pid, why });
            }
            (false, _) => {}
        }
    }

    fn is_given_away(&self, child: ProcessKey) -> bool {
        matches!(proc::entry(child.pid), Ok(Some(leader)) if leader.key != child)
    }

    /// Where `/proc` leaves out what this user may not look at: every number is asked for.
    fn look_for_hidden(&self, seen: &[i32], look: &mut Look) {
        for pid in 1..=proc::highest_number() {
            let Some(number) = Pid::from_raw(pid) else {
                continue;
            };
            if seen.binary_search(&pid).is_err()
                && pid != rustix::process::getpid().as_raw_nonzero().get()
                && rustix::process::test_kill_process(number).is_ok()
                && proc::is_process(number)
                && !matches!(proc::entry(pid), Ok(Some(_)))
            {
                self.look_at_hidden(pid, look);
            }
        }
    }
}

/// Whether a process is in the recorded session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    No,
    /// Its leader is gone, and the number could have been given away since.
    Perhaps,
    Surely,
}

fn pid_of(number: i32) -> Pid {
    Pid::from_raw(number).unwrap_or(Pid::INIT)
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
