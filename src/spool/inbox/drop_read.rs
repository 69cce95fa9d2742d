//! How a drop is read: it is a valid request, may still become one, or never will.
//!
//! Not what is done with it (`incoming.rs`). Invariant: reading never blocks, never follows a link and never
//! opens a device, and no byte of the file is copied into a reason.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::box_entry::{TOO_MANY_BLOCKS, is_slow_to_free};
use super::drop_file::matches_pattern;
use crate::proc;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none};
use crate::spool::open::Spool;
use crate::task::{Control, MAX_REQUEST_BYTES, Request, RequestError};

/// The metadata of a file, to see later whether it has changed, without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

impl Fingerprint {
    pub(in crate::spool) fn inode(self) -> u64 {
        self.inode
    }

    /// The file's size in bytes.
    pub(in crate::spool) fn size(self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    pub(in crate::spool) fn of(stat: &Stat) -> Fingerprint {
        Fingerprint {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

/// The outcome of reading a drop.
#[derive(Debug)]
pub enum Pickup {
    /// A complete, valid request, and its bytes.
    Ready(Box<Request>, Vec<u8>),
    /// It may still be incomplete. Refuse it with this reason if it does not change for some time.
    NotYet(DropRefusal),
    /// It can never become a request.
    Refused(DropRefusal),
    /// It is gone.
    Gone,
}

/// Why a drop is refused, for the person who submitted it.
#[derive(Clone, Debug)]
pub struct DropRefusal {
    /// The reason, in one line.
    pub reason: String,
    /// What to try.
    pub hint: &'static str,
}

pub(in crate::spool) fn refusal(reason: impl Into<String>, hint: &'static str) -> DropRefusal {
    DropRefusal {
        reason: reason.into(),
        hint,
    }
}

impl Spool {
    /// Whether it is certain that all users of the spool's group can read a file. An access list may exclude
    /// some of them whatever the mode is, so a file with an access list counts as private. A file of another
    /// group must be readable by all users.
    fn may_group_read(&self, file: &File, stat: &Stat) -> IoResult<bool> {
        const GROUP_READS: u32 = 0o040;
        const OTHERS_READ: u32 = 0o004;
        let gid = stat.st_gid;
        let is_of_group = gid == self.root()?.own_stat()?.st_gid && !proc::is_no_group(gid);
        let needed = GROUP_READS | if is_of_group { 0 } else { OTHERS_READ };
        Ok(stat.st_mode & needed == needed && !has_access_list(file))
    }

    /// Refuses a file whose permissions or links suggest that its content is not meant for this spool.
    fn problem_of_rights(&self, file: &File, opened: &Stat) -> IoResult<Option<DropRefusal>> {
        // Some programs deliver files by a hard link, as Maildir does. But a user can also link another
        // user's file, or one of ours, into the box. In a group spool its content would become readable by
        // the group.
        let is_ours = opened.st_uid == rustix::process::geteuid().as_raw();
        if self.is_group() && !self.may_group_read(file, opened)? {
            if proc::is_no_group(opened.st_gid) {
                return Ok(Some(refusal(
                    "its group does not exist in the user namespace of the spool's watcher",
                    "ask the spool's owner to map the spool's group into the watcher's user namespace",
                )));
            }
            // Another user may have moved a private file here. As a request it would be readable by the
            // group.
            return Ok(Some(refusal(
                "the group cannot read it",
                "give the file the mode 0640, the spool's group, and no access list (`setfacl -b`)",
            )));
        }
        let may_be_linked = is_ours != self.is_group();
        if opened.st_nlink > 1 && !may_be_linked {
            return Ok(Some(refusal(
                "it has more than one hard link, so its content may not be meant for this spool",
                "copy the file instead of linking it",
            )));
        }
        Ok(None)
    }

    fn refused_by_name(&self, file_name: &OsStr) -> Option<&str> {
        let patterns = self.settings().refused_drop_names.iter();
        let mut patterns = patterns.map(String::as_str);
        patterns.find(|pattern| matches_pattern(pattern.as_bytes(), file_name.as_bytes()))
    }

    /// Opens, checks and parses a drop. Never blocks and never follows a link.
    pub(super) fn read_drop(&self, folder: &Dir, file_name: &OsStr) -> IoResult<Pickup> {
        if !self.is_group() && Control::of_file_name(file_name.as_bytes()).is_some() {
            return Ok(Pickup::Refused(refusal(
                "it is a control file, and only the drop box of a group spool accepts control files",
                "use `agentspool cancel`",
            )));
        }
        if let Some(pattern) = self.refused_by_name(file_name) {
            return Ok(Pickup::Refused(refusal(
                format!(
                    "its name matches `{pattern}` in the setting `refused_drop_names`: sync programs use such names for conflicting copies of a file"
                ),
                "choose the right copy and drop it under another name",
            )));
        }
        let (file, opened) = match open_drop(folder, file_name)? {
            Ok(opened) => opened,
            Err(instead) => return Ok(instead),
        };
        if let Some(why) = self.problem_of_rights(&file, &opened)? {
            return Ok(Pickup::NotYet(why));
        }
        let mut bytes = Vec::new();
        file.take(MAX_REQUEST_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| IoError::new("read", folder.path_of(file_name), source))?;
        Ok(match Request::parse(&bytes) {
            Ok(request) => Pickup::Ready(Box::new(request), bytes),
            Err(error) => refuse_request(&error, &bytes),
        })
    }
}

/// Opens a drop, or returns why it cannot be opened. Never blocks and never follows a link.
fn open_drop(folder: &Dir, file_name: &OsStr) -> IoResult<Result<(File, Stat), Pickup>> {
    // Checked before it is opened, because opening a device can have side effects.
    let Some(stat) = folder.look(file_name)? else {
        return Ok(Err(Pickup::Gone));
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Ok(Err(Pickup::Refused(refusal(
            format!("it is {}, not a regular file", describe_kind(kind)),
            "copy the file itself into incoming/",
        ))));
    }
    if stat.st_size.unsigned_abs() > MAX_REQUEST_BYTES as u64 {
        return Ok(Err(refuse_request(&RequestError::TooLarge, &[])));
    }
    // Not opened: if its owner removed it now, the kernel would free it when it is closed here. A writer may
    // have preallocated it.
    if is_slow_to_free(&stat) {
        return Ok(Err(Pickup::NotYet(refusal(
            TOO_MANY_BLOCKS,
            "copy the file and drop the copy",
        ))));
    }
    let file = match absent_is_none(folder.open_here(file_name)) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Err(Pickup::Gone)),
        Err(error) if error.errno() == Some(Errno::LOOP) => return Ok(Err(Pickup::Gone)),
        Err(error) if error.is_denied() => {
            return Ok(Err(Pickup::NotYet(refusal(
                "the watcher cannot read it",
                "give the file a mode that lets the spool's owner read it",
            ))));
        }
        // Another program holds a lease on it. The kernel has asked that program to release it.
        Err(error) if error.errno() == Some(Errno::AGAIN) => {
            return Ok(Err(Pickup::NotYet(refusal(
                "another program holds a lease on it",
                "close the file in that program and drop it again",
            ))));
        }
        Err(error) => return Err(error),
    };
    let opened = rustix::fs::fstat(&file)
        .map_err(|errno| IoError::new("check", folder.path_of(file_name), errno))?;
    if Fingerprint::of(&opened).inode != stat.st_ino
        || FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile
    {
        return Ok(Err(Pickup::Gone));
    }
    Ok(Ok((file, opened)))
}

/// Whether a file has an access list (acl(5)) apart from its mode. `true` if this cannot be determined.
pub(in crate::spool) fn has_access_list(file: &File) -> bool {
    let mut nothing: [u8; 0] = [];
    let list = rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut nothing);
    !matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

fn refuse_request(error: &RequestError, bytes: &[u8]) -> Pickup {
    let reason = error.to_string();
    match error {
        RequestError::Incomplete(_) => Pickup::NotYet(refusal(
            reason,
            "write the complete file under another name, such as .NAME.tmp, and then rename it to NAME.json",
        )),
        RequestError::Syntax(_) => {
            let why = refusal(
                reason,
                "check the file with a JSON parser (JSON has no comments and no comma after the last entry) and drop it again",
            );
            // A writer that preallocates the file leaves zeroes where it has not written yet. No other syntax
            // error is fixed by more bytes.
            match bytes.contains(&0) {
                true => Pickup::NotYet(why),
                false => Pickup::Refused(why),
            }
        }
        RequestError::Utf16 => {
            Pickup::Refused(refusal(reason, "save the file as UTF-8 and drop it again"))
        }
        RequestError::TooLarge => Pickup::Refused(refusal(
            reason,
            "put the data into a separate file and give its path in the input",
        )),
        RequestError::Shape(_) | RequestError::UnknownField(_) => Pickup::Refused(refusal(
            reason,
            "see schema/request.schema.json in the source of agentspool, or `agentspool help submit`",
        )),
        RequestError::Reserved(_) => Pickup::Refused(refusal(reason, "remove the field")),
        RequestError::Newer(_) => Pickup::Refused(refusal(reason, "use a newer agentspool")),
    }
}

fn describe_kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}
