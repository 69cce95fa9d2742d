//! Where this process was started: inside a task, or in a service of systemd that ends with all that is in it.
//!
//! Not what follows from it (`client/autostart.rs`). The environment says neither for sure: it may have been cleared.
//! Invariant: no bus is asked and nothing is started.

use std::path::{Path, PathBuf};

use super::table::{entry, read, read_text};

/// A process has no more ancestors than this.
const HIGHEST: usize = 1000;

/// A service whose end takes everything along that was started in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Its name, as `backup.service`.
    pub name: String,
    /// Whether it is one of the user's own systemd.
    pub is_users: bool,
}

/// The service of systemd in which this process is, if it is in one.
pub fn own_service() -> Option<OwnService> {
    // As sd_booted(3) finds out whether a systemd runs this system. A container may show the cgroups of its host.
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let groups = read_text("/proc/self/cgroup")?;
    // Where both versions are mounted, systemd may use either.
    groups.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let path = line.strip_prefix("name=systemd:");
        service_of(path.or_else(|| line.strip_prefix(':'))?)
    })
}

/// The innermost unit of a cgroup's path, if it is a service. A scope, such as a login or a terminal, lasts as long as
/// there is a process in it, and the service of a user's systemd holds units of its own.
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

/// Whether a runner is an ancestor of this process. It is the one of all that its task started, as long as it lives: what
/// loses its parent comes to it.
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

/// A program by a path that leads to it from another process: `/proc/self/exe` is another one's own.
pub fn path_for_others(program: &Path) -> PathBuf {
    let Ok(own) = program.strip_prefix("/proc/self") else {
        return program.to_owned();
    };
    match std::fs::read_link(program) {
        Ok(path) if path.exists() => path,
        // It was replaced since this process began.
        _ => Path::new("/proc")
            .join(std::process::id().to_string())
            .join(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_ends_with_what_is_in_it() {
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
    fn a_runner_is_known_by_its_arguments() {
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
