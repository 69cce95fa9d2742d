//! A task's name or label as it is shown in a line of ours.
//!
//! Not for `--json`, which has the whole text. A label is any text of the submitter. On a terminal it is
//! quoted and cut, so that it cannot push the rest of the line away and cannot look like a line of ours.
//! Invariant: a shown label takes at most the given number of columns.

use std::io::IsTerminal as _;

use agentspool::client::TaskView;
use agentspool::task::escape_text;
use unicode_width::UnicodeWidthChar as _;

use super::Context;

/// The name, else the label, if any. `columns` is the room on a terminal; without it the text is not cut.
pub(super) fn shown(view: &TaskView, columns: Option<usize>) -> Option<String> {
    let status = &view.status;
    if let Some(name) = &status.name {
        let name = name.as_str();
        return Some(columns.map_or_else(|| name.to_owned(), |room| cut(name, room)));
    }
    of_label(view, columns)
}

/// Only the label, if any.
pub(super) fn of_label(view: &TaskView, columns: Option<usize>) -> Option<String> {
    let status = &view.status;
    let label = folded(status.label.as_deref()?);
    if label.is_empty() {
        return None;
    }
    Some(match columns {
        Some(room) => format!("\"{}\"", cut(&label, room.saturating_sub(2))),
        None => label,
    })
}

/// The room for a text that starts in column `start`, if stdout is a terminal.
pub(super) fn room_after(context: &Context, start: usize) -> Option<usize> {
    const LEAST: usize = 8;
    let is_terminal = std::io::stdout().is_terminal();
    is_terminal.then(|| context.out.width().saturating_sub(start + 1).max(LEAST))
}

/// Joins runs of white space into one space, and removes it at both ends.
fn folded(label: &str) -> String {
    let words: Vec<&str> = label.split_whitespace().collect();
    escape_text(&words.join(" ")).into_owned()
}

/// The part of a text that fits into this many columns of any terminal.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut width = 0;
    let mut kept = 0;
    for (at, c) in text.char_indices() {
        width += max_columns(c);
        if width > columns {
            return format!("{}…", &text[..kept]);
        }
        if width < columns {
            kept = at + c.len_utf8();
        }
    }
    text.to_owned()
}

/// The most columns that a character takes. A terminal that does not support a sequence of emoji shows each
/// of them, and a terminal that supports U+FE0F makes the character before it two columns wide.
fn max_columns(c: char) -> usize {
    const EMOJI_FOLLOWS: char = '\u{fe0f}';
    match c {
        EMOJI_FOLLOWS => 1,
        _ => c.width().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_in_a_label_is_folded() {
        assert_eq!(folded("  a \u{3000}\u{a0} b\t"), "a b");
        assert_eq!(folded("\u{2800}x\u{202e}"), r"\u{2800}x\u{202e}");
    }

    #[test]
    fn a_text_that_is_too_wide_is_cut() {
        for (text, columns, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("表表", 4, "表表"),
            ("表表表", 4, "表…"),
            ("表", 1, "…"),
            ("👩\u{200d}👩\u{200d}👧", 5, "👩\u{200d}👩\u{200d}…"),
            ("⚠\u{fe0f}x", 2, "⚠…"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, columns), shown, "{text} in {columns}");
        }
    }
}
