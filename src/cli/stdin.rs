//! Detects input on stdin that is not read.
//!
//! Not the reading of input (`submit.rs`). Invariant: no byte is taken from stdin, which may be the list of a
//! shell loop, and the check does not wait.

use rustix::fs::FileType;

use super::Context;

/// Prints one note that stdin is not the input.
pub(super) struct UnreadStdin {
    is_done: bool,
}

impl UnreadStdin {
    /// `is_read`: the input was given, on stdin or in another way.
    pub fn new(is_read: bool) -> UnreadStdin {
        UnreadStdin { is_done: is_read }
    }

    /// Prints the note if stdin has bytes by now. The writer of a pipe may be later than this process.
    pub fn note(&mut self, context: &Context) {
        if !self.is_done && has_bytes() {
            self.is_done = true;
            context
                .out
                .note("note: stdin is not read; use `--input -` to read the input from stdin");
        }
    }
}

fn has_bytes() -> bool {
    let stdin = rustix::stdio::stdin();
    let Ok(stat) = rustix::fs::fstat(stdin) else {
        return false;
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let at = rustix::fs::seek(stdin, rustix::fs::SeekFrom::Current(0));
            at.is_ok_and(|at| at < stat.st_size.unsigned_abs())
        }
        FileType::Fifo | FileType::Socket => {
            rustix::io::ioctl_fionread(stdin).is_ok_and(|bytes| bytes > 0)
        }
        _ => false,
    }
}
