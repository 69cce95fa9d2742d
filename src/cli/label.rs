//! A task's name or label as it is shown among words of ours.
//!
//! Not in `--json`, where it stands whole. A label is any text of the submitter's: on a terminal it is quoted and
//! cut, so that it can neither push away what stands behind it nor fill a line that looks like one of ours.
//! Invariant: what is shown of a label takes at most the columns that it is given.

use std::io::IsTerminal as _;

use agentspool::client::TaskView;
use agentspool::task::escape_text;
use unicode_width::UnicodeWidthChar as _;

use super::Context;

/// The name or the label, where there is one. `columns` is the room on a terminal; a pipe gets it whole.
pub(super) fn shown(view: &TaskView, columns: Option<usize>) -> Option<String> {
    let status = &view.status;
    if let Some(name) = &status.name {
        let name = name.as_str();
        return Some(columns.map_or_else(|| name.to_owned(), |room| cut(name, room)));
    }
    of_label(view, columns)
}

/// The label alone, where there is one.
pub(super) fn of_label(view: &TaskView, columns: Option<usize>) -> Option<String> {
    let status = &view.status;
    let label = folded(status.label.as_deref()?);
    Some(match columns {
        Some(room) => format!("\"{}\"", cut(&label, room.saturating_sub(2))),
        None => label,
    })
}

/// The room for a text that begins in column `begin`, if stdout is a terminal.
pub(super) fn room_behind(context: &Context, begin: usize) -> Option<usize> {
    const LEAST: usize = 8;
    let is_terminal = std::io::stdout().is_terminal();
    is_terminal.then(|| context.out.width().saturating_sub(begin + 1).max(LEAST))
}

/// Blanks in a row count as one, and none stands at an end.
fn folded(label: &str) -> String {
    let words: Vec<&str> = label.split_whitespace().collect();
    escape_text(&words.join(" ")).into_owned()
}

/// As much of a text as fits into so many columns of any terminal.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut width = 0;
    let mut kept = 0;
    for (at, c) in text.char_indices() {
        width += most_columns(c);
        if width > columns {
            return format!("{}…", &text[..kept]);
        }
        if width < columns {
            kept = at + c.len_utf8();
        }
    }
    text.to_owned()
}

/// The columns that a character takes at most. A terminal that does not know a sequence of emoji shows each of
/// them, and one that knows U+FE0F makes the character before it two columns wide.
fn most_columns(c: char) -> usize {
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
    fn a_label_cannot_push_with_blanks() {
        assert_eq!(folded("  a \u{3000}\u{a0} b\t"), "a b");
        assert_eq!(folded("\u{2800}x\u{202e}"), r"\u{2800}x\u{202e}");
    }

    #[test]
    fn what_is_too_wide_is_cut() {
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
