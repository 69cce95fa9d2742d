//! Whoever only looks at another user's spool: what the owner wrote there starts nothing and opens nothing
//! in the reader's name.
//!
//! Not the other direction, what a user of the group can do to the owner (`member.rs`, `hostile.rs`). The
//! Python package is a reader as well: `python/tests/test_readers.py`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use serde_json::Value;

use crate::group::{GROUP, MEMBER, OWNER, Shared};
use crate::support::{names_in, write_executable};

const ROOT: u32 = 0;

/// A recipe folder of the owner's.
fn folder(shared: &Shared, name: &str, file: &str, content: &str) -> PathBuf {
    let folder = shared.spool().join("recipes").join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(file), content).unwrap();
    for path in [&folder, &folder.join(file)] {
        chown(path, Some(OWNER), Some(GROUP)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// A folder in which everybody may leave something.
fn open_to_all(shared: &Shared, name: &str) -> PathBuf {
    let folder = shared.world.root().join(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

#[test]
fn a_reader_starts_no_program_that_the_owner_names() {
    let shared = Shared::new();
    folder(&shared, "asks", "TEMPLATE.yaml", "description: Asks\n");
    let started = open_to_all(&shared, "started");
    let python = shared.world.root().join("python");
    let script = format!("#!/bin/sh\ntouch {}/$(id -u)\n", started.display());
    write_executable(&python, &script);
    let setting = [
        "config",
        "set",
        "praisonai_python",
        python.to_str().unwrap(),
    ];
    shared.run(OWNER, &setting).succeeds();
    for reader in [MEMBER, ROOT] {
        for arguments in [
            ["recipe", "list"].as_slice(),
            &["recipe", "info", "asks"],
            &["submit", "--recipe", "asks"],
            &["recipe", "run", "asks", "--background"],
            &["doctor"],
        ] {
            shared.run(reader, arguments);
            assert_eq!(names_in(&started), [""; 0], "{reader}: {arguments:?}");
        }
    }
    // The owner does find out.
    shared.run(OWNER, &["recipe", "list"]).succeeds();
    assert_eq!(names_in(&started), [OWNER.to_string()]);
}

#[test]
fn a_reader_opens_no_env_file_and_looks_on_no_path() {
    let shared = Shared::new();
    let private = shared.world.root().join("private");
    fs::write(&private, "PATH=/nowhere\n").unwrap();
    chown(&private, Some(MEMBER), None).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    let toml = format!(
        "command = [\"sh\"]\nenv_file = {:?}\n",
        private.display().to_string()
    );
    folder(&shared, "curious", "recipe.toml", &toml);
    // What the owner's watcher finds on its PATH is not the reader's to say.
    folder(
        &shared,
        "elsewhere",
        "recipe.toml",
        "command = [\"only-there\"]\n",
    );
    let listed = shared.json(MEMBER, &["recipe", "list"]);
    for recipe in listed["recipes"].as_array().unwrap() {
        assert_eq!(recipe["problem"], Value::Null, "{recipe}");
    }
    let owners = shared.json(OWNER, &["recipe", "info", "elsewhere"]);
    assert!(owners["problem"].is_string(), "{owners}");
}
