//! The places on the way of a path: each folder in which the kernel looks up a name, and each link it
//! follows.
//!
//! This file does not judge the places; `recipe/trust.rs` and `spool/above.rs` do. They matter because a user
//! who can rename in one of these folders, or replace one of these links, chooses what is at the path.
//! Invariant: the places are in the kernel's order, and no path of a place has a link above its last name. A
//! link is a place, and its target is another one. The last place is what the path leads to, or the folder in
//! which the next name was not found.
#![expect(
    clippy::disallowed_methods,
    reason = "it reads places above a spool and outside of one"
)]

use std::ffi::OsString;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

/// How many links the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// A folder, link or file that a path leads through or to.
#[derive(Debug)]
pub struct Place {
    /// Its path, without links above it.
    pub path: PathBuf,
    /// Its metadata; for a link, that of the link itself.
    pub metadata: Metadata,
}

/// The places of an absolute path, from the root to what it leads to. If a name is missing or cannot be
/// read, the last place is the folder that the name would be in.
pub fn places(path: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    let mut here = PathBuf::from("/");
    add(&mut places, &here);
    let mut left = names(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let Some(place) = add(&mut places, &next) else {
            break;
        };
        if !place.metadata.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        let Some(target) = std::fs::read_link(&next)
            .ok()
            .filter(|_| links <= MOST_LINKS)
        else {
            break;
        };
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        left.extend(names(&target));
    }
    // `..`, a link to a folder above, or a missing name can end in a folder that is not the last place added.
    if places.last().is_some_and(|last| last.path != here) {
        add(&mut places, &here);
    }
    places
}

fn add<'a>(places: &'a mut Vec<Place>, path: &Path) -> Option<&'a Place> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let path = path.to_owned();
    places.push(Place { path, metadata });
    places.last()
}

/// The names in a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_the_folders_they_lead_through_are_places() {
        use std::os::unix::fs::symlink;
        let base = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(base.path()).unwrap();
        for folder in ["team", "real/in"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        symlink("../real", base.join("team/link")).unwrap();
        symlink(base.join("team/link/in"), base.join("way")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let of = |path: &str| -> Vec<String> {
            places(&base.join(path))
                .iter()
                .filter_map(|place| place.path.strip_prefix(&base).ok())
                .map(|place| place.display().to_string())
                .collect()
        };
        let expected = ["", "way", "", "team", "team/link", "real", "real/in"];
        let mut found = of("way");
        // The places above the base are found twice, because the link is absolute.
        found.dedup();
        assert_eq!(found, expected);
        assert_eq!(of("real/in/../../gone/x"), ["", "real", "real/in", ""]);
        assert_eq!(of("real/in/.."), ["", "real", "real/in", "real"]);
        assert_eq!(of("real/gone"), ["", "real"]);
        assert_eq!(of("loop").len(), 3 + MOST_LINKS);
    }
}
