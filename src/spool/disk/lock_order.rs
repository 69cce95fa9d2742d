//! The order in which one process takes locks.
//!
//! Not the locks themselves (`flock.rs`). Invariant: no thread takes a lock while it holds one of a later level, so no
//! two processes wait for each other. A debug build, which the tests run, ends where that is not so.

use std::cell::RefCell;
use std::marker::PhantomData;

/// What a lock protects. Earlier ones are taken first; several of one level may be held at once, because these are
/// never waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockLevel {
    /// The files of the root. Waited for.
    Root,
    /// The right to start a watcher. Waited for.
    Start,
    /// A watcher's file: held as long as it lives.
    Watcher,
    /// The one sweep of a spool.
    Sweep,
    /// The claim on a drop.
    Claim,
    /// The turn of a session.
    Session,
    /// A slot of a recipe or of the spool.
    Slot,
    /// A task.
    Task,
    /// The readers of a task that is to be removed.
    Readers,
    /// The folder that the tasks of a session share.
    SessionState,
    /// The names of tasks. Waited for.
    Names,
    /// A file that nobody else has a name for, or that only this moment needs.
    Moment,
}

const LEVELS: usize = LockLevel::Moment as usize + 1;

thread_local! {
    /// How many locks of each level this thread holds.
    static HELD: RefCell<[usize; LEVELS]> = const { RefCell::new([0; LEVELS]) };
}

/// One lock that this thread holds. It stays in the thread that took it.
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
        // Where the thread itself is ending, nobody takes a lock any more.
        let _ = HELD.try_with(|held| held.borrow_mut()[self.level as usize] -= 1);
    }
}

/// Whether a lock of this level may be taken now.
pub(super) fn check(level: LockLevel) {
    let later =
        HELD.with_borrow(|held| (level as usize + 1..LEVELS).find(|later| held[*later] > 0));
    debug_assert!(
        later.is_none(),
        "a lock of {level:?} is taken while one of level {later:?} is held"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_lock_is_taken_again_once_the_later_ones_are_gone() {
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
    fn an_earlier_lock_is_not_taken_under_a_later_one() {
        let _task = Held::new(LockLevel::Task);
        drop(Held::new(LockLevel::Session));
    }
}
