//! `install --print` and `uninstall --print`: only the plan, because a test must not change the machine.
//! `tests/systemd` carries it out.

use crate::support::World;

#[test]
fn install_prints_the_units_with_its_own_path() {
    let world = World::new();
    let ran = plan_for(&world, &["install", "--print"], &[]);
    ran.succeeds();
    let own = crate::support::PROGRAM;
    for expected in [
        "# /etc/systemd/system/agentspool.service is written:",
        &format!("ExecStart={own} watch"),
        &format!("ExecStart={own} runner --once %i"),
        "u agentspool - ",
        "polkit.addRule",
        "systemctl enable --now agentspool.service agentspool-sweep.timer",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}\n{}", ran.stdout);
    }
    assert!(
        !ran.stdout.contains("/usr/bin/agentspool"),
        "{}",
        ran.stdout
    );
}

#[test]
fn units_of_a_user_are_in_the_home_and_need_no_root() {
    let world = World::new();
    let plan = world.json(&["install", "--user", "--print"]);
    let files = plan["files"].as_array().unwrap();
    let units = world.root().join("home/.config/systemd/user");
    assert_eq!(files.len(), 4, "{plan}");
    for file in files {
        let path = file["path"].as_str().unwrap();
        assert!(path.starts_with(units.to_str().unwrap()), "{path}");
        let text = file["text"].as_str().unwrap();
        assert!(!text.contains("User="), "{path} names a user:\n{text}");
    }
    assert_eq!(plan["commands"][0][1], "--user");
    assert!(!units.exists(), "--print wrote something");
}

#[test]
fn uninstall_prints_what_is_removed_and_keeps_the_spool() {
    let world = World::new();
    let ran = world.run(&["uninstall", "--print"]);
    ran.succeeds();
    assert!(ran.stdout.contains("agentspool.service is removed"));
    assert!(!ran.stdout.contains("/var/spool"), "{}", ran.stdout);
}

/// The plan of `install` with these arguments and variables, which name the spool.
fn plan_for(
    world: &World,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> crate::support::Ran {
    let mut command = world.command(&[]);
    command.env_remove("AGENTSPOOL_DIR");
    command.envs(environment.iter().copied()).args(arguments);
    crate::support::Ran::of(&mut command)
}

#[test]
fn the_service_of_a_user_uses_the_named_spool() {
    let world = World::new();
    let state = world.root().join("state");
    let (elsewhere, state) = (world.root().join("else"), state.to_str().unwrap());
    let elsewhere = elsewhere.to_str().unwrap();
    let install = ["install", "--user", "--print"];
    let named = [&["--spool", elsewhere][..], &install].concat();
    for (arguments, environment, spool) in [
        (&named[..], None, elsewhere.to_owned()),
        (
            &install,
            Some(("AGENTSPOOL_DIR", elsewhere)),
            elsewhere.to_owned(),
        ),
        (
            &install,
            Some(("XDG_STATE_HOME", state)),
            format!("{state}/agentspool"),
        ),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let ran = plan_for(&world, arguments, &environment);
        ran.succeeds();
        let line = format!("[Service]\nEnvironment=AGENTSPOOL_DIR={spool}\n");
        // The units of the watcher, its tasks and the sweep.
        assert_eq!(ran.stdout.matches(&line).count(), 3, "{}", ran.stdout);
        assert!(!ran.stdout.contains("your own spool"), "{}", ran.stdout);
    }
    let ran = plan_for(&world, &install, &[]);
    assert!(!ran.stdout.contains("AGENTSPOOL_DIR="), "{}", ran.stdout);
    let ran = plan_for(&world, &[&["--spool", "/a b"][..], &install].concat(), &[]);
    ran.ends_with(2);
    assert!(ran.stderr.contains("cannot name the spool /a b"));
}

#[test]
fn the_service_of_the_machine_uses_the_named_spool() {
    let world = World::new();
    let ran = plan_for(&world, &["--spool", "/srv/jobs", "install", "--print"], &[]);
    ran.succeeds();
    for expected in [
        "Environment=AGENTSPOOL_DIR=/srv/jobs\n",
        "init /srv/jobs --group agentspool\n",
        "ReadWritePaths=/srv/jobs\n",
        "d /srv/jobs 2750 agentspool agentspool -\n",
        "\nsystemctl try-restart agentspool.service\n",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("/var/spool/agentspool"));
    // A user's default spool is not the machine's.
    let ran = plan_for(
        &world,
        &["install", "--print"],
        &[("XDG_STATE_HOME", "/state")],
    );
    assert!(
        ran.stdout
            .contains("AGENTSPOOL_DIR=/var/spool/agentspool\n")
    );
    let ran = plan_for(
        &world,
        &["--spool", "/home/ada/jobs", "install", "--print"],
        &[],
    );
    ran.ends_with(4);
    assert!(
        ran.stderr.contains("cannot write below /home"),
        "{}",
        ran.stderr
    );
}
