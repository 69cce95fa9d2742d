//! Chooses the task that is offered next, and when to try a task again.
//!
//! Has no clock and does not use the disk. It decides nothing that matters for correctness: a runner
//! checks every offer under locks, and the next scan restores what is lost here. Invariant: an id is in
//! exactly one place, and no id waits without a time or an event that ends its wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::task::{Answer, Blocker, Holder, Name, TaskId, When, task_of_session};

/// The pause before a held task is offered again; it doubles up to a second. A submitter publishes a task
/// before its last fsync and releases it after that, which without fsyncs takes microseconds. With a
/// first pause of 10 ms, this was most of the time from a submission to its first instruction.
const HELD_RETRY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_secs(1));
/// The pause when no slot was free. Usually an answer ends it earlier.
const SLOT_RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The pause of a waiting group. Usually an answer ends it earlier; the pause is for tasks that other
/// watchers finish.
const GROUP_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What several tasks wait for together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    Session(Name),
    Recipe(Name),
}

impl Group {
    /// The task for which a session was created. It comes before all others of the session, whatever its id
    /// is.
    fn first(&self) -> Option<TaskId> {
        match self {
            Group::Session(session) => task_of_session(session),
            Group::Recipe(_) => None,
        }
    }
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
    /// Another process holds it: until the next scan.
    Elsewhere,
    /// A person must fix its files: until the next scan.
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
    /// Tasks that a group released and that were not answered since. A task that does not take what it was
    /// released for passes the release on. Otherwise the next task of the group would wait for the pause.
    released: HashMap<TaskId, Group>,
    /// How long an id waited last, so that its next wait is longer.
    pauses: HashMap<TaskId, Duration>,
    /// Tasks that a person must fix, according to the last answer. They are offered again at every scan,
    /// but do not keep a watcher running.
    broken: BTreeSet<TaskId>,
    elsewhere: usize,
    /// No slot was free: nothing is offered before this.
    paused: Option<(Instant, Duration)>,
}

impl Backlog {
    /// Adds tasks that were found.
    pub fn add(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        for id in ids {
            if let std::collections::btree_map::Entry::Vacant(e) = self.places.entry(id) {
                e.insert(Place::Ready);
                self.ready.insert(id);
            }
        }
    }

    /// Makes the backlog equal to a scan: `open` (sorted) is every open task. Tasks that were set aside
    /// are offered again.
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
            self.released.remove(&id);
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
        // During a pause too: a time that has passed would wake the watcher again and again.
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

    /// Whether a task that needs no slot is waiting.
    pub fn has_hurried(&self) -> bool {
        !self.hurried.is_empty()
    }

    /// Puts a task before all others. It is to be cancelled, which needs neither a slot nor the session
    /// lock.
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

    /// Records a runner's answer about an id.
    pub fn answered(&mut self, id: TaskId, answer: Answer, now: Instant) {
        if answer.is_for_a_person() {
            self.broken.insert(id);
        } else {
            self.broken.remove(&id);
        }
        // Without a slot the task is offered again, and keeps the release.
        let passed_on = match answer {
            Answer::Blocked(Blocker::Slot) => None,
            _ => self.released.remove(&id),
        };
        match answer {
            Answer::Finished(session) => {
                self.forget(id);
                self.pauses.remove(&id);
                self.paused = None;
                let session = session.map(Group::Session);
                let recipes = self.groups.keys().filter(|g| matches!(g, Group::Recipe(_)));
                let freed: BTreeSet<Group> =
                    recipes.cloned().chain(session).chain(passed_on).collect();
                for group in freed {
                    self.release_group(&group, now);
                }
                return;
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
        if let Some(group) = passed_on
            && self.places.get(&id) != Some(&Place::Group(group.clone()))
        {
            self.release_group(&group, now);
        }
    }

    /// When something must be offered although nothing happened. Only for a caller that can offer then: a
    /// time that has passed remains until [`Backlog::next`] is called.
    pub fn wake_at(&self) -> Option<Instant> {
        let paused = self
            .paused
            .filter(|_| !self.ready.is_empty())
            .map(|(until, _)| until);
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let groups = self.groups.values().map(|waiting| waiting.retry_at).min();
        [paused, delayed, groups].into_iter().flatten().min()
    }

    /// Tasks that neither a runner nor another process has, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.places
            .iter()
            .filter(|(_, place)| {
                !matches!(place, Place::Offered | Place::Elsewhere | Place::Broken)
            })
            .map(|(id, _)| *id)
    }

    /// The number of tasks that are known to be open.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The number of them that another process holds, according to the last offer.
    pub fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    /// Whether no task is known to be open, except those that a person must fix.
    pub fn is_empty(&self) -> bool {
        self.places.keys().all(|id| self.broken.contains(id))
    }

    /// Whether a person must fix a task.
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

    /// Makes due tasks ready: delayed ones, and the oldest of each group whose pause is over.
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

    /// Makes the first of a group ready. The others keep waiting, a little longer each time.
    fn release_group(&mut self, group: &Group, now: Instant) {
        let Some(waiting) = self.groups.get_mut(group) else {
            return;
        };
        let oldest = group
            .first()
            .and_then(|first| waiting.ids.take(&first))
            .or_else(|| waiting.ids.pop_first());
        waiting.pause = (waiting.pause * 2).min(GROUP_RETRY.1);
        waiting.retry_at = now + waiting.pause;
        if waiting.ids.is_empty() {
            self.groups.remove(group);
        }
        if let Some(id) = oldest {
            self.place(id, Place::Ready);
            self.released.insert(id, group.clone());
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

// With its path, because benches/pure.rs includes this file too.
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
    fn tasks_are_offered_oldest_first_and_once() {
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
    fn a_task_that_its_submitter_holds_is_tried_again_at_growing_intervals() {
        let (mut backlog, mut now) = backlog([1]);
        let mut pauses = Vec::new();
        for _ in 0..15 {
            assert_eq!(backlog.next(now), Some(id(1)));
            // A runner answers while the id is offered.
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
    fn tasks_that_become_due_do_not_end_a_pause() {
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
    fn the_end_of_a_session_task_releases_only_the_oldest_waiting_task() {
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
            "the others must not wait forever"
        );
    }

    /// Otherwise a user whose tasks wait for the recipe first and then for their sessions would keep the
    /// slot free for the pause of each of them.
    #[test]
    fn a_released_task_that_takes_nothing_passes_the_release_on() {
        let (mut backlog, now) = backlog([1, 2, 3, 4]);
        let one: Name = "one".parse().unwrap();
        for n in 1..=4 {
            assert_eq!(backlog.next(now), Some(id(n)));
        }
        for n in 2..=4 {
            backlog.answered(
                id(n),
                Answer::Blocked(Blocker::RecipeSlot(one.clone())),
                now,
            );
        }
        backlog.answered(id(1), Answer::Finished(None), now);
        assert_eq!(backlog.next(now), Some(id(2)));
        // The release is kept while there is no slot.
        backlog.answered(id(2), Answer::Blocked(Blocker::Slot), now);
        let now = backlog.wake_at().unwrap();
        assert_eq!(backlog.next(now), Some(id(2)));
        let chat: Name = "chat".parse().unwrap();
        backlog.answered(id(2), Answer::Blocked(Blocker::Session(chat)), now);
        assert_eq!(backlog.next(now), Some(id(3)));
        backlog.answered(id(3), Answer::Blocked(Blocker::RecipeSlot(one)), now);
        assert_eq!(backlog.next(now), None, "the slot is taken");
    }

    #[test]
    fn the_first_task_of_a_session_is_released_first() {
        let (mut backlog, now) = backlog([1, 2, 3]);
        let session = crate::task::session_of(id(3));
        for n in 1..=3 {
            assert_eq!(backlog.next(now), Some(id(n)));
        }
        for n in 2..=3 {
            backlog.answered(
                id(n),
                Answer::Blocked(Blocker::Session(session.clone())),
                now,
            );
        }
        backlog.answered(id(1), Answer::Finished(Some(session)), now);
        assert_eq!(backlog.next(now), Some(id(3)));
    }

    #[test]
    fn a_scan_offers_tasks_set_aside_and_forgets_removed_ones() {
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
    fn a_broken_task_is_offered_again_and_does_not_count_as_work() {
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
        assert!(!backlog.is_empty(), "it was fixed");
    }

    #[test]
    fn a_cancelled_task_is_offered_even_during_a_pause() {
        let (mut backlog, now) = backlog([1, 2, 3]);
        backlog.next(now);
        backlog.answered(id(1), Answer::Blocked(Blocker::Slot), now);
        backlog.hurry(id(3));
        backlog.hurry(id(3));
        assert_eq!(backlog.next(now), Some(id(3)));
        assert_eq!(backlog.next(now), None);
    }
}
