//! What decides what a recipe of a group spool runs, and who could change it.
//!
//! Not the modes of a spool (`convert.rs`). What is held: a recipe is run only if nobody but the owner and root
//! could add, write or exchange what it runs.

use std::fs;
use std::os::unix::fs::chown;

use crate::group::{GROUP, MEMBER, OWNER, Shared};
use crate::support::write_executable;

/// Refused, with this in the message; `doctor` says the same.
#[track_caller]
fn is_refused(shared: &Shared, recipe: &str, what: &str) {
    let ran = shared.run(OWNER, &["submit", "--recipe", recipe]);
    assert_eq!(ran.code, 4, "{recipe}: {}", ran.stderr);
    assert!(ran.stderr.contains(what), "{what}\n{}", ran.stderr);
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    let said = format!("the recipe {recipe} is not run: ");
    assert!(doctor.contains(&said), "{doctor}");
}

/// A shell script of the owner's in his folder, in which `$R` is `recipes/`, and `recipe NAME LINES` makes one
/// with `run.sh`.
fn make(shared: &Shared, script: &str) {
    let all = format!(
        "set -e; umask 022; R=$PWD/spool/recipes; HERE=$PWD\n\
         recipe() {{ mkdir $R/$1; printf \"$2\" >$R/$1/recipe.toml; \
         printf '#!/bin/sh\\ntrue\\n' >$R/$1/run.sh; chmod 755 $R/$1/run.sh; }}\n\
         open() {{ mkdir $2; chgrp {GROUP} $2; chmod $1 $2; }}\n{script}"
    );
    shared.shell(OWNER, &all).succeeds();
}

/// A sticky bit keeps a file from being exchanged, and nobody from adding one.
#[test]
fn a_sticky_folder_is_open_where_files_are_looked_for_in_it() {
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
        let said = format!("{here}/{what}: group {GROUP} may write there, and its sticky bit");
        is_refused(&shared, recipe, &said);
    }
    // What is passed through to something that stands and is closed is nobody's to exchange.
    for recipe in ["fine", "envfile"] {
        shared
            .run(OWNER, &["submit", "--recipe", recipe])
            .succeeds();
    }
}

/// A program that is named without a slash, and whatever a first line names.
#[test]
fn the_program_and_its_interpreter_are_trusted_only_as_the_recipe_is() {
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
         printf '#!/usr/bin/env -S A=b mode -u\\n' >$R/split/run.sh",
    );
    for (recipe, what) in [
        ("mode", "bin/mode"),
        ("linked", "team"),
        ("second", "team"),
        ("interp", "team"),
        ("nested", "team"),
        ("env", "team"),
        ("split", "bin/mode"),
    ] {
        let said = format!("{here}/{what}: group {GROUP} may write there");
        is_refused(&shared, recipe, &said);
    }
    shared
        .run(OWNER, &["submit", "--recipe", "fine"])
        .succeeds();
}

/// The interpreter that PraisonAI's program names is not started to be asked, nor to run a task, where others
/// could choose it.
#[test]
fn the_interpreter_of_praisonai_is_trusted_only_as_the_recipe_is() {
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
        crate::support::Ran::of(&mut command)
    };
    let doctor = with_path(&["doctor"]).stdout;
    let said = "the recipe given is not run: ";
    assert!(doctor.contains(said), "{doctor}");
    let submitted = with_path(&["submit", "--recipe", "given", "--json"]).json();
    with_path(&["watch", "--drain"]).succeeds();
    let result = shared.run(OWNER, &["result", submitted["task_id"].as_str().unwrap()]);
    assert!(result.stderr.contains(said), "{}", result.stderr);
    assert!(!ran.join("it").exists());
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
    chown(&odd, Some(MEMBER), None).unwrap();
    let said = [
        shared.run(OWNER, &["doctor"]).stdout,
        shared.run(MEMBER, &["submit", "--recipe", "two"]).stderr,
    ];
    for said in said {
        assert!(said.contains("\\nok       forged"), "{said}");
        assert!(!said.contains("\nok       forged"), "{said}");
        assert!(!said.contains('\u{202e}'), "{said}");
    }
}
