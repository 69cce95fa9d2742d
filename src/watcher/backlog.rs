//! Which task is offered next: a guess at a good order, and when to try again.
//!
//! A pure structure: no clock, no disk. It decides nothing that counts, because every offer is
//! checked by the runner under locks; what it forgets, the next scan puts back. Invariant: an id is
//! in exactly one place, and no id waits without a moment or an event that ends its waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::task::{Answer, Blocker, Holder, Name, TaskId, When};

/// A task that is held just now is offered again after this, doubling up to a second: its submitter
/// shows it before its last fsync and lets it go after that, which without fsyncs is a matter of
/// microseconds. DESIGN.md section 4 begins with 10 ms, and that was most of the time from a
/// submission to its first instruction.
const HELD_RETRY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_secs(1));
/// The same where no slot was free, which mostly an answer ends.
const SLOT_RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A group that waits is mostly woken by an answer; this is for what other watchers finish.
const GROUP_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What several tasks wait for together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Group {
    Session(Name),
    Recipe(Name),
}

#[derive(Debug)]
struct Waiting {
    ids: BTreeSet<TaskId>,
    retry_at: Instant,
    pause: Duration,
}

/// Where an id is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Hurried,
    Offered,
    Delayed(Instant),
    Group(Group),
    /// Another process has it: until the next scan.
    Elsewhere,
    /// A person must mend its files: until the next scan.
    Broken,
}

/// The tasks a watcher knows to be open.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    places: BTreeMap<TaskId, Place>,
    ready: BTreeSet<TaskId>,
    hurried: VecDeque<TaskId>,
    delayed: BTreeSet<(Instant, TaskId)>,
    groups: HashMap<Group, Waiting>,
    /// How long an id waited last, so that it waits longer the next time.
    pauses: HashMap<TaskId, Duration>,
    /// Tasks that a person must mend, as far as a runner last saw: offered again at every scan, but
    /// no work for which a watcher would have to stay.
    broken: BTreeSet<TaskId>,
    elsewhere: usize,
    /// No slot was free: nothing is offered before this.
    paused: Option<(Instant, Duration)>,
}

impl Backlog {
    /// Takes in tasks that were found.
    pub fn add(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        for id in ids {
            if let std::collections::btree_map::Entry::Vacant(e) = self.places.entry(id) {
                e.insert(Place::Ready);
                self.ready.insert(id);
            }
        }
    }

    /// Takes a scan for the truth: `open` (sorted) is all there is, and what lay aside is looked at
    /// again.
    pub fn reset(&mut self, open: &[TaskId]) {
        let gone: Vec<TaskId> = self
            .places
            .iter()
            .filter(|(id, place)| **place != Place::Offered && open.binary_search(id).is_err())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.forget(id);
            self.pauses.remove(&id);
            self.broken.remove(&id);
        }
        let aside: Vec<TaskId> = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place, Place::Elsewhere | Place::Broken))
            .map(|(id, _)| *id)
            .collect();
        for id in aside {
            self.forget(id);
        }
        self.add(open.iter().copied());
    }

    /// The next task to offer.
    pub fn next(&mut self, now: Instant) -> Option<TaskId> {
        if let Some(id) = self.next_hurried() {
            return Some(id);
        }
        // Also during a pause: what stays due would wake the watcher again and again.
        self.release_due(now);
        if self.paused.is_some_and(|(until, _)| now < until) {
            return None;
        }
        let id = self.ready.pop_first()?;
        self.places.insert(id, Place::Offered);
        Some(id)
    }

    /// The next task that needs no slot.
    pub fn next_hurried(&mut self) -> Option<TaskId> {
        let id = self.hurried.pop_front()?;
        self.places.insert(id, Place::Offered);
        Some(id)
    }

    /// Whether a task waits that needs no slot.
    pub fn has_hurried(&self) -> bool {
        !self.hurried.is_empty()
    }

    /// Puts a task before all others: it is to be cancelled, which needs neither slot nor turn.
    pub fn hurry(&mut self, id: TaskId) {
        if matches!(
            self.places.get(&id),
            None | Some(Place::Offered | Place::Hurried)
        ) {
            return;
        }
        self.forget(id);
        self.places.insert(id, Place::Hurried);
        self.hurried.push_back(id);
    }

    /// Takes in what a runner said of an id.
    pub fn answered(&mut self, id: TaskId, answer: Answer, now: Instant) {
        if answer.is_for_a_person() {
            self.broken.insert(id);
        } else {
            self.broken.remove(&id);
        }
        match answer {
            Answer::Finished(session) => {
                self.forget(id);
                self.pauses.remove(&id);
                self.paused = None;
                if let Some(session) = session {
                    self.release_group(&Group::Session(session), now);
                }
                let recipes: Vec<Group> = self
                    .groups
                    .keys()
                    .filter(|g| matches!(g, Group::Recipe(_)))
                    .cloned()
                    .collect();
                for group in recipes {
                    self.release_group(&group, now);
                }
            }
            Answer::Held(Holder::Runner) | Answer::Retry(When::AtScan, _) => {
                self.place(id, Place::Elsewhere);
            }
            Answer::Blocked(Blocker::Files) => self.place(id, Place::Broken),
            Answer::Held(Holder::Submitter) | Answer::Retry(When::Soon, _) => {
                let pause = self.longer_pause(id, HELD_RETRY);
                self.place(id, Place::Delayed(now + pause));
            }
            Answer::Blocked(Blocker::Slot) => {
                self.place(id, Place::Ready);
                let pause = self
                    .paused
                    .map_or(SLOT_RETRY.0, |(_, pause)| (pause * 2).min(SLOT_RETRY.1));
                self.paused = Some((now + pause, pause));
            }
            Answer::Blocked(Blocker::RecipeSlot(recipe)) => {
                self.wait_in(id, Group::Recipe(recipe), now);
            }
            Answer::Blocked(Blocker::Session(session)) => {
                self.wait_in(id, Group::Session(session), now);
            }
        }
    }

    /// When something must be offered although nothing was heard. Of use only to whoever could
    /// offer it then: what is due stays due until [`Backlog::next`] is asked.
    pub fn wake_at(&self) -> Option<Instant> {
        let paused = self
            .paused
            .filter(|_| !self.ready.is_empty())
            .map(|(until, _)| until);
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let groups = self.groups.values().map(|waiting| waiting.retry_at).min();
        [paused, delayed, groups].into_iter().flatten().min()
    }

    /// Tasks that are neither with a runner nor elsewhere, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.places
            .iter()
            .filter(|(_, place)| {
                !matches!(place, Place::Offered | Place::Elsewhere | Place::Broken)
            })
            .map(|(id, _)| *id)
    }

    /// How many tasks are known to be open.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many of them another process has, as far as the last offer showed.
    pub fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    /// Whether nothing is known to be open, but what a person must mend.
    pub fn is_empty(&self) -> bool {
        self.places.keys().all(|id| self.broken.contains(id))
    }

    /// Whether a task waits for a person.
    pub fn is_broken(&self, id: TaskId) -> bool {
        self.broken.contains(&id)
    }

    fn longer_pause(&mut self, id: TaskId, (least, most): (Duration, Duration)) -> Duration {
        let pause = self
            .pauses
            .get(&id)
            .map_or(least, |last| (*last * 2).clamp(least, most));
        self.pauses.insert(id, pause);
        pause
    }

    fn wait_in(&mut self, id: TaskId, group: Group, now: Instant) {
        self.place(id, Place::Group(group.clone()));
        let pause = self.longer_pause(id, GROUP_RETRY);
        let waiting = self.groups.entry(group).or_insert_with(|| Waiting {
            ids: BTreeSet::new(),
            retry_at: now + pause,
            pause,
        });
        waiting.ids.insert(id);
    }

    /// Offers what is due: delayed tasks, and the oldest of each group that has waited.
    fn release_due(&mut self, now: Instant) {
        while let Some((at, id)) = self.delayed.first().copied()
            && at <= now
        {
            self.place(id, Place::Ready);
        }
        let due: Vec<Group> = self
            .groups
            .iter()
            .filter(|(_, waiting)| waiting.retry_at <= now)
            .map(|(group, _)| group.clone())
            .collect();
        for group in due {
            self.release_group(&group, now);
        }
    }

    /// Makes the oldest of a group ready; the rest go on waiting, a little longer each time.
    fn release_group(&mut self, group: &Group, now: Instant) {
        let Some(waiting) = self.groups.get_mut(group) else {
            return;
        };
        let oldest = waiting.ids.pop_first();
        waiting.pause = (waiting.pause * 2).min(GROUP_RETRY.1);
        waiting.retry_at = now + waiting.pause;
        if waiting.ids.is_empty() {
            self.groups.remove(group);
        }
        if let Some(id) = oldest {
            self.place(id, Place::Ready);
        }
    }

    fn place(&mut self, id: TaskId, place: Place) {
        self.forget(id);
        match &place {
            Place::Ready => {
                self.ready.insert(id);
            }
            Place::Delayed(at) => {
                self.delayed.insert((*at, id));
            }
            Place::Elsewhere => self.elsewhere += 1,
            Place::Hurried | Place::Offered | Place::Group(_) | Place::Broken => {}
        }
        self.places.insert(id, place);
    }

    fn forget(&mut self, id: TaskId) {
        match self.places.remove(&id) {
            Some(Place::Ready) => {
                self.ready.remove(&id);
            }
            Some(Place::Hurried) => self.hurried.retain(|other| *other != id),
            Some(Place::Delayed(at)) => {
                self.delayed.remove(&(at, id));
            }
            Some(Place::Group(group)) => {
                if let Some(waiting) = self.groups.get_mut(&group) {
                    waiting.ids.remove(&id);
                    if waiting.ids.is_empty() {
                        self.groups.remove(&group);
                    }
                }
            }
            Some(Place::Elsewhere) => self.elsewhere -= 1,
            Some(Place::Offered | Place::Broken) | None => {}
        }
    }
}

// Named by its path, because benches/pure.rs takes this file in as well.
#[cfg(test)]
#[path = "backlog_model.rs"]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> TaskId {
        TaskId::from_parts(n, 0)
    }

    fn backlog(ids: impl IntoIterator<Item = u64>) -> (Backlog, Instant) {
        let mut backlog = Backlog::default();
        backlog.add(ids.into_iter().map(id));
        (backlog, Instant::now())
    }

    #[test]
    fn oldest_first_and_each_once() {
        let (mut backlog, now) = backlog([3, 1, 2, 1]);
        let offered: Vec<_> = std::iter::from_fn(|| backlog.next(now)).collect();
        assert_eq!(offered, [id(1), id(2), id(3)]);
        backlog.add([id(1)]);
        assert_eq!(
            backlog.next(now),
            None,
            "an offered task is not offered again"
        );
        for n in 1..=3 {
            backlog.answered(id(n), Answer::Finished(None), now);
        }
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_task_whose_submitter_is_at_it_is_tried_again_ever_more_slowly() {
        let (mut backlog, mut now) = backlog([1]);
        let mut pauses = Vec::new();
        for _ in 0..15 {
            assert_eq!(backlog.next(now), Some(id(1)));
            // A watcher's runner answers while the id is marked as offered.
            backlog.answered(id(1), Answer::Held(Holder::Submitter), now);
            let at = backlog.wake_at().unwrap();
            assert_eq!(backlog.next(now), None);
            pauses.push((at - now).as_micros());
            now = at;
        }
        assert_eq!(pauses[0], 500);
        assert!(
            pauses.is_sorted() && *pauses.last().unwrap() == 1_000_000,
            "{pauses:?}"
        );
    }

    #[test]
    fn no_slot_stops_all_offers_until_something_finishes() {
        let (mut backlog, now) = backlog([1, 2]);
        backlog.next(now);
        backlog.answered(id(1), Answer::Blocked(Blocker::Slot), now);
        assert_eq!(backlog.next(now), None);
        assert!(backlog.wake_at().unwrap() > now);
        backlog.answered(id(9), Answer::Finished(None), now);
        assert_eq!(backlog.next(now), Some(id(1)));
    }

    #[test]
    fn a_pause_is_not_disturbed_by_what_becomes_due_in_it() {
        let (mut backlog, now) = backlog([1, 2, 3]);
        while backlog.next(now).is_some() {}
        let chat: Name = "chat".parse().unwrap();
        backlog.answered(id(1), Answer::Blocked(Blocker::Session(chat)), now);
        backlog.answered(id(2), Answer::Held(Holder::Submitter), now);
        let mut now = now + Duration::from_millis(60);
        for _ in 0..20 {
            // The pause doubles; at its end one task is offered and refused again.
            backlog.answered(id(3), Answer::Blocked(Blocker::Slot), now);
            assert_eq!(backlog.next(now), None);
            let wake_at = backlog.wake_at().unwrap();
            assert!(wake_at > now, "a watcher would spin");
            now = wake_at;
            if let Some(offered) = backlog.next(now) {
                backlog.answered(offered, Answer::Blocked(Blocker::Slot), now);
            }
            assert!(backlog.wake_at().unwrap() > now, "a watcher would spin");
        }
    }

    #[test]
    fn a_session_is_woken_by_its_own_end_and_only_its_oldest_goes() {
        let (mut backlog, now) = backlog([1, 2, 3, 4]);
        let chat: Name = "chat".parse().unwrap();
        for n in 1..=4 {
            assert_eq!(backlog.next(now), Some(id(n)));
        }
        for n in 2..=4 {
            backlog.answered(id(n), Answer::Blocked(Blocker::Session(chat.clone())), now);
        }
        assert_eq!(backlog.next(now), None);
        backlog.answered(id(1), Answer::Finished(Some(chat)), now);
        assert_eq!(backlog.next(now), Some(id(2)));
        assert_eq!(backlog.next(now), None);
        assert!(
            backlog.wake_at().is_some(),
            "the rest must not wait for ever"
        );
    }

    #[test]
    fn a_scan_brings_back_what_lay_aside_and_drops_what_is_gone() {
        let (mut backlog, now) = backlog([1, 2, 3]);
        for n in 1..=3 {
            backlog.next(now);
            let _ = n;
        }
        backlog.answered(id(1), Answer::Held(Holder::Runner), now);
        backlog.answered(id(2), Answer::Blocked(Blocker::Files), now);
        assert_eq!(backlog.next(now), None);
        assert_eq!((backlog.len(), backlog.elsewhere()), (3, 1));
        backlog.reset(&[id(2), id(3), id(4)]);
        assert_eq!((backlog.len(), backlog.elsewhere()), (3, 0));
        assert_eq!(backlog.next(now), Some(id(2)));
        assert_eq!(backlog.next(now), Some(id(4)));
        assert_eq!(
            backlog.next(now),
            None,
            "3 is still with its runner, 1 is gone"
        );
    }

    #[test]
    fn a_broken_task_is_offered_again_and_keeps_nobody() {
        let (mut backlog, now) = backlog([1]);
        backlog.next(now);
        assert!(!backlog.is_empty());
        for _ in 0..2 {
            backlog.answered(id(1), Answer::Blocked(Blocker::Files), now);
            assert!(backlog.is_empty() && backlog.is_broken(id(1)));
            backlog.reset(&[id(1)]);
            assert_eq!(backlog.next(now), Some(id(1)));
            assert!(backlog.is_empty(), "still broken, as far as is known");
        }
        backlog.answered(id(1), Answer::Held(Holder::Runner), now);
        assert!(!backlog.is_empty(), "somebody mended it");
    }

    #[test]
    fn a_cancelled_task_overtakes_even_a_pause() {
        let (mut backlog, now) = backlog([1, 2, 3]);
        backlog.next(now);
        backlog.answered(id(1), Answer::Blocked(Blocker::Slot), now);
        backlog.hurry(id(3));
        backlog.hurry(id(3));
        assert_eq!(backlog.next(now), Some(id(3)));
        assert_eq!(backlog.next(now), None);
    }
}
