//! Checks of the spool's folder, its file system, and the clock that ages are computed with.

use std::fmt::Write;

use crate::config::{Durability, Settings};
use crate::spool::{FileSystem, IoError, Spool};
use crate::sweeper::{self, ClockTrust};
use crate::task::quote_path;
use indicatif::HumanBytes;
use rustix::io::Errno;

use super::check::Check;
use super::surroundings::Surroundings;

/// The most entries of the spool's root that are named, each in one line.
const MAX_NAMED: usize = 3;
/// If the newest task was created further in the future than this, a clock was wrong.
const AHEAD_SEC: f64 = 60.0;

/// Checks that the spool's folders exist, with the correct modes.
pub(super) fn spool(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "spool";
    let missing = spool.missing_folders()?;
    let path = spool.path().display();
    let mut checks = Vec::new();
    if !missing.is_empty() {
        let text = format!("{path} has no {}", missing.join(", no "));
        let hint = format!(
            "create them with `agentspool init {}`",
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

/// Checks the entries of the root: access, and the modes that `init` sets.
fn strayed(spool: &Spool) -> Result<Vec<Check>, IoError> {
    if let Some(breach) = spool.breach()? {
        let hint = breach.fix();
        return Ok(vec![Check::problem("spool", breach.problem(), hint)]);
    }
    let path = quote_path(spool.path());
    let strayed = spool.strayed()?;
    let more = strayed.len().saturating_sub(MAX_NAMED);
    let mut checks = Vec::new();
    for (n, entry) in strayed.into_iter().take(MAX_NAMED).enumerate() {
        let hint = if entry.can_be_set {
            format!(
                "run `agentspool init {path}`: it sets the modes; with --group it also sets the group"
            )
        } else {
            "check who owns it, and give it back to the spool's user (`chown`, `chmod u+rwx`)"
                .to_owned()
        };
        let mut text = format!("{} {}", entry.path.display(), entry.problem);
        if n + 1 == MAX_NAMED && more > 0 {
            let _ = write!(text, ", and {more} more like it");
        }
        checks.push(Check::problem("spool", text, hint));
    }
    Ok(checks)
}

/// Checks that files can be created, locked, synced and renamed as the protocol needs it.
pub(super) fn writable(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    if !spool.is_owner() {
        return Ok(vec![if spool.may_drop()? {
            Check::ok("writable", "this user may put requests into the drop box")
        } else {
            let hint = "ask the spool's owner to put this user into its group, then log in again";
            Check::problem("writable", "this user may not write to the drop box", hint).unusable()
        }]);
    }
    let check = match spool.probe() {
        Ok(()) => Check::ok(
            "writable",
            "files can be created, locked, synced and renamed",
        ),
        Err(error) => {
            let hint = match error.errno() {
                Some(Errno::ROFS) => "mount the file system writable",
                Some(Errno::NOSPC | Errno::DQUOT) => "free some space",
                Some(Errno::ACCESS | Errno::PERM) => "give the folder to the spool's user",
                Some(Errno::NOENT) => "create the missing folders that are named above",
                _ => "move the spool to a local disk",
            };
            Check::problem("writable", error.to_string(), hint).unusable()
        }
    };
    Ok(vec![check])
}

/// Checks that the file system is suitable, and has room.
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
            "{text}, below the minimum of {floor} and {} inodes: no task is accepted",
            settings.min_free_inodes
        );
        let hint =
            "free some space (`agentspool clear`), or lower min_free_bytes and min_free_inodes";
        Check::problem(NAME, text, hint).unusable()
    } else if system.is_network {
        // `allow_network_fs` does not change this: the renames fail even if only one machine uses the spool.
        let text = format!(
            "{text}, a network file system: most of them refuse renameat2 with flags, which every submission needs, \
             and other machines may not see the locks"
        );
        let hint = "move the spool to a local disk; the check `writable` above shows whether these renames work";
        Check::problem(NAME, text, hint)
    } else if system.is_volatile && settings.durability == Durability::Power {
        let hint = "move the spool to a disk, or set durability to process if this is intended";
        Check::warn(
            NAME,
            format!("{text}; its files are lost at a reboot"),
            hint,
        )
    } else {
        Check::ok(NAME, text)
    }
}

/// Checks that the spool's identity is that of this folder, and shows the relation of this user to it.
pub(super) fn identity(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "identity";
    let us = rustix::process::geteuid().as_raw();
    let check = match spool.has_own_identity() {
        Err(error) => {
            let hint =
                "remove identity.json while no task is running; the next command creates a new one";
            Check::problem(NAME, error.to_string(), hint)
        }
        Ok(false) => {
            let text =
                "identity.json is missing or is that of another folder, for instance after a copy";
            Check::warn(NAME, text, "the owner's next command creates a new one")
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

/// Checks that the spool is not paused.
pub(super) fn paused(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let Some(why) = spool.paused()? else {
        return Ok(Vec::new());
    };
    let text = format!("{why}, and no task starts");
    let hint = format!(
        "run `agentspool --spool {} resume`",
        quote_path(spool.path())
    );
    Ok(vec![Check::warn("paused", text, hint)])
}

/// Checks the wall clock, which ages are computed with.
pub(super) fn clock(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "clock";
    let now = sweeper::clocks();
    let newest = spool.task_ids()?.first().copied();
    if let Some(newest) = newest {
        let made = crate::task::Timestamp::from_unix_ms(newest.unix_ms());
        if made.seconds_since(now.wall) > AHEAD_SEC {
            let text = format!("{newest} was created at {made}, which is in the future");
            let hint = "set the clock (`timedatectl`); this task is swept later than others";
            return Ok(vec![Check::warn(NAME, text, hint)]);
        }
    }
    let last = spool.sweep_clock()?;
    let check = match ClockTrust::of(last.as_ref(), &now) {
        ClockTrust::Agrees => Check::ok(NAME, "wall clock and boot clock agree"),
        ClockTrust::FirstPass => Check::ok(NAME, "no earlier sweep to compare it with"),
        ClockTrust::Restarted => Check::ok(NAME, "it agrees with the time since the boot"),
        ClockTrust::Jumped => Check::warn(
            NAME,
            "the wall clock jumped since the last sweep, so ages are counted again from the next sweep on",
            "make sure that the clock is right (`timedatectl`)",
        ),
    };
    Ok(vec![check])
}

/// Checks that no other user can replace the spool's folder.
pub(super) fn above(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "folders above";
    Ok(vec![match spool.exposed_above()? {
        None => Check::ok(NAME, "no other user can replace the spool's folder"),
        Some(exposed) if spool.is_group() => Check::problem(
            NAME,
            exposed.to_string(),
            "fix this first: until then no watcher runs the tasks of this spool",
        ),
        Some(exposed) => Check::warn(
            NAME,
            exposed.to_string(),
            "fix this if you can; the tasks of this private spool still run",
        ),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::doctor::Verdict;

    #[test]
    fn an_unsuitable_file_system_is_reported_with_the_reason() {
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
            check.message.contains("its files are lost at a reboot"),
            "{}",
            check.message
        );
    }
}
