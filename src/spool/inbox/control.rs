//! Control files: what the users of a group spool ask to be done to their tasks, beside the drops.
//!
//! Not what such a file says (`task/control.rs`). Invariant: one counts only if it is the whole, private work
//! of the user who submitted the task. Whose file it is proves nothing alone: a user can move another user's
//! file here from a folder that they share. So a file of the spool's owner counts for nothing: the owner acts
//! without one.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::drop_read::{DropRefusal, Fingerprint, refusal};
use crate::proc;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{ReadError, TaskDir};
use crate::task::{Action, Control, TaskId};

/// Far more than a control file has.
const MOST_BYTES: u64 = 4096;

/// A control file that is there.
#[derive(Debug)]
pub struct ControlFile {
    pub(in crate::spool) file_name: OsString,
    pub(in crate::spool) control: Control,
    pub(in crate::spool) user: u32,
    pub(in crate::spool) seen: Fingerprint,
    /// As a drop's.
    pub(in crate::spool) arrived: (i64, u64),
}

/// What became of a control file.
#[derive(Debug, PartialEq, Eq)]
pub enum Controlled {
    /// What it asks for was done.
    Done(Control),
    /// Its task is over or gone, or another watcher was faster: there was nothing left to do.
    Pointless,
    /// Its task is not there yet, or it cannot be read yet.
    Early,
    /// It does not count, and lies in `rejected/` now.
    Rejected(String),
}

impl ControlFile {
    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    /// In whose round it is taken: its owner, in a group spool.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// What it was when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// When it came here or was last changed, in seconds and nanoseconds.
    pub fn arrived(&self) -> (i64, u64) {
        self.arrived
    }

    /// The task that it is about.
    pub fn task(&self) -> TaskId {
        self.control.task
    }
}

impl Spool {
    /// Does what a control file asks for, if it counts. `is_patient` says whether one whose task is not
    /// there may wait for it; `spent` is as for a drop.
    pub fn obey(
        &self,
        file: &ControlFile,
        is_patient: bool,
        spent: &HashSet<TaskId>,
    ) -> IoResult<Controlled> {
        let incoming = self.folder(name::INCOMING)?;
        let id = file.control.task;
        let author = match self.author(&incoming, file) {
            // A lease on it that its maker holds: the kernel asks for it back.
            Err(error) if error.errno() == Some(Errno::AGAIN) => {
                if is_patient {
                    return Ok(Controlled::Early);
                }
                let why = "another program holds a lease on it";
                return self.reject_control(file, refusal(why, "use `agentspool cancel`"));
            }
            seen => seen?,
        };
        let author = match author {
            Some(Ok(author)) => author,
            Some(Err(why)) => return self.reject_control(file, why),
            None => return Ok(Controlled::Pointless),
        };
        let Some(task) = self.task(id)? else {
            return self.without_task(&incoming, file, is_patient, spent);
        };
        if !self.may_control(&task, author)? {
            let why = "only the user who submitted the task controls it from the drop box";
            let hint = "ask that user, or the spool's owner to run `agentspool cancel`";
            return self.reject_control(file, refusal(why, hint));
        }
        if task.has_result()? {
            incoming.unlink(&file.file_name)?;
            return Ok(Controlled::Pointless);
        }
        match file.control.action {
            Action::Cancel => task.request_cancel()?,
        };
        // Last: a watcher that dies before this does it once more.
        incoming.unlink(&file.file_name)?;
        Ok(Controlled::Done(file.control))
    }

    /// Whether a user may have something done to a task by a control file.
    pub fn may_control(&self, task: &TaskDir, uid: u32) -> IoResult<bool> {
        if uid == self.owner()? || proc::is_nobody(uid) {
            return Ok(false);
        }
        match task.origin() {
            Ok(origin) => Ok(origin.is_some_and(|origin| origin.uid == Some(uid))),
            Err(ReadError::Damaged { .. } | ReadError::Newer { .. }) => Ok(false),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    fn without_task(
        &self,
        incoming: &Dir,
        file: &ControlFile,
        is_patient: bool,
        spent: &HashSet<TaskId>,
    ) -> IoResult<Controlled> {
        let id = file.control.task;
        if spent.contains(&id) {
            incoming.unlink(&file.file_name)?;
            return Ok(Controlled::Pointless);
        }
        if is_patient || self.drop_waits(&id.to_string())? {
            return Ok(Controlled::Early);
        }
        let why = refusal("its task is not there", "see `agentspool list`");
        self.reject_control(file, why)
    }

    /// Whose work a control file is; a refusal where it is not one user's alone, or not what it must be; `None`
    /// where it is not there any more.
    fn author(
        &self,
        incoming: &Dir,
        file: &ControlFile,
    ) -> IoResult<Option<Result<u32, DropRefusal>>> {
        let hint = "use `agentspool cancel`, or write the file as docs/spool-format.md says";
        let no = |why: &str| Ok(Some(Err(refusal(why, hint))));
        let is_file = |stat: &rustix::fs::Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        };
        let Some(there) = incoming.look(&file.file_name)? else {
            return Ok(None);
        };
        if !is_file(&there) {
            return no("it is not a regular file");
        }
        let opened = match absent_is_none(incoming.open_here(&file.file_name)) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            // Shut, or exchanged for something else.
            Err(error) if error.is_unusable() => {
                return no("it cannot be read by the spool's owner");
            }
            Err(error) => return Err(error),
        };
        let failed = |source| IoError::new("read", incoming.path_of(&file.file_name), source);
        let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
        if !is_file(&stat) || stat.st_nlink != 1 || stat.st_mode & 0o022 != 0 {
            return no("others may write it, or it has another name");
        }
        if proc::is_nobody(stat.st_uid) {
            return no("its user is not known in the user namespace of the spool's watcher");
        }
        let mut bytes = Vec::new();
        opened
            .take(MOST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if !file.control.is_content(&bytes) {
            return no("it does not say exactly what its name says");
        }
        Ok(Some(Ok(stat.st_uid)))
    }

    fn reject_control(&self, file: &ControlFile, why: DropRefusal) -> IoResult<Controlled> {
        Ok(match self.refuse_control(file, &why)? {
            true => Controlled::Rejected(why.reason),
            false => Controlled::Pointless,
        })
    }
}
