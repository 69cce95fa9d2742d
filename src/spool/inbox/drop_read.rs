//! Looking at a drop: whether it is a request, may yet become one, or never will.
//!
//! Not what is done with it (`incoming.rs`). Invariant: looking never blocks, never follows a link,
//! never opens a device, and no byte of the file gets into a reason.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::drop_file::fits;
use crate::proc;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none};
use crate::spool::open::Spool;
use crate::task::{Control, MAX_REQUEST_BYTES, Request, RequestError};

/// What a file was when it was looked at: whether it is still the same, without reading it.
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

    pub(in crate::spool) fn of(stat: &Stat) -> Fingerprint {
        Fingerprint {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

/// What looking at a drop gave.
#[derive(Debug)]
pub enum Pickup {
    /// A whole, valid request.
    Ready(Box<Request>, Vec<u8>),
    /// It may still be being written; refuse it with this reason once it has stood unchanged.
    NotYet(DropRefusal),
    /// It can never become a request.
    Refused(DropRefusal),
    /// Somebody took it away.
    Gone,
}

/// Why a drop is refused, for the person who dropped it.
#[derive(Clone, Debug)]
pub struct DropRefusal {
    /// One line.
    pub reason: String,
    /// What to do.
    pub hint: &'static str,
}

pub(in crate::spool) fn refusal(reason: impl Into<String>, hint: &'static str) -> DropRefusal {
    DropRefusal {
        reason: reason.into(),
        hint,
    }
}

impl Spool {
    /// Whether the group that shares the spool may read a file, without doubt. An access list may shut some
    /// of its users out whatever the mode says, so a file with one is taken for private; and of a file of
    /// another group, which some of the users may be in, all must have the right to read.
    fn may_group_read(&self, file: &File, stat: &Stat) -> IoResult<bool> {
        const GROUP_READS: u32 = 0o040;
        const OTHERS_READ: u32 = 0o004;
        let gid = stat.st_gid;
        let is_of_group = gid == self.root()?.own_stat()?.st_gid && !proc::is_no_group(gid);
        let needed = GROUP_READS | if is_of_group { 0 } else { OTHERS_READ };
        Ok(stat.st_mode & needed == needed && !has_access_list(file))
    }

    /// Why what is in a file may not be meant for this spool, if so.
    fn problem_of_rights(&self, file: &File, opened: &Stat) -> IoResult<Option<DropRefusal>> {
        // Maildir-style producers link; but a second name may be how another user's file got here, or
        // one of ours. In a group spool what it holds would be shown to the group.
        let is_ours = opened.st_uid == rustix::process::geteuid().as_raw();
        if self.is_group() && !self.may_group_read(file, opened)? {
            if proc::is_no_group(opened.st_gid) {
                return Ok(Some(refusal(
                    "its group is not known in the user namespace of the spool's watcher",
                    "ask the spool's owner to give the watcher's namespace the spool's group",
                )));
            }
            // A private file that another user may have moved here; as a request the group could read it.
            return Ok(Some(refusal(
                "the group may not read it",
                "give the file the mode 0640, the spool's group, and no access list (`setfacl -b`)",
            )));
        }
        let may_be_linked = is_ours != self.is_group();
        if opened.st_nlink > 1 && !may_be_linked {
            return Ok(Some(refusal(
                "it has more than one hard link, and what it holds may not be meant for this spool",
                "copy the file instead of linking it",
            )));
        }
        Ok(None)
    }

    fn refused_by_name(&self, file_name: &OsStr) -> Option<&str> {
        let patterns = self.settings().refused_drop_names.iter();
        let mut patterns = patterns.map(String::as_str);
        patterns.find(|pattern| fits(pattern.as_bytes(), file_name.as_bytes()))
    }

    /// Opens, checks and parses a drop; never blocks, never follows, never waits.
    pub(super) fn read_drop(&self, folder: &Dir, file_name: &OsStr) -> IoResult<Pickup> {
        if !self.is_group() && Control::of_file_name(file_name.as_bytes()).is_some() {
            return Ok(Pickup::Refused(refusal(
                "it asks for something to be done to a task, which only the drop box of a group spool takes",
                "use `agentspool cancel`",
            )));
        }
        if let Some(pattern) = self.refused_by_name(file_name) {
            return Ok(Pickup::Refused(refusal(
                format!(
                    "its name fits `{pattern}` of the setting `refused_drop_names`: sync programs call a second copy of a file so"
                ),
                "choose which copy is meant, and drop that one under another name",
            )));
        }
        let (file, opened) = match open_drop(folder, file_name)? {
            Ok(opened) => opened,
            Err(instead) => return Ok(instead),
        };
        if let Some(why) = self.problem_of_rights(&file, &opened)? {
            return Ok(Pickup::NotYet(why));
        }
        if opened.st_size.unsigned_abs() > MAX_REQUEST_BYTES as u64 {
            return Ok(refuse_request(&RequestError::TooLarge, &[]));
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

/// Opens a drop, or says what there is instead. It never blocks and follows no link.
fn open_drop(folder: &Dir, file_name: &OsStr) -> IoResult<Result<(File, Stat), Pickup>> {
    // Looked at before it is opened: opening a device can have effects of its own.
    let Some(stat) = folder.look(file_name)? else {
        return Ok(Err(Pickup::Gone));
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Ok(Err(Pickup::Refused(refusal(
            format!("it is {} and no regular file", describe_kind(kind)),
            "copy the file itself into incoming/",
        ))));
    }
    let file = match absent_is_none(folder.open_here(file_name)) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Err(Pickup::Gone)),
        Err(error) if error.errno() == Some(Errno::LOOP) => return Ok(Err(Pickup::Gone)),
        Err(error) if error.is_denied() => {
            return Ok(Err(Pickup::NotYet(refusal(
                "the watcher may not read it",
                "give the file a mode that lets the spool's owner read it",
            ))));
        }
        // A lease on it that its maker holds: the kernel asks for it back.
        Err(error) if error.errno() == Some(Errno::AGAIN) => {
            return Ok(Err(Pickup::NotYet(refusal(
                "another program holds a lease on it",
                "let go of the file and drop it again",
            ))));
        }
        Err(error) => return Err(error),
    };
    let opened = rustix::fs::fstat(&file)
        .map_err(|errno| IoError::new("look at", folder.path_of(file_name), errno))?;
    if Fingerprint::of(&opened).inode != stat.st_ino
        || FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile
    {
        return Ok(Err(Pickup::Gone));
    }
    Ok(Ok((file, opened)))
}

/// Whether an access list (acl(5)) says more of a file than its mode does. What cannot be found out counts
/// as one.
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
            "write the whole file, best as .NAME.tmp, and then rename it to NAME.json",
        )),
        RequestError::Syntax(_) => {
            let why = refusal(
                reason,
                "check the file with any JSON parser, which has no comments and no comma behind the last entry, and drop it again",
            );
            // Zeros stand where a writer that makes room first has not been yet. Nothing else that is wrong
            // here is mended by more bytes.
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
            "put the data into a file of its own and name its path in the input",
        )),
        RequestError::Shape(_) | RequestError::UnknownField(_) => Pickup::Refused(refusal(
            reason,
            "see schema/request.schema.json in the spool's source, or `agentspool help submit`",
        )),
        RequestError::Reserved(_) => Pickup::Refused(refusal(reason, "leave the field out")),
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
