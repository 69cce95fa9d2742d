//! The Debian package, as described in Cargo.toml: which files it ships, and the links in its documents.
//!
//! Not the package itself, which needs cargo-deb (`tests/systemd/run`), and not an installation
//! (`rig/package.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DOCUMENTS: &str = "usr/share/doc/agentspool";

/// The path in the repository and the installed path of each file.
fn installed() -> Vec<(PathBuf, PathBuf)> {
    let manifest: toml::Value = toml::from_str(&read("Cargo.toml")).unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let (from, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        if from.starts_with("target/") {
            continue;
        }
        // The path after the first star keeps its folders.
        let base = from.split('*').next().unwrap();
        let base = Path::new(base.rsplit_once('/').map_or("", |(folder, _)| folder));
        let matching = files()
            .into_iter()
            .filter(|file| matches_pattern(from, file.to_str().unwrap()));
        let before = installed.len();
        for file in matching {
            let to = match to.ends_with('/') {
                true => Path::new(to).join(file.strip_prefix(base).unwrap()),
                false => PathBuf::from(to),
            };
            installed.push((file, to));
        }
        assert!(installed.len() > before, "{from} names no file");
    }
    installed
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap()
}

/// The files of the folders that a package may ship.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
    ]
    .map(PathBuf::from)
    .into();
    for folder in ["docs", "systemd", "spool"] {
        let walk = walkdir::WalkDir::new(Path::new(ROOT).join(folder)).into_iter();
        let found = walk
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file());
        files.extend(found.map(|entry| entry.path().strip_prefix(ROOT).unwrap().to_owned()));
    }
    files
}

/// Whether a path matches a pattern: `*` is a part of a name, `**` any number of folders.
fn matches_pattern(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(rest) = path.strip_prefix(before) else {
        return false;
    };
    if let Some(after) = after.strip_prefix("*/") {
        let starts = rest.match_indices('/').map(|(at, _)| &rest[at + 1..]);
        return std::iter::once(rest)
            .chain(starts)
            .any(|rest| matches_pattern(after, rest));
    }
    let name = rest.find('/').unwrap_or(rest.len());
    (0..=name).any(|end| rest.is_char_boundary(end) && matches_pattern(after, &rest[end..]))
}

/// The targets of all links to files in a document.
fn links(text: &str) -> Vec<String> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files
        .map(|target| target.split('#').next().unwrap().to_owned())
        .collect()
}

/// A path without `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_in_a_packaged_document_has_a_target() {
    let installed = installed();
    let mut places: BTreeSet<&Path> = BTreeSet::new();
    for (_, to) in &installed {
        places.extend(to.ancestors());
    }
    let mut followed = 0;
    for (from, to) in &installed {
        if !to.starts_with(DOCUMENTS) || to.extension().is_none_or(|it| it != "md") {
            continue;
        }
        for link in links(&read(from)) {
            let target = normalized(&to.parent().unwrap().join(&link));
            assert!(
                places.contains(target.as_path()),
                "{}: {link}",
                from.display()
            );
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[test]
fn schemas_samples_and_both_licences_are_shipped() {
    let installed = installed();
    let at = |path: &str| {
        let to = Path::new(DOCUMENTS).join(path);
        installed
            .iter()
            .find(|(_, place)| *place == to)
            .map(|(from, _)| from)
    };
    for file in [
        "spool/schema/request.schema.json",
        "spool/recipes/hello",
        "spool/recipes/agent/agent.py",
        "LICENSE-MIT",
    ] {
        assert!(at(file).is_some(), "{file}");
    }
    let copyright = read(at("copyright").unwrap());
    let permission = read("LICENSE-MIT");
    let (_, permission) = permission.split_once("\n\nPermission").unwrap();
    let words = |text: &str| -> String {
        let words = text.split_whitespace().filter(|word| *word != ".");
        words.collect::<Vec<_>>().join(" ")
    };
    assert!(
        words(&copyright).contains(&words(permission)),
        "{copyright}"
    );
    assert!(copyright.contains("/usr/share/common-licenses/Apache-2.0"));
    let changelog = read("systemd/debian/changelog");
    let version = format!("agentspool ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&version), "{changelog}");
}
