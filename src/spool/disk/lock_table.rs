//! Who holds a lock that this user may not open: the kernel's own table, `/proc/locks`.
//!
//! For users of the group, and for who converts a spool; else the owner tries the lock. Not the locks (`flock.rs`). Invariant: nothing
//! is opened and nothing is locked to find out, so asking never stands in anybody's way.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::dir::Dir;
use super::error::{IoError, IoResult};
use crate::proc;

/// How much of the table is read, and for how long: each user can make it as long as he likes, and the
/// kernel walks through the whole list for each page of it.
const MOST_BYTES: usize = 256 * 1024;
const LONGEST: Duration = Duration::from_millis(50);
/// So much is read however long that takes: a busy machine makes no table long.
const SHORT: usize = 64 * 1024;
/// What took long to read is used again for so many times as long.
const KEPT_FOR: u32 = 20;
/// What took less is read anew each time: whether a watcher lives is asked to find out what just changed.
const CHEAP: Duration = Duration::from_millis(1);

/// A part of the table from its beginning, or all of it.
#[derive(Debug)]
struct Table {
    text: String,
    is_whole: bool,
    took: Duration,
    read_at: Instant,
}

static LAST: Mutex<Option<Arc<Table>>> = Mutex::new(None);

/// Whether a process of the spool's owner holds a lock on a file in this folder; `None` where the table is too
/// long to say it. `false` says little: the table leaves out the processes of other pid namespaces.
///
/// The table names the file system and the inode, and no subvolume: a stranger can make a file of his own
/// that has the same number in another one, and lock that. So the holder is looked at as well.
pub(in crate::spool) fn is_locked(dir: &Dir, name: &str) -> IoResult<Option<bool>> {
    let Some((stat, device)) = find(dir, name)? else {
        return Ok(Some(false));
    };
    let table = table();
    for holder in holders_in(&table.text, device, stat.stx_ino) {
        let is_owners = match proc::real_uid_of(holder) {
            Some(uid) => uid == stat.stx_uid,
            // It is hidden, or its lock was inherited and it is gone.
            None => !dir.repeats_inodes()?,
        };
        if is_owners {
            return Ok(Some(true));
        }
    }
    Ok(table.is_whole.then_some(false))
}

/// The numbers of the processes that took a lock on a file in this folder. One that has ended may have
/// left its lock to a child.
pub(in crate::spool) fn holders(dir: &Dir, name: &str) -> IoResult<Vec<i32>> {
    let Some((stat, device)) = find(dir, name)? else {
        return Ok(Vec::new());
    };
    let table = proc::read_text("/proc/locks").unwrap_or_default();
    Ok(holders_in(&table, device, stat.stx_ino).collect())
}

/// A file, and the device by which the table names it, which on btrfs is not the one that stat tells.
fn find(dir: &Dir, name: &str) -> IoResult<Option<(Statx, (u32, u32))>> {
    let flags = StatxFlags::INO | StatxFlags::UID | StatxFlags::MNT_ID;
    let stat = match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, flags) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(IoError::new("look at", dir.path_of(name), errno)),
    };
    let mounts = proc::read_text("/proc/self/mountinfo").unwrap_or_default();
    let device = device_of(&mounts, stat.stx_mnt_id);
    Ok(device.map(|device| (stat, device)))
}

fn table() -> Arc<Table> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = &*last
        && table.took > CHEAP
        && table.read_at.elapsed() < table.took * KEPT_FOR
    {
        return Arc::clone(table);
    }
    let table = Arc::new(match proc::open_locks() {
        Ok(file) => read(file, MOST_BYTES, LONGEST),
        Err(_) => read(std::io::empty(), 0, LONGEST),
    });
    *last = Some(Arc::clone(&table));
    table
}

fn read(mut from: impl Read, most: usize, longest: Duration) -> Table {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    let is_whole = loop {
        match from.read(&mut page) {
            Ok(0) | Err(_) => break true,
            Ok(read) => bytes.extend_from_slice(page.get(..read).unwrap_or_default()),
        }
        if bytes.len() > most || (bytes.len() > SHORT && begun.elapsed() > longest) {
            break false;
        }
    };
    Table {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        is_whole,
        took: begun.elapsed(),
        read_at: Instant::now(),
    }
}

/// The device of a mount, from `/proc/<pid>/mountinfo`: `36 35 98:0 / /mnt rw …`.
fn device_of(mounts: &str, mount: u64) -> Option<(u32, u32)> {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Who holds a lock on a file of this number, by `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 71 fe:00:4711 0
/// EOF`. A line with `->` is of somebody who waits.
fn holders_in(
    table: &str,
    (major, minor): (u32, u32),
    inode: u64,
) -> impl Iterator<Item = i32> + use<'_> {
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    table.lines().filter_map(move |line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next() == Some("FLOCK");
        let holder = words.nth(2)?;
        (is_flock && words.next() == Some(&wanted)).then(|| holder.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let mounts = "36 35 98:0 / / rw - ext4 /dev/x rw\n360 35 0:41 / /a rw - btrfs /dev/y rw\n";
        assert_eq!(device_of(mounts, 360), Some((0, 41)));
        assert_eq!(device_of(mounts, 36), Some((98, 0)));
        assert_eq!(device_of(mounts, 3), None);
    }

    /// Each user can make the table as long as he likes.
    #[test]
    fn a_long_table_is_read_in_part() {
        let line = "1: POSIX  ADVISORY  WRITE 73 fe:00:4713 0 0\n".repeat(100_000);
        let table = read(line.as_bytes(), MOST_BYTES, Duration::from_secs(60));
        assert!(!table.is_whole && table.text.len() <= MOST_BYTES + 4096);
        let table = read(line.as_bytes(), MOST_BYTES, Duration::ZERO);
        assert!(!table.is_whole && table.text.len() <= SHORT + 4096);
        let short = read(&line.as_bytes()[..9000], MOST_BYTES, Duration::ZERO);
        assert!(short.is_whole);
        let table = read(
            &line.as_bytes()[..9000],
            MOST_BYTES,
            Duration::from_secs(60),
        );
        assert!(table.is_whole && table.text == line[..9000]);
    }

    #[test]
    fn only_held_flocks_count() {
        let table = "1: FLOCK  ADVISORY  WRITE 71 fe:00:4711 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 72 fe:00:4712 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 73 fe:00:4713 0 EOF\n";
        let held = |inode| holders_in(table, (0xfe, 0), inode).collect::<Vec<_>>();
        assert_eq!(held(4711), [71]);
        for inode in [471, 4712, 4713] {
            assert!(held(inode).is_empty(), "{inode}");
        }
    }
}
