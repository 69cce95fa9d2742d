//! Settings of an open spool: reading them again, and writing one.
//!
//! Not the format of the file (`settings_file.rs`). Invariant: after an error the old settings stay in
//! effect, and two writers at once never lose each other's setting.

use std::path::Path;

use serde_json::Value;

use super::breach::find_breach;
use super::error::OpenError;
use super::root_lock::root_lock;
use super::settings_file::{Stamp, StoredSettings, read_settings, settings_of, stored_settings};
use super::spool::Spool;
use crate::spool::disk::{Dir, absent_is_none};
use crate::spool::layout::{GROUP_READS, OURS_ONLY, SMALL_FILE, Sharing, name};
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
            let setting = None;
            return Err(OpenError::Settings {
                path,
                problem,
                setting,
            });
        }
        self.root()?.replace_durably(name::SETTINGS, &bytes)?;
        (self.file, self.settings) = (file, settings);
        Ok(())
    }

    /// Removes a setting from a `spool.json` that cannot be used as it is. `false`: the file does not have it.
    pub fn remove_setting(path: &Path, key: &str) -> Result<bool, OpenError> {
        let Some(root) = absent_is_none(Dir::open(path, OURS_ONLY))? else {
            return Ok(false);
        };
        let (us, owner) = (rustix::process::geteuid().as_raw(), root.own_stat()?.st_uid);
        if us != owner {
            let path = path.to_owned();
            return Err(OpenError::Foreign { path, owner, us });
        }
        let Some(StoredSettings { sharing, .. }) = read_settings(&root)? else {
            return Ok(false);
        };
        if let Some(breach) = find_breach(&root, sharing, &[])? {
            return Err(breach.into());
        }
        let _lock = root_lock(&root)?;
        let Some(mut stored) = read_settings(&root)? else {
            return Ok(false);
        };
        if stored.settings.remove(key).is_none() {
            return Ok(false);
        }
        let making = match stored.sharing {
            Sharing::Private => OURS_ONLY,
            Sharing::Group => GROUP_READS,
        };
        let bytes = to_pretty(&stored_settings(stored.sharing, &stored.settings));
        root.with_making(making)
            .replace_durably(name::SETTINGS, &bytes)?;
        Ok(true)
    }
}
