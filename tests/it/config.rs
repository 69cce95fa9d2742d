//! `config`: every setting with its source, and safe writing of settings.

use serde_json::json;

use crate::support::{Ran, World, read_json};

fn fresh() -> World {
    let world = World::without_spool();
    world.run(&["init"]).succeeds();
    world
}

#[test]
fn the_documented_defaults_are_reported_as_defaults() {
    let world = fresh();
    let object = world.json(&["config"]);
    assert_eq!(object["ok"], true);
    let settings = &object["settings"];
    for (key, value) in [
        ("max_concurrent", json!(5)),
        ("timeout_sec", json!(300.0)),
        ("cleanup_delay_sec", json!(3600.0)),
        ("durability", json!("power")),
    ] {
        let variable = format!("AGENTSPOOL_{}", key.to_uppercase());
        assert_eq!(
            settings[key],
            json!({"value": value, "origin": "default", "variable": variable}),
        );
    }
    let ran = world.run(&["config"]);
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let mut lines = ran.stdout.lines();
    let spool = format!("spool {}", world.spool().display());
    assert_eq!(lines.next(), Some(&*spool));
    let line = lines
        .find(|line| line.starts_with("max_concurrent "))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["max_concurrent", "5", "default"]);
}

#[test]
fn the_flag_wins_over_the_environment_over_the_file() {
    let world = fresh();
    let asked = |environment: Option<&str>, flag: Option<&str>| {
        let mut command = world.command(&["config", "--json"]);
        command.envs(environment.map(|value| ("AGENTSPOOL_MAX_CONCURRENT", value)));
        command.args(flag.map(|value| format!("--set=max_concurrent={value}")));
        let setting = Ran::of(&mut command).json()["settings"]["max_concurrent"].clone();
        (setting["value"].clone(), setting["origin"].clone())
    };
    world.set("max_concurrent", "2");
    assert_eq!(asked(None, None), (json!(2), json!("file")));
    assert_eq!(asked(Some("3"), None), (json!(3), json!("environment")));
    assert_eq!(asked(Some("3"), Some("4")), (json!(4), json!("flag")));
    let mut command = world.command(&["config"]);
    let ran = Ran::of(command.env("AGENTSPOOL_MAX_CONCURRENT", "3"));
    assert!(
        ran.stdout
            .contains("environment (AGENTSPOOL_MAX_CONCURRENT)"),
        "{}",
        ran.stdout
    );
    assert!(world.run(&["config"]).stdout.contains("spool.json"));
}

#[test]
fn a_setting_can_be_set_read_and_unset() {
    let world = fresh();
    let ran = world.run(&["config", "set", "timeout_sec", "600"]);
    ran.succeeds();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("timeout_sec = 600.0\n", "")
    );
    assert_eq!(
        read_json(&world.path("spool.json")),
        json!({"v": 2, "timeout_sec": 600})
    );
    assert_eq!(
        world.run(&["config", "get", "timeout_sec"]).stdout,
        "600.0\n"
    );
    let object = world.json(&["config", "get", "timeout_sec"]);
    assert_eq!(
        object,
        json!({"ok": true, "key": "timeout_sec", "value": 600.0})
    );
    world
        .run(&["config", "set", "umask", "022", "-q"])
        .succeeds();
    assert_eq!(world.run(&["config", "get", "umask"]).stdout, "022\n");
    world.run(&["config", "unset", "umask"]).succeeds();
    let ran = world.run(&["config", "unset", "timeout_sec"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "timeout_sec = 300.0\n");
    assert_eq!(read_json(&world.path("spool.json")), json!({"v": 2}));
    // A duration such as `1h` is stored in seconds.
    for (text, shown) in [("5m", "300.0"), ("1h 30m", "5400.0")] {
        world
            .run(&["config", "set", "cleanup_delay_sec", text])
            .succeeds();
        let got = world.run(&["config", "get", "cleanup_delay_sec"]).stdout;
        assert_eq!(got, format!("{shown}\n"));
    }
    assert!(read_json(&world.path("spool.json"))["cleanup_delay_sec"].is_number());
    std::fs::write(
        world.path("spool.json"),
        r#"{"v":2,"cancelled_cleanup_delay_sec":"2h","timeout_sec":"90s"}"#,
    )
    .unwrap();
    for (key, shown) in [
        ("timeout_sec", "90.0"),
        ("cancelled_cleanup_delay_sec", "7200.0"),
    ] {
        let got = world.run(&["config", "get", key]).stdout;
        assert_eq!(got, format!("{shown}\n"), "{key}");
    }
    std::fs::write(world.path("spool.json"), r#"{"v":2}"#).unwrap();
    // A setting that is not set can be unset.
    world.run(&["config", "unset", "timeout_sec"]).succeeds();
}

#[test]
fn a_refused_change_leaves_the_file_unchanged() {
    let world = fresh();
    world.set("max_concurrent", "3");
    let before = std::fs::read(world.path("spool.json")).unwrap();
    for (arguments, message) in [
        (
            &["set", "max_concurent", "4"][..],
            "did you mean `max_concurrent`?",
        ),
        (&["set", "max_concurrent", "0"], "must be from 1 to 10000"),
        (
            &["set", "max_concurrent", "many"],
            "`max_concurrent` has a wrong value: expected a whole number",
        ),
        (&["set", "min_free_bytes", "1.5"], "a whole number"),
        (
            &["set", "timeout_sec", "soon"],
            "must be seconds or a duration",
        ),
        (
            &["set", "timeout_sec", "true"],
            "expected seconds or a duration",
        ),
        (&["set", "autostart", "5"], "expected true or false"),
        (&["set", "recipe_path", "5"], "expected a list"),
        (&["set", "timeout_sec", "1e12"], "`timeout_sec`"),
        (&["set", "umask", "999"], "octal"),
        (&["set", "durability", "luck"], "`durability`"),
        (&["set", "v", "2"], "no setting is called `v`"),
        (&["get", "nothing"], "no setting is called `nothing`"),
        (&["unset", "nothing"], "no setting is called `nothing`"),
    ] {
        let mut all = vec!["config"];
        all.extend(arguments);
        let ran = world.run(&all);
        ran.ends_with(2);
        for word in ["f64", "u32", "u64", "Duration", "sequence"] {
            assert!(!ran.stderr.contains(word), "{arguments:?}: {}", ran.stderr);
        }
        assert_eq!(ran.stdout, "");
        assert!(
            ran.stderr.contains(message),
            "{arguments:?}: {}",
            ran.stderr
        );
        assert_eq!(world.json(&all)["code"], 2);
        assert_eq!(
            std::fs::read(world.path("spool.json")).unwrap(),
            before,
            "{arguments:?}"
        );
    }
    let mut command = world.command(&["list"]);
    let ran = Ran::of(command.env("AGENTSPOOL_MAX_CONCURRENT", "none"));
    ran.ends_with(2);
    assert!(
        ran.stderr.contains("AGENTSPOOL_MAX_CONCURRENT"),
        "{}",
        ran.stderr
    );
    world.run(&["list", "--set", "max_concurrent"]).ends_with(2);
}

#[test]
fn a_setting_by_flag_is_not_written_to_the_file() {
    let world = fresh();
    let ran = world.run(&[
        "config",
        "set",
        "rescan_sec",
        "1",
        "--set",
        "max_concurrent=9",
    ]);
    ran.succeeds();
    assert_eq!(
        read_json(&world.path("spool.json")),
        json!({"v": 2, "rescan_sec": 1})
    );
}

/// A wrong key keeps every command from opening the spool, and this one removes it.
#[test]
fn a_setting_that_cannot_be_used_is_removed_by_its_name() {
    let world = World::new();
    let path = world.path("spool.json");
    for (wrong, name, printed) in [
        (
            "{\"v\": 2, \"max_concurrnt\": 4}",
            "max_concurrnt",
            "max_concurrnt is removed\n",
        ),
        (
            "{\"v\": 2, \"max_concurrent\": 0}",
            "max_concurrent",
            "max_concurrent = 5\n",
        ),
    ] {
        std::fs::write(&path, wrong).unwrap();
        let ran = world.run(&["list"]);
        ran.ends_with(8);
        let advice = format!("`agentspool config unset {name}`");
        assert!(ran.stderr.contains(&advice), "{}", ran.stderr);
        assert_eq!(
            world.run(&["config", "unset", name]).succeeds().stdout,
            printed
        );
        world.run(&["list"]).succeeds();
    }
    world
        .run(&["config", "unset", "max_concurrnt"])
        .ends_with(2);
}

#[test]
fn sizes_and_no_limit_are_accepted_as_people_write_them() {
    let world = World::new();
    for (key, text, stored) in [
        ("min_free_bytes", "16M", "16777216"),
        ("log_cap_bytes", "2G", "2147483648"),
        ("max_finished_bytes", "512K", "524288"),
        ("max_finished_bytes", "none", "null"),
        ("max_finished_tasks", "none", "null"),
    ] {
        world.run(&["config", "set", key, text]).succeeds();
        assert_eq!(
            world.run(&["config", "get", key]).stdout,
            format!("{stored}\n")
        );
    }
    for (key, text, advice) in [
        ("min_free_bytes", "16 apples", "a size such as 16M"),
        (
            "recipe_path",
            "/opt/recipes",
            "such as '[\"/opt/recipes\"]'",
        ),
        ("cleanup_delay_sec", "-5", "must be from 0"),
        ("max_concurrent", "none", "max_concurrent"),
    ] {
        let ran = world.run(&["config", "set", key, text]);
        ran.ends_with(2);
        assert!(ran.stderr.contains(advice), "{}", ran.stderr);
    }
}

#[test]
fn a_setting_is_not_removed_where_no_spool_is() {
    let world = World::without_spool();
    let ran = world.run(&["--spool", "nowhere", "config", "unset", "max_concurrent"]);
    ran.ends_with(8);
    assert!(
        ran.stderr.contains("create one with `agentspool init"),
        "{}",
        ran.stderr
    );
}
