//! The record that an attempt may have started, and how the record is removed again.
//!
//! Not the files in an attempt's folder (`attempt.rs`). Invariant: the record is durable before anything runs
//! (I4).

use super::attempt::{Attempt, boot_records_of, is_file};
use super::lock::TaskLock;
use crate::clock::BootId;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;

/// The record that an attempt may have started: its folder's name in `attempts/`.
#[derive(Debug)]
#[must_use = "nothing may be started before the record is durable"]
pub struct StartRecord {
    attempts: Dir,
}

impl StartRecord {
    /// Makes the record durable. Call this right before the process is started.
    pub fn make_durable(self) -> IoResult<()> {
        self.attempts.sync()
    }
}

impl TaskLock {
    /// Records the start of attempt `number`. Nothing may run before [`StartRecord::make_durable`]
    /// has returned.
    ///
    /// The boot record, an empty file next to the folder, names the boot in which the folder was created. It
    /// is needed when the folder has no intent. If this boot created the folder, nothing ran, because the
    /// intent is written before the process is started. If an earlier boot did, a power cut may have lost the
    /// intent. One fsync makes both names durable. The folder is created first: a boot record without a
    /// folder means that the folder of an attempt that may have run was removed.
    pub fn start_attempt(
        &self,
        spool: &Spool,
        number: u32,
        boot: &BootId,
    ) -> IoResult<(Attempt, StartRecord)> {
        debug_assert!(number > 0);
        let attempts = self
            .task
            .dir
            // Some backups drop empty folders, and a recipe may have removed the permissions of this one.
            .find_own_to_write(name::ATTEMPTS)
            .and_then(|found| found.map_or_else(|| self.task.dir.ensure_dir(name::ATTEMPTS), Ok))?
            .with_making(spool.attempt_making());
        let dir = attempts.make_dir(number.to_string())?;
        attempts.make_entry(boot_record(number, boot), &self.task.dir, name::LOCK)?;
        Ok((Attempt { number, dir }, StartRecord { attempts }))
    }

    /// Removes an attempt in which nothing ran. If this is interrupted, what is left still shows that.
    pub fn drop_attempt(&self, number: u32) -> IoResult<()> {
        let Some(attempts) = self.task.dir.find_own_to_write(name::ATTEMPTS)? else {
            return Ok(());
        };
        let folder = attempts.find_own_to_write(number.to_string())?;
        if let Some(folder) = &folder
            && folder.stat(name::RESULT_PART)?.is_some_and(is_file)
        {
            // The intent must not outlive the other files.
            let failed = |source| IoError::new("empty", folder.path_of(name::RESULT_PART), source);
            folder
                .open_writable(name::RESULT_PART)?
                .set_len(0)
                .map_err(failed)?;
        }
        for record in boot_records_of(&attempts, number)? {
            attempts.unlink(record)?;
        }
        match &folder {
            Some(folder) => attempts
                .remove_in_place(
                    number.to_string(),
                    folder,
                    &[name::RESULT_PART],
                    &attempts,
                    &mut || Ok(()),
                )
                .whole()?,
            None => attempts.remove_tree(number.to_string())?,
        };
        attempts.sync()
    }

    /// Whether attempt `number` was created in this boot, or may have been: a runner without `/proc` does not
    /// know its boot, and a recipe may have removed the boot record.
    pub fn started_in(&self, number: u32, boot: &BootId) -> IoResult<bool> {
        let Some(attempts) = self.task.dir.find_own_to_write(name::ATTEMPTS)? else {
            return Ok(true);
        };
        if boot.kernel().is_empty() {
            return Ok(true);
        }
        let records = boot_records_of(&attempts, number)?;
        let (ours, unknown) = (boot_record(number, boot), format!(".{number}."));
        Ok(records.is_empty()
            || records
                .iter()
                .any(|record| *record == ours || *record == unknown))
    }

    /// Removes `result.part` of an attempt that is over without a result, so that the attempt does not count
    /// as running.
    pub fn end_part(&self, attempt: &Attempt) -> IoResult<()> {
        if attempt.dir.stat(name::RESULT_PART)?.is_some_and(is_file) {
            attempt.dir.give_rights();
            attempt.dir.unlink(name::RESULT_PART)?;
        }
        Ok(())
    }
}

fn boot_record(number: u32, boot: &BootId) -> String {
    format!(".{number}.{}", boot.kernel())
}
