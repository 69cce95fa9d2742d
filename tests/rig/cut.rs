//! A disk whose power can be cut: an ext4 or an XFS in an image, mounted through a loop device.
//!
//! The cut is the file system's own shutdown without a flush of its log: what was not synced is gone, as if
//! the machine had died. It is no cut of a drive with a cache that reorders; that the program asks
//! for the flushes is what these tests see. After a cut everything of ours is killed, the image is
//! mounted anew, and the program is run as in another boot, because a machine that lost its power
//! has another one. Needs root. Invariant: mounts and loop devices go when the disk is dropped.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::mount::{Mount, run, try_run};
use crate::support::{Ran, World};

/// `EXT4_IOC_SHUTDOWN`, which is XFS's `XFS_IOC_GOINGDOWN` too, and its order to lose what is not in the log yet.
const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
const WITHOUT_LOG_FLUSH: u32 = 2;

/// Room for what seconds of load leave; a sparse file, so only what is written costs memory.
const SIZE: u64 = 128 << 20;
const INODES: &str = "40000";
/// The smallest that mkfs.xfs makes.
const XFS_SIZE: u64 = 320 << 20;

/// What is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

/// A disk that can lose its power. Declare it before the world on it.
pub struct Disk {
    /// Holds the image: in memory, so that a test costs no real disk its time.
    store: Mount,
    options: String,
    kind: Kind,
}

impl Disk {
    /// A fresh ext4, mounted with these options besides `loop`.
    pub fn new(options: &str) -> Disk {
        Disk::of(Kind::Ext4, options)
    }

    /// A fresh one of this kind.
    pub fn of(kind: Kind, options: &str) -> Disk {
        let size = match kind {
            Kind::Ext4 => SIZE,
            Kind::Xfs => XFS_SIZE,
        };
        let store = Mount::tmpfs(3 * size, 1000);
        let image = store.path().join("image");
        File::create(&image).unwrap().set_len(size).unwrap();
        let image = image.to_str().unwrap();
        match kind {
            Kind::Ext4 => run(
                "mkfs.ext4",
                &["-q", "-F", "-m", "0", "-N", INODES, "-J", "size=8", image],
            ),
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", image]),
        }
        let disk = Disk {
            store,
            options: format!("loop,{options}"),
            kind,
        };
        fs::create_dir(disk.path()).unwrap();
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.store.path().join("disk")
    }

    /// A path that no cut touches.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.store.path().join(name)
    }

    fn mount(&self) {
        let (image, path) = (self.outside("image"), self.path());
        let (image, path) = (image.to_str().unwrap(), path.to_str().unwrap());
        let kind = match self.kind {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        };
        // Another test's mount namespace may still hold the file system of before, and XFS is mounted once.
        let is_mounted = || {
            let mount = Command::new("mount")
                .args(["-t", kind, "-o", &self.options, image, path])
                .output();
            mount.unwrap().status.success()
        };
        let begun = std::time::Instant::now();
        while !is_mounted() {
            assert!(begun.elapsed().as_secs() < 60, "{image} cannot be mounted");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// A world on it whose settings and recipes have been there for long.
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

    /// Everything so far is on the disk.
    pub fn finalize(&self) {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
    }

    /// From here on nothing reaches the disk any more. What it has is kept in a copy, because a
    /// mount namespace of somebody else can keep the old mount for as long as it likes.
    pub fn cut(&self) {
        shut_down(&File::open(self.path()).unwrap());
        let (image, kept) = (self.outside("image"), self.outside("kept"));
        let sparse = ["--sparse=always", image.to_str().unwrap()];
        run("cp", &[sparse[0], sparse[1], kept.to_str().unwrap()]);
    }

    /// Ends what still runs, and lets the machine come back with what the disk has.
    pub fn come_back(&self, world: &World) {
        world.wait_until("everything of ours is dead", || kill_all(world) == 0);
        let path = self.path();
        world.wait_until("the cut disk is let go", || {
            try_run("umount", &[path.to_str().unwrap()])
        });
        fs::rename(self.outside("kept"), self.outside("image")).unwrap();
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

/// Kills every process of a world; how many there were.
pub fn kill_all(world: &World) -> usize {
    let left = world.processes();
    for (pid, _) in &left {
        if let Some(pid) = Pid::from_raw(*pid) {
            // It may have ended by itself.
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
