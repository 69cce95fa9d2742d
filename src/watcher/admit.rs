//! How patient the watcher is with the drop box.
//!
//! Not what a drop is (`spool/incoming.rs`). Invariant: a file that is still being written is left
//! alone, one that will never be right is refused, and neither makes the watcher busy.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use crate::recipe::{FindError, RecipePath, Trust};
use crate::spool::{
    Admission, ControlFile, Controlled, DropFile, DropRefusal, Fingerprint, IoError, Pickup, Rules,
    Spool, SubmitError,
};
use crate::task::{Request, TaskId, escape_label, session_of};

/// How many drops are looked at before everything else gets its turn.
const AT_ONCE: usize = 256;
/// An incomplete drop is looked at again after this, even when nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A box full of what cannot be taken must not take the watcher's time: a look by the clock comes no
/// sooner than so many times what the last one took.
const LOOK_SHARE: u32 = 20;

/// What is remembered of drops that could not be taken yet.
#[derive(Debug, Default)]
pub(super) struct Admitter {
    waiting: HashMap<OsString, (Fingerprint, Instant)>,
    /// What we may not move, told once; a person must mend it.
    immovable: HashMap<OsString, Fingerprint>,
    next_look: Option<Instant>,
    /// The wall clock a second before the last look, in seconds and nanoseconds, as file systems tell it:
    /// what is older was looked at as it is.
    last_look: Option<(i64, u64)>,
    /// No sooner than this: others have the watcher as long as the last look had it.
    rest_until: Option<Instant>,
    more: bool,
}

/// One look into the box.
#[derive(Default)]
struct Look {
    found: Admitted,
    waiting: HashMap<OsString, (Fingerprint, Instant)>,
    immovable: HashMap<OsString, Fingerprint>,
}

/// What came out of a look into the box.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The tasks made of drops.
    pub tasks: Vec<TaskId>,
    /// Tasks that are to be cancelled.
    pub cancelled: Vec<TaskId>,
    /// Why not all was done, if so.
    pub failed: Option<SubmitError>,
}

/// What became of a drop.
enum Decision {
    Admitted(TaskId),
    Refused,
    /// Unchanged since then, and not complete.
    Wait(Instant),
    /// Somebody else has it, or it is another file now.
    Gone,
}

impl Admitter {
    /// Something changed in the box.
    pub fn notice(&mut self) {
        let soonest = self.rest_until.unwrap_or_else(Instant::now);
        self.next_look = Some(self.next_look.map_or(soonest, |at| at.min(soonest)));
    }

    /// Whether the last look left some for the next one.
    pub fn has_more(&self) -> bool {
        self.more || self.next_look.is_some_and(|at| at <= Instant::now())
    }

    /// Whether there are drops that are not decided on.
    pub fn is_waiting(&self) -> bool {
        self.more || !self.waiting.is_empty()
    }

    /// Whether a drop is one that only a person can do anything about.
    pub fn has_given_up(&self, drop: &DropFile) -> bool {
        self.immovable.get(drop.file_name()) == Some(&drop.seen())
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
    pub fn admit_some(&mut self, spool: &Spool) -> Result<Admitted, SubmitError> {
        let (begun, began_at) = (Instant::now(), crate::clock::wall());
        // First: where the disk refuses even a listing, the next rescan tries again and nothing sooner.
        (self.more, self.next_look) = (false, None);
        // One more than is taken: whether there are more is known without listing again.
        let aside = self.waiting.len() + self.immovable.len();
        let most = AT_ONCE + aside + 1;
        let drops = spool.drops(most)?;
        let controls = spool.controls(most)?;
        let rules = Rules {
            check: &|request| check_recipe(spool, request),
            spent: &spool.spent_ids()?,
        };
        self.more = controls.len() == most;
        let mut look = Look::default();
        let mut taken = 0;
        for drop in &drops {
            if taken == AT_ONCE {
                self.more = true;
                break;
            }
            match self.decide(spool, drop, rules) {
                Ok(Decision::Gone) => {}
                Ok(Decision::Refused) => taken += 1,
                Ok(Decision::Admitted(id)) => {
                    taken += 1;
                    look.found.tasks.push(id);
                }
                Ok(Decision::Wait(since)) => {
                    let name = drop.file_name().to_owned();
                    look.waiting.insert(name, (drop.seen(), since));
                }
                // Somebody's folder or an immutable file: it must not keep the others waiting.
                Err(SubmitError::Io(error)) if error.is_unusable() || error.is_immovable() => {
                    if !self.has_given_up(drop) {
                        tracing::warn!(drop = drop.label(), "left in the box: {error}");
                    }
                    look.immovable
                        .insert(drop.file_name().to_owned(), drop.seen());
                }
                // No room, or a disk that refuses: what can be refused or cancelled goes on.
                Err(error) => look.found.failed = Some(error),
            }
        }
        for control in &controls {
            self.obey(spool, control, rules, &mut look);
        }
        if !look.waiting.is_empty() {
            let pause = LOOK_AGAIN.max(begun.elapsed() * LOOK_SHARE);
            self.next_look = Some(Instant::now() + pause);
        }
        self.last_look = Some((began_at.unix_ms() / 1000 - 1, 0));
        self.rest_until = Some(Instant::now() + begun.elapsed());
        (self.waiting, self.immovable) = (look.waiting, look.immovable);
        Ok(look.found)
    }

    /// What becomes of one drop.
    fn decide(
        &self,
        spool: &Spool,
        drop: &DropFile,
        rules: Rules<'_>,
    ) -> Result<Decision, SubmitError> {
        if drop.is_folder() {
            let path = spool.path().join("incoming").join(drop.file_name());
            return Err(IoError::new("take", path, rustix::io::Errno::ISDIR).into());
        }
        // Looked at before and nothing new: a box full of such drops costs a look at each, not a reading.
        if let Some((seen, since)) = self.waiting.get(drop.file_name())
            && *seen == drop.seen()
            && self.last_look.is_some_and(|last| drop.arrived() < last)
            && since.elapsed() < patience(spool)
        {
            return Ok(Decision::Wait(*since));
        }
        let why = match spool.look_at(drop)? {
            Pickup::Gone => return Ok(Decision::Gone),
            Pickup::Ready(request, bytes) => return take(spool, drop, *request, &bytes, rules),
            Pickup::NotYet(why) => {
                let since = self.unchanged_since(drop.file_name(), drop.seen());
                if since.elapsed() < patience(spool) {
                    return Ok(Decision::Wait(since));
                }
                why
            }
            Pickup::Refused(why) => why,
        };
        refuse(spool, drop, why, rules)
    }

    /// Does what one control file asks for.
    fn obey(&self, spool: &Spool, file: &ControlFile, rules: Rules<'_>, look: &mut Look) {
        let name = file.file_name();
        let since = self.unchanged_since(name, file.seen());
        match spool.obey(file, since.elapsed() < patience(spool), rules.spent) {
            Ok(Controlled::Done(control)) => look.found.cancelled.push(control.task),
            Ok(Controlled::Pointless) => {}
            Ok(Controlled::Early) => {
                look.waiting.insert(name.to_owned(), (file.seen(), since));
            }
            Ok(Controlled::Rejected(why)) => {
                let label = escape_label(name.as_encoded_bytes());
                tracing::warn!(control = label, "refused: {why}");
            }
            Err(error) if error.is_unusable() || error.is_immovable() => {
                if self.immovable.get(name) != Some(&file.seen()) {
                    let label = escape_label(name.as_encoded_bytes());
                    tracing::warn!(control = label, "left in the box: {error}");
                }
                look.immovable.insert(name.to_owned(), file.seen());
            }
            Err(error) => look.found.failed = Some(error.into()),
        }
    }

    /// Since when this very file has stood as it is, as far as this watcher saw.
    fn unchanged_since(&self, name: &OsStr, now: Fingerprint) -> Instant {
        match self.waiting.get(name) {
            Some((seen, since)) if *seen == now => *since,
            _ => Instant::now(),
        }
    }
}

fn patience(spool: &Spool) -> Duration {
    Duration::from_secs_f64(spool.settings().drop_patience_sec)
}

fn take(
    spool: &Spool,
    drop: &DropFile,
    request: Request,
    bytes: &[u8],
    rules: Rules<'_>,
) -> Result<Decision, SubmitError> {
    if let Err(why) = (rules.check)(&request)? {
        // Moved or removed, it has no recipes where it was; no drop is refused because of that.
        if !spool.is_at_its_path() {
            return Ok(Decision::Gone);
        }
        return refuse(spool, drop, why, rules);
    }
    let (recipe, session) = (request.recipe.clone(), request.session_id.clone());
    let admission = spool.admit(drop, request, bytes, rules)?;
    if let Admission::Task(id) = &admission {
        let session = session.unwrap_or_else(|| session_of(*id));
        tracing::info!(
            task = %id, recipe = %recipe, session = %session, drop = drop.label(), "admitted"
        );
    }
    Ok(told(drop, admission))
}

fn refuse(
    spool: &Spool,
    drop: &DropFile,
    why: DropRefusal,
    rules: Rules<'_>,
) -> Result<Decision, SubmitError> {
    Ok(told(drop, spool.reject(drop, why, rules)?))
}

fn told(drop: &DropFile, admission: Admission) -> Decision {
    match admission {
        Admission::Task(id) => Decision::Admitted(id),
        Admission::Rejected(why) => {
            tracing::warn!(drop = drop.label(), "refused: {}", why.reason);
            Decision::Refused
        }
        Admission::Gone | Admission::Changed => Decision::Gone,
    }
}

/// A request must name a recipe that is there and can run.
fn check_recipe(spool: &Spool, request: &Request) -> Result<Result<(), DropRefusal>, IoError> {
    let settings = spool.settings();
    let path = RecipePath::new(
        spool.recipes_path(),
        &settings.recipe_path,
        settings.praisonai_python.as_deref(),
    );
    let trust = Trust {
        owner: spool.owner_or_us(),
        is_shared: spool.is_group(),
    };
    let found = path.trusting(trust).find(&request.recipe);
    match found.and_then(|recipe| recipe.check_runnable(None)) {
        Ok(()) => Ok(Ok(())),
        // Without the error's number: the box would take it for a drop that cannot be moved.
        Err(FindError::Unseen { path, source }) => {
            let source = std::io::Error::other(source.to_string());
            Err(IoError::new("look for the recipe", path, source))
        }
        Err(error) => Ok(Err(DropRefusal {
            reason: error.to_string(),
            hint: "see `agentspool recipe list`, then drop the file again",
        })),
    }
}
