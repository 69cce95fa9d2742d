//! Whether somebody gave us something on stdin that nobody reads.
//!
//! Not the reading of it (`submit.rs`). Invariant: nothing is taken from stdin, which may be a loop's list, and
//! nothing is waited for.

use rustix::fs::FileType;

use super::Context;

/// Says once that stdin is not the input.
pub(super) struct UnreadStdin {
    is_said: bool,
}

impl UnreadStdin {
    /// `is_read` says that the input was given, on stdin or otherwise.
    pub fn new(is_read: bool) -> UnreadStdin {
        UnreadStdin { is_said: is_read }
    }

    /// Says so if something is there by now: whoever writes into a pipe may be later than we.
    pub fn note(&mut self, context: &Context) {
        if !self.is_said && has_bytes() {
            self.is_said = true;
            context
                .out
                .note("note: stdin is not read; with `--input -` it is the input");
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
