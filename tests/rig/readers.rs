//! A user who only reads another user's spool: what the owner wrote there starts no program and opens no file
//! as the reader.
//!
//! Not the other direction, what a user of the group can do to the owner (`group_user.rs`, `hostile.rs`). The
//! Python package is a reader as well: `python/tests/test_readers.py`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use serde_json::Value;

use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::support::terminal::{On, Terminal};
use crate::support::{names_in, write_executable};

const ROOT: u32 = 0;

/// A recipe folder of the owner.
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

/// A folder in which every user may create files.
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
    // Not directly below a folder in which any user could put a `pyvenv.cfg`.
    let bin = shared.world.root().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
    let python = bin.join("python");
    let script = format!("#!/bin/sh\ntouch {}/$(id -u)\n", started.display());
    write_executable(&python, &script);
    let setting = [
        "config",
        "set",
        "praisonai_python",
        python.to_str().unwrap(),
    ];
    shared.run(OWNER, &setting).succeeds();
    for reader in [GROUP_USER, ROOT] {
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
    // The owner gets the answer.
    shared.run(OWNER, &["recipe", "list"]).succeeds();
    assert_eq!(names_in(&started), [OWNER.to_string()]);
}

#[test]
fn a_reader_opens_no_env_file_and_searches_no_path() {
    let shared = Shared::new();
    let private = shared.world.root().join("private");
    fs::write(&private, "PATH=/nowhere\n").unwrap();
    chown(&private, Some(OWNER), None).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    let toml = format!(
        "command = [\"sh\"]\nenv_file = {:?}\n",
        private.display().to_string()
    );
    folder(&shared, "curious", "recipe.toml", &toml);
    // The reader cannot know what the owner's watcher finds on its PATH.
    folder(
        &shared,
        "elsewhere",
        "recipe.toml",
        "command = [\"only-there\"]\n",
    );
    // Root could open it.
    for reader in [GROUP_USER, ROOT] {
        let listed = shared.json(reader, &["recipe", "list"]);
        for recipe in listed["recipes"].as_array().unwrap() {
            assert_eq!(recipe["problem"], Value::Null, "{recipe}");
        }
    }
    let owners = shared.json(OWNER, &["recipe", "info", "curious"]);
    assert!(owners["problem"].is_string(), "{owners}");
    let owners = shared.json(OWNER, &["recipe", "info", "elsewhere"]);
    assert!(owners["problem"].is_string(), "{owners}");
}

/// Characters that move a cursor, hide text, or start a line.
const ODD: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}2J\nFORGED\r\u{202e}";

fn is_plain(ran: &crate::support::Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let odd =
            text.contains(|c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}');
        let forged = text.lines().any(|line| line.starts_with("FORGED"));
        assert!(!odd && !forged, "{text:?}");
    }
}

/// Changes one of the owner's JSON files.
fn change(path: &std::path::Path, key: &str, value: Value) {
    let mut object = crate::support::read_json(path);
    object[key] = value;
    fs::write(path, object.to_string()).unwrap();
}

#[test]
fn text_of_the_owner_is_escaped_on_a_readers_terminal() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    let toml = format!(
        "command = [\"/bin/true\", {0}]\ndescription = {0}\nenv_accept = [\"A\"]\n[config]\n{0} = {0}\n",
        serde_json::to_string(ODD).unwrap()
    );
    folder(&shared, "odd", "recipe.toml", &toml);
    folder(
        &shared,
        "wrong",
        "recipe.toml",
        &format!(
            "command = [\"a\"]\n{} = 1\n",
            serde_json::to_string(ODD).unwrap()
        ),
    );
    let spool = shared.spool();
    let check = || {
        for arguments in [
            ["status", &id].as_slice(),
            &["list"],
            &["result", &id],
            &["wait", &id],
            &["logs", &id],
            &["cancel", &id],
            &["status", "refused"],
            &["wait", "refused"],
            &["recipe", "list"],
            &["recipe", "info", "odd"],
            &["recipe", "info", "wrong"],
            &["submit", "--recipe", "wrong"],
            &["config"],
            &["doctor"],
            &["list", "--json"],
            &["status", &id, "--json"],
        ] {
            is_plain(&shared.run(GROUP_USER, arguments));
        }
    };
    let reason = serde_json::json!({
        "v": 1, "name": "refused", "reason": ODD, "hint": ODD, "rejected_at": "2026-11-27T08:20:30.874Z",
    });
    let rejected = spool.join(format!("rejected/{id}-refused"));
    fs::write(format!("{}.json", rejected.display()), "{}").unwrap();
    fs::write(
        format!("{}.reason.json", rejected.display()),
        reason.to_string(),
    )
    .unwrap();
    let result = spool.join(format!("tasks/{id}/result.json"));
    let kept = fs::read(&result).unwrap();
    for (key, value) in [
        ("error", serde_json::json!({"kind": "exit", "message": ODD})),
        ("error", serde_json::json!({"kind": ODD, "message": "m"})),
        ("output_file", Value::from(format!("attempts/1/{ODD}"))),
        (ODD, Value::from(1)),
        ("status", Value::from(ODD)),
    ] {
        if key == "output_file" {
            change(&result, "output", Value::Null);
        }
        change(&result, key, value);
        check();
        fs::write(&result, &kept).unwrap();
    }
    change(&spool.join("identity.json"), "uuid", Value::from(ODD));
    for (key, value) in [
        ("praisonai_python", Value::from(format!("/{ODD}"))),
        ("recipe_path", serde_json::json!([format!("/{ODD}")])),
        ("umask", Value::from(ODD)),
        (ODD, Value::from(1)),
    ] {
        let settings = spool.join("spool.json");
        let kept = fs::read(&settings).unwrap();
        change(&settings, key, value);
        check();
        fs::write(&settings, &kept).unwrap();
    }
}

/// If inode numbers repeat, as on btrfs, a stranger's lock of his own file looks in the kernel's table like a
/// lock of the owner's file. Here another user locks exactly that file.
#[test]
fn only_a_lock_of_the_owner_counts() {
    let shared = Shared::new();
    let watcher_file = shared
        .spool()
        .join("watchers/0123456789abcdef0123456789abcdef.json");
    fs::write(&watcher_file, "{\"v\": 1, \"pid\": 1}\n").unwrap();
    chown(&watcher_file, Some(OWNER), Some(GROUP)).unwrap();
    let inode = fs::metadata(&watcher_file).unwrap().ino();
    for (holder, is_believed) in [(OTHER_GROUP_USER, false), (OWNER, true)] {
        fs::set_permissions(&watcher_file, fs::Permissions::from_mode(0o644)).unwrap();
        let mut locking = shared.as_user(holder, "flock");
        let locking = locking.args(["-F", "-x", watcher_file.to_str().unwrap(), "sleep", "1000"]);
        let mut locking = locking.spawn().unwrap();
        shared.world.wait_until("the file is locked", || {
            let table = fs::read_to_string("/proc/locks").unwrap();
            table.contains(&format!(" {} ", locking.id())) && table.contains(&format!(":{inode} "))
        });
        fs::set_permissions(&watcher_file, fs::Permissions::from_mode(0o600)).unwrap();
        let ran = shared.run(GROUP_USER, &["submit", "--recipe", "echo"]);
        locking.kill().unwrap();
        locking.wait().unwrap();
        let is_missed = ran.stderr.contains("no watcher is running");
        assert_eq!(!is_missed, is_believed, "{holder}: {}", ran.stderr);
    }
}

/// A terminal gets text in pieces: a character that is split over two pieces is still shown.
#[test]
fn a_character_split_over_two_pieces_is_shown() {
    let shared = Shared::new();
    let recipe =
        "#!/bin/sh\ni=0; printf a; while [ $i -lt 40000 ]; do printf 'é表'; i=$((i+1)); done\n";
    shared.recipe("long", recipe);
    shared.recipe(
        "slow",
        "#!/bin/sh\nprintf 'first \\360\\237'\nwhile [ ! -e go ]; do sleep 0.01; done\nprintf '\\221\\251 last\\303'\n",
    );
    let long = shared.json(OWNER, &["submit", "--recipe", "long"]);
    let slow = shared.json(OWNER, &["submit", "--recipe", "slow"]);
    let watching = shared.watcher();
    let id = |task: &Value| task["task_id"].as_str().unwrap().to_owned();
    let on_terminal = |arguments: &[&str]| {
        let mut command = shared.as_user(GROUP_USER, "agentspool");
        Terminal::start(command.args(arguments), On::Stdout, 80)
    };
    let following = on_terminal(&["logs", "-f", &id(&slow)]);
    let world = &shared.world;
    world.wait_until("the first part is shown", || {
        following.seen().contains("first ")
    });
    let folder = shared.spool().join("tasks").join(id(&slow));
    fs::write(folder.join("attempts/1/work/go"), "").unwrap();
    // A character that is never completed is shown at the end.
    assert_eq!(following.end().stdout, "first 👩 last\\xc3");
    world.wait_for_file(
        &shared
            .spool()
            .join("tasks")
            .join(id(&long))
            .join("result.json"),
    );
    let whole = format!("a{}", "é表".repeat(40_000));
    for verb in [["logs", &id(&long)], ["result", &id(&long)]] {
        let shown = on_terminal(&verb).end().stdout;
        assert_eq!(shown.trim_end(), whole, "{verb:?}");
    }
    drop(watching);
}
