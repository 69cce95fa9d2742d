//! The marker of a task that may not be durable, and the decision about a task that still has one.
//!
//! A submitter syncs a task after its rename to `tasks/`, and until then the task has the marker
//! `.new.<boot>.<digest>`. Not how the task is built (`publish.rs`). Invariant: whoever works on a task
//! decides first ([`Spool::check_marker`], under the task's lock). So nothing runs that a power cut could
//! still take away, and a task that a power cut left incomplete is removed and never runs: it was not
//! acknowledged.

use super::lock::{Claim, TaskLock};
use super::store::TaskDir;
use crate::clock::BootId;
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::{SMALL_FILE, name};
use crate::spool::open::Spool;
use crate::task::{MAX_REQUEST_BYTES, TaskId};

/// The files that a marker stands for, in the order of the syncs and of the digest. None of them changes
/// before the task ends.
const FILES: [(&str, usize); 3] = [
    (name::REQUEST, MAX_REQUEST_BYTES),
    (name::ENVIRONMENT, SMALL_FILE),
    (name::ORIGIN, SMALL_FILE),
];

/// A marker, from its name.
struct Marker {
    boot: String,
    digest: u64,
}

impl Marker {
    fn parse(name: &str) -> Option<Marker> {
        let (boot, digest) = name.strip_prefix(name::NEW_PREFIX)?.rsplit_once('.')?;
        Some(Marker {
            boot: boot.to_owned(),
            digest: u64::from_str_radix(digest, 16).ok()?,
        })
    }

    fn name(&self) -> String {
        format!("{}{}.{:016x}", name::NEW_PREFIX, self.boot, self.digest)
    }
}

/// Puts the marker of this boot into the folder of a task that is being built, and returns its name. `files`
/// are the contents of [`FILES`].
pub(super) fn put_marker(dir: &Dir, id: TaskId, files: [Option<&Vec<u8>>; 3]) -> IoResult<String> {
    let marker = Marker {
        boot: BootId::current().kernel().to_owned(),
        digest: digest(id, files),
    };
    let name = marker.name();
    dir.make_entry(&name, dir, name::LOCK)?;
    Ok(name)
}

/// FNV-1a over the id and the files, each with its length. After a power cut a file may be empty, cut off, or
/// (ext4 with `data=writeback`) hold what was at its place on the disk before: even the request of another
/// task. It does not protect from a person: whoever can write the files can write the marker.
fn digest(id: TaskId, files: [Option<&Vec<u8>>; 3]) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    add(id.to_string().as_bytes());
    for file in files {
        let length = file.map_or(u64::MAX, |bytes| bytes.len() as u64);
        add(&length.to_le_bytes());
        add(file.map_or(&[], |bytes| bytes));
    }
    digest
}

impl TaskDir {
    /// The names of its markers. There is at most one, unless a person copied folders over each other.
    pub(in crate::spool) fn marker_names(&self) -> IoResult<Vec<String>> {
        let mut names = Vec::new();
        self.dir.each_name(|entry, _| {
            let entry = std::str::from_utf8(entry).unwrap_or_default();
            names.extend(Marker::parse(entry).map(|_| entry.to_owned()));
            true
        })?;
        Ok(names)
    }

    /// Whether it has a marker, so that it may not be durable, or not complete.
    pub(in crate::spool) fn has_marker(&self) -> IoResult<bool> {
        Ok(!self.marker_names()?.is_empty())
    }

    /// Syncs the files that a marker stands for, and the folder. Each has a sync of its own, so that this is
    /// right on every file system. On ext4 and XFS the first one commits all of it.
    pub(super) fn sync_files(&self) -> IoResult<()> {
        if !self.dir.making().sync {
            return Ok(());
        }
        for (file, _) in FILES {
            match self.dir.open_own_file(file) {
                Ok(opened) => self.dir.sync_file(&opened, file)?,
                Err(error) if error.is_absent() || error.is_unusable() => {}
                Err(error) => return Err(error),
            }
        }
        self.dir.sync()
    }

    /// Whether a task with these markers is complete: what was acknowledged always is.
    fn is_whole(&self, markers: &[Marker]) -> IoResult<bool> {
        // An attempt starts after the syncs. Its record may outlive the removal of the marker.
        if self.has_result_file()? || self.last_attempt()? > 0 {
            return Ok(true);
        }
        let mut files = [const { None }; FILES.len()];
        for (at, (file, cap)) in FILES.into_iter().enumerate() {
            files[at] = match self.dir.read_own(file, cap) {
                // A folder or a link of this name is not this file. A file with other rights may well be.
                Err(error) if error.is_unusable() && !error.is_denied() => None,
                read => read?,
            };
        }
        let digest = digest(self.id, files.each_ref().map(Option::as_ref));
        Ok(markers.iter().any(|marker| marker.digest == digest)
            && self.dir.find_dir(name::ATTEMPTS)?.is_some())
    }
}

impl Spool {
    /// Decides about a task whose lock was just taken, if its submitter left the marker. A task that is
    /// complete is made durable, and so accepted. A task that a power cut left incomplete was never
    /// acknowledged. It is removed, and [`Claim::Gone`] is returned.
    ///
    /// # Errors
    /// Nothing was decided, and the marker stays.
    pub(super) fn check_marker(&self, tasks: &Dir, lock: TaskLock) -> IoResult<Claim> {
        let task = lock.task();
        let names = task.marker_names()?;
        if names.is_empty() {
            return Ok(Claim::Locked(lock));
        }
        let markers: Vec<Marker> = names.iter().filter_map(|it| Marker::parse(it)).collect();
        if !task.is_whole(&markers)? {
            self.discard(task)?;
            tracing::warn!(task = %task.id, "removed: the power was cut before this task was accepted, and its files are not complete");
            return Ok(Claim::Gone);
        }
        task.sync_files()?;
        tasks.sync()?;
        for marker in names {
            task.dir.unlink(marker)?;
        }
        Ok(Claim::Locked(lock))
    }
}
