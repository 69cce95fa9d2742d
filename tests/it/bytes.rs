//! The output of a recipe is returned byte for byte, and every file that is written can be read again.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::terminal::On;
use crate::support::{Task, World};

/// Bytes that are not text, without a newline at the end.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
}

/// A recipe with these bytes as its stdout or as its result file.
fn recipe_with_output(world: &World, name: &str, bytes: &[u8], as_file: bool) {
    let path = world.root().join(format!("{name}.bytes"));
    std::fs::File::create(&path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
    let to = if as_file {
        " > \"$AGENTSPOOL_RESULT_FILE\""
    } else {
        ""
    };
    world.recipe(name, &format!("#!/bin/sh\ncat '{}'{to}\n", path.display()));
}

fn stdout_of(world: &World, arguments: &[&str]) -> Vec<u8> {
    let output = world.command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

fn ended(world: &World, recipe: &str) -> (Task, Value) {
    let task = world.submit(&[recipe]);
    let result = world.result_of(&task);
    (task, result)
}

#[test]
fn bytes_that_are_not_utf_8_are_not_changed() {
    let world = World::new();
    // Latin-1, a character that is cut, half of a pair of surrogates, and more than 1 MiB.
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("image", noise(3000), "stdout.log"),
        ("latin", b"caf\xe9\n".to_vec(), "stdout.log"),
        ("cut", "prix: 3 €".as_bytes()[..10].to_vec(), "output"),
        ("surrogate", b"\xed\xa0\x80".to_vec(), "output"),
        ("large", noise(1_500_000), "stdout.log"),
        (
            "late",
            [vec![b'x'; 2_000_000], vec![0xff]].concat(),
            "output",
        ),
    ];
    for (name, bytes, file) in &cases {
        recipe_with_output(&world, name, bytes, *file == "output");
        assert!(
            stdout_of(&world, &["recipe", "run", name]) == *bytes,
            "{name}"
        );
        let submitted = stdout_of(&world, &["submit", "--wait", "--recipe", name]);
        assert!(submitted == *bytes, "{name}");
        let (task, result) = ended(&world, name);
        assert!(stdout_of(&world, &["result", &task.id]) == *bytes, "{name}");
        assert_eq!(result["output"], Value::Null, "{name}");
        assert_eq!(result["output_file"], format!("attempts/1/{file}"));
        assert_eq!(result["output_encoding"], "binary", "{name}");
        assert_eq!(world.json(&["result", &task.id]), result);
        let waited = world.json(&["wait", &task.id])["tasks"][0].clone();
        let listed = world.json(&["list", "--page-size", "1"])["tasks"][0].clone();
        for shown in [world.json(&["status", &task.id]), waited, listed] {
            assert_eq!(shown["output_encoding"], "binary", "{name}: {shown}");
            assert_eq!(shown["result"], Value::Null, "{name}");
            assert_eq!(shown["output_file"], format!("attempts/1/{file}"));
        }
    }
}

#[test]
fn text_is_not_changed() {
    let world = World::new();
    for (name, bytes) in [
        ("blank", &b"  \n"[..]),
        ("line", b"\n"),
        ("mark", "\u{feff}42\n".as_bytes()),
        ("nul", b"a\0b\n"),
        ("escapes", b"\x1b[1mbold\x1b[0m\r\n"),
        ("space", "\u{a0}42\u{a0}\n".as_bytes()),
        ("lone", b"\"\\ud800\"\n"),
        ("twice", b"{\"a\": 1, \"a\": 2}\n"),
        ("beyond", b"1e999\n"),
        (
            "digits",
            b"{\"n\": 123456789012345678901234567890, \"x\": 1.10}\n",
        ),
    ] {
        recipe_with_output(&world, name, bytes, false);
        let (task, result) = ended(&world, name);
        assert_eq!(result["output_encoding"], Value::Null, "{name}");
        assert_ne!(result["output"], Value::Null, "{name}");
        let shown = stdout_of(&world, &["result", &task.id]);
        assert_eq!(
            shown,
            bytes,
            "{name} gave {:?}",
            String::from_utf8_lossy(&shown)
        );
    }
    // JSON output keeps all digits of a number.
    for arguments in [
        &["result", "last", "--json"][..],
        &["status", "last", "--json"],
        &["wait", "last", "--json"],
        &["list", "--json"],
    ] {
        let text = String::from_utf8(stdout_of(&world, arguments)).unwrap();
        assert!(
            text.contains("123456789012345678901234567890"),
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn a_result_file_that_is_not_a_regular_file_does_not_hide_stdout() {
    let world = World::new();
    for (n, made) in ["ln -s work \"$F\"", "mkdir \"$F\"", "mkfifo \"$F\""]
        .into_iter()
        .enumerate()
    {
        let script = format!("#!/bin/sh\nF=$AGENTSPOOL_RESULT_FILE\n{made}\necho printed\n");
        world.recipe(&format!("r{n}"), &script);
        let (_, result) = ended(&world, &format!("r{n}"));
        assert_eq!(result["output"], "printed", "{made}");
    }
    let log = std::fs::read_to_string(world.path("watchers/log")).unwrap();
    assert_eq!(log.matches("is not a regular file").count(), 3, "{log}");
    // Empty next to printed output, a hard link, and two files that are only a hole.
    world.recipe(
        "others",
        "#!/bin/sh\ncase $(cat) in\n\
         *empty*) : > \"$AGENTSPOOL_RESULT_FILE\";;\n\
         *link*) echo linked > x; ln x \"$AGENTSPOOL_RESULT_FILE\";;\n\
         *sparse*) truncate -s 3 \"$AGENTSPOOL_RESULT_FILE\";;\n\
         *huge*) truncate -s 1T \"$AGENTSPOOL_RESULT_FILE\";;\nesac\necho printed\n",
    );
    for (input, output) in [
        ("empty", json!("printed")),
        ("link", json!("linked")),
        ("sparse", json!("\0\0\0")),
        ("huge", Value::Null),
    ] {
        let task = world.submit(&["others", "--input", input]);
        assert_eq!(world.result_of(&task)["output"], output, "{input}");
    }
}

#[test]
fn a_log_that_is_not_text_is_refused_as_json() {
    let world = World::new();
    world.recipe("r", "#!/bin/sh\nprintf 'caf\\351\\n'; echo fine >&2\n");
    let (task, _) = ended(&world, "r");
    let shown = world.json(&["logs", &task.id]);
    assert_eq!(shown["stdout"], "caf\u{fffd}\n");
    assert_eq!(shown["stdout_encoding"], "binary");
    assert_eq!(shown.get("stderr_encoding"), None);
}

#[test]
fn a_line_after_a_huge_hole_is_found_at_once() {
    let world = World::new();
    world.recipe(
        "r",
        "#!/bin/sh\nseq 3; truncate -s 4T /proc/self/fd/1; printf '\\nlast'\n",
    );
    let (task, _) = ended(&world, "r");
    let last = world.run(&["logs", &task.id, "--stdout", "-n", "1"]);
    last.succeeds();
    assert_eq!(last.stdout, "last");
    // On a terminal, the number of zero bytes is shown; a pipe gets the bytes; JSON has no room for them.
    let seen = world.run_on_terminal(On::All, 80, &["logs", &task.id, "--stdout"]);
    let seen = seen.stdout.replace('\0', "");
    assert_eq!(seen, "1\n2\n3\n[4398046445568 zero bytes]\n\nlast");
    world
        .run(&["logs", &task.id, "--json", "--stdout"])
        .ends_with(2);
}

/// A text of control characters is six times as long in JSON.
#[test]
fn files_of_any_text_can_be_read_again() {
    let world = World::new();
    world.set("autostart", "false");
    let control = "\u{1}".repeat(60_000);
    recipe_with_output(
        &world,
        "controls",
        "\u{1}".repeat(1_000_000).as_bytes(),
        false,
    );
    recipe_with_output(&world, "some", "\u{1}".repeat(170_000).as_bytes(), true);
    world.recipe_folder(
        "wants",
        "env_accept = [\"A\", \"B\", \"C\", \"D\"]",
        "#!/bin/sh\nprintf %s \"$A\" | wc -c\n",
    );

    let plain = world.submit(&["controls"]);
    let some = world.submit(&["some"]);
    let metadata = json!({ "note": control.repeat(2) }).to_string();
    std::fs::write(world.root().join("metadata"), metadata).unwrap();
    let noted = world.submit(&["some", "--metadata", "@metadata"]);
    world.drop_in(
        "labelled.json",
        &json!({ "recipe": "some", "label": control }).to_string(),
    );

    // Up to a megabyte of variables is accepted; more is refused at once.
    let value = format!("A={control}");
    let taken = world.submit(&["wants", "--env", &value]);
    let mut arguments = vec!["submit", "--recipe", "wants"];
    let many: BTreeMap<&str, String> = ["A", "B", "C", "D"]
        .map(|name| (name, format!("{name}={control}")))
        .into();
    for value in many.values() {
        arguments.extend(["--env", value]);
    }
    let refused = world.run(&arguments);
    refused.ends_with(2);
    assert!(
        refused.stderr.contains("the limit is 1048576 bytes"),
        "{:.300}",
        refused.stderr
    );
    assert_eq!(world.tasks().len(), 4, "nothing is left of it");

    world.run(&["watch", "--drain"]).succeeds();
    let tasks = world.tasks();
    assert_eq!(tasks.len(), 5);
    for task in &tasks {
        let shown = world.json(&["status", &task.id]);
        assert_eq!(shown["status"], "completed", "{}", task.id);
        assert_eq!(shown["condition"], Value::Null);
        for file in ["result.json", "status.json", "request.json"] {
            assert!(task.read(file).len() < 4 << 20, "{file}");
        }
    }
    assert_eq!(taken.result()["output"], 60_000);
    let shown = world.json(&["status", &noted.id]);
    assert_eq!(shown["metadata"]["note"].as_str().unwrap().len(), 120_000);
    // Long as JSON: a file. Just short enough: a value.
    assert_eq!(plain.result()["output_file"], "attempts/1/stdout.log");
    assert_eq!(plain.result()["output_encoding"], Value::Null);
    assert!(stdout_of(&world, &["result", &plain.id]) == vec![1; 1_000_000]);
    assert_eq!(some.result()["output"].as_str().unwrap().len(), 170_000);

    // All tasks can be swept.
    world.set("cleanup_delay_sec", "0");
    world.run(&["sweep"]).succeeds();
    world.run(&["sweep"]).succeeds();
    assert_eq!(world.tasks().len(), 0);
}

#[test]
fn settings_that_would_become_unreadable_are_refused() {
    let world = World::new();
    let path = world.path("spool.json");
    // Written by hand, and as long as can be read. Our own formatting would make it longer.
    let folders: Vec<String> = (0..300_000).map(|n| format!("/{n}")).collect();
    let settings = json!({ "v": 2, "recipe_path": folders }).to_string();
    std::fs::write(&path, &settings).unwrap();
    world.run(&["config", "get", "max_concurrent"]).succeeds();
    let refused = world.run(&["config", "set", "max_concurrent", "3"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("the file was not changed"),
        "{:.300}",
        refused.stderr
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), settings);
}

#[test]
fn an_error_message_is_one_short_line() {
    let world = World::new();
    let odd = "\u{1}\n".repeat(60);
    std::fs::create_dir_all(world.path("recipes/odd")).unwrap();
    let manifest = format!("command = [{}]\n", json!(format!("./{odd}")));
    std::fs::write(world.path("recipes/odd/recipe.toml"), manifest).unwrap();
    std::fs::write(world.path("recipes/odd").join(&odd), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("recipes/odd").join(&odd), mode).unwrap();
    let (task, result) = ended(&world, "odd");
    assert_eq!(result["status"], "failed");
    let message = result["error"]["message"].as_str().unwrap();
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(task.read("result.json").len() < 4096);
}

/// `cp disk.img /dev/stdout` makes holes. They are zero bytes of the output.
#[test]
fn holes_made_by_a_recipe_are_zero_bytes_of_its_output() {
    let world = World::new();
    world.set("log_cap_bytes", "1048576");
    let image = world.root().join("image");
    let mut bytes = vec![b'a'; 100_000];
    bytes.resize(3 << 20, 0);
    bytes.extend(b"END\n");
    {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::create(&image).unwrap();
        file.write_all_at(&bytes[..100_000], 0).unwrap();
        file.write_all_at(b"END\n", 3 << 20).unwrap();
    }
    let image = image.display();
    world.recipe(
        "stdout",
        &format!("#!/bin/sh\ncp --sparse=always '{image}' /dev/stdout\n"),
    );
    world.recipe(
        "file",
        &format!("#!/bin/sh\ncp '{image}' $AGENTSPOOL_RESULT_FILE\n"),
    );
    for recipe in ["stdout", "file"] {
        let task = world.submit(&[recipe]);
        assert_eq!(world.result_of(&task)["output_encoding"], Value::Null);
        let given = stdout_of(&world, &["result", &task.id]);
        assert!(given == bytes, "{recipe}: {} bytes", given.len());
        assert_eq!(task.status()["log_bytes_dropped"], Value::Null, "{recipe}");
    }

    // Holes before and after the part that is cut out.
    world.recipe(
        "both",
        "#!/bin/sh\nprintf begin; truncate -s 200000 /dev/stdout\n\
         head -c 9000000 /dev/zero | tr '\\0' x\ntouch written\n\
         while [ ! -e go ]; do sleep 0.01; done\n\
         truncate -s 20000000 /dev/stdout; printf end\n",
    );
    let task = world.submit(&["both"]);
    world.wait_for_file(&task.work(1, "written"));
    // With the hole at its start, the log is under its cap as soon as this much is cut out.
    world.wait_until("the log is cut", || {
        task.status()["log_bytes_dropped"].as_u64() > Some(7_900_000)
    });
    std::fs::write(task.work(1, "go"), "").unwrap();
    world.result_of(&task);
    let given = stdout_of(&world, &["result", &task.id]);
    let dropped = task.status()["log_bytes_dropped"].as_u64().unwrap();
    assert_eq!(given.len() as u64, 20_000_003 - dropped);
    assert!(given[5..200_000].iter().all(|byte| *byte == 0));
    let ours = 9_200_000 - dropped as usize;
    assert!(given[200_000..ours].iter().all(|byte| *byte == b'x'));
    let (zeroes, last) = given[ours..].split_at(given.len() - ours - 3);
    assert!(zeroes.iter().all(|byte| *byte == 0) && last == b"end");
}

/// Each new log is longer than the end of the cut when it is checked.
#[test]
fn a_cut_is_forgotten_once_the_recipe_starts_its_log_again() {
    let world = World::new();
    world.set("log_cap_bytes", "1048576");
    let wait = "while [ ! -e go ]; do sleep 0.01; done";
    let many = "head -c 9000000 /dev/zero | tr '\\0' x; touch written";
    for (name, again, bytes) in [
        ("shorter", "echo short >/dev/stdout", b"short\n".to_vec()),
        (
            "sparse",
            "cp --sparse=always ../../../../../image /dev/stdout",
            {
                let mut bytes = vec![0; 20_000_000];
                bytes[5_000_000..5_000_003].copy_from_slice(b"mid");
                bytes
            },
        ),
    ] {
        let script = format!("#!/bin/sh\n{many}\n{wait}\n{again}\n");
        if bytes.len() > 100 {
            std::fs::write(world.path("image"), &bytes).unwrap();
        }
        world.recipe(name, &script);
        let task = world.submit(&[name]);
        world.wait_for_file(&task.work(1, "written"));
        world.wait_until("the log is cut", || {
            task.status()["log_bytes_dropped"].as_u64() > Some(7_900_000)
        });
        std::fs::write(task.work(1, "go"), "").unwrap();
        world.result_of(&task);
        let given = stdout_of(&world, &["logs", &task.id]);
        assert!(given == bytes, "{name}: {} bytes", given.len());
        assert_eq!(task.status()["log_bytes_dropped"], Value::Null, "{name}");
    }
    // A recipe that writes into the hole leaves the rest of the hole.
    let inside = format!(
        "#!/bin/sh\n{many}\n{wait}\nprintf x | dd of=/dev/stdout bs=1 seek=5000000 conv=notrunc 2>/dev/null\n"
    );
    world.recipe("inside", &inside);
    let task = world.submit(&["inside"]);
    world.wait_until("the log is cut", || {
        task.status()["log_bytes_dropped"].as_u64() > Some(7_900_000)
    });
    std::fs::write(task.work(1, "go"), "").unwrap();
    world.result_of(&task);
    assert!(task.status()["log_bytes_dropped"].as_u64() > Some(7_900_000));
}
