//! Tests that need more than a shell: root, jq, strace, mounts. `cargo test --test rig`.
//!
//! Not part of plain `cargo test`. What is missing here fails and is never skipped; `.ci/run`
//! installs it first.

#[path = "../support/mod.rs"]
mod support;
