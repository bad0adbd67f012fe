//! Tables, results as JSON and as a picture, and the verdict.

use std::path::Path;

use serde_json::{Value, json};

use super::{Column, Measured};
use crate::picture;
use crate::report::{Rounds, Verdict};

/// The share of requests that a front-end with an access log must have logged: a line less costs less.
const LOGGED_MIN: f64 = 0.99;

/// The most that events may be later than without a front-end, at the 99th percentile.
const EVENT_DELAY_MAX_US: f64 = 200.0;

/// Requests per second on one core with a p99 of at most 10 ms: ten times what azureml-fe documents.
const REQUESTS_PER_SECOND_MIN: f64 = 50_000.0;
const P99_MAX_US: f64 = 10_000.0;

/// Prints the table of one shape and says whether Scorefront keeps to its bars.
pub fn judge(measured: &Measured, unjudged: bool) -> (Verdict, Value) {
    let Measured { shape, columns, .. } = measured;
    println!("\n{}: {}", shape.name, shape.about);
    println!("front-end          µs/request: median   least    most  requests/s   p99 ms  logged");
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    for column in columns {
        let (Some(cost), Some(rate)) =
            (Rounds::of(column.cost_us.clone()), Rounds::of(column.requests_per_second.clone()))
        else {
            complaints.push(format!("{}: nothing was measured", column.contender.name));
            continue;
        };
        let p99 = Rounds::of(column.p99_us.clone());
        let logged = column.log.as_ref().map(|_| column.logged as f64 / column.requests as f64);
        let logged_shown = logged.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let p99_shown = p99.map_or("-".to_owned(), |p99| format!("{:.2}", p99.median / 1e3));
        println!(
            "{:17}  {:18.1}  {:6.1}  {:6.1}  {:10.0}  {p99_shown:>7}  {logged_shown:>6}",
            column.contender.name, cost.median, cost.least, cost.most, rate.median
        );
        if logged.is_some_and(|share| share < LOGGED_MIN) && counts_requests(measured) {
            complaints.push(format!("{}: logged only {logged_shown} of its requests", column.contender.name));
        }
        rows.push(json!({
            "front_end": column.contender.name, "cost_us": cost, "rounds_us": column.cost_us,
            "requests": column.requests, "requests_per_second": rate, "p99_us": p99, "logged_share": logged,
        }));
    }
    let bars = bars(measured, &mut complaints);
    more_bars(measured, &mut complaints);
    for complaint in &complaints {
        println!("{}{complaint}", if unjudged { "not judged: " } else { "OVER: " });
    }
    let verdict = if complaints.is_empty() || unjudged { Verdict::Passed } else { Verdict::Failed };
    let row = json!({ "shape": shape.name, "about": shape.about, "front_ends": rows, "bars": bars });
    (verdict, row)
}

/// Whether a line is due for each thing that is counted: a stream of events has one line.
fn counts_requests(measured: &Measured) -> bool {
    measured.direct_p99_us.is_empty()
}

fn cost(column: &Column) -> Option<f64> {
    Some(Rounds::of(column.cost_us.clone())?.median)
}

fn own(measured: &Measured) -> Option<&Column> {
    measured.columns.iter().find(|column| column.front_end.is_judged())
}

fn bars(measured: &Measured, complaints: &mut Vec<String>) -> Vec<Value> {
    let mut rows = Vec::new();
    let Some(own_cost) = own(measured).and_then(cost) else { return rows };
    for bar in measured.shape.bars {
        let others = measured.columns.iter().filter(|column| bar.of.contains(&column.contender.name));
        let Some(base) = others.filter_map(cost).min_by(f64::total_cmp) else { continue };
        let (ratio, of) = (own_cost / base, bar.of.join(" or "));
        println!("  {ratio:.2} x {of} (bar {:.2})", bar.max);
        if ratio > bar.max {
            complaints.push(format!("{ratio:.2} x {of}, {:.2} is the most", bar.max));
        }
        rows.push(json!({ "of": bar.of, "ratio": ratio, "max": bar.max }));
    }
    rows
}

/// Bars that are not about cost.
fn more_bars(measured: &Measured, complaints: &mut Vec<String>) {
    let Some(own) = own(measured) else { return };
    let p99 = Rounds::of(own.p99_us.clone()).map(|p99| p99.median);
    if let (Some(p99), Some(direct)) = (p99, Rounds::of(measured.direct_p99_us.clone())) {
        let added = p99 - direct.median;
        println!("  p99 of an event's way: {p99:.0} µs, {:.0} direct, {added:.0} added", direct.median);
        if added > EVENT_DELAY_MAX_US {
            complaints.push(format!("events come {added:.0} µs late at p99, {EVENT_DELAY_MAX_US:.0} is the most"));
        }
    }
    if measured.shape.name == "small"
        && let (Some(p99), Some(rate)) = (p99, Rounds::of(own.requests_per_second.clone()))
        && (p99 > P99_MAX_US || rate.median < REQUESTS_PER_SECOND_MIN)
    {
        complaints.push(format!(
            "{:.0} requests/s at a p99 of {:.1} ms; {REQUESTS_PER_SECOND_MIN:.0} at 10 ms are wanted",
            rate.median,
            p99 / 1e3
        ));
    }
}

/// Writes results and picture.
pub fn write(results: &[Value], dir: &Path) -> anyhow::Result<()> {
    let file = dir.join("speed.json");
    let all = json!({ "machine": machine(), "shapes": results });
    std::fs::write(&file, serde_json::to_vec_pretty(&all)?)?;
    let drawn = dir.join("speed.svg");
    std::fs::write(&drawn, picture::draw(results))?;
    println!("\nresults: {}, {}", file.display(), drawn.display());
    Ok(())
}

/// On what it was measured.
pub fn machine() -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.trim_start_matches(['\t', ':', ' ']).to_owned()));
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}
