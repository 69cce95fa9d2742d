//! Notice that something happened: notify's inotify behind one readable file descriptor.
//!
//! An event only means "check again". What is remembered of an event is a guess that saves a scan. An
//! overflow, a lost watch or missing inotify costs time, but no task is lost, because every caller also
//! checks at regular intervals. Invariant: what is kept between two checks is bounded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::disk::{IoError, IoResult, Which, which};
use super::layout::name;
use super::open::Spool;
use crate::task::TaskId;

/// The most ids that are remembered between two checks. A scan finds the others.
const REMEMBERED: usize = 16_384;

/// What happened since the last check, as far as it was noticed.
#[derive(Debug, Default)]
pub struct Seen {
    /// Something changed in `incoming/`.
    pub incoming: bool,
    /// Events were lost or not understood: scan everything.
    pub rescan: bool,
    /// Tasks that appeared in `tasks/`.
    pub published: Vec<TaskId>,
    /// Tasks whose cancellation marker appeared.
    pub cancelled: Vec<TaskId>,
    /// An index entry was removed from `open/`: a task finished.
    pub finished: bool,
    /// The root was moved, or something was removed from it.
    pub root: bool,
    /// A watcher exited or was killed.
    pub watcher_left: bool,
}

/// Listens for changes. Without inotify it notices nothing, and [`Wake::is_deaf`] gives the reason.
#[derive(Debug)]
pub struct Wake {
    bell: Arc<OwnedFd>,
    seen: Arc<Mutex<Seen>>,
    watcher: Option<RecommendedWatcher>,
    deaf: Option<notify::Error>,
    tasks: PathBuf,
    /// The paths that are listened to, and which folders they were.
    folders: Vec<(PathBuf, Option<Which>)>,
}

fn which_at(path: &Path) -> Option<Which> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(which(&stat))
}

/// notify does not report when the thread it needs cannot be started, and panics at its first watch. So
/// starting a thread is tried first.
fn room_for_a_thread() -> notify::Result<()> {
    let tried = std::thread::Builder::new().spawn(|| {});
    // The thread does nothing, so the result of `join` is not needed.
    let _ = tried.map_err(notify::Error::io)?.join();
    Ok(())
}

/// Whether too many inotify instances, files or watches are in use. A folder that may not be read is not a
/// limit.
fn is_limit_of_inotify(error: &notify::Error) -> bool {
    use rustix::io::Errno;
    let limits = [Errno::MFILE, Errno::NFILE, Errno::NOSPC].map(Errno::raw_os_error);
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => error.raw_os_error().is_some_and(|it| limits.contains(&it)),
        _ => false,
    }
}

impl Wake {
    /// Listens to the folders a watcher needs. Call it *before* the first scan: changes after the call are
    /// noticed, and the scan finds earlier ones.
    pub fn for_watcher(spool: &Spool) -> IoResult<Wake> {
        let root = spool.path();
        let folders = [name::INCOMING, name::TASKS, name::WATCHERS].map(|it| root.join(it));
        Wake::new(spool, &[&folders[..], &[root.to_owned()]].concat())
    }

    /// Listens for tasks that finish, and for drops that become tasks.
    pub fn for_waiting(spool: &Spool) -> IoResult<Wake> {
        let root = spool.path();
        Wake::new(spool, &[root.join(name::OPEN), root.join(name::NAMES)])
    }

    fn new(spool: &Spool, folders: &[PathBuf]) -> IoResult<Wake> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tasks = spool.path().join(name::TASKS);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| IoError::new("listen to", spool.path(), errno))?;
        let mut wake = Wake {
            bell: Arc::new(bell),
            seen: Arc::clone(&seen),
            watcher: None,
            deaf: None,
            tasks: tasks.clone(),
            // Recorded before they are listened to, so `is_astray` finds a folder that is replaced at that
            // moment.
            folders: folders
                .iter()
                .map(|path| (path.clone(), which_at(path)))
                .collect(),
        };
        let bell = Arc::clone(&wake.bell);
        let places = Places {
            incoming: spool.path().join(name::INCOMING),
            open: spool.path().join(name::OPEN),
            names: spool.path().join(name::NAMES),
            watchers: spool.path().join(name::WATCHERS),
            root: spool.path().to_owned(),
            tasks,
        };
        let handler = move |event: notify::Result<Event>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if note(&mut seen, event, &places) {
                let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
            }
        };
        let armed = room_for_a_thread().and_then(|()| {
            let mut watcher = RecommendedWatcher::new(handler, config())?;
            for (folder, _) in &wake.folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match armed {
            Ok(watcher) => wake.watcher = Some(watcher),
            Err(error) => wake.deaf = Some(error),
        }
        Ok(wake)
    }

    /// Why nothing will be noticed, if so. Then only checks at regular intervals work.
    pub fn is_deaf(&self) -> Option<String> {
        self.deaf.as_ref().map(ToString::to_string)
    }

    /// Whether a limit of inotify is the reason. The administrator may raise it.
    pub fn lacks_inotify(&self) -> bool {
        self.deaf.as_ref().is_some_and(is_limit_of_inotify)
    }

    /// Whether changes are missed: all of them, or those in a folder that was replaced, unmounted or mounted
    /// over. No event reports that (docs/hazards.md, 33). The caller should then create a new `Wake`.
    pub fn is_astray(&self) -> bool {
        let is_another = |(path, folder): &(PathBuf, _)| which_at(path) != *folder;
        self.deaf.is_some() || self.folders.iter().any(is_another)
    }

    /// Listens to a running task's folder for its cancellation marker. The caller then checks once for a
    /// marker that was there before.
    pub fn watch_task(&mut self, id: TaskId) -> bool {
        let path = self.task_path(id);
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        watcher.watch(&path, RecursiveMode::NonRecursive).is_ok()
    }

    /// Stops listening to a task's folder.
    pub fn unwatch_task(&mut self, id: TaskId) {
        let path = self.task_path(id);
        if let Some(watcher) = &mut self.watcher {
            // It fails if the folder is gone. Then its watch is gone too.
            let _ = watcher.unwatch(&path);
        }
    }

    fn task_path(&self, id: TaskId) -> PathBuf {
        self.tasks.join(id.to_string())
    }

    /// What happened since the last call. The file descriptor is not readable any more afterwards.
    pub fn take(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        std::mem::take(&mut *seen)
    }

    /// Waits until something happens, `other` becomes readable, or the timeout has passed.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Duration) {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A timeout that is too long for the kernel means no timeout.
        let timeout = Timespec::try_from(timeout).ok();
        // If it was interrupted or failed, the caller checks again too.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Listens to names that are added and removed, and to writers that close. Not to files that are opened, nor
/// to single writes: running tasks cause thousands of them.
fn config() -> Config {
    Config::default().with_event_kinds(
        EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::ACCESS_CLOSE,
    )
}

/// The folders whose events are used.
struct Places {
    root: PathBuf,
    incoming: PathBuf,
    tasks: PathBuf,
    open: PathBuf,
    names: PathBuf,
    watchers: PathBuf,
}

/// Records an event; `true` if the caller should check.
fn note(seen: &mut Seen, event: notify::Result<Event>, places: &Places) -> bool {
    let event = match event {
        Ok(event) if !event.need_rescan() => event,
        // A queue overflow has no path (docs/hazards.md, 29).
        _ => {
            seen.rescan = true;
            return true;
        }
    };
    let mut wake = false;
    for path in &event.paths {
        wake |= note_path(seen, event.kind, path, places);
    }
    wake
}

/// Records one path of an event; `true` if the caller should check.
fn note_path(seen: &mut Seen, kind: EventKind, path: &Path, places: &Places) -> bool {
    let is_in = |folder: &PathBuf| path.parent() == Some(folder.as_path());
    if is_in(&places.incoming) {
        // A file with a hidden name is still being written. It is not a drop yet.
        let name = path.file_name().unwrap_or_default();
        let is_drop = !name.as_encoded_bytes().starts_with(b".");
        seen.incoming |= is_drop;
        is_drop
    } else if path == places.incoming || path == places.tasks {
        // The folder itself was moved or removed.
        let has_gone = matches!(
            kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        seen.rescan |= has_gone;
        seen.root |= has_gone;
        has_gone
    } else if path == places.root || is_in(&places.root) {
        let is_pause = path.file_name().is_some_and(|file| file == name::PAUSED);
        let has_gone = match kind {
            EventKind::Remove(_) => true,
            EventKind::Modify(ModifyKind::Name(_)) => path == places.root,
            _ => false,
        };
        seen.root |= has_gone;
        has_gone || is_pause
    } else if is_in(&places.tasks) {
        note_in_tasks(seen, kind, path)
    } else if is_in(&places.watchers) {
        // The kernel closes the file of a watcher that is killed.
        let has_left = kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        seen.watcher_left |= has_left;
        has_left
    } else if is_in(&places.open) {
        let is_finished = matches!(kind, EventKind::Remove(_));
        seen.finished |= is_finished;
        is_finished
    } else if is_marker(kind, path) {
        let task = path.parent().and_then(|task| task.file_name()?.to_str());
        let task = task.and_then(|id| id.parse::<TaskId>().ok());
        seen.cancelled.extend(task);
        true
    } else {
        is_in(&places.names)
    }
}

/// Records a task that appeared; `true` if the caller should check.
fn note_in_tasks(seen: &mut Seen, kind: EventKind, path: &Path) -> bool {
    let has_appeared = matches!(
        kind,
        EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    );
    if !has_appeared {
        return false;
    }
    if seen.published.len() >= REMEMBERED {
        seen.rescan = true;
        return false;
    }
    let id = path.file_name().and_then(|name| name.to_str());
    let id = id.and_then(|id| id.parse::<TaskId>().ok());
    seen.published.extend(id);
    true
}

/// Whether a cancellation marker was created.
fn is_marker(kind: EventKind, path: &Path) -> bool {
    matches!(
        kind,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_))
    ) && path.file_name().is_some_and(|file| file == name::CANCEL)
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::is_limit_of_inotify;

    #[test]
    fn only_limits_of_inotify_are_recognized() {
        let of = |errno: Errno| notify::Error::io(io::Error::from(errno));
        for limit in [of(Errno::MFILE), of(Errno::NOSPC)] {
            assert!(is_limit_of_inotify(&limit), "{limit}");
        }
        assert!(is_limit_of_inotify(&notify::Error::new(
            notify::ErrorKind::MaxFilesWatch
        )));
        for other in [
            of(Errno::ACCESS),
            of(Errno::NOENT),
            notify::Error::path_not_found(),
        ] {
            assert!(!is_limit_of_inotify(&other), "{other}");
        }
    }
}
