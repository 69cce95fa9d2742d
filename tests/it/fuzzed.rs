//! The fuzzer's corpus, run without the fuzzer: a bug that it once found does not come back.
//!
//! Not a search for new cases (`just fuzz`). The same checks run here, on every change.

use std::path::PathBuf;

use crate::support::fuzzed::{DamagedTask, DropBox, manifest, request};

/// The committed cases of one target; at least as many as the first corpus had.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
    let entries = std::fs::read_dir(format!("{folder}/{target}")).unwrap();
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    cases.sort();
    assert!(cases.len() >= 3, "{target} has no corpus");
    cases
}

/// Prints the case that failed.
fn replay(target: &str, check: impl Fn(&[u8])) {
    for (path, bytes) in corpus(target) {
        let check = std::panic::AssertUnwindSafe(|| check(&bytes));
        let kept = std::panic::catch_unwind(check);
        assert!(kept.is_ok(), "{}", path.display());
    }
}

#[test]
fn requests_of_the_corpus_pass() {
    replay("request", request);
}

#[test]
fn drops_of_the_corpus_pass() {
    let drop_box = DropBox::new();
    replay("drop", |bytes| drop_box.take(bytes));
}

#[test]
fn manifests_of_the_corpus_pass() {
    replay("manifest", manifest);
}

#[test]
fn damaged_files_of_the_corpus_pass() {
    let task = DamagedTask::new();
    replay("files", |bytes| task.read(bytes));
}
