//! Finds the spool of a command, and opens or creates it.
//!
//! Order: `--spool`, `$AGENTSPOOL_DIR`, the default below `$XDG_STATE_HOME`; never the current folder.
//! Invariant: only the default spool is created without an explicit `init`.

use std::path::PathBuf;

use agentspool::client::{Autostart, Client, Options};
use agentspool::config::{Overrides, SettingsError, parse_value};
use serde_json::{Map, Value};

use super::Context;
use super::env;
use super::report::CliError;

/// The running program, also after its file was replaced or removed.
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
            CliError::usage(
                "no spool is given, and there is no default spool because HOME is not set",
            )
            .hint("use --spool DIR, or set AGENTSPOOL_DIR")
        })
    }

    /// Guards the terminal for a group spool, where the shown text may be another user's.
    fn guarding(&self, client: Client) -> Client {
        if client.is_group() {
            self.out.guard_terminal();
        }
        client
    }

    /// Opens the spool.
    pub fn open_client(&self) -> Result<Client, CliError> {
        let (path, _) = self.spool_path()?;
        Ok(self.guarding(Client::open(&path, self.options()?)?))
    }

    /// Opens the spool for a command that only reads.
    pub fn open_client_to_read(&self) -> Result<Client, CliError> {
        let (path, _) = self.spool_path()?;
        Ok(self.guarding(Client::open_to_read(&path, self.options()?)?))
    }

    /// Opens the spool. Creates the default spool if it does not exist.
    pub fn open_or_make_client(&self) -> Result<Client, CliError> {
        let (path, is_default) = self.spool_path()?;
        let options = self.options()?;
        Ok(self.guarding(if is_default {
            Client::open_or_make(&path, options)?
        } else {
            Client::open(&path, options)?
        }))
    }

    /// The options of the client, from the flags and the environment.
    pub fn options(&self) -> Result<Options, CliError> {
        let autostart = Autostart {
            program: PathBuf::from(OWN_PROGRAM),
            environment: self.env.for_autostart(),
        };
        Ok(Options {
            overrides: self.overrides()?,
            search: self.env.search(),
            own_task: self.env.own_task(),
            // A task does not start a watcher.
            autostart: Some(autostart).filter(|_| !self.env.is_inside_a_task()),
        })
    }

    /// The settings from `--set` and from variables.
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

    /// The arguments for a started process, besides the spool: the same settings and log level.
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
