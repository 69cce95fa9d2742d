//! Recovery is killed at every point as well, then done again: a recovery may be started any number of times.
//!
//! Each scenario is killed at some of its points. A recovery from it is killed before each of its own
//! changes, and a second recovery must be able to repair everything.

use super::scenarios::ALL;
use super::{Campaign, Scenario, recover_and_check, report, some, was_killed};
use crate::scale;
use crate::support::{World, names_in};
use crate::traced::{self, CHANGING, Point, Victim};

/// The process that runs after a crash: its name, and how it is run.
type Recoverer = (&'static str, fn(&World) -> Victim);

const RECOVERERS: [Recoverer; 3] = [
    ("watcher", |_| Victim::of(&["watch", "--drain"])),
    ("runner", |world| {
        let mut open = names_in(&world.path("open"));
        open.retain(|name| !name.starts_with('.'));
        open.sort();
        let orders: String = open.iter().map(|id| format!("run {id}\n")).collect();
        Victim::of(&["runner"]).reading(orders)
    }),
    ("sweeper", |_| Victim::of(&["sweep"])),
];

/// A crash, the process that recovers from it, and the point at which that process is killed.
struct SecondPoint<'a> {
    campaign: &'a Campaign,
    first: Point,
    recoverer: (&'static str, fn(&World) -> Victim),
    second: Point,
}

impl SecondPoint<'_> {
    fn try_it(&self) -> bool {
        let world = self.campaign.world();
        let ran = self.campaign.victim.kill_at(&world, &self.first);
        let acknowledged = self.campaign.acknowledged(&ran);
        let recoverer = (self.recoverer.1)(&world);
        let killed = was_killed(&world, &recoverer.kill_at(&world, &self.second));
        let mut scenario = self.campaign.scenario;
        // The killed recovery may have started one more attempt.
        scenario.most_attempts += usize::from(scenario.most_attempts > 1);
        recover_and_check(&world, &scenario, &acknowledged);
        killed
    }

    fn describe(&self) -> String {
        format!(
            "{} killed before {:?}, then the {} before {:?}",
            self.campaign.scenario.name, self.first, self.recoverer.0, self.second
        )
    }
}

/// The points of every recovery after one crash.
fn after(campaign: &Campaign, first: Point) -> Vec<SecondPoint<'_>> {
    let mut points = Vec::new();
    for recoverer in RECOVERERS {
        let world = campaign.world();
        campaign.victim.kill_at(&world, &first);
        let found = (recoverer.1)(&world).points(&world, &CHANGING, traced::none);
        let wanted = scale::pick(3, usize::MAX);
        points.extend(some(&found, wanted).into_iter().map(|second| SecondPoint {
            campaign,
            first: first.clone(),
            recoverer,
            second,
        }));
    }
    points
}

#[test]
fn a_killed_recovery_can_be_repeated() {
    // There is nothing to recover while a runner is running.
    let scenarios: Vec<Scenario> = ALL.into_iter().filter(|one| !one.again).collect();
    let campaigns = traced::in_parallel(&scenarios, |scenario| Campaign::new(*scenario));
    let crashes: Vec<(&Campaign, Point)> = campaigns
        .iter()
        .flat_map(|campaign| {
            let firsts = some(&campaign.points, scale::pick(1, 3));
            firsts.into_iter().map(move |first| (campaign, first))
        })
        .collect();
    let points: Vec<SecondPoint<'_>> =
        traced::in_parallel(&crashes, |(campaign, first)| after(campaign, first.clone()))
            .into_iter()
            .flatten()
            .collect();
    let tried = traced::in_parallel(&points, |point| {
        let mut killed = false;
        let violation = traced::violation(&point.describe(), || killed = point.try_it());
        (killed, violation)
    });
    report("kill points in recovery", "all", tried, points.len());
}

#[test]
fn spread_evenly() {
    assert_eq!(some(&[1, 2, 3, 4, 5], 1), [3]);
    assert_eq!(some(&[1, 2, 3, 4], 2), [2, 4]);
    assert_eq!(some(&[1, 2], 9), [1, 2]);
}
