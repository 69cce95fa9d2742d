//! What the loss of an attempt means for its task: it failed, or another attempt is made.
//!
//! Not the ending of what a lost attempt left (`ending/`). Invariant: a recipe that did not ask for another attempt
//! never gets one.

use super::state::{Runner, Work};
use crate::clock;
use crate::ending::{self, recover_all, unstarted};
use crate::recipe::OnLost;
use crate::spool::{Attempt, IoError, PreallocatedResult};
use crate::task::{Condition, ErrorKind, Event, Happened, Outcome, Status};

impl Runner {
    /// Deals with the attempts that dead runners left. `None` when the task is finished by that,
    /// else the number of the attempt to make.
    pub(super) fn recover_lost(&mut self, work: &Work) -> Result<Option<u32>, IoError> {
        let past = recover_all(&self.spool, &work.lock, &self.boot, &|| true)?;
        let past = past.unwrap_or_default();
        if past.last == 0 || past.is_dealt_with {
            return Ok(Some(past.last + 1));
        }
        let why = match &past.attempt {
            Some(_) => "its runner died, so how the recipe ended is not known",
            None => "its folder was moved or removed, so how the recipe ended is not known",
        };
        self.after_loss(work, past.last, past.attempt.as_ref(), None, why)
    }

    /// Applies the recipe's `on_lost`. `None` when the task failed by it, else the next number.
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
            // Whoever held its state is gone.
            self.spool.remove_empty_session(session);
        }
        Ok(None)
    }
}
