//! The files that decide what a recipe of a group spool runs, and the users who could change them.
//!
//! Not the modes of a spool (`convert.rs`). Checked: a recipe is run only if nobody but the owner and root
//! could add, write or exchange what it runs.

mod around;

use std::fs;
use std::os::unix::fs::chown;

use crate::group::{GROUP, GROUP_USER, OWNER, Shared};
use crate::support::{Ran, names_in, write_executable};

/// The recipe is refused with this in the message, and `doctor` reports the same.
#[track_caller]
fn is_refused(shared: &Shared, recipe: &str, what: &str) {
    let ran = shared.run(OWNER, &["submit", "--recipe", recipe]);
    assert_eq!(ran.code, 4, "{recipe}: {}", ran.stderr);
    assert!(ran.stderr.contains(what), "{what}\n{}", ran.stderr);
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    let message = format!("the recipe {recipe} is not run: ");
    assert!(doctor.contains(&message), "{doctor}");
}

/// A shell script that the owner runs in his folder. `$R` is `recipes/`, and `recipe NAME LINES` creates a
/// recipe with `run.sh`.
fn make(shared: &Shared, script: &str) {
    let all = format!(
        "set -e; umask 022; R=$PWD/spool/recipes; HERE=$PWD\n\
         recipe() {{ mkdir $R/$1; printf \"$2\" >$R/$1/recipe.toml; \
         printf '#!/bin/sh\\ntrue\\n' >$R/$1/run.sh; chmod 755 $R/$1/run.sh; }}\n\
         open() {{ mkdir $2; chgrp {GROUP} $2; chmod $1 $2; }}\n{script}"
    );
    shared.shell(OWNER, &all).succeeds();
}

/// A sticky bit stops a user from exchanging a file, but not from adding one.
#[test]
fn a_sticky_folder_counts_as_open_if_files_are_searched_in_it() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner").display().to_string();
    make(
        &shared,
        "open 1775 st; mkdir st/own; open 1775 listed; cp $R/echo listed/inlisted\n\
         printf '#!/bin/sh\\ntrue\\n' >st/prog; chmod 755 st/prog; (umask 077; echo A=b >st/env)\n\
         run='command = [\"./run.sh\"]\\n'; path=\"$run[env]\\nPATH = \\\"/bin:$HERE/st\"\n\
         recipe path \"$path\\\"\\n\"; recipe missing \"$path/gone\\\"\\n\"; recipe back \"$path/own/..\\\"\\n\"\n\
         recipe program \"command = [\\\"$HERE/st/prog\\\"]\\n\"\n\
         recipe folder \"$run\"; chmod 1775 $R/folder\n\
         recipe within \"$run\"; open 1775 $R/within/plugins\n\
         recipe dangling \"$run\"; ln -s $HERE/st/plugins $R/dangling/plugins\n\
         recipe fine \"$path/own\\\"\\n\"; recipe envfile \"${run}env_file = \\\"$HERE/st/env\\\"\\n\"",
    );
    let listed = format!("[\"{here}/listed\"]");
    shared
        .run(OWNER, &["config", "set", "recipe_path", &listed])
        .succeeds();
    for (recipe, what) in [
        ("path", "st"),
        ("missing", "st"),
        ("back", "st"),
        ("program", "st"),
        ("folder", "spool/recipes/folder"),
        ("within", "spool/recipes/within/plugins"),
        ("dangling", "st"),
        ("inlisted", "listed"),
    ] {
        let message = format!("{here}/{what}: group {GROUP} may write there, and its sticky bit");
        is_refused(&shared, recipe, &message);
    }
    // A sticky folder on the way to an existing, closed file is accepted: nobody else can exchange the file.
    for recipe in ["fine", "envfile"] {
        shared
            .run(OWNER, &["submit", "--recipe", recipe])
            .succeeds();
    }
}

/// A program that is named without a slash, and every program that a first line names.
#[test]
fn the_program_and_its_interpreter_need_the_same_trust_as_the_recipe() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner").display().to_string();
    make(
        &shared,
        "mkdir bin; open 2775 team; for p in bin/mode team/linked bin/fine; do \
         printf '#!/bin/sh\\ntrue\\n' >$p; chmod 755 $p; done\n\
         chgrp 64100 bin/mode; chmod 775 bin/mode; ln -s ../team/linked bin/linked; cp /bin/sh team/interp\n\
         printf \"#!$HERE/team/interp\\n\" >bin/second; chmod 755 bin/second\n\
         bare() { recipe $1 \"command = [\\\"$1\\\"]\\n[env]\\nPATH = \\\"$HERE/bin:/bin\\\"\\n\"; }\n\
         bare mode; bare linked; bare fine; bare second\n\
         for r in interp nested env split; do recipe $r 'command = [\"./run.sh\"]\\n'; done\n\
         printf \"#!$HERE/team/interp -x\\n\" >$R/interp/run.sh\n\
         printf \"#! $HERE/bin/second\\n\" >$R/nested/run.sh\n\
         for r in env split; do printf \"[env]\\nPATH = \\\"$HERE/bin:/bin\\\"\\n\" >>$R/$r/recipe.toml; done\n\
         printf '#!/usr/bin/env linked\\n' >$R/env/run.sh\n\
         printf '#!/usr/bin/env -S mode -u\\n' >$R/split/run.sh\n\
         open 1775 py; mkdir py/bin; ln -s /bin/sh py/bin/python3; recipe venv 'command = [\"./run.sh\"]\\n'\n\
         printf \"#!$HERE/py/bin/python3\\n\" >$R/venv/run.sh",
    );
    for (recipe, what) in [
        ("mode", "bin/mode"),
        ("linked", "team"),
        ("second", "team"),
        ("interp", "team"),
        ("nested", "team"),
        ("env", "team"),
        ("split", "bin/mode"),
        ("venv", "py"),
    ] {
        let message = format!("{here}/{what}: group {GROUP} may write there");
        is_refused(&shared, recipe, &message);
    }
    shared
        .run(OWNER, &["submit", "--recipe", "fine"])
        .succeeds();
}

/// If others could choose the interpreter that PraisonAI's program names, it is not started, neither for a
/// query nor for a task.
#[test]
fn the_interpreter_of_praisonai_needs_the_same_trust_as_the_recipe() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner");
    let ran = shared.world.root().join("ran");
    fs::create_dir(&ran).unwrap();
    chown(&ran, Some(OWNER), None).unwrap();
    let python = format!("#!/bin/sh\n: >{}/it\n", ran.display());
    make(
        &shared,
        "mkdir bin; open 2775 team; printf \"#!$HERE/team/python3\\n\" >bin/praisonai; chmod 755 bin/praisonai\n\
         for r in own given; do mkdir $R/$r; echo 'a: 1' >$R/$r/agents.yaml; done\n\
         printf \"[env]\\nPATH = \\\"$HERE/bin:/bin\\\"\\n\" >$R/own/recipe.toml",
    );
    write_executable(&here.join("team/python3"), &python);
    chown(here.join("team/python3"), Some(OWNER), None).unwrap();
    is_refused(&shared, "own", "/team: group");
    let path = format!("{}/bin:{}", here.display(), std::env::var("PATH").unwrap());
    let with_path = |arguments: &[&str]| {
        let mut command = shared.as_user(OWNER, "agentspool");
        command.env("PATH", &path).args(arguments);
        Ran::of(&mut command)
    };
    let doctor = with_path(&["doctor"]).stdout;
    let message = "the recipe given is not run: ";
    assert!(doctor.contains(message), "{doctor}");
    let submitted = with_path(&["submit", "--recipe", "given", "--json"]).json();
    with_path(&["watch", "--drain"]).succeeds();
    let result = shared.run(OWNER, &["result", submitted["task_id"].as_str().unwrap()]);
    assert!(result.stderr.contains(message), "{}", result.stderr);
    assert!(!ran.join("it").exists());
}

/// Lines that the kernel, `env` and a person read in different ways, and programs that start another program.
#[test]
fn a_first_line_that_could_start_other_programs_is_refused() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner").display().to_string();
    let lines = [
        ("setting", "/usr/bin/env -S PATH=$HERE/team prog", None),
        ("option", "/usr/bin/env -iSprog", None),
        ("long", "/usr/bin/env --split-string=prog", None),
        ("quoted", "/usr/bin/env -S \\\"prog\\\"", None),
        ("variable", "/usr/bin/env -S \\${PROG}", None),
        ("folder", "/usr/bin/perl -I$HERE/team", None),
        ("bytes", "$HERE/b\\344r/sh", Some("b\\xe4r")),
        ("space", "$HERE/a\\302\\240b/sh", Some("a\u{a0}b")),
        ("script", "/bin/sh $HERE/team/prog", Some("team")),
        ("starter", "/usr/bin/nice prog", Some("team")),
        (
            "list",
            "/usr/bin/env -S java -cp $HERE/bin:$HERE/team Main",
            None,
        ),
        (
            "names",
            "/usr/bin/env -S ld.so --preload libm.so.6:$HERE/team/x /bin/true",
            None,
        ),
        ("shell", "/usr/bin/env -S sh -c true;$HERE/team/prog", None),
        ("upwards", "/bin/sh ../../../../../../team/prog", None),
        ("above", "../../../../../../team/prog", None),
        ("climbs", "/usr/bin/env ../../../../../../team/prog", None),
    ];
    let mut script = "mkdir bin; open 2775 team; printf '#!/bin/sh\\ntrue\\n' >team/prog; chmod 755 team/prog\n\
         ln -s ../team/prog bin/prog; bytes=$(printf 'b\\344r'); open 2775 \"$bytes\"\n\
         space=$(printf 'a\\302\\240b'); open 2775 \"$space\"; cp /bin/sh \"$bytes/sh\"; cp /bin/sh \"$space/sh\"\n"
        .to_owned();
    let plain = [
        ("options", "/bin/sh -e", None),
        ("split", "/usr/bin/env -S sh -e", None),
    ];
    for (recipe, line, _) in lines.iter().chain(&plain) {
        script += &format!(
            "recipe {recipe} 'command = [\"./run.sh\"]\\n'\n\
             printf \"[env]\\nPROG = \\\"prog\\\"\\nPATH = \\\"$HERE/bin:/bin\\\"\\n\" >>$R/{recipe}/recipe.toml\n\
             printf \"#!{line}\\ntrue\\n\" >$R/{recipe}/run.sh\n"
        );
    }
    make(&shared, &script);
    for (recipe, _, folder) in lines {
        let message = match folder {
            Some(folder) => format!("{here}/{folder}: group {GROUP} may write there"),
            None => format!("{here}/spool/recipes/{recipe}/run.sh: its first line has options"),
        };
        is_refused(&shared, recipe, &message);
    }
    for (recipe, ..) in plain {
        shared
            .run(OWNER, &["submit", "--recipe", recipe])
            .succeeds();
    }
}

/// A relative folder of PATH leads upwards from the task's folder, as `..` does.
#[test]
fn a_recipe_with_a_relative_folder_in_its_own_path_is_refused() {
    let shared = Shared::new();
    let mut script = "run='command = [\"./run.sh\"]\\n'\n".to_owned();
    let paths = [
        ("relative", "../../team:/bin"),
        ("dot", "./../../team:/bin"),
        ("empty", "/bin:"),
    ];
    for (recipe, path) in paths {
        script += &format!(
            "recipe {recipe} \"$run[env]\\nPATH = \\\"{path}\\\"\\n\"\n\
             recipe file-{recipe} \"${{run}}env_file = \\\"env\\\"\\n\"; (umask 077; echo PATH={path} >$R/file-{recipe}/env)\n"
        );
    }
    make(&shared, &script);
    for (recipe, _) in paths {
        is_refused(&shared, recipe, "has an empty or relative folder");
        is_refused(
            &shared,
            &format!("file-{recipe}"),
            "has an empty or relative folder",
        );
    }
}

/// The kernel limits a chain of interpreters, but `env` starts a new chain.
#[test]
fn a_chain_of_scripts_is_followed_to_its_end() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner").display().to_string();
    make(
        &shared,
        "open 2775 team; mkdir bin; n=0; while [ $n -lt 12 ]; do \
         printf \"#!/usr/bin/env p$((n + 1))\\n\" >bin/p$n; n=$((n + 1)); done\n\
         printf \"#!$HERE/team/last\\n\" >bin/p12; printf '#!/usr/bin/env again\\n' >bin/again; chmod 755 bin/*\n\
         for r in p0 again; do recipe $r \"command = [\\\"$r\\\"]\\n[env]\\nPATH = \\\"$HERE/bin:/bin\\\"\\n\"; done",
    );
    let message = format!("{here}/team: group {GROUP} may write there");
    is_refused(&shared, "p0", &message);
    // A script that starts itself is followed once.
    shared
        .run(OWNER, &["submit", "--recipe", "again"])
        .succeeds();
}

/// If the first program of a name does not start, the next one does.
#[test]
fn each_program_of_a_name_on_the_recipes_path_counts() {
    let shared = Shared::new();
    let here = shared.world.root().join("owner").display().to_string();
    make(
        &shared,
        &format!(
            "mkdir a b; for p in a/gone a/mode b/gone b/mode b/env; do \
             printf '#!/bin/sh\\ntrue\\n' >$p; chmod 755 $p; done\n\
             printf '#!/no/such\\n' >a/gone; chmod 645 a/mode; chgrp {GROUP} b/*; chmod 775 b/*\n\
             printf '#!/no/such\\n' >a/env; chmod 755 a/env; mv b/env b/named; mv a/env a/named\n\
             path=\"[env]\\nPATH = \\\"$HERE/a:$HERE/b:/bin\\\"\\n\"\n\
             for r in gone mode; do recipe $r \"command = [\\\"$r\\\"]\\n$path\"; done\n\
             recipe named \"command = [\\\"./run.sh\\\"]\\n$path\"; printf '#!/usr/bin/env named\\n' >$R/named/run.sh"
        ),
    );
    for recipe in ["gone", "mode", "named"] {
        let message = format!("{here}/b/{recipe}: group {GROUP} may write there");
        is_refused(&shared, recipe, &message);
    }
}

/// A recipe that is refused for its place is not read: its manifest may be a link to a private file.
#[test]
fn a_recipe_that_others_could_have_put_there_is_not_read() {
    const SECRETS: [&str; 5] = [
        "yAnz5TFlXXJte14tji3zlMNqhd2rYUIgJBgB3fBmk=",
        "https://bob:ghp_TOKEN123@example.org/x?y=1",
        "session = \"hunter2\"",
        "command = [\"a\"]\nhunter3 = 1",
        "description = \"hunter4",
    ];
    let shared = Shared::new();
    let here = shared.world.root().join("owner");
    make(
        &shared,
        "open 2775 team; mkdir private; chmod 700 private; umask 002; mkdir $R/two\n\
         printf 'command = [\"./run.sh\"]\\n' >$R/two/recipe.toml; chmod 2775 $R/two",
    );
    let listed = format!("[\"{}/team\"]", here.display());
    shared
        .run(OWNER, &["config", "set", "recipe_path", &listed])
        .succeeds();
    let mut links = vec!["gone".to_owned()];
    for (n, secret) in SECRETS.iter().enumerate() {
        let file = here.join(format!("private/{n}"));
        fs::write(&file, secret).unwrap();
        chown(&file, Some(OWNER), None).unwrap();
        links.push(n.to_string());
    }
    let mut script = "umask 027; rm $S/recipes/two/recipe.toml; ln -s $H/private/2 $S/recipes/two/recipe.toml\n\
         ask() { printf '{\"v\":1,\"recipe\":\"%s\"}' $1 >$S/incoming/.$1; mv $S/incoming/.$1 $S/incoming/$1.json; }\n\
         ask two\n"
        .to_owned();
    for link in &links {
        // A folder of his own, and a link to the file itself.
        script += &format!(
            "mkdir $H/team/x{link}; ln -s $H/private/{link} $H/team/x{link}/recipe.toml\n\
             ln -s $H/private/{link} $H/team/y{link}; ask x{link}; ask y{link}\n"
        );
    }
    let set = format!("set -e; H={0}; S=$H/spool\n{script}", here.display());
    shared.shell(GROUP_USER, &set).succeeds();
    shared.drain();
    let rejected = shared.spool().join("rejected");
    let reasons = names_in(&rejected).into_iter();
    let reasons: Vec<String> = reasons
        .filter(|name| name.ends_with(".reason.json"))
        .map(|name| fs::read_to_string(rejected.join(name)).unwrap())
        .collect();
    assert_eq!(reasons.len(), 2 * links.len() + 1, "{reasons:?}");
    let lists = [&["doctor"][..], &["recipe", "list"]].map(|list| {
        let ran = shared.run(OWNER, list);
        format!("{}{}", ran.stdout, ran.stderr)
    });
    for message in reasons.iter().chain(&lists) {
        for part in ["yAnz", "bob", "TOKEN", "hunter", "line "] {
            assert!(!message.contains(part), "{part}: {message}");
        }
    }
    for reason in &reasons {
        // The message also does not show whether the file exists.
        assert!(reason.contains("is not run: "), "{reason}");
        assert!(reason.contains("may write there"), "{reason}");
    }
}

/// A name that a group user gave his file does not forge a line.
#[test]
fn a_name_in_a_recipes_folder_stays_on_its_line() {
    let shared = Shared::new();
    make(&shared, "recipe two 'command = [\"./run.sh\"]\\n'");
    let odd = shared
        .spool()
        .join("recipes/two/a\nok       forged\u{202e}x");
    fs::write(&odd, "").unwrap();
    chown(&odd, Some(GROUP_USER), None).unwrap();
    let message = [
        shared.run(OWNER, &["doctor"]).stdout,
        shared
            .run(GROUP_USER, &["submit", "--recipe", "two"])
            .stderr,
    ];
    for message in message {
        assert!(message.contains("\\nok       forged"), "{message}");
        assert!(!message.contains("\nok       forged"), "{message}");
        assert!(!message.contains('\u{202e}'), "{message}");
    }
}

/// A user's own recipe that its modes close even to him. Root may read everything, so another user tries it.
#[test]
fn a_recipe_that_may_not_be_read_is_named_with_the_reason() {
    let shared = Shared::new();
    shared.recipe("listed.sh", "#!/bin/sh\n");
    make(
        &shared,
        "mkdir -p spool/recipes/folder spool/recipes/file
        for each in folder file; do echo 'command = [\"./run.sh\"]' >spool/recipes/$each/recipe.toml; done
        for each in bare script.sh; do echo '#!/bin/sh' >spool/recipes/$each; chmod 0111 spool/recipes/$each; done
        chmod 0 spool/recipes/folder spool/recipes/file/recipe.toml",
    );
    for name in ["folder", "file"] {
        let ran = shared.run(OWNER, &["recipe", "check", name]);
        ran.ends_with(1);
        let reason = format!("recipes/{name}/recipe.toml: Permission denied");
        assert!(ran.stderr.contains(&reason), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("make this path readable"),
            "{}",
            ran.stderr
        );
    }
    let ran = shared.run(OWNER, &["recipe", "check", "script"]);
    ran.ends_with(6);
    assert!(
        ran.stdout.contains("script.sh may not be read"),
        "{}",
        ran.stdout
    );
    // Without an ending it may be a binary, which starts all the same.
    let ran = shared.run(OWNER, &["recipe", "check", "bare"]);
    ran.succeeds();
    assert!(ran.stderr.contains("only a binary"), "{}", ran.stderr);
}
