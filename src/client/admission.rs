//! Submitting as a user of the group: requests are written to the drop box. If a drop alone is not safe, the
//! call waits until it is a task.
//!
//! Not the drop box (`spool/inbox/submit_drop.rs`). Invariant: an id is returned as accepted only if it
//! survives a power cut.

use std::time::Duration;

use super::stop::Stop;
use super::submit_error::{SubmitError, Unaccepted};
use crate::spool::{Spool, Target, Wake};
use crate::task::{Request, TaskId};

/// How often to check whether a drop was admitted.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The accepted requests, by their position, and the error of the others, if any.
pub(super) struct Dropped {
    pub ids: Vec<(usize, TaskId)>,
    pub failed: Option<Unaccepted>,
}

/// Writes the requests to the drop box, each under the returned id.
pub(super) fn drop_in(
    spool: &Spool,
    requests: &[Request],
    stop: &dyn Stop,
) -> Result<Dropped, SubmitError> {
    let dropped = spool.drop_in(requests)?;
    let mut ids = Vec::with_capacity(dropped.drops.len());
    let mut failed: Option<Unaccepted> = None;
    for (at, one) in dropped.drops.iter().enumerate() {
        let admitted = match (one.is_accepted, &mut failed) {
            (true, _) => Ok(()),
            (false, None) => wait_until_admitted(spool, one.id, stop),
            // The error would be the same.
            (false, Some(failed)) => {
                failed.in_the_box.push(one.id);
                continue;
            }
        };
        match admitted {
            Ok(()) => ids.push((at, one.id)),
            Err(error) => {
                let in_the_box = Vec::new();
                failed = Some(Unaccepted { error, in_the_box });
            }
        }
    }
    let failed = failed.or(dropped.failed.map(|error| Unaccepted {
        error: error.into(),
        in_the_box: Vec::new(),
    }));
    Ok(Dropped { ids, failed })
}

/// Waits until a drop is a task. Needed on a file system where a power cut can lose a drop, but not a task.
fn wait_until_admitted(spool: &Spool, id: TaskId, stop: &dyn Stop) -> Result<(), SubmitError> {
    let wake = Wake::for_waiting(spool)?;
    let begun = std::time::Instant::now();
    loop {
        match spool.resolve(&id.to_string())? {
            Target::Task(_) => return Ok(()),
            Target::Drop(_) if spool.is_unattended(begun)? => {
                let spool = spool.path().to_owned();
                return Err(SubmitError::NotAdmitted { id, spool });
            }
            Target::Drop(_) => {}
        }
        if stop.is_asked() {
            return Err(SubmitError::Interrupted(id));
        }
        wake.wait(stop.wakes(), CHECK_INTERVAL);
        wake.take();
    }
}
