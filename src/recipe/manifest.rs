//! `recipe.toml`: how a recipe is to be run.
//!
//! Not where it is (`path.rs`). Invariant: a [`Manifest`] that was read has a command, and its values are
//! within their limits. A misspelled key is an error; its default is not used.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ManifestError;
use super::limits::{self, Limits};
use crate::task::{Json, TIMEOUT_RANGE, in_plain_words, is_timeout, seconds_or_null};

/// What happens to a task whose runner was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// The task fails: an agent that spent money must not spend it again unnoticed.
    #[default]
    Fail,
    /// The task is tried again, with at most `max_attempts` attempts in total.
    Requeue,
}

/// How tasks of one session run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionMode {
    /// One after another, in the order of submission.
    #[default]
    Serial,
    /// At the same time.
    Parallel,
}

/// The content of a `recipe.toml`. Every field except `command` has a default. Only PraisonAI recipes have no
/// `command`.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// One line for `recipe list`.
    pub description: String,
    /// The program and its arguments, without a shell. A program with a slash is relative to the recipe's
    /// folder. Any other program is searched for on PATH.
    pub command: Vec<String>,
    /// How many seconds a task may run if its request does not set a timeout.
    pub timeout_sec: Option<f64>,
    /// What happens if the runner is killed.
    pub on_lost: OnLost,
    /// The number of attempts in total, with `on_lost = "requeue"`.
    pub max_attempts: u32,
    /// Whether exit code 0 without a result file is a failure.
    pub needs_result: bool,
    /// How many tasks of this recipe run at once.
    pub max_concurrent: Option<u32>,
    /// The limits of one task, which are enforced if tasks are systemd units.
    pub limits: Limits,
    /// How tasks of one session run.
    pub session: SessionMode,
    /// Variables a submitter may set.
    pub env_accept: Vec<String>,
    /// A file of `NAME=value` lines for secrets. Its path is relative to the recipe's folder.
    pub env_file: Option<String>,
    /// Variables the recipe always gets.
    pub env: BTreeMap<String, String>,
    /// Defaults that the request's config overrides.
    pub config: BTreeMap<String, Json>,
}

/// The number of attempts in total for `on_lost = "requeue"` without `max_attempts`.
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    description: String,
    command: Option<toml::Value>,
    #[serde(default, deserialize_with = "seconds_or_null")]
    timeout: Option<f64>,
    #[serde(default)]
    on_lost: OnLost,
    max_attempts: Option<u32>,
    #[serde(default)]
    needs_result: bool,
    max_concurrent: Option<u32>,
    memory_max: Option<toml::Value>,
    cpu_quota: Option<String>,
    tasks_max: Option<u32>,
    #[serde(default)]
    session: SessionMode,
    #[serde(default)]
    env_accept: Vec<String>,
    env_file: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
}

impl Manifest {
    /// Parses the text of a `recipe.toml`.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        let manifest = Manifest::read(text)?;
        if !manifest.names_a_program() {
            let report = "`command` must name a program, as in command = [\"./run.sh\"]";
            return Err(ManifestError(report.to_owned()));
        }
        Ok(manifest)
    }

    /// All errors of a text that is not a valid manifest: `first`, and each other wrong key. Also returns the
    /// manifest from the other keys, if they are enough for one.
    pub(super) fn all_wrong(
        text: &str,
        first: ManifestError,
    ) -> (Option<Manifest>, Vec<ManifestError>) {
        let Ok(mut table) = toml::from_str::<toml::Table>(text) else {
            return (None, vec![first]);
        };
        let mut wrong = vec![first];
        let keys: Vec<String> = table.keys().cloned().collect();
        for key in keys {
            let Some(value) = table.remove(&key) else {
                continue;
            };
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            match Manifest::of_table(alone) {
                Ok(_) => {
                    table.insert(key, value);
                }
                Err(error) => {
                    let error = error.of_key(&key);
                    // The first error is reported with its line.
                    if !wrong.iter().any(|known| known.is_same(&error)) {
                        wrong.push(error);
                    }
                }
            }
        }
        let rest = Manifest::of_table(table).ok();
        (rest.filter(Manifest::names_a_program), wrong)
    }

    fn names_a_program(&self) -> bool {
        self.command.first().is_some_and(|first| !first.is_empty())
    }

    fn of_table(table: toml::Table) -> Result<Manifest, ManifestError> {
        let written = table.try_into();
        Manifest::of(written.map_err(|error: toml::de::Error| ManifestError(one_line(&error)))?)
    }

    /// Parses the text of a `recipe.toml` that has no `command`.
    pub(super) fn parse_without_command(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::read(text)
    }

    /// Whether the text of a `recipe.toml` has a command, right or wrong.
    pub(super) fn has_command(text: &str) -> bool {
        toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("command"))
    }

    fn read(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::of(toml::from_str(text).map_err(|error| ManifestError(describe(text, &error)))?)
    }

    fn of(written: Written) -> Result<Manifest, ManifestError> {
        let refuse = |problem: &str| Err(ManifestError(problem.to_owned()));
        for (key, value) in [
            ("max_attempts", written.max_attempts),
            ("max_concurrent", written.max_concurrent),
            ("tasks_max", written.tasks_max),
        ] {
            if value == Some(0) {
                return Err(ManifestError(format!("`{key}` must be at least 1")));
            }
        }
        let names = written.env.keys().chain(&written.env_accept);
        names.map(String::as_str).try_for_each(check_variable)?;
        let limits = Limits {
            memory_max: written.memory_max.as_ref().map(limits::bytes).transpose()?,
            cpu_quota: written
                .cpu_quota
                .as_deref()
                .map(limits::percent)
                .transpose()?,
            tasks_max: written.tasks_max,
        };
        let command = written.command.map(|command| command.try_into());
        let Ok(command) = command.unwrap_or_else(|| Ok(Vec::new())) else {
            return refuse(
                "`command` must be a list of texts, the program and each argument: command = [\"./run.sh\", \"--fast\"]",
            );
        };
        let timeout_sec = written.timeout;
        if timeout_sec.is_some_and(|seconds| !is_timeout(seconds)) {
            return refuse(&format!("`timeout` {TIMEOUT_RANGE}"));
        }
        let mut config = BTreeMap::new();
        for (key, value) in &written.config {
            let json = Json::of(value).map_err(|e| ManifestError(e.to_string()))?;
            config.insert(key.clone(), json);
        }
        Ok(Manifest {
            description: written.description,
            command,
            timeout_sec,
            on_lost: written.on_lost,
            max_attempts: written.max_attempts.unwrap_or(DEFAULT_ATTEMPTS),
            needs_result: written.needs_result,
            max_concurrent: written.max_concurrent,
            limits,
            session: written.session,
            env_accept: written.env_accept,
            env_file: written.env_file,
            env: written.env,
            config,
        })
    }
}

/// Checks the name of a variable that a recipe sets or accepts.
fn check_variable(name: &str) -> Result<(), ManifestError> {
    let problem = if !is_variable_name(name) {
        "names in `env` and `env_accept` may have only letters, digits and _"
    } else if name.starts_with("AGENTSPOOL_") {
        "variables that start with AGENTSPOOL_ are set by the runner"
    } else {
        return Ok(());
    };
    Err(ManifestError(problem.to_owned()))
}

/// The parser's error in one line, with the key and without the value, which may be a secret. The parser's
/// own message has four lines and repeats the text.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let message = one_line(error);
    let Some(span) = error.span() else {
        return message;
    };
    let before = text.get(..span.start).unwrap_or_default();
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default();
    match line.split_once('=').map(|(key, _)| key.trim()) {
        Some(key) if is_key(key) => format!("line {}: `{key}`: {message}", number + 1),
        _ => format!("line {}: {message}", number + 1),
    }
}

fn one_line(error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match message.split_once(", expected ") {
        // Both messages start with the value.
        Some((found, expected))
            if found.starts_with("invalid ") || found.starts_with("unknown variant ") =>
        {
            format!("expected {}", in_plain_words(expected))
        }
        _ => message,
    }
}

/// Whether the text before a `=` is a key and not a part of a value.
fn is_key(text: &str) -> bool {
    const LONGEST: usize = 40;
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "_-.\"' ".contains(c);
    text.len() <= LONGEST && text.chars().all(is_of_key)
}

/// Whether a text may be the name of an environment variable.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Parses the `NAME=value` lines of an `env_file`. A line that starts with `#` is a comment. Quotes around a
/// value are removed. Nothing is expanded.
pub fn parse_env_file(text: &str) -> Result<Vec<(String, String)>, ManifestError> {
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The message does not repeat the line, because it may have a secret.
        let wrong = || ManifestError(format!("line {} is not NAME=value", number + 1));
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_variable_name(name) {
            return Err(wrong());
        }
        let value = value.trim();
        let unquoted = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
            .unwrap_or(value);
        variables.push((name.to_owned(), unquoted.to_owned()));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_with_all_keys_is_parsed() {
        let manifest = Manifest::parse(
            r#"
            description = "Reads pages"
            command = ["./run.sh", "--fast"]
            timeout = "1m 30s"
            on_lost = "requeue"
            needs_result = true
            max_concurrent = 2
            memory_max = "1.5G"
            cpu_quota = "150%"
            tasks_max = 64
            session = "parallel"
            env_accept = ["API_KEY"]
            [env]
            LANG = "C"
            [config]
            tokens = 10
            nested = { a = [1, 2] }
            "#,
        )
        .unwrap();
        assert_eq!(manifest.timeout_sec, Some(90.0));
        assert_eq!(
            (manifest.on_lost, manifest.max_attempts),
            (OnLost::Requeue, 3)
        );
        assert!(manifest.needs_result);
        let expected = Limits {
            memory_max: Some(3 << 29),
            cpu_quota: Some(150),
            tasks_max: Some(64),
        };
        assert_eq!(manifest.limits, expected);
        assert_eq!(manifest.config["nested"].text(), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn each_error_names_its_key() {
        for (text, expected) in [
            ("", "command"),
            ("command = []", "command"),
            ("command = \"ls\"", "command"),
            ("command = [\"a\"]\ncomand = 1", "comand"),
            ("command = [\"a\"]\ntimeout = \"soon\"", "timeout"),
            ("command = [\"a\"]\ntimeout = -1", "timeout"),
            (
                "command = [\"a\"]\non_lost = \"retry\"",
                "`on_lost`: expected",
            ),
            ("command = [\"a\"]\nmax_concurrent = 0", "max_concurrent"),
            ("command = [\"a\"]\nneeds_result = 1", "needs_result"),
            ("command = [\"a\"]\nmemory_max = \"much\"", "memory_max"),
            ("command = [\"a\"]\ncpu_quota = \"0%\"", "cpu_quota"),
            ("command = [\"a\"]\ntasks_max = 0", "tasks_max"),
            (
                "command = [\"a\"]\nenv_accept = [\"AGENTSPOOL_MARK\"]",
                "AGENTSPOOL_",
            ),
        ] {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        // Only the message shows that the parser quotes a value.
        let quoted = "command = [\"a\"]\nmax_attempts = \"hunter2\"";
        let error = Manifest::parse(quoted).unwrap_err().to_string();
        assert_eq!(
            error,
            "line 2: `max_attempts`: expected a whole number from 0 to 4294967295"
        );
        // A key is repeated, but not a text that only contains a `=`.
        for secret in [
            "session = \"hunter2\"",
            "hunter2+hunter2/hunter2=",
            "//u:hunter2@h/?a=1",
        ] {
            let error = Manifest::parse(secret).unwrap_err().to_string();
            assert!(error.starts_with("line 1: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let secret = "command = [\"a\"]\n[env]\nKEY = hunter2\n";
        let error = Manifest::parse(secret).unwrap_err().to_string();
        assert!(
            error.contains("line 3") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn an_env_file_is_parsed() {
        let text = "\u{feff}# keys\nA=1\n export B = \"two words\" \n\nC='x=y'\n";
        let expected = [("A", "1"), ("B", "two words"), ("C", "x=y")];
        let parsed = parse_env_file(text).unwrap();
        let parsed: Vec<_> = parsed
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(parsed, expected);
        let error = parse_env_file("A=1\nhunter2").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"));
    }
}
