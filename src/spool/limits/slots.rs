//! Slots: how many tasks run at once, in the spool and of one recipe.
//!
//! Not which task gets one (`ready/guards.rs`). Invariants: a slot is a locked file, so the kernel counts,
//! and a process that was killed holds no slot. The limit is never exceeded.

use crate::spool::disk::{Dir, Flock, IoResult, LockLevel};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::Name;

/// One of the slots of a concurrency limit, held while a task runs.
#[derive(Debug)]
pub struct Slot {
    _lock: Flock,
}

/// The number of slots beyond the limit that are held: by tasks that started before the limit was lowered.
fn held_beyond(slots: &Dir, prefix: &str, limit: u32) -> IoResult<u32> {
    let mut beyond = Vec::new();
    slots.each_name(|name, _| {
        let name = std::str::from_utf8(name).unwrap_or_default();
        let k = name
            .strip_prefix(prefix)
            .and_then(|k| k.parse::<u32>().ok());
        if k.is_some_and(|k| k >= limit) {
            beyond.push(name.to_owned());
        }
        true
    })?;
    let mut held = 0;
    for file in beyond {
        held += u32::from(slots.is_locked(slots.lock_file(&file)?, &file)?);
    }
    Ok(held)
}

impl Spool {
    /// Takes one of the first `limit` slots of the spool, or of a recipe; `None` if all are taken. The kernel
    /// counts, so the limit also holds with several watchers, and after one was killed.
    pub fn take_slot(&self, recipe: Option<&Name>, limit: u32) -> IoResult<Option<Slot>> {
        let slots = self.folder(name::SLOTS)?;
        let prefix = recipe.map_or(String::new(), |recipe| format!("recipe.{recipe}."));
        let beyond = held_beyond(&slots, &prefix, limit)?;
        let own = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let mut taken = None;
        let mut held = beyond;
        for k in 0..limit {
            // Runners start at different slots, so that they rarely try the same one.
            let k = (k + own) % limit;
            let file = format!("{prefix}{k}");
            match slots.try_lock(LockLevel::Slot, &file)? {
                Some(lock) if beyond == 0 => return Ok(Some(Slot { _lock: lock })),
                Some(lock) => taken = taken.or(Some(Slot { _lock: lock })),
                None => held += 1,
            }
        }
        // Two runners that come here at the same time may both get no slot. The limit is never exceeded.
        Ok(taken.filter(|_| held < limit))
    }
}
