//! Tests of the real binary in sealed worlds: one file for each verb or subject.
//!
//! Not the tests that need root, jq or mounts (`tests/rig`). Every file of this folder is a module here;
//! `every_file_is_a_module` fails if one is missing.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read the spool as any program would, and a panic is how they fail"
)]

#[path = "../support/mod.rs"]
mod support;

mod autostart;
mod background;
mod bad_input;
mod bounds;
mod bytes;
mod cancel;
mod clear;
mod client;
mod config;
mod cut_off;
mod doctor;
mod events;
mod first;
mod foreign;
mod fuzzed;
mod hazards;
mod idle;
mod incoming;
mod init;
mod install;
mod leftovers;
mod limits;
mod list;
mod log;
mod logs;
mod moved;
mod package;
mod pause;
mod praisonai;
mod progress;
mod readme;
mod recipe;
mod recipe_check;
mod recover;
mod reference;
mod removed;
mod result;
mod schema;
mod service;
mod session;
mod several;
mod status;
mod stop;
mod submit;
mod sweep;
mod terminal;
mod transitions;
mod wait;
mod watch;
mod why;

#[test]
fn every_file_is_a_module() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let text = std::fs::read_to_string(format!("{folder}/main.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(
                text.contains(&format!("mod {module};")),
                "tests/it/{name} is not run"
            );
        }
    }
}
