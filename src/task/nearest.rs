//! "Did you mean": the known words that are nearest to one that is not known.
//!
//! Not the message, which is its caller's. Invariant: the order is by likeness, and words of no likeness are left out.

/// What is less like than this was not meant.
const LIKENESS: f64 = 0.75;

/// The known words that were probably meant, the nearest first.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known = known.into_iter();
    let mut near: Vec<(f64, &str)> = known
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, known)| known).collect()
}

/// Whether a word is a known one but for a few letters. This is stricter than [`nearest`], and decides whether the word
/// may be repeated where it could be a secret.
pub fn is_typo_of(word: &str, known: &str) -> bool {
    strsim::osa_distance(word, known) <= known.len() / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first_and_strangers_do_not_come() {
        let known = ["greet", "great", "sums"];
        assert_eq!(nearest("gret", known), ["greet", "great"]);
        assert!(nearest("zzz", known).is_empty());
        assert!(is_typo_of("inptu", "input") && !is_typo_of("hunter2", "input"));
    }
}
