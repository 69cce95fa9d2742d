//! What is in the drop box: one listing, in the order of arrival; first what has an id of its moment.
//!
//! Not what becomes of a file (`incoming.rs`, `control.rs`), nor whose file is next
//! (`intake/rounds.rs`). Invariant: what is mounted here, and what cannot be seen, keeps nobody from the rest.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::chosen_id::is_near;
use super::control::ControlFile;
use super::drop_file::{DropFile, is_drop_name, is_folder};
use super::drop_read::Fingerprint;
use crate::spool::disk::{IoError, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::Control;

/// The files in the box, each kind in its order.
#[derive(Debug, Default)]
pub struct InBox {
    /// What may become a task.
    pub drops: Vec<DropFile>,
    /// What asks for something to be done to a task; in a private spool such a file is a drop that is refused.
    pub controls: Vec<ControlFile>,
    /// What could not be looked at this time.
    pub unseen: Vec<OsString>,
    /// Why the first of them could not.
    pub failed: Option<IoError>,
}

impl InBox {
    /// How many files wait in it: folders are left where they are.
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
                // What is mounted there, or shut, is not there.
                Ok(None) => continue,
                // No room for one more open file, or a damaged entry: the others go on.
                Err(error) => {
                    unseen.push(file_name);
                    failed.get_or_insert(error);
                    continue;
                }
            };
            match control.filter(|_| is_group) {
                // Somebody's folder asks for nothing.
                Some(_) if is_folder(&stat) => {}
                Some(control) => controls.push(ControlFile {
                    file_name,
                    control,
                    user: stat.st_uid,
                    seen: Fingerprint::of(&stat),
                    arrived: (stat.st_ctime, stat.st_ctime_nsec),
                }),
                None => drops.push(DropFile {
                    // In a private spool all files are the owner's to take in the order of their arrival.
                    user: if is_group { stat.st_uid } else { 0 },
                    ..DropFile::of(file_name, &stat)
                }),
            }
        }
        // Before what another user may have moved here from a folder that they share.
        let is_by_submit = |drop: &DropFile| {
            let id = self.chosen_id(&drop.file_name);
            id.is_some_and(|id| is_near(id, drop.looked_at().changed_ms))
        };
        drops
            .sort_by_cached_key(|drop| (!is_by_submit(drop), drop.arrived, drop.file_name.clone()));
        controls.sort_by(|a, b| (a.arrived, &a.file_name).cmp(&(b.arrived, &b.file_name)));
        Ok(InBox {
            drops,
            controls,
            unseen,
            failed,
        })
    }
}

impl Spool {
    /// What lies in the box and is never taken: folders, and files whose names are not a drop's. Names with a leading
    /// dot are left out, because something is being written under them.
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
            // What cannot be looked at is counted elsewhere.
            let stat = incoming.look(&file_name).ok().flatten();
            strange.extend(stat.filter(is_folder).map(|_| file_name));
        }
        strange.sort();
        Ok(strange)
    }
}
