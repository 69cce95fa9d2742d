//! Submitting many tasks at once: they share their syncs.
//!
//! Not the reading of their lines, and not their order of arrival: both are the front door's. Invariant: what
//! [`Batch::accept`] names as accepted outlives a power cut, and everything else that was added is not there.

use serde_json::Map;

use super::admission;
use super::notice::Notice;
use super::open::{Client, Door};
use super::stop::Stop;
use super::submit::{Accepted, Asked};
use super::submit_error::{SubmitError, Unaccepted};
use crate::proc;
use crate::recipe::RecipePath;
use crate::spool::Submission;
use crate::task::{Name, Request};

/// Requests that are accepted together.
///
/// Add requests; accept them whenever [`Batch::is_full`], and at the end; then call [`Client::make_ready`] once.
/// Requests that were added and not accepted are dropped with the batch.
pub struct Batch<'a> {
    client: &'a Client,
    door: Door,
    recipes: RecipePath,
    /// Recipes that were found runnable.
    known: Vec<Name>,
    /// Added and not accepted yet.
    waiting: Vec<Request>,
    /// So many are accepted together.
    portion: usize,
}

/// Files that are open besides those of a batch.
const FILES_BESIDES: u64 = 32;

/// What [`Batch::accept`] did.
#[derive(Debug, Default)]
pub struct AcceptedBatch {
    /// The tasks, in the order of their requests.
    pub accepted: Vec<Accepted>,
    /// What else there is to know of them.
    pub notices: Vec<Notice>,
    /// Why not all were accepted, if so.
    pub failed: Option<Unaccepted>,
}

impl Client {
    /// An empty batch.
    pub fn batch(&self, door: Door) -> Batch<'_> {
        Batch {
            client: self,
            door,
            recipes: self.recipes(),
            known: Vec::new(),
            waiting: Vec::new(),
            portion: portion(),
        }
    }
}

fn portion() -> usize {
    let files = proc::file_limit().unwrap_or(u64::MAX);
    let portion = files.saturating_sub(FILES_BESIDES) / 2;
    usize::try_from(portion).map_or(Batch::AT_MOST, |portion| portion.clamp(1, Batch::AT_MOST))
}

impl Batch<'_> {
    /// So many are accepted together at most: each holds two files open until then. Fewer where this process may not
    /// open as many.
    pub const AT_MOST: usize = 200;

    /// By which way the requests come.
    pub fn door(&self) -> Door {
        self.door
    }

    /// Adds a request: a JSON object with the keys of a drop, `recipe` and what it is given.
    ///
    /// # Errors
    /// [`SubmitError::Request`] or [`SubmitError::Recipe`]. The request is not added then.
    pub fn add(&mut self, text: &[u8]) -> Result<(), SubmitError> {
        let request = Request::parse(text)?;
        if !self.known.contains(&request.recipe) {
            self.client.runnable_of(&self.recipes, &request.recipe)?;
            self.known.push(request.recipe.clone());
        }
        self.waiting.push(request);
        Ok(())
    }

    /// Whether what was added should be accepted before more is.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.portion
    }

    /// Accepts what was added. Nothing waits afterwards, also where this fails.
    ///
    /// # Errors
    /// [`SubmitError`]: none of them is accepted. Where some are, the answer says why not all.
    pub fn accept(&mut self, stop: &dyn Stop) -> Result<AcceptedBatch, SubmitError> {
        let requests = std::mem::take(&mut self.waiting);
        if requests.is_empty() {
            return Ok(AcceptedBatch::default());
        }
        let client = self.client;
        let asked: Vec<Asked> = requests.iter().map(Asked::of).collect();
        if !client.spool().is_owner() {
            let dropped = admission::drop_in(client.spool(), &requests, stop)?;
            let accepted = dropped.ids.iter();
            return Ok(AcceptedBatch {
                accepted: accepted
                    .map(|(at, id)| client.accepted(&asked[*at], *id, None))
                    .collect(),
                notices: Vec::new(),
                failed: dropped.failed,
            });
        }
        let submissions = requests.into_iter().map(|request| Submission {
            id: client.spool().new_id(),
            request,
            environment: Map::new(),
            attachment: None,
            origin: None,
        });
        let tasks = client.spool().submit(submissions.collect())?;
        let tasks = tasks.into_iter().zip(&asked);
        let accepted: Vec<Accepted> = tasks
            .map(|(task, asked)| client.accepted(asked, task.id(), Some(task)))
            .collect();
        let links = accepted.iter().zip(&asked);
        Ok(AcceptedBatch {
            notices: links
                .filter_map(|(task, asked)| client.link_name(asked, task.id))
                .collect(),
            accepted,
            failed: None,
        })
    }
}
