//! OpenMetrics text into the classic text format, for scrapers that do not ask for OpenMetrics.
//!
//! Samples are the same in both, as far as this router uses them: no exemplars, no timestamps, no units. What differs
//! is the description: the classic format knows a counter by its full name, has no type `info`, and no end mark.

/// Line by line.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut classic = String::with_capacity(page.len() + page.len() / 64);
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|&(of, _)| of == name) {
                push(&mut classic, &["# HELP ", name, suffix, " ", text]);
            }
            push(&mut classic, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&mut classic, &[line]);
        }
    }
    classic
}

fn push(page: &mut String, parts: &[&str]) {
    for part in parts {
        page.push_str(part);
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_get_the_full_name_and_samples_stay() {
        let page = "# HELP a Some a.\n# TYPE a counter\na_total{x=\"# \\n\"} 1\n# HELP b Is b\n# TYPE b info\n\
                    b_info{v=\"1\"} 1\n# HELP c C\n# TYPE c gauge\nc 2\n# EOF\n";
        assert_eq!(
            from_open_metrics(page),
            "# HELP a_total Some a.\n# TYPE a_total counter\na_total{x=\"# \\n\"} 1\n# HELP b_info Is b\n\
             # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c C\n# TYPE c gauge\nc 2\n"
        );
    }
}
