//! The maintainer scripts of the package on a machine without a running systemd, as in a container.
//!
//! Needs root. Not the package under systemd (`tests/systemd/run`). The system is this machine's own root
//! below an overlay, so the machine is not changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mount::{Mount, run, try_run};
use crate::support::PROGRAM;

/// A system with the program in it. It is dropped before the memory that it is in.
struct System {
    root: PathBuf,
    _memory: Mount,
}

impl System {
    fn new() -> System {
        let memory = Mount::tmpfs(256 << 20, 100_000);
        let part = |name: &str| {
            let folder = memory.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (upper, work, root) = (part("upper"), part("work"), part("root"));
        let options = format!(
            "lowerdir=/,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        run(
            "mount",
            &[
                "-t",
                "overlay",
                "-o",
                &options,
                "overlay",
                root.to_str().unwrap(),
            ],
        );
        let system = System {
            root,
            _memory: memory,
        };
        let proc = system.root.join("proc");
        run("mount", &["-t", "proc", "proc", proc.to_str().unwrap()]);
        let dev = system.root.join("dev");
        run("mount", &["--bind", "/dev", dev.to_str().unwrap()]);
        for folder in ["run/systemd/system", "var/spool/agentspool"] {
            let _ = std::fs::remove_dir_all(system.root.join(folder));
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        std::fs::copy(PROGRAM, system.root.join("usr/bin/agentspool")).unwrap();
        std::fs::create_dir_all(system.root.join("usr/lib/sysusers.d")).unwrap();
        std::fs::copy(
            source.join("agentspool.sysusers"),
            system.root.join("usr/lib/sysusers.d/agentspool.conf"),
        )
        .unwrap();
        for script in ["postinst", "postrm"] {
            std::fs::copy(source.join("debian").join(script), system.root.join(script)).unwrap();
        }
        system
    }

    /// Runs a command as root in it, and returns what the command printed.
    fn run(&self, command: &str) -> String {
        let ran = Command::new("chroot")
            .arg(&self.root)
            .args(["/bin/sh", "-c", command])
            .env_remove("AGENTSPOOL_DIR")
            .output()
            .unwrap();
        let printed = [ran.stdout, ran.stderr]
            .map(|it| String::from_utf8(it).unwrap())
            .concat();
        assert!(ran.status.success(), "{command}: {printed}");
        printed
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let root = self.root.to_str().unwrap();
        for mounted in ["proc", "dev"] {
            try_run("umount", &["-l", &format!("{root}/{mounted}")]);
        }
        try_run("umount", &["-l", root]);
    }
}

#[test]
fn a_package_on_a_machine_without_systemd_leaves_a_usable_spool() {
    let system = System::new();
    let printed = system.run("sh /postinst configure ''");
    let start = printed
        .lines()
        .find_map(|line| line.split_once("setpriv "))
        .map(|(_, rest)| rest);
    let start = format!("setpriv {}", start.expect(&printed));
    assert!(start.ends_with("watch"), "{printed}");
    let owner =
        system.run("stat -c '%U:%G %a' /var/spool/agentspool /var/spool/agentspool/incoming");
    assert_eq!(
        owner,
        "agentspool:agentspool 2750\nagentspool:agentspool 3730\n"
    );
    // On an overlay a drop is accepted only once it is admitted, so this submission exits with a code of its
    // own. The command that it prints runs what a user of the group submits.
    let recipe = "/var/spool/agentspool/recipes/greet";
    system.run(&format!("printf '#!/bin/sh\\necho hello\\n' >{recipe}; chown agentspool: {recipe}; chmod 755 {recipe}"));
    let user = "setpriv --reuid=65000 --regid=agentspool --clear-groups";
    system.run(&format!(
        "{user} agentspool --spool /var/spool/agentspool submit --recipe greet -q; timeout 60 {start} --drain"
    ));
    let listed = system.run(&format!(
        "{user} agentspool --spool /var/spool/agentspool list"
    ));
    assert!(listed.contains("\tcompleted\t"), "{listed}");
    // An upgrade changes nothing.
    system.run("sh /postinst configure 0.1.0-1");
    assert_eq!(
        system.run(&format!(
            "{user} agentspool --spool /var/spool/agentspool list"
        )),
        listed
    );
    system.run("sh /postrm purge");
    assert!(system.root.join("var/spool/agentspool/tasks").exists());
}
