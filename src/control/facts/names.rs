//! Names: which are valid, and which one somebody meant.

/// What a name must look like, for messages.
pub(super) const NAME_RANGE: &str =
    "3 to 32 letters, digits and hyphens, beginning with a letter, not ending with a hyphen";

/// Whether it is the name of an endpoint or a deployment: `^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`, 3-32 characters.
pub(super) fn is_name(text: &str) -> bool {
    (3..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Whether it is the name of a port: up to 15 lower-case letters, digits and single hyphens, at least one letter.
pub(super) fn is_port_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// The known word that is nearest to what was written, if it is near enough to be meant.
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_ascii_lowercase().replace('_', "-");
    let near = |word: &str| word.len() / 3;
    known
        .into_iter()
        .map(|word| (distance(&written, word), word))
        .filter(|&(distance, word)| distance <= near(word).clamp(1, 6))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// How many letters have to be inserted, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    // A longer text than any known word is far from all of them, and not worth the work.
    if a.len() > 128 {
        return a.len();
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_published_pattern() {
        for name in ["iris", "abc", "A-1", &"a".repeat(32), "iris--2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "ab", "1ris", "-iris", "iris-", "ir_is", "ir is", "irïs", "iris/../x", &"a".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn port_names_follow_the_rules_of_kubernetes() {
        for name in ["http", "h2", "a-b"] {
            assert!(is_port_name(name), "{name}");
        }
        for name in ["", "80", "HTTP", "-a", "a-", "a--b", "sixteen-letters-x"] {
            assert!(!is_port_name(name), "{name}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_word_that_was_meant() {
        let known = ["traffic-percent", "scoring-path", "scoring-port", "auth-mode"];
        for (written, meant) in [
            ("trafic-percent", Some("traffic-percent")),
            ("traffic_percent", Some("traffic-percent")),
            ("Traffic-Percent", Some("traffic-percent")),
            ("scoring-prot", Some("scoring-port")),
            ("authmode", Some("auth-mode")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
