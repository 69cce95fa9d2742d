//! The limits of a task and its environment: the cap of its logs, its timeout, its progress, and what its
//! recipe is given.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::support::{Task, World};

const MIB: u64 = 1 << 20;

fn quiet_world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world
}

#[test]
fn a_log_over_its_cap_keeps_its_start_and_its_end() {
    let world = World::new();
    world.set("log_cap_bytes", "1048576");
    // 8 MiB in lines of 1 KiB; a pause in the middle, so that the log is cut while it grows.
    world.recipe(
        "talks",
        "#!/bin/sh\necho the first line\n\
         part() { dd if=/dev/zero bs=1024 count=4096 2>/dev/null | tr '\\0' x | fold -w 1023; echo; }\n\
         part\ntouch half\nwhile [ ! -e go ]; do sleep 0.01; done\npart\necho the last line\n",
    );
    let task = world.submit(&["talks"]);
    world.wait_for_file(&task.work(1, "half"));
    let dropped = || task.status()["log_bytes_dropped"].as_u64().unwrap_or(0);
    world.wait_until("the log is cut while the task runs", || dropped() > 2 * MIB);
    std::fs::write(task.work(1, "go"), "").unwrap();
    let result = world.result_of(&task);
    assert_eq!(result["status"], "completed", "{result}");
    let size = result["metrics"]["stdout_bytes"].as_u64().unwrap();
    assert!(size > 8 * MIB, "{size}");
    world.wait_until("the status is final", || {
        task.status()["status"] == "completed"
    });
    let path = task.path.join("attempts/1/stdout.log");
    let on_disk = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&path).unwrap().blocks() * 512
    };
    assert!(on_disk <= MIB, "{on_disk} bytes on the disk");
    // All bytes that are not counted as dropped are there.
    assert!(size - dropped() <= on_disk, "{} of {size}", dropped());

    let ran = world.run(&["logs", &task.id, "--stdout"]);
    ran.succeeds();
    assert!(ran.stdout.starts_with("the first line\nxxx"));
    assert!(ran.stdout.ends_with("xxx\nthe last line\n"));
    assert!(
        !ran.stdout.contains('\0'),
        "no zero byte of the hole is printed"
    );
    let report = format!("{} bytes", dropped());
    let whole = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        whole.contains(&report),
        "no note of {report}: {}",
        ran.stderr
    );
    assert!((ran.stdout.len() as u64) <= size - dropped() + 100);
    let shown = world.run(&["logs", &task.id, "--stdout", "--lines", "1"]);
    assert_eq!(shown.stdout, "the last line\n");

    // A copy of a spool need not keep holes: the record names what was cut out.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let copied = world.run(&["logs", &task.id, "--stdout"]);
    assert_eq!(copied.stdout, ran.stdout);
    assert_eq!(copied.stderr, ran.stderr);
}

#[test]
fn a_log_under_its_cap_is_whole() {
    let world = World::new();
    world.recipe("talks", "#!/bin/sh\nseq 1 20000\necho warned >&2\n");
    let task = world.submit(&["talks"]);
    world.result_of(&task);
    let ran = world.run(&["logs", &task.id, "--stdout"]);
    assert_eq!(ran.stdout.lines().count(), 20000);
    assert_eq!(task.status()["log_bytes_dropped"], Value::Null);
}

#[test]
fn the_timeout_is_that_of_the_request_or_the_recipe_or_the_settings() {
    let world = quiet_world();
    world.set("timeout_sec", "77");
    world.recipe("plain", "#!/bin/sh\nexit 0\n");
    world.recipe_folder("patient", "timeout = \"1h30m\"", "#!/bin/sh\nexit 0\n");
    let cases = [
        (vec!["plain"], 77.0),
        (vec!["patient"], 5400.0),
        (vec!["plain", "--timeout", "2m"], 120.0),
        (vec!["patient", "--timeout", "12.5"], 12.5),
    ];
    let tasks: Vec<(Task, f64)> = cases
        .into_iter()
        .map(|(arguments, expected)| (world.submit(&arguments), expected))
        .collect();
    world.run(&["watch", "--drain"]).succeeds();
    for (task, expected) in tasks {
        assert_eq!(task.run_file(1)["timeout_sec"], expected);
    }
}

#[test]
fn progress_is_seen_while_the_task_runs() {
    let world = World::new();
    world.recipe(
        "steps",
        "#!/bin/sh\nstep() { while [ ! -e \"$1\" ]; do sleep 0.01; done; }\n\
         echo '25 Reading pages' >>\"$AGENTSPOOL_PROGRESS_FILE\"\nstep one\n\
         echo '{\"progress\": 0.5, \"message\": \"Half of it\"}' >>\"$AGENTSPOOL_PROGRESS_FILE\"\nstep two\n\
         agentspool progress 75 -m 'Nearly there'\nstep three\n\
         echo 'nonsense' >>\"$AGENTSPOOL_PROGRESS_FILE\"\nexit 3\n",
    );
    let task = world.submit(&["steps"]);
    for (progress, message, go) in [
        (0.25, "Reading pages", "one"),
        (0.5, "Half of it", "two"),
        (0.75, "Nearly there", "three"),
    ] {
        world.wait_until(message, || {
            let status = world.json(&["status", &task.id]);
            status["status"] == "running"
                && status["progress"] == progress
                && status["message"] == message
        });
        std::fs::write(task.work(1, go), "").unwrap();
    }
    let result = world.result_of(&task);
    assert_eq!(result["exit_code"], 3);
    // A task that failed does not get the progress 1.
    let status = world.json(&["status", &task.id]);
    assert_eq!(
        (&status["status"], &status["progress"]),
        (&json!("failed"), &json!(0.75))
    );
}

fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .collect()
}

/// The short name of an attempt's folder.
fn temp_link(task: &Task, attempt: u32) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let id = task.id.strip_prefix("task_").unwrap();
    format!("/tmp/agentspool-{uid}/{id}-{attempt}")
}

/// Programs put sockets below TMPDIR, and the path of a socket has at most 107 bytes. The short name is
/// removed at the end, even if the runner was killed first. Its target is removed with the task.
#[test]
fn a_socket_fits_into_the_temporary_folder_and_its_short_name_is_removed_at_the_end() {
    let world = World::new();
    world.set("autostart", "false");
    let toml = "on_lost = \"requeue\"\nmax_attempts = 2";
    let script = "#!/bin/sh\nmkdir pymp-12345678\ntouch ready\n\
                  until [ -e go ]; do sleep 0.02; done\n";
    world.recipe_folder("serves", toml, script);
    let task = world.submit(&["serves"]);
    world.start_watcher();
    for attempt in [1, 2] {
        world.wait_for_file(&task.work(attempt, "ready"));
        let link = std::path::PathBuf::from(temp_link(&task, attempt));
        let (runner, _) = world.processes_of(&task, attempt);
        assert_eq!(
            std::fs::read_link(&link).unwrap(),
            task.work(attempt, "").parent().unwrap().join("work")
        );
        let folder = std::fs::metadata(link.parent().unwrap()).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        let socket = link.join("pymp-12345678/listener-12345678");
        std::os::unix::net::UnixListener::bind(&socket).unwrap();
        if attempt == 1 {
            world.signal(runner, rustix::process::Signal::KILL);
        } else {
            std::fs::write(task.work(attempt, "go"), "").unwrap();
            assert_eq!(world.result_of(&task)["status"], "completed");
        }
        world.wait_until("the short name is removed", || {
            std::fs::symlink_metadata(&link).is_err()
        });
        assert!(
            task.work(attempt, "pymp-12345678/listener-12345678")
                .exists()
        );
    }
}

#[test]
fn a_recipe_gets_the_documented_environment_only() {
    let world = quiet_world();
    world.recipe_folder(
        "looks",
        "env_accept = [\"TOKEN\"]\n[env]\nFROM_RECIPE = \"yes\"\n[config]\ndepth = 1\nwidth = 2",
        "#!/bin/sh\nenv >env\npwd >pwd\numask >umask\ncat >stdin\n\
         ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p' >fds\n\
         grep -E 'Sig(Blk|Ign)' /proc/self/status >signals\n\
         cp \"$AGENTSPOOL_INPUT_FILE\" input; printf '{\"a\": 1}' >\"$AGENTSPOOL_RESULT_FILE\"\n\
         touch made; touch \"$TMPDIR/in-tmp\"; touch \"$AGENTSPOOL_SESSION_DIR/kept\"; echo said\n",
    );
    let task = world.submit(&[
        "looks",
        "--input",
        "{\"q\": \"é\"}",
        "--config",
        "{\"depth\": 5}",
        "--session-id",
        "chat",
        "--env",
        "TOKEN=t0k",
    ]);
    // A watcher that has other open files and variables of all kinds.
    let mut watch = std::process::Command::new("sh");
    watch
        .args(["-c", "exec 7</dev/null 8>held \"$0\" watch --drain"])
        .arg(crate::support::PROGRAM)
        .env("AGENTSPOOL_DIR", world.spool())
        .env("AGENTSPOOL_LOG", "warn")
        .env("NOTIFY_SOCKET", "/run/systemd/notify")
        .env("OF_THE_WATCHER", "kept")
        .current_dir(world.root());
    assert!(watch.status().unwrap().success());

    let result = task.result();
    assert_eq!(
        result["status"],
        "completed",
        "{}",
        task.read("attempts/1/stderr.log")
    );
    assert_eq!(
        result["output"],
        json!({"a": 1}),
        "the result file goes before stdout"
    );
    let work = task.path.join("attempts/1/work");
    let read = |name: &str| std::fs::read_to_string(work.join(name)).unwrap();
    let text = read("env");
    let env = variables(&text);
    let spool = world.spool().to_str().unwrap().to_owned();
    let folder = format!("{spool}/tasks/{}", task.id);
    let uuid = crate::support::read_json(&world.path("identity.json"))["uuid"].clone();
    let attempt = std::fs::metadata(task.path.join("attempts/1")).unwrap();
    let attempt = format!("{}:{}", attempt.dev(), attempt.ino());
    for (name, expected) in [
        ("AGENTSPOOL_DIR", spool.clone()),
        ("AGENTSPOOL_TASK_ID", task.id.clone()),
        ("AGENTSPOOL_TASK_DIR", folder.clone()),
        ("AGENTSPOOL_ATTEMPT", "1".into()),
        ("AGENTSPOOL_RECIPE_DIR", format!("{spool}/recipes/looks")),
        (
            "AGENTSPOOL_INPUT_FILE",
            format!("{folder}/attempts/1/input.json"),
        ),
        ("AGENTSPOOL_SESSION_ID", "chat".into()),
        (
            "AGENTSPOOL_SESSION_DIR",
            format!("{spool}/sessions/chat/state"),
        ),
        (
            "AGENTSPOOL_PROGRESS_FILE",
            format!("{folder}/attempts/1/progress"),
        ),
        (
            "AGENTSPOOL_RESULT_FILE",
            format!("{folder}/attempts/1/output"),
        ),
        (
            "AGENTSPOOL_MARK",
            format!("{}/{}/1/{attempt}", uuid.as_str().unwrap(), task.id),
        ),
        ("TMPDIR", temp_link(&task, 1)),
        ("TOKEN", "t0k".into()),
        ("FROM_RECIPE", "yes".into()),
        ("OF_THE_WATCHER", "kept".into()),
    ] {
        assert_eq!(env.get(name), Some(&expected.as_str()), "{name}");
    }
    let config: Value = serde_json::from_str(env["AGENTSPOOL_CONFIG"]).unwrap();
    assert_eq!(config, json!({"depth": 5, "width": 2}));
    for name in ["AGENTSPOOL_LOG", "NOTIFY_SOCKET"] {
        assert!(
            !env.contains_key(name),
            "{name} is none of a recipe's business"
        );
    }
    assert_eq!(read("pwd").trim(), work.to_str().unwrap());
    assert_eq!(read("umask").trim(), "0022");
    assert_eq!(read("stdin"), "{\"q\": \"é\"}");
    assert_eq!(read("input"), read("stdin"));
    let mode = std::fs::metadata(work.join("made"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(work.join("in-tmp").exists());
    // 0 to 2; the one that `ls` itself opened is left out.
    let fds = read("fds");
    let open: Vec<&str> = fds
        .lines()
        .filter(|line| !line.contains("/proc/"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(open, ["0", "1", "2"], "{fds}");
    // Signals that end or notify a program have their default action, whatever this test inherited.
    let promised = [1, 2, 3, 13, 15, 17].map(|signal| 1u64 << (signal - 1));
    let promised: u64 = promised.iter().sum();
    for line in read("signals").lines() {
        let (name, bits) = line.split_once(":\t").unwrap();
        let bits = u64::from_str_radix(bits, 16).unwrap();
        assert_eq!(bits & promised, 0, "{name}");
    }
    assert!(
        !task.path.join("env.json").exists(),
        "the variables are removed at the task's end"
    );
}

#[test]
fn the_umask_of_recipes_is_a_setting() {
    let world = quiet_world();
    world.set("umask", "077");
    world.recipe("makes", "#!/bin/sh\ntouch made\n");
    let task = world.submit(&["makes"]);
    world.run(&["watch", "--drain"]).succeeds();
    let mode = std::fs::metadata(task.work(1, "made"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_large_output_stays_a_file_that_the_result_names() {
    let world = quiet_world();
    world.recipe(
        "large",
        "#!/bin/sh\ndd if=/dev/zero bs=1024 count=2048 2>/dev/null | tr '\\0' y\n",
    );
    let task = world.submit(&["large"]);
    world.run(&["watch", "--drain"]).succeeds();
    let result = task.result();
    assert_eq!(result["output"], Value::Null);
    let file = result["output_file"].as_str().unwrap();
    assert_eq!(
        std::fs::metadata(task.path.join(file)).unwrap().len(),
        2 * MIB
    );
}

#[test]
fn an_env_file_that_others_may_read_is_not_used() {
    let world = World::new();
    let script = "#!/bin/sh\necho \"$TOKEN\"\n";
    world.recipe_folder("vars", "env_file = \"secrets\"", script);
    let secrets = world.path("recipes/vars/secrets");
    std::fs::write(&secrets, "TOKEN=hunter2\n").unwrap();
    let set_mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&secrets, permissions).unwrap();
    };
    for mode in [0o644, 0o640, 0o604, 0o620] {
        set_mode(mode);
        let ran = world.run(&["submit", "--recipe", "vars"]);
        ran.ends_with(2);
        assert!(
            ran.stderr.contains("other users can access it"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    // The file becomes readable for others after the task was accepted.
    world.set("autostart", "false");
    set_mode(0o600);
    let task = world.submit(&["vars"]);
    set_mode(0o640);
    world.run(&["watch", "--drain"]).succeeds();
    let result = task.result();
    assert_eq!(result["error"]["kind"], "recipe", "{result}");
    let shown = result["error"]["message"].as_str().unwrap();
    assert!(shown.contains("other users can access it"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    set_mode(0o600);
    let task = world.submit(&["vars"]);
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(task.result()["output"], "hunter2");
}

#[test]
fn a_program_is_found_as_a_shell_finds_it() {
    let world = quiet_world();
    let folders = ["shut", "open", "gone"].map(|name| world.root().join(name));
    let executable =
        |yes: bool| std::os::unix::fs::PermissionsExt::from_mode(if yes { 0o755 } else { 0o644 });
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
        // Has no `#!` line: a shell runs it.
        std::fs::write(folder.join("tool"), "echo \"$0 says $1\"\n").unwrap();
        std::fs::set_permissions(folder.join("tool"), executable(true)).unwrap();
    }
    let [shut, open, gone] = &folders;
    let search = |folders: &[&std::path::PathBuf]| {
        let path = std::env::join_paths(folders).unwrap();
        format!("[env]\nPATH = \"/nowhere:{}\"", path.display())
    };
    let tasks = [
        ("found", search(&[gone, shut, open])),
        ("shut", search(&[gone, shut])),
        ("nowhere", search(&[gone])),
    ]
    .map(|(recipe, search)| {
        let folder = world.path("recipes").join(recipe);
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = format!("command = [\"tool\", \"hello\"]\n{search}\n");
        std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
        // It is only on the recipe's PATH.
        world.submit(&[recipe])
    });
    // From now on both are skipped: one is not executable, one is missing.
    std::fs::set_permissions(shut.join("tool"), executable(false)).unwrap();
    std::fs::remove_dir_all(gone).unwrap();
    world.run(&["watch", "--drain"]).succeeds();
    let [found, shut, nowhere] = tasks.map(|task| task.result());
    assert_eq!(
        found["output"],
        format!("{}/tool says hello", open.display())
    );
    for (result, why) in [(shut, "Permission denied"), (nowhere, "No such file")] {
        assert_eq!(result["error"]["kind"], "spawn", "{result}");
        let message = result["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("failed to start tool: ") && message.contains(why),
            "{message}"
        );
    }
}

/// The shell that starts the watcher may have a low limit of open files and a strict umask. The low limit
/// must not stop our processes. A recipe gets both.
#[test]
fn limits_of_the_starting_shell_reach_recipes_but_stop_no_watcher() {
    for (setting, expected) in [
        ("ulimit -S -n 64; umask 077", "64 0077"),
        ("ulimit -n 64; umask 002", "64 0022"),
    ] {
        let world = World::new();
        world.recipe("asks", "#!/bin/sh\necho $(ulimit -Sn) $(umask)\n");
        let lines = "{\"recipe\":\"asks\"}\n".repeat(120);
        std::fs::write(world.root().join("lines"), lines).unwrap();
        let script = format!("{setting}; exec \"$0\" --quiet submit --batch lines");
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &script, crate::support::PROGRAM])
            .env("AGENTSPOOL_DIR", world.spool())
            .env("HOME", world.root())
            .current_dir(world.root());
        let ran = crate::support::Ran::of(&mut command);
        ran.succeeds();
        assert_eq!(ran.stdout.lines().count(), 120, "{}", ran.stderr);
        let last = world.task(ran.stdout.lines().last().unwrap());
        assert_eq!(world.result_of(&last)["output"], expected, "{setting}");
    }
}
