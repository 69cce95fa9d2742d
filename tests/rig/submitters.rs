//! Many submitters at once, in every way to submit, while the watchers are killed.
//!
//! Each request has a number of its own, and each submitter records what it did before anything else. Checked
//! at the end: every number was answered exactly once. Watchers are killed here and runners are not, so every
//! task completes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::chance::Chance;
use crate::herd::Herd;
use crate::scale::{self, figure};
use crate::support::{World, names_in};
use crate::traced::under_strace;

/// How a request comes into the spool. All but the first are a line of shell: `$1` is the finished file, `$2`
/// its place in the box, `$3` a place next to that, and `$4` another file system.
const WAYS: [(&str, &str); 7] = [
    ("submit", ""),
    ("cp", r#"cp "$1" "$2""#),
    ("ln", r#"ln "$1" "$2""#),
    ("mv", r#"mv "$1" "$2""#),
    (
        "mv from another file system",
        r#"cp "$1" "$4" && mv "$4" "$2""#,
    ),
    (
        "a slow writer",
        // One byte for each write, with the start of a process before the next.
        r#"exec 3>"$2"; while IFS= read -r byte; do printf %s "$byte" >&3; /bin/true; done <<END
$(sed 's/./&\n/g' "$1")
END"#,
    ),
    ("cp and rename", r#"cp "$1" "$3" && mv "$3" "$2""#),
];

/// A folder on another file system, removed with the test.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn new(world: &World) -> Elsewhere {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::Builder::new()
            .prefix("agentspool-test-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
        assert_ne!(device(folder.path()), device(world.spool()));
        Elsewhere(folder)
    }
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("echo", "#!/bin/sh\ncat\n");
    std::fs::create_dir(world.root().join("made")).unwrap();
    world
}

fn submitter(world: &World, elsewhere: &Elsewhere, n: usize) -> Child {
    let (way, line) = WAYS[n % WAYS.len()];
    let request = format!(r#"{{"recipe": "echo", "input": {{"number": {n}}}}}"#);
    let name = format!("drop-{n}.json");
    let made = world.root().join("made").join(&name);
    std::fs::write(&made, request).unwrap();
    let mut command = if way == "submit" {
        let input = format!(r#"{{"number": {n}}}"#);
        world.command(&["submit", "--recipe", "echo", "-q", "--input", &input])
    } else {
        let mut shell = Command::new("sh");
        let box_ = world.path("incoming");
        shell.args(["-e", "-c", line, "sh"]).arg(made);
        shell
            .arg(box_.join(&name))
            .arg(box_.join(format!(".{n}.tmp")));
        shell.arg(elsewhere.0.path().join(&name));
        shell
    };
    command
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// How often each number was answered.
fn answers(world: &World) -> HashMap<usize, usize> {
    let mut answers = HashMap::new();
    for task in world.tasks() {
        let result = task.result();
        assert_eq!(result["status"], "completed", "{result}");
        let number = result["output"]["number"].as_u64().unwrap();
        *answers.entry(number as usize).or_default() += 1;
    }
    answers
}

fn is_drained(world: &World) -> bool {
    let is_left = |folder: &str| {
        let names = names_in(&world.path(folder));
        names.iter().any(|name| !name.starts_with('.'))
    };
    !is_left("incoming") && !is_left("staging") && !is_left("open")
}

#[test]
fn every_submission_is_accepted_once() {
    let all = scale::pick(420, 10_000);
    let at_once = scale::pick(32, 256);
    let world = world();
    let elsewhere = Elsewhere::new(&world);
    let mut herd = Herd::start(&world, 2, Chance::new("submitters"));
    let mut running: Vec<(usize, Child)> = Vec::new();
    let mut next = 0;
    while next < all || !running.is_empty() {
        while next < all && running.len() < at_once {
            running.push((next, submitter(&world, &elsewhere, next)));
            next += 1;
        }
        running.retain_mut(|(n, child)| match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{n}: {status}");
                false
            }
            None => true,
        });
        herd.kill_watchers();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    figure("submitters", all);
    figure("submitters: at the same time", at_once);
    figure("submitters: watchers killed", herd.watchers_killed);
    wait_for_results(&world);
    herd.stop();
    let answers = answers(&world);
    let lost: Vec<usize> = (0..all).filter(|n| !answers.contains_key(n)).collect();
    let twice: Vec<_> = answers.iter().filter(|(_, times)| **times > 1).collect();
    figure("submitters: lost", lost.len());
    figure("submitters: taken twice", twice.len());
    assert!(lost.is_empty() && twice.is_empty(), "{lost:?} {twice:?}");
    assert!(names_in(&world.path("rejected")).is_empty());
}

/// Waits until no work is left. No watcher is killed once no new task comes in.
fn wait_for_results(world: &World) {
    let mut last = usize::MAX;
    while !is_drained(world) {
        let before = last;
        // However many there are, results keep coming.
        world.wait_until("another result exists", || {
            last = names_in(&world.path("open")).len() + names_in(&world.path("incoming")).len();
            last != before || is_drained(world)
        });
    }
}

/// A producer that renames a new file over one that is still in the box takes the old one back. It knows this
/// because it exchanges the two. Every other version is taken, once.
#[test]
fn drops_with_the_same_name_are_all_taken() {
    let versions = scale::pick(300, 5_000);
    let world = world();
    let mut herd = Herd::start(&world, 2, Chance::new("the same name"));
    let drop = world.path("incoming/same.json");
    let mut taken_back = 0;
    let mut expected = Vec::new();
    for n in 0..versions {
        let made = version(&world, n);
        if exchange(&made, &drop) {
            let old = std::fs::read_to_string(&made).unwrap();
            let number = serde_json::from_str::<serde_json::Value>(&old).unwrap();
            let number = number["input"]["number"].as_u64().unwrap() as usize;
            expected.retain(|expected| *expected != number);
            taken_back += 1;
        }
        expected.push(n);
        herd.kill_watchers();
        // Sometimes the box is empty when the next one comes.
        if n % 3 == 0 {
            world.wait_until("the drop is taken", || {
                herd.kill_watchers();
                !drop.exists()
            });
        }
    }
    wait_for_results(&world);
    herd.stop();
    figure("the same name again: versions", versions);
    figure(
        "the same name again: taken back before the watcher read them",
        taken_back,
    );
    assert_eq!(names_in(&world.path("rejected")), Vec::<String>::new());
    let answers = answers(&world);
    let twice = answers.iter().filter(|(_, times)| **times > 1).count();
    assert_eq!(twice, 0);
    let mut numbers: Vec<usize> = answers.into_keys().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
}

fn version(world: &World, n: usize) -> PathBuf {
    let made = world.path("incoming").join(format!(".{n}.tmp"));
    let request = format!(r#"{{"recipe": "echo", "input": {{"number": {n}}}}}"#);
    std::fs::write(&made, request).unwrap();
    made
}

/// Puts a file into its place. Returns whether another file was there, which has the first name now.
fn exchange(made: &Path, place: &Path) -> bool {
    loop {
        if renameat_with(CWD, made, CWD, place, RenameFlags::NOREPLACE).is_ok() {
            return false;
        }
        if renameat_with(CWD, made, CWD, place, RenameFlags::EXCHANGE).is_ok() {
            return true;
        }
    }
}

/// The box is read, then the drop is claimed. Before the claim a producer puts a second file there, and a
/// third one once the second is taken. Every rename of the watcher is delayed, so that there is time for
/// this.
fn replaced_while_it_is_taken(first: &str, accepted: &[usize]) {
    let world = world();
    let drop = world.path("incoming/same.json");
    world.drop_in("same.json", first);
    let options = ["-o", "/dev/null", "-e", "trace=renameat,renameat2", "-e"].map(str::to_owned);
    let slow = "inject=renameat,renameat2:delay_enter=500000".to_owned();
    let options: Vec<String> = options.into_iter().chain([slow]).collect();
    let mut watcher = under_strace(&world, &["watch", "--drain"], &options)
        .spawn()
        .unwrap();
    world.wait_until("the drop is being claimed", || {
        let staged = names_in(&world.path("staging"));
        staged.iter().any(|name| name.ends_with(".claim"))
    });
    std::fs::rename(version(&world, 2), &drop).unwrap();
    world.wait_until("the second drop is claimed", || !drop.exists());
    std::fs::rename(version(&world, 3), &drop).unwrap();
    assert!(watcher.wait().unwrap().success());
    assert_eq!(names_in(&world.path("rejected")), Vec::<String>::new());
    let mut numbers: Vec<usize> = answers(&world).into_keys().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, accepted);
}

#[test]
fn a_drop_that_replaces_a_drop_being_taken_is_accepted() {
    let first = r#"{"recipe": "echo", "input": {"number": 1}}"#;
    replaced_while_it_is_taken(first, &[2, 3]);
}

#[test]
fn a_drop_that_replaces_a_wrong_one_is_not_refused() {
    replaced_while_it_is_taken(r#"{"recipe": "nobody"}"#, &[2, 3]);
}
