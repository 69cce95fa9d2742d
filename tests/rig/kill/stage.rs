//! A world that is prepared once and copied for each point, because the preparation takes longer than the
//! point.
//!
//! A copied spool would get an identity of its own with its next command, and those calls would be the
//! victim's first; so each copy gets its identity here. Running processes are not copied: a process that must
//! run is started in the copy.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{World, read_json};

/// The world that every scenario starts with. Its recipes record each start, and whether another attempt of
/// the same task was running.
pub fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cancel_grace_sec", "1");
    world.recipe_folder("echo", "env_accept = [\"WORD\"]", &recipe("cat"));
    world.recipe_folder(
        "big",
        "",
        &recipe("head -c 1100000 /dev/zero | tr '\\0' 'a'"),
    );
    // Index entries and tasks are compared once a boot, and a first sweep only records the clocks. Both are
    // done here, so that no later process repairs by this what a kill left.
    world.run(&["watch", "--drain"]).succeeds();
    world.run(&["sweep"]).succeeds();
    assert!(world.path("open/.boot").exists());
    world
}

/// A recipe that records its start in the world's ledger, and `overlap` if it is not alone.
pub fn recipe(then: &str) -> String {
    format!(
        "#!/bin/sh\nroot=$AGENTSPOOL_TASK_DIR/../../..\n\
         exec 9>>\"$root/held.$AGENTSPOOL_TASK_ID\"\n\
         flock -n 9 || echo \"overlap $AGENTSPOOL_TASK_ID\" >> \"$root/ledger\"\n\
         echo \"$AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT\" >> \"$root/ledger\"\n{then}\n"
    )
}

/// Another world with the same files.
pub fn copy(from: &Path) -> World {
    let world = World::without_spool();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(world.root())
        .status()
        .unwrap();
    assert!(copied.success());
    give_identity(&world);
    world
}

fn give_identity(world: &World) {
    use std::os::unix::fs::MetadataExt;
    let path = world.path("identity.json");
    let mut identity: Value = read_json(&path);
    let folder = std::fs::metadata(world.spool()).unwrap();
    identity["inode"] = folder.ino().into();
    identity["device"] = folder.dev().into();
    identity["path"] = world.spool().to_str().unwrap().into();
    // The tags contain it: two copies must not take each other's processes for their own.
    let old = identity["uuid"].as_str().unwrap();
    let tail = format!("{:012x}", std::process::id() as u64 * 65_536 + number());
    identity["uuid"] = format!("{}{tail}", &old[..old.len() - 12]).into();
    std::fs::write(&path, identity.to_string()).unwrap();
}

fn number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
