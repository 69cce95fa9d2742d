//! The spool that `install` sets up a service for, and the check that the units can serve it.
//!
//! Not the units (`install.rs`). Invariant: another user's folder is never given to the service.
#![expect(
    clippy::disallowed_methods,
    reason = "a folder that may become a spool, and the list of users"
)]

use std::path::{Path, PathBuf};

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

/// The spool as the units of systemd/ name it.
pub(super) const PACKAGED_SPOOL: &str = "/var/spool/agentspool";
/// Folders that the system units hide or make read-only.
const OUT_OF_REACH: [&str; 11] = [
    "/home",
    "/root",
    "/run/user",
    "/tmp",
    "/var/tmp",
    "/usr",
    "/boot",
    "/etc",
    "/dev",
    "/proc",
    "/sys",
];

/// The spool to serve: the spool of this command, else the user's default spool or the system's spool.
pub(super) fn served(context: &Context, is_user: bool) -> Result<PathBuf, CliError> {
    let path = match (is_user, context.spool_path()) {
        (false, Ok((_, true)) | Err(_)) => PathBuf::from(PACKAGED_SPOOL),
        (_, found) => found?.0,
    };
    Ok(std::path::absolute(path)?)
}

/// Whether a path can be written into a unit without quoting.
pub(super) fn can_be_named(path: &str) -> bool {
    !path.contains(char::is_whitespace) && !path.contains(['%', '"', '\'', '\\', '$'])
}

/// Refuses a spool that the units cannot name or cannot write to.
pub(super) fn check_reach(context: &Context, spool: &Path, is_user: bool) -> Result<(), CliError> {
    let shown = spool.display();
    let is_unnamed = is_user && is_found(context, spool);
    if !is_unnamed && !can_be_named(&spool.to_string_lossy()) {
        let why = format!("a systemd unit cannot name the spool {shown}");
        return Err(CliError::usage(why).hint("choose a path without spaces, quotes, %, \\ and $"));
    }
    if is_user {
        return Ok(());
    }
    let is_below = |folder: &&&str| spool.starts_with(folder);
    let Some(folder) = OUT_OF_REACH.iter().find(is_below) else {
        return Ok(());
    };
    let why = format!(
        "the system service cannot use the spool {shown}: its units cannot write below {folder}"
    );
    Err(CliError::new(ExitCode::Refused, why)
        .hint("use --user for your own spool, or choose a folder such as /srv/agentspool"))
}

/// Refuses a folder that is not empty and does not belong to the service: `install` would give it to the
/// service.
pub(super) fn check_folder(spool: &Path) -> Result<(), CliError> {
    let Ok(mut entries) = std::fs::read_dir(spool) else {
        return Ok(());
    };
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(spool)?);
    if entries.next().is_none() || Some(owner) == uid_of_service() {
        return Ok(());
    }
    let why = format!(
        "the folder {} is not empty and belongs to user {owner}, but the service runs as the user agentspool",
        spool.display()
    );
    Err(CliError::new(ExitCode::Refused, why)
        .hint("choose a new folder, or serve your own spool with --user"))
}

fn uid_of_service() -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix("agentspool:"))?;
    line.split(':').nth(1)?.parse().ok()
}

/// Whether a user's service finds the spool without a setting. The service has no shell variables.
fn is_found(context: &Context, spool: &Path) -> bool {
    let home = context.env.get("HOME").map(PathBuf::from);
    home.is_some_and(|home| home.join(".local/state/agentspool") == spool)
}

/// A user's unit. It names the spool if the service would not find the spool without that.
pub(super) fn with_spool(text: &str, context: &Context, spool: &Path) -> String {
    if is_found(context, spool) {
        return text.to_owned();
    }
    let line = format!(
        "[Service]\nEnvironment=AGENTSPOOL_DIR={}\n",
        spool.display()
    );
    text.replace("[Service]\n", &line)
        .replace("your own spool", &spool.to_string_lossy())
}
