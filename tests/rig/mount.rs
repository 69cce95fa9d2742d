//! Small file systems for one test: mounted in a folder of their own, unmounted when the test ends.
//!
//! Needs root. Invariant: the mount is removed, whatever happens in the test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system. Declare it before the world on it, so that it is dropped last.
pub struct Mount {
    folder: tempfile::TempDir,
    what: String,
}

impl Mount {
    /// A tmpfs of this many bytes and inodes.
    pub fn tmpfs(bytes: u64, inodes: u64) -> Mount {
        let options = format!("size={bytes},nr_inodes={inodes},mode=755");
        Mount::new(&["-t", "tmpfs", "-o", &options, "tmpfs"], "tmpfs")
    }

    /// An ext4 in a file of this many bytes.
    pub fn ext4(bytes: u64, inodes: u64) -> Mount {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        let path = image.path().to_str().unwrap();
        let inodes = inodes.to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", &inodes, path]);
        // The loop device holds the file, which needs no name any more.
        Mount::new(&["-t", "ext4", "-o", "loop", path], "ext4")
    }

    /// An XFS in a file. mkfs.xfs wants at least 300 MiB, of which almost nothing is written.
    pub fn xfs() -> Mount {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(320 << 20).unwrap();
        let path = image.path().to_str().unwrap();
        run("mkfs.xfs", &["-q", path]);
        Mount::new(&["-t", "xfs", "-o", "loop", path], "xfs")
    }

    /// An XFS in a file in memory, whose files can be cloned.
    pub fn xfs_in_memory(bytes: u64) -> Mount {
        let memory = Mount::tmpfs(bytes + (bytes >> 3), 10);
        let image = memory.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let path = image.to_str().unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", path]);
        // The memory is unmounted lazily, and stays as long as the loop device holds the file.
        Mount::new(&["-t", "xfs", "-o", "loop", path], "xfs")
    }

    fn new(arguments: &[&str], what: &str) -> Mount {
        let folder = tempfile::Builder::new()
            .prefix("agentspool-mount-")
            .tempdir()
            .unwrap();
        let mut all = arguments.to_vec();
        all.push(folder.path().to_str().unwrap());
        run("mount", &all);
        Mount {
            folder,
            what: what.to_owned(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        run("mount", &["-o", &how, self.path().to_str().unwrap()]);
    }

    /// Like `remount`, but the kernel may refuse.
    pub fn try_remount(&self, how: &str) -> bool {
        let how = format!("remount,{how}");
        try_run("mount", &["-o", &how, self.path().to_str().unwrap()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that is about to exit must not keep the mount.
        let path = self.path();
        let _ = command("umount", &["-l", path.to_str().unwrap()]).status();
    }
}

/// Administrators' tools are not on every user's PATH.
fn command(program: &str, arguments: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let output = command(program, arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (this test needs it, and root)"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} (this test needs root)",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs it and returns whether it succeeded.
pub fn try_run(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Fills all bytes that are left, and returns the file that holds them.
pub fn fill_bytes(folder: &Path) -> PathBuf {
    use std::io::Write;
    let path = folder.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 16, 1 << 12, 1 << 9, 1] {
        let piece = vec![b'x'; size];
        // The bytes that were accepted must also reach the disk.
        while file.write_all(&piece).is_ok() && (size > 1 || file.sync_data().is_ok()) {}
        let _ = file.sync_all();
    }
    path
}

/// Uses all inodes that are left, and returns the files that hold them.
pub fn fill_inodes(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    loop {
        let path = folder.join(format!("inode-{}", files.len()));
        match std::fs::File::create(&path) {
            Ok(_) => files.push(path),
            Err(_) => return files,
        }
    }
}
