//! The watcher: finds pending tasks and dispatches them.
//!
//! It supervises nothing and may die at any moment: what it knows is a guess made from the disk,
//! and whatever it forgets a scan finds again. Not here: running (`runner/`, met over a pipe) and
//! clearing (`sweeper/`, started as a process). Invariant: listen first, scan second, wait third, so
//! that nothing falls between two looks.

mod admit;
mod backlog;
mod box_memory;
mod launcher;
mod log_watch;
mod service;
mod shutdown;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::WaitOptions;

use crate::clock;
use crate::log_limit::LogLimit;
use crate::proc;
use crate::spool::{
    Exposed, IoError, PathLeads, Pause, Seen, Spool, SubmitError, Wake, WatcherFile, WatcherSeat,
};
use crate::task::{Answer, FORMAT_VERSION, TaskId};
use admit::Admitter;
use backlog::Backlog;
use launcher::{Launcher, LocalPool};
use log_watch::LogWatch;
use service::{Counts, Service};

/// A task that runs longer than this has its folder listened to; until then its runner looks at
/// the marker often by itself, and most tasks need no watch at all.
const LISTEN_AFTER: Duration = Duration::from_millis(25);
/// Pending tasks whose marker is looked for after a rescan; the CLI's `cancel` needs no such look.
const MARKERS: usize = 1000;
/// How many tasks are looked at, for markers or after a boot for hints, before others are dispatched:
/// where nothing is in memory yet, each look waits for the disk.
const LOOKS_AT_ONCE: usize = 100;
/// How long to wait for the right to go on after all, when work came in the moment of leaving.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);
/// Something left the root: for so long it is looked at so often whether the root goes as well. A
/// folder that is held open is removed without a word.
const ROOT_LOOKS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(50));

/// Another watcher left: so soon it is looked at what it was at. The kernel needs a moment to let go of its locks.
const AFTER_ANOTHER: Duration = Duration::from_millis(50);

/// How a watcher is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that runners and sweeps are started from. `/proc/self/exe` stays the same
    /// program when its file is replaced by an upgrade.
    pub program: PathBuf,
    /// Arguments before the verb, so that runners see the same spool and settings.
    pub arguments: Vec<String>,
    /// Leave after the spool's `idle_exit_sec`.
    pub autostarted: bool,
    /// Leave as soon as nothing is left to do.
    pub drain: bool,
    /// On a signal stop the tasks, wait for their ends, and leave last. As the first process of a container a
    /// watcher always does.
    pub stop_tasks: bool,
}

/// The watcher cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Only its owner runs a spool's tasks.
    #[error("only the owner of the spool {} may run its tasks", .0.display())]
    NotOwner(PathBuf),
    /// Users of the group could put another folder in the spool's place.
    #[error("the tasks of the group spool {} are not run: {exposed}", path.display())]
    Exposed {
        /// The spool.
        path: PathBuf,
        /// Where.
        exposed: Exposed,
    },
    /// Signals cannot be listened to.
    #[error("failed to listen to signals: {0}")]
    Signals(#[source] io::Error),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a watcher left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A signal said so; running tasks go on.
    Stopped,
    /// A signal said so, and the tasks were stopped as well.
    StoppedWithTasks,
    /// Nothing was left to do.
    Idle,
    /// Another watcher took over in the moment of leaving.
    Replaced,
    /// The spool is paused, and so many tasks wait.
    Paused(usize),
    /// The spool's path does not lead to it any more.
    Moved,
}

/// One watcher process.
pub struct Watcher {
    spool: Spool,
    options: Options,
    seat: Option<WatcherSeat>,
    wake: Wake,
    signals: Signals,
    launcher: LocalPool,
    /// Whoever started us as a service; nobody, where a command did.
    service: Option<Service>,
    backlog: Backlog,
    admitter: Admitter,
    listening: Vec<TaskId>,
    /// Pending tasks whose marker is to be looked for, the last one first.
    unlooked: Vec<TaskId>,
    /// The tasks without a hint that were not looked at yet, newest first.
    reconcile: Option<Vec<TaskId>>,
    /// `tasks/` and `open/` are still to be compared, which no task of this boot has to wait for: what was
    /// put back by hand, as from a backup, has no hint.
    compare_later: bool,
    /// They were compared, and the disk refused to note it.
    is_unmarked: bool,
    next_rescan: Instant,
    next_sweep: Instant,
    log_watch: LogWatch,
    log: LogLimit,
    busy_at: Instant,
    paused: Option<Pause>,
    /// Until when it is looked often whether the root is still there.
    root_in_doubt: Option<Instant>,
}

/// TERM and INT, HUP, and the end of a child, as readable sockets.
struct Signals {
    stop: UnixStream,
    reload: UnixStream,
    /// Only rung where others' orphans come to this process.
    child: UnixStream,
    /// Keeps `child` from looking closed.
    _ring_child: UnixStream,
}

impl Signals {
    fn new(is_first_process: bool) -> io::Result<Signals> {
        use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
        let (stop, ring_stop) = UnixStream::pair()?;
        let (reload, ring_reload) = UnixStream::pair()?;
        let (child, ring_child) = UnixStream::pair()?;
        for socket in [&stop, &reload, &child] {
            socket.set_nonblocking(true)?;
        }
        signal_hook::low_level::pipe::register(SIGTERM, ring_stop.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, ring_stop)?;
        signal_hook::low_level::pipe::register(SIGHUP, ring_reload)?;
        if is_first_process {
            signal_hook::low_level::pipe::register(SIGCHLD, ring_child.try_clone()?)?;
        }
        Ok(Signals {
            stop,
            reload,
            child,
            _ring_child: ring_child,
        })
    }

    fn came(socket: &UnixStream) -> bool {
        let mut bytes = [0u8; 64];
        matches!(rustix::io::read(socket, &mut bytes), Ok(read) if read > 0)
    }
}

impl Watcher {
    /// Takes a seat among the living and begins to listen. From here on `submit` sees a watcher.
    pub fn new(spool: Spool, mut options: Options) -> Result<Watcher, WatchError> {
        if !spool.is_owner() {
            return Err(WatchError::NotOwner(spool.path().to_owned()));
        }
        if spool.is_group()
            && let Some(exposed) = spool.exposed_above()?
        {
            let path = spool.path().to_owned();
            return Err(WatchError::Exposed { path, exposed });
        }
        // Before there is another thread: whoever starts us may block TERM.
        proc::unblock_signals();
        options.stop_tasks |= shutdown::is_first_process();
        let signals = Signals::new(shutdown::is_first_process()).map_err(WatchError::Signals)?;
        let seat = Some(spool.take_seat(&describe(&options))?);
        let wake = Wake::for_watcher(&spool)?;
        warn_if_deaf(&wake, &spool);
        let now = Instant::now();
        let compare_later = spool.is_reconciled()?;
        let reconcile = if compare_later {
            None
        } else {
            Some(spool.unhinted_ids()?)
        };
        Ok(Watcher {
            launcher: LocalPool::new(options.program.clone(), options.arguments.clone()),
            service: (!options.autostarted).then(Service::new),
            backlog: Backlog::default(),
            admitter: Admitter::default(),
            listening: Vec::new(),
            unlooked: Vec::new(),
            reconcile,
            compare_later,
            is_unmarked: false,
            next_rescan: now,
            next_sweep: now + Duration::from_secs_f64(spool.settings().sweep_every_sec),
            log_watch: LogWatch::new(options.autostarted),
            log: LogLimit::default(),
            busy_at: now,
            paused: None,
            root_in_doubt: None,
            spool,
            options,
            seat,
            wake,
            signals,
        })
    }

    /// The spool, for those who report on it.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Tasks its runners are at.
    pub fn running(&self) -> usize {
        self.launcher.running().count()
    }

    /// Watches until it is told to stop or has nothing to do.
    pub fn run(&mut self) -> Left {
        loop {
            let is_asked = Signals::came(&self.signals.reload);
            if is_asked {
                // Whoever says so wants the settings to count now, not at the next event.
                self.next_rescan = Instant::now();
                if let Some(service) = &self.service {
                    service.reloading();
                }
            }
            let seen = self.wake.take();
            if self.has_moved(&seen) {
                return self.leave(Left::Moved);
            }
            self.look_at_pause();
            self.look(&seen);
            if is_asked && let Some(service) = &self.service {
                service.reloaded();
            }
            if Signals::came(&self.signals.child) {
                reap_strangers();
            }
            self.hear_answers();
            self.dispatch();
            self.log_watch.look(&self.spool);
            self.listen_to_running();
            let has_found = self.look_for_markers() | self.reconcile_some();
            self.compare_if_due();
            if Signals::came(&self.signals.stop) {
                if self.options.stop_tasks {
                    self.stop_tasks();
                    return self.leave(Left::StoppedWithTasks);
                }
                return self.leave(Left::Stopped);
            }
            if let Some(left) = self.leave_if_idle() {
                return self.leave(left);
            }
            let counts = self.counts();
            if let Some(service) = &mut self.service {
                service.round_done(counts);
            }
            if !has_found {
                self.wait();
            }
        }
    }

    /// Whether the spool's path leads elsewhere or nowhere by now, or the spool was emptied.
    fn has_moved(&mut self, seen: &Seen) -> bool {
        let now = Instant::now();
        if seen.root {
            self.root_in_doubt = Some(now + ROOT_LOOKS.0);
        }
        let is_in_doubt = self.root_in_doubt.is_some_and(|until| now < until);
        if !is_in_doubt {
            self.root_in_doubt = None;
        }
        self.spool.path_leads() == PathLeads::Elsewhere || (is_in_doubt && self.spool.is_emptied())
    }

    /// Says once that the spool is paused, and that it is no more.
    fn look_at_pause(&mut self) {
        let paused = self.spool.paused().unwrap_or_else(|error| {
            if self.log.allows("looks for a pause that failed") {
                tracing::warn!("{error}");
            }
            self.paused
        });
        if paused == self.paused {
            return;
        }
        match paused {
            Some(why) => {
                let spool = self.spool.path().display();
                tracing::warn!(
                    "{why}: no task is started until `agentspool --spool {spool} resume`"
                );
            }
            None => tracing::info!("resumed"),
        }
        self.paused = paused;
    }

    fn leave(&mut self, left: Left) -> Left {
        self.log.close();
        if let Some(service) = &self.service {
            service.stopping();
        }
        left
    }

    fn counts(&self) -> Counts {
        let open = self.backlog.len();
        let ours = self.launcher.running().count();
        let running = ours + self.backlog.elsewhere();
        Counts {
            pending: open.saturating_sub(running),
            running,
        }
    }

    /// Takes in what happened; at the slow rescan everything, whatever was heard.
    fn look(&mut self, seen: &Seen) {
        if seen.watcher_left {
            self.next_rescan = self.next_rescan.min(Instant::now() + AFTER_ANOTHER);
        }
        let due = Instant::now() >= self.next_rescan;
        if seen.incoming {
            self.admitter.notice();
        }
        if due || seen.rescan {
            self.rescan();
        } else if self.admitter.has_more() {
            self.admit();
        }
        self.backlog.add(seen.published.iter().copied());
        for id in &seen.cancelled {
            self.launcher.look(*id);
        }
    }

    fn rescan(&mut self) {
        self.reload();
        self.listen_anew_if_astray();
        // The time between two scans is measured from the end of one, however long it took.
        if let Err(error) = self.scan() {
            tracing::warn!("{error}");
        }
        if self.is_unmarked {
            self.mark_reconciled();
        }
        self.log.flush();
        self.launcher.dismiss_idle();
        reap_strangers();
        proc::remove_left_cgroups();
        self.start_sweep_if_due();
        let pause = Duration::from_secs_f64(self.spool.settings().rescan_sec);
        self.next_rescan = Instant::now() + pause;
    }

    /// Before the scan, as at the start: what is not heard yet is scanned.
    fn listen_anew_if_astray(&mut self) {
        if !self.wake.is_astray() {
            return;
        }
        let was_deaf = self.wake.is_deaf().is_some();
        match Wake::for_watcher(&self.spool) {
            Ok(wake) if wake.is_deaf().is_none() => {
                tracing::info!("listening anew");
                self.wake = wake;
                // The running tasks' folders follow as they did at first.
                self.listening.clear();
            }
            Ok(wake) => {
                if !was_deaf {
                    warn_if_deaf(&wake, &self.spool);
                }
                self.wake = wake;
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn scan(&mut self) -> Result<(), SubmitError> {
        let open = self.spool.open_ids()?;
        self.backlog.reset(&open);
        self.unlooked = self.backlog.pending().take(MARKERS).collect();
        self.unlooked.reverse();
        // One claim that cannot be finished must not keep the box shut.
        if let Err(error) = self.admitter.replay(&self.spool) {
            tracing::warn!("what another watcher had begun to admit waits: {error}");
        }
        self.admitter.try_all();
        self.admit();
        Ok(())
    }

    /// Finds the markers that were made with `touch`, a few at a time and only once what can run runs;
    /// whether one was there.
    fn look_for_markers(&mut self) -> bool {
        let mut has_found = false;
        let left = self.unlooked.len().saturating_sub(LOOKS_AT_ONCE);
        for id in self.unlooked.split_off(left).into_iter().rev() {
            // One that cannot be looked at is a runner's to report; the others wait for nothing.
            if let Ok(Some(task)) = self.spool.task(id)
                && task.cancel_requested().unwrap_or(false)
            {
                self.backlog.hurry(id);
                has_found = true;
            }
        }
        has_found
    }

    fn admit(&mut self) {
        match self.admitter.admit_some(&self.spool, &mut self.log) {
            Ok(admitted) => {
                self.backlog.add(admitted.tasks);
                for id in admitted.cancelled {
                    self.launcher.look(id);
                    self.backlog.add([id]);
                    self.backlog.hurry(id);
                }
                if let Some(error) = admitted.failed {
                    self.drops_wait(&error);
                }
            }
            Err(error) => self.drops_wait(&error),
        }
    }

    /// Nothing is lost: the drops stay where they are.
    fn drops_wait(&mut self, error: &SubmitError) {
        if self.log.allows("drops wait") {
            tracing::warn!("drops wait: {error}");
        }
    }

    /// The hints are compared with the tasks, a few at a time; whether one was missing.
    fn reconcile_some(&mut self) -> bool {
        let Some(left) = &mut self.reconcile else {
            return false;
        };
        let mut has_found = false;
        let first = left.len().saturating_sub(LOOKS_AT_ONCE);
        // The list is newest first: its end holds the oldest, which have waited longest.
        for id in left.split_off(first).into_iter().rev() {
            match self.spool.reconcile_hint(id) {
                Ok(true) => {
                    self.backlog.add([id]);
                    has_found = true;
                }
                Ok(false) => {}
                Err(error) if self.log.allows("tasks that cannot be compared") => {
                    tracing::warn!("{error}");
                }
                Err(_) => {}
            }
        }
        if left.is_empty() {
            self.reconcile = None;
            self.mark_reconciled();
        }
        has_found
    }

    /// Lists once what has no hint: when nothing runs, or at the second rescan.
    fn compare_if_due(&mut self) {
        let is_busy = self.launcher.running().next().is_some() && Instant::now() < self.next_rescan;
        if is_busy || !std::mem::take(&mut self.compare_later) {
            return;
        }
        match self.spool.unhinted_ids() {
            Ok(ids) => self.reconcile = Some(ids).filter(|ids| !ids.is_empty()),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Says that hints and tasks were compared. A full disk may refuse that, and as long as it is
    /// not said, the tasks of a session wait: it is tried again at each rescan.
    fn mark_reconciled(&mut self) {
        let marked = self.spool.mark_reconciled();
        self.is_unmarked = marked.is_err();
        if let Err(error) = marked {
            tracing::warn!("{error}");
        }
    }

    fn hear_answers(&mut self) {
        for (id, answer) in self.launcher.answers() {
            if answer != Answer::NotYet(None) {
                self.busy_at = Instant::now();
            }
            if let Some(at) = self.listening.iter().position(|listened| *listened == id) {
                self.listening.swap_remove(at);
                self.wake.unwatch_task(id);
            }
            tracing::debug!(task = %id, "{answer}");
            self.backlog.answered(id, answer, Instant::now());
        }
    }

    fn dispatch(&mut self) {
        let limit = self.most_at_once();
        loop {
            let now = Instant::now();
            // Cancelled tasks need no slot, so they may have one runner more.
            let id = if self.paused.is_none() && self.launcher.has_room(limit) {
                self.backlog.next(now)
            } else if self.launcher.has_room(limit + 1) {
                self.backlog.next_hurried()
            } else {
                None
            };
            let Some(id) = id else { return };
            if !self.spool.is_at_its_path() {
                // The next round leaves, or it is tried again: no runner could open the spool.
                self.backlog
                    .answered(id, Answer::Taken { started: false }, now);
                return;
            }
            if !self.backlog.is_broken(id) {
                self.busy_at = now;
            }
            if let Some(answer) = self.held_elsewhere(id) {
                self.backlog.answered(id, answer, now);
                continue;
            }
            if let Err(error) = self.launcher.start(id) {
                if self.log.allows("runners that could not be started") {
                    tracing::error!("no runner could be started: {error}");
                }
                self.backlog
                    .answered(id, Answer::Taken { started: false }, now);
                return;
            }
        }
    }

    /// What a runner would answer to a task that another process holds, as the tasks of a watcher
    /// before this one: asked here, because a runner comes to the task's lock only with a slot in
    /// its hand, and so many of them would leave none to the tasks that wait for one.
    fn held_elsewhere(&self, id: TaskId) -> Option<Answer> {
        let task = self.spool.task(id).ok()??;
        if !task.is_held().ok()? {
            return None;
        }
        let started = task.last_attempt().is_ok_and(|last| last > 0);
        Some(Answer::Taken { started })
    }

    fn most_at_once(&self) -> usize {
        self.spool.settings().max_concurrent as usize
    }

    /// Listens for the markers of tasks that are not over at once.
    fn listen_to_running(&mut self) {
        let old_enough: Vec<TaskId> = self
            .launcher
            .running()
            .filter(|(id, since)| since.elapsed() >= LISTEN_AFTER && !self.listening.contains(id))
            .map(|(id, _)| id)
            .collect();
        for id in old_enough {
            self.wake.watch_task(id);
            self.listening.push(id);
            // What came before the watch was heard by nobody.
            self.launcher.look(id);
        }
    }

    fn reload(&mut self) {
        match self.spool.reload() {
            Ok(true) => tracing::info!("settings read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!("the settings stay as they were: {error}"),
        }
    }

    /// A spool without a timer stays bounded: a sweep is started now and then, as a process.
    fn start_sweep_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + Duration::from_secs_f64(self.spool.settings().sweep_every_sec);
        if !self.spool.has_anything_to_sweep().unwrap_or(true) {
            return;
        }
        let started = Command::new(&self.options.program)
            .args(&self.options.arguments)
            // Its summary is nobody's; what it removes is told like every other transition.
            .args(["--verbose", "sweep"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        if let Err(error) = started {
            tracing::warn!("no sweep could be started: {error}");
        }
    }

    /// Leaves when there is nothing to do: the seat first, then one more look, so that a `submit`
    /// that still saw the seat is not left alone.
    fn leave_if_idle(&mut self) -> Option<Left> {
        if !self.is_idle() {
            self.busy_at = Instant::now();
            return None;
        }
        let patience = Duration::from_secs_f64(self.spool.settings().idle_exit_sec);
        let over = self.options.autostarted && self.busy_at.elapsed() >= patience;
        if !over && !self.options.drain {
            return None;
        }
        self.seat = None;
        if self.paused.is_some()
            && let Some(left) = self.leave_paused()
        {
            return Some(left);
        }
        if !self.something_came().unwrap_or(true) {
            return Some(Left::Idle);
        }
        self.return_to_work()
    }

    /// What waits in a paused spool is nobody's work; drops are taken in all the same.
    fn leave_paused(&self) -> Option<Left> {
        let waiting = self.waiting().ok()?;
        let has_drops = self.has_new_drops().ok()?;
        let is_paused = self.spool.is_paused().ok()?;
        (waiting > 0 && is_paused && !has_drops).then_some(Left::Paused(waiting))
    }

    /// Open tasks that nobody works on.
    fn waiting(&self) -> Result<usize, IoError> {
        let mut waiting = 0;
        for id in self.spool.open_ids()? {
            if let Some(task) = self.spool.task(id)? {
                waiting += usize::from(!task.is_worked_on()?);
            }
        }
        Ok(waiting)
    }

    fn is_idle(&self) -> bool {
        let waits_for_nobody =
            self.paused.is_some() && self.unlooked.is_empty() && !self.backlog.has_hurried();
        (self.backlog.is_empty() || waits_for_nobody)
            && self
                .launcher
                .running()
                .all(|(id, _)| self.backlog.is_broken(id))
            && self.reconcile.is_none()
            && !self.admitter.is_waiting()
    }

    fn something_came(&self) -> Result<bool, IoError> {
        let open = self.spool.open_ids()?;
        let is_open = open.into_iter().any(|id| !self.backlog.is_broken(id));
        Ok(is_open || self.has_new_drops()?)
    }

    fn has_new_drops(&self) -> Result<bool, IoError> {
        let files = self.spool.in_box()?;
        let is_new = |drop| !self.admitter.has_given_up(drop);
        Ok(files.drops.iter().any(is_new) || self.admitter.may_see(files.unseen.len()))
    }

    /// Work came in the moment of leaving: stay, unless another watcher was started for it.
    fn return_to_work(&mut self) -> Option<Left> {
        let turn = self.spool.start_lock(RETURN_PATIENCE);
        if self.spool.has_watcher().unwrap_or(false) {
            return Some(Left::Replaced);
        }
        match self.spool.take_seat(&describe(&self.options)) {
            Ok(seat) => self.seat = Some(seat),
            Err(error) => tracing::warn!("{error}"),
        }
        drop(turn);
        self.busy_at = Instant::now();
        self.next_rescan = Instant::now();
        None
    }

    fn wait(&self) {
        let now = Instant::now();
        let mut until = self.next_rescan;
        // With no room nothing can be offered, and an answer wakes us: a moment that has passed would
        // only keep us spinning.
        if self.paused.is_none() && self.launcher.has_room(self.most_at_once()) {
            until = until.min(self.backlog.wake_at().unwrap_or(until));
        }
        until = until.min(self.admitter.wake_at().unwrap_or(until));
        if self.root_in_doubt.is_some() {
            until = until.min(now + ROOT_LOOKS.1);
        }
        until = until.min(self.log_watch.wake_at().unwrap_or(until));
        let unlistened = self
            .launcher
            .running()
            .filter(|(id, _)| !self.listening.contains(id));
        until = until.min(
            unlistened
                .map(|(_, since)| since + LISTEN_AFTER)
                .min()
                .unwrap_or(until),
        );
        if self.options.autostarted && self.is_idle() {
            let patience = Duration::from_secs_f64(self.spool.settings().idle_exit_sec);
            until = until.min(self.busy_at + patience);
        }
        if let Some(service) = &self.service {
            until = until.min(service.wake_at(self.counts()).unwrap_or(until));
        }
        if self.reconcile.is_some() || !self.unlooked.is_empty() || self.admitter.has_more() {
            until = now;
        }
        let left = until.saturating_duration_since(now);
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds: Vec<PollFd<'_>> = [
            self.wake.as_fd(),
            self.signals.stop.as_fd(),
            self.signals.reload.as_fd(),
            self.signals.child.as_fd(),
        ]
        .into_iter()
        .chain(self.launcher.fds())
        .map(|fd: BorrowedFd<'_>| readable(fd))
        .collect();
        // Interrupted or failed: the loop looks again either way.
        let _ = poll(&mut fds, Some(&timeout));
    }
}

fn warn_if_deaf(wake: &Wake, spool: &Spool) {
    if let Some(why) = wake.is_deaf() {
        let pause = spool.settings().rescan_sec;
        tracing::warn!("looking by the clock only, every {pause} s: {why}");
    }
}

fn describe(options: &Options) -> WatcherFile {
    WatcherFile {
        v: FORMAT_VERSION,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        started_at: clock::wall(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        autostarted: options.autostarted,
    }
}

/// Reaps runners and sweeps that ended, and, as a container's first process, whoever came to us:
/// any child, of whatever group.
fn reap_strangers() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}
