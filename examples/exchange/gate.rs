//! The gate: counts every shape, compares with what is known, and says what to do.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::callgrind::{self, Counted};
use crate::judge::{Cost, Known, Verdict, judge};
use crate::shape::Shape;

const HOW: &str = "    cargo run --profile cost --example exchange -- gate --bless";

fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "examples", "exchange", "cost.json"].iter().collect()
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("there is a compiler");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn show(shape: Shape, what: &str, cost: Cost) {
    let Cost { instructions, allocations, bytes } = cost;
    println!("{:12} {what:6} {instructions:8} instructions {allocations:6} allocations {bytes:7} bytes", shape.name());
}

/// Counts, and fails where something has changed.
pub(crate) fn check() -> ExitCode {
    let known: Known = std::fs::read(file())
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| panic!("{}: {error}", file().display()));
    let (mut grown, mut fallen) = (false, false);
    for shape in Shape::ALL {
        let before = *known.shapes.get(shape.name()).unwrap_or_else(|| panic!("{} is not known", shape.name()));
        let Counted { cost, calls, .. } = callgrind::count(shape);
        let verdict = judge(before, cost);
        show(shape, "known", before);
        show(shape, "now", cost);
        println!("{:12} calls {calls:?}", shape.name());
        println!("{:12} {verdict:?}", shape.name());
        grown |= matches!(verdict, Verdict::Grown(_));
        fallen |= matches!(verdict, Verdict::Fallen(_));
    }
    if known.compiler != compiler() {
        println!("counted before with {}, now with {}: that alone may be it", known.compiler, compiler());
    }
    if grown {
        println!("An exchange costs more than before. Where: `-- profile SHAPE`. If it is worth that, say so in the");
        println!("commit, with the numbers that this writes:\n{HOW}");
    } else if fallen {
        println!(
            "An exchange costs less than before. So that it stays so, commit the numbers that this writes:\n{HOW}"
        );
    }
    if grown || fallen { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Counts, and writes that down.
pub(crate) fn bless() -> ExitCode {
    let shapes = Shape::ALL.into_iter().map(|shape| {
        let cost = callgrind::count(shape).cost;
        show(shape, "now", cost);
        (shape.name().to_owned(), cost)
    });
    let known = Known { compiler: compiler(), shapes: shapes.collect() };
    let text = serde_json::to_string_pretty(&known).expect("numbers are JSON");
    std::fs::write(file(), text + "\n").expect("examples/exchange/cost.json can be written");
    ExitCode::SUCCESS
}
