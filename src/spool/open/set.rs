//! Settings of an open spool: reading them again, and writing one.
//!
//! Not the format of the file (`settings_file.rs`). Invariant: after an error the old settings stay in
//! effect, and two writers at once never lose each other's setting.

use serde_json::Value;

use super::error::OpenError;
use super::root_lock::root_lock;
use super::settings_file::{Stamp, StoredSettings, read_settings, settings_of, stored_settings};
use super::spool::Spool;
use crate::spool::layout::{SMALL_FILE, name};
use crate::task::to_pretty;

impl Spool {
    /// Reads `spool.json` again, if it was changed. Returns whether a setting in it was changed. After an
    /// error the old settings stay in effect.
    pub fn reload(&mut self) -> Result<bool, OpenError> {
        let stamp = Stamp::of(&self.root)?;
        if stamp.is_some() && stamp == self.stamp {
            return Ok(false);
        }
        let StoredSettings { settings: file, .. } =
            read_settings(&self.root)?.ok_or_else(|| OpenError::Absent {
                path: self.path().to_owned(),
            })?;
        let is_other = file != self.file;
        if is_other {
            self.settings = settings_of(&self.root, &file, &self.overrides)?;
            self.file = file;
        }
        self.stamp = stamp;
        Ok(is_other)
    }

    /// Writes one setting to `spool.json`; `None` removes it.
    pub fn set(&mut self, key: &str, value: Option<Value>) -> Result<(), OpenError> {
        // With two writers at once, neither setting may be lost.
        let _lock = root_lock(&self.root)?;
        self.reload()?;
        let mut file = self.file.clone();
        match value {
            Some(value) => file.insert(key.to_owned(), value),
            None => file.remove(key),
        };
        let settings = settings_of(&self.root, &file, &self.overrides)?;
        let stored = stored_settings(self.sharing, &file);
        let bytes = to_pretty(&stored);
        if bytes.len() > SMALL_FILE {
            let problem = format!(
                "with this value the file would have {} bytes, but at most {SMALL_FILE} bytes are read; the file was not changed",
                bytes.len()
            );
            let path = self.root.path_of(name::SETTINGS);
            return Err(OpenError::Settings { path, problem });
        }
        self.root()?.replace_durably(name::SETTINGS, &bytes)?;
        (self.file, self.settings) = (file, settings);
        Ok(())
    }
}
