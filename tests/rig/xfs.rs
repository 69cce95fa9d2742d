//! XFS after an error shut it down: nothing reaches the disk, and `fsync` of a folder returns 0.
//!
//! Needs root. Invariant: an id that is printed is on the disk.

use std::process::Stdio;

use crate::mount::{Mount, run};
use crate::support::World;
use crate::traced::under_strace;

fn shut_down(mount: &Mount) {
    let at = mount.path();
    run("xfs_io", &["-x", "-c", "shutdown", at.to_str().unwrap()]);
}

#[test]
fn nothing_is_accepted_by_a_folder_that_cannot_be_synced() {
    let mount = Mount::xfs();
    let world = World::at(&mount.path());
    world.run(&["init"]).succeeds();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    // The request, its folder, and then tasks/, whose sync accepts the task.
    let options = ["-o", "/dev/null", "-e", "trace=fsync", "-e"].map(str::to_owned);
    let slowly = "inject=fsync:delay_enter=2000000:when=3".to_owned();
    let options = [&options[..], &[slowly]].concat();
    let submit = under_strace(&world, &["submit", "--recipe", "ok"], &options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    world.wait_until("it is published", || !world.tasks().is_empty());
    shut_down(&mount);
    let output = submit.wait_with_output().unwrap();
    let (out, printed) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(!output.status.success(), "{out}{printed}");
    assert!(!out.contains("task_"), "{out}");
    assert!(printed.contains("not accepted"), "{printed}");
    // The next command cannot use the spool, and doctor reports why.
    let doctor = world.run(&["doctor"]);
    assert_ne!(doctor.code, 0);
    assert!(
        doctor.stdout.contains("Input/output error"),
        "{}",
        doctor.stdout
    );
}
