//! How a user of the group asks for something: by a file in the drop box of the group spool.
//!
//! The other side of `incoming.rs` and `control.rs`, which judge what is put there. Invariants: a file appears
//! whole under its name, and nobody else may write it; what [`Spool::drop_in`] returned as accepted becomes
//! a task or is refused with a reason under that id, also after a power cut.

use std::fs::File;
use std::io::Write;

use rustix::fs::Mode;

use super::durable::Dir;
use super::io_error::{IoError, IoResult};
use super::layout::{Spool, name, random_bits};
use super::publish::SubmitError;
use super::rejected::{DROP_SUFFIX, Reason};
use crate::config::Durability;
use crate::task::{Action, Control, Request, TaskId};

/// The spool's owner reads it through the group; nobody else writes it.
const MODE: Mode = Mode::from_bits_retain(0o640);

/// What was put into the box.
#[derive(Debug)]
pub struct Dropped {
    /// The ids of the tasks to be, in the order of the requests.
    pub ids: Vec<TaskId>,
    /// Whether that is all: else a drop is safe only once the watcher has admitted it.
    pub is_accepted: bool,
}

/// A file in the box that still has its hidden name.
struct Unnamed {
    file: File,
    hidden: String,
    file_name: String,
}

impl Spool {
    /// Puts requests into the box, each under an id of its own.
    ///
    /// # Errors
    /// When there is no room, a request breaks a rule, or the disk refuses. What was put there before is
    /// taken back as far as that is possible.
    pub fn drop_in(&self, requests: &[Request]) -> Result<Dropped, SubmitError> {
        self.check_room()?;
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        let mut ids = Vec::with_capacity(requests.len());
        let mut unnamed = Vec::with_capacity(requests.len());
        for request in requests {
            request.check()?;
            let bytes = request.to_bytes();
            // What the watcher will read must be what it takes.
            Request::parse(&bytes)?;
            let id = self.new_id();
            let hidden = format!(".{id}.new");
            match self.write_hidden(&incoming, hidden, format!("{id}{DROP_SUFFIX}"), &bytes) {
                Ok(one) => unnamed.push(one),
                Err(error) => {
                    take_back(&incoming, &unnamed);
                    return Err(error.into());
                }
            }
            ids.push(id);
        }
        for (at, one) in unnamed.iter().enumerate() {
            if let Err(error) = self.name(&incoming, one) {
                take_back(&incoming, &unnamed[at..]);
                return Err(error.into());
            }
        }
        let is_accepted = self.settings().durability == Durability::Process
            || incoming.keeps_renames_of_synced_files()?;
        Ok(Dropped { ids, is_accepted })
    }

    /// Asks the watcher to do something to a task. Returns the name of the control file, for
    /// [`Spool::refusal_of_control`].
    pub fn ask(&self, id: TaskId, action: Action) -> IoResult<String> {
        let control = Control::new(id, action);
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        // The id is known to everybody by now: a name that nobody can have taken.
        let file_name = control.file_name(random_bits() as u64);
        let hidden = format!(".{file_name}.new");
        let one = self.write_hidden(&incoming, hidden, file_name, &control.to_bytes())?;
        if let Err(error) = self.name(&incoming, &one) {
            take_back(&incoming, &[one]);
            return Err(error);
        }
        Ok(one.file_name)
    }

    /// Why the watcher refused what was asked for by the control file of this name, if it did.
    pub fn refusal_of_control(&self, file_name: &str) -> IoResult<Option<Reason>> {
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        if incoming.has(file_name)? {
            return Ok(None);
        }
        Ok(self.rejected_drop(file_name)?.map(|(_, reason)| reason))
    }

    fn write_hidden(
        &self,
        incoming: &Dir,
        hidden: String,
        file_name: String,
        bytes: &[u8],
    ) -> IoResult<Unnamed> {
        let mut file = incoming.create(&hidden)?;
        let failed = |doing, source| IoError::new(doing, incoming.path_of(&hidden), source);
        let written = rustix::fs::fchmod(&file, MODE)
            .map_err(|errno| failed("set the mode of", errno.into()))
            .and_then(|()| {
                file.write_all(bytes)
                    .map_err(|error| failed("write", error))
            })
            .and_then(|()| self.sync(&file, incoming, &hidden));
        let one = Unnamed {
            file,
            hidden,
            file_name,
        };
        if written.is_err() {
            take_back(incoming, std::slice::from_ref(&one));
        }
        written.map(|()| one)
    }

    /// Gives a file its name, durably. The folder may not be opened, so it cannot be synced: the second
    /// sync of the file takes the rename with it, on the file systems that were tried
    /// (`keeps_renames_of_synced_files`).
    fn name(&self, incoming: &Dir, one: &Unnamed) -> IoResult<()> {
        incoming.rename_new(&one.hidden, incoming, &one.file_name)?;
        self.sync(&one.file, incoming, &one.file_name)
    }

    fn sync(&self, file: &File, incoming: &Dir, name: &str) -> IoResult<()> {
        if self.settings().durability == Durability::Power {
            file.sync_all()
                .map_err(|source| IoError::new("sync", incoming.path_of(name), source))?;
        }
        Ok(())
    }
}

/// Removes what is not to be there; the watcher may have taken it.
fn take_back(incoming: &Dir, unnamed: &[Unnamed]) {
    for one in unnamed {
        for name in [&one.hidden, &one.file_name] {
            let _ = incoming.unlink(name);
        }
    }
}
