//! A disk whose power can be cut: an ext4, an XFS or a btrfs in an image, mounted through a loop device.
//!
//! The cut is the file system's own shutdown without a flush of its log: data that was not synced is lost, as
//! if the machine had lost its power. btrfs has no such shutdown: there the cut is a clone of the image
//! (`FICLONE`, for which the image is on an XFS), so what was written until then is kept, and what was only
//! in memory is lost. It does not model a drive with a cache that reorders writes; these tests only see that
//! the program asks for the flushes. After a cut all processes of the test are killed, the image is mounted
//! again, and the program is run as in another boot, because a machine that lost its power boots again. Needs
//! root. Invariant: mounts and loop devices are removed when the disk is dropped.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::mount::{Mount, run, try_run};
use crate::support::{Ran, World};

/// `EXT4_IOC_SHUTDOWN`, which is also XFS's `XFS_IOC_GOINGDOWN`, and its argument to drop what is not in the
/// log yet.
const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
const WITHOUT_LOG_FLUSH: u32 = 2;

/// Space for some seconds of load. The file is sparse, so only written blocks cost memory.
const SIZE: u64 = 128 << 20;
const INODES: &str = "40000";
/// The smallest size that mkfs.xfs accepts.
const XFS_SIZE: u64 = 320 << 20;
const BTRFS_SIZE: u64 = 256 << 20;

/// The file system on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }
}

/// A disk that can lose its power. Declare it before the world on it.
pub struct Disk {
    /// Holds the image. It is in memory, so that a test does not wait for a real disk.
    store: Mount,
    options: String,
    kind: Kind,
}

impl Disk {
    /// A new ext4, mounted with these options in addition to `loop`.
    pub fn new(options: &str) -> Disk {
        Disk::of(Kind::Ext4, options)
    }

    /// A new file system of this kind.
    pub fn of(kind: Kind, options: &str) -> Disk {
        let size = match kind {
            Kind::Ext4 => SIZE,
            Kind::Xfs => XFS_SIZE,
            Kind::Btrfs => BTRFS_SIZE,
        };
        let store = match kind {
            Kind::Ext4 | Kind::Xfs => Mount::tmpfs(3 * size, 1000),
            Kind::Btrfs => Mount::xfs_in_memory(4 * size),
        };
        let image = store.path().join("image");
        File::create(&image).unwrap().set_len(size).unwrap();
        let image = image.to_str().unwrap();
        match kind {
            Kind::Ext4 => run(
                "mkfs.ext4",
                &["-q", "-F", "-m", "0", "-N", INODES, "-J", "size=8", image],
            ),
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", image]),
            Kind::Btrfs => run("mkfs.btrfs", &["-q", "-f", image]),
        }
        let disk = Disk {
            store,
            // The same XFS may still be mounted in the mount namespace of another test.
            options: match kind {
                Kind::Xfs => format!("loop,nouuid,{options}"),
                Kind::Ext4 | Kind::Btrfs => format!("loop,{options}"),
            },
            kind,
        };
        fs::create_dir(disk.path()).unwrap();
        disk.mount();
        disk
    }

    /// The folder where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.store.path().join("disk")
    }

    /// A path outside the disk, which no cut affects.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.store.path().join(name)
    }

    fn mount(&self) {
        let (image, path) = (self.outside("image"), self.path());
        let (image, path) = (image.to_str().unwrap(), path.to_str().unwrap());
        let kind = self.kind.name();
        // The mount namespace of another test may still hold the old file system, and a btrfs can be mounted
        // only once.
        let is_mounted = || {
            let mount = Command::new("mount")
                .args(["-t", kind, "-o", &self.options, image, path])
                .output()
                .unwrap();
            let why = String::from_utf8_lossy(&mount.stderr).into_owned();
            mount.status.success().then_some(()).ok_or(why)
        };
        let started = std::time::Instant::now();
        while let Err(why) = is_mounted() {
            assert!(
                started.elapsed().as_secs() < 180,
                "{image} cannot be mounted: {why}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// A world on it whose settings and recipes are already synced.
    pub fn world(&self) -> World {
        let world = World::at(&self.path());
        let settings = serde_json::json!({
            "v": 2, "rescan_sec": 0.3, "autostart": false, "max_concurrent": 8,
            "min_free_bytes": 0, "min_free_inodes": 0,
        });
        fs::create_dir(world.spool()).unwrap();
        fs::write(world.path("spool.json"), settings.to_string()).unwrap();
        world.run(&["init"]).succeeds();
        world.run(&["watch", "--drain"]).succeeds();
        world
    }

    /// Syncs everything to the disk.
    pub fn finalize(&self) {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
    }

    /// Nothing reaches the disk after this. Its contents are kept in a copy, because another mount namespace
    /// can keep the old mount for any time.
    pub fn cut(&self) {
        let (image, kept) = (self.outside("image"), self.outside("kept"));
        if self.kind == Kind::Btrfs {
            // The machine goes on until it is killed. What it starts after this did not happen.
            let starts = fs::read(self.outside("starts")).unwrap_or_default();
            fs::write(self.outside("starts.kept"), starts).unwrap();
            let clone = File::create(kept).unwrap();
            return rustix::fs::ioctl_ficlone(&clone, File::open(image).unwrap()).unwrap();
        }
        shut_down(&File::open(self.path()).unwrap());
        let sparse = ["--sparse=always", image.to_str().unwrap()];
        run("cp", &[sparse[0], sparse[1], kept.to_str().unwrap()]);
    }

    /// Kills the processes that still run, and mounts what the disk has, as after a reboot.
    pub fn mount_again(&self, world: &World) {
        world.wait_until("no process of the test is running", || kill_all(world) == 0);
        let path = self.path();
        world.wait_until("the cut disk is released", || {
            try_run("umount", &[path.to_str().unwrap()])
        });
        fs::rename(self.outside("kept"), self.outside("image")).unwrap();
        let _ = fs::rename(self.outside("starts.kept"), self.outside("starts"));
        self.mount();
        let boot = fs::read("/proc/sys/kernel/random/uuid").unwrap();
        fs::write(self.outside("boot"), boot).unwrap();
    }

    /// Runs the program as in the boot after the last cut.
    pub fn run(&self, world: &World, arguments: &[&str]) -> Ran {
        const INTO_BOOT: &str =
            "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let sealed = world.command(arguments);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", INTO_BOOT]);
        command.arg(self.outside("boot")).arg(sealed.get_program());
        command.args(sealed.get_args()).env_clear();
        let set = sealed
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        command.envs(set).current_dir(world.root());
        Ran::of(&mut command)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, and before the file system that holds the image.
        try_run("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

/// Kills every process of a world and returns their number.
pub fn kill_all(world: &World) -> usize {
    let left = world.processes();
    for (pid, _) in &left {
        if let Some(pid) = Pid::from_raw(*pid) {
            // It may have exited by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    left.len()
}

#[expect(
    unsafe_code,
    reason = "no safe interface knows this ioctl; it takes a pointer to a u32, and Setter keeps one"
)]
fn shut_down(root: &File) {
    // SAFETY: opcode and argument type are those of ext4's EXT4_IOC_SHUTDOWN.
    let done = unsafe {
        let order = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH);
        rustix::ioctl::ioctl(root, order)
    };
    done.unwrap();
}
