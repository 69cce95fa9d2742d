//! Admits drops and obeys control files: when files are taken, how many at once, and when they are tried
//! again.
//!
//! Does not read a drop (`spool/inbox/incoming.rs`), order the files (`rounds.rs`) or decide about one
//! (`judge.rs`). Invariant: a file that is still being written is left alone, a file that can never be
//! valid is refused, and neither keeps the watcher busy.

use std::time::{Duration, Instant};

use crate::log_limit::LogLimit;
use crate::spool::{Admission, ControlFile, Controlled, DropFile, Rules, Spool, SubmitError};
use crate::task::{Event, Happened, TaskId, escape_label};

use super::box_memory::{Class, Face, Memory, Why};
use super::judge::{Decision, decide};
use super::recipe_check::check_recipe;
use super::rounds::Rounds;

/// The number of drops that are taken before other work continues.
const AT_ONCE: usize = 256;
/// How long drops are read before other work continues, and how long control files are. A pass takes
/// longer only if the listing took longer, so that a full drop box is not listed again for every few
/// files.
const WORK_AT_ONCE: Duration = Duration::from_millis(50);
/// An incomplete drop is checked again after this time, even without an event.
const CHECK_AGAIN: Duration = Duration::from_millis(500);
/// A drop box full of files that cannot be taken must not use up the watcher's time. After a pass without
/// progress, the next timed pass comes no sooner than this many times the duration of that pass.
const PASS_SHARE: u32 = 20;
/// The delay of the next pass after a failure (for example too many open files, or a full disk). It
/// doubles with each failed pass in a row. After [`MOST_RETRIES`] of them the next try is at the rescan.
const RETRY: Duration = Duration::from_millis(50);
const MOST_RETRIES: u32 = 5;

/// What is remembered about files that could not be taken yet.
#[derive(Debug, Default)]
pub(crate) struct Admitter {
    memory: Memory,
    drop_rounds: Rounds,
    control_rounds: Rounds,
    next_pass: Option<Instant>,
    /// The earliest time of the next pass: other work gets as much time as the last pass took.
    rest_until: Option<Instant>,
    more: bool,
    /// Whether the next pass also tries files that were set aside.
    tries_all: bool,
    /// The number of failed passes in a row.
    failures: u32,
    /// The number of files that the last pass could not read.
    unseen: usize,
}

/// One pass over the drop box.
struct Pass<'a> {
    spool: &'a Spool,
    rules: Rules<'a>,
    log: &'a mut LogLimit,
    /// The wall clock one second before the pass started, in the form of file timestamps: seconds and
    /// nanoseconds.
    began_at: (i64, u64),
    patience: Duration,
    /// How long drops are taken, and then control files.
    most: Duration,
    /// Whether files that were set aside are tried too.
    tries_all: bool,
    found: Admitted,
    /// Whether the pass found or did anything new.
    is_progress: bool,
    /// Whether files were left for the next pass.
    is_cut: bool,
    /// Whether something failed that may work the next time.
    has_failed: bool,
}

/// The outcome of a pass over the drop box.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// The tasks created from drops.
    pub tasks: Vec<TaskId>,
    /// Tasks that are to be cancelled.
    pub cancelled: Vec<TaskId>,
    /// The error that prevented part of the work, if there was one.
    pub failed: Option<SubmitError>,
}

impl Pass<'_> {
    fn report_refusal(&mut self, drop: &DropFile, id: TaskId, why: String) {
        // A file whose name is another task's id must not appear in events about that task.
        let is_id = drop.label().parse::<TaskId>().is_ok();
        let event = Event {
            drop: Some(if is_id { id.to_string() } else { drop.label() }),
            message: Some(why),
            ..Event::new(Happened::Refused)
        };
        if self.log.allows("drops refused") {
            self.spool.emit(event);
        } else {
            self.spool.record(event);
        }
    }

    /// How long files of a class are taken. Waiting files are tried again at the next timed pass.
    fn longest(&self, class: Class) -> Duration {
        match class {
            Class::New | Class::Blocked | Class::Aside => self.most,
            Class::Waiting => WORK_AT_ONCE,
        }
    }
}

impl Admitter {
    /// Called when something changed in the drop box.
    pub fn notice(&mut self) {
        let soonest = self.rest_until.unwrap_or_else(Instant::now);
        self.next_pass = Some(self.next_pass.map_or(soonest, |at| at.min(soonest)));
    }

    /// The next pass also tries files that no pass could take.
    pub fn try_all(&mut self) {
        self.tries_all = true;
    }

    /// Whether the last pass left files for the next one.
    pub fn has_more(&self) -> bool {
        self.more || self.next_pass.is_some_and(|at| at <= Instant::now())
    }

    /// Whether there are files that are not decided yet.
    pub fn is_waiting(&self) -> bool {
        self.more || self.memory.has_undecided() || self.may_see(self.unseen)
    }

    /// Whether another pass before the next rescan may read `unseen` files that could not be read.
    pub fn may_see(&self, unseen: usize) -> bool {
        unseen > 0 && self.failures <= MOST_RETRIES
    }

    /// Whether only a person can do anything about a drop.
    pub fn has_given_up(&self, drop: &DropFile) -> bool {
        self.memory.is_aside(drop.into())
    }

    /// When the next timed pass is due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.next_pass
    }

    /// Finishes admissions that a killed watcher left unfinished.
    pub fn replay(&self, spool: &Spool) -> Result<(), SubmitError> {
        let rules = Rules {
            check: &|request| check_recipe(spool, request),
            spent: &spool.spent_ids()?,
        };
        for admission in spool.replay_claims(rules)? {
            if let Admission::Task(id) = admission {
                tracing::info!(task = %id, "admitted a drop that another watcher had started to admit");
            }
        }
        Ok(())
    }

    /// Admits complete drops, then does what the control files request.
    pub fn admit_some(
        &mut self,
        spool: &Spool,
        log: &mut LogLimit,
    ) -> Result<Admitted, SubmitError> {
        let begun = Instant::now();
        (self.more, self.next_pass) = (false, None);
        let (found, has_failed) = match self.pass(spool, log) {
            Ok((found, has_failed)) => (Ok(found), has_failed),
            Err(error) => (Err(error), true),
        };
        self.failures = if has_failed { self.failures + 1 } else { 0 };
        if has_failed && self.failures <= MOST_RETRIES {
            let soon = Instant::now() + RETRY * (1 << (self.failures - 1));
            self.next_pass = Some(self.next_pass.map_or(soon, |at| at.min(soon)));
        }
        self.rest_until = Some(Instant::now() + begun.elapsed());
        found
    }

    /// Makes one pass. Also returns whether something failed that may work the next time.
    fn pass(&mut self, spool: &Spool, log: &mut LogLimit) -> Result<(Admitted, bool), SubmitError> {
        let (begun, began_at) = (Instant::now(), crate::clock::wall());
        let tries_all = std::mem::take(&mut self.tries_all);
        let mut files = spool.in_box()?;
        self.unseen = files.unseen.len();
        let spent = spool.spent_ids()?;
        self.memory.forget_all_but(&files);
        let mut pass = Pass {
            spool,
            rules: Rules {
                check: &|request| check_recipe(spool, request),
                spent: &spent,
            },
            log,
            began_at: (began_at.unix_ms() / 1000 - 1, 0),
            patience: patience(spool),
            most: begun.elapsed().max(WORK_AT_ONCE),
            tries_all,
            found: Admitted::default(),
            is_progress: false,
            is_cut: false,
            has_failed: files.failed.is_some(),
        };
        pass.found.failed = files.failed.take().map(SubmitError::from);
        self.take_drops(&files.drops, &mut pass);
        self.take_controls(&files.controls, &mut pass);
        // Immediately only after progress: a full disk would refuse the same files again.
        self.more = pass.is_cut && pass.is_progress;
        if self.memory.has_waiting() {
            let pause = match pass.is_progress {
                true => CHECK_AGAIN,
                false => CHECK_AGAIN.max(begun.elapsed() * PASS_SHARE),
            };
            self.next_pass = Some(Instant::now() + pause);
        }
        Ok((pass.found, pass.has_failed))
    }

    fn take_drops(&mut self, drops: &[DropFile], pass: &mut Pass<'_>) {
        let mut queue = Vec::with_capacity(drops.len());
        for drop in drops {
            let class = self.memory.class(drop.into(), pass.patience);
            let is_left = match class {
                Class::New | Class::Blocked => false,
                // Incomplete drops are checked but not read again.
                Class::Waiting => self.memory.was_read(drop.into()),
                Class::Aside => !pass.tries_all,
            };
            if !is_left {
                queue.push((class, drop.user(), drop));
            }
        }
        let begun = Instant::now();
        let mut taken = 0;
        let queue = self.drop_rounds.order(queue);
        for (at, (class, user, drop)) in queue.into_iter().enumerate() {
            if taken == AT_ONCE || (at > 0 && begun.elapsed() > pass.longest(class)) {
                // Files of other classes may still have time.
                pass.is_cut |= class != Class::Waiting;
                continue;
            }
            self.drop_rounds.serve(user);
            pass.is_progress |= class == Class::New;
            let since = self.memory.unchanged_since(drop.into());
            match decide(drop, pass.spool, pass.rules, since, pass.patience) {
                Ok(Decision::Wait) => {
                    let read = pass.began_at;
                    self.memory
                        .remember(drop.into(), Why::Waits { since, read });
                    continue;
                }
                Err(error) => {
                    self.leave(drop.into(), error, pass);
                    continue;
                }
                Ok(Decision::Gone) => {}
                Ok(Decision::Refused(id, why)) => {
                    taken += 1;
                    pass.report_refusal(drop, id, why);
                }
                Ok(Decision::Admitted(id)) => {
                    taken += 1;
                    pass.found.tasks.push(id);
                }
            }
            pass.is_progress = true;
            self.memory.forget(drop.into());
        }
    }

    fn take_controls(&mut self, controls: &[ControlFile], pass: &mut Pass<'_>) {
        let mut queue = Vec::with_capacity(controls.len());
        for file in controls {
            match self.memory.class(file.into(), pass.patience) {
                // Its task was admitted in this pass.
                Class::Waiting if pass.found.tasks.contains(&file.task()) => {
                    queue.push((Class::New, file.user(), file));
                }
                Class::Aside if !pass.tries_all => {}
                class => queue.push((class, file.user(), file)),
            }
        }
        let begun = Instant::now();
        let queue = self.control_rounds.order(queue);
        for (at, (class, user, file)) in queue.into_iter().enumerate() {
            if at > 0 && begun.elapsed() > pass.longest(class) {
                pass.is_cut |= class != Class::Waiting;
                continue;
            }
            self.control_rounds.serve(user);
            pass.is_progress |= class == Class::New;
            let since = self.memory.unchanged_since(file.into());
            let is_patient = since.elapsed() < pass.patience;
            match pass.spool.obey(file, is_patient, pass.rules.spent) {
                Ok(Controlled::Early) => {
                    let read = pass.began_at;
                    self.memory
                        .remember(file.into(), Why::Waits { since, read });
                    continue;
                }
                Err(error) => {
                    self.leave(file.into(), error.into(), pass);
                    continue;
                }
                Ok(Controlled::Done(control)) => pass.found.cancelled.push(control.task),
                Ok(Controlled::Pointless) => {}
                Ok(Controlled::Rejected(why)) => {
                    if pass.log.allows("control files refused") {
                        let label = escape_label(file.file_name().as_encoded_bytes());
                        tracing::warn!(control = label, "refused: {why}");
                    }
                }
            }
            pass.is_progress = true;
            self.memory.forget(file.into());
        }
    }

    /// Keeps a file that cannot be taken. It is tried again if the disk refused it. If the file itself is
    /// the cause, it is left to a person, which is reported once.
    fn leave(&mut self, file: Face<'_>, error: SubmitError, pass: &mut Pass<'_>) {
        let why = match error {
            SubmitError::Io(error) if error.is_unusable() || error.is_immovable() => Some(error),
            SubmitError::Io(error)
                if error.path.file_name() == Some(file.name) && !error.is_no_space() =>
            {
                // An error may be temporary. If it occurs again, the file is the cause.
                self.memory.has_failed(file).then_some(error)
            }
            error => {
                // The pass continues with files that can be refused or cancelled.
                pass.found.failed = Some(error);
                None
            }
        };
        let Some(error) = why else {
            pass.has_failed = true;
            return self.memory.remember(file, Why::Blocked);
        };
        if !self.memory.is_aside(file) && pass.log.allows("files left in the box") {
            let label = escape_label(file.name.as_encoded_bytes());
            tracing::warn!(file = label, "left in the box: {error}");
        }
        self.memory.remember(file, Why::Aside);
    }
}

fn patience(spool: &Spool) -> Duration {
    Duration::from_secs_f64(spool.settings().drop_patience_sec)
}
