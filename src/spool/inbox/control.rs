//! Control files, by which users of the group request actions on their tasks.
//!
//! Not the format of such a file (`task/control.rs`). Invariant: a control file counts only if the user who
//! submitted the task wrote all of it. The owner of the file alone is no proof, because a user can move
//! another user's file here from a shared folder. So a file of the spool's owner never counts: the owner
//! needs none.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::box_entry::{TOO_MANY_BLOCKS, is_slow_to_free};
use super::drop_read::{DropRefusal, Fingerprint, refusal};
use crate::proc;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{ReadError, TaskDir};
use crate::task::{Action, Control, TaskId};

/// The number of bytes that are read. A control file is much shorter.
const MAX_BYTES: u64 = 4096;

/// A control file in the box.
#[derive(Debug)]
pub struct ControlFile {
    pub(in crate::spool) file_name: OsString,
    pub(in crate::spool) control: Control,
    pub(in crate::spool) user: u32,
    pub(in crate::spool) seen: Fingerprint,
    /// See [`ControlFile::arrived`].
    pub(in crate::spool) arrived: (i64, u64),
}

/// The outcome of a control file.
#[derive(Debug, PartialEq, Eq)]
pub enum Controlled {
    /// The action was done.
    Done(Control),
    /// There was nothing to do: the task is finished or gone, or another watcher was faster.
    Pointless,
    /// The task does not exist yet, or the file cannot be read yet.
    Early,
    /// It was refused with this reason and is in `rejected/` now.
    Rejected(String),
}

impl ControlFile {
    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    /// The user id of its owner.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// The file's fingerprint when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// When it was moved here or last changed, in seconds and nanoseconds since the epoch.
    pub fn arrived(&self) -> (i64, u64) {
        self.arrived
    }

    /// The task for which it requests an action.
    pub fn task(&self) -> TaskId {
        self.control.task
    }

    /// Whether its size is that of its content, with or without spaces and the newline.
    pub(super) fn has_its_size(&self) -> bool {
        let with_newline = self.control.to_bytes().len();
        (with_newline - 1..=2 * with_newline).contains(&self.seen.size())
    }
}

impl Spool {
    /// Does the action that a control file requests, if the file counts. With `is_patient`, a file whose task
    /// does not exist may wait. `spent` has the same meaning as in [`Rules`](super::Rules).
    pub fn obey(
        &self,
        file: &ControlFile,
        is_patient: bool,
        spent: &HashSet<TaskId>,
    ) -> IoResult<Controlled> {
        let incoming = self.folder(name::INCOMING)?;
        let id = file.control.task;
        let author = match self.author(&incoming, file) {
            // Another program holds a lease on it. The kernel has asked that program to release it.
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
            let why = "only the user who submitted the task can control it from the drop box";
            let hint = "ask that user, or the spool's owner to run `agentspool cancel`";
            return self.reject_control(file, refusal(why, hint));
        }
        if task.has_result()? {
            incoming.discard(&file.file_name, &self.folder(name::TRASH)?)?;
            return Ok(Controlled::Pointless);
        }
        match file.control.action {
            Action::Cancel => task.request_cancel()?,
        };
        // The file is removed last: if the watcher is killed before, the action is only done again.
        incoming.discard(&file.file_name, &self.folder(name::TRASH)?)?;
        Ok(Controlled::Done(file.control))
    }

    /// Whether a user may request actions on a task by a control file.
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
            incoming.discard(&file.file_name, &self.folder(name::TRASH)?)?;
            return Ok(Controlled::Pointless);
        }
        if is_patient || self.drop_waits(&id.to_string())? {
            return Ok(Controlled::Early);
        }
        let why = refusal(
            "its task does not exist",
            "run `agentspool list` to see the tasks",
        );
        self.reject_control(file, why)
    }

    /// The user who wrote a control file, or a refusal if that is not certain or the file is not valid.
    /// `None` if the file is gone.
    fn author(
        &self,
        incoming: &Dir,
        file: &ControlFile,
    ) -> IoResult<Option<Result<u32, DropRefusal>>> {
        let hint = "use `agentspool cancel`, or write the file as docs/spool-format.md describes";
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
        if is_slow_to_free(&there) {
            return no(TOO_MANY_BLOCKS);
        }
        let opened = match absent_is_none(incoming.open_here(&file.file_name)) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            // It has no read permission, or was replaced by something else.
            Err(error) if error.is_unusable() => {
                return no("the spool's owner cannot read it");
            }
            Err(error) => return Err(error),
        };
        let failed = |source| IoError::new("read", incoming.path_of(&file.file_name), source);
        let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
        if !is_file(&stat) || stat.st_nlink != 1 || stat.st_mode & 0o022 != 0 {
            return no("other users can write it, or it has more than one hard link");
        }
        if proc::is_nobody(stat.st_uid) {
            return no("its owner does not exist in the user namespace of the spool's watcher");
        }
        let mut bytes = Vec::new();
        opened
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if !file.control.is_content(&bytes) {
            return no("its content does not match its name");
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
