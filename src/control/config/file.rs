//! The configuration file: YAML, one mapping of keys to values or lists of values, each with its line.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A configuration is a page or two; more than this is a mistake.
const BYTES_MAX: u64 = 1 << 20;

/// One key of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) values: Vec<String>,
}

/// Reads the file.
///
/// # Errors
/// One line that names the file and, where there is one, the line in it.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let shown = path.display();
    let length = path.metadata().map_err(|error| format!("{shown}: cannot be read: {error}"))?.len();
    if length > BYTES_MAX {
        return Err(format!("{shown}: has {length} bytes; at most {BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: cannot be read: {error}"))?;
    parse(&text).map_err(|(line, message)| match line {
        Some(line) => format!("{shown}:{line}: {message}"),
        None => format!("{shown}: {message}"),
    })
}

fn parse(text: &str) -> Result<Vec<Entry>, (Option<u64>, String)> {
    // `off` and `on` are words here, as YAML 1.2 has them.
    let options = serde_saphyr::options! { strict_booleans: true };
    let entries = serde_saphyr::from_str_with_options::<Option<Entries>>(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line());
        // The parser's message goes on with an excerpt of the file.
        let message = error.without_snippet().to_string();
        let first = message.lines().next().unwrap_or("is no YAML").to_owned();
        (line, first)
    })?;
    Ok(entries.map_or_else(Vec::new, |entries| entries.0))
}

/// The file as a whole.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mapping;

        impl<'de> Visitor<'de> for Mapping {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of settings, such as `workers: 2`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let Values(values) = map.next_value()?;
                    entries.push(Entry { line: key.referenced.line(), key: key.value, values });
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Mapping)
    }
}

/// One value or a list of values, as they are written.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_unit<E>(self) -> Result<Values, E> {
                Ok(Values(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(Values(items)) = list.next_element()? {
                    values.extend(items);
                }
                Ok(Values(values))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, line: u64, values: &[&str]) -> Entry {
        Entry { key: key.to_owned(), line, values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    #[test]
    fn keys_have_lines_and_values_are_taken_as_written() {
        let text = "# router\nworkers: 2\nlisten:\n  - 0.0.0.0:8080\n  - \"[::]:8080\"\n\naccess-log: off\nserver-timing: false\nnamespace: on\n";
        let entries = [
            entry("workers", 2, &["2"]),
            entry("listen", 3, &["0.0.0.0:8080", "[::]:8080"]),
            entry("access-log", 7, &["off"]),
            entry("server-timing", 8, &["false"]),
            entry("namespace", 9, &["on"]),
        ];
        assert_eq!(parse(text).expect("parses"), entries);
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(parse("").expect("parses"), []);
        assert_eq!(parse("# only a comment\n").expect("parses"), []);
        assert_eq!(parse("workers:\n").expect("parses"), [entry("workers", 1, &[])]);
    }

    #[test]
    fn what_is_no_mapping_of_values_is_refused_with_its_line() {
        for (text, line) in [
            ("workers: 1\nworkers: 2\n", 2),
            ("workers: 1\nlimits:\n  headers: 2\n", 3),
            ("workers: 1\n  listen: [\n", 2),
            ("- a\n", 1),
        ] {
            let (found, message) = parse(text).expect_err("is refused");
            assert_eq!(found, Some(line), "{text:?}: {message}");
        }
    }
}
