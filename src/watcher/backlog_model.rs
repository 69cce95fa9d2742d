//! Tests the backlog against a plain model: one map from each id to its place, with no redundant state.
//!
//! Does not test real timing. The operations are random ones that a watcher makes. Invariant: after each
//! of them both agree, the backlog's own structures agree with each other, and no id waits without a time
//! or an event that ends its wait.

use proptest::prelude::*;

use super::*;
use crate::task::{Why, session_of};

/// What a watcher does with its backlog.
#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    /// These are all open tasks.
    Reset(Vec<u64>),
    Next,
    NextHurried,
    Hurry(u64),
    /// The answer for one of the offered tasks.
    Answer(usize, Answer),
    Pass(Duration),
}

fn id(n: u64) -> TaskId {
    TaskId::from_parts(n, 0)
}

fn names() -> impl Strategy<Value = Name> {
    prop_oneof![
        (0..2u8).prop_map(|n| format!("n{n}").parse().unwrap()),
        Just(session_of(id(5))),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Finished(None)),
        names().prop_map(|session| Answer::Finished(Some(session))),
        Just(Answer::Blocked(Blocker::Slot)),
        names().prop_map(|recipe| Answer::Blocked(Blocker::RecipeSlot(recipe))),
        names().prop_map(|session| Answer::Blocked(Blocker::Session(session))),
        Just(Answer::Blocked(Blocker::Files)),
        Just(Answer::Held(Holder::Runner)),
        Just(Answer::Held(Holder::Submitter)),
        Just(Answer::Retry(When::Soon, Why::Disk)),
        Just(Answer::Retry(When::AtScan, Why::RunnerStopped)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..12u64).prop_map(Step::Add),
        1 => prop::collection::btree_set(0..12u64, 0..12)
            .prop_map(|open| Step::Reset(open.into_iter().collect())),
        6 => Just(Step::Next),
        1 => Just(Step::NextHurried),
        1 => (0..12u64).prop_map(Step::Hurry),
        6 => (any::<usize>(), answers()).prop_map(|(at, answer)| Step::Answer(at, answer)),
        2 => (0..3_000_000u64).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
        2 => (0..2_000u64).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
    ]
}

/// The place of an id in the model.
#[derive(Clone, Debug, PartialEq)]
enum Spot {
    Ready,
    /// With its position in the order.
    Hurried(usize),
    Offered,
    Delayed(Instant),
    Group(Group),
    Elsewhere,
    Broken,
}

#[derive(Default)]
struct Model {
    spots: BTreeMap<TaskId, Spot>,
    groups: HashMap<Group, (Instant, Duration)>,
    pauses: HashMap<TaskId, Duration>,
    /// The groups that released tasks which were not answered since.
    released: HashMap<TaskId, Group>,
    broken: BTreeSet<TaskId>,
    no_slot: Option<(Instant, Duration)>,
    hurried_count: usize,
}

impl Model {
    fn is_at(&self, spot: &Spot) -> Vec<TaskId> {
        let here = self.spots.iter().filter(|(_, at)| *at == spot);
        here.map(|(id, _)| *id).collect()
    }

    fn step(&mut self, step: &Step, now: Instant) -> Option<TaskId> {
        match step {
            Step::Add(n) => {
                self.spots.entry(id(*n)).or_insert(Spot::Ready);
            }
            Step::Reset(open) => self.reset(open),
            Step::Next => return self.next(now),
            Step::NextHurried => return self.next_hurried(),
            Step::Hurry(n) => {
                if let Some(spot) = self.spots.get_mut(&id(*n))
                    && !matches!(spot, Spot::Offered | Spot::Hurried(_))
                {
                    self.hurried_count += 1;
                    *spot = Spot::Hurried(self.hurried_count);
                }
            }
            Step::Answer(at, answer) => {
                let offered = self.is_at(&Spot::Offered);
                if !offered.is_empty() {
                    self.answered(offered[at % offered.len()], answer, now);
                }
            }
            Step::Pass(_) => {}
        }
        None
    }

    fn reset(&mut self, open: &[u64]) {
        let is_open = |task: &TaskId| open.iter().any(|n| id(*n) == *task);
        self.spots
            .retain(|task, spot| is_open(task) || *spot == Spot::Offered);
        let (spots, broken) = (&self.spots, &mut self.broken);
        broken.retain(|task| spots.contains_key(task));
        self.pauses.retain(|task, _| spots.contains_key(task));
        self.released.retain(|task, _| spots.contains_key(task));
        for spot in self.spots.values_mut() {
            if matches!(spot, Spot::Elsewhere | Spot::Broken) {
                *spot = Spot::Ready;
            }
        }
        for n in open {
            self.spots.entry(id(*n)).or_insert(Spot::Ready);
        }
    }

    fn next_hurried(&mut self) -> Option<TaskId> {
        let order = |(task, spot): (&TaskId, &Spot)| match spot {
            Spot::Hurried(order) => Some((*order, *task)),
            _ => None,
        };
        let (_, task) = self.spots.iter().filter_map(order).min()?;
        self.spots.insert(task, Spot::Offered);
        Some(task)
    }

    fn next(&mut self, now: Instant) -> Option<TaskId> {
        if let Some(task) = self.next_hurried() {
            return Some(task);
        }
        for spot in self.spots.values_mut() {
            if matches!(spot, Spot::Delayed(at) if *at <= now) {
                *spot = Spot::Ready;
            }
        }
        let groups = self.groups.clone();
        for (group, (at, _)) in groups {
            if at <= now {
                self.release(&group, now);
            }
        }
        if self.no_slot.is_some_and(|(until, _)| now < until) {
            return None;
        }
        let task = *self.is_at(&Spot::Ready).first()?;
        self.spots.insert(task, Spot::Offered);
        Some(task)
    }

    fn release(&mut self, group: &Group, now: Instant) {
        let waiting = self.is_at(&Spot::Group(group.clone()));
        let is_first = |task: &&TaskId| match group {
            Group::Session(session) => *session == session_of(**task),
            Group::Recipe(_) => false,
        };
        if let Some(released) = waiting.iter().find(is_first).or(waiting.first()) {
            self.spots.insert(*released, Spot::Ready);
            self.released.insert(*released, group.clone());
            let (at, pause) = self.groups.get_mut(group).unwrap();
            *pause = (*pause * 2).min(GROUP_RETRY.1);
            *at = now + *pause;
        }
    }

    /// Groups without waiting tasks are forgotten.
    fn tidy(&mut self) {
        let spots = &self.spots;
        let waits = |group: &Group| spots.values().any(|at| *at == Spot::Group(group.clone()));
        self.groups.retain(|group, _| waits(group));
    }

    fn pause(&mut self, task: TaskId, (least, most): (Duration, Duration)) -> Duration {
        let last = self.pauses.get(&task);
        let pause = last.map_or(least, |last| (*last * 2).clamp(least, most));
        self.pauses.insert(task, pause);
        pause
    }

    fn wait_in(&mut self, task: TaskId, group: Group, now: Instant) {
        let pause = self.pause(task, GROUP_RETRY);
        self.groups
            .entry(group.clone())
            .or_insert((now + pause, pause));
        self.spots.insert(task, Spot::Group(group));
    }

    fn answered(&mut self, task: TaskId, answer: &Answer, now: Instant) {
        self.broken.remove(&task);
        let passed_on = match answer {
            Answer::Blocked(Blocker::Slot) => None,
            _ => self.released.remove(&task),
        };
        match answer {
            Answer::Finished(session) => {
                self.spots.remove(&task);
                self.pauses.remove(&task);
                self.no_slot = None;
                let groups: Vec<Group> = self.groups.keys().cloned().collect();
                for group in groups {
                    let is_freed = match &group {
                        Group::Session(name) => session.as_ref() == Some(name),
                        Group::Recipe(_) => true,
                    };
                    if is_freed || passed_on.as_ref() == Some(&group) {
                        self.release(&group, now);
                    }
                }
            }
            Answer::Held(Holder::Runner) | Answer::Retry(When::AtScan, _) => {
                self.spots.insert(task, Spot::Elsewhere);
            }
            Answer::Held(Holder::Submitter) | Answer::Retry(When::Soon, _) => {
                let pause = self.pause(task, HELD_RETRY);
                self.spots.insert(task, Spot::Delayed(now + pause));
            }
            Answer::Blocked(Blocker::Files) => {
                self.broken.insert(task);
                self.spots.insert(task, Spot::Broken);
            }
            Answer::Blocked(Blocker::Slot) => {
                self.spots.insert(task, Spot::Ready);
                let last = self.no_slot;
                let pause = last.map_or(SLOT_RETRY.0, |(_, last)| (last * 2).min(SLOT_RETRY.1));
                self.no_slot = Some((now + pause, pause));
            }
            Answer::Blocked(Blocker::RecipeSlot(recipe)) => {
                self.wait_in(task, Group::Recipe(recipe.clone()), now);
            }
            Answer::Blocked(Blocker::Session(session)) => {
                self.wait_in(task, Group::Session(session.clone()), now);
            }
        }
        if let Some(group) = passed_on
            && !matches!(answer, Answer::Finished(_))
            && self.spots[&task] != Spot::Group(group.clone())
        {
            self.release(&group, now);
        }
    }
}

fn step(backlog: &mut Backlog, step: &Step, now: Instant) -> Option<TaskId> {
    match step {
        Step::Add(n) => backlog.add([id(*n)]),
        Step::Reset(open) => {
            let open: Vec<TaskId> = open.iter().copied().map(id).collect();
            backlog.reset(&open);
        }
        Step::Next => return backlog.next(now),
        Step::NextHurried => return backlog.next_hurried(),
        Step::Hurry(n) => backlog.hurry(id(*n)),
        Step::Answer(at, answer) => {
            let places = backlog.places.iter();
            let offered = places.filter(|(_, place)| **place == Place::Offered);
            let offered: Vec<TaskId> = offered.map(|(id, _)| *id).collect();
            if !offered.is_empty() {
                backlog.answered(offered[at % offered.len()], answer.clone(), now);
            }
        }
        Step::Pass(_) => {}
    }
    None
}

/// Checks the invariant in the header of `backlog.rs`.
fn check_structures(backlog: &Backlog) {
    let mut counted = 0;
    for (id, place) in &backlog.places {
        let is_in = [
            backlog.ready.contains(id),
            backlog.hurried.contains(id),
            backlog.delayed.iter().any(|(_, other)| other == id),
            backlog.groups.values().any(|group| group.ids.contains(id)),
        ];
        let expected = match place {
            Place::Ready => [true, false, false, false],
            Place::Hurried => [false, true, false, false],
            Place::Delayed(at) => {
                assert!(backlog.delayed.contains(&(*at, *id)));
                [false, false, true, false]
            }
            Place::Group(group) => {
                assert!(backlog.groups[group].ids.contains(id));
                [false, false, false, true]
            }
            Place::Offered | Place::Elsewhere | Place::Broken => [false; 4],
        };
        assert_eq!(is_in, expected, "{id} is in {place:?}");
        counted += is_in.into_iter().filter(|is_in| *is_in).count();
    }
    let groups = backlog.groups.values();
    let waiting: usize = groups.map(|group| group.ids.len()).sum();
    let kept = backlog.ready.len() + backlog.hurried.len() + backlog.delayed.len() + waiting;
    assert_eq!(
        kept, counted,
        "an id is kept that has no place, or is kept twice"
    );
    assert!(backlog.groups.values().all(|group| !group.ids.is_empty()));
    let elsewhere = backlog.places.values();
    let elsewhere = elsewhere.filter(|place| **place == Place::Elsewhere);
    assert_eq!(backlog.elsewhere, elsewhere.count());
    let broken = backlog.places.values();
    let mut broken = broken.filter(|place| **place == Place::Broken);
    assert!(broken.all(|_| !backlog.broken.is_empty()));
}

fn check_same(backlog: &Backlog, model: &Model) {
    assert_eq!(backlog.len(), model.spots.len());
    for (task, place) in &backlog.places {
        let is_same = match (&model.spots[task], place) {
            (Spot::Ready, Place::Ready)
            | (Spot::Hurried(_), Place::Hurried)
            | (Spot::Offered, Place::Offered)
            | (Spot::Elsewhere, Place::Elsewhere)
            | (Spot::Broken, Place::Broken) => true,
            (Spot::Delayed(at), Place::Delayed(other)) => at == other,
            (Spot::Group(group), Place::Group(other)) => group == other,
            _ => false,
        };
        assert!(is_same, "{task}: {:?}, not {place:?}", model.spots[task]);
        assert_eq!(backlog.is_broken(*task), model.broken.contains(task));
    }
    let is_pending = |spot: &Spot| !matches!(spot, Spot::Offered | Spot::Elsewhere | Spot::Broken);
    let pending = model.spots.iter().filter(|(_, spot)| is_pending(spot));
    let pending: Vec<TaskId> = pending.map(|(id, _)| *id).collect();
    assert_eq!(backlog.pending().collect::<Vec<_>>(), pending);
    let is_empty = model.spots.keys().all(|task| model.broken.contains(task));
    assert_eq!(backlog.is_empty(), is_empty);
    let paused = model.no_slot.map(|(until, _)| until);
    let paused = paused.filter(|_| !model.is_at(&Spot::Ready).is_empty());
    let delayed = model.spots.values().filter_map(|spot| match spot {
        Spot::Delayed(at) => Some(*at),
        _ => None,
    });
    let groups = model.groups.values().map(|(at, _)| *at);
    let wake_at = delayed.chain(groups).chain(paused).min();
    assert_eq!(backlog.wake_at(), wake_at);
}

/// By its own times alone, the backlog offers every waiting task in the end.
fn check_that_all_are_offered(mut backlog: Backlog, mut now: Instant) {
    let mut left: BTreeSet<TaskId> = backlog.pending().collect();
    while !left.is_empty() {
        match backlog.next(now) {
            Some(task) => {
                left.remove(&task);
            }
            None => {
                let at = backlog.wake_at().expect("a time that ends the wait");
                assert!(at > now, "a watcher would spin");
                now = at;
            }
        }
    }
}

proptest! {
    #[test]
    fn the_backlog_agrees_with_the_model(steps in prop::collection::vec(steps(), 0..120)) {
        let (mut backlog, mut model) = (Backlog::default(), Model::default());
        let mut now = Instant::now();
        for one in &steps {
            if let Step::Pass(time) = one {
                now += *time;
            }
            let offered = step(&mut backlog, one, now);
            let expected = model.step(one, now);
            model.tidy();
            prop_assert_eq!(offered, expected, "{:?}", one);
            check_structures(&backlog);
            check_same(&backlog, &model);
            if matches!(one, Step::Next) && offered.is_none() {
                prop_assert!(backlog.wake_at().is_none_or(|at| at > now), "a watcher would spin");
            }
        }
        check_that_all_are_offered(backlog, now);
    }
}
