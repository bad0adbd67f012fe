//! The right word for a wrong one, for error messages.

/// The candidate that is most like `word`, if one is like it enough: at most a third of its letters are wrong.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = normal(word);
    let distances = candidates.into_iter().map(|candidate| (distance(&word, &normal(candidate)), candidate));
    let (edits, candidate) = distances.min_by_key(|&(edits, _)| edits)?;
    (edits * 3 <= word.len().max(candidate.len())).then_some(candidate)
}

/// Case and the kind of separator are no difference. Very long words are compared by their beginning.
fn normal(word: &str) -> Vec<char> {
    word.chars().take(64).map(|letter| if letter == '_' { '-' } else { letter.to_ascii_lowercase() }).collect()
}

/// Letters to add, drop or replace (Levenshtein), one row of the table at a time.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in (1..).zip(from) {
        let mut diagonal = above - 1;
        let mut left = above;
        for (cell, other) in row.iter_mut().skip(1).zip(to) {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 4] = ["max-attempts", "max-headers", "listen", "drain-grace-ms"];

    #[test]
    fn distances_are_numbers_of_edits() {
        for (from, to, edits) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!(distance(&normal(from), &normal(to)), edits, "{from} {to}");
            assert_eq!(distance(&normal(to), &normal(from)), edits, "{to} {from}");
        }
    }

    #[test]
    fn small_mistakes_are_recognised_and_strangers_are_not() {
        assert_eq!(nearest("max-atempts", WORDS), Some("max-attempts"));
        assert_eq!(nearest("Max_Headers", WORDS), Some("max-headers"));
        assert_eq!(nearest("lisen", WORDS), Some("listen"));
        assert_eq!(nearest("colour", WORDS), None);
        assert_eq!(nearest("", WORDS), None);
    }
}
