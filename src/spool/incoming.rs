//! The drop box: how a file in `incoming/` becomes a task, exactly once, or a refusal with a reason.
//!
//! Not how often to look (`watcher/admit.rs`). Invariants: from the moment a drop is claimed it
//! exists in at least one of `staging/<id>.claim/` and `tasks/<id>/` (I3); what is stored is what
//! was parsed; nothing a stranger put here is followed, waited for, deleted or repeated in a
//! reason.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fs2::FileExt;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::durable::{Dir, IoError, IoResult, absent_is_none};
use super::layout::{Spool, name, pretty};
use super::store::{Submission, SubmitError};
use crate::clock;
use crate::task::{
    FORMAT_VERSION, MAX_REQUEST_BYTES, Name, Request, RequestError, TaskId, Timestamp, escape_label,
};

const CLAIM_SUFFIX: &str = ".claim";
const REASON_SUFFIX: &str = ".reason.json";
const DROP_SUFFIX: &str = ".json";

/// What a file was when it was looked at: whether it is still the same, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

impl Fingerprint {
    fn of(stat: &Stat) -> Fingerprint {
        Fingerprint {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

/// A drop that is there and was looked at.
#[derive(Debug)]
pub struct DropFile {
    file_name: OsString,
    seen: Fingerprint,
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

/// What became of a claimed drop.
#[derive(Debug)]
pub enum Admission {
    /// It is this task now.
    Task(TaskId),
    /// Another watcher was faster, or it was taken away.
    Gone,
    /// It changed while it was being claimed and was put back.
    Changed,
    /// It lies in `rejected/` now.
    Rejected(DropRefusal),
}

/// `rejected/<id>-NAME.reason.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Format version.
    pub v: u32,
    /// The drop's name, escaped.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// When.
    pub rejected_at: Timestamp,
}

impl DropFile {
    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    /// What it was when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// Its name without `.json`, escaped: for messages.
    pub fn label(&self) -> String {
        escape_label(stem(&self.file_name))
    }
}

fn stem(file_name: &OsStr) -> &[u8] {
    let bytes = file_name.as_bytes();
    bytes.strip_suffix(DROP_SUFFIX.as_bytes()).unwrap_or(bytes)
}

/// `*.json` without a leading dot: everything else belongs to somebody's editor or copy program.
fn is_drop_name(name: &[u8]) -> bool {
    name.ends_with(DROP_SUFFIX.as_bytes()) && !name.starts_with(b".") && name.len() > 5
}

/// A stranger's file name in letters that are safe in ours, and short enough for a suffix. Never
/// one that would make the drop look like the reason of another drop.
fn plain_file_name(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let name: String = bytes
        .iter()
        .take(100)
        .map(|b| if plain(b) { char::from(*b) } else { '_' })
        .collect();
    match name.strip_suffix(".reason") {
        Some(rest) => format!("{rest}_reason"),
        None => name,
    }
}

fn refusal(reason: impl Into<String>, hint: &'static str) -> DropRefusal {
    DropRefusal {
        reason: reason.into(),
        hint,
    }
}

impl Spool {
    /// The drops that are there, oldest first, at most `limit` of them.
    pub fn drops(&self, limit: usize) -> IoResult<Vec<DropFile>> {
        let incoming = self.folder(name::INCOMING)?;
        let mut found = Vec::new();
        let mut names = Vec::new();
        incoming.each_name(|name, _| {
            if is_drop_name(name) {
                names.push(OsString::from_vec(name.to_vec()));
            }
            true
        })?;
        for file_name in names {
            if let Some(stat) = incoming.stat(&file_name)? {
                found.push(DropFile {
                    seen: Fingerprint::of(&stat),
                    file_name,
                });
            }
        }
        found.sort_by(|a, b| (a.seen.modified, &a.file_name).cmp(&(b.seen.modified, &b.file_name)));
        found.truncate(limit);
        Ok(found)
    }

    /// Whether a drop of this name waits in the box, or is being admitted. A member of a group
    /// spool may not list the box but may ask for a name.
    pub fn drop_waits(&self, task_name: &str) -> IoResult<bool> {
        let file_name = format!("{task_name}{DROP_SUFFIX}");
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        if incoming.has(&file_name)? {
            return Ok(true);
        }
        let staging = self.folder(name::STAGING)?;
        for claim in claims_in(&staging)? {
            let claimed = staging.find_dir(claim_folder(claim));
            if let Ok(Some(claimed)) = claimed
                && claimed.has(&file_name)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest refusal of a drop of this name, with the id it was refused under.
    pub fn rejected_drop(&self, task_name: &str) -> IoResult<Option<(TaskId, Reason)>> {
        let Some(rejected) = self.folder(name::REJECTED).ok() else {
            return Ok(None);
        };
        let kept = plain_file_name(task_name.as_bytes());
        let ending = format!("-{kept}{REASON_SUFFIX}");
        let mut newest: Option<(TaskId, OsString)> = None;
        rejected.each_name(|name, _| {
            if let Some(id) = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.strip_suffix(&ending)?.parse::<TaskId>().ok())
                && newest.as_ref().is_none_or(|(there, _)| *there < id)
            {
                newest = Some((id, OsString::from_vec(name.to_vec())));
            }
            true
        })?;
        let Some((id, file)) = newest else {
            return Ok(None);
        };
        let bytes = rejected.read(&file, MAX_REQUEST_BYTES)?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes)
            .ok()
            .map(|reason| (id, reason)))
    }

    /// Looks at a drop without touching it.
    pub fn look_at(&self, drop: &DropFile) -> IoResult<Pickup> {
        let incoming = self.folder(name::INCOMING)?;
        self.read_drop(&incoming, &drop.file_name)
    }

    /// Takes a valid drop and makes it a task. `bytes` are the ones that were parsed.
    pub fn admit(
        &self,
        drop: &DropFile,
        request: Request,
        bytes: &[u8],
    ) -> Result<Admission, SubmitError> {
        // Before anything is moved: with no room the drop stays where it is.
        self.check_room()?;
        let id = self.new_id();
        let Some(claim) = self.claim_drop(drop, id)? else {
            return Ok(Admission::Gone);
        };
        if claim
            .dir
            .read(&drop.file_name, MAX_REQUEST_BYTES)?
            .as_deref()
            != Some(bytes)
        {
            // Replaced between reading and claiming: it is another drop now.
            return self.put_back(claim, &drop.file_name);
        }
        self.finish_admission(claim, &drop.file_name, request)
    }

    /// Moves a drop that can never become a task to `rejected/`, with its reason.
    pub fn reject(&self, drop: &DropFile, why: DropRefusal) -> IoResult<Admission> {
        let id = self.new_id();
        let Some(claim) = self.claim_drop(drop, id)? else {
            return Ok(Admission::Gone);
        };
        self.reject_claim(claim, &drop.file_name, why)
    }

    /// Finishes what a watcher that died left half admitted. Claims of living watchers are held.
    pub fn replay_claims(
        &self,
        check: &dyn Fn(&Request) -> Result<(), DropRefusal>,
    ) -> Result<Vec<Admission>, SubmitError> {
        let staging = self.folder(name::STAGING)?;
        let mut replayed = Vec::new();
        let mut failed = None;
        for id in claims_in(&staging)? {
            match self.replay_claim(&staging, id, check) {
                Ok(admission) => replayed.extend(admission),
                // One that cannot be finished must not keep the others.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(replayed), Err)
    }

    fn replay_claim(
        &self,
        staging: &Dir,
        id: TaskId,
        check: &dyn Fn(&Request) -> Result<(), DropRefusal>,
    ) -> Result<Option<Admission>, SubmitError> {
        let Some(dir) = staging.find_dir(claim_folder(id))? else {
            return Ok(None);
        };
        let Some(claim) = hold_claim(dir, id)? else {
            return Ok(None);
        };
        let Some(file_name) = claim.dir.names()?.into_iter().next() else {
            // Claimed but not moved yet, or already done: nothing is in it either way.
            staging.remove_empty_dir(claim_folder(id))?;
            return Ok(None);
        };
        if self.task(id)?.is_some() || self.is_in_trash(id)? {
            self.finish_claim(&claim, &file_name, None)?;
            return Ok(None);
        }
        // A submitter that died half way left its build under the same id.
        staging.remove_tree(id.to_string())?;
        Ok(Some(match self.read_drop(&claim.dir, &file_name)? {
            Pickup::Ready(request, _) => match check(&request) {
                Ok(()) => self.finish_admission(claim, &file_name, *request)?,
                Err(why) => self.reject_claim(claim, &file_name, why)?,
            },
            Pickup::NotYet(why) | Pickup::Refused(why) => {
                self.reject_claim(claim, &file_name, why)?
            }
            Pickup::Gone => return Ok(None),
        }))
    }

    /// Opens, checks and parses a drop; never blocks, never follows, never waits.
    fn read_drop(&self, folder: &Dir, file_name: &OsStr) -> IoResult<Pickup> {
        // Looked at before it is opened: opening a device can have effects of its own.
        let Some(stat) = folder.stat(file_name)? else {
            return Ok(Pickup::Gone);
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Ok(Pickup::Refused(refusal(
                format!("it is {} and no regular file", describe_kind(kind)),
                "copy the file itself into incoming/",
            )));
        }
        let file = match absent_is_none(folder.open_file(file_name)) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Pickup::Gone),
            Err(error) if error.errno() == Some(Errno::LOOP) => return Ok(Pickup::Gone),
            Err(error) if error.is_denied() => {
                return Ok(Pickup::NotYet(refusal(
                    "the watcher may not read it",
                    "give the file a mode that lets the spool's owner read it",
                )));
            }
            Err(error) => return Err(error),
        };
        let opened = rustix::fs::fstat(&file)
            .map_err(|errno| IoError::new("look at", folder.path_of(file_name), errno))?;
        if Fingerprint::of(&opened).inode != stat.st_ino
            || FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile
        {
            return Ok(Pickup::Gone);
        }
        // Maildir-style producers link; but where others may put files into the box, a second name may
        // be how somebody else's file got there, ours too.
        let is_ours = opened.st_uid == rustix::process::geteuid().as_raw();
        if opened.st_nlink > 1 && (self.is_group() || !is_ours) {
            return Ok(Pickup::NotYet(refusal(
                "it has more than one hard link, and others use this spool or the file is another user's",
                "copy the file instead of linking it",
            )));
        }
        let mut bytes = Vec::new();
        file.take(MAX_REQUEST_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| IoError::new("read", folder.path_of(file_name), source))?;
        Ok(match Request::parse(&bytes) {
            Ok(request) => Pickup::Ready(Box::new(request), bytes),
            Err(error) => refuse_request(&error),
        })
    }

    fn claim_drop(&self, drop: &DropFile, id: TaskId) -> IoResult<Option<HeldClaim>> {
        let staging = self.folder(name::STAGING)?;
        let dir = staging.make_dir(claim_folder(id))?;
        let Some(claim) = hold_claim(dir, id)? else {
            return Ok(None);
        };
        let incoming = self.folder(name::INCOMING)?;
        match incoming.rename_new(&drop.file_name, &claim.dir, &drop.file_name) {
            Ok(()) => Ok(Some(claim)),
            Err(error) if error.is_absent() => {
                staging.remove_empty_dir(claim_folder(id))?;
                Ok(None)
            }
            Err(error) => {
                staging.remove_empty_dir(claim_folder(id))?;
                Err(error)
            }
        }
    }

    fn put_back(&self, claim: HeldClaim, file_name: &OsStr) -> Result<Admission, SubmitError> {
        let incoming = self.folder(name::INCOMING)?;
        match claim.dir.rename_new(file_name, &incoming, file_name) {
            Ok(()) => {
                self.folder(name::STAGING)?
                    .remove_empty_dir(claim_folder(claim.id))?;
                Ok(Admission::Changed)
            }
            // Its place was taken by a third one: this version is kept where a person finds it.
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                let why = refusal(
                    "another file of the same name replaced it while it was being taken",
                    "drop it again under a name of its own",
                );
                Ok(self.reject_claim(claim, file_name, why)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish_admission(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        mut request: Request,
    ) -> Result<Admission, SubmitError> {
        let id = claim.id;
        // The file's name is what people look it up by; a name inside counts only without one.
        match name_of_drop(file_name) {
            Some(task_name) => request.name = Some(task_name),
            None => request.label = Some(escape_label(stem(file_name))),
        }
        let task_name = request.name.clone();
        let submitted = self.submit(vec![Submission {
            id,
            request,
            environment: Map::new(),
        }]);
        match submitted {
            Ok(_) => {
                self.finish_claim(&claim, file_name, task_name)?;
                Ok(Admission::Task(id))
            }
            // It fits as it was dropped and not as it would be stored, with name and session.
            Err(SubmitError::Request(error)) => Ok(self.reject_claim(
                claim,
                file_name,
                refusal(
                    format!("as it would be stored, {error}"),
                    "put the data into a file of its own and name its path in the input",
                ),
            )?),
            // The claim stays and is taken up again: nothing is lost.
            Err(error) => Err(error),
        }
    }

    /// Removes what is left of the drop of a task that stands, so that it cannot come back once the
    /// task is gone. The caller holds the task's lock.
    pub(super) fn forget_drop(&self, id: TaskId) -> IoResult<()> {
        let staging = self.folder(name::STAGING)?;
        if staging.has(claim_folder(id))? {
            staging.remove_tree(claim_folder(id))?;
        }
        Ok(())
    }

    /// The steps after the task stands; each may be done again.
    fn finish_claim(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        task_name: Option<Name>,
    ) -> IoResult<()> {
        if let Some(task_name) = task_name.or_else(|| name_of_drop(file_name)) {
            self.link_name(&task_name, claim.id)?;
        }
        claim.dir.unlink(file_name)?;
        self.folder(name::STAGING)?
            .remove_empty_dir(claim_folder(claim.id))?;
        Ok(())
    }

    fn reject_claim(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        why: DropRefusal,
    ) -> IoResult<Admission> {
        let rejected = self.folder(name::REJECTED)?;
        let kept = format!("{}-{}", claim.id, plain_file_name(stem(file_name)));
        let reason = Reason {
            v: FORMAT_VERSION,
            name: escape_label(stem(file_name)),
            reason: why.reason.clone(),
            hint: why.hint.to_owned(),
            rejected_at: clock::wall(),
        };
        rejected.replace(&format!("{kept}{REASON_SUFFIX}"), &pretty(&reason))?;
        claim
            .dir
            .rename_new(file_name, &rejected, format!("{kept}{DROP_SUFFIX}"))?;
        self.folder(name::STAGING)?
            .remove_empty_dir(claim_folder(claim.id))?;
        Ok(Admission::Rejected(why))
    }
}

/// A drop's claim folder, flocked while its watcher is at it.
struct HeldClaim {
    id: TaskId,
    dir: Dir,
    _lock: File,
}

fn claim_folder(id: TaskId) -> String {
    format!("{id}{CLAIM_SUFFIX}")
}

fn claims_in(staging: &Dir) -> IoResult<Vec<TaskId>> {
    let mut claims = Vec::new();
    staging.each_name(|name, _| {
        let text = std::str::from_utf8(name).ok();
        claims
            .extend(text.and_then(|name| name.strip_suffix(CLAIM_SUFFIX)?.parse::<TaskId>().ok()));
        true
    })?;
    Ok(claims)
}

fn hold_claim(dir: Dir, id: TaskId) -> IoResult<Option<HeldClaim>> {
    let lock = super::claim::lockable(&dir)?;
    Ok(FileExt::try_lock_exclusive(&lock)
        .is_ok()
        .then_some(HeldClaim {
            id,
            dir,
            _lock: lock,
        }))
}

/// The name a drop gives its task, if its file name is one.
fn name_of_drop(file_name: &OsStr) -> Option<Name> {
    let text = std::str::from_utf8(stem(file_name)).ok()?;
    text.parse::<Name>()
        .ok()
        .filter(Name::is_allowed_for_a_task)
}

fn refuse_request(error: &RequestError) -> Pickup {
    let reason = error.to_string();
    match error {
        RequestError::Incomplete(_) => Pickup::NotYet(refusal(
            reason,
            "write the whole file, best as .NAME.tmp, and then rename it to NAME.json",
        )),
        // Not a beginning of anything, but a writer that does not go from front to back may mend it.
        RequestError::Syntax(_) => Pickup::NotYet(refusal(
            reason,
            "check the file with any JSON parser and drop it again",
        )),
        RequestError::TooLarge => Pickup::Refused(refusal(
            reason,
            "put the data into a file of its own and name its path in the input",
        )),
        RequestError::Shape(_) => Pickup::Refused(refusal(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_names_are_drops() {
        for (name, is_drop) in [
            ("report.json", true),
            (".report.json", false),
            (".json", false),
            ("report.json~", false),
            ("report.json.tmp", false),
            ("4913", false),
            ("-rf.json", true),
            ("...json", false),
            ("a b.json", true),
        ] {
            assert_eq!(is_drop_name(name.as_bytes()), is_drop, "{name}");
        }
    }

    // Found by fuzzing: `x.reason.json` was kept under the name of the reason of `x.json`.
    #[test]
    fn a_kept_drop_never_looks_like_a_reason() {
        for (stem, kept) in [
            (&b"report"[..], "report"),
            (b"x.reason", "x_reason"),
            (b"x.reason.reason", "x.reason_reason"),
            (b".reason", "_reason"),
            (b"a/b\nc", "a_b_c"),
        ] {
            assert_eq!(plain_file_name(stem), kept);
        }
        let long = [b"x".repeat(93), b".reason.long".to_vec()].concat();
        assert!(plain_file_name(&long).ends_with("_reason"));
    }

    #[test]
    fn which_drops_name_their_task() {
        for (name, expected) in [
            ("report.json", Some("report")),
            ("my report.json", None),
            ("last.json", None),
            ("task_1.json", None),
            ("-x.json", None),
        ] {
            let named = name_of_drop(OsStr::new(name));
            assert_eq!(named.as_ref().map(Name::as_str), expected, "{name}");
        }
    }
}
