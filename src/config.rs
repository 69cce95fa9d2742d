//! The settings of a spool: their names, defaults, units and limits.
//!
//! Not the reading of `spool.json` (that is `spool/open/settings_file.rs`) nor of the environment (that is
//! `cli/env.rs`): here layers of JSON objects become one [`Settings`]. Order: flag, environment,
//! `spool.json`, default. Invariant: a [`Settings`] value is within its limits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::task::{describe_json_error, nearest, parse_duration, seconds, seconds_or_null};

/// What survives what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// An acknowledged task survives a power cut: `fsync` at every point of the protocol.
    Power,
    /// An acknowledged task survives the death of any process, but not of the machine.
    Process,
}

/// What a task is run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// A child of the watcher's pool of runners.
    Local,
    /// A unit of its own of the system's systemd, with a cgroup that holds it to its limits.
    Systemd,
    /// The same, of the user's own systemd.
    SystemdUser,
}

impl Launcher {
    /// Whether the kernel holds tasks to the limits of their recipes.
    pub fn enforces_limits(self) -> bool {
        match self {
            Launcher::Local => false,
            Launcher::Systemd | Launcher::SystemdUser => true,
        }
    }
}

/// What Syncthing, Dropbox and Nextcloud, ownCloud, and Seafile call a file that was changed in two places.
const CONFLICT_COPIES: [&str; 4] = [
    "*.sync-conflict-*",
    "*conflicted copy*",
    "*_conflict-*",
    "*(SFConflict *",
];

/// All settings of one spool. Durations are seconds, or a text such as "5m"; sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `power` or `process`.
    pub durability: Durability,
    /// What a task is run as: `local`, or a unit of its own by `systemd` or `systemd-user`.
    pub launcher: Launcher,
    /// How many tasks run at once, over all watchers of this spool (documented default 5).
    pub max_concurrent: u32,
    /// How long a task may run when neither it nor its recipe says (documented default 300).
    #[serde(deserialize_with = "seconds")]
    pub timeout_sec: f64,
    /// How long completed and cancelled tasks are kept (documented default 3600).
    #[serde(deserialize_with = "seconds")]
    pub cleanup_delay_sec: f64,
    /// How long cancelled tasks are kept. `null`: as long as completed ones.
    #[serde(deserialize_with = "seconds_or_null")]
    pub cancelled_cleanup_delay_sec: Option<f64>,
    /// How long failed tasks are kept.
    #[serde(deserialize_with = "seconds")]
    pub failed_cleanup_delay_sec: f64,
    /// How long refused drops are kept.
    #[serde(deserialize_with = "seconds")]
    pub rejected_keep_sec: f64,
    /// How long the files of `events/` are kept.
    #[serde(deserialize_with = "seconds")]
    pub events_keep_sec: f64,
    /// At most so many bytes of events are kept; the oldest go first.
    pub events_max_bytes: u64,
    /// How long the folder of a session that nobody uses is kept.
    #[serde(deserialize_with = "seconds")]
    pub session_keep_sec: f64,
    /// At most so many finished tasks are kept; the oldest go first. `null`: no such limit.
    pub max_finished_tasks: Option<u64>,
    /// At most so many bytes of finished tasks are kept; the oldest go first. `null`: no limit.
    pub max_finished_bytes: Option<u64>,
    /// Whether `submit` and `wait` start a watcher when none lives. Never in a group spool.
    pub autostart: bool,
    /// An autostarted watcher leaves after so long with nothing to do.
    #[serde(deserialize_with = "seconds")]
    pub idle_exit_sec: f64,
    /// How often a watcher looks again without being told to.
    #[serde(deserialize_with = "seconds")]
    pub rescan_sec: f64,
    /// How often a watcher starts a sweep.
    #[serde(deserialize_with = "seconds")]
    pub sweep_every_sec: f64,
    /// How long an incomplete drop may stand unchanged before it is refused.
    #[serde(deserialize_with = "seconds")]
    pub drop_patience_sec: f64,
    /// Drops with such names are refused: those that sync programs give to a second copy of a file. `*` stands for
    /// any text.
    pub refused_drop_names: Vec<String>,
    /// How long a cancelled or timed-out task gets between TERM and KILL.
    #[serde(deserialize_with = "seconds")]
    pub cancel_grace_sec: f64,
    /// How long what a recipe leaves behind at its end may go on while it holds the task's stdout or stderr,
    /// as the `tee` of `exec > >(tee log)` does. Then it gets TERM, and `cancel_grace_sec` later KILL.
    #[serde(deserialize_with = "seconds")]
    pub leftover_wait_sec: f64,
    /// Disk space one log may take; beyond it the middle is cut out.
    pub log_cap_bytes: u64,
    /// Nothing is accepted when the file system would have less than this free.
    pub min_free_bytes: u64,
    /// Nothing is accepted when the file system would have fewer than this many inodes free.
    pub min_free_inodes: u64,
    /// Folders searched for recipes after the spool's own `recipes/`: absolute paths.
    pub recipe_path: Vec<String>,
    /// The Python that runs PraisonAI recipes: an absolute path. `null`: that of the `praisonai` program
    /// on PATH, else `python3`.
    pub praisonai_python: Option<String>,
    /// The umask recipes run with, in octal. In a group spool it takes away at least 022, in a private one at least
    /// what the umask of who started the watcher does.
    pub umask: String,
    /// Whether a network file system is taken, where locks may not be seen by other machines.
    pub allow_network_fs: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            durability: Durability::Power,
            launcher: Launcher::Local,
            max_concurrent: 5,
            timeout_sec: 300.0,
            cleanup_delay_sec: 3600.0,
            cancelled_cleanup_delay_sec: None,
            failed_cleanup_delay_sec: 7.0 * 86_400.0,
            rejected_keep_sec: 30.0 * 86_400.0,
            events_keep_sec: 30.0 * 86_400.0,
            events_max_bytes: 64 << 20,
            session_keep_sec: 30.0 * 86_400.0,
            max_finished_tasks: None,
            max_finished_bytes: None,
            autostart: true,
            idle_exit_sec: 3600.0,
            rescan_sec: 5.0,
            sweep_every_sec: 60.0,
            drop_patience_sec: 60.0,
            refused_drop_names: CONFLICT_COPIES.map(str::to_owned).to_vec(),
            cancel_grace_sec: 10.0,
            leftover_wait_sec: 2.0,
            log_cap_bytes: 64 << 20,
            min_free_bytes: 16 << 20,
            min_free_inodes: 1000,
            recipe_path: Vec::new(),
            praisonai_python: None,
            umask: "022".to_owned(),
            allow_network_fs: false,
        }
    }
}

/// How long finished tasks are kept, by the settings of a spool.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Completed tasks, and cancelled ones where nothing else is said.
    pub completed_sec: f64,
    /// Cancelled tasks, where that is said.
    pub cancelled_sec: Option<f64>,
    /// Failed tasks.
    pub failed_sec: f64,
    /// Whether their number or their size is limited as well.
    pub is_bounded: bool,
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No setting of this name.
    #[error("no setting is called `{name}`{}", suggestion.as_ref().map(|s| format!(" (did you mean `{s}`?)")).unwrap_or_default())]
    Unknown {
        /// What was written.
        name: String,
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// A value that does not fit.
    #[error("the setting `{name}` {problem}")]
    Invalid {
        /// Which.
        name: String,
        /// What is wrong, fit behind the name.
        problem: String,
    },
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A command-line flag.
    Flag,
    /// An environment variable.
    Environment,
    /// `spool.json`.
    File,
    /// Built in.
    Default,
}

/// Settings given outside `spool.json`, strongest first.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// By flags of this command.
    pub flags: Map<String, Value>,
    /// By `AGENTSPOOL_*` variables.
    pub environment: Map<String, Value>,
}

impl Settings {
    /// How long finished tasks are kept.
    pub fn retention(&self) -> Retention {
        Retention {
            completed_sec: self.cleanup_delay_sec,
            cancelled_sec: self.cancelled_cleanup_delay_sec,
            failed_sec: self.failed_cleanup_delay_sec,
            is_bounded: self.max_finished_tasks.is_some() || self.max_finished_bytes.is_some(),
        }
    }

    /// The settings that these layers make, over the defaults.
    pub fn of_layers(
        file: &Map<String, Value>,
        overrides: &Overrides,
    ) -> Result<Settings, SettingsError> {
        let mut all = Settings::default().to_map();
        for layer in [file, &overrides.environment, &overrides.flags] {
            for (name, value) in layer {
                if !all.contains_key(name) {
                    return Err(unknown(name));
                }
                all.insert(name.clone(), value.clone());
                check_one(name, value)?;
            }
        }
        let settings: Settings =
            serde_json::from_value(Value::Object(all)).map_err(|e| SettingsError::Invalid {
                name: "spool.json".into(),
                problem: describe_json_error(&e),
            })?;
        settings.check()?;
        Ok(settings)
    }

    /// Every setting's name and value.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // A struct of plain fields always makes an object.
            _ => Map::new(),
        }
    }

    /// Where the value of a setting comes from.
    pub fn origin(name: &str, file: &Map<String, Value>, overrides: &Overrides) -> Origin {
        if overrides.flags.contains_key(name) {
            Origin::Flag
        } else if overrides.environment.contains_key(name) {
            Origin::Environment
        } else if file.contains_key(name) {
            Origin::File
        } else {
            Origin::Default
        }
    }

    /// The umask for recipes; `Settings::check` has seen that it parses.
    pub fn umask_bits(&self) -> u32 {
        u32::from_str_radix(&self.umask, 8).unwrap_or(0o022)
    }

    /// The settings in seconds: name, value, and the least that it may be.
    fn seconds(&self) -> Vec<(&'static str, f64, f64)> {
        vec![
            ("timeout_sec", self.timeout_sec, 0.001),
            ("cleanup_delay_sec", self.cleanup_delay_sec, 0.0),
            (
                "cancelled_cleanup_delay_sec",
                self.cancelled_cleanup_delay_sec.unwrap_or(0.0),
                0.0,
            ),
            (
                "failed_cleanup_delay_sec",
                self.failed_cleanup_delay_sec,
                0.0,
            ),
            ("rejected_keep_sec", self.rejected_keep_sec, 0.0),
            ("events_keep_sec", self.events_keep_sec, 0.0),
            ("session_keep_sec", self.session_keep_sec, 0.0),
            ("idle_exit_sec", self.idle_exit_sec, 0.0),
            ("rescan_sec", self.rescan_sec, 0.05),
            ("sweep_every_sec", self.sweep_every_sec, 1.0),
            ("drop_patience_sec", self.drop_patience_sec, 0.0),
            ("cancel_grace_sec", self.cancel_grace_sec, 0.0),
            ("leftover_wait_sec", self.leftover_wait_sec, 0.0),
        ]
    }

    fn check(&self) -> Result<(), SettingsError> {
        let invalid = |name: &str, problem: &str| {
            Err(SettingsError::Invalid {
                name: name.into(),
                problem: problem.into(),
            })
        };
        // The upper end is what fits a slot file's number and a sensible pool, not a promise.
        if !(1..=10_000).contains(&self.max_concurrent) {
            return invalid("max_concurrent", "must be from 1 to 10000");
        }
        for (name, value, least) in self.seconds() {
            if !(least..=1e9).contains(&value) {
                let problem = format!("must be from {least} to 1000000000 seconds");
                return invalid(name, &problem);
            }
        }
        if self.log_cap_bytes < 1 << 20 {
            return invalid("log_cap_bytes", "must be at least 1048576");
        }
        // Each process would look below its own current folder, and a watcher's is `/`.
        if self
            .recipe_path
            .iter()
            .any(|folder| !folder.starts_with('/'))
        {
            return invalid("recipe_path", "must hold absolute paths only");
        }
        if self
            .praisonai_python
            .as_deref()
            .is_some_and(|python| !python.starts_with('/'))
        {
            return invalid("praisonai_python", "must be an absolute path");
        }
        if u32::from_str_radix(&self.umask, 8).is_ok_and(|bits| bits <= 0o777) {
            Ok(())
        } else {
            invalid(
                "umask",
                "must be an octal number of up to three digits, as \"022\"",
            )
        }
    }
}

/// Whether a setting is one by which tasks are run, kept and removed: that is done by the watcher, so for a command
/// that submits one it changes nothing.
pub fn is_of_watcher(name: &str) -> bool {
    let of_submission = [
        "allow_network_fs",
        "autostart",
        "durability",
        "min_free_bytes",
        "min_free_inodes",
    ];
    !of_submission.contains(&name)
}

/// The value of a setting as a person types it: JSON where it is JSON, else a string.
pub fn parse_value(name: &str, text: &str) -> Result<Value, SettingsError> {
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    if !Settings::default().to_map().contains_key(name) {
        return Err(unknown(name));
    }
    // "022" is a number to JSON and a mode to people.
    let value = if name == "umask" {
        Value::from(text.trim_matches('"'))
    } else {
        value
    };
    check_one(name, &value)?;
    Ok(match value.as_str().map(parse_duration) {
        // `5m` is kept as the number that every program reads.
        Some(Ok(duration)) if name.ends_with("_sec") => Value::from(duration.as_secs_f64()),
        _ => value,
    })
}

/// Tries one value in otherwise default settings, so that the complaint names the right one.
fn check_one(name: &str, value: &Value) -> Result<(), SettingsError> {
    let mut one = Map::new();
    one.insert(name.to_owned(), value.clone());
    let settings: Settings =
        serde_json::from_value(Value::Object(one)).map_err(|error| SettingsError::Invalid {
            name: name.into(),
            problem: format!("does not fit: {}", describe_json_error(&error)),
        })?;
    settings.check()
}

fn unknown(name: &str) -> SettingsError {
    let names = Settings::default().to_map();
    let near = nearest(name, names.keys().map(String::as_str));
    let suggestion = near.first().map(|known| (*known).to_owned());
    SettingsError::Unknown {
        name: name.to_owned(),
        suggestion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_documented_defaults() {
        let settings = Settings::of_layers(&Map::new(), &Overrides::default()).unwrap();
        assert_eq!(settings.max_concurrent, 5);
        assert_eq!(settings.timeout_sec, 300.0);
        assert_eq!(settings.cleanup_delay_sec, 3600.0);
    }

    #[test]
    fn the_stronger_layer_wins_and_its_origin_is_reported() {
        let file = map(json!({"max_concurrent": 2, "timeout_sec": 9}));
        let overrides = Overrides {
            flags: map(json!({"max_concurrent": 4})),
            environment: map(json!({"max_concurrent": 3, "rescan_sec": 1})),
        };
        let settings = Settings::of_layers(&file, &overrides).unwrap();
        assert_eq!((settings.max_concurrent, settings.timeout_sec), (4, 9.0));
        for (name, origin) in [
            ("max_concurrent", Origin::Flag),
            ("rescan_sec", Origin::Environment),
            ("timeout_sec", Origin::File),
            ("umask", Origin::Default),
        ] {
            assert_eq!(Settings::origin(name, &file, &overrides), origin, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (file, expected) in [
            (json!({"max_concurent": 2}), "did you mean `max_concurrent`"),
            (json!({"max_concurrent": 0}), "max_concurrent"),
            (json!({"max_concurrent": "many"}), "max_concurrent"),
            (json!({"umask": "999"}), "umask"),
            (json!({"durability": "luck"}), "durability"),
            (json!({"timeout_sec": -1}), "timeout_sec"),
            (json!({"recipe_path": ["/a", "b"]}), "recipe_path"),
        ] {
            let error = Settings::of_layers(&map(file.clone()), &Overrides::default()).unwrap_err();
            assert!(error.to_string().contains(expected), "{file} gave {error}");
        }
    }
}
