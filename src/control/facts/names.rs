//! Which names are valid.

/// What a name must look like, for messages.
pub(super) const NAME_RANGE: &str =
    "3 to 32 letters, digits and hyphens, beginning with a letter, not ending with a hyphen";

/// Whether it is the name of an endpoint or a deployment: `^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`, 3-32 characters.
pub(in crate::control) fn is_name(text: &str) -> bool {
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

/// Whether it can be the name of an object of Kubernetes: up to 253 lower-case letters, digits, hyphens and dots.
pub(super) fn is_object_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| is_part(b) || b == b'-' || b == b'.')
        && [text.bytes().next(), text.bytes().next_back()].into_iter().flatten().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_follow_the_rules_of_kubernetes() {
        for name in ["a", "iris-ca", "0.b", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", "A", "-a", "a-", ".a", "a.", "a/b", "a b", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
    }

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
}
