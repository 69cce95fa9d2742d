//! What follows from a lost attempt: the task fails, or another attempt is made.
//!
//! Does not end what a lost attempt left (`ending/`). Invariant: another attempt is made only if the
//! recipe asks for it.

use super::state::{Runner, Work};
use crate::clock;
use crate::ending::{self, recover_all, unstarted};
use crate::recipe::OnLost;
use crate::spool::{Attempt, IoError, PreallocatedResult};
use crate::task::{Condition, ErrorKind, Event, Happened, Outcome, Status};

impl Runner {
    /// Handles the attempts of runners that were killed. Returns the number of the next attempt, or
    /// `None` if the task is finished.
    pub(super) fn recover_lost(&mut self, work: &Work) -> Result<Option<u32>, IoError> {
        let past = recover_all(&self.spool, &work.lock, &self.boot, &|| true)?;
        let past = past.unwrap_or_default();
        if past.last == 0 || past.is_dealt_with {
            return Ok(Some(past.last + 1));
        }
        let why = match &past.attempt {
            Some(_) => "its runner ended unexpectedly, so it is not known how the recipe ended",
            None => "its folder was moved or removed, so it is not known how the recipe ended",
        };
        self.after_loss(work, past.last, past.attempt.as_ref(), None, why)
    }

    /// Applies the recipe's `on_lost`. Returns the number of the next attempt, or `None` if the task
    /// failed.
    pub(super) fn after_loss(
        &mut self,
        work: &Work,
        number: u32,
        attempt: Option<&Attempt>,
        preallocated: Option<PreallocatedResult>,
        why: &str,
    ) -> Result<Option<u32>, IoError> {
        let run = attempt.and_then(Attempt::run);
        if let (Some(attempt), Some(mut run)) = (attempt, run.clone()) {
            run.lost_at.get_or_insert_with(clock::wall);
            attempt.write_run(&run)?;
        }
        let id = work.lock.task().id();
        let (recipe, session) = (&work.request.recipe, work.request.session_id.as_ref());
        let emit = |what: Happened| {
            let event = Event::of(what, id, Some(recipe), session).of_attempt(number);
            work.lock.emit(&self.spool, event);
        };
        emit(Happened::Lost);
        if let Ok(recipe) = &work.recipe
            && recipe.manifest.on_lost == OnLost::Requeue
            && number < recipe.manifest.max_attempts
        {
            let mut status = work.lock.current_status(&work.request);
            status.status = Status::Pending;
            status.condition = Some(Condition::Retrying);
            status.attempt = number;
            work.lock.write_status(&status)?;
            if let Some(attempt) = attempt {
                work.lock.end_part(attempt)?;
            }
            emit(Happened::Retrying);
            return Ok(Some(number + 1));
        }
        let outcome = Outcome::failed(ErrorKind::Lost, format!("attempt {number} was lost: {why}"));
        let mut result = unstarted(id, Some(&work.request), outcome);
        result.attempt = number;
        result.started_at = run.map(|run| run.started_at);
        ending::finish(&self.spool, &work.lock, preallocated, attempt, result, None);
        if let Some(session) = &work.request.session_id {
            // No process holds the session's state any more.
            self.spool.remove_empty_session(session);
        }
        Ok(None)
    }
}
