//! OpenMetrics text into the classic text format, for scrapers that do not ask for OpenMetrics.
//!
//! Samples are the same in both, as far as this router uses them: no exemplars, no timestamps, no units. What differs
//! is the description: the classic format knows a counter by its full name, has no type `info`, and no end mark.

use std::fmt;

/// A page in the classic format, made of one in the other as that is written. Nothing of a sample is looked at, or kept.
#[derive(Debug, Default)]
pub(super) struct Classic {
    page: String,
    /// The description under way, from its `#` on.
    line: String,
    /// Name and text of the last help, until its type comes.
    help: Option<(String, String)>,
    /// Whether what is written next goes on with a sample.
    is_in_sample: bool,
}

impl Classic {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { page: String::with_capacity(bytes), ..Self::default() }
    }

    pub(super) fn into_page(self) -> String {
        self.page
    }

    fn describe(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_end_matches('\n');
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            self.help = Some((name.to_owned(), text.to_owned()));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, text)) = self.help.take().filter(|(of, _)| of == name) {
                self.push(&["# HELP ", name, suffix, " ", &text]);
            }
            self.push(&["# TYPE ", name, suffix, " ", kind]);
        }
    }

    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.page.push_str(part));
        self.page.push('\n');
    }
}

/// What is written ends with its line, or before: the encoder writes no text that goes over the end of one.
impl fmt::Write for Classic {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_in_sample {
            self.page.push_str(text);
            self.is_in_sample = !text.ends_with('\n');
        } else if !self.line.is_empty() || text.starts_with('#') {
            self.line.push_str(text);
            if text.ends_with('\n') {
                self.describe();
            }
        } else if !text.is_empty() {
            self.is_in_sample = true;
            return self.write_str(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn descriptions_get_the_full_name_and_samples_stay() {
        let page = "# HELP a Some a.\n# TYPE a counter\na_total{x=\"# \\n\"} 1\n# HELP b Is b\n# TYPE b info\n\
                    b_info{v=\"1\"} 1\n# HELP c C\n# TYPE c gauge\nc 2\n# EOF\n";
        let lines: fn(&str) -> Vec<&str> = |page| page.split_inclusive('\n').collect();
        let words: fn(&str) -> Vec<&str> = |page| page.split_inclusive([' ', '\n', '_', '{']).collect();
        let letters: fn(&str) -> Vec<&str> = |page| page.split_inclusive(|_| true).collect();
        for parts in [lines, words, letters] {
            let mut classic = Classic::default();
            parts(page).into_iter().chain([""]).for_each(|part| classic.write_str(part).unwrap());
            assert_eq!(
                classic.into_page(),
                "# HELP a_total Some a.\n# TYPE a_total counter\na_total{x=\"# \\n\"} 1\n# HELP b_info Is b\n\
                 # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c C\n# TYPE c gauge\nc 2\n"
            );
        }
    }
}
