//! Lines that a program writes over, as progress bars do: a carriage return leads back to where the line begins.
//!
//! Not the reading (`logs.rs`). Invariant: of a line that was written over, what a terminal would show at its end comes
//! out, except for bytes that were let out before the carriage return came.

/// A line is held back up to this length.
const LONGEST: usize = 64 << 10;

/// Takes out of a log what was written over.
#[derive(Debug, Default)]
pub(super) struct WrittenOver {
    /// The line as it stands.
    line: Vec<u8>,
    /// A carriage return was the last byte.
    is_back: bool,
    /// A part of the line was let out already.
    is_begun: bool,
}

impl WrittenOver {
    /// Takes bytes in; what is whole by now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        for byte in bytes {
            if std::mem::take(&mut self.is_back) {
                match byte {
                    b'\n' => self.line.push(b'\r'),
                    b'\r' => {}
                    _ => {
                        self.line.clear();
                        if self.is_begun {
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
                    self.is_begun = false;
                }
                _ => self.line.push(*byte),
            }
            if self.line.len() >= LONGEST {
                whole.append(&mut self.line);
                self.is_begun = true;
            }
        }
        whole
    }

    /// Nothing follows for now: the line as far as it stands.
    pub fn flush(&mut self) -> Vec<u8> {
        self.is_begun |= !self.line.is_empty();
        std::mem::take(&mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_line_comes_out() {
        for (written, shown) in [
            ("a\nb\n", "a\nb\n"),
            ("1%\r2%\r100%\nend\n", "100%\nend\n"),
            ("windows\r\nlines\r\n", "windows\r\nlines\r\n"),
            ("\r 1%\r 2%", " 2%"),
            ("1%\r2%\r", "2%"),
            ("1%\r\r\n", "1%\r\n"),
        ] {
            // Whatever pieces it comes in.
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
    fn a_line_that_was_shown_is_written_over_where_it_is_shown() {
        let mut filter = WrittenOver::default();
        assert_eq!(filter.take(b"1%"), b"");
        assert_eq!(filter.flush(), b"1%");
        assert_eq!(filter.take(b"\r2%\r3%\n4%\r5%\n"), b"\r3%\n5%\n");
    }
}
