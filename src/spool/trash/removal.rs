//! How a folder is moved to the trash, or removed in place.
//!
//! Not which folder (`clearing.rs`, `sessions.rs`). Invariant: a task is removed in one rename, or its result
//! is removed last.

use crate::spool::disk::{Dir, IoResult, Removed, random_bits};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::TaskDir;

/// Where the folder of a removed task is.
pub(super) enum MovedOut {
    /// In the trash under this name.
    InTrash(String),
    /// It was removed in place.
    Gone(Removed),
}

impl MovedOut {
    /// Removes the folder from the trash, if it is there.
    pub fn empty(self, trash: &Dir, task: &TaskDir) -> Removed {
        match self {
            MovedOut::InTrash(trash_name) => trash.remove_open_from_trash(trash_name, &task.dir),
            MovedOut::Gone(removed) => removed,
        }
    }
}

/// Moves a task out of `tasks/`. After this step the task is gone, and any process may do the rest.
///
/// overlayfs cannot move a folder of a lower layer (as in a spool that is part of an image), and a full disk
/// may have no space for another name. Then the folder is removed in place, the lock and then the result
/// last: while the request or the lock exists, the result shows that the recipe has run, even if the removal
/// is interrupted. `before_last` is called before these two files are removed.
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
    remove_in_place(tasks, trash, task, &last, before_last)
}

fn remove_in_place(
    tasks: &Dir,
    trash: &Dir,
    task: &TaskDir,
    last: &[&str],
    before_last: &mut dyn FnMut() -> IoResult<()>,
) -> IoResult<MovedOut> {
    let removed = tasks.remove_in_place(task.id.to_string(), &task.dir, last, trash, before_last);
    match removed.left {
        Some(error) => Err(error),
        None => Ok(MovedOut::Gone(removed)),
    }
}

/// Moves an open folder to the trash; `false` if it can only be removed in place.
pub(super) fn move_to_trash(
    from: &Dir,
    name: &str,
    folder: &Dir,
    trash: &Dir,
    trash_name: &str,
) -> IoResult<bool> {
    let moved = match from.rename_new(name, trash, trash_name) {
        // A folder that its owner may not write to cannot be moved to another parent.
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
    /// Removes a task that was published but not accepted. The caller holds its lock.
    ///
    /// Its id is not recorded as removed, and its name in the trash is not its id: its drop may be admitted
    /// again under the same id.
    pub(in crate::spool) fn discard(&self, task: &TaskDir) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        let tasks = self.folder(name::TASKS)?;
        let folder = task.id.to_string();
        let trash_name = format!("staged.{:016x}", random_bits() as u64);
        let moved = match move_to_trash(&tasks, &folder, &task.dir, &trash, &trash_name)? {
            true => MovedOut::InTrash(trash_name),
            false => {
                // The marker goes last: until then the rest of the folder does not count as a task.
                let markers = task.marker_names()?;
                let last = markers.iter().map(String::as_str).chain([name::LOCK]);
                let last: Vec<&str> = last.collect();
                remove_in_place(&tasks, &trash, task, &last, &mut || {
                    self.remove_entries(task.id, None)
                })?
            }
        };
        self.remove_entries(task.id, None)?;
        moved.empty(&trash, task).whole().map(|_| ())
    }
}
