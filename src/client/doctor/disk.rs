//! The spool, the disk below it, and the clock its ages are told by.

use std::fmt::Write;

use crate::config::{Durability, Settings};
use crate::spool::{FileSystem, IoError, Spool};
use crate::sweeper::{self, ClockTrust};
use crate::task::quote_path;
use indicatif::HumanBytes;
use rustix::io::Errno;

use super::check::Check;
use super::surroundings::Surroundings;

/// So many of the root's entries are named, each in a line.
const NAME_AT_MOST: usize = 3;
/// Somebody's clock was ahead by more than this when the newest task was made.
const AHEAD_SEC: f64 = 60.0;

/// Where it is, whose, and whether it is whole.
pub(super) fn spool(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "spool";
    let missing = spool.missing_folders()?;
    let path = spool.path().display();
    let mut checks = Vec::new();
    if !missing.is_empty() {
        let text = format!("{path} has no {}", missing.join(", no "));
        let hint = format!(
            "`agentspool init {}` makes what is missing",
            quote_path(spool.path())
        );
        checks.push(Check::problem(NAME, text, hint));
    }
    if spool.is_owner() {
        checks.extend(strayed(spool)?);
    }
    if checks.is_empty() {
        let kind = if spool.is_group() { "group" } else { "private" };
        checks.push(Check::ok(NAME, format!("{path}, {kind}")));
    }
    Ok(checks)
}

/// What in the root is shut, or not as `init` makes it.
fn strayed(spool: &Spool) -> Result<Vec<Check>, IoError> {
    let path = quote_path(spool.path());
    let strayed = spool.strayed()?;
    let more = strayed.len().saturating_sub(NAME_AT_MOST);
    let mut checks = Vec::new();
    for (n, entry) in strayed.into_iter().take(NAME_AT_MOST).enumerate() {
        let hint = if entry.can_be_set {
            format!(
                "`agentspool init {path}` sets the modes, makes anew what others could write, and with --group sets the group of all"
            )
        } else {
            "see whose it is, and give it back to the spool's user (`chown`, `chmod u+rwx`)"
                .to_owned()
        };
        let mut text = format!("{} {}", entry.path.display(), entry.problem);
        if n + 1 == NAME_AT_MOST && more > 0 {
            let _ = write!(text, ", and {more} more like it");
        }
        checks.push(Check::problem("spool", text, hint));
    }
    Ok(checks)
}

/// Whether files can be made, locked, synced and renamed as the protocol needs it.
pub(super) fn writable(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    if !spool.is_owner() {
        return Ok(vec![if spool.may_drop()? {
            Check::ok("writable", "this user may put requests into the drop box")
        } else {
            let hint = "ask the spool's owner to put this user into its group, then log in again";
            Check::problem("writable", "this user may not write in the drop box", hint).unusable()
        }]);
    }
    let check = match spool.probe() {
        Ok(()) => Check::ok("writable", "files can be made, locked, synced and renamed"),
        Err(error) => {
            let hint = match error.errno() {
                Some(Errno::ROFS) => "mount the file system writable",
                Some(Errno::NOSPC | Errno::DQUOT) => "make room",
                Some(Errno::ACCESS | Errno::PERM) => "give the folder to the spool's user",
                Some(Errno::NOENT) => "see what is missing above",
                _ => "move the spool to a local disk",
            };
            Check::problem("writable", error.to_string(), hint).unusable()
        }
    };
    Ok(vec![check])
}

/// Whether the file system keeps what it is given, and has room for more.
pub(super) fn file_system(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let system = spool.file_system()?;
    Ok(vec![judge(&system, spool.free_room()?, spool.settings())])
}

fn judge(system: &FileSystem, (bytes, inodes): (u64, u64), settings: &Settings) -> Check {
    const NAME: &str = "file system";
    let free_inodes = if inodes == u64::MAX {
        "inodes without a limit".to_owned()
    } else {
        format!("{inodes} inodes")
    };
    let text = format!(
        "{}, {} and {free_inodes} free",
        system.kind,
        HumanBytes(bytes)
    );
    if system.is_read_only {
        Check::problem(
            NAME,
            format!("{text}, mounted read-only"),
            "mount it writable",
        )
        .unusable()
    } else if bytes < settings.min_free_bytes || inodes < settings.min_free_inodes {
        let floor = HumanBytes(settings.min_free_bytes);
        let text = format!(
            "{text}, below the floor of {floor} and {} inodes: nothing is accepted",
            settings.min_free_inodes
        );
        let hint = "make room (`agentspool clear`), or lower min_free_bytes and min_free_inodes";
        Check::problem(NAME, text, hint).unusable()
    } else if system.is_network {
        // `allow_network_fs` says nothing against it: the renames fail on one machine as well.
        let text = format!(
            "{text}, over a network: most such file systems refuse renameat2 with flags, without which no task is \
             accepted, and locks may not be seen by other machines"
        );
        let hint =
            "move the spool to a local disk; `writable` above says whether these renames work here";
        Check::problem(NAME, text, hint)
    } else if system.is_volatile && settings.durability == Durability::Power {
        let hint = "move the spool to a disk, or set durability to process if that is meant";
        Check::warn(NAME, format!("{text}, empty after a boot"), hint)
    } else {
        Check::ok(NAME, text)
    }
}

/// Whether this folder is known as itself, and who we are to it.
pub(super) fn identity(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "identity";
    let us = rustix::process::geteuid().as_raw();
    let check = match spool.has_own_identity() {
        Err(error) => {
            let hint = "remove identity.json while no task runs: the next command makes a new one";
            Check::problem(NAME, error.to_string(), hint)
        }
        Ok(false) => {
            let text = "identity.json is missing or another folder's, as after a copy";
            Check::warn(NAME, text, "the owner's next command makes a new one")
        }
        Ok(true) if spool.is_owner() => {
            Check::ok(NAME, format!("{}, owned by this user ({us})", spool.uuid()))
        }
        Ok(true) => Check::ok(
            NAME,
            format!("{}, shared with this user ({us})", spool.uuid()),
        ),
    };
    Ok(vec![check])
}

/// Whether tasks may start.
pub(super) fn paused(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let Some(why) = spool.paused()? else {
        return Ok(Vec::new());
    };
    let text = format!("{why}, and no task starts");
    let hint = format!("`agentspool --spool {} resume`", quote_path(spool.path()));
    Ok(vec![Check::warn("paused", text, hint)])
}

/// Whether ages can be told.
pub(super) fn clock(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "clock";
    let now = sweeper::clocks();
    let newest = spool.task_ids()?.first().copied();
    if let Some(newest) = newest {
        let made = crate::task::Timestamp::from_unix_ms(newest.unix_ms());
        if made.seconds_since(now.wall) > AHEAD_SEC {
            let text = format!("{newest} was made at {made}, which is yet to come");
            let hint = "set the clock (`timedatectl`); such a task is swept later than others";
            return Ok(vec![Check::warn(NAME, text, hint)]);
        }
    }
    let last = spool.sweep_clock()?;
    let check = match ClockTrust::of(last.as_ref(), &now) {
        ClockTrust::Agrees => Check::ok(NAME, "wall clock and boot clock agree"),
        ClockTrust::FirstPass => Check::ok(NAME, "no sweep yet to compare it with"),
        ClockTrust::Restarted => Check::ok(NAME, "plausible after the boot"),
        ClockTrust::Jumped => Check::warn(
            NAME,
            "the wall clock jumped since the last sweep, so ages begin anew with the next one",
            "see to it that the clock is right (`timedatectl`)",
        ),
    };
    Ok(vec![check])
}

/// Who could put another folder in the spool's place.
pub(super) fn above(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "folders above";
    Ok(vec![match spool.exposed_above()? {
        None => Check::ok(
            NAME,
            "nobody else can put another folder in the spool's place",
        ),
        Some(exposed) if spool.is_group() => Check::problem(
            NAME,
            exposed.to_string(),
            "no watcher runs its tasks before that",
        ),
        Some(exposed) => Check::warn(NAME, exposed.to_string(), "its tasks run all the same"),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::doctor::Verdict;

    #[test]
    fn a_file_system_that_cannot_do_what_is_needed_is_named_with_the_reason() {
        let disk = FileSystem {
            kind: "ext4".to_owned(),
            is_network: false,
            is_volatile: false,
            is_read_only: false,
        };
        let free = (1 << 40, 1 << 20);
        let settings = Settings::default();
        assert_eq!(judge(&disk, free, &settings).status, Verdict::Ok);
        let network = FileSystem {
            kind: "NFS".to_owned(),
            is_network: true,
            ..disk.clone()
        };
        let check = judge(&network, free, &settings);
        assert_eq!(check.status, Verdict::Problem);
        assert!(check.message.contains("renameat2"), "{}", check.message);
        let memory = FileSystem {
            is_volatile: true,
            ..disk
        };
        let check = judge(&memory, free, &settings);
        assert_eq!(check.status, Verdict::Warn);
        assert!(
            check.message.contains("empty after a boot"),
            "{}",
            check.message
        );
    }
}
