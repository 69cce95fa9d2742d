//! Which process holds a lock on a file that this user may not open, by the kernel's table `/proc/locks`.
//!
//! It is for users of the group and for conversions. Otherwise the owner tries the lock. Not the locks
//! themselves (`flock.rs`). Invariant: no file is opened or locked to find out, so a check never blocks
//! another process.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::dir::Dir;
use super::error::{IoError, IoResult};
use crate::proc;

/// How much of the table is read, in bytes, and for how long. Any user can make the table very long, and the
/// kernel walks through the whole list for each page of it.
const MOST_BYTES: usize = 256 * 1024;
const LONGEST: Duration = Duration::from_millis(50);
/// This many bytes are read, however long it takes: reading may be slow only because the machine is busy.
const SHORT: usize = 64 * 1024;
/// A table that took long to read is used again for this many times the reading time.
const KEPT_FOR: u32 = 20;
/// A table that took less time is read again each time, because a caller needs to see what just changed.
const CHEAP: Duration = Duration::from_millis(1);

/// The first part of the table, or all of it.
#[derive(Debug)]
struct Table {
    text: String,
    is_whole: bool,
    took: Duration,
    read_at: Instant,
}

static LAST: Mutex<Option<Arc<Table>>> = Mutex::new(None);

/// Whether a process of the spool's owner holds a lock on a file in this folder. `None` if the table is too
/// long to know it. `false` is not certain: the table has no processes of other pid namespaces.
///
/// The table has the file system and the inode, but not the subvolume. Another user can create a file with
/// the same inode number in another subvolume and lock it. So the user of the process is checked too.
pub(in crate::spool) fn is_locked(dir: &Dir, name: &str) -> IoResult<Option<bool>> {
    let Some((stat, device)) = find(dir, name)? else {
        return Ok(Some(false));
    };
    let table = table();
    for holder in holders_in(&table.text, device, stat.stx_ino) {
        let is_owners = match proc::real_uid_of(holder) {
            Some(uid) => uid == stat.stx_uid,
            // The process is hidden, or it exited and a child inherited its lock.
            None => !dir.repeats_inodes()?,
        };
        if is_owners {
            return Ok(Some(true));
        }
    }
    Ok(table.is_whole.then_some(false))
}

/// The pids of the processes that took a lock on a file in this folder. If such a process has exited, a child
/// may have inherited its lock.
pub(in crate::spool) fn holders(dir: &Dir, name: &str) -> IoResult<Vec<i32>> {
    let Some((stat, device)) = find(dir, name)? else {
        return Ok(Vec::new());
    };
    let table = proc::read_text("/proc/locks").unwrap_or_default();
    Ok(holders_in(&table, device, stat.stx_ino).collect())
}

/// A file, and its device in the table. On btrfs it is not the device that stat(2) returns.
fn find(dir: &Dir, name: &str) -> IoResult<Option<(Statx, (u32, u32))>> {
    let flags = StatxFlags::INO | StatxFlags::UID | StatxFlags::MNT_ID;
    let stat = match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, flags) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(IoError::new("check", dir.path_of(name), errno)),
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
    let started = Instant::now();
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    let is_whole = loop {
        match from.read(&mut page) {
            Ok(0) | Err(_) => break true,
            Ok(read) => bytes.extend_from_slice(page.get(..read).unwrap_or_default()),
        }
        if bytes.len() > most || (bytes.len() > SHORT && started.elapsed() > longest) {
            break false;
        }
    };
    Table {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        is_whole,
        took: started.elapsed(),
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

/// The pids that hold a lock on a file with this inode, by `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 71
/// fe:00:4711 0 EOF`. A line with `->` is a process that waits.
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

    /// Any user can make the table very long.
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
