//! Power cuts while users of the group submit to a group spool, on ext4 and on XFS.
//!
//! A group user cannot sync the folder that he drops into. He syncs his file once more after its rename.
//! Checked after each cut: every id that was printed before it becomes that task or a refusal with a reason
//! under that id, with and without a watcher, and nothing runs twice. The owner's side is `power.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cut::{Disk, Kind, kill_all};
use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, as_number};
use crate::power::{Random, seed};
use crate::scale;
use crate::support::{Ran, World, names_in, read_json};

/// Two processes for each of two users.
const SUBMITTERS: [u32; 4] = [GROUP_USER, OTHER_GROUP_USER, GROUP_USER, OTHER_GROUP_USER];
const CUTS: [(Kind, &str); 4] = [
    (Kind::Ext4, "commit=600"),
    (Kind::Xfs, "noatime"),
    (Kind::Ext4, "commit=1,noauto_da_alloc"),
    (Kind::Xfs, "nodiscard"),
];

fn as_group_user(world: &World, uid: u32, arguments: &[&str]) -> Ran {
    let sealed = world.command(arguments);
    let mut command = as_number(&sealed, uid, &(uid + 1000).to_string(), true);
    command.arg(sealed.get_program()).args(arguments);
    Ran::of(&mut command)
}

/// A group spool of root that was created and synced long before.
fn in_use(kind: Kind, options: &str) -> (Disk, World) {
    let disk = Disk::of(kind, options);
    let world = World::at(&disk.path());
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let spool = world.spool().to_str().unwrap().to_owned();
    world
        .run(&["init", &spool, "--group", &GROUP.to_string()])
        .succeeds();
    world.set("rescan_sec", "0.3");
    world.set("min_free_bytes", "0");
    let script = format!(
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID\" >> '{}'\n",
        disk.outside("starts").display()
    );
    world.recipe("once", &script);
    let recipe = world.path("recipes/once");
    fs::set_permissions(recipe, fs::Permissions::from_mode(0o755)).unwrap();
    disk.finalize();
    (disk, world)
}

/// Submits until the power is cut, and returns what was printed before. Every fourth submission is refused,
/// because its recipe is missing when the watcher checks.
fn load_and_cut(disk: &Disk, world: &World, after: u64) -> Vec<String> {
    let is_over = AtomicBool::new(false);
    let printed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let submitters: Vec<_> = SUBMITTERS
            .iter()
            .map(|uid| {
                let (is_over, printed) = (&is_over, &printed);
                scope.spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        let ran = as_group_user(world, *uid, &["submit", "--recipe", "once", "-q"]);
                        // An id that is printed after the cut started promises nothing.
                        if ran.code == 0 && !is_over.load(Ordering::SeqCst) {
                            printed.lock().unwrap().push(ran.stdout.trim().to_owned());
                        }
                    }
                })
            })
            .collect();
        // This sleep is the random time itself. Nothing is expected to have happened by then.
        std::thread::sleep(Duration::from_millis(after));
        let mut before = printed.lock().unwrap();
        is_over.store(true, Ordering::SeqCst);
        let message = std::mem::take(&mut *before);
        disk.cut();
        drop(before);
        world.wait_until("the submitters have ended", || {
            kill_all(world);
            submitters.iter().all(|one| one.is_finished())
        });
        message
    })
}

#[test]
fn every_printed_id_becomes_a_task_or_a_reason() {
    let seed = seed();
    println!("POWER_SEED={seed}");
    let mut random = Random(seed);
    let cuts = scale::pick(8, 500);
    let (mut all, mut tasks, mut refused) = (0, 0, 0);
    for cut in 0..cuts {
        let (kind, options) = CUTS[cut % CUTS.len()];
        let with_watcher = random.next().is_multiple_of(2);
        let after = random.between((100, 900));
        println!("cut {cut}: {kind:?} {options}, after {after} ms, watcher {with_watcher}");
        let (disk, world) = in_use(kind, options);
        if with_watcher {
            world.start_watcher();
        }
        let printed = load_and_cut(&disk, &world, after);
        disk.mount_again(&world);
        if !with_watcher && random.next().is_multiple_of(4) {
            // Everything that is in the box is refused now.
            fs::remove_file(world.path("recipes/once")).unwrap();
        }
        disk.run(&world, &["watch", "--drain"]).succeeds();
        world.wait_until("the runners have exited", || world.processes().is_empty());
        let rejected = names_in(&world.path("rejected"));
        for id in &printed {
            let task = world.task(id);
            let reason = rejected
                .iter()
                .any(|name| name.starts_with(id) && name.ends_with(".reason.json"));
            assert!(
                task.path.join("request.json").exists() || reason,
                "{id} is lost\n{}",
                world.describe()
            );
            if reason {
                refused += 1;
                continue;
            }
            tasks += 1;
            let origin = read_json(&task.path.join("origin.json"));
            assert!(
                SUBMITTERS.iter().any(|uid| origin["uid"] == *uid),
                "{origin}"
            );
        }
        all += printed.len();
        let starts = fs::read_to_string(disk.outside("starts")).unwrap_or_default();
        let mut started: Vec<&str> = starts.lines().collect();
        started.sort_unstable();
        let count = started.len();
        started.dedup();
        assert_eq!(
            started.len(),
            count,
            "a task ran twice\n{}",
            world.describe()
        );
    }
    assert!(all > 0 && tasks > 0, "nothing was tested");
    scale::figure("power cuts while group users submit", cuts);
    scale::figure("power cuts while group users submit: ids printed", all);
    scale::figure(
        "power cuts while group users submit: refused with a reason",
        refused,
    );
    scale::figure("power cuts while group users submit: ids lost", 0);
}

/// Whether a drop survives a cut after `submit` printed its id, with some of its syncs left out.
fn is_kept(kind: Kind, options: &str, left_out: Option<&str>) -> bool {
    let (disk, world) = in_use(kind, options);
    let sealed = world.command(&["submit", "--recipe", "once", "-q"]);
    let user = as_number(&sealed, GROUP_USER, &(GROUP_USER + 1000).to_string(), true);
    let mut traced = std::process::Command::new("strace");
    traced.args(["-o", "/dev/null", "-e", "trace=fsync"]);
    if let Some(left_out) = left_out {
        traced.args(["-e", &format!("inject={left_out}")]);
    }
    let set = user.get_envs();
    traced
        .arg(user.get_program())
        .args(user.get_args())
        .arg(sealed.get_program())
        .args(sealed.get_args())
        .env_clear()
        .envs(set.filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(&mut traced);
    ran.succeeds();
    let id = ran.stdout.trim().to_owned();
    disk.cut();
    disk.mount_again(&world);
    world.path("incoming").join(format!("{id}.json")).exists()
}

/// One submission with nothing else on the disk: the sync after the rename keeps it.
#[test]
fn without_the_second_sync_a_printed_id_is_lost() {
    for (kind, options) in [(Kind::Ext4, "commit=600"), (Kind::Xfs, "noatime")] {
        assert!(is_kept(kind, options, None), "{kind:?}");
        // On a busy machine the file system may have written its log by itself before the cut.
        let is_seen = (0..5).any(|_| !is_kept(kind, options, Some("fsync:retval=0:when=2+")));
        assert!(is_seen, "{kind:?}: the sync could be left out");
    }
}
