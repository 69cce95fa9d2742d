//! The client of one spool: how it is opened, and what it needs to know of its caller.
//!
//! Not the verbs (a file for each). Not the question which spool is meant: that is the front door's. Invariant:
//! whatever comes from the environment comes in as an option.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::Overrides;
use crate::proc;
use crate::recipe::{PathOf, RecipePath, Search, Trust};
use crate::spool::{Exposed, OpenError, Spool, group_id};
use crate::task::TaskId;

/// By which way a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The command line.
    Cli,
    /// A file in the drop box.
    Drop,
    /// The HTTP service.
    Http,
    /// The MCP server.
    Mcp,
    /// This program itself, for instance for a task that follows another one.
    Internal,
}

/// What a client needs to know of its caller.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings over those of `spool.json`.
    pub overrides: Overrides,
    /// The `PATH` of a watcher that is started from here. Where one runs, its `PATH` counts.
    pub search: Option<OsString>,
    /// The task that the caller is a part of. While it waits for another task it keeps its own slot.
    pub own_task: Option<TaskId>,
    /// How a watcher is started where none runs. `None`: this client starts none.
    pub autostart: Option<Autostart>,
}

/// What a watcher is started with.
#[derive(Clone, Debug)]
pub struct Autostart {
    /// The program `agentspool`.
    pub program: PathBuf,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Why no spool is made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It cannot be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is there, and others could put another folder in its place.
    #[error("no watcher will run its tasks: {0}")]
    Exposed(Exposed),
}

/// One spool, opened to submit tasks, look at them, wait for them and end them.
///
/// ```no_run
/// use agentspool::client::{Client, Door, NeverStop, NewTask, Options};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::open("/var/spool/agentspool".as_ref(), Options::default())?;
/// let accepted = client.submit(&"hello".parse()?, NewTask::new(Door::Internal), &NeverStop)?;
/// println!("{}", accepted.id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    spool: Spool,
    search: Option<OsString>,
    own_task: Option<TaskId>,
    autostart: Option<Autostart>,
    /// Whether this process is a part of a task, once that was asked.
    is_inside: OnceLock<bool>,
}

impl Client {
    /// Opens a spool.
    ///
    /// # Errors
    /// [`OpenError`]: there is no spool, it is of another version, this user may not use it, or a setting is wrong.
    pub fn open(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = Spool::open(path, options.overrides.clone())?;
        Ok(Client::of(spool, options))
    }

    /// The same; where there is none, a private spool is made.
    ///
    /// # Errors
    /// Those of [`Client::open`], and when it cannot be made.
    pub fn open_or_make(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = match Spool::open(path, options.overrides.clone()) {
            Err(OpenError::Absent { .. }) => Spool::init(path, None, options.overrides.clone())?,
            opened => opened?,
        };
        Ok(Client::of(spool, options))
    }

    /// Makes a spool, private or for the users of a group, or puts an old one right.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn init(path: &Path, group: Option<&str>, options: Options) -> Result<Client, InitError> {
        let gid = group.map(group_id).transpose()?;
        let spool = Spool::init(path, gid, options.overrides.clone())?;
        if spool.is_group()
            && let Some(exposed) = spool.exposed_above().map_err(OpenError::from)?
        {
            return Err(InitError::Exposed(exposed));
        }
        Ok(Client::of(spool, options))
    }

    /// Opens a spool to be looked at: nothing in it is put right.
    ///
    /// # Errors
    /// Those of [`Client::open`].
    pub fn open_as_it_is(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = Spool::open_as_it_is(path, options.overrides.clone())?;
        Ok(Client::of(spool, options))
    }

    fn of(spool: Spool, options: Options) -> Client {
        Client {
            spool,
            search: options.search,
            own_task: options.own_task,
            autostart: options.autostart,
            is_inside: OnceLock::new(),
        }
    }

    /// The folder of the spool.
    pub fn path(&self) -> &Path {
        self.spool.path()
    }

    /// What tells this spool from its copies.
    pub fn uuid(&self) -> &str {
        self.spool.uuid()
    }

    /// Whether the users of a group use it too.
    pub fn is_group(&self) -> bool {
        self.spool.is_group()
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(super) fn spool_mut(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// Where the recipes of this spool are.
    pub(super) fn recipes(&self) -> RecipePath {
        let settings = self.spool.settings();
        RecipePath::new(
            self.spool.recipes_path(),
            &settings.recipe_path,
            settings.praisonai_python.as_deref(),
        )
        .trusting(self.recipe_trust())
    }

    /// Who may change the recipes of this spool.
    pub(super) fn recipe_trust(&self) -> Trust {
        Trust {
            owner: self.spool.owner_or_us(),
            is_shared: self.spool.is_group(),
        }
    }

    /// The `PATH`s that decide whether a recipe can run: those of the watchers that run, else the one that a watcher
    /// gets from here. Empty where it is not known, and for other users, who must not run the owner's programs to
    /// find out: see [`Recipe::problems`](crate::recipe::Recipe::problems).
    pub(super) fn searches(&self) -> Vec<Search> {
        self.searches_or_own(self.autostart().is_some())
    }

    /// The same to show a recipe: where no `PATH` is known, the caller's is the best guess.
    pub(super) fn searches_to_show(&self) -> Vec<Search> {
        self.searches_or_own(true)
    }

    fn searches_or_own(&self, is_own_allowed: bool) -> Vec<Search> {
        // Systemd gives its units another one.
        if !self.spool.is_owner() || self.spool.settings().launcher.enforces_limits() {
            return Vec::new();
        }
        let of_watchers = Search::of_watchers(&self.spool).unwrap_or_default();
        match &self.search {
            Some(path) if of_watchers.is_empty() && is_own_allowed => vec![Search {
                path: path.clone(),
                of: PathOf::Caller,
            }],
            _ => of_watchers,
        }
    }

    /// The task that the caller is a part of.
    pub(super) fn own_task(&self) -> Option<TaskId> {
        self.own_task
    }

    /// What a watcher is started with, where this client may start one.
    pub(super) fn autostart(&self) -> Option<&Autostart> {
        let is_allowed =
            self.spool.settings().autostart && self.spool.is_owner() && !self.spool.is_group();
        self.autostart.as_ref().filter(|_| is_allowed)
    }

    /// The same, seen from where this process stands: what is started inside a task ends with it.
    pub(super) fn may_start(&self) -> Option<&Autostart> {
        let is_inside = || *self.is_inside.get_or_init(proc::is_below_a_runner);
        self.autostart().filter(|_| !is_inside())
    }
}
