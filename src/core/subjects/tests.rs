//! The table against what it is for, and against a naive one that forgets nobody.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn rate(per_second: u32, burst: u32) -> Limit {
    Limit { per_second: Some(per_second), burst: Some(burst), concurrent: None }
}

fn subject(number: u64) -> Subject {
    Subject(u128::from(number).to_be_bytes())
}

/// A table of so many places, asked by number.
struct Table {
    subjects: Arc<Subjects>,
    limit: Limit,
    places: usize,
}

impl Table {
    fn new(limit: Limit, places: usize) -> Self {
        Self { subjects: Arc::default(), limit, places }
    }

    fn admit(&self, number: u64, now: u64) -> Result<Permit, Over> {
        self.subjects.admit(&self.limit, subject(number), self.places, now)
    }

    fn passes(&self, number: u64, now: u64) -> bool {
        self.admit(number, now).is_ok()
    }
}

#[test]
fn each_subject_has_its_own_burst_and_rate() {
    let table = Table::new(rate(10, 3), 64);
    for number in 0..5 {
        assert_eq!((0..10).filter(|_| table.passes(number, SECOND)).count(), 3);
        assert_eq!(table.admit(number, SECOND).map(drop), Err(Over::Rate { wait_ns: SECOND / 10 }));
        assert!(table.passes(number, SECOND + SECOND / 10));
    }
    assert_eq!((table.subjects.len(SECOND), table.subjects.len(10 * SECOND)), (5, 0));
    assert_eq!(table.subjects.crowded.read(), 0);
}

#[test]
fn requests_under_way_are_counted_by_subject_and_forgotten_with_the_last() {
    let table = Table::new(Limit { concurrent: Some(2), ..Limit::default() }, 8);
    let held: Vec<_> = (0..1000).flat_map(|number| [table.admit(number, 0), table.admit(number, 0)]).collect();
    assert!(held.iter().all(Result::is_ok), "however many others there are");
    assert!((0..1000).all(|number| table.admit(number, 0).map(drop) == Err(Over::Concurrency)));
    assert_eq!(table.subjects.under_way(), (1000, 2000));
    drop(held);
    assert_eq!(table.subjects.under_way(), (0, 0));
    assert!(table.passes(7, 0));
}

#[test]
fn who_is_over_the_rate_is_not_under_way_and_what_is_not_used_is_given_back() {
    let table = Table::new(Limit { concurrent: Some(5), ..rate(1, 1) }, 64);
    let held = table.admit(1, 0).unwrap();
    assert!(!table.passes(1, 0));
    assert_eq!(table.subjects.under_way(), (1, 1));
    held.unused(&table.limit);
    assert_eq!(table.subjects.under_way(), (0, 0));
    assert!(table.passes(1, 0));
}

#[test]
fn a_flood_of_new_subjects_frees_nobody_who_is_over_its_limit() {
    let table = Table::new(rate(1, 20), 64);
    assert_eq!((0..30).filter(|_| table.passes(0, SECOND)).count(), 20);
    for stranger in 1..1000 {
        (0..21).for_each(|_| drop(table.admit(stranger, SECOND)));
        assert!(!table.passes(0, SECOND), "after {stranger} strangers");
    }
    assert!(table.subjects.len(SECOND) <= 64 && table.subjects.crowded.read() > 0);
}

#[test]
fn a_flood_of_new_subjects_takes_nothing_from_one_that_keeps_to_its_limit() {
    // It owes for one request more than the strangers do, and they are fewer than the places, though not by much.
    let table = Table::new(rate(10, 2), 8);
    assert!(table.passes(0, 0) && table.passes(0, 0));
    for turn in 1..1000 {
        let now = turn * SECOND / 10;
        (1..=7).for_each(|stranger| drop(table.admit(turn * 10 + stranger, now)));
        assert!(table.passes(0, now), "turn {turn}");
    }
}

#[test]
fn a_crowd_that_leaves_is_forgotten() {
    let table = Table::new(rate(1, 1), 8);
    assert!((0..8).all(|number| table.passes(number, 0)));
    assert!(!table.passes(8, 0), "no place is free, and the least debt is all that anybody may owe");
    assert!((100..108).all(|number| table.passes(number, SECOND)));
}

#[test]
fn a_raised_rate_does_not_wait_for_what_a_slow_one_owes() {
    let mut table = Table::new(rate(1, 1000), 8);
    for number in 0..8 {
        assert!((0..1000).all(|_| table.passes(number, 0)));
    }
    table.limit = rate(1000, 10);
    for number in [3, 77] {
        assert!(!table.passes(number, 1), "empty is empty");
        assert!(table.passes(number, SECOND / 100), "{number}");
    }
}

#[test]
fn a_subject_cannot_be_printed() {
    assert_eq!(format!("{:?}", subject(7)), "Subject(…)");
}

/// Short ones mostly: a crowd comes at once.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0), 3 => 0..SECOND / 100, 1 => 0..SECOND]
}

proptest! {
    /// Whatever comes, nobody gets more than a table without end would give; and the same, where it is not full.
    #[test]
    fn nobody_gets_more_than_its_limit_and_no_less_where_there_is_room(
        per_second in 1_u32..50,
        burst in 1_u32..10,
        steps in prop::collection::vec((0_u64..20, pause(), any::<bool>()), 1..400),
    ) {
        let limit = rate(per_second, burst);
        let (small, large) = (Table::new(limit, 8), Table::new(limit, 60 * 64));
        let mut naive: BTreeMap<u64, u64> = BTreeMap::new();
        let pace = limit.pace().unwrap();
        let mut now = 0;
        for (number, step, is_used) in steps {
            now += step;
            let owed = naive.get(&number).copied().unwrap_or_default();
            // What the small table lets pass, the naive one has to as well, each counting what passed there.
            let passed = small.admit(number, now);
            let next = pace.take(owed, now);
            prop_assert!(passed.is_err() || next.is_ok(), "{number} at {now}");
            if let (Ok(permit), Ok(next)) = (passed, next) {
                if is_used {
                    naive.insert(number, next);
                } else {
                    permit.unused(&limit);
                }
            }
            prop_assert!(small.subjects.len(now) <= 8);
        }
        let mut naive: BTreeMap<u64, u64> = BTreeMap::new();
        for number in 0..60 {
            for _ in 0..burst + 1 {
                let next = pace.take(naive.get(&number).copied().unwrap_or_default(), now);
                prop_assert_eq!(large.passes(number, now), next.is_ok());
                naive.extend(next.map(|next| (number, next)));
            }
        }
    }
}
