//! Recovery killed at every point as well, then done again: it may be begun as often as it likes.
//!
//! Each scenario is left at some of its points, as dead as it is then; a recovery is killed there,
//! in front of each of its own changes, and a second one must find nothing that it cannot mend.

use super::scenarios::ALL;
use super::{Campaign, Scenario, recover_and_check, report, some, was_killed};
use crate::scale;
use crate::support::{World, names_in};
use crate::traced::{self, CHANGING, Point, Victim};

/// Whoever may come after a crash: how it is called, and what it is.
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

/// A crash, who comes after it, and where that one is killed.
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
        // The killed recovery may have begun one more.
        scenario.most_attempts += usize::from(scenario.most_attempts > 1);
        recover_and_check(&world, &scenario, &acknowledged);
        killed
    }

    fn describe(&self) -> String {
        format!(
            "{} killed in front of {:?}, then the {} in front of {:?}",
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
fn recovery_is_killed_as_well() {
    // Beside a living runner there is nothing to recover.
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
