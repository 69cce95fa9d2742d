//! `agentspool install` and `uninstall`: write, enable and start the units of systemd/, and remove them.
//!
//! Not for machines with the Debian package, which contains the same files. The files and commands are
//! planned first, so that `--print` shows exactly what would be done. Invariant: a spool, its user and its
//! tasks are never removed here.
#![expect(
    clippy::disallowed_methods,
    reason = "units and the other system files are outside every spool"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use agentspool::task::quote_path;
use serde_json::{Value, json};

use super::Context;
use super::args::InstallArgs;
use super::exit_code::ExitCode;
use super::report::CliError;
use super::served::{PACKAGED_SPOOL, can_be_named, check_folder, check_reach, served, with_spool};

/// The program's path in the units of systemd/. `install` replaces it with its own path.
const PACKAGED: &str = "/usr/bin/agentspool";
/// The unit of the Debian package.
const PACKAGED_UNIT: &str = "/usr/lib/systemd/system/agentspool.service";
const STARTED: [&str; 2] = ["agentspool.service", "agentspool-sweep.timer"];

macro_rules! shipped {
    ($place:literal, $($name:literal),+) => {
        [$(($name, include_str!(concat!("../../systemd/", $place, "/", $name)))),+]
    };
}

const SYSTEM_UNITS: [(&str, &str); 4] = shipped!(
    "system",
    "agentspool.service",
    "agentspool-task@.service",
    "agentspool-sweep.service",
    "agentspool-sweep.timer"
);
const USER_UNITS: [(&str, &str); 4] = shipped!(
    "user",
    "agentspool.service",
    "agentspool-task@.service",
    "agentspool-sweep.service",
    "agentspool-sweep.timer"
);
const SYSUSERS: (&str, &str) = (
    "/etc/sysusers.d/agentspool.conf",
    include_str!("../../systemd/agentspool.sysusers"),
);
const TMPFILES: (&str, &str) = (
    "/etc/tmpfiles.d/agentspool.conf",
    include_str!("../../systemd/agentspool.tmpfiles"),
);
const POLKIT: (&str, &str) = (
    "/etc/polkit-1/rules.d/50-agentspool.rules",
    include_str!("../../systemd/polkit/50-agentspool.rules"),
);

/// The planned files and commands.
struct Plan {
    files: Vec<(PathBuf, String)>,
    commands: Vec<Vec<String>>,
    /// The spool that the service serves.
    spool: PathBuf,
}

/// What is still missing after the installation, and the command that fixes it.
struct Missing {
    what: String,
    command: String,
}

pub(super) fn install(context: &Context, args: &InstallArgs) -> Result<ExitCode, CliError> {
    let program = std::env::current_exe()?;
    let spool = served(context, args.user)?;
    check_reach(context, &spool, args.user)?;
    let files = files(context, args.user, &program, &spool)?;
    let mut commands = Vec::new();
    if !args.user {
        commands.push(words(&["systemd-sysusers", SYSUSERS.0]));
        commands.push(words(&["systemd-tmpfiles", "--create", TMPFILES.0]));
    }
    commands.push(systemctl(args.user, &["daemon-reload"]));
    // A running service may use another spool or program. Its tasks continue.
    commands.push(systemctl(args.user, &["try-restart", STARTED[0]]));
    commands.push(systemctl(
        args.user,
        &["enable", "--now", STARTED[0], STARTED[1]],
    ));
    let plan = Plan {
        files,
        commands,
        spool,
    };
    if args.print {
        return print(context, &plan, "written");
    }
    check_place(args.user)?;
    if !args.user {
        check_folder(&plan.spool)?;
    }
    for (path, text) in &plan.files {
        write(path, text)?;
    }
    for command in &plan.commands {
        run(command)?;
    }
    let missing = if args.user {
        missing_for_user()
    } else {
        missing_for_system(&program)
    };
    print_done(context, &plan, &missing, "written")
}

pub(super) fn uninstall(context: &Context, args: &InstallArgs) -> Result<ExitCode, CliError> {
    let program = std::env::current_exe()?;
    let spool = served(context, args.user)?;
    let mut files = files(context, args.user, &program, &spool)?;
    files.retain(|(path, _)| args.print || path.exists());
    let off = ["disable", "--now", STARTED[1], STARTED[0]];
    let plan = Plan {
        files,
        commands: vec![
            systemctl(args.user, &off),
            systemctl(args.user, &["daemon-reload"]),
        ],
        spool,
    };
    if args.print {
        return print(context, &plan, "removed");
    }
    check_place(args.user)?;
    if plan.files.is_empty() {
        let message = "no files of `agentspool install` were found";
        return Err(CliError::new(ExitCode::General, message));
    }
    run(&plan.commands[0])?;
    for (path, _) in &plan.files {
        std::fs::remove_file(path).map_err(|error| failed("remove", path, &error))?;
    }
    run(&plan.commands[1])?;
    print_done(context, &plan, &[], "removed")?;
    if !context.out.is_json() {
        context.out.note("the spool and its tasks were kept");
    }
    Ok(ExitCode::Done)
}

/// Every file, with its path and text for this machine.
fn files(
    context: &Context,
    is_user: bool,
    program: &Path,
    spool: &Path,
) -> Result<Vec<(PathBuf, String)>, CliError> {
    let program = program.to_string_lossy();
    if !can_be_named(&program) {
        let message = format!("a systemd unit cannot name the program {program}");
        return Err(
            CliError::usage(message).hint("copy it to /usr/local/bin and run it from there")
        );
    }
    let (folder, units) = if is_user {
        let folder = context.env.config_home().ok_or_else(|| {
            CliError::usage("failed to find the folder for user units: HOME is not set")
        })?;
        (folder.join("systemd/user"), USER_UNITS)
    } else {
        (PathBuf::from("/etc/systemd/system"), SYSTEM_UNITS)
    };
    let place = |text: &str| match is_user {
        true => with_spool(text, context, spool),
        false => text.replace(PACKAGED_SPOOL, &spool.to_string_lossy()),
    };
    let mut files: Vec<(PathBuf, String)> = units
        .iter()
        .map(|(name, text)| (folder.join(name), place(&text.replace(PACKAGED, &program))))
        .collect();
    if !is_user {
        let rest = [SYSUSERS, TMPFILES, POLKIT];
        files.extend(rest.map(|(path, text)| (PathBuf::from(path), place(text))));
    }
    Ok(files)
}

fn check_place(is_user: bool) -> Result<(), CliError> {
    if !is_user && !rustix::process::geteuid().is_root() {
        let message = "only root can change the system service";
        return Err(CliError::new(ExitCode::Refused, message)
            .hint("use sudo, or use --user for your own service"));
    }
    if !is_user && Path::new(PACKAGED_UNIT).exists() {
        let message = "the Debian package agentspool already provides the service";
        return Err(CliError::new(ExitCode::Refused, message)
            .hint("see `systemctl status agentspool.service`"));
    }
    if !Path::new("/run/systemd/system").is_dir() {
        let message = "systemd is not running on this machine";
        return Err(CliError::new(ExitCode::Missing, message)
            .hint("run `agentspool watch` with another service manager; --print shows the units"));
    }
    Ok(())
}

/// A user's services stop with the last session, unless lingering is enabled.
fn missing_for_user() -> Vec<Missing> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let asked = Command::new("loginctl")
        .args(["show-user", &uid, "--property=Linger", "--value"])
        .output();
    let lingers = asked.is_ok_and(|output| output.stdout.trim_ascii() == b"yes");
    if lingers {
        return Vec::new();
    }
    vec![Missing {
        what: "lingering is not enabled, so the watcher stops when you log out".to_owned(),
        command: "loginctl enable-linger".to_owned(),
    }]
}

fn missing_for_system(program: &Path) -> Vec<Missing> {
    let mut missing = Vec::new();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let users = groups
        .lines()
        .find_map(|line| line.strip_prefix("agentspool:")?.rsplit(':').next());
    if users.is_none_or(str::is_empty) {
        missing.push(Missing {
            what: "the group agentspool has no users, so nobody can submit tasks yet".to_owned(),
            command: "adduser NAME agentspool".to_owned(),
        });
    }
    if program.starts_with("/home") || program.starts_with("/root") {
        let target = "/usr/local/bin/agentspool";
        missing.push(Missing {
            what: format!("the service may be unable to read {}", program.display()),
            command: format!(
                "install {} {target} && {target} install",
                quote_path(program)
            ),
        });
    }
    missing
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed("create", folder, &error))?;
    }
    std::fs::write(path, text).map_err(|error| failed("write", path, &error))?;
    // The umask of this process is for spools. Units must be readable by all users.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path, mode).map_err(|error| failed("set the mode of", path, &error))
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> CliError {
    let message = format!("failed to {doing} {}: {error}", path.display());
    CliError::new(ExitCode::General, message)
}

fn run(command: &[String]) -> Result<(), CliError> {
    let line = command.join(" ");
    let output = Command::new(&command[0])
        .args(&command[1..])
        .output()
        .map_err(|error| {
            CliError::new(
                ExitCode::Missing,
                format!("failed to start {line}: {error}"),
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().replace('\n', "; ");
    Err(
        CliError::new(ExitCode::General, format!("`{line}` failed: {text}"))
            .hint("see `journalctl -u agentspool.service`"),
    )
}

fn systemctl(is_user: bool, arguments: &[&str]) -> Vec<String> {
    let mut command = words(&["systemctl"]);
    command.extend(is_user.then(|| "--user".to_owned()));
    command.extend(words(arguments));
    command
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

fn print(context: &Context, plan: &Plan, done: &str) -> Result<ExitCode, CliError> {
    let out = &context.out;
    if out.is_json() {
        let files: Vec<Value> = plan
            .files
            .iter()
            .map(|(path, text)| json!({ "path": path, "text": text }))
            .collect();
        out.object(&json!({
            "ok": true, "printed": true, "files": files, "commands": plan.commands,
            "spool": plan.spool,
        }))?;
        return Ok(ExitCode::Done);
    }
    for (path, text) in &plan.files {
        out.line(format!("# {} is {done}:", path.display()))?;
        if done == "written" {
            out.bytes(format!("{text}\n").as_bytes())?;
        }
    }
    out.line("# These commands are run:")?;
    for command in &plan.commands {
        out.line(command.join(" "))?;
    }
    Ok(ExitCode::Done)
}

fn print_done(
    context: &Context,
    plan: &Plan,
    missing: &[Missing],
    done: &str,
) -> Result<ExitCode, CliError> {
    let out = &context.out;
    if out.is_json() {
        let spool = &plan.spool;
        let paths: Vec<&PathBuf> = plan.files.iter().map(|(path, _)| path).collect();
        let missing: Vec<Value> = missing
            .iter()
            .map(|missing| json!({ "what": missing.what, "command": missing.command }))
            .collect();
        out.object(&json!({
            "ok": true, "printed": false, "files": paths, "commands": plan.commands,
            "missing": missing, "spool": spool,
        }))?;
        return Ok(ExitCode::Done);
    }
    for (path, _) in &plan.files {
        if out.is_quiet() {
            continue;
        }
        out.line(format!("{done}: {}", path.display()))?;
    }
    for command in &plan.commands {
        if !out.is_quiet() {
            out.line(format!("done: {}", command.join(" ")))?;
        }
    }
    if done == "written" && !out.is_quiet() {
        out.line(format!("served: {}", plan.spool.display()))?;
    }
    for missing in missing {
        out.line(format!(
            "missing: {}; fix this with `{}`",
            missing.what, missing.command
        ))?;
    }
    Ok(ExitCode::Done)
}
