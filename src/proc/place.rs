//! Where this process was started: inside a task, or in a systemd service whose stop also ends all its
//! processes.
//!
//! Not the decision that depends on it (`client/autostart.rs`). The environment is not used, because it may
//! have been cleared. Invariant: no bus is used and no process is started.

use std::path::{Path, PathBuf};

use super::table::{entry, read, read_text};

/// How many ancestors of a process are checked at most.
const HIGHEST: usize = 1000;

/// A service. When it stops, systemd also ends everything that was started in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Its name, such as `backup.service`.
    pub name: String,
    /// Whether it is a service of the user's systemd.
    pub is_users: bool,
}

/// The systemd service that contains this process, if there is one.
pub fn own_service() -> Option<OwnService> {
    // The check of sd_booted(3) for a running systemd. A container may show the cgroups of its host.
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let groups = read_text("/proc/self/cgroup")?;
    // If both cgroup versions are mounted, systemd may use either.
    groups.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let path = line.strip_prefix("name=systemd:");
        service_of(path.or_else(|| line.strip_prefix(':'))?)
    })
}

/// The innermost unit in a cgroup's path, if it is a service. A scope, such as a login or a terminal, lasts
/// as long as it has a process. The service of a user's systemd does not count, because it contains other
/// units.
fn service_of(path: &str) -> Option<OwnService> {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    let is_manager = |part: &str| part.starts_with("user@") && part.ends_with(".service");
    let name = path.rsplit('/').find(is_unit)?;
    if name.ends_with(".scope") || is_manager(name) {
        return None;
    }
    Some(OwnService {
        name: name.to_owned(),
        is_users: path.split('/').any(is_manager),
    })
}

/// Whether a runner is an ancestor of this process. A running runner is an ancestor of all processes of its
/// task, because orphans become its children.
pub fn is_below_a_runner() -> bool {
    let mut pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    for _ in 0..HIGHEST {
        if pid <= 1 {
            return false;
        }
        if read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_runner(&line)) {
            return true;
        }
        pid = match entry(pid) {
            Ok(Some(entry)) => entry.parent,
            Ok(None) | Err(_) => return false,
        };
    }
    false
}

fn is_runner(line: &[u8]) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next();
    name == Some(b"agentspool") && arguments.any(|argument| argument == b"runner")
}

/// A path to a program that is valid in other processes too. In another process, `/proc/self/exe` is a
/// different file.
pub fn path_for_others(program: &Path) -> PathBuf {
    let Ok(own) = program.strip_prefix("/proc/self") else {
        return program.to_owned();
    };
    match std::fs::read_link(program) {
        Ok(path) if path.exists() => path,
        // The file was replaced after this process had started.
        _ => Path::new("/proc")
            .join(std::process::id().to_string())
            .join(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_innermost_service_is_found() {
        let service = |name: &str, is_users| {
            Some(OwnService {
                name: name.to_owned(),
                is_users,
            })
        };
        for (path, expected) in [
            (
                "/system.slice/backup.service",
                service("backup.service", false),
            ),
            (
                "/system.slice/backup.service/part",
                service("backup.service", false),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service",
                service("mail.service", true),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.service",
                service("run-u7.service", true),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-1.scope",
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                None,
            ),
            ("/user.slice/user-1000.slice/user@1000.service", None),
            ("/system.slice/docker-0a.scope", None),
            ("/", None),
        ] {
            assert_eq!(service_of(path), expected, "{path}");
        }
    }

    #[test]
    fn a_runner_is_recognized_by_its_arguments() {
        for (line, expected) in [
            (&b"agentspool\0runner\0"[..], true),
            (b"agentspool\0--set\0a=1\0runner\0", true),
            (b"/usr/bin/agentspool\0runner\0--once\0task_1\0", true),
            (b"agentspool\0watch\0", false),
            (b"sh\0-c\0agentspool runner\0", false),
            (b"", false),
        ] {
            assert_eq!(is_runner(line), expected);
        }
    }
}
