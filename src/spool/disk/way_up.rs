//! The way up from an open folder: which folder is a number of levels above it.
//!
//! Not the removal that needs it (`tree.rs`). Invariant: it takes one system call for 1000 levels, and it
//! works at any depth, although a path is limited to 4096 bytes.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::which::{Which, which};

/// The number of levels for one call.
const HOP: usize = 1000;
/// `../../..` and so on, and the end of a C string.
const WAY: [u8; 3 * HOP] = {
    let mut way = [b'.'; 3 * HOP];
    let mut at = 2;
    while at < way.len() {
        way[at] = b'/';
        at += 3;
    }
    way[3 * HOP - 1] = 0;
    way
};

/// The folder that is `levels` levels above this one.
pub(in crate::spool) fn above(folder: BorrowedFd<'_>, levels: usize) -> Result<Which, Errno> {
    if levels <= HOP {
        return which_above(folder, levels);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::openat(folder, way(HOP)?, flags, Mode::empty())?;
    let mut levels = levels - HOP;
    while levels > HOP {
        folder = rustix::fs::openat(&folder, way(HOP)?, flags, Mode::empty())?;
        levels -= HOP;
    }
    which_above(folder.as_fd(), levels)
}

fn which_above(folder: BorrowedFd<'_>, levels: usize) -> Result<Which, Errno> {
    let stat = match levels {
        0 => rustix::fs::fstat(folder)?,
        levels => rustix::fs::statat(folder, way(levels)?, AtFlags::empty())?,
    };
    Ok(which(&stat))
}

fn way(levels: usize) -> Result<&'static CStr, Errno> {
    static LONGEST: [u8; 3 * HOP] = WAY;
    let from = LONGEST.len() - 3 * levels.min(HOP);
    CStr::from_bytes_with_nul(&LONGEST[from..]).map_err(|_| Errno::INVAL)
}
