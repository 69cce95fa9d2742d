//! The order in which one process takes locks.
//!
//! Not the locks themselves (`flock.rs`). Invariant: no thread takes a lock while it holds one of a later
//! level, so two processes never wait for each other. A debug build, which the tests use, panics if this is
//! violated.

use std::cell::RefCell;
use std::marker::PhantomData;

/// What a lock protects. Locks of earlier levels are taken first. Several locks of one level may be held at
/// once if no process waits for locks of that level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockLevel {
    /// The files of the root. Processes wait for it.
    Root,
    /// The right to start a watcher. Processes wait for it.
    Start,
    /// A watcher's file: held as long as the watcher is running.
    Watcher,
    /// The sweep of a spool: one at a time.
    Sweep,
    /// The claim on a drop.
    Claim,
    /// The session lock: the tasks of a session run one at a time.
    Session,
    /// A slot of a recipe or of the spool.
    Slot,
    /// A task.
    Task,
    /// The readers of a task, which keep it from being removed.
    Readers,
    /// The folder that the tasks of a session share.
    SessionState,
    /// The names of tasks. Processes wait for it.
    Names,
    /// A file whose name no other process knows, or that is locked only for a moment.
    Moment,
}

const LEVELS: usize = LockLevel::Moment as usize + 1;

thread_local! {
    /// The number of locks of each level that this thread holds.
    static HELD: RefCell<[usize; LEVELS]> = const { RefCell::new([0; LEVELS]) };
}

/// A lock that this thread holds. It must be dropped in the thread that took it.
#[derive(Debug)]
pub(super) struct Held {
    level: LockLevel,
    in_its_thread: PhantomData<*const ()>,
}

impl Held {
    pub fn new(level: LockLevel) -> Held {
        check(level);
        HELD.with_borrow_mut(|held| held[level as usize] += 1);
        let in_its_thread = PhantomData;
        Held {
            level,
            in_its_thread,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // This fails only if the thread is ending. It takes no more locks then.
        let _ = HELD.try_with(|held| held.borrow_mut()[self.level as usize] -= 1);
    }
}

/// Panics in a debug build if a lock of this level may not be taken now.
pub(super) fn check(level: LockLevel) {
    let later =
        HELD.with_borrow(|held| (level as usize + 1..LEVELS).find(|later| held[*later] > 0));
    debug_assert!(
        later.is_none(),
        "a lock of {level:?} is taken while a lock of {later:?} is held"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_lock_may_be_taken_after_later_ones_are_released() {
        let slot = Held::new(LockLevel::Slot);
        let (task, another) = (Held::new(LockLevel::Task), Held::new(LockLevel::Task));
        drop((task, another));
        drop(Held::new(LockLevel::Slot));
        drop(slot);
        drop(Held::new(LockLevel::Root));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a lock of Session is taken")]
    fn an_earlier_lock_may_not_be_taken_while_a_later_one_is_held() {
        let _task = Held::new(LockLevel::Task);
        drop(Held::new(LockLevel::Session));
    }
}
