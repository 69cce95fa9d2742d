//! Which spool a command means, and how it is opened or made.
//!
//! Order: `--spool`, `$AGENTSPOOL_DIR`, the default below `$XDG_STATE_HOME`; never the current
//! folder by itself. Only the default one is made without being asked for.

use std::ffi::OsStr;
use std::path::PathBuf;

use agentspool::config::{Overrides, SettingsError, parse_value};
use agentspool::spool::{OpenError, Spool};
use agentspool::task::{Name, TaskId};
use serde_json::{Map, Value};

use super::Context;
use super::env;
use super::exit_code::ExitCode;
use super::report::CliError;

impl Context {
    /// The spool's folder, and whether it is the default one.
    pub fn spool_path(&self) -> Result<(PathBuf, bool), CliError> {
        if let Some(path) = &self.global.spool {
            return Ok((path.clone(), false));
        }
        if let Some(path) = self.env.get(env::DIR) {
            return Ok((PathBuf::from(path), false));
        }
        let default = self.env.default_spool();
        default.map(|path| (path, true)).ok_or_else(|| {
            CliError::usage("no spool is named, and without HOME there is no default one")
                .hint("use --spool DIR or set AGENTSPOOL_DIR")
        })
    }

    /// Opens the spool.
    pub fn open_spool(&self) -> Result<Spool, CliError> {
        let (path, _) = self.spool_path()?;
        Ok(self.guarded(Spool::open(&path, self.overrides()?)?))
    }

    /// In a group spool the text that is shown may be another user's.
    fn guarded(&self, spool: Spool) -> Spool {
        if spool.is_group() {
            self.out.guard_terminal();
        }
        spool
    }

    /// Opens the spool, making the default one when it is not there.
    pub fn open_or_make_spool(&self) -> Result<Spool, CliError> {
        let (path, is_default) = self.spool_path()?;
        match Spool::open(&path, self.overrides()?) {
            Err(OpenError::Absent { .. }) if is_default => {
                Ok(Spool::init(&path, None, self.overrides()?)?)
            }
            opened => Ok(self.guarded(opened?)),
        }
    }

    /// The PATH by which is looked whether recipes can run. Only the owner has one: see
    /// `Recipe::check_runnable`.
    pub fn search_for(&self, spool: &Spool) -> Option<&OsStr> {
        let path = spool.is_owner().then(|| self.env.get("PATH")).flatten();
        path.map(|path| path.as_os_str())
    }

    /// Settings by `--set` and by variables.
    pub fn overrides(&self) -> Result<Overrides, CliError> {
        let mut flags = Map::new();
        for setting in &self.global.settings {
            let (key, value) = split_setting(setting)?;
            flags.insert(key, value);
        }
        Ok(Overrides {
            flags,
            environment: self.env.settings()?,
        })
    }

    /// What a process we start needs to see the same spool and settings, and to say as much.
    pub fn arguments_for_children(&self, spool: &Spool) -> Vec<String> {
        let mut arguments = vec![
            "--spool".to_owned(),
            spool.path().to_string_lossy().into_owned(),
        ];
        for setting in &self.global.settings {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        arguments.extend((0..self.global.verbose).map(|_| "--verbose".to_owned()));
        if self.global.quiet {
            arguments.push("--quiet".to_owned());
        }
        arguments
    }

    /// Says that no task starts, where the spool is paused; whether it did. It never fails: whoever
    /// calls it has done the work that counts.
    pub fn note_pause(&self, spool: &Spool) -> bool {
        let Ok(Some(why)) = spool.paused() else {
            return false;
        };
        self.out.note(format!(
            "note: {why}: no task starts until `agentspool --spool {} resume`",
            spool.path().display()
        ));
        true
    }

    /// Says that nobody will run anything, where that matters.
    pub fn note_without_watcher(&self, spool: &Spool) -> Result<(), CliError> {
        if let Some(text) = self.without_watcher(spool)? {
            self.out.note(text);
        }
        Ok(())
    }

    /// The words for that; `None` where a watcher runs.
    pub fn without_watcher(&self, spool: &Spool) -> Result<Option<String>, CliError> {
        if spool.has_watcher()? {
            return Ok(None);
        }
        let path = spool.path().display();
        let what_to_do = if spool.is_owner() {
            format!("start one with `agentspool --spool {path} watch`")
        } else {
            "ask the spool's owner to start one".to_owned()
        };
        Ok(Some(format!(
            "note: no watcher is running on {path}, and nothing is done until one runs; {what_to_do}"
        )))
    }
}

fn split_setting(text: &str) -> Result<(String, Value), SettingsError> {
    let Some((key, value)) = text.split_once('=') else {
        let problem = "must be given as KEY=VALUE".to_owned();
        return Err(SettingsError::Invalid {
            name: text.to_owned(),
            problem,
        });
    };
    Ok((key.to_owned(), parse_value(key, value)?))
}

/// Where the recipes of this spool are.
pub(crate) fn recipe_path(spool: &Spool) -> agentspool::recipe::RecipePath {
    let settings = spool.settings();
    agentspool::recipe::RecipePath::new(
        spool.recipes_path(),
        &settings.recipe_path,
        settings.praisonai_python.as_deref(),
    )
    .trusting(recipe_trust(spool))
}

/// Who may change the recipes of this spool.
pub(crate) fn recipe_trust(spool: &Spool) -> agentspool::recipe::Trust {
    agentspool::recipe::Trust {
        owner: spool.owner_or_us(),
        is_shared: spool.is_group(),
    }
}

/// For messages: a task that is only a drop so far.
pub(crate) fn not_admitted(name: &Name) -> CliError {
    CliError::new(
        ExitCode::General,
        format!("{name} is a drop that no watcher has admitted yet"),
    )
}

/// Refuses to wait any longer for a task whose folder somebody removed: no result will come.
pub(crate) fn check_still_there(spool: &Spool, id: TaskId) -> Result<(), CliError> {
    match spool.task(id)? {
        Some(_) => Ok(()),
        None => {
            let told = format!("the task {id} was removed while it was waited for");
            Err(CliError::new(ExitCode::NotFound, told))
        }
    }
}
