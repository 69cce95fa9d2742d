//! The watcher's loop: handles events, does what is due, offers tasks, and exits.
//!
//! Does not order the offers (`backlog.rs`) or decide whether anything is left to do (`idle.rs`).
//! Invariant: a round waits only at its end, for whatever happens first.

use std::path::Path;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::idle::Work;
use super::listen::Listener;
use super::log_watch::LogWatch;
use super::markers::Markers;
use super::options::{Left, Options, WatchError, arguments, describe};
use super::reconcile::Reconcile;
use super::root::RootWatch;
use super::service::{Counts, Service};
use super::shutdown::{is_first_process, reap_strangers, stop_tasks};
use super::signals::Signals;
use super::sweeps::Sweeps;
use crate::config::Overrides;
use crate::intake::Admitter;
use crate::launcher::LocalPool;
use crate::log_limit::LogLimit;
use crate::proc;
use crate::spool::{Pause, Seen, Spool, SubmitError, WatcherLock};
use crate::task::{Answer, TaskId, When, Why};

/// How long to wait for the start lock when work arrived while exiting.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);
/// After another watcher exited, its tasks are checked after this time. The kernel needs a moment to
/// release its locks.
const AFTER_ANOTHER: Duration = Duration::from_millis(50);

/// One watcher process.
pub struct Watcher {
    pub(super) spool: Spool,
    pub(super) options: Options,
    pub(super) watcher_lock: Option<WatcherLock>,
    pub(super) listener: Listener,
    pub(super) signals: Signals,
    pub(super) launcher: LocalPool,
    /// The service manager; none if a command started this watcher.
    pub(super) service: Option<Service>,
    pub(super) backlog: Backlog,
    pub(super) admitter: Admitter,
    pub(super) markers: Markers,
    pub(super) reconcile: Reconcile,
    pub(super) next_rescan: Instant,
    pub(super) sweeps: Sweeps,
    pub(super) log_watch: LogWatch,
    pub(super) log: LogLimit,
    pub(super) busy_at: Instant,
    pub(super) paused: Option<Pause>,
    is_breached: bool,
    pub(super) root: RootWatch,
}

impl Watcher {
    /// Opens the spool, takes the watcher's lock and starts to listen. From then on `submit` sees a
    /// watcher.
    ///
    /// `None` if a command started this watcher under the start lock, and another watcher started
    /// earlier.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn open(
        path: &Path,
        overrides: Overrides,
        options: Options,
    ) -> Result<Option<Watcher>, WatchError> {
        let spool = Spool::open(path, overrides)?;
        if options.autostarted && spool.has_watcher()? {
            return Ok(None);
        }
        Watcher::new(spool, options).map(Some)
    }

    fn new(spool: Spool, mut options: Options) -> Result<Watcher, WatchError> {
        if !spool.is_owner() {
            return Err(WatchError::NotOwner(spool.path().to_owned()));
        }
        if spool.is_group()
            && let Some(exposed) = spool.exposed_above()?
        {
            let path = spool.path().to_owned();
            return Err(WatchError::Exposed { path, exposed });
        }
        // Must run before a second thread is started: the process that started this one may block TERM.
        proc::unblock_signals();
        options.stop_tasks |= is_first_process();
        let signals = Signals::new(is_first_process()).map_err(WatchError::Signals)?;
        let watcher_lock = Some(spool.lock_watcher_file(&describe(&options))?);
        let listener = Listener::new(&spool)?;
        let now = Instant::now();
        let reconcile = Reconcile::new(&spool)?;
        Ok(Watcher {
            launcher: LocalPool::new(options.program.clone(), arguments(&spool, &options)),
            service: (!options.autostarted).then(Service::new),
            backlog: Backlog::default(),
            admitter: Admitter::default(),
            markers: Markers::default(),
            reconcile,
            next_rescan: now,
            sweeps: Sweeps::new(&spool),
            log_watch: LogWatch::new(options.autostarted),
            log: LogLimit::default(),
            busy_at: now,
            paused: None,
            is_breached: false,
            root: RootWatch::default(),
            spool,
            options,
            watcher_lock,
            listener,
            signals,
        })
    }

    /// The path of the spool, as it was when it was opened.
    pub fn path(&self) -> &Path {
        self.spool.path()
    }

    /// The number of tasks that its runners have.
    pub fn running(&self) -> usize {
        self.launcher.running().count()
    }

    /// Watches until it is asked to stop or has nothing to do.
    pub fn run(&mut self) -> Left {
        loop {
            let is_asked = self.signals.reload.came();
            if is_asked {
                // The caller expects the new settings to apply now, not at the next event.
                self.next_rescan = Instant::now();
                if let Some(service) = &self.service {
                    service.reloading();
                }
            }
            let seen = self.listener.take();
            if self.root.has_moved(&self.spool, &seen) {
                return self.leave(Left::Moved);
            }
            self.check_pause();
            self.take_in(&seen);
            if is_asked && let Some(service) = &self.service {
                service.reloaded();
            }
            if self.signals.child.came() {
                reap_strangers();
            }
            self.read_answers();
            self.dispatch();
            self.log_watch.check(&self.spool);
            self.listener.listen_to_running(&mut self.launcher);
            let has_found = self.compare();
            if self.signals.stop.came() {
                if self.options.stop_tasks {
                    stop_tasks(&self.spool, &mut self.launcher, &self.signals.stop);
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

    /// Reports once that the spool is paused, and once that it is resumed.
    fn check_pause(&mut self) {
        let paused = self.spool.paused().unwrap_or_else(|error| {
            if self.log.allows("failed checks for a pause") {
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

    pub(super) fn counts(&self) -> Counts {
        let open = self.backlog.len();
        let ours = self.launcher.running().count();
        let running = ours + self.backlog.elsewhere();
        Counts {
            pending: open.saturating_sub(running),
            running,
        }
    }

    /// Handles what happened. When the rescan is due, handles everything, whatever events there were.
    fn take_in(&mut self, seen: &Seen) {
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
            self.launcher.check_marker(*id);
        }
    }

    fn rescan(&mut self) {
        self.reload();
        self.listener.restart_if_astray(&self.spool);
        // The interval starts at the end of a scan, however long it took.
        if let Err(error) = self.scan() {
            tracing::warn!("{error}");
        }
        self.reconcile.record_if_refused(&self.spool);
        self.log.flush();
        self.launcher.dismiss_idle();
        reap_strangers();
        proc::remove_left_cgroups();
        self.sweeps.start_if_due(&self.spool, &self.options);
        let pause = Duration::from_secs_f64(self.spool.settings().rescan_sec);
        self.next_rescan = Instant::now() + pause;
    }

    fn scan(&mut self) -> Result<(), SubmitError> {
        let open = self.spool.open_ids()?;
        self.backlog.reset(&open);
        self.markers.begin(&self.backlog);
        // A claim that cannot be finished must not block the drop box.
        if let Err(error) = self.admitter.replay(&self.spool) {
            tracing::warn!(
                "drops that another watcher started to admit are still waiting: {error}"
            );
        }
        self.admitter.try_all();
        self.admit();
        Ok(())
    }

    fn admit(&mut self) {
        match self.admitter.admit_some(&self.spool, &mut self.log) {
            Ok(admitted) => {
                self.backlog.add(admitted.tasks);
                for id in admitted.cancelled {
                    self.launcher.check_marker(id);
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

    /// Nothing is lost: the drops stay in the drop box.
    fn drops_wait(&mut self, error: &SubmitError) {
        if self.log.allows("drops wait") {
            tracing::warn!("drops wait: {error}");
        }
    }

    /// Checks a few tasks for changes without events. Returns whether there were any.
    fn compare(&mut self) -> bool {
        let (spool, backlog) = (&self.spool, &mut self.backlog);
        let has_marker = self.markers.check_some(spool, backlog);
        let has_task = self.reconcile.check_some(spool, backlog, &mut self.log);
        let runs = self.launcher.running().next().is_some();
        let is_busy = runs && Instant::now() < self.next_rescan;
        self.reconcile.compare_if_due(spool, is_busy);
        has_marker | has_task
    }

    fn read_answers(&mut self) {
        for (id, answer) in self.launcher.answers() {
            if !answer.is_for_a_person() {
                self.busy_at = Instant::now();
            }
            self.listener.leave_task(id);
            tracing::debug!(task = %id, "{answer}");
            self.backlog.answered(id, answer, Instant::now());
        }
    }

    fn dispatch(&mut self) {
        let limit = self.most_at_once();
        loop {
            let now = Instant::now();
            // Cancelled tasks need no slot, so one more runner may be used for them.
            let id = if self.paused.is_none() && self.launcher.has_room(limit) {
                self.backlog.next(now)
            } else if self.launcher.has_room(limit + 1) {
                self.backlog.next_hurried()
            } else {
                None
            };
            let Some(id) = id else { return };
            // The next round exits or tries again: no runner could open the spool.
            if !self.spool.is_at_its_path() || self.is_open_to_others() {
                self.backlog
                    .answered(id, Answer::Retry(When::Soon, Why::NoStarts), now);
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
                    tracing::error!("failed to start a runner: {error}");
                }
                self.backlog
                    .answered(id, Answer::Retry(When::Soon, Why::NoRunner), now);
                return;
            }
        }
    }

    /// Whether others can write in the spool now. It is reported once.
    fn is_open_to_others(&mut self) -> bool {
        let breach = self.spool.breach().ok().flatten();
        if let Some(breach) = breach.as_ref().filter(|_| !self.is_breached) {
            tracing::warn!("no task is started: {}: {}", breach.problem(), breach.fix());
        }
        self.is_breached = breach.is_some();
        self.is_breached
    }

    /// The answer of a runner for a task that another process holds, for example a task of an earlier
    /// watcher. It is determined here because a runner takes a slot before it tries the task's lock: many
    /// such tasks would leave no slot for those that wait for one.
    fn held_elsewhere(&self, id: TaskId) -> Option<Answer> {
        let task = self.spool.task(id).ok()??;
        if !task.is_held().ok()? {
            return None;
        }
        Some(Answer::held(task.last_attempt().is_ok_and(|last| last > 0)))
    }

    pub(super) fn most_at_once(&self) -> usize {
        self.spool.settings().max_concurrent as usize
    }

    fn reload(&mut self) {
        match self.spool.reload() {
            Ok(true) => tracing::info!("settings read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!("the old settings stay in effect: {error}"),
        }
    }

    /// Exits if there is nothing to do. Releases the watcher's lock first and then checks once more: a
    /// `submit` that still saw the lock has published its task before.
    fn leave_if_idle(&mut self) -> Option<Left> {
        if !self.work().is_idle() {
            self.busy_at = Instant::now();
            return None;
        }
        let patience = Duration::from_secs_f64(self.spool.settings().idle_exit_sec);
        let over = self.options.autostarted && self.busy_at.elapsed() >= patience;
        if !over && !self.options.drain {
            return None;
        }
        self.watcher_lock = None;
        if self.paused.is_some()
            && let Some(waiting) = self.work().waits_paused()
        {
            return Some(Left::Paused(waiting));
        }
        if !self.work().something_came().unwrap_or(true) {
            return Some(Left::Idle);
        }
        self.return_to_work()
    }

    pub(super) fn work(&self) -> Work<'_> {
        Work {
            spool: &self.spool,
            backlog: &self.backlog,
            admitter: &self.admitter,
            launcher: &self.launcher,
            markers: &self.markers,
            reconcile: &self.reconcile,
            is_paused: self.paused.is_some(),
        }
    }

    /// Work arrived while exiting: stay, unless another watcher was started for it.
    fn return_to_work(&mut self) -> Option<Left> {
        let start_lock = self.spool.start_lock(RETURN_PATIENCE);
        if self.spool.has_watcher().unwrap_or(false) {
            return Some(Left::Replaced);
        }
        match self.spool.lock_watcher_file(&describe(&self.options)) {
            Ok(watcher_lock) => self.watcher_lock = Some(watcher_lock),
            Err(error) => tracing::warn!("{error}"),
        }
        drop(start_lock);
        self.busy_at = Instant::now();
        self.next_rescan = Instant::now();
        None
    }
}
