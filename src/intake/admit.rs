//! How patient the watcher is with the drop box, and how much of it it takes at once.
//!
//! Not what a drop is (`spool/inbox/incoming.rs`), nor whose file is next (`rounds.rs`), nor what becomes of one
//! (`judge.rs`). Invariant: a file that is still being written is left alone, one that will never be right is refused, and neither makes the watcher busy.

use std::time::{Duration, Instant};

use crate::log_limit::LogLimit;
use crate::spool::{Admission, ControlFile, Controlled, DropFile, Rules, Spool, SubmitError};
use crate::task::{Event, Happened, TaskId, escape_label};

use super::box_memory::{Class, Face, Memory, Why};
use super::judge::{Decision, decide};
use super::recipe_check::check_recipe;
use super::rounds::Rounds;

/// How many drops are taken before everything else gets its turn.
const AT_ONCE: usize = 256;
/// For so long drops are read before everything else gets its turn, and then control files; longer only
/// where the listing took longer, so that a full box is not listed again for every few files.
const WORK_AT_ONCE: Duration = Duration::from_millis(50);
/// An incomplete drop is looked at again after this, even when nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A box full of what cannot be taken must not take the watcher's time: after a look that brought nothing
/// new, the clock brings the next one no sooner than so many times what that one took.
const LOOK_SHARE: u32 = 20;
/// After a failure (no room for one more open file, a disk that refuses) the next look comes so soon. Of several
/// looks with failures each waits twice as long as the one before it, and from some number on for the rescan.
const RETRY: Duration = Duration::from_millis(50);
const MOST_RETRIES: u32 = 5;

/// What is remembered of files that could not be taken yet.
#[derive(Debug, Default)]
pub(crate) struct Admitter {
    memory: Memory,
    drop_rounds: Rounds,
    control_rounds: Rounds,
    next_look: Option<Instant>,
    /// No sooner than this: others have the watcher as long as the last look had it.
    rest_until: Option<Instant>,
    more: bool,
    /// The next look also tries what was set aside.
    tries_all: bool,
    /// How many looks in a row had failures.
    failures: u32,
    /// How many files the last look could not see.
    unseen: usize,
}

/// One look into the box.
struct Look<'a> {
    spool: &'a Spool,
    rules: Rules<'a>,
    log: &'a mut LogLimit,
    /// The wall clock a second before it began, as file systems tell it.
    began_at: (i64, u64),
    patience: Duration,
    /// How long drops, and how long control files are taken.
    most: Duration,
    /// Whether what was set aside is tried as well.
    tries_all: bool,
    found: Admitted,
    /// Whether anything was learned or done that the last look did not know.
    is_progress: bool,
    /// Whether some files were left for the next look.
    is_cut: bool,
    /// Whether something failed that may work the next time.
    has_failed: bool,
}

/// What came out of a look into the box.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// The tasks made of drops.
    pub tasks: Vec<TaskId>,
    /// Tasks that are to be cancelled.
    pub cancelled: Vec<TaskId>,
    /// Why not all was done, if so.
    pub failed: Option<SubmitError>,
}

impl Look<'_> {
    fn report_refusal(&mut self, drop: &DropFile, id: TaskId, why: String) {
        // A file that bears another task's id says nothing of that task.
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

    /// For how long files of a class are taken. The clock brings back those that wait.
    fn longest(&self, class: Class) -> Duration {
        match class {
            Class::New | Class::Blocked | Class::Aside => self.most,
            Class::Waiting => WORK_AT_ONCE,
        }
    }
}

impl Admitter {
    /// Something changed in the box.
    pub fn notice(&mut self) {
        let soonest = self.rest_until.unwrap_or_else(Instant::now);
        self.next_look = Some(self.next_look.map_or(soonest, |at| at.min(soonest)));
    }

    /// The next look also tries what no look could take.
    pub fn try_all(&mut self) {
        self.tries_all = true;
    }

    /// Whether the last look left some for the next one.
    pub fn has_more(&self) -> bool {
        self.more || self.next_look.is_some_and(|at| at <= Instant::now())
    }

    /// Whether there are files that are not decided on.
    pub fn is_waiting(&self) -> bool {
        self.more || self.memory.has_undecided() || self.may_see(self.unseen)
    }

    /// Whether so many files that could not be seen are worth another look before the next rescan.
    pub fn may_see(&self, unseen: usize) -> bool {
        unseen > 0 && self.failures <= MOST_RETRIES
    }

    /// Whether a drop is one that only a person can do anything about.
    pub fn has_given_up(&self, drop: &DropFile) -> bool {
        self.memory.is_aside(drop.into())
    }

    /// When to look again at what is not complete.
    pub fn wake_at(&self) -> Option<Instant> {
        self.next_look
    }

    /// Finishes what a watcher that died left half admitted.
    pub fn replay(&self, spool: &Spool) -> Result<(), SubmitError> {
        let rules = Rules {
            check: &|request| check_recipe(spool, request),
            spent: &spool.spent_ids()?,
        };
        for admission in spool.replay_claims(rules)? {
            if let Admission::Task(id) = admission {
                tracing::info!(task = %id, "admitted what another watcher had begun");
            }
        }
        Ok(())
    }

    /// Admits what is complete, then does what the control files ask for.
    pub fn admit_some(
        &mut self,
        spool: &Spool,
        log: &mut LogLimit,
    ) -> Result<Admitted, SubmitError> {
        let begun = Instant::now();
        (self.more, self.next_look) = (false, None);
        let (found, has_failed) = match self.look(spool, log) {
            Ok((found, has_failed)) => (Ok(found), has_failed),
            Err(error) => (Err(error), true),
        };
        self.failures = if has_failed { self.failures + 1 } else { 0 };
        if has_failed && self.failures <= MOST_RETRIES {
            let soon = Instant::now() + RETRY * (1 << (self.failures - 1));
            self.next_look = Some(self.next_look.map_or(soon, |at| at.min(soon)));
        }
        self.rest_until = Some(Instant::now() + begun.elapsed());
        found
    }

    /// One look; also whether something failed in it that may work the next time.
    fn look(&mut self, spool: &Spool, log: &mut LogLimit) -> Result<(Admitted, bool), SubmitError> {
        let (begun, began_at) = (Instant::now(), crate::clock::wall());
        let tries_all = std::mem::take(&mut self.tries_all);
        let mut files = spool.in_box()?;
        self.unseen = files.unseen.len();
        let spent = spool.spent_ids()?;
        self.memory.forget_all_but(&files);
        let mut look = Look {
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
        look.found.failed = files.failed.take().map(SubmitError::from);
        self.take_drops(&files.drops, &mut look);
        self.take_controls(&files.controls, &mut look);
        // At once only after progress: what a full disk refused, it refuses again.
        self.more = look.is_cut && look.is_progress;
        if self.memory.has_waiting() {
            let pause = match look.is_progress {
                true => LOOK_AGAIN,
                false => LOOK_AGAIN.max(begun.elapsed() * LOOK_SHARE),
            };
            self.next_look = Some(Instant::now() + pause);
        }
        Ok((look.found, look.has_failed))
    }

    fn take_drops(&mut self, drops: &[DropFile], look: &mut Look<'_>) {
        let mut queue = Vec::with_capacity(drops.len());
        for drop in drops {
            let class = self.memory.class(drop.into(), look.patience);
            let is_left = match class {
                Class::New | Class::Blocked => false,
                // A box full of incomplete drops costs a look at each, not a reading.
                Class::Waiting => self.memory.was_read(drop.into()),
                Class::Aside => !look.tries_all,
            };
            if !is_left {
                queue.push((class, drop.user(), drop));
            }
        }
        let begun = Instant::now();
        let mut taken = 0;
        let queue = self.drop_rounds.order(queue);
        for (at, (class, user, drop)) in queue.into_iter().enumerate() {
            if taken == AT_ONCE || (at > 0 && begun.elapsed() > look.longest(class)) {
                look.is_cut |= class != Class::Waiting;
                return;
            }
            self.drop_rounds.serve(user);
            look.is_progress |= class == Class::New;
            let since = self.memory.unchanged_since(drop.into());
            match decide(drop, look.spool, look.rules, since, look.patience) {
                Ok(Decision::Wait) => {
                    let read = look.began_at;
                    self.memory
                        .remember(drop.into(), Why::Waits { since, read });
                    continue;
                }
                Err(error) => {
                    self.leave(drop.into(), error, look);
                    continue;
                }
                Ok(Decision::Gone) => {}
                Ok(Decision::Refused(id, why)) => {
                    taken += 1;
                    look.report_refusal(drop, id, why);
                }
                Ok(Decision::Admitted(id)) => {
                    taken += 1;
                    look.found.tasks.push(id);
                }
            }
            look.is_progress = true;
            self.memory.forget(drop.into());
        }
    }

    fn take_controls(&mut self, controls: &[ControlFile], look: &mut Look<'_>) {
        let mut queue = Vec::with_capacity(controls.len());
        for file in controls {
            match self.memory.class(file.into(), look.patience) {
                // What it waited for has come.
                Class::Waiting if look.found.tasks.contains(&file.task()) => {
                    queue.push((Class::New, file.user(), file));
                }
                Class::Aside if !look.tries_all => {}
                class => queue.push((class, file.user(), file)),
            }
        }
        let begun = Instant::now();
        let queue = self.control_rounds.order(queue);
        for (at, (class, user, file)) in queue.into_iter().enumerate() {
            if at > 0 && begun.elapsed() > look.longest(class) {
                look.is_cut |= class != Class::Waiting;
                return;
            }
            self.control_rounds.serve(user);
            look.is_progress |= class == Class::New;
            let since = self.memory.unchanged_since(file.into());
            let is_patient = since.elapsed() < look.patience;
            match look.spool.obey(file, is_patient, look.rules.spent) {
                Ok(Controlled::Early) => {
                    let read = look.began_at;
                    self.memory
                        .remember(file.into(), Why::Waits { since, read });
                    continue;
                }
                Err(error) => {
                    self.leave(file.into(), error.into(), look);
                    continue;
                }
                Ok(Controlled::Done(control)) => look.found.cancelled.push(control.task),
                Ok(Controlled::Pointless) => {}
                Ok(Controlled::Rejected(why)) => {
                    if look.log.allows("control files refused") {
                        let label = escape_label(file.file_name().as_encoded_bytes());
                        tracing::warn!(control = label, "refused: {why}");
                    }
                }
            }
            look.is_progress = true;
            self.memory.forget(file.into());
        }
    }

    /// A file that cannot be taken waits for the disk, or is left to a person, who is told once.
    fn leave(&mut self, file: Face<'_>, error: SubmitError, look: &mut Look<'_>) {
        let why = match error {
            SubmitError::Io(error) if error.is_unusable() || error.is_immovable() => Some(error),
            SubmitError::Io(error)
                if error.path.file_name() == Some(file.name) && !error.is_no_space() =>
            {
                // An error may come and go; one that comes again is the file's.
                self.memory.has_failed(file).then_some(error)
            }
            error => {
                // What can be refused or cancelled goes on.
                look.found.failed = Some(error);
                None
            }
        };
        let Some(error) = why else {
            look.has_failed = true;
            return self.memory.remember(file, Why::Blocked);
        };
        if !self.memory.is_aside(file) && look.log.allows("files left in the box") {
            let label = escape_label(file.name.as_encoded_bytes());
            tracing::warn!(file = label, "left in the box: {error}");
        }
        self.memory.remember(file, Why::Aside);
    }
}

fn patience(spool: &Spool) -> Duration {
    Duration::from_secs_f64(spool.settings().drop_patience_sec)
}
