//! The record that an attempt may have started, and how it is taken back.
//!
//! Not the files in an attempt's folder (`attempt.rs`). Invariant: the record is durable before anything runs (I4).

use super::attempt::{Attempt, boot_records_of, is_file};
use super::lock::TaskLock;
use crate::clock::BootId;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;

/// The record that an attempt may have started: its folder's name in `attempts/`.
#[derive(Debug)]
#[must_use = "without it nothing may be started"]
pub struct StartRecord {
    attempts: Dir,
}

impl StartRecord {
    /// Makes it durable: the last step before something is started.
    pub fn make_durable(self) -> IoResult<()> {
        self.attempts.sync()
    }
}

impl TaskLock {
    /// Records the start of attempt `number`. Nothing may run before [`StartRecord::make_durable`]
    /// has returned.
    ///
    /// Beside the folder lies an empty file that names the boot: whoever finds the folder
    /// without an intent must know whether this kernel made it (then nothing ran, because the intent
    /// comes before the process) or an earlier one (then a power cut may have taken it). One
    /// fsync makes both names durable. The folder comes first: a file without its folder says that
    /// somebody removed the folder of an attempt that may have run.
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
            // Some backups keep no empty folders, and a recipe may have shut this one.
            .find_own_to_write(name::ATTEMPTS)
            .and_then(|found| found.map_or_else(|| self.task.dir.ensure_dir(name::ATTEMPTS), Ok))?
            .with_making(spool.attempt_making());
        let dir = attempts.make_dir(number.to_string())?;
        attempts.make_entry(boot_record(number, boot), &self.task.dir, name::LOCK)?;
        Ok((Attempt { number, dir }, StartRecord { attempts }))
    }

    /// Takes back an attempt of which nothing ran. At each step of this what is left says so.
    pub fn drop_attempt(&self, number: u32) -> IoResult<()> {
        let Some(attempts) = self.task.dir.find_own_to_write(name::ATTEMPTS)? else {
            return Ok(());
        };
        let folder = attempts.find_own_to_write(number.to_string())?;
        if let Some(folder) = &folder
            && folder.stat(name::RESULT_PART)?.is_some_and(is_file)
        {
            // The intent no longer holds.
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

    /// Whether this boot made attempt `number`, or may have: without `/proc` a runner does not know its
    /// boot, and a recipe may have removed the file that names it.
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

    /// The attempt is over without a result of the task: its part no longer says that it runs.
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
