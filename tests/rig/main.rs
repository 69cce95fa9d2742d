//! Tests that need more than a shell: root, jq, strace, mounts. `cargo test --test rig`.
//!
//! Not part of plain `cargo test`. If something is missing, the tests fail and are never skipped; `.ci/run`
//! installs it first.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests read the spool as any program would"
)]

#[path = "../support/mod.rs"]
mod support;

mod box_errors;
mod box_ids;
mod box_mounts;
mod box_users;
mod breach;
mod chance;
mod clock;
mod convert;
mod cut;
mod disk;
mod drop_box;
mod errno;
mod events;
mod exposed;
mod full_box;
mod group;
mod group_power;
mod group_user;
mod herd;
mod hostile;
mod journal;
mod kill;
mod mount;
mod mounts;
mod namespace;
mod overlay;
mod own_folders;
mod package;
mod page;
mod power;
mod process;
mod race;
mod readers;
mod reported;
mod restart;
mod scale;
mod shut;
mod snapshot;
mod stages;
mod submitters;
mod sweep;
mod syncs;
mod table;
mod traced;
mod trust;
mod witness;
mod xfs;
