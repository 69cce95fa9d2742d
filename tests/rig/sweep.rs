//! The cost of a sweep over many finished tasks, compared with `rm -rf` and `ls -U`.
//!
//! The tasks are copies of one task that really ran. The figures are printed, not judged. Checked: every task
//! that is due is removed, and a sweep with nothing to do removes no task.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agentspool::task::{TaskId, Timestamp};

use crate::scale;
use crate::support::{World, names_in};

/// The contents of a task's folder: paths below it with their content. Folders have no content.
type Template = Vec<(String, Option<String>)>;

fn template(folder: &Path, below: &str, found: &mut Template) {
    for name in names_in(&folder.join(below)) {
        let path = format!("{below}{name}");
        if folder.join(&path).is_dir() {
            found.push((path.clone(), None));
            template(folder, &format!("{path}/"), found);
        } else {
            let content = fs::read_to_string(folder.join(&path)).unwrap();
            found.push((path, Some(content)));
        }
    }
}

/// Puts `count` copies of a task into a folder. They were created two hours ago, in an earlier boot.
fn fill(folder: &Path, template: &Template, id: &str, count: u64) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let then = agentspool::internals::wall().unix_ms() - 7_200_000;
    let moment = Timestamp::from_unix_ms(then).to_string();
    for n in 0..count {
        let new = TaskId::from_parts(then.unsigned_abs(), u128::from(n) << 40 | 1).to_string();
        let task = folder.join(&new);
        fs::create_dir(&task).unwrap();
        for (path, content) in template {
            match content {
                None => fs::create_dir(task.join(path)).unwrap(),
                Some(text) => {
                    let text = text.replace(id, &new).replace(boot.trim(), "earlier");
                    let text = dated(&text, &moment);
                    fs::write(task.join(path), text).unwrap();
                }
            }
        }
    }
}

/// The text with another `completed_at`.
fn dated(text: &str, moment: &str) -> String {
    const KEY: &str = "\"completed_at\": \"";
    match text.split_once(KEY) {
        Some((before, rest)) => {
            let (_, after) = rest.split_once('"').unwrap();
            format!("{before}{KEY}{moment}\"{after}")
        }
        None => text.to_owned(),
    }
}

fn time(command: &mut Command) -> Duration {
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[test]
fn sweeping_many_tasks_costs_about_as_much_as_removing_them() {
    let count = scale::pick(2_000, 100_000);
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    let task = world.submit(&["ok"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    let mut files = Template::new();
    template(&task.path, "", &mut files);
    fill(&world.path("tasks"), &files, &task.id, count);
    let copy = world.root().join("copy");
    fs::create_dir(&copy).unwrap();
    fill(&copy, &files, &task.id, count);
    world.run(&["sweep"]).succeeds();
    // As in a spool that was swept long ago: ages from before this pass count.
    let clocks = world.path("sweep.json");
    let mut swept: serde_json::Value = crate::support::read_json(&clocks);
    swept["ages_from"] = "2020-01-01T00:00:00.000Z".into();
    fs::write(&clocks, swept.to_string()).unwrap();

    let sweep = |settings: &[&str]| {
        let mut command = world.command(&[]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.args(["sweep", "--json"]);
        command
    };
    let nothing = |settings: &[&str]| {
        let times = (0..5).map(|_| time(&mut sweep(settings))).collect();
        assert_eq!(names_in(&world.path("tasks")).len() as u64, count + 1);
        median(times)
    };
    let listing = (0..5).map(|_| time(Command::new("ls").arg("-U").arg(world.path("tasks"))));
    let listing = median(listing.collect());
    let young = nothing(&["cleanup_delay_sec=1000000"]);
    let old = nothing(&["cleanup_delay_sec=1000000", "failed_cleanup_delay_sec=0"]);

    let removal = time(Command::new("rm").arg("-rf").arg(&copy)).as_secs_f64();
    let swept = time(&mut sweep(&[])).as_secs_f64();
    assert_eq!(names_in(&world.path("tasks")), [task.id.as_str()]);
    assert!(names_in(&world.path("trash")).is_empty());

    let figure = |name: &str, seconds: f64| {
        scale::figure(
            &format!("{name}, {count} tasks"),
            format!("{:.1} ms", seconds * 1e3),
        );
    };
    figure("ls -U of tasks/", listing);
    figure("sweep with nothing old enough", young);
    figure("sweep that checks every task and keeps it", old);
    figure("rm -rf of the same tree", removal);
    figure("sweep of all of them", swept);
    scale::figure(
        &format!("sweep over rm -rf, {count} tasks"),
        format!("{:.2}", swept / removal),
    );
}
