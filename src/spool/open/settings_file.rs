//! `spool.json`: how it is read and built, and how a change is noticed.
//!
//! Not what the settings are (`config.rs`) nor when it is read or written (`opening.rs`, `set.rs`).
//! Invariant: a file of another version, or one that cannot be understood, is an error and never counts as
//! empty.

use serde_json::{Map, Value};

use super::error::OpenError;
use crate::clock;
use crate::config::{Overrides, Settings, SettingsError};
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::{SMALL_FILE, Sharing, name};
use crate::task::{SPOOL_VERSION, without_bom};

/// Shows whether the settings file was changed, without reading it for each task. A file that is edited in
/// place within the kernel's clock tick (at most 4 ms) gets the same times. So a stamp is kept only for a
/// file that was not changed for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, u64),
}

impl Stamp {
    /// A file that was changed more recently than this, in milliseconds, is read each time.
    const STABLE_MS: i64 = 1000;

    /// The stamp of the settings file; `None` if the file is absent or was just changed.
    pub fn of(root: &Dir) -> IoResult<Option<Stamp>> {
        let Some(stat) = root.stat(name::SETTINGS)? else {
            return Ok(None);
        };
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        let age_ms =
            clock::wall().unix_ms() - (stat.st_ctime * 1000 + changed.1 as i64 / 1_000_000);
        let is_stable = !(0..Stamp::STABLE_MS).contains(&age_ms);
        Ok(is_stable.then_some(Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed,
        }))
    }
}

/// The content of `spool.json`.
pub(in crate::spool) struct StoredSettings {
    pub sharing: Sharing,
    pub settings: Map<String, Value>,
}

/// `spool.json` as it is on the disk: its version, whether a group shares the spool, and the settings. Only
/// `init --group` sets `shared`, because the modes of all folders depend on it.
pub(in crate::spool) fn stored_settings(
    sharing: Sharing,
    settings: &Map<String, Value>,
) -> Map<String, Value> {
    let mut stored = Map::new();
    stored.insert("v".into(), Value::from(SPOOL_VERSION));
    if sharing == Sharing::Group {
        stored.insert("shared".into(), Value::from(true));
    }
    stored.extend(settings.clone());
    stored
}

/// The content of `spool.json`; `None` if the file does not exist.
pub(super) fn read_settings(root: &Dir) -> Result<Option<StoredSettings>, OpenError> {
    let Some(bytes) = root.read(name::SETTINGS, SMALL_FILE)? else {
        return Ok(None);
    };
    parse_settings(root, &bytes, SPOOL_VERSION).map(Some)
}

/// The content of `spool.json` of a spool of version 1, for a conversion.
pub(in crate::spool) fn read_older_settings(root: &Dir) -> Result<StoredSettings, OpenError> {
    let bytes = root.read(name::SETTINGS, SMALL_FILE)?.unwrap_or_default();
    parse_settings(root, &bytes, 1)
}

fn parse_settings(root: &Dir, bytes: &[u8], known: u32) -> Result<StoredSettings, OpenError> {
    let path = root.path_of(name::SETTINGS);
    let broken = |problem: String| OpenError::Settings {
        path: path.clone(),
        problem,
        setting: None,
    };
    let mut map: Map<String, Value> = serde_json::from_slice(without_bom(bytes))
        .map_err(|e| broken(format!("not a JSON object: {e}")))?;
    match map.remove("v").as_ref().and_then(Value::as_u64) {
        Some(version) if version == u64::from(known) => {}
        Some(1) => return Err(OpenError::Older { path }),
        Some(version) => return Err(OpenError::Newer { path, version }),
        None => return Err(broken("it has no format version \"v\"".into())),
    }
    let sharing = match map.remove("shared") {
        None | Some(Value::Bool(false)) => Sharing::Private,
        Some(Value::Bool(true)) => Sharing::Group,
        Some(_) => return Err(broken("\"shared\" must be true or false".into())),
    };
    Ok(StoredSettings {
        sharing,
        settings: map,
    })
}

pub(super) fn settings_of(
    root: &Dir,
    file: &Map<String, Value>,
    overrides: &Overrides,
) -> Result<Settings, OpenError> {
    Settings::of_layers(file, overrides).map_err(|error: SettingsError| OpenError::Settings {
        path: root.path_of(name::SETTINGS),
        problem: error.to_string(),
        setting: Some(error.name().to_owned()).filter(|name| file.contains_key(name)),
    })
}
