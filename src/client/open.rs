//! The client of one spool: opening it, and its options.
//!
//! Not the verbs (one file each), and not the choice of the spool (the front end). Invariant: values from the
//! environment are passed in as options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::Overrides;
use crate::proc;
use crate::recipe::{PathOf, RecipePath, Search, Trust};
use crate::spool::{Exposed, OpenError, Spool, group_id};
use crate::task::TaskId;

/// The way by which a request came in.
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

/// What a client needs to know about its caller.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings that override those of `spool.json`.
    pub overrides: Overrides,
    /// The `PATH` of a watcher that this client starts. If a watcher is running, its own `PATH` applies.
    pub search: Option<OsString>,
    /// The task in which the caller runs. While the caller waits for another task, this task keeps its slot.
    pub own_task: Option<TaskId>,
    /// How to start a watcher if none is running. `None`: this client does not start watchers.
    pub autostart: Option<Autostart>,
}

/// How to start a watcher.
#[derive(Clone, Debug)]
pub struct Autostart {
    /// The program `agentspool`.
    pub program: PathBuf,
    /// The watcher's whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Why a spool was not created.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The spool cannot be created or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The spool exists, but other users could replace its folder.
    #[error("no watcher will run its tasks: {0}")]
    Exposed(Exposed),
}

/// One spool, opened to submit, read, await and cancel tasks.
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
    /// Whether this process runs in a task, once it was determined.
    is_inside: OnceLock<bool>,
}

impl Client {
    /// Opens a spool.
    ///
    /// # Errors
    /// [`OpenError`]: there is no spool, it has another version, this user may not use it, or a setting is
    /// invalid.
    pub fn open(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = Spool::open(path, options.overrides.clone())?;
        Ok(Client::of(spool, options))
    }

    /// Opens a spool, or creates a private one if there is none.
    ///
    /// # Errors
    /// Those of [`Client::open`], or the spool cannot be created.
    pub fn open_or_make(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = match Spool::open(path, options.overrides.clone()) {
            Err(OpenError::Absent { .. }) => Spool::init(path, None, options.overrides.clone())?,
            opened => opened?,
        };
        Ok(Client::of(spool, options))
    }

    /// Creates a spool, private or for the users of a group, or repairs and converts an existing one.
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

    /// Opens a spool for methods that only read. The owner may read a group spool in which others can write;
    /// [`Client::open`] refuses it.
    ///
    /// # Errors
    /// Those of [`Client::open`].
    pub fn open_to_read(path: &Path, options: Options) -> Result<Client, OpenError> {
        let spool = Spool::open_to_read(path, options.overrides.clone())?;
        Ok(Client::of(spool, options))
    }

    /// Opens a spool for checks: nothing in it is repaired.
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

    /// The id that distinguishes this spool from its copies.
    pub fn uuid(&self) -> &str {
        self.spool.uuid()
    }

    /// Whether the users of a group can use the spool.
    pub fn is_group(&self) -> bool {
        self.spool.is_group()
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(super) fn spool_mut(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// The recipe path of this spool.
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

    /// The `PATH`s that decide whether a recipe can run: those of the running watchers, else the `PATH` of a
    /// watcher that this client would start. Empty if no `PATH` is known, and for users other than the owner,
    /// who must not run the owner's programs for the check: see
    /// [`Recipe::problems`](crate::recipe::Recipe::problems).
    pub(super) fn searches(&self) -> Vec<Search> {
        self.searches_or_own(self.autostart().is_some())
    }

    /// The `PATH`s to show a recipe with. If none is known, the caller's `PATH` is the best guess.
    pub(super) fn searches_to_show(&self) -> Vec<Search> {
        self.searches_or_own(true)
    }

    fn searches_or_own(&self, is_own_allowed: bool) -> Vec<Search> {
        // systemd sets another `PATH` for its units.
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

    /// The task in which the caller runs.
    pub(super) fn own_task(&self) -> Option<TaskId> {
        self.own_task
    }

    /// How to start a watcher, if this client may start one.
    pub(super) fn autostart(&self) -> Option<&Autostart> {
        let is_allowed =
            self.spool.settings().autostart && self.spool.is_owner() && !self.spool.is_group();
        self.autostart.as_ref().filter(|_| is_allowed)
    }

    /// Like [`Client::autostart`], but `None` in a task: a process started in a task ends with the task.
    pub(super) fn may_start(&self) -> Option<&Autostart> {
        let is_inside = || *self.is_inside.get_or_init(proc::is_below_a_runner);
        self.autostart().filter(|_| !is_inside())
    }
}
