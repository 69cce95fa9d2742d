//! Finds the processes that belong to an attempt whose runner was killed.
//!
//! Does not kill them (`recover.rs`) and sends no signal. A running runner does not need this, because
//! all its orphans become its children. Invariants: a process that provably belongs to something else
//! never counts as the attempt's; a process that may be the attempt's and cannot be read is never
//! ignored.
//!
//! A process that started no earlier than the attempt belongs to it if
//! - it is in the recorded session or group, and nothing shows that the number was reused; or
//! - it has the attempt's tag, runs as this user, and could have been started in the attempt; or
//! - its output goes into one of the attempt's logs; or
//! - it has another file of the attempt open for writing, and could have been started in the attempt.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::Pid;

use super::tag::TAG_VARIABLE;
use crate::proc::{self, Entry, Environment, ProcessKey};
use crate::spool::RunFile;

/// The names of programs that adopt orphans, other than the first process: a user's systemd, and a runner
/// whose task runs the watcher of the attempt's runner.
const ADOPTERS: [&[u8]; 2] = [b"systemd", b"agentspool"];

/// The logs of an attempt.
const LOGS: [&str; 2] = ["stdout.log", "stderr.log"];

/// The outcome of one scan.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The attempt's processes.
    pub ours: Vec<Entry>,
    /// Processes of the recorded session that `/proc` does not show, by number.
    pub hidden: Vec<i32>,
    /// The first process that may be the attempt's, and why that cannot be decided.
    pub doubt: Option<Doubt>,
    /// Whether every process was checked completely. A process that exited or was executing another
    /// program may have left a child that did not exist when the processes were listed.
    pub is_whole: bool,
}

/// A process of which it cannot be decided whether it is the attempt's.
#[derive(Clone, Debug, thiserror::Error)]
#[error("process {pid} may belong to this task and cannot be checked: {why}")]
pub(super) struct Doubt {
    pid: i32,
    why: &'static str,
}

/// To what a process belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Others,
    Unknown(&'static str),
    /// It exited or changed during the check.
    Moving,
}

/// What is known about the attempt.
pub(super) struct Search<'a> {
    /// The attempt's folder, or the task's if that is gone.
    folder: BorrowedFd<'a>,
    tag: Vec<u8>,
    child: Option<ProcessKey>,
    /// The start time, in clock ticks since the boot, before which no process of the attempt started.
    begin: u64,
    /// The cgroup of the runner, if the attempt had none of its own.
    cgroup: Option<String>,
    /// Whether the attempt's cgroup was emptied. Then only processes that moved out of it can be left.
    is_emptied: bool,
    us: u32,
    /// Whether the tag counts only together with the folder.
    asks_for_place: bool,
    /// Processes that are known not to be the attempt's. That does not change.
    others: HashMap<i32, ProcessKey>,
}

impl<'a> Search<'a> {
    /// A search for the processes of the attempt with this tag. `run` counts only if it is of this boot
    /// and this tag, which the caller has checked.
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

    /// For an attempt of a version 1 program, whose tag is the same in a copy of the spool: a process
    /// counts only if its folder or its output is in this attempt's folder.
    pub fn ask_for_place(&mut self, tag: &str) {
        let old = tag.rsplit_once('/').map_or(tag, |(before, _)| before);
        self.tag = format!("{TAG_VARIABLE}={old}").into_bytes();
        self.child = None;
        self.asks_for_place = true;
    }

    /// Checks all processes.
    ///
    /// # Errors
    /// They cannot be listed or read. That never means that there are none.
    pub fn scan(&mut self) -> io::Result<Scan> {
        let mut scan = Scan {
            is_whole: true,
            ..Scan::default()
        };
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut seen = Vec::new();
        let mut rounds = 0;
        // Processes that fork and exit are followed: each round checks only new numbers.
        loop {
            let mut numbers = proc::numbers()?;
            numbers.sort_unstable();
            numbers.retain(|pid| *pid != me && seen.binary_search(pid).is_err());
            if numbers.is_empty() || rounds == 50 {
                break;
            }
            rounds += 1;
            for pid in &numbers {
                self.check(*pid, rounds == 1, &mut scan)?;
            }
            seen.extend(numbers);
            seen.sort_unstable();
        }
        if scan.ours.is_empty() && scan.hidden.is_empty() && proc::hides_processes() {
            self.scan_for_hidden(&seen, &mut scan);
        }
        Ok(scan)
    }

    fn check(&mut self, pid: i32, is_first_round: bool, scan: &mut Scan) -> io::Result<()> {
        // In later rounds a number that is known from before is not checked again.
        if !is_first_round && self.others.contains_key(&pid) {
            return Ok(());
        }
        let entry = match proc::entry(pid) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                scan.is_whole = false;
                return Ok(());
            }
            Err(error) if is_refusal(&error) => {
                self.check_hidden(pid, scan);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if entry.is_zombie || self.others.get(&pid) == Some(&entry.key) {
            return Ok(());
        }
        match self.whose(&entry, 0)? {
            Whose::Ours => scan.ours.push(entry),
            Whose::Others => {
                self.others.insert(pid, entry.key);
            }
            Whose::Moving => scan.is_whole = false,
            Whose::Unknown(why) => {
                scan.doubt.get_or_insert(Doubt { pid, why });
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
        // The number may have been reused for another session whose leader is gone too.
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
            // A person may have copied a task's environment, or another user may have read it.
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
            // It is another task's.
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

    /// Decides for a process whose environment is not readable.
    fn whose_unread(&self, entry: &Entry, in_session: bool) -> io::Result<Whose> {
        let is_own = proc::real_uid(entry).is_none_or(|uid| uid == self.us);
        Ok(match (in_session, is_own) {
            (true, true) => Whose::Ours,
            (true, false) => self.whose_of_another(entry),
            (false, false) => Whose::Others,
            (false, true) => {
                // Without a record, every process of this user would be in doubt.
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

    /// Decides for a process that another user started, in the recorded session, whose leader is gone:
    /// the number may have been reused for a session of that user. A process of root's attempt can become
    /// any user. A process of another user's attempt can become root (`sudo`), or a user of a namespace
    /// that maps its own user.
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
            // The number cannot be reused while the leader exists, even as a zombie.
            Ok(Some(leader)) if leader.key == child => Ok(Session::Surely),
            // It was reused, so the recorded session is empty.
            Ok(Some(_)) => Ok(Session::No),
            Ok(None) if child.start == 0 => Ok(Session::No),
            Ok(None) => Ok(Session::Perhaps),
            Err(error) if is_refusal(&error) => Ok(Session::Perhaps),
            Err(error) => Err(error),
        }
    }

    /// Whether it cannot have been started in the attempt. A process stays in the session in which it was
    /// started or creates its own, and its parent is the process that started it or one that adopts
    /// orphans.
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
            // The parent has exited, and its child was adopted.
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

    /// Whether a tag is the attempt's. If the attempt's folder is gone, its inode is unknown, and the
    /// searched tag ends before it.
    fn is_of_attempt(&self, tag: &[u8]) -> bool {
        tag == self.tag || (self.tag.ends_with(b":") && tag.starts_with(&self.tag))
    }

    /// Whether its output goes into one of the attempt's logs, to which nothing else writes.
    fn prints_here(&self, entry: &Entry) -> bool {
        !self.is_of_older_session(entry) && proc::prints_into(entry, &self.folder, &LOGS)
    }

    /// Whether it has any file of the attempt open for writing, and could have been started in the
    /// attempt. The second condition is needed because a person may work in that folder, in a newer
    /// session.
    fn writes_here(&self, entry: &Entry, depth: u32) -> io::Result<bool> {
        Ok(!self.is_of_older_session(entry)
            && proc::has_open_to_write(entry, &self.folder)
            && !self.is_from_outside(entry, depth)?)
    }

    fn is_another_uids(&self, entry: &Entry) -> bool {
        proc::real_uid(entry).is_some_and(|uid| uid != self.us)
    }

    /// Whether its session is older than the attempt. A process stays in the session in which it was
    /// started or creates its own.
    fn is_of_older_session(&self, entry: &Entry) -> bool {
        if entry.session == entry.key.pid {
            return false;
        }
        match proc::entry(entry.session) {
            Ok(leader) => leader.is_some_and(|leader| leader.key.start < self.begin),
            Err(_) => self.is_another_users(entry.session),
        }
    }

    /// Checks a process that `/proc` does not show. Its session is available nevertheless.
    fn check_hidden(&self, pid: i32, scan: &mut Scan) {
        let Some(number) = Pid::from_raw(pid) else {
            return;
        };
        let may_signal = rustix::process::test_kill_process(number).is_ok();
        let session = rustix::process::getsid(Some(number));
        let in_session = self
            .child
            .is_some_and(|child| session == Ok(pid_of(child.pid)) && !self.is_reused(child));
        match (in_session, may_signal && self.us != 0) {
            (true, true) => scan.hidden.push(pid),
            (true, false) => {
                let why = "/proc does not show it, and it is in the task's session";
                scan.doubt.get_or_insert(Doubt { pid, why });
            }
            (false, true) if !self.is_emptied && self.begin > 0 => {
                let why = "/proc does not show it (hidepid=)";
                scan.doubt.get_or_insert(Doubt { pid, why });
            }
            (false, _) => {}
        }
    }

    fn is_reused(&self, child: ProcessKey) -> bool {
        matches!(proc::entry(child.pid), Ok(Some(leader)) if leader.key != child)
    }

    /// For a `/proc` that hides the processes of other users: asks for every number.
    fn scan_for_hidden(&self, seen: &[i32], scan: &mut Scan) {
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
                self.check_hidden(pid, scan);
            }
        }
    }
}

/// Whether a process is in the recorded session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    No,
    /// Its leader is gone, and the number may have been reused.
    Perhaps,
    Surely,
}

fn pid_of(number: i32) -> Pid {
    Pid::from_raw(number).unwrap_or(Pid::INIT)
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
