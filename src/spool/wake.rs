//! Being told that something happened: notify's inotify behind one readable file descriptor.
//!
//! Every event only says "look again". What is remembered of it is a guess that saves a scan; an
//! overflow, a lost watch or no inotify at all costs time, not tasks, because whoever waits here
//! also looks again by the clock. Invariant: what is kept between two looks is bounded.

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

/// More ids than this between two looks are not remembered: a scan finds them.
const REMEMBERED: usize = 16_384;

/// What happened since the last look, as far as it was noticed.
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
    /// A hint left `open/`: some task finished.
    pub finished: bool,
    /// The root was moved, or something left it.
    pub root: bool,
    /// Some watcher left or died.
    pub watcher_left: bool,
}

/// The ears. Without inotify they are deaf, and [`Wake::is_deaf`] says why.
#[derive(Debug)]
pub struct Wake {
    bell: Arc<OwnedFd>,
    seen: Arc<Mutex<Seen>>,
    watcher: Option<RecommendedWatcher>,
    deaf: Option<notify::Error>,
    tasks: PathBuf,
    /// What is listened to, and which folder that was.
    folders: Vec<(PathBuf, Option<Which>)>,
}

fn which_at(path: &Path) -> Option<Which> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(which(&stat))
}

/// notify does not notice when the thread it needs cannot be started, and panics at its first watch;
/// so whether there is room for one is tried first.
fn room_for_a_thread() -> notify::Result<()> {
    let tried = std::thread::Builder::new().spawn(|| {});
    // It does nothing, so joining it says nothing.
    let _ = tried.map_err(notify::Error::io)?.join();
    Ok(())
}

/// Too many instances of inotify or files, or too many watches; not a folder that may not be read.
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
    /// Listens to the folders a watcher cares for. Call it *before* the first scan: what happens
    /// after this is noticed, what happened before is scanned.
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
            // Before they are listened to: one that is replaced in between shows as astray.
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

    /// Why nothing will be heard, if so: then only looking by the clock works.
    pub fn is_deaf(&self) -> Option<String> {
        self.deaf.as_ref().map(ToString::to_string)
    }

    /// Whether that is for a limit of inotify, which the administrator may raise.
    pub fn lacks_inotify(&self) -> bool {
        self.deaf.as_ref().is_some_and(is_limit_of_inotify)
    }

    /// Whether something is not heard that could be: nothing at all, or what happens in a folder that
    /// was replaced, unmounted or mounted over, which no event tells (SPOOL-SAFETY hazard 33). Then a
    /// new one should take this one's place.
    pub fn is_astray(&self) -> bool {
        let is_another = |(path, folder): &(PathBuf, _)| which_at(path) != *folder;
        self.deaf.is_some() || self.folders.iter().any(is_another)
    }

    /// Listens to a running task's folder for its cancellation marker. The caller looks once
    /// itself afterwards.
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
            // Fails when the folder is gone, and its watch with it.
            let _ = watcher.unwatch(&path);
        }
    }

    fn task_path(&self, id: TaskId) -> PathBuf {
        self.tasks.join(id.to_string())
    }

    /// What happened since the last call; silences the bell.
    pub fn take(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        std::mem::take(&mut *seen)
    }

    /// Waits until something happens, `other` becomes readable, or the time is over.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Duration) {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // Longer than the kernel can count is for ever.
        let timeout = Timespec::try_from(timeout).ok();
        // Interrupted or failed: the caller looks again either way.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// What is listened to: names that come and go, and writers that close. Neither opening a file nor
/// each single write says anything, and both come by the thousand while tasks run.
fn config() -> Config {
    Config::default().with_event_kinds(
        EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::ACCESS_CLOSE,
    )
}

/// The folders whose events mean something.
struct Places {
    root: PathBuf,
    incoming: PathBuf,
    tasks: PathBuf,
    open: PathBuf,
    names: PathBuf,
    watchers: PathBuf,
}

/// Notes an event; `true` when somebody should look.
fn note(seen: &mut Seen, event: notify::Result<Event>, places: &Places) -> bool {
    let event = match event {
        Ok(event) if !event.need_rescan() => event,
        // Queue overflow carries no path at all (SPOOL-SAFETY hazard 29).
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

/// The same for one path of it.
fn note_path(seen: &mut Seen, kind: EventKind, path: &Path, places: &Places) -> bool {
    let is_in = |folder: &PathBuf| path.parent() == Some(folder.as_path());
    if is_in(&places.incoming) {
        // What is being written there under a hidden name is nobody's drop yet.
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
        // The kernel closes the file of a watcher that dies.
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

/// A task appeared, or went.
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

/// Whether a cancellation marker was made.
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
    fn only_a_limit_is_taken_for_one() {
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
