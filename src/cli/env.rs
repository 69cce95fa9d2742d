//! The environment: every variable that is read, in one place.
//!
//! Nothing else in this program asks for a variable. `agentspool config` shows what was found.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
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
/// Set by systemd: device and inode of the journal's stream, where stdout or stderr leads there.
pub(crate) const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// Set inside a task: nothing is started there.
pub(crate) const TASK_ID: &str = "AGENTSPOOL_TASK_ID";
/// Set inside a task: where progress is reported.
pub(crate) const PROGRESS_FILE: &str = "AGENTSPOOL_PROGRESS_FILE";
const PREFIX: &str = "AGENTSPOOL_";

/// Where systemd puts the secrets of a unit's `LoadCredential=`.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// What systemd says to a service is not said to the service's tasks.
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

/// What an autostarted watcher keeps of the shell that happened to start it (DESIGN.md section 6).
const KEPT: [&str; 6] = ["HOME", "PATH", "LANG", "USER", "LOGNAME", "TZ"];
const KEPT_PREFIXES: [&str; 2] = ["XDG_", "LC_"];

/// The variables of this process, read once.
pub(crate) struct Environment {
    all: Vec<(OsString, OsString)>,
}

impl Environment {
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

    /// The task that this process runs inside.
    pub fn own_task(&self) -> Option<TaskId> {
        self.get(TASK_ID)?.to_str()?.parse().ok()
    }

    /// Whether this process runs inside a task.
    pub fn is_inside_a_task(&self) -> bool {
        self.get(TASK_ID).is_some()
    }

    /// The `PATH` by which programs of recipes are found: this process's, and behind it the folder of this program.
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

    /// Where the default spool lies: `$XDG_STATE_HOME/agentspool`, else
    /// `~/.local/state/agentspool` (XDG base directory specification).
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

    /// Settings by variables: `AGENTSPOOL_MAX_CONCURRENT` and so on, one for each setting.
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

    /// What recipes get of a runner's own environment. The credentials of a unit that is this one
    /// task live as long as the task; those of a watcher's would end with it.
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

    /// What an autostarted watcher gets.
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

/// The folder of the program that is running, which tasks find last on their `PATH`.
pub(crate) fn tools() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent().map(PathBuf::from)
}

/// The variable that sets a setting.
pub(crate) fn variable_of(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase())
}
