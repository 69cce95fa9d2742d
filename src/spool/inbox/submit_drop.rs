//! How a user of the group submits a request or a control file: as a file in the drop box of the group spool.
//!
//! Not how these files are read and checked (`incoming.rs`, `control.rs`). Invariants: a file is complete
//! when it gets its final name, and no other user can write it; a request that [`Spool::drop_in`] returned as
//! accepted becomes a task or is refused with a reason under its id, also after a power cut.

use std::fs::File;
use std::io::Write;

use super::chosen_id::is_near;
use super::drop_claim::ms_of;
use super::rejected::Reason;
use super::unnamed::hidden_name;
use crate::config::Durability;
use crate::spool::disk::{Dir, IoError, IoResult, random_bits};
use crate::spool::layout::{
    DROP_FILE,
    name::{self, DROP_SUFFIX},
};
use crate::spool::open::Spool;
use crate::spool::tasks::SubmitError;
use crate::task::{Action, Control, Request, TaskId};

/// How many ids are tried for a request, if each was too old when the file got its final name.
const TRIES: usize = 3;

/// The requests that were put into the box.
#[derive(Debug)]
pub struct Dropped {
    /// One entry for each request that was put there, in order.
    pub drops: Vec<DroppedRequest>,
    /// Why the remaining requests were not put there, if so.
    pub failed: Option<SubmitError>,
}

/// A request that is in the box, or that a watcher has already taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedRequest {
    /// The id of the future task.
    pub id: TaskId,
    /// Whether it is accepted already. If not, it is accepted once a watcher admits it.
    pub is_accepted: bool,
}

/// A file in the box that has only its hidden name yet.
struct Unnamed {
    file: File,
    hidden: String,
}

impl Spool {
    /// Puts requests into the box, each under its own id.
    ///
    /// # Errors
    /// There is too little free space, a request breaks a rule, or a write fails before any file has its
    /// final name. Then nothing is in the box. A later failure is returned in [`Dropped::failed`].
    pub fn drop_in(&self, requests: &[Request]) -> Result<Dropped, SubmitError> {
        self.check_room()?;
        self.check_box()?;
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        let is_kept = self.settings().durability == Durability::Process
            || incoming.keeps_renames_of_synced_files()?;
        let mut unnamed = Vec::with_capacity(requests.len());
        for request in requests {
            let hidden = hidden_name(&self.new_id().to_string());
            match self.write_request(&incoming, hidden, request) {
                Ok(one) => unnamed.push(one),
                Err(error) => {
                    take_back(&incoming, &unnamed);
                    return Err(error);
                }
            }
        }
        let mut drops = Vec::with_capacity(unnamed.len());
        for (at, one) in unnamed.iter().enumerate() {
            match self.name_request(&incoming, one) {
                Ok(dropped) => drops.push(DroppedRequest {
                    is_accepted: dropped.is_accepted && is_kept,
                    ..dropped
                }),
                Err(error) => {
                    take_back(&incoming, &unnamed[at..]);
                    let failed = Some(error);
                    return Ok(Dropped { drops, failed });
                }
            }
        }
        Ok(Dropped {
            drops,
            failed: None,
        })
    }

    fn write_request(
        &self,
        incoming: &Dir,
        hidden: String,
        request: &Request,
    ) -> Result<Unnamed, SubmitError> {
        request.check()?;
        let bytes = request.to_bytes();
        // The watcher must be able to parse it.
        Request::parse(&bytes)?;
        Ok(self.write_hidden(incoming, hidden, &bytes)?)
    }

    /// Gives a request its id and renames its file to the final name. The time in the id must be near the
    /// rename, so the id is created right before it. It is checked after the rename, because this process may
    /// have been stopped in between.
    fn name_request(&self, incoming: &Dir, one: &Unnamed) -> Result<DroppedRequest, SubmitError> {
        for _ in 0..TRIES {
            let id = self.new_id();
            let file_name = format!("{id}{DROP_SUFFIX}");
            incoming.rename_new(&one.hidden, incoming, &file_name)?;
            let changed = self
                .sync(&one.file, incoming, &file_name)
                .and_then(|()| changed_ms(incoming, one, &file_name));
            // A claim by the watcher may have changed the ctime since. That is later, so the check is still
            // valid.
            let is_accepted = matches!(changed, Ok(ms) if is_near(id, ms));
            // If not accepted, it is renamed back. If that fails, the watcher has taken it and decides.
            if is_accepted
                || incoming
                    .rename_new(&file_name, incoming, &one.hidden)
                    .is_err()
            {
                return Ok(DroppedRequest { id, is_accepted });
            }
            changed?;
        }
        Err(SubmitError::Late)
    }

    /// Requests an action on a task by a control file. Returns the name of the file, for
    /// [`Spool::refusal_of_control`].
    pub fn ask(&self, id: TaskId, action: Action) -> IoResult<String> {
        let control = Control::new(id, action);
        self.check_box()?;
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        // The id is public, so a random part keeps other users from taking the name first.
        let file_name = control.file_name(random_bits() as u64);
        let hidden = hidden_name(&file_name);
        let one = self.write_hidden(&incoming, hidden, &control.to_bytes())?;
        if let Err(error) = self.name(&incoming, &one, &file_name) {
            take_back(&incoming, &[one]);
            let _ = incoming.unlink(&file_name);
            return Err(error);
        }
        Ok(file_name)
    }

    /// The uid of the owner of the drop that waits in the box under this id; `None` if there is none, or if a
    /// watcher claimed a drop of this id: the file in the box may then be another user's.
    pub fn owner_of_waiting(&self, id: TaskId) -> IoResult<Option<u32>> {
        let places = self.claim_places().unwrap_or_default();
        if places.iter().any(|place| place.has(id).unwrap_or(false)) {
            return Ok(None);
        }
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        let stat = incoming.look(format!("{id}{DROP_SUFFIX}"))?;
        Ok(stat.map(|stat| stat.st_uid))
    }

    /// The reason why the watcher refused the control file of this name; `None` if it did not.
    pub fn refusal_of_control(&self, file_name: &str) -> IoResult<Option<Reason>> {
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        if incoming.look(file_name)?.is_some() {
            return Ok(None);
        }
        Ok(self.rejected_drop(file_name)?.map(|(_, reason)| reason))
    }

    fn write_hidden(&self, incoming: &Dir, hidden: String, bytes: &[u8]) -> IoResult<Unnamed> {
        let mut file = incoming.create(&hidden)?;
        let failed = |doing, source| IoError::new(doing, incoming.path_of(&hidden), source);
        let written = rustix::fs::fchmod(&file, DROP_FILE)
            .map_err(|errno| failed("set the mode of", errno.into()))
            .and_then(|()| {
                file.write_all(bytes)
                    .map_err(|error| failed("write", error))
            })
            .and_then(|()| self.sync(&file, incoming, &hidden));
        let one = Unnamed { file, hidden };
        if written.is_err() {
            take_back(incoming, std::slice::from_ref(&one));
        }
        written.map(|()| one)
    }

    /// Renames a file to its final name, durably. A user of the group cannot open the folder to sync it. A
    /// second sync of the file makes the rename durable on the file systems that were tested
    /// (`keeps_renames_of_synced_files`).
    fn name(&self, incoming: &Dir, one: &Unnamed, file_name: &str) -> IoResult<()> {
        incoming.rename_new(&one.hidden, incoming, file_name)?;
        self.sync(&one.file, incoming, file_name)
    }

    fn sync(&self, file: &File, incoming: &Dir, name: &str) -> IoResult<()> {
        if self.settings().durability == Durability::Power {
            file.sync_all()
                .map_err(|source| IoError::new("sync", incoming.path_of(name), source))?;
        }
        Ok(())
    }
}

/// When a file was last changed or renamed, in milliseconds since the epoch.
fn changed_ms(incoming: &Dir, one: &Unnamed, file_name: &str) -> IoResult<i64> {
    let stat = rustix::fs::fstat(&one.file)
        .map_err(|errno| IoError::new("check", incoming.path_of(file_name), errno))?;
    Ok(ms_of(stat.st_ctime, stat.st_ctime_nsec as u64))
}

/// Removes files that still have their hidden names.
fn take_back(incoming: &Dir, unnamed: &[Unnamed]) {
    for one in unnamed {
        let _ = incoming.unlink(&one.hidden);
    }
}
