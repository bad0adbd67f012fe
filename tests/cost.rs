//! The gate on what an exchange costs fails when it should: the counting itself is in `examples/exchange`.

#[path = "../examples/exchange/judge.rs"]
mod judge;

use judge::{Cost, Known, Verdict, judge};

const KNOWN: Cost = Cost { instructions: 50_000.0, allocations: 30.0, bytes: 9_000.0 };

#[test]
fn growth_of_more_than_the_tolerance_fails() {
    let cost = |instructions: f64| judge(KNOWN, Cost { instructions, ..KNOWN });
    assert_eq!(cost(51_400.0), Verdict::Same);
    assert_eq!(cost(51_600.0), Verdict::Grown(vec!["instructions"]));
    assert_eq!(cost(48_600.0), Verdict::Same);
    assert_eq!(cost(48_400.0), Verdict::Fallen(vec!["instructions"]));
}

#[test]
fn any_allocation_more_fails_also_where_instructions_fell() {
    let cost = |allocations: f64| judge(KNOWN, Cost { instructions: 40_000.0, allocations, ..KNOWN });
    assert_eq!(cost(30.04), Verdict::Fallen(vec!["instructions"]));
    assert_eq!(cost(30.1), Verdict::Grown(vec!["allocations"]));
    assert_eq!(cost(29.0), Verdict::Fallen(vec!["instructions", "allocations"]));
}

#[test]
fn bytes_are_for_the_reader() {
    assert_eq!(judge(KNOWN, Cost { bytes: 1e9, ..KNOWN }), Verdict::Same);
}

#[test]
fn the_numbers_that_are_kept_can_be_read() {
    let known: Known = serde_json::from_str(include_str!("../examples/exchange/cost.json")).unwrap();
    assert!(known.shapes.values().all(|cost| cost.instructions > 1_000.0 && cost.allocations >= 0.0));
    assert!(!known.compiler.is_empty() && !known.shapes.is_empty());
}
