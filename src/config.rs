//! The settings of a spool: their names, defaults, units and limits.
//!
//! This file does not read `spool.json` (`spool/open/settings_file.rs` does) or the environment (`cli/env.rs`
//! does). It merges layers of JSON objects into one [`Settings`]. The first of these that has a value wins:
//! flag, environment, `spool.json`, default. Invariant: a [`Settings`] value is within its limits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::task::{
    TIMEOUT_RANGE, describe_json_error, is_timeout, nearest, parse_duration, parse_size, seconds,
    seconds_or_null,
};

/// Which failures an accepted task survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// An accepted task survives a power failure: `fsync` at every step of the protocol.
    Power,
    /// An accepted task survives the end of any process, but not a crash of the machine.
    Process,
}

/// What a task is run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// A child of the watcher's pool of runners.
    Local,
    /// A separate unit of the system's systemd. Its cgroup enforces the limits of the recipe.
    Systemd,
    /// A separate unit of the user's systemd. Its cgroup enforces the limits of the recipe.
    SystemdUser,
}

impl Launcher {
    /// Whether the kernel enforces the limits of recipes.
    pub fn enforces_limits(self) -> bool {
        match self {
            Launcher::Local => false,
            Launcher::Systemd | Launcher::SystemdUser => true,
        }
    }
}

/// Names for a file that was changed in two places: by Syncthing, Dropbox and Nextcloud, ownCloud, and
/// Seafile.
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
    /// What an accepted task survives: with `power` a power cut, with `process` only the end of a process.
    pub durability: Durability,
    /// How a task runs: by a runner of the watcher (`local`), or as a unit (`systemd`, `systemd-user`).
    pub launcher: Launcher,
    /// How many tasks run at once, in all watchers of this spool together: from 1 to 10000.
    pub max_concurrent: u32,
    /// How long a task may run if neither the task nor its recipe sets a timeout: more than 0 and at most ten
    /// years.
    #[serde(deserialize_with = "seconds")]
    pub timeout_sec: f64,
    /// How long completed and cancelled tasks are kept.
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
    /// How many bytes of events are kept at most. The oldest are removed first.
    pub events_max_bytes: u64,
    /// How long the folder of an unused session is kept.
    #[serde(deserialize_with = "seconds")]
    pub session_keep_sec: f64,
    /// How many finished tasks are kept at most. The oldest are removed first. `null`: no limit.
    pub max_finished_tasks: Option<u64>,
    /// How many bytes of finished tasks are kept at most. The oldest are removed first. `null`: no limit.
    pub max_finished_bytes: Option<u64>,
    /// Whether `submit` and `wait` start a watcher if no watcher is running. Never in a group spool.
    pub autostart: bool,
    /// An autostarted watcher exits after it had nothing to do for this long.
    #[serde(deserialize_with = "seconds")]
    pub idle_exit_sec: f64,
    /// How often a watcher rescans the spool without a notification: at least 0.05.
    #[serde(deserialize_with = "seconds")]
    pub rescan_sec: f64,
    /// How often a watcher starts a sweep: at least 1.
    #[serde(deserialize_with = "seconds")]
    pub sweep_every_sec: f64,
    /// How long an incomplete drop may stay unchanged before it is refused.
    #[serde(deserialize_with = "seconds")]
    pub drop_patience_sec: f64,
    /// Drops with these names are refused. The default names are those that sync programs give to a second
    /// copy of a file. `*` matches any text.
    pub refused_drop_names: Vec<String>,
    /// How long after TERM a cancelled or timed-out task gets KILL.
    #[serde(deserialize_with = "seconds")]
    pub cancel_grace_sec: f64,
    /// How long processes that a recipe leaves behind may run while they hold the task's stdout or stderr
    /// open, as the `tee` of `exec > >(tee log)` does. Then they get TERM, and `cancel_grace_sec` later KILL.
    #[serde(deserialize_with = "seconds")]
    pub leftover_wait_sec: f64,
    /// Disk space of one log, at most. The middle of a larger log is cut out. At least 1048576.
    pub log_cap_bytes: u64,
    /// No task is accepted if the file system would then have fewer bytes free than this.
    pub min_free_bytes: u64,
    /// No task is accepted if the file system would then have fewer inodes free than this.
    pub min_free_inodes: u64,
    /// Folders searched for recipes after the spool's own `recipes/`: absolute paths.
    pub recipe_path: Vec<String>,
    /// The Python that runs PraisonAI recipes: an absolute path. `null`: the Python of the
    /// `praisonai` program on PATH, or `python3` if there is no such program.
    pub praisonai_python: Option<String>,
    /// The umask of recipes, in octal. It is combined with 022 in a group spool. In a private spool it is
    /// combined with the umask of the process that started the watcher.
    pub umask: String,
    /// Whether the spool may be on a network file system, where other machines may not see the locks.
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
    /// Completed tasks, and cancelled tasks if `cancelled_sec` is not set.
    pub completed_sec: f64,
    /// Cancelled tasks, if they have a retention of their own.
    pub cancelled_sec: Option<f64>,
    /// Failed tasks.
    pub failed_sec: f64,
    /// Whether the number or the total size of finished tasks is limited too.
    pub is_bounded: bool,
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no setting with this name.
    #[error("no setting is called `{name}`{}", suggestion.as_ref().map(|s| format!(" (did you mean `{s}`?)")).unwrap_or_default())]
    Unknown {
        /// The unknown name.
        name: String,
        /// The most similar name of a setting.
        suggestion: Option<String>,
    },
    /// A value that is not allowed.
    #[error("the setting `{name}` {problem}")]
    Invalid {
        /// The name of the setting.
        name: String,
        /// What is wrong: the rest of a sentence that starts with the name.
        problem: String,
    },
}

impl SettingsError {
    /// The name of the setting.
    pub fn name(&self) -> &str {
        match self {
            SettingsError::Unknown { name, .. } | SettingsError::Invalid { name, .. } => name,
        }
    }
}

/// The source of a setting's value.
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
    /// From flags of this command.
    pub flags: Map<String, Value>,
    /// From `AGENTSPOOL_*` variables.
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

    /// Merges these layers over the defaults. Fails if a name is unknown or a value is not allowed.
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

    /// The source of the value of one setting.
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

    /// The umask of recipes as bits. `Settings::check` has checked that it parses.
    pub fn umask_bits(&self) -> u32 {
        u32::from_str_radix(&self.umask, 8).unwrap_or(0o022)
    }

    /// The settings in seconds, without the timeout: name, value, and smallest allowed value.
    fn seconds(&self) -> Vec<(&'static str, f64, f64)> {
        vec![
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
        // The upper limit keeps slot numbers and the pool of runners at a sensible size.
        if !(1..=10_000).contains(&self.max_concurrent) {
            return invalid("max_concurrent", "must be from 1 to 10000");
        }
        if !is_timeout(self.timeout_sec) {
            return invalid("timeout_sec", TIMEOUT_RANGE);
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
        // A relative path would depend on the current folder of each process; a watcher's is `/`.
        if self
            .recipe_path
            .iter()
            .any(|folder| !folder.starts_with('/'))
        {
            return invalid("recipe_path", "must contain only absolute paths");
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
                "must be an octal number of up to three digits, such as \"022\"",
            )
        }
    }
}

/// Whether only the watcher uses this setting, to run, keep and remove tasks. Such a setting has no effect in
/// a command that submits a task.
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

/// Parses the value of a setting as a person types it: as JSON if it is valid JSON, else as a string. Fails if
/// the name is unknown or the value is not allowed.
pub fn parse_value(name: &str, text: &str) -> Result<Value, SettingsError> {
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    if !Settings::default().to_map().contains_key(name) {
        return Err(unknown(name));
    }
    let is_nullable = || Settings::default().to_map()[name].is_null();
    let value = match value {
        // `22` is a number in JSON, but a umask is stored as a text.
        _ if name == "umask" => Value::from(text.trim_matches('"')),
        Value::String(text) if text == "none" && is_nullable() => Value::Null,
        // `16M` is stored as a number of bytes, which every program can read.
        Value::String(text) if name.ends_with("_bytes") => {
            parse_size(&text).map_or(Value::String(text), Value::from)
        }
        value => value,
    };
    check_one(name, &value)?;
    Ok(match value.as_str().map(parse_duration) {
        // `5m` is stored as a number of seconds, which every program can read.
        Some(Ok(duration)) if name.ends_with("_sec") => Value::from(duration.as_secs_f64()),
        _ => value,
    })
}

/// Checks one value with default values for all others, so that the error names the right setting.
fn check_one(name: &str, value: &Value) -> Result<(), SettingsError> {
    let mut one = Map::new();
    one.insert(name.to_owned(), value.clone());
    let settings: Settings =
        serde_json::from_value(Value::Object(one)).map_err(|error| SettingsError::Invalid {
            name: name.into(),
            problem: format!(
                "has a wrong value: {}{}",
                describe_json_error(&error),
                example(name)
            ),
        })?;
    settings.check()
}

/// How a value that people rarely write right looks.
fn example(name: &str) -> &'static str {
    match name {
        "recipe_path" => ", such as '[\"/opt/recipes\"]'",
        "refused_drop_names" => ", such as '[\"*.bak\"]'",
        _ if name.ends_with("_bytes") => ", or a size such as 16M",
        _ => "",
    }
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
    fn defaults_are_as_documented() {
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
    fn an_error_names_the_wrong_setting() {
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
