//! How patient the watcher is with the drop box.
//!
//! Not what a drop is (`spool/incoming.rs`). Invariant: a file that is still being written is left
//! alone, one that will never be right is refused, and neither makes the watcher busy.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::recipe::RecipePath;
use crate::spool::{Admission, DropFile, DropRefusal, Fingerprint, Pickup, Spool, SubmitError};
use crate::task::{Request, TaskId};

/// How many drops are looked at before everything else gets its turn.
const AT_ONCE: usize = 256;
/// An incomplete drop is looked at again after this, even when nothing is heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is remembered of drops that could not be taken yet.
#[derive(Debug, Default)]
pub(super) struct Admitter {
    waiting: HashMap<OsString, (Fingerprint, Instant)>,
    next_look: Option<Instant>,
    more: bool,
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
        let mut drops = spool.drops(AT_ONCE + self.waiting.len() + 1)?;
        self.more = false;
        self.next_look = None;
        let mut still_waiting = HashMap::new();
        let mut admitted = Vec::new();
        let mut taken = 0;
        let last = drops.len();
        for (at, drop) in drops.drain(..).enumerate() {
            if taken == AT_ONCE {
                self.more = at < last;
                break;
            }
            match spool.look_at(&drop)? {
                Pickup::Gone => {}
                Pickup::NotYet(why) => {
                    let since = self.unchanged_since(&drop);
                    if since.elapsed() >= patience(spool) {
                        taken += 1;
                        refuse(spool, &drop, why)?;
                    } else {
                        still_waiting.insert(drop.file_name().to_owned(), (drop.seen(), since));
                    }
                }
                Pickup::Refused(why) => {
                    taken += 1;
                    refuse(spool, &drop, why)?;
                }
                Pickup::Ready(request, bytes) => {
                    taken += 1;
                    admitted.extend(take(spool, &drop, *request, &bytes)?);
                }
            }
        }
        if !still_waiting.is_empty() {
            self.next_look = Some(Instant::now() + LOOK_AGAIN);
        }
        self.waiting = still_waiting;
        Ok(admitted)
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
) -> Result<Option<TaskId>, SubmitError> {
    if let Err(why) = check_recipe(spool, &request) {
        refuse(spool, drop, why)?;
        return Ok(None);
    }
    match spool.admit(drop, request, bytes)? {
        Admission::Task(id) => {
            tracing::info!(task = %id, drop = drop.label(), "admitted");
            Ok(Some(id))
        }
        Admission::Gone | Admission::Changed | Admission::Rejected(_) => Ok(None),
    }
}

fn refuse(spool: &Spool, drop: &DropFile, why: DropRefusal) -> Result<(), SubmitError> {
    if let Admission::Rejected(why) = spool.reject(drop, why)? {
        tracing::warn!(drop = drop.label(), "refused: {}", why.reason);
    }
    Ok(())
}

/// A request must name a recipe that is there and can run.
fn check_recipe(spool: &Spool, request: &Request) -> Result<(), DropRefusal> {
    let path = RecipePath::new(spool.recipes_path(), &spool.settings().recipe_path);
    path.find(&request.recipe)
        .and_then(|recipe| recipe.check_runnable(None))
        .map_err(|error| DropRefusal {
            reason: error.to_string(),
            hint: "see `agentspool recipe list`, then drop the file again",
        })
}
