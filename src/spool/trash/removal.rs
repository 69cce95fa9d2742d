//! How a folder goes to the trash, or is removed where it stands.
//!
//! Not which (`clearing.rs`, `sessions.rs`). Invariant: a task is gone in one rename, or its result goes last.

use crate::spool::disk::{Dir, IoResult, Removed, random_bits};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::TaskDir;

/// Where a task's folder is once the task is gone.
pub(super) enum MovedOut {
    /// In the trash under this name.
    InTrash(String),
    /// Nowhere: it was removed where it stood.
    Gone(Removed),
}

impl MovedOut {
    /// Removes what is left of it.
    pub fn empty(self, trash: &Dir, task: &TaskDir) -> Removed {
        match self {
            MovedOut::InTrash(trash_name) => trash.remove_open_from_trash(trash_name, &task.dir),
            MovedOut::Gone(removed) => removed,
        }
    }
}

/// The one step: from here on the task is gone, and what follows may be done by anybody.
///
/// overlayfs moves no folder of a lower layer, as of a spool that is a part of an image, and on a full
/// disk there may be no room for another name. There the folder is removed where it stands, the lock
/// and then the result last: as long as the request or the lock is there, the result says that the
/// recipe has run, also after a kill in the middle. `before_last` comes before these two.
pub(super) fn move_out(
    tasks: &Dir,
    trash: &Dir,
    task: &TaskDir,
    may_move: bool,
    before_last: &mut dyn FnMut() -> IoResult<()>,
) -> IoResult<MovedOut> {
    let folder = task.id.to_string();
    let trash_name = format!("{folder}.{:08x}", random_bits() as u32);
    if may_move && move_to_trash(tasks, &folder, &task.dir, trash, &trash_name)? {
        return Ok(MovedOut::InTrash(trash_name));
    }
    let last = [name::LOCK, name::RESULT];
    let removed = tasks.remove_in_place(&folder, &task.dir, &last, trash, before_last);
    match removed.left {
        Some(error) => Err(error),
        None => Ok(MovedOut::Gone(removed)),
    }
}

/// Moves an open folder to the trash; `false` where it can only be removed where it stands.
pub(super) fn move_to_trash(
    from: &Dir,
    name: &str,
    folder: &Dir,
    trash: &Dir,
    trash_name: &str,
) -> IoResult<bool> {
    let moved = match from.rename_new(name, trash, trash_name) {
        // A folder that forbids its owner to write cannot be moved to another one.
        Err(error) if error.is_denied() => {
            folder.give_rights();
            from.rename_new(name, trash, trash_name)
        }
        moved => moved,
    };
    match moved {
        Err(error) if error.is_immovable() || error.is_no_space() => Ok(false),
        moved => moved.map(|()| true),
    }
}

impl Spool {
    /// Takes a task's folder that was not accepted out of `tasks/` in one step, then removes it. Its id is not
    /// kept: the drop that it was made of may be taken up again.
    pub(in crate::spool) fn discard(&self, task: &TaskDir) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        let tasks = self.folder(name::TASKS)?;
        let trash_name = move_out(&tasks, &trash, task, true, &mut || {
            self.remove_entries(task.id, None)
        })?;
        self.remove_entries(task.id, None)?;
        trash_name.empty(&trash, task).whole().map(|_| ())
    }
}
