//! How a user of the group asks for something: by a file in the drop box of the group spool.
//!
//! The other side of `incoming.rs` and `control.rs`, which judge what is put there. Invariants: a file appears
//! whole under its name, and nobody else may write it; what [`Spool::drop_in`] returned as accepted becomes
//! a task or is refused with a reason under that id, also after a power cut.

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

/// How often a request is given a new id because the old one was too old once its file had its name.
const TRIES: usize = 3;

/// What was put into the box.
#[derive(Debug)]
pub struct Dropped {
    /// The ids of the tasks to be, in the order of the requests.
    pub drops: Vec<DroppedRequest>,
    /// Why the requests after those were not put there, if so: of these nothing is in the box.
    pub failed: Option<SubmitError>,
}

/// A request that is in the box, or was taken from there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedRequest {
    /// The id of the task to be.
    pub id: TaskId,
    /// Whether it is accepted: else only once it was admitted.
    pub is_accepted: bool,
}

/// A file in the box that still has its hidden name.
struct Unnamed {
    file: File,
    hidden: String,
}

impl Spool {
    /// Puts requests into the box, each under an id of its own.
    ///
    /// # Errors
    /// When there is no room, a request breaks a rule, or the disk refuses before any of them has its name:
    /// then nothing is there. What fails later is in the answer, beside what was put there before.
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
        // What the watcher will read must be what it takes.
        Request::parse(&bytes)?;
        Ok(self.write_hidden(incoming, hidden, &bytes)?)
    }

    /// Gives a request its id and name. The id is made just before, because it must be of the moment of the
    /// rename; and it is compared with that, because this process may have been stopped in between.
    fn name_request(&self, incoming: &Dir, one: &Unnamed) -> Result<DroppedRequest, SubmitError> {
        for _ in 0..TRIES {
            let id = self.new_id();
            let file_name = format!("{id}{DROP_SUFFIX}");
            incoming.rename_new(&one.hidden, incoming, &file_name)?;
            let changed = self
                .sync(&one.file, incoming, &file_name)
                .and_then(|()| changed_ms(incoming, one, &file_name));
            // A claim by the watcher is a later change: what is near now was so before it.
            let is_accepted = matches!(changed, Ok(ms) if is_near(id, ms));
            // It is taken back, unless the watcher has it already and decides.
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

    /// Asks the watcher to do something to a task. Returns the name of the control file, for
    /// [`Spool::refusal_of_control`].
    pub fn ask(&self, id: TaskId, action: Action) -> IoResult<String> {
        let control = Control::new(id, action);
        self.check_box()?;
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        // The id is known to everybody by now: a name that nobody can have taken.
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

    /// Whose the drop is that waits in the box under this id; `None` where none does.
    pub fn owner_of_waiting(&self, id: TaskId) -> IoResult<Option<u32>> {
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        let stat = incoming.look(format!("{id}{DROP_SUFFIX}"))?;
        Ok(stat.map(|stat| stat.st_uid))
    }

    /// Why the watcher refused what was asked for by the control file of this name, if it did.
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

    /// Gives a file its name, durably. The folder may not be opened, so it cannot be synced: the second
    /// sync of the file takes the rename with it, on the file systems that were tried
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

/// When a file was last changed, its renames included, in milliseconds since 1970.
fn changed_ms(incoming: &Dir, one: &Unnamed, file_name: &str) -> IoResult<i64> {
    let stat = rustix::fs::fstat(&one.file)
        .map_err(|errno| IoError::new("look at", incoming.path_of(file_name), errno))?;
    Ok(ms_of(stat.st_ctime, stat.st_ctime_nsec as u64))
}

/// Removes what is not to be there.
fn take_back(incoming: &Dir, unnamed: &[Unnamed]) {
    for one in unnamed {
        let _ = incoming.unlink(&one.hidden);
    }
}
