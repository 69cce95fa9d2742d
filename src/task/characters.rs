//! Which characters of an untrusted text are unsafe on a terminal.
//!
//! Not how they are escaped (`name.rs`). These Unicode categories are unsafe: controls, format characters,
//! line and paragraph separators, private use and noncharacters. Letters that look like a space and
//! characters that a terminal should ignore are unsafe too. Invariant: a safe character is visible, at its
//! place in the text.

use unicode_width::UnicodeWidthChar as _;

/// How many combining marks one character may have. More marks would cover the lines above and below. No
/// language needs more.
const MOST_MARKS: usize = 4;

/// Format characters (Cf), separators of lines and paragraphs (Zl, Zp), and characters shown as nothing or as
/// a space. Variation selectors are not in the table: emoji need them, and they count as combining marks.
const HIDDEN: [(char, char); 28] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{e000}', '\u{f8ff}'),
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d159}', '\u{1d159}'),
    ('\u{1d173}', '\u{1d17a}'),
    // Tags, and the planes for private use after them.
    ('\u{e0000}', '\u{10ffff}'),
];

/// Whether a character moves the cursor, hides text or is invisible.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control() || (!c.is_ascii() && (is_hidden(c) || is_noncharacter(c)))
}

/// Whether this is one of the last two code points of a plane, which are never characters.
fn is_noncharacter(c: char) -> bool {
    u32::from(c) & 0xfffe == 0xfffe
}

fn is_hidden(c: char) -> bool {
    let after = HIDDEN.partition_point(|(first, _)| *first <= c);
    after > 0 && c <= HIDDEN[after - 1].1
}

/// Counts the combining marks on one character, from left to right.
#[derive(Default)]
pub(super) struct Marks(usize);

impl Marks {
    /// Whether this character is a mark above the limit.
    pub fn are_too_many(&mut self, c: char) -> bool {
        let is_mark = !c.is_ascii() && c.width() == Some(0);
        self.0 = if is_mark { self.0 + 1 } else { 0 };
        self.0 > MOST_MARKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(HIDDEN.iter().all(|(first, last)| first <= last));
        assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn invisible_characters_are_unsafe_and_visible_ones_are_not() {
        for c in "\u{1b}\r\u{9b}\u{ad}\u{202e}\u{2028}\u{2066}\u{2800}\u{3164}\u{115f}\u{e0041}\u{e0100}\u{f0000}\u{180e}\u{1fffe}"
            .chars()
        {
            assert!(is_unsafe(c), "{c:?}");
        }
        for c in "aé表𝒳 ✅👩\u{301}\u{fe0f}\u{3000}\u{a0}नि".chars() {
            assert!(!is_unsafe(c), "{c:?}");
        }
    }
}
