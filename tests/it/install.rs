//! `install --print` and `uninstall --print`: the plan, which is all that can be tried without a
//! machine to spare. Doing it is tests/systemd.

use crate::support::World;

#[test]
fn it_prints_the_units_with_its_own_path() {
    let world = World::new();
    let ran = world.run(&["install", "--print"]);
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
fn a_users_units_lie_below_the_home_and_need_no_root() {
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
fn uninstall_prints_what_goes_and_keeps_the_spool() {
    let world = World::new();
    let ran = world.run(&["uninstall", "--print"]);
    ran.succeeds();
    assert!(ran.stdout.contains("agentspool.service is removed"));
    assert!(!ran.stdout.contains("/var/spool"), "{}", ran.stdout);
}
