//! How patient the watcher is with the drop box.
//!
//! Not what a drop is (`spool/incoming.rs`). Invariant: a file that is still being written is left
//! alone, one that will never be right is refused, and neither makes the watcher busy.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::recipe::RecipePath;
use crate::spool::{Admission, DropFile, DropRefusal, Fingerprint, Pickup, Spool, SubmitError};
use crate::task::{Request, TaskId, session_of};

/// How many drops are looked at before everything else gets its turn.
const AT_ONCE: usize = 256;
/// An incomplete drop is looked at again after this, even when nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is remembered of drops that could not be taken yet.
#[derive(Debug, Default)]
pub(super) struct Admitter {
    waiting: HashMap<OsString, (Fingerprint, Instant)>,
    /// What we may not move, told once; a person must mend it.
    immovable: HashMap<OsString, Fingerprint>,
    next_look: Option<Instant>,
    more: bool,
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
        for admission in spool.replay_claims(&|request| check_recipe(spool, request))? {
            if let Admission::Task(id) = admission {
                tracing::info!(task = %id, "admitted what another watcher had begun");
            }
        }
        Ok(())
    }

    /// Admits what is complete; the tasks made of it.
    pub fn admit_some(&mut self, spool: &Spool) -> Result<Vec<TaskId>, SubmitError> {
        // One more than is taken: whether there are more is known without listing again.
        let aside = self.waiting.len() + self.immovable.len();
        let drops = spool.drops(AT_ONCE + aside + 1)?;
        self.more = false;
        self.next_look = None;
        let (mut waiting, mut immovable) = (HashMap::new(), HashMap::new());
        let mut admitted = Vec::new();
        let mut taken = 0;
        for drop in &drops {
            if taken == AT_ONCE {
                self.more = true;
                break;
            }
            match self.decide(spool, drop) {
                Ok(Decision::Gone) => {}
                Ok(Decision::Refused) => taken += 1,
                Ok(Decision::Admitted(id)) => {
                    taken += 1;
                    admitted.push(id);
                }
                Ok(Decision::Wait(since)) => {
                    waiting.insert(drop.file_name().to_owned(), (drop.seen(), since));
                }
                // Somebody's folder or an immutable file: it must not keep the others waiting.
                Err(SubmitError::Io(error)) if error.is_denied() || error.is_immovable() => {
                    if !self.has_given_up(drop) {
                        tracing::warn!(drop = drop.label(), "left in the box: {error}");
                    }
                    immovable.insert(drop.file_name().to_owned(), drop.seen());
                }
                // What was admitted before is found by the next scan.
                Err(error) => return Err(error),
            }
        }
        if !waiting.is_empty() {
            self.next_look = Some(Instant::now() + LOOK_AGAIN);
        }
        (self.waiting, self.immovable) = (waiting, immovable);
        Ok(admitted)
    }

    /// What becomes of one drop.
    fn decide(&self, spool: &Spool, drop: &DropFile) -> Result<Decision, SubmitError> {
        let why = match spool.look_at(drop)? {
            Pickup::Gone => return Ok(Decision::Gone),
            Pickup::Ready(request, bytes) => return take(spool, drop, *request, &bytes),
            Pickup::NotYet(why) => {
                let since = self.unchanged_since(drop);
                if since.elapsed() < patience(spool) {
                    return Ok(Decision::Wait(since));
                }
                why
            }
            Pickup::Refused(why) => why,
        };
        refuse(spool, drop, why)
    }

    /// Since when this very file has stood as it is, as far as this watcher saw.
    fn unchanged_since(&self, drop: &DropFile) -> Instant {
        match self.waiting.get(drop.file_name()) {
            Some((seen, since)) if *seen == drop.seen() => *since,
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
) -> Result<Decision, SubmitError> {
    if let Err(why) = check_recipe(spool, &request) {
        // Moved or removed, it has no recipes where it was; no drop is refused because of that.
        if !spool.is_at_its_path() {
            return Ok(Decision::Gone);
        }
        return refuse(spool, drop, why);
    }
    let (recipe, session) = (request.recipe.clone(), request.session_id.clone());
    let check = |request: &Request| check_recipe(spool, request);
    let admission = spool.admit(drop, request, bytes, &check)?;
    if let Admission::Task(id) = &admission {
        let session = session.unwrap_or_else(|| session_of(*id));
        tracing::info!(
            task = %id, recipe = %recipe, session = %session, drop = drop.label(), "admitted"
        );
    }
    Ok(told(drop, admission))
}

fn refuse(spool: &Spool, drop: &DropFile, why: DropRefusal) -> Result<Decision, SubmitError> {
    let check = |request: &Request| check_recipe(spool, request);
    Ok(told(drop, spool.reject(drop, why, &check)?))
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
fn check_recipe(spool: &Spool, request: &Request) -> Result<(), DropRefusal> {
    let settings = spool.settings();
    let path = RecipePath::new(
        spool.recipes_path(),
        &settings.recipe_path,
        settings.praisonai_python.as_deref(),
    );
    path.find(&request.recipe)
        .and_then(|recipe| recipe.check_runnable(None))
        .map_err(|error| DropRefusal {
            reason: error.to_string(),
            hint: "see `agentspool recipe list`, then drop the file again",
        })
}
