//! From version 1 of the spool to version 2, by `init`.
//!
//! In version 1 the users of a group could write in most folders of a group spool; in version 2 they
//! write in the drop box alone. Not the layout itself (`layout.rs`). Invariants: `spool.json` says 2 only
//! once everything else is converted, so a conversion that was cut off is done again; nothing that others
//! made stays in a folder of the owner's, and nothing of it is deleted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use fs2::FileExt;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::durable::{Dir, absent_is_none};

use super::io_error::{IoError, IoResult};
use super::layout::{FOLDERS, OpenError, Sharing, name, pretty, random_bits};
use super::rejected::{Reason, plain_file_name, reason_file};
use super::settings_file::{StoredSettings, read_older_settings, stored_settings};
use super::store::TaskDir;
use super::watchers::{START, is_living, seats_in};
use crate::clock;
use crate::task::{FORMAT_VERSION, TaskId, escape_label};

const OWNER_ONLY: Mode = Mode::from_bits_retain(0o600);
const OWNER_ONLY_FOLDER: Mode = Mode::from_bits_retain(0o700);
const READABLE: Mode = Mode::from_bits_retain(0o640);
const READABLE_FOLDER: Mode = Mode::from_bits_retain(0o2750);
const DROP_BOX: Mode = Mode::from_bits_retain(0o3730);
const HIDDEN_PREFIX: &str = ".rejected.";
/// Access lists that users of the group may have set, and that new files would inherit.
const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Converts a spool of version 1. The caller holds the root's lock.
///
/// # Errors
/// When a watcher runs on it, or the disk refuses. Then it is still of version 1 and can be converted
/// again.
pub(super) fn convert(root: &Dir) -> Result<(), OpenError> {
    let StoredSettings { sharing, settings } = read_older_settings(root)?;
    let _start = refuse_watchers(root)?;
    if sharing == Sharing::Group {
        Conversion::of(root)?.group_spool()?;
    }
    let stored = stored_settings(sharing, &settings);
    root.replace_durably(name::SETTINGS, &pretty(&stored))?;
    if sharing == Sharing::Group {
        root.set_mode(name::SETTINGS, READABLE)?;
    }
    Ok(())
}

/// Sees that no watcher runs, and that none starts as long as the answer is held.
fn refuse_watchers(root: &Dir) -> Result<Option<std::fs::File>, OpenError> {
    let watched = || OpenError::Watched {
        path: root.path().to_owned(),
    };
    let Some(watchers) = root.find_dir(name::WATCHERS)? else {
        return Ok(None);
    };
    let start = watchers.lock_file(START)?;
    if start.try_lock_exclusive().is_err() {
        return Err(watched());
    }
    for seat in seats_in(&watchers)? {
        if is_living(&watchers, &seat)? {
            return Err(watched());
        }
    }
    Ok(Some(start))
}

/// One conversion of a group spool.
struct Conversion<'a> {
    root: &'a Dir,
    rejected: Dir,
    us: u32,
}

impl<'a> Conversion<'a> {
    fn of(root: &'a Dir) -> IoResult<Conversion<'a>> {
        let rejected = root.ensure_dir(name::REJECTED)?;
        let us = rustix::process::geteuid().as_raw();
        Ok(Conversion { root, rejected, us })
    }

    fn group_spool(&self) -> IoResult<()> {
        for folder in FOLDERS {
            let Some(dir) = self.root.find_dir(folder)? else {
                continue;
            };
            let mode = match folder {
                name::INCOMING => DROP_BOX,
                name::SLOTS | name::SESSIONS => OWNER_ONLY_FOLDER,
                _ => READABLE_FOLDER,
            };
            // First: from here on nobody else puts anything into it.
            close(&dir, mode)?;
            match folder {
                name::TASKS => self.tasks(&dir)?,
                name::SESSIONS => self.sessions(&dir)?,
                name::NAMES => self.evict_strange(&dir, &[])?,
                // What a crash left half made or half removed, in folders that others could write.
                name::STAGING | name::TRASH => {
                    for entry in dir.names()? {
                        self.evict(&dir, &entry)?;
                    }
                }
                name::OPEN => self.indexes(&dir)?,
                name::WATCHERS => {
                    for file in dir.names()? {
                        dir.set_mode(&file, OWNER_ONLY)?;
                    }
                }
                _ => {}
            }
        }
        // Others could open it, and so may hold it for as long as they like.
        self.root.unlink(name::SWEEP_LOCK)?;
        close(self.root, READABLE_FOLDER)
    }

    /// A task that the owner made is closed; every other one is moved to `rejected/`.
    fn tasks(&self, tasks: &Dir) -> IoResult<()> {
        self.evict_strange(tasks, &[])?;
        for task in tasks.names()? {
            if is_hidden(&task) {
                continue;
            }
            let Some(dir) = tasks.find_dir(&task)? else {
                continue;
            };
            close(&dir, READABLE_FOLDER)?;
            if self.is_strange_task(&dir)? {
                self.evict(tasks, &task)?;
                continue;
            }
            for (file, mode) in [
                (name::REQUEST, READABLE),
                (name::STATUS, READABLE),
                (".status.json.new", READABLE),
                (name::RESULT, READABLE),
            ] {
                self.set_file_mode(&dir, file, mode)?;
            }
            self.make_lock_anew(dir, &task)?;
        }
        Ok(())
    }

    /// Others could open the lock, and so may hold it for as long as they like: it becomes another file. Not
    /// where a runner of before is at work, which holds it as well.
    fn make_lock_anew(&self, dir: Dir, task: &OsStr) -> IoResult<()> {
        let Some(id) = task.to_str().and_then(|text| text.parse().ok()) else {
            return Ok(());
        };
        let task = TaskDir { id, dir };
        let attempt = task.attempt(task.last_attempt()?)?;
        let is_run = attempt
            .and_then(|attempt| attempt.run())
            .is_some_and(|run| {
                run.boot == clock::BootId::current() && crate::proc::is_alive(run.runner)
            });
        if is_run && !task.has_result()? {
            return self.set_file_mode(&task.dir, name::LOCK, OWNER_ONLY);
        }
        let between = format!(".{}.new", name::LOCK);
        task.dir.unlink(&between)?;
        task.dir.create_lock(&between)?;
        task.dir.rename_over(&between, name::LOCK)
    }

    /// Whether others had a hand in a task. They could leave the marker `cancel`, and nothing else. The
    /// folder is closed by now.
    fn is_strange_task(&self, task: &Dir) -> IoResult<bool> {
        if self.has_strange(task, &[name::CANCEL])? {
            return Ok(true);
        }
        // A second name of a private file of the owner's would be opened to the group.
        for file in [name::REQUEST, name::STATUS, name::RESULT] {
            if task.stat(file)?.is_some_and(|stat| stat.st_nlink != 1) {
                return Ok(true);
            }
        }
        let Some(attempts) = task.find_dir(name::ATTEMPTS)? else {
            return Ok(true);
        };
        close(&attempts, READABLE_FOLDER)?;
        self.has_open_attempt(&attempts)
    }

    /// Whether something in `attempts/` is another user's, or a folder that others could write.
    fn has_open_attempt(&self, attempts: &Dir) -> IoResult<bool> {
        for attempt in attempts.names()? {
            let Some(stat) = attempts.stat(&attempt)? else {
                continue;
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if stat.st_uid != self.us || (is_folder && stat.st_mode & 0o022 != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a session's tasks share stays where the owner made all of it.
    fn sessions(&self, sessions: &Dir) -> IoResult<()> {
        self.evict_strange(sessions, &[])?;
        for session in sessions.names()? {
            if is_hidden(&session) {
                continue;
            }
            let Some(dir) = sessions.find_dir(&session)? else {
                continue;
            };
            close(&dir, OWNER_ONLY_FOLDER)?;
            if self.has_strange(&dir, &[])? {
                self.evict(sessions, &session)?;
                continue;
            }
            for folder in [name::QUEUE, name::STATE] {
                if let Some(folder) = dir.find_dir(folder)? {
                    close(&folder, OWNER_ONLY_FOLDER)?;
                }
            }
        }
        Ok(())
    }

    /// The indexes are made anew by the next watcher.
    fn indexes(&self, open: &Dir) -> IoResult<()> {
        for entry in open.names()? {
            if open.unlink(&entry).is_err() {
                self.evict(open, &entry)?;
            }
        }
        Ok(())
    }

    fn has_strange(&self, dir: &Dir, known: &[&str]) -> IoResult<bool> {
        Ok(!self.strange(dir, known)?.is_empty())
    }

    fn evict_strange(&self, dir: &Dir, known: &[&str]) -> IoResult<()> {
        for entry in self.strange(dir, known)? {
            // A name that leads to a task is a link, which nobody can change any more.
            let is_link = |stat| file_type(&stat) == FileType::Symlink;
            if dir.name() == name::NAMES && dir.stat(&entry)?.is_some_and(is_link) {
                continue;
            }
            self.evict(dir, &entry)?;
        }
        Ok(())
    }

    /// What others made in a folder.
    fn strange(&self, dir: &Dir, known: &[&str]) -> IoResult<Vec<OsString>> {
        let mut strange = Vec::new();
        for entry in dir.names()? {
            let is_known = known.iter().any(|name| entry == *name);
            if let Some(stat) = dir.stat(&entry)?
                && stat.st_uid != self.us
                && !is_known
                && !is_hidden(&entry)
            {
                strange.push(entry);
            }
        }
        Ok(strange)
    }

    /// Moves something to `rejected/`, with the reason. A folder that its owner has closed to us can only
    /// be renamed where it is: there it gets a hidden name.
    fn evict(&self, dir: &Dir, entry: &OsStr) -> IoResult<()> {
        let now = clock::wall();
        let id = TaskId::from_parts(now.unix_ms().unsigned_abs(), random_bits());
        let kept = format!("{id}-{}", plain_file_name(entry.as_bytes()));
        let reason = Reason {
            v: FORMAT_VERSION,
            name: escape_label(entry.as_bytes()),
            reason: format!(
                "it was made by another user in {} of a spool of version 1",
                dir.name().display()
            ),
            hint: "if it was a task, submit it again".to_owned(),
            rejected_at: now,
        };
        self.rejected
            .replace(&reason_file(&kept), &pretty(&reason))?;
        let place = match dir.rename_new(entry, &self.rejected, &kept) {
            Err(error) if error.is_denied() => {
                let hidden = format!("{HIDDEN_PREFIX}{kept}");
                dir.rename_new(entry, dir, &hidden)?;
                dir.path_of(hidden)
            }
            moved => moved.map(|()| self.rejected.path_of(&kept))?,
        };
        tracing::warn!("moved to {}: {}", place.display(), reason.reason);
        Ok(())
    }

    fn set_file_mode(&self, dir: &Dir, file: &str, mode: Mode) -> IoResult<()> {
        let Some(stat) = dir.stat(file)? else {
            return Ok(());
        };
        if file_type(&stat) == FileType::RegularFile {
            let opened = absent_is_none(dir.open_file(file))?;
            opened.map_or(Ok(()), |opened| close_file(&opened, mode, dir, file))?;
        }
        Ok(())
    }
}

/// What was moved aside where it is, in a conversion before or in this one.
fn is_hidden(entry: &OsStr) -> bool {
    entry.as_bytes().starts_with(HIDDEN_PREFIX.as_bytes())
}

fn file_type(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Takes a folder's access lists away, and sets its mode.
fn close(dir: &Dir, mode: Mode) -> IoResult<()> {
    close_file(dir, mode, dir, "")
}

/// Takes away what gives named users and groups a right, or gives it to all that is made in a folder.
pub(super) fn remove_access_lists(
    file: &impl std::os::fd::AsFd,
    dir: &Dir,
    file_name: &str,
) -> IoResult<()> {
    for list in ACCESS_LISTS {
        match rustix::fs::fremovexattr(file, list) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => {
                let path = dir.path_of(file_name);
                return Err(IoError::new("remove the access list of", path, errno));
            }
        }
    }
    Ok(())
}

fn close_file(
    file: &impl std::os::fd::AsFd,
    mode: Mode,
    dir: &Dir,
    file_name: &str,
) -> IoResult<()> {
    remove_access_lists(file, dir, file_name)?;
    rustix::fs::fchmod(file, mode)
        .map_err(|errno| IoError::new("set the mode of", dir.path_of(file_name), errno))
}
