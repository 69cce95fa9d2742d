//! The environment: every variable that the program reads.
//!
//! Not the meaning of settings (`config.rs`). Invariant: no other file reads a variable, and `agentspool
//! config` shows every setting that a variable changes.
#![expect(
    clippy::disallowed_methods,
    reason = "the only file that reads the environment"
)]

use std::ffi::OsString;
use std::path::PathBuf;

use agentspool::config::{Settings, SettingsError, parse_value};
use agentspool::task::TaskId;
use serde_json::{Map, Value};

/// The spool to use.
pub(crate) const DIR: &str = "AGENTSPOOL_DIR";
/// What is logged: `warn`, `debug`, `agentspool=debug`.
pub(crate) const LOG: &str = "AGENTSPOOL_LOG";
/// Set by systemd: device and inode of the journal's stream, if stdout or stderr is connected to it.
pub(crate) const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// Set inside a task: no watcher is started there.
pub(crate) const TASK_ID: &str = "AGENTSPOOL_TASK_ID";
/// Set inside a task: the file for progress reports.
pub(crate) const PROGRESS_FILE: &str = "AGENTSPOOL_PROGRESS_FILE";
const PREFIX: &str = "AGENTSPOOL_";

/// The folder for the secrets of a unit's `LoadCredential=`, set by systemd.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Variables that systemd sets for a service. The service's tasks do not get them.
const SYSTEMD: [&str; 14] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    CREDENTIALS,
    "RUNTIME_DIRECTORY",
    "FDSTORE",
];

/// The variables that an autostarted watcher inherits from the shell (docs/recipes.md).
const KEPT: [&str; 6] = ["HOME", "PATH", "LANG", "USER", "LOGNAME", "TZ"];
const KEPT_PREFIXES: [&str; 2] = ["XDG_", "LC_"];

/// The variables of this process, read once.
pub(crate) struct Environment {
    all: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Whether the locale, if one is set, has the characters of Unicode. A terminal with the locale `C` may
    /// show other characters for symbols and frames.
    pub fn shows_unicode(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| self.get(name));
        locale.is_none_or(|locale| {
            let locale = locale.to_string_lossy().to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
    }

    pub fn read() -> Environment {
        Environment {
            all: std::env::vars_os().collect(),
        }
    }

    pub fn get(&self, name: &str) -> Option<&OsString> {
        let found = self
            .all
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value);
        found.filter(|value| !value.is_empty())
    }

    /// The task in which this process runs.
    pub fn own_task(&self) -> Option<TaskId> {
        self.get(TASK_ID)?.to_str()?.parse().ok()
    }

    /// Whether this process runs in a task.
    pub fn is_inside_a_task(&self) -> bool {
        self.get(TASK_ID).is_some()
    }

    /// The `PATH` for programs of recipes: this process's `PATH`, followed by the folder of this program.
    pub fn search(&self) -> Option<OsString> {
        let mut path = self.get("PATH").cloned().unwrap_or_default();
        if let Some(tools) = tools()
            && !std::env::split_paths(&path).any(|folder| folder == tools)
        {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(tools);
        }
        Some(path).filter(|path| !path.is_empty())
    }

    /// The default spool: `$XDG_STATE_HOME/agentspool`, else `~/.local/state/agentspool` (XDG base directory
    /// specification).
    pub fn default_spool(&self) -> Option<PathBuf> {
        let state = self
            .get("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let home = || {
            self.get("HOME")
                .map(|home| PathBuf::from(home).join(".local/state"))
        };
        state.or_else(home).map(|state| state.join("agentspool"))
    }

    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        let config = self
            .get("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        config.or_else(|| Some(PathBuf::from(self.get("HOME")?).join(".config")))
    }

    /// The settings from variables: `AGENTSPOOL_MAX_CONCURRENT` and so on, one for each setting.
    pub fn settings(&self) -> Result<Map<String, Value>, SettingsError> {
        let mut found = Map::new();
        for name in Settings::default().to_map().keys() {
            if let Some(value) = self.get(&variable_of(name)) {
                let value = parse_value(name, &value.to_string_lossy()).map_err(|error| {
                    SettingsError::Invalid {
                        name: name.clone(),
                        problem: format!("({}) cannot be used: {error}", variable_of(name)),
                    }
                })?;
                found.insert(name.clone(), value);
            }
        }
        Ok(found)
    }

    /// The part of a runner's environment that recipes get. If the unit is this one task (`is_unit`), its
    /// credentials exist as long as the task. A watcher's credentials would be removed with the watcher, so
    /// they are not passed on.
    pub fn for_recipes(&self, is_unit: bool) -> Vec<(OsString, OsString)> {
        let ours = |name: &OsString| {
            let name = name.to_string_lossy();
            let is_kept = is_unit && name == CREDENTIALS;
            name.starts_with(PREFIX) || (SYSTEMD.contains(&&*name) && !is_kept)
        };
        self.all
            .iter()
            .filter(|(name, _)| !ours(name))
            .cloned()
            .collect()
    }

    /// The environment of an autostarted watcher.
    pub fn for_autostart(&self) -> Vec<(OsString, OsString)> {
        let kept = |name: &OsString| {
            let name = name.to_string_lossy();
            KEPT.contains(&&*name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        self.all
            .iter()
            .filter(|(name, _)| kept(name))
            .cloned()
            .collect()
    }
}

/// The folder of the running program. It is the last folder on the `PATH` of tasks.
pub(crate) fn tools() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent().map(PathBuf::from)
}

/// The variable that sets a setting.
pub(crate) fn variable_of(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase())
}
