//! "Did you mean": finds the known words that are most similar to an unknown one.
//!
//! Not the message; the caller writes it. Invariant: the most similar word is first, and words that are not
//! similar are left out. A word that is much longer than the known ones is not compared: it may be as long as
//! a file.

/// Words with this similarity or less are left out.
const SIMILARITY: f64 = 0.75;

/// The known words that were probably meant, the most similar first.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let longest = known.iter().map(|known| known.len()).max();
    if word.len() > 2 * longest.unwrap_or(0) {
        return Vec::new();
    }
    let mut near: Vec<(f64, &str)> = known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .filter(|(similarity, _)| *similarity > SIMILARITY)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, known)| known).collect()
}

/// Whether a word differs from a known one in only a few letters. It is stricter than [`nearest`]: it decides
/// whether a message may repeat a word that could be a secret.
pub fn is_typo_of(word: &str, known: &str) -> bool {
    word.len() <= 2 * known.len() && strsim::osa_distance(word, known) <= known.len() / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_word_is_first_and_others_are_left_out() {
        let known = ["greet", "great", "sums"];
        assert_eq!(nearest("gret", known), ["greet", "great"]);
        assert!(nearest("zzz", known).is_empty());
        // A longer word with the same start is similar, but not one of this length.
        assert_eq!(nearest("greetgreet", known)[0], "greet");
        assert!(nearest("greetgreetg", known).is_empty());
        assert!(is_typo_of("inptu", "input") && !is_typo_of("hunter2", "input"));
    }
}
