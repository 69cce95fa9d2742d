//! Where a round runs: on an ext4 in a file on the real disk, or in a new folder on that disk itself.
//!
//! Each round starts on a fresh one. ext4 creates files more slowly if others were deleted within the last
//! minute, so a round would pay for the one before. For the same reason the folders on the disk are removed at
//! the end of the run. An image is written completely before it is used (no lazy tables), and is unmounted
//! before it is copied. Needs root.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cleanup;

/// What a round runs on. Each flush of an image is an fsync of its file, so an image makes a sync more expensive
/// than it is on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    Image,
    Disk,
}

impl Ground {
    pub const BOTH: [Ground; 2] = [Ground::Image, Ground::Disk];

    /// For the name of a row. The image is not named, because all other scenarios run on one.
    pub fn suffix(self) -> &'static str {
        match self {
            Ground::Image => "",
            Ground::Disk => ", on the disk itself",
        }
    }

    /// Does the work in an empty folder.
    pub fn fresh<T>(self, work: impl FnOnce(&Path) -> T) -> T {
        match self {
            Ground::Image => {
                let image = Image::fresh("small", Size::Small);
                let mounted = image.mount();
                let answer = work(mounted.path());
                mounted.unmount();
                answer
            }
            Ground::Disk => {
                let disk = disk_folder();
                std::fs::create_dir_all(&disk).expect("the target folder can be written to");
                let folder = tempfile::Builder::new().prefix("round-").tempdir_in(disk);
                work(&folder.expect("a folder can be made").keep())
            }
        }
    }
}

/// The rounds that run on the disk itself.
fn disk_folder() -> PathBuf {
    place().join("disk")
}

/// How large: for a few thousand tasks or for a hundred thousand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Large,
}

impl Size {
    fn bytes(self) -> u64 {
        match self {
            Size::Small => 2 << 30,
            Size::Large => 14 << 30,
        }
    }

    /// Allocates all blocks if syncs are measured: the first process to use a block would pay for the
    /// allocation.
    fn occupy(self, mut file: &File) {
        if self == Size::Small {
            let mut zeros = std::io::repeat(0).take(self.bytes());
            std::io::copy(&mut zeros, &mut file).expect("the disk has room for an image");
        }
    }

    fn inodes(self) -> u64 {
        match self {
            Size::Small => 300_000,
            Size::Large => 2_200_000,
        }
    }
}

/// The folder of a run, on the disk that is measured.
pub fn place() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let place = target.expect("a target folder").join("bench");
    std::fs::create_dir_all(&place).expect("the target folder can be written to");
    place
}

/// A file with a file system in it, removed when this value is dropped.
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// A new file system under this name, replacing an earlier one.
    pub fn fresh(name: &str, size: Size) -> Image {
        let path = place().join(format!("{name}.img"));
        let kept = std::fs::metadata(&path).is_ok_and(|old| old.len() == size.bytes());
        if !kept {
            let _ = std::fs::remove_file(&path);
            let file = File::create(&path).expect("an image can be made");
            file.set_len(size.bytes()).expect("an image can be made");
            size.occupy(&file);
        }
        // nodiscard: allocated blocks stay allocated, so a sync does not have to allocate.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-N", &size.inodes().to_string()])
            .args(["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&path));
        let image = Image { path };
        image.finalize();
        image
    }

    /// A copy under another name.
    pub fn copy(&self, name: &str) -> Image {
        let path = place().join(format!("{name}.img"));
        let _ = std::fs::remove_file(&path);
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(&self.path)
            .arg(&path));
        let image = Image { path };
        image.finalize();
        image
    }

    /// Syncs what was written to it, so that no round pays for that.
    fn finalize(&self) {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.expect("an image can be synced");
    }

    /// Mounts it in a folder of its own.
    pub fn mount(&self) -> Mounted {
        let folder = tempfile::Builder::new()
            .prefix("agentspool-bench-")
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(&self.path)
            .arg(&folder));
        cleanup::note_mount(&folder);
        Mounted { folder }
    }
}

/// A mounted image, unmounted when this value is dropped.
pub struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Unmounts it, so that the image can be copied or mounted again.
    pub fn unmount(self) {
        assert!(
            self.try_unmount(),
            "{} is still in use: some process of the last round did not end",
            self.folder.display()
        );
    }

    fn try_unmount(&self) -> bool {
        // The last runners of a watcher exit a little later than the watcher.
        for _ in 0..500 {
            let asked = Command::new("umount").arg(&self.folder).output();
            if asked.is_ok_and(|output| output.status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let is_mounted = std::fs::read_to_string("/proc/self/mounts")
            .is_ok_and(|mounts| mounts.contains(&*self.folder.to_string_lossy()));
        if is_mounted && (std::thread::panicking() || !self.try_unmount()) {
            cleanup::detach(&self.folder);
        }
        let _ = std::fs::remove_dir(&self.folder);
        cleanup::forget_mount(&self.folder);
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The small one is used again and again, and stays until the end of the run.
        if !self.path.ends_with("small.img") {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what the rounds shared, and what a run that was killed left.
pub fn remove_all() {
    let entries = std::fs::read_dir(place()).into_iter().flatten().flatten();
    let images = entries.map(|entry| entry.path());
    for image in images.filter(|path| path.extension().is_some_and(|end| end == "img")) {
        let _ = std::fs::remove_file(image);
    }
    let _ = std::fs::remove_dir_all(disk_folder());
}

/// Runs a system tool, which must succeed.
pub fn run(command: &mut Command) {
    let what = format!("{command:?}");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .unwrap_or_else(|error| panic!("failed to run {what}: {error}"));
    assert!(
        output.status.success(),
        "{what} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
