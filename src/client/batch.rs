//! Submitting many tasks at once, with shared syncs.
//!
//! Not the reading of lines (the front end). Invariant: a task that [`Batch::accept`] returns as accepted
//! survives a power cut, and the other requests of the batch are not in the spool.

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
/// Add requests; call [`Batch::accept`] whenever [`Batch::is_full`], and at the end; then call
/// [`Client::make_ready`] once. Requests that were added but not accepted are discarded with the batch.
pub struct Batch<'a> {
    client: &'a Client,
    door: Door,
    recipes: RecipePath,
    /// Recipes that were checked and can run.
    known: Vec<Name>,
    /// Requests that were added but not accepted yet.
    waiting: Vec<Request>,
    /// The number of requests that are accepted together.
    portion: usize,
}

/// The number of open files, besides those of a batch.
const FILES_BESIDES: u64 = 32;

/// The answer of [`Batch::accept`].
#[derive(Debug, Default)]
pub struct AcceptedBatch {
    /// The tasks, in the order of their requests.
    pub accepted: Vec<Accepted>,
    /// Notes about the tasks.
    pub notices: Vec<Notice>,
    /// Why some requests were not accepted, if any.
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
    /// The most requests that are accepted together. Each keeps two files open until then. If the file limit
    /// of this process is low, the number is lower.
    pub const AT_MOST: usize = 200;

    /// The way by which the requests come in.
    pub fn door(&self) -> Door {
        self.door
    }

    /// Adds a request: a JSON object with the keys of a drop, for instance `recipe` and `input`.
    ///
    /// # Errors
    /// [`SubmitError::Request`] or [`SubmitError::Recipe`]. Then the request is not added.
    pub fn add(&mut self, text: &[u8]) -> Result<(), SubmitError> {
        let request = Request::parse(text)?;
        if !self.known.contains(&request.recipe) {
            self.client.runnable_of(&self.recipes, &request.recipe)?;
            self.known.push(request.recipe.clone());
        }
        self.waiting.push(request);
        Ok(())
    }

    /// Whether the added requests should be accepted before more are added.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.portion
    }

    /// Submits the added requests. The batch is empty afterwards, also on an error.
    ///
    /// # Errors
    /// [`SubmitError`]: no request was accepted. If some were accepted, the answer has the error of the
    /// others.
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
