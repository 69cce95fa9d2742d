//! Lines that a program overwrites, as progress bars do: a carriage return goes back to the start of the
//! line.
//!
//! Not how logs are read (`logs.rs`). Invariant: of an overwritten line only the last version is returned,
//! except for bytes that were returned before the carriage return was read.

/// A line is held back up to this length in bytes.
const LONGEST: usize = 64 << 10;

/// A filter that removes overwritten text from a log.
#[derive(Debug, Default)]
pub(super) struct WrittenOver {
    /// The current line, as far as it is held back.
    line: Vec<u8>,
    /// The last byte was a carriage return.
    is_back: bool,
    /// A part of the line was already returned.
    is_partly_returned: bool,
}

impl WrittenOver {
    /// Adds bytes. Returns the lines that are complete now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        for byte in bytes {
            if std::mem::take(&mut self.is_back) {
                match byte {
                    b'\n' => self.line.push(b'\r'),
                    b'\r' => {}
                    _ => {
                        self.line.clear();
                        if self.is_partly_returned {
                            self.line.push(b'\r');
                        }
                    }
                }
            }
            match byte {
                b'\r' => self.is_back = true,
                b'\n' => {
                    self.line.push(b'\n');
                    whole.append(&mut self.line);
                    self.is_partly_returned = false;
                }
                _ => self.line.push(*byte),
            }
            if self.line.len() >= LONGEST {
                whole.append(&mut self.line);
                self.is_partly_returned = true;
            }
        }
        whole
    }

    /// Returns the incomplete line, because no more bytes follow for now.
    pub fn flush(&mut self) -> Vec<u8> {
        self.is_partly_returned |= !self.line.is_empty();
        std::mem::take(&mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_version_of_an_overwritten_line_is_returned() {
        for (written, shown) in [
            ("a\nb\n", "a\nb\n"),
            ("1%\r2%\r100%\nend\n", "100%\nend\n"),
            ("windows\r\nlines\r\n", "windows\r\nlines\r\n"),
            ("\r 1%\r 2%", " 2%"),
            ("1%\r2%\r", "2%"),
            ("1%\r\r\n", "1%\r\n"),
        ] {
            // The size of the pieces makes no difference.
            for size in 1..=written.len() {
                let mut filter = WrittenOver::default();
                let pieces = written.as_bytes().chunks(size);
                let mut out: Vec<u8> = pieces.flat_map(|piece| filter.take(piece)).collect();
                out.extend(filter.flush());
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    shown,
                    "{written:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn the_next_version_of_a_line_that_was_already_returned_starts_with_a_carriage_return() {
        let mut filter = WrittenOver::default();
        assert_eq!(filter.take(b"1%"), b"");
        assert_eq!(filter.flush(), b"1%");
        assert_eq!(filter.take(b"\r2%\r3%\n4%\r5%\n"), b"\r3%\n5%\n");
    }
}
