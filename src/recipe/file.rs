//! Reads a file of a recipe.
//!
//! Not the content of the file (`manifest.rs`). Links are followed, because people link their recipes, so the
//! name may lead to any file. Invariant: reading never waits and never reads more than its limit, even if the
//! name leads to a FIFO, a device, a kernel file or an endless file.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The largest size in bytes of a manifest, an `env_file` or PraisonAI's own file.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// Reads the first bytes of a regular file, at most `most` bytes.
pub(super) fn read_head(path: &Path, most: u64) -> Result<Vec<u8>> {
    // Checked before it is opened, because opening a device can have side effects.
    check_kind(&std::fs::metadata(path)?)?;
    // NONBLOCK, because another file may have replaced it since, and some kernel files wait for events.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    check_kind(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole text file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_head(path, MAX_BYTES + 1)?;
    if bytes.len() as u64 > MAX_BYTES {
        let problem = format!("it is larger than {MAX_BYTES} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn check_kind(metadata: &std::fs::Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_regular_or_has_no_end_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_text(&path("link")).unwrap(), "text");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, Mode::RUSR, 0).unwrap();
        let message = read_text(&path("fifo")).unwrap_err().to_string();
        assert_eq!(message, "it is not a regular file");
        let sparse = File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 42).unwrap();
        let message = read_text(&path("sparse")).unwrap_err().to_string();
        assert_eq!(message, "it is larger than 1048576 bytes");
        assert_eq!(read_head(&path("sparse"), 7).unwrap(), [0; 7]);
    }
}
