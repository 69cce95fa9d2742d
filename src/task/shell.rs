//! A text as one word of a shell command that somebody copies.
//!
//! Not how a text is shown (`name.rs`). Invariant: a POSIX shell reads the word as the text.

use std::borrow::Cow;

/// The text as one word.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_it_is_quoted() {
        for (text, word) in [
            ("/srv/a-b_c.d", "/srv/a-b_c.d"),
            ("/my recipes/a", "'/my recipes/a'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word, "{text}");
        }
    }
}
