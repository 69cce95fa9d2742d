//! The places that the table of hazards and the threat model name exist.
//!
//! Not whether the answers are right: the tests that they name show that. Invariant: if a function is renamed
//! or removed, its place in the documents must change too.

use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn document(name: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/docs/{name}")).unwrap()
}

/// The parts of a text between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_missing(quoted: &str) -> bool {
    if let Some((file, function)) = quoted.split_once(".rs: ") {
        let text = ["src", "tests"]
            .iter()
            .find_map(|folder| std::fs::read_to_string(format!("{ROOT}/{folder}/{file}.rs")).ok());
        let begins = [format!("fn {function}("), format!("fn {function}<")];
        return !text.is_some_and(|text| begins.iter().any(|begin| text.contains(begin)));
    }
    let is_test = quoted.starts_with("it/") || quoted.starts_with("rig/");
    is_test && !Path::new(&format!("{ROOT}/tests/{quoted}")).is_file()
}

#[test]
fn every_named_place_exists() {
    for name in ["hazards.md", "threat-model.md"] {
        let text = document(name);
        let missing: Vec<&str> = quoted(&text).filter(|quoted| is_missing(quoted)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{name}");
        assert!(
            quoted(&text).any(|quoted| quoted.contains(".rs: ")),
            "{name} names no function"
        );
    }
}

#[test]
fn every_hazard_has_one_row() {
    let text = document("hazards.md");
    let rows = text.lines().filter_map(|line| {
        let (number, _) = line
            .strip_prefix("- ")?
            .trim_start_matches('*')
            .split_once(". ")?;
        number.parse::<u32>().ok()
    });
    assert_eq!(rows.collect::<Vec<_>>(), (1..=78).collect::<Vec<_>>());
}
