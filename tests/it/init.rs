//! `init`, and which spool is used if none is named: never the current folder.

use std::os::unix::fs::PermissionsExt;

use crate::support::{PROGRAM, Ran, World, names_in, read_json};

#[test]
fn a_path_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::without_spool();
    let path = world.root().join(std::ffi::OsStr::from_bytes(b"sp\xffool"));
    let refused = |inside: bool| {
        let mut command = world.command(&["init"]);
        command.env_remove("AGENTSPOOL_DIR");
        if inside {
            command.arg("here").current_dir(&path);
        } else {
            command.arg(&path);
        }
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(
            printed.contains("UTF-8") && printed.lines().count() == 1,
            "{printed}"
        );
    };
    refused(false);
    assert!(!path.exists());
    std::fs::create_dir(&path).unwrap();
    refused(true);
    // A spool that was created with another name and then renamed is not opened either.
    world.run(&["init"]).succeeds();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(world.spool(), &path).unwrap();
    let mut list = world.command(&["list"]);
    let output = list.env("AGENTSPOOL_DIR", &path).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("UTF-8"));
}

#[test]
fn a_new_spool_is_private_and_complete() {
    let world = World::without_spool();
    let ran = world.run(&["init"]);
    ran.succeeds();
    assert_eq!(
        ran.stdout,
        format!("spool ready: {}\n", world.spool().display())
    );
    assert_eq!(ran.stderr, "");
    let mode = |path: &str| {
        std::fs::metadata(world.path(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    for folder in [
        "", "incoming", "tasks", "names", "sessions", "open", "rejected", "recipes",
    ] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    assert_eq!(mode("spool.json"), 0o600);
    assert_eq!(read_json(&world.path("spool.json"))["v"], 2);
}

#[test]
fn init_again_changes_nothing() {
    let world = World::without_spool();
    let first = world.json(&["init"]);
    world.set("max_concurrent", "2");
    let again = world.json(&["init"]);
    assert_eq!(first, again);
    assert_eq!(
        world.run(&["config", "get", "max_concurrent"]).stdout,
        "2\n"
    );
    let quiet = world.run(&["init", "-q"]);
    assert_eq!(quiet.stdout, format!("{}\n", world.spool().display()));
    // Folders that are missing, for example after a restore, are created again.
    std::fs::remove_dir(world.path("incoming")).unwrap();
    world.run(&["init"]).succeeds();
    assert!(world.path("incoming").is_dir());
}

#[test]
fn a_folder_with_other_things_is_refused_untouched() {
    let world = World::without_spool();
    let home = world.root().join("photos");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("cat.jpg"), "meow").unwrap();
    let ran = world.run(&["init", "photos"]);
    ran.ends_with(8);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: photos is not empty and not a spool: choose a new folder\n"
    );
    assert_eq!(names_in(&home), ["cat.jpg"]);
    // No command advises to create a spool there.
    let asked = world.run(&["--spool", "photos", "list"]);
    asked.ends_with(8);
    let reason = "photos is not empty and not a spool: choose a new folder\n";
    assert!(asked.stderr.ends_with(reason), "{}", asked.stderr);
    assert_eq!(names_in(&home), ["cat.jpg"]);
    std::fs::write(world.root().join("file"), "").unwrap();
    let ran = world.run(&["init", "file"]);
    ran.ends_with(8);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    let ran = world.run(&["init", "new", "--group", "no-such-group-here"]);
    ran.ends_with(2);
    assert_eq!(ran.stderr, "error: there is no group no-such-group-here\n");
    assert!(!world.root().join("new").exists());
}

/// Runs a command without a variable or flag that names the spool.
fn run_without_spool(world: &World, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = std::process::Command::new(PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command
        .envs(environment.iter().copied())
        .current_dir(world.root());
    Ran::of(&mut command)
}

#[test]
fn the_default_place_is_below_the_state_home() {
    let world = World::without_spool();
    let root = world.root().to_str().unwrap().to_owned();
    let home = format!("{root}/home");
    let state = format!("{root}/state");
    for (environment, expected) in [
        (
            vec![("HOME", &*home)],
            format!("{home}/.local/state/agentspool"),
        ),
        (
            vec![("HOME", &*home), ("XDG_STATE_HOME", &*state)],
            format!("{state}/agentspool"),
        ),
        (
            vec![
                ("HOME", &*home),
                ("XDG_STATE_HOME", "relative"),
                ("AGENTSPOOL_DIR", ""),
            ],
            format!("{home}/.local/state/agentspool"),
        ),
        (
            vec![("HOME", &*home), ("AGENTSPOOL_DIR", "given")],
            format!("{root}/given"),
        ),
    ] {
        let ran = run_without_spool(&world, &["init", "-q"], &environment);
        ran.succeeds();
        assert_eq!(ran.stdout, format!("{expected}\n"), "{environment:?}");
    }
    let nowhere = run_without_spool(&world, &["init"], &[]);
    nowhere.ends_with(2);
    assert!(nowhere.stderr.contains("--spool DIR"), "{}", nowhere.stderr);
}

#[test]
fn only_the_default_spool_is_created_automatically() {
    let world = World::without_spool();
    let home = world.root().join("home");
    let home = home.to_str().unwrap();
    // Commands that only read create nothing, not even the default spool.
    let ran = run_without_spool(&world, &["list"], &[("HOME", home)]);
    ran.ends_with(8);
    assert!(
        ran.stderr
            .contains("hint: create one with `agentspool init "),
        "{}",
        ran.stderr
    );
    let named = run_without_spool(
        &world,
        &["submit", "--recipe", "x", "--spool", "typo"],
        &[("HOME", home)],
    );
    named.ends_with(8);
    assert!(!world.root().join("typo").exists());
    let by_submit = run_without_spool(&world, &["submit", "--recipe", "x"], &[("HOME", home)]);
    by_submit.ends_with(7);
    assert!(
        world
            .root()
            .join("home/.local/state/agentspool/spool.json")
            .exists()
    );
}

#[test]
fn the_current_folder_is_never_used_without_being_named() {
    let world = World::new();
    let home = world.root().join("home");
    let mut command = std::process::Command::new(PROGRAM);
    command
        .arg("list")
        .env_clear()
        .env("HOME", home)
        .current_dir(world.spool());
    let ran = Ran::of(&mut command);
    ran.ends_with(8);
    assert!(
        ran.stderr.contains("home/.local/state/agentspool"),
        "{}",
        ran.stderr
    );
}

#[test]
fn concurrent_first_commands_create_one_spool() {
    for _ in 0..10 {
        let world = World::without_spool();
        let started: Vec<_> = (0..8).map(|_| world.start(&["init"])).collect();
        for command in started {
            command.end().succeeds();
        }
        let uuid = read_json(&world.path("identity.json"))["uuid"].clone();
        assert_eq!(world.json(&["config"])["uuid"], uuid);
        assert_eq!(names_in(&world.spool().join("tasks")).len(), 0);
    }
}

/// A process that holds the spool's lock does not block `init` if the spool is complete: a service runs
/// `init` at each start.
#[test]
fn init_of_a_complete_spool_does_not_wait_for_its_lock() {
    let gid = rustix::process::getgid().as_raw().to_string();
    for arguments in [&["init"][..], &["init", "--group", &gid]] {
        let world = World::without_spool();
        world.run(arguments).succeeds();
        let lock = std::fs::File::open(world.path("spool.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let ran = world.run(arguments);
        ran.succeeds();
        assert!(ran.stdout.starts_with("spool ready: "), "{}", ran.stdout);
    }
}

#[test]
fn a_private_spool_is_not_turned_into_a_group_spool() {
    let world = World::without_spool();
    world.run(&["init"]).succeeds();
    let before = std::fs::read(world.path("spool.json")).unwrap();
    let gid = rustix::process::getgid().as_raw().to_string();
    let ran = world.run(&["init", "--group", &gid]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("a private spool"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert_eq!(std::fs::read(world.path("spool.json")).unwrap(), before);
    let mode = std::fs::metadata(world.path("tasks")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o7777, 0o700);
}
