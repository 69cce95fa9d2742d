//! Which spool `install` makes a service for, and whether its units can serve it.
//!
//! Not the units (`install.rs`). Invariant: no folder of somebody else is given to the service.
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
/// Folders that the units of the whole machine hide, or let nobody write.
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

/// The spool that is to be served: the one of this command, else the user's default one or the machine's.
pub(super) fn served(context: &Context, is_user: bool) -> Result<PathBuf, CliError> {
    let path = match (is_user, context.spool_path()) {
        (false, Ok((_, true)) | Err(_)) => PathBuf::from(PACKAGED_SPOOL),
        (_, found) => found?.0,
    };
    Ok(std::path::absolute(path)?)
}

/// What stands in a unit as it is.
pub(super) fn can_be_named(path: &str) -> bool {
    !path.contains(char::is_whitespace) && !path.contains(['%', '"', '\'', '\\', '$'])
}

/// Refuses a spool that the units could not name or write.
pub(super) fn check_reach(context: &Context, spool: &Path, is_user: bool) -> Result<(), CliError> {
    let shown = spool.display();
    let is_unnamed = is_user && is_found(context, spool);
    if !is_unnamed && !can_be_named(&spool.to_string_lossy()) {
        let why = format!("a unit cannot name the spool {shown}");
        return Err(CliError::usage(why).hint("choose a path without blanks, quotes, %, \\ and $"));
    }
    if is_user {
        return Ok(());
    }
    let is_below = |folder: &&&str| spool.starts_with(folder);
    let Some(folder) = OUT_OF_REACH.iter().find(is_below) else {
        return Ok(());
    };
    let why = format!(
        "the service of the whole machine cannot use the spool {shown}: its units cannot write below {folder}"
    );
    Err(CliError::new(ExitCode::Refused, why)
        .hint("use --user for a spool of your own, or a folder as /srv/agentspool"))
}

/// Refuses a folder that holds something and is not the service's own: it would be given to it.
pub(super) fn check_folder(spool: &Path) -> Result<(), CliError> {
    let Ok(mut entries) = std::fs::read_dir(spool) else {
        return Ok(());
    };
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(spool)?);
    if entries.next().is_none() || Some(owner) == uid_of_service() {
        return Ok(());
    }
    let why = format!(
        "the folder {} is not empty and belongs to user {owner}, and the service runs as the user agentspool",
        spool.display()
    );
    Err(CliError::new(ExitCode::Refused, why)
        .hint("choose a new folder, or serve a spool of your own with --user"))
}

fn uid_of_service() -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix("agentspool:"))?;
    line.split(':').nth(1)?.parse().ok()
}

/// Whether a user's service finds the spool by itself: its variables are not those of a shell.
fn is_found(context: &Context, spool: &Path) -> bool {
    let home = context.env.get("HOME").map(PathBuf::from);
    home.is_some_and(|home| home.join(".local/state/agentspool") == spool)
}

/// A user's unit with the spool in it, where the service would not find that by itself.
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
