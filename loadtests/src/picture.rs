//! Bars as SVG: for each shape of traffic, what a request costs each front-end, next to what it costs Scorefront.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: usize = 760;
const LABEL: usize = 150;
const BAR: usize = 14;
const GAP: usize = 4;
const TITLE: usize = 26;
/// Room for the figure behind the longest bar.
const FIGURE: usize = 90;

/// The picture of these shapes.
pub fn draw(shapes: &[Value]) -> String {
    let mut body = String::new();
    let mut top = 10;
    for shape in shapes {
        let rows = rows(shape);
        let Some(most) = rows.iter().map(|row| row.1).max_by(f64::total_cmp).filter(|&most| most > 0.0) else {
            continue;
        };
        let about = escape(shape["about"].as_str().unwrap_or_default());
        let _ = writeln!(body, r#"<text x="0" y="{}" class="t">{about}</text>"#, top + 14);
        top += TITLE;
        for (name, cost) in rows {
            let long = (cost / most * (WIDTH - LABEL - FIGURE) as f64).round();
            let class = if name.starts_with("scorefront") { "o" } else { "p" };
            let (text, end) = (top + BAR - 3, LABEL as f64 + long + 5.0);
            let _ = writeln!(body, r#"<text x="{}" y="{text}" class="n">{}</text>"#, LABEL - 6, escape(name));
            let _ = writeln!(
                body,
                r#"<rect x="{LABEL}" y="{top}" width="{long}" height="{BAR}" class="{class}"/><text x="{end}" y="{text}">{cost:.1} µs</text>"#
            );
            top += BAR + GAP;
        }
        top += 10;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">
<style>text{{fill:#333}}.t{{font-weight:bold}}.n{{text-anchor:end}}.o{{fill:#d9480f}}.p{{fill:#adb5bd}}</style>
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
    )
}

fn rows(shape: &Value) -> Vec<(&str, f64)> {
    let front_ends = shape["front_ends"].as_array().map(Vec::as_slice).unwrap_or_default();
    front_ends.iter().filter_map(|row| Some((row["front_end"].as_str()?, row["cost_us"]["median"].as_f64()?))).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_are_in_proportion() {
        let shape = serde_json::json!({ "about": "small & fast", "front_ends": [
            { "front_end": "nginx", "cost_us": { "median": 20.0 } },
            { "front_end": "scorefront", "cost_us": { "median": 10.0 } },
        ]});
        let drawn = draw(&[shape]);
        let full = WIDTH - LABEL - FIGURE;
        assert!(drawn.contains(&format!("width=\"{full}\"")) && drawn.contains(&format!("width=\"{}\"", full / 2)));
        assert!(drawn.contains("small &amp; fast") && drawn.contains("class=\"o\""));
    }

    #[test]
    fn a_shape_without_figures_is_left_out() {
        assert!(!draw(&[serde_json::json!({ "about": "empty" })]).contains("empty"));
    }
}
