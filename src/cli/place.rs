//! Which spool a command means, and how it is opened or made.
//!
//! Order: `--spool`, `$AGENTSPOOL_DIR`, the default below `$XDG_STATE_HOME`; never the current
//! folder by itself. Only the default one is made without being asked for.

use std::path::PathBuf;

use agentspool::client::{Autostart, Client, Options};
use agentspool::config::{Overrides, SettingsError, parse_value};
use serde_json::{Map, Value};

use super::Context;
use super::env;
use super::report::CliError;

/// The program that is running, whatever became of its file.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

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

    /// In a group spool the text that is shown may be another user's.
    fn guarding(&self, client: Client) -> Client {
        if client.is_group() {
            self.out.guard_terminal();
        }
        client
    }

    /// Opens a client of the spool.
    pub fn open_client(&self) -> Result<Client, CliError> {
        let (path, _) = self.spool_path()?;
        Ok(self.guarding(Client::open(&path, self.options()?)?))
    }

    /// The same, making the default spool when it is not there.
    pub fn open_or_make_client(&self) -> Result<Client, CliError> {
        let (path, is_default) = self.spool_path()?;
        let options = self.options()?;
        Ok(self.guarding(if is_default {
            Client::open_or_make(&path, options)?
        } else {
            Client::open(&path, options)?
        }))
    }

    /// What a client needs to know of this process.
    pub fn options(&self) -> Result<Options, CliError> {
        let autostart = Autostart {
            program: PathBuf::from(OWN_PROGRAM),
            environment: self.env.for_autostart(),
        };
        Ok(Options {
            overrides: self.overrides()?,
            search: self.env.search(),
            own_task: self.env.own_task(),
            // Nothing is started inside a task.
            autostart: Some(autostart).filter(|_| !self.env.is_inside_a_task()),
        })
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

    /// What a process we start needs besides the spool, to see the same settings and to say as much.
    pub fn arguments_for_children(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for setting in &self.global.settings {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        arguments.extend((0..self.global.verbose).map(|_| "--verbose".to_owned()));
        if self.global.quiet {
            arguments.push("--quiet".to_owned());
        }
        arguments
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
