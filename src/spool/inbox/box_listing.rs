//! The list of files in the drop box, in the order of arrival. Files named after a fresh id come first, and
//! control files that may be valid.
//!
//! Not what is done with a file (`incoming.rs`, `control.rs`), nor which user's file is next
//! (`intake/rounds.rs`). Invariant: an entry that is a mount or cannot be checked does not block the others.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::chosen_id::is_near;
use super::control::ControlFile;
use super::drop_file::{DropFile, is_drop_name, is_folder};
use super::drop_read::Fingerprint;
use crate::spool::disk::{IoError, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{Control, TaskId};

/// The files in the box, each kind in the order in which it is taken.
#[derive(Debug, Default)]
pub struct InBox {
    /// Files that may become tasks.
    pub drops: Vec<DropFile>,
    /// Control files, which request an action on a task. In a private spool they are drops that are refused.
    pub controls: Vec<ControlFile>,
    /// Files that could not be checked this time.
    pub unseen: Vec<OsString>,
    /// The error for the first of them.
    pub failed: Option<IoError>,
}

impl InBox {
    /// The number of waiting files. Folders do not count, because they are never taken.
    pub fn waiting(&self) -> usize {
        let files = self.drops.iter().filter(|drop| !drop.is_folder());
        files.count() + self.controls.len() + self.unseen.len()
    }
}

impl Spool {
    /// Lists the box.
    pub fn in_box(&self) -> IoResult<InBox> {
        self.check_box()?;
        let incoming = self.folder(name::INCOMING)?;
        let is_group = self.is_group();
        let mut names = Vec::new();
        incoming.each_name(|name, _| {
            let control = Control::of_file_name(name);
            if control.is_some() || is_drop_name(name) {
                names.push((OsString::from_vec(name.to_vec()), control));
            }
            true
        })?;
        let (mut drops, mut controls) = (Vec::new(), Vec::new());
        let (mut unseen, mut failed) = (Vec::new(), None);
        for (file_name, control) in names {
            let stat = match incoming.look(&file_name) {
                Ok(Some(stat)) => stat,
                // A mount or an entry without permissions counts as absent.
                Ok(None) => continue,
                // Too many open files, or a damaged entry. The others are still listed.
                Err(error) => {
                    unseen.push(file_name);
                    failed.get_or_insert(error);
                    continue;
                }
            };
            match control.filter(|_| is_group) {
                // A folder is no control file.
                Some(_) if is_folder(&stat) => {}
                Some(control) => controls.push(ControlFile {
                    file_name,
                    control,
                    user: stat.st_uid,
                    seen: Fingerprint::of(&stat),
                    arrived: (stat.st_ctime, stat.st_ctime_nsec),
                }),
                None => drops.push(DropFile {
                    // In a private spool all files count as one user's, so they are taken in order of
                    // arrival.
                    user: if is_group { stat.st_uid } else { 0 },
                    ..DropFile::of(file_name, &stat)
                }),
            }
        }
        // A file with a fresh id was put here by `submit`. It comes before files that another user may have
        // moved here from a shared folder.
        let is_by_submit = |drop: &DropFile| {
            let id = self.chosen_id(&drop.file_name);
            id.is_some_and(|id| is_near(id, drop.seen_file().changed_ms))
        };
        drops
            .sort_by_cached_key(|drop| (!is_by_submit(drop), drop.arrived, drop.file_name.clone()));
        self.sort_controls(&mut controls, &drops)?;
        Ok(InBox {
            drops,
            controls,
            unseen,
            failed,
        })
    }
}

impl Spool {
    /// Another user may have moved files here under names of control files. So files that may be valid come
    /// first: they have the size of a control file and name an unfinished task or a drop of the same user.
    fn sort_controls(&self, controls: &mut [ControlFile], drops: &[DropFile]) -> IoResult<()> {
        if controls.len() < 2 {
            return Ok(());
        }
        let open: HashSet<TaskId> = self.open_ids()?.into_iter().collect();
        let of_drop = |drop: &DropFile| Some((self.chosen_id(&drop.file_name)?, drop.user));
        let waiting: HashSet<(TaskId, u32)> = drops.iter().filter_map(of_drop).collect();
        let mut asked = HashMap::new();
        controls.sort_by_cached_key(|file| {
            let (id, user) = (file.task(), file.user);
            let may_be_valid = file.has_its_size()
                && (waiting.contains(&(id, user))
                    || open.contains(&id)
                        && *asked
                            .entry((id, user))
                            .or_insert_with(|| self.may_be_submitter(id, user)));
            (!may_be_valid, file.arrived, file.file_name.clone())
        });
        Ok(())
    }

    /// Whether a user may have submitted a task that may still be in the making.
    fn may_be_submitter(&self, id: TaskId, user: u32) -> bool {
        match self.task(id) {
            Ok(Some(task)) => self.may_control(&task, user).unwrap_or(true),
            Ok(None) | Err(_) => true,
        }
    }

    /// Entries of the box that are never taken: folders, and files whose names are not names of drops. Names
    /// with a leading dot are left out, because such files may still be written.
    ///
    /// # Errors
    /// The box cannot be read.
    pub fn strange_in_box(&self) -> IoResult<Vec<OsString>> {
        let incoming = self.folder(name::INCOMING)?;
        let (mut strange, mut drops) = (Vec::new(), Vec::new());
        incoming.each_name(|name, _| {
            let file_name = OsString::from_vec(name.to_vec());
            if Control::of_file_name(name).is_some() || is_drop_name(name) {
                drops.push(file_name);
            } else if !name.starts_with(b".") {
                strange.push(file_name);
            }
            true
        })?;
        for file_name in drops {
            // Entries that cannot be checked are counted elsewhere.
            let stat = incoming.look(&file_name).ok().flatten();
            strange.extend(stat.filter(is_folder).map(|_| file_name));
        }
        strange.sort();
        Ok(strange)
    }
}
