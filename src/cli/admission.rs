//! What `submit` does as a user of the group: requests go into the drop box, and where that alone is not safe it
//! waits until they are tasks.
//!
//! Not the box (`spool/submit_drop.rs`). Invariant: an id is given as accepted only once it outlives a power cut.

use std::os::fd::AsFd;
use std::time::Duration;

use agentspool::spool::{Spool, Target, Wake};
use agentspool::task::{Request, TaskId};

use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::report::CliError;

/// How often to look whether a drop was admitted.
const ADMISSION_LOOK: Duration = Duration::from_millis(100);

/// Which of some requests were accepted, by their place, and why not all of them, if so.
pub(super) struct AcceptedSome {
    pub ids: Vec<(usize, TaskId)>,
    pub failed: Option<CliError>,
}

/// As a user of the group: the requests go into the drop box, each under the id that is told.
pub(super) fn drop_in(spool: &Spool, requests: &[Request]) -> Result<AcceptedSome, CliError> {
    let dropped = spool.drop_in(requests)?;
    let mut ids = Vec::with_capacity(dropped.drops.len());
    let mut failed = None;
    let mut left = Vec::new();
    for (at, one) in dropped.drops.iter().enumerate() {
        let admitted = match (one.is_accepted, &failed) {
            (true, _) => Ok(()),
            (false, None) => wait_until_admitted(spool, one.id),
            // The answer would be the same one.
            (false, Some(_)) => {
                left.push(one.id.to_string());
                continue;
            }
        };
        match admitted {
            Ok(()) => ids.push((at, one.id)),
            Err(error) => failed = Some(error),
        }
    }
    if let (Some(error), false) = (&mut failed, left.is_empty()) {
        let told = format!("{} more lie in the drop box: look for each", left.len());
        error.hints.push(told);
        error.details.push(("in_the_box", left.into()));
    }
    let failed = failed.or(dropped.failed.map(CliError::from));
    Ok(AcceptedSome { ids, failed })
}

/// On a file system where a drop alone is not safe from a power cut: the task it becomes is.
fn wait_until_admitted(spool: &Spool, id: TaskId) -> Result<(), CliError> {
    let wake = Wake::for_waiting(spool)?;
    let interrupt = Interrupt::listen()?;
    loop {
        match spool.resolve(&id.to_string())? {
            Target::Task(_) => return Ok(()),
            Target::Drop(_) if !spool.has_watcher()? => {
                let path = spool.path().display();
                let message = format!(
                    "{id} lies in the drop box and is not accepted yet: no watcher runs on {path}, and on this file system a power cut could lose the drop"
                );
                return Err(CliError::new(ExitCode::General, message)
                    .hint("it becomes a task once a watcher runs")
                    .detail("task_id", id.to_string()));
            }
            Target::Drop(_) => {}
        }
        interrupt.check(&format!("the drop {id} goes on"))?;
        wake.wait(Some(interrupt.as_fd()), ADMISSION_LOOK);
        wake.take();
    }
}
