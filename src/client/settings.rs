//! Reading, setting and unsetting the settings of a spool.
//!
//! Not the list of settings (`config.rs`), and not their file (`spool/open/set.rs`). Invariant: each of these
//! verbs refuses an unknown setting with a suggestion.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::not_owner::NotOwner;
use super::notice::Notice;
use super::open::Client;
use crate::config::{
    Origin, Overrides, Retention, Settings, SettingsError, is_of_watcher, parse_value,
};
use crate::recipe::Recipe;
use crate::spool::{OpenError, Spool};

/// One setting with its current value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name in `spool.json`.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Why a setting was not read or not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// There is no such setting, or the value is invalid.
    #[error(transparent)]
    Invalid(#[from] SettingsError),
    /// This user is not the spool's owner.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// `spool.json` cannot be written.
    #[error(transparent)]
    Write(#[from] OpenError),
}

impl Client {
    /// The settings that were given to this command but affect only a watcher, if they change the value.
    pub(super) fn settings_of_watcher(&self) -> Vec<Notice> {
        let (file, given) = (self.spool().settings_file(), self.spool().overrides());
        let without = Settings::of_layers(file, &Overrides::default());
        let without = without
            .map(|settings| settings.to_map())
            .unwrap_or_default();
        let with = self.spool().settings().to_map();
        let flags = given.flags.iter().map(|given| (given, true));
        let variables = given.environment.iter().map(|given| (given, false));
        let without_flag = |key: &String| !given.flags.contains_key(key);
        let variables = variables.filter(|((key, _), _)| without_flag(key));
        let changes = |key: &String| is_of_watcher(key) && with.get(key) != without.get(key);
        let given = flags.chain(variables).filter(|((key, _), _)| changes(key));
        let notices = given.map(|((key, value), is_flag)| Notice::SettingOfWatcher {
            key: key.clone(),
            is_flag,
            value: value.clone(),
        });
        notices.collect()
    }

    /// Removes a setting from the `spool.json` of a spool that cannot be opened because of it. `false`: the
    /// file does not have it.
    ///
    /// # Errors
    /// This user is not the owner, or the file cannot be written.
    pub fn remove_setting(path: &Path, key: &str) -> Result<bool, OpenError> {
        Spool::remove_setting(path, key)
    }

    /// All settings, by name.
    pub fn settings(&self) -> Vec<Setting> {
        let (file, overrides) = (self.spool().settings_file(), self.spool().overrides());
        let settings = self.spool().settings().to_map();
        let with_origin = settings.into_iter().map(|(key, value)| Setting {
            origin: Settings::origin(&key, file, overrides),
            key,
            value,
        });
        with_origin.collect()
    }

    /// How long finished tasks are kept.
    pub fn retention(&self) -> Retention {
        self.spool().settings().retention()
    }

    /// How long a task of this recipe may run if its request has no timeout.
    pub fn timeout_of(&self, recipe: &Recipe) -> Duration {
        let seconds = recipe.manifest.timeout_sec;
        let seconds = seconds.unwrap_or(self.spool().settings().timeout_sec);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The value of one setting.
    ///
    /// # Errors
    /// [`SettingError::Invalid`]: there is no such setting.
    pub fn setting(&self, key: &str) -> Result<Value, SettingError> {
        match self.spool().settings().to_map().remove(key) {
            Some(value) => Ok(value),
            // The same error as that of `set_setting`, with the same suggestion.
            None => Ok(parse_value(key, "null")?),
        }
    }

    /// Writes one setting, given as text, to `spool.json`; `None` removes it. Returns the value that applies
    /// then.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn set_setting(&mut self, key: &str, value: Option<&str>) -> Result<Value, SettingError> {
        let value = match value {
            Some(text) => Some(parse_value(key, text)?),
            None => {
                self.setting(key)?;
                None
            }
        };
        self.check_owner("change its settings")?;
        self.spool_mut().set(key, value)?;
        self.setting(key)
    }
}
