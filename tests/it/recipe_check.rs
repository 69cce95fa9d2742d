//! Why a recipe cannot run: shown by `recipe list`, `info` and `check`, at submit, and in the task's error.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{PROGRAM, Ran, World, write_executable};

/// A recipe folder with only this manifest.
fn folder(world: &World, name: &str, manifest: &str) -> PathBuf {
    let folder = world.path("recipes").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
    folder
}

/// The test's own PATH with one folder before it, which contains a program of this name.
fn path_with(world: &World, program: &str) -> (PathBuf, String) {
    let tools = world.root().join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    write_executable(&tools.join(program), "#!/bin/sh\necho found\n");
    let rest = std::env::var("PATH").unwrap();
    let path = format!("{}:{rest}", tools.display());
    (tools.join(program), path)
}

fn error_of(world: &World, task: &crate::support::Task) -> String {
    let result = world.result_of(task);
    result["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn the_path_of_the_watcher_is_used_and_named() {
    let world = World::new();
    let (_, with) = path_with(&world, "mytool");
    folder(&world, "tooled", "command = [\"mytool\"]\n");
    write_executable(&world.path("recipes/enved"), "#!/usr/bin/env mytool\n");
    let submit = |recipe: &str, path: &str| {
        let arguments = ["submit", "--recipe", recipe, "-q"];
        Ran::of(world.command(&arguments).env("PATH", path))
    };
    // The watcher has the shorter PATH, so the submitter's PATH does not help.
    let pid = world.start_watcher();
    let without = std::env::var("PATH").unwrap();
    for recipe in ["tooled", "enved"] {
        let ran = submit(recipe, &with);
        ran.ends_with(6);
        let named =
            format!("mytool, which is not on the PATH of the watcher, process {pid} ({without}");
        let named = match recipe {
            "tooled" => named.replace("mytool, which is", "the program mytool is"),
            _ => named.replace("mytool, which", "mytool with `env`, which"),
        };
        assert!(ran.stderr.contains(&named), "{}", ran.stderr);
    }
    world.drop_in("early.json", "{\"recipe\": \"tooled\"}");
    world.wait_until("the drop is refused", || {
        let shown = world.run(&["status", "early"]).stderr;
        shown.contains(&format!(
            "mytool is not on the PATH of the watcher, process {pid}"
        ))
    });
    world.kill_watcher(pid);
    // A watcher that is started by this command gets this PATH, which is then used for the next submit.
    let first = submit("tooled", &with);
    first.succeeds();
    let second = submit("enved", &without);
    second.succeeds();
    for ran in [first, second] {
        let task = world.task(ran.stdout.trim());
        assert_eq!(world.result_of(&task)["status"], "completed");
    }
}

#[test]
fn the_error_of_a_missing_program_names_the_path() {
    let world = World::new();
    world.set("autostart", "false");
    let (program, with) = path_with(&world, "mytool");
    folder(&world, "tooled", "command = [\"mytool\"]\n");
    write_executable(&world.path("recipes/enved"), "#!/usr/bin/env mytool\n");
    // No watcher runs yet, so the task's PATH is not known.
    let tasks = ["tooled", "enved"].map(|recipe| world.submit(&[recipe]));
    std::fs::remove_file(program).unwrap();
    // For `recipe check`, the PATH of this shell is the best guess.
    for recipe in ["tooled", "enved"] {
        let ran = world.run(&["recipe", "check", recipe]);
        ran.ends_with(6);
        assert!(ran.stdout.contains("is not on PATH ("), "{}", ran.stdout);
    }
    let mut watch = world.command(&["watch", "--drain"]);
    Ran::of(watch.env("PATH", &with)).succeeds();
    for task in tasks {
        let error = error_of(&world, &task);
        let named = format!("is not on the PATH of the task ({with}");
        assert!(
            error.contains("mytool") && error.contains(&named),
            "{error}"
        );
    }
}

#[test]
fn a_missing_interpreter_is_named_by_every_command() {
    let world = World::new();
    world.set("autostart", "false");
    let cases = [
        (
            "windows",
            "#!/bin/sh\r\necho hi\r\n",
            "has Windows line endings",
            "sed -i 's/\\r$//' ",
        ),
        (
            "by-env",
            "#!/usr/bin/env python3\r\nprint(1)\r\n",
            "has Windows line endings",
            "sed -i",
        ),
        (
            "absent",
            "#!/nowhere/python3\n",
            "names the interpreter /nowhere/python3, which does not exist",
            "#!/usr/bin/env python3",
        ),
        (
            "relative",
            "#!python3\n",
            "the interpreter python3, which is not a full path",
            "#!/usr/bin/env python3",
        ),
        (
            "shut",
            "#!/etc/passwd\n",
            "/etc/passwd, which is not executable",
            "change the first line",
        ),
        (
            "words",
            "#!/usr/bin/env python3 -u\n",
            "one program named `python3 -u`",
            "#!/usr/bin/env -S python3 -u",
        ),
        (
            "nothing.py",
            "print(1)\n",
            "so /bin/sh would run it",
            "#!/usr/bin/env python3",
        ),
        (
            "option",
            "#!/bin/sh -e\r\necho hi\r\n",
            "has Windows line endings",
            "sed -i",
        ),
        (
            "bom",
            "\u{feff}#!/bin/sh\n",
            "starts with a byte order mark",
            "sed -i '1s",
        ),
    ];
    let mut tasks = Vec::new();
    for (file, ..) in cases {
        world.recipe(file, "#!/bin/sh\n");
        let name = file.trim_end_matches(".py");
        tasks.push(world.submit(&[name]));
    }
    for (file, script, ..) in cases {
        write_executable(&world.path("recipes").join(file), script);
    }
    let list = world.json(&["recipe", "list"]);
    for (at, (file, _, problem, fix)) in cases.iter().enumerate() {
        let name = file.trim_end_matches(".py");
        let check = world.run(&["recipe", "check", name, "--json"]);
        check.ends_with(6);
        let object = check.json();
        assert_eq!((&object["ok"], &object["code"]), (&json!(false), &json!(6)));
        let part = |key: &str| object["problems"][0][key].as_str().unwrap().to_owned();
        assert!(part("problem").contains(problem), "{object}");
        assert!(part("fix").contains(fix), "{object}");
        let submit = world.run(&["submit", "--recipe", name]);
        submit.ends_with(6);
        let info = world.run(&["recipe", "info", name]).stdout;
        let rows = list["recipes"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        for shown in [&submit.stderr, &info, row["problem"].as_str().unwrap()] {
            assert!(
                shown.contains(problem) && shown.contains(fix),
                "{name}: {shown}"
            );
        }
        // A task that was accepted before fails for this reason, unless a shell can run the script.
        if *file != "bom" {
            if at == 0 {
                world.start_watcher();
            }
            let error = error_of(&world, &tasks[at]);
            assert!(error.contains(problem), "{name}: {error}");
        }
    }
}

#[test]
fn working_first_lines_are_not_reported() {
    let world = World::new();
    for (name, line) in [
        ("spaced", "#! /bin/sh"),
        ("option", "#!/bin/sh -e"),
        ("env", "#!/usr/bin/env sh"),
        ("split", "#!/usr/bin/env -S sh -e"),
        ("variables", "#!/usr/bin/env -S A=1 sh"),
        ("none", ""),
    ] {
        world.recipe(name, &format!("{line}\nexit 0\n"));
        world.run(&["recipe", "check", name]).succeeds();
        world.run(&["recipe", "run", name]).succeeds();
    }
}

#[test]
fn a_binary_for_another_system_names_its_loader() {
    let world = World::new();
    // A program header that names a loader, and nothing else: the kernel opens the loader first.
    let mut elf = vec![0u8; 0x200];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 3;
    let loader = b"/lib/ld-nowhere.so\0";
    elf[64 + 9] = 1;
    elf[64 + 32] = loader.len() as u8;
    elf[0x100..0x100 + loader.len()].copy_from_slice(loader);
    world.recipe("binary", "");
    std::fs::write(world.path("recipes/binary"), elf).unwrap();
    let ran = world.run(&["recipe", "check", "binary"]);
    ran.ends_with(6);
    assert!(
        ran.stdout
            .contains("needs the loader /lib/ld-nowhere.so, which does not exist"),
        "{}",
        ran.stdout
    );
}

#[test]
fn the_folder_of_the_recipe_can_be_named_in_arguments() {
    let world = World::new();
    let manifest = "command = [\"sh\", \"{recipe_dir}/main.sh\", \"in={recipe_dir}\"]\n";
    let place = folder(&world, "placed", manifest);
    std::fs::write(place.join("main.sh"), "echo \"$1\"\n").unwrap();
    world.run(&["recipe", "check", "placed"]).succeeds();
    let ran = world.run(&["recipe", "run", "placed"]);
    ran.succeeds();
    assert_eq!(ran.stdout, format!("in={}\n", place.display()));
    // The program itself can be named like this too.
    let manifest = "command = [\"{recipe_dir}/main.sh\", \"again\"]\n";
    folder(&world, "placed", manifest);
    write_executable(&place.join("main.sh"), "#!/bin/sh\necho \"$1\"\n");
    assert_eq!(world.run(&["recipe", "run", "placed"]).stdout, "again\n");
}

#[test]
fn an_argument_that_names_a_file_of_the_recipe_gets_advice() {
    let world = World::new();
    let lost = folder(&world, "lost", "command = [\"sh\", \"-e\", \"main.sh\"]\n");
    let maybe = folder(&world, "maybe", "command = [\"./run.sh\", \"data.txt\"]\n");
    std::fs::write(lost.join("main.sh"), "echo ran\n").unwrap();
    std::fs::write(maybe.join("data.txt"), "here\n").unwrap();
    write_executable(&maybe.join("run.sh"), "#!/bin/sh\ncat \"$1\"\n");
    // This command must fail, so it is refused.
    let ran = world.run(&["submit", "--recipe", "lost"]);
    ran.ends_with(6);
    let advice = "write \"{recipe_dir}/main.sh\" in `command`";
    assert!(ran.stderr.contains(advice), "{}", ran.stderr);
    // This may be intended: there is a note, and the recipe runs.
    let advice = "write \"{recipe_dir}/data.txt\"";
    let check = world.run(&["recipe", "check", "maybe"]);
    check.succeeds();
    assert!(check.stderr.contains(advice), "{}", check.stderr);
    let object = world.json(&["recipe", "check", "maybe"]);
    assert!(
        object["advice"][0].as_str().unwrap().contains(advice),
        "{object}"
    );
    let info = world.run(&["recipe", "info", "maybe"]).stdout;
    assert!(info.contains(advice), "{info}");
    let ran = world.run(&["submit", "--recipe", "maybe", "--name", "gone"]);
    ran.succeeds();
    assert!(ran.stderr.contains(advice), "{}", ran.stderr);
    world.run(&["wait", "gone"]).ends_with(3);
    let error = world.json(&["status", "gone"])["error"]["message"].to_string();
    assert!(error.contains("{recipe_dir}/data.txt"), "{error}");
    // A program of the recipe's folder needs a slash.
    folder(&world, "maybe", "command = [\"run.sh\"]\n");
    let ran = world.run(&["submit", "--recipe", "maybe"]);
    ran.ends_with(6);
    assert!(ran.stderr.contains("write \"./run.sh\""), "{}", ran.stderr);
}

#[test]
fn a_missing_env_file_is_reported_at_once() {
    let world = World::new();
    world.recipe_folder("vars", "env_file = \"secrets\"", "#!/bin/sh\n");
    let ran = world.run(&["submit", "--recipe", "vars"]);
    ran.ends_with(2);
    let file = world.path("recipes/vars/secrets");
    let shown = format!(
        "{}: this `env_file` cannot be read: No such file",
        file.display()
    );
    assert!(ran.stderr.contains(&shown), "{}", ran.stderr);
    assert!(ran.stderr.contains("mode 600"), "{}", ran.stderr);
    assert!(world.tasks().is_empty());
    let list = world.run(&["recipe", "list"]).stdout;
    assert!(list.contains("env_file"), "{list}");
}

#[test]
fn a_file_that_looks_like_a_recipe_is_listed_with_the_reason() {
    let world = World::new();
    let recipes = world.path("recipes");
    world.recipe("works", "#!/bin/sh\n");
    world.recipe("works.sh", "#!/bin/sh\n");
    world.recipe("two words.sh", "#!/bin/sh\n");
    world.recipe_folder("manifest", "", "#!/bin/sh\n");
    std::fs::rename(
        recipes.join("manifest/recipe.toml"),
        recipes.join("manifest/Recipe.toml"),
    )
    .unwrap();
    std::fs::write(recipes.join("plain.py"), "print(1)\n").unwrap();
    std::fs::write(recipes.join("script"), "#!/bin/sh\n").unwrap();
    std::os::unix::fs::symlink("/nowhere", recipes.join("link")).unwrap();
    // These are copies that are not meant to run.
    for copy in [
        "works.bak",
        "works.sh~",
        "works.orig",
        "works.dpkg-old",
        ".works.sh.swp",
    ] {
        world.recipe(copy, "#!/bin/sh\n");
    }
    std::fs::write(recipes.join("notes.txt"), "no recipe\n").unwrap();
    let ran = world.run(&["recipe", "list"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "works\n");
    let expected = [
        ("link", "the target of the link does not exist"),
        ("manifest", "the folder has no recipe.toml"),
        ("plain.py", "it is not executable; chmod +x "),
        ("script", "it is not executable; chmod +x "),
        ("two words.sh", "its name is not the name of a recipe"),
        ("works.sh", "it is hidden by "),
    ];
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}", ran.stderr);
    for ((name, why), line) in expected.iter().zip(lines) {
        let path = recipes.join(name);
        let shown = format!("note: {} is not listed: {why}", path.display());
        assert!(line.starts_with(&shown), "{line}");
    }
    let left_out = &world.json(&["recipe", "list"])["left_out"];
    assert_eq!(left_out.as_array().unwrap().len(), expected.len());
    assert_eq!(left_out[0]["path"], json!(recipes.join("link")));
    let ran = world.run(&["submit", "--recipe", "manifest"]);
    ran.ends_with(2);
    assert!(
        ran.stderr.contains("the folder has no recipe.toml"),
        "{}",
        ran.stderr
    );
}

#[test]
fn check_reports_all_problems_and_runs_nothing() {
    let world = World::new();
    folder(&world, "text", "command = \"./run.sh --fast\"\n");
    let ran = world.run(&["recipe", "check", "text"]);
    ran.ends_with(2);
    let shown = "`command` must be a list of texts";
    assert!(ran.stdout.contains(shown), "{}", ran.stdout);
    let manifest = "command = [\"./run.sh\"]\ntimeout = \"soon\"\nbogus = 1\nenv_file = \"secrets\"\n\
                    max_concurrent = 0\n";
    let place = folder(&world, "broken", manifest);
    write_executable(&place.join("run.sh"), "#!/nowhere/sh\n");
    let ran = world.run(&["recipe", "check", "broken"]);
    ran.ends_with(2);
    for part in [
        "timeout",
        "bogus",
        "max_concurrent",
        "env_file",
        "/nowhere/sh",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let object = world.json(&["recipe", "check", "broken"]);
    let problems = object["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 5, "{object}");
    assert!(problems.iter().all(|problem| problem["fix"] != Value::Null));
    assert!(world.tasks().is_empty() && world.watcher_pids().is_empty());

    let file = world.path("recipes/plain.sh");
    std::fs::write(&file, "#!/bin/sh\r\n").unwrap();
    let object = world.json(&["recipe", "check", "plain"]);
    let fixes: Vec<&str> = object["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["fix"].as_str().unwrap())
        .collect();
    assert!(
        fixes.contains(&&*format!("chmod +x {}", file.display())),
        "{object}"
    );
    assert!(
        fixes.iter().any(|fix| fix.starts_with("sed -i")),
        "{object}"
    );

    world.recipe("good", "#!/bin/sh\n");
    let ran = world.run(&["recipe", "check", "good"]);
    ran.succeeds();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("The recipe good can run\n", "")
    );
    let good = json!({
        "ok": true, "name": "good", "kind": "executable", "path": world.path("recipes/good"),
        "problems": [], "advice": [],
    });
    assert_eq!(world.json(&["recipe", "check", "good"]), good);
    world.run(&["recipe", "check", "goof"]).ends_with(7);
}

/// A line that `recipe new` printed.
fn line<'a>(ran: &'a Ran, begin: &str) -> &'a str {
    let found = ran.stdout.lines().find_map(|line| line.strip_prefix(begin));
    found.unwrap_or_else(|| panic!("no {begin:?} in {}", ran.stdout))
}

#[test]
fn a_new_recipe_runs_with_the_printed_command() {
    let world = World::new();
    let bin = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for (name, arguments, output) in [
        ("first", &[][..], "You said: {\"name\": \"Ada\"}\n"),
        (
            "second",
            &["--lang", "python"],
            "{\"greeting\": \"Hello, Ada!\"}\n",
        ),
    ] {
        let arguments = [&["recipe", "new", name], arguments].concat();
        let made = world.run(&arguments);
        made.succeeds();
        let place = world.path("recipes").join(name);
        assert_eq!(line(&made, "Path: "), place.to_str().unwrap());
        assert!(Path::new(line(&made, "Edit: ")).is_file());
        world.run(&["recipe", "check", name]).succeeds();
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", line(&made, "Try: ")])
            .env_clear()
            .env("PATH", &path);
        shell
            .env("HOME", world.root().join("home"))
            .env("AGENTSPOOL_DIR", world.spool());
        let ran = Ran::of(&mut shell);
        ran.succeeds();
        assert_eq!(ran.stdout, output);
        let task = world.tasks().pop().unwrap();
        let progress = std::fs::read_to_string(task.path.join("attempts/1/progress")).unwrap();
        assert_eq!(progress.lines().count(), 2, "{progress}");
        // The recipe works unchanged. A second `recipe new` is refused and changes nothing.
        let program = std::fs::read(line(&made, "Edit: ")).unwrap();
        let again = world.run(&arguments);
        again.ends_with(2);
        assert!(
            again.stderr.contains(&format!(
                "a recipe with this name exists, {}",
                place.display()
            )),
            "{}",
            again.stderr
        );
        assert_eq!(std::fs::read(line(&made, "Edit: ")).unwrap(), program);
    }
    let mut names = crate::support::names_in(&world.path("recipes"));
    names.sort();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn a_new_recipe_hides_no_other_and_creates_the_default_spool() {
    let world = World::new();
    let more = world.root().join("more");
    std::fs::create_dir(&more).unwrap();
    write_executable(&more.join("taken.sh"), "#!/bin/sh\n");
    world.set("recipe_path", &format!("[{more:?}]"));
    // Names of broken recipes and of other files are taken too.
    folder(&world, "broken", "bogus = 1\n");
    std::fs::create_dir(world.path("recipes/empty")).unwrap();
    for name in ["taken", "broken", "empty", "first.bak"] {
        world.run(&["recipe", "new", name]).ends_with(2);
    }
    let fresh = World::without_spool();
    let mut made = fresh.command(&["recipe", "new", "first", "--json"]);
    let made = Ran::of(made.env_remove("AGENTSPOOL_DIR"));
    made.succeeds();
    let next = made.json()["next"].as_str().unwrap().to_owned();
    assert!(
        next.starts_with("agentspool recipe run first --input "),
        "{next}"
    );
    // If the spool was named, the printed command names it too.
    let named = World::new();
    let spool = named.root().join("my spool");
    named.run(&["init", spool.to_str().unwrap()]).succeeds();
    let made = named.run(&["--spool", spool.to_str().unwrap(), "recipe", "new", "first"]);
    made.succeeds();
    let next = format!("agentspool --spool '{}' recipe run first ", spool.display());
    assert!(line(&made, "Try: ").starts_with(&next), "{}", made.stdout);
}

#[test]
fn a_task_gets_its_own_pwd_and_no_variables_of_the_shell() {
    let world = World::new();
    world.set("autostart", "false");
    let script = "#!/bin/sh\nenv > seen\ncat seen\n";
    world.recipe("shows", script);
    world.recipe_folder("sets", "[env]\nPYTHONUNBUFFERED = \"\"", script);
    let tasks = ["shows", "sets"].map(|recipe| world.submit(&[recipe]));
    let mut watch = world.command(&["watch", "--drain"]);
    watch
        .env("PWD", "/shell")
        .env("OLDPWD", "/earlier")
        .env("_", "/bin/shell");
    Ran::of(&mut watch).succeeds();
    let [shows, sets] = tasks.map(|task| task.result()["output"].as_str().unwrap().to_owned());
    let has = |output: &str, line: &str| output.lines().any(|known| known == line);
    let task = &world.tasks()[0];
    let work = task.path.join("attempts/1/work");
    assert!(has(&shows, &format!("PWD={}", work.display())), "{shows}");
    assert!(has(&shows, "PYTHONUNBUFFERED=1"), "{shows}");
    assert!(has(&sets, "PYTHONUNBUFFERED="), "{sets}");
    assert!(
        !shows.contains("OLDPWD=") && !shows.contains("/bin/shell"),
        "{shows}"
    );
}

/// An interpreter searches for its script in the task's folder, which is empty.
#[test]
fn a_script_that_is_nowhere_gets_advice() {
    let world = World::new();
    for (name, command, is_advised) in [
        ("absent", r#"["python3", "main.py"]"#, true),
        ("inside", r#"["python3", "{recipe_dir}/main.py"]"#, false),
        ("whole", r#"["python3", "/opt/main.py"]"#, false),
        // These words may be commands of the program.
        ("verb", r#"["deno", "run"]"#, false),
        ("code", r#"["python3", "-c", "print(1.5)"]"#, false),
    ] {
        folder(&world, name, &format!("command = {command}\n"));
        let advice = world.json(&["recipe", "check", name])["advice"].to_string();
        let is_there = advice.contains("{recipe_dir}/main.py");
        assert_eq!(is_there, is_advised, "{name}: {advice}");
    }
}
