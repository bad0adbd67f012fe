//! The table against what it is for, and against a naive model that forgets nobody.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

fn rules(free: u32, delay_max_ms: u64, addresses_max: usize) -> Rules {
    Rules { free, delay_max: Duration::from_millis(delay_max_ms), addresses_max, ..Rules::default() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn delay_ms(verdict: Verdict) -> u128 {
    match verdict {
        Verdict::AtOnce => 0,
        Verdict::Late { delay, .. } => delay.as_millis(),
    }
}

#[test]
fn what_is_free_is_answered_at_once_and_the_delay_doubles_from_there_to_its_longest() {
    let (failures, rules) = (Failures::default(), rules(3, 1000, 100));
    let delays: Vec<_> = (0..9).map(|_| delay_ms(failures.note(&rules, ip("192.0.2.1"), SECOND))).collect();
    assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1000, 1000]);
    assert_eq!(failures.note(&rules, ip("192.0.2.2"), SECOND), Verdict::AtOnce, "others are not meant");
    assert_eq!(failures.len(SECOND), 2);
}

#[test]
fn a_client_that_fails_no_faster_than_a_minute_forgives_is_never_late() {
    let (failures, rules) = (Failures::default(), rules(10, 3000, 100));
    for n in 0..1000 {
        assert_eq!(failures.note(&rules, ip("192.0.2.1"), n * 6 * SECOND), Verdict::AtOnce, "{n}");
    }
}

#[test]
fn after_the_time_that_is_told_a_failure_is_answered_at_once_again_and_not_before() {
    for fails in [4, 5, 100] {
        let (rules, now) = (rules(3, 1000, 100), 7 * SECOND);
        let fail = |at_us| {
            let failures = Failures::default();
            let last = (0..fails).map(|_| failures.note(&rules, ip("192.0.2.1"), now)).last().unwrap();
            let Verdict::Late { free_in, .. } = last else { panic!("{last:?}") };
            let at = now + u64::try_from(free_in.as_micros()).unwrap();
            failures.note(&rules, ip("192.0.2.1"), at.saturating_add_signed(at_us))
        };
        assert_eq!(fail(0), Verdict::AtOnce);
        assert_eq!(delay_ms(fail(-1)), 100);
    }
}

#[test]
fn all_is_forgiven_in_a_bounded_time_however_often_a_client_failed() {
    let (failures, rules) = (Failures::default(), rules(10, 3000, 100));
    for _ in 0..10_000 {
        failures.note(&rules, ip("192.0.2.1"), 0);
    }
    // A minute for what is free, and six steps of six seconds for the delays.
    assert_eq!((failures.len(96 * SECOND - 1), failures.len(96 * SECOND)), (1, 0));
}

#[test]
fn a_network_of_one_client_counts_as_one_address() {
    let (failures, rules) = (Failures::default(), rules(1, 1000, 100));
    assert_eq!(failures.note(&rules, ip("2001:db8:0:1::1"), 0), Verdict::AtOnce);
    assert_eq!(delay_ms(failures.note(&rules, ip("2001:db8:0:1:ffff::2"), 0)), 100);
    assert_eq!(failures.note(&rules, ip("2001:db8:0:2::1"), 0), Verdict::AtOnce);
    assert_eq!(failures.note(&rules, ip("192.0.2.1"), 0), Verdict::AtOnce);
    assert_eq!(delay_ms(failures.note(&rules, ip("::ffff:192.0.2.1"), 0)), 100);
}

#[test]
fn a_crowd_of_addresses_that_fail_once_does_not_make_the_table_grow_or_forget_who_fails_most() {
    let (failures, rules) = (Failures::default(), rules(3, 1000, 64));
    for _ in 0..10 {
        failures.note(&rules, ip("192.0.2.1"), 0);
    }
    for n in 0..100_000_u32 {
        failures.note(&rules, IpAddr::from((0x0A00_0000 + n).to_be_bytes()), 1);
    }
    assert_eq!(failures.len(1), 64);
    assert_eq!(delay_ms(failures.note(&rules, ip("192.0.2.1"), 2)), 1000);
}

#[test]
fn without_a_delay_nothing_is_remembered() {
    let (failures, rules) = (Failures::default(), rules(1, 0, 100));
    assert!((0..100).all(|_| failures.note(&rules, ip("192.0.2.1"), 0) == Verdict::AtOnce));
    assert!(!failures.0.has_memory());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// With room for everybody the table says what a list of all failures says, each forgiven in its turn.
    #[test]
    fn the_table_agrees_with_a_model_that_counts(
        free in 1_u32..20,
        delay_max in 1_u64..10_000,
        failed in prop::collection::vec((0_u8..4, 0_u64..20_000_000), 1..200),
    ) {
        let (failures, rules) = (Failures::default(), rules(free, delay_max, 10_000));
        let (mut debts, mut now) = (HashMap::<u8, (u64, u64)>::new(), 0);
        for (client, pause) in failed {
            now += pause;
            let (debt, since) = debts.get(&client).copied().unwrap_or((0, now));
            // In parts of a failure, so that what is forgiven needs no fractions.
            let unit = WINDOW_US / u64::from(free);
            let left = debt.saturating_sub(now - since) + unit;
            let failed = left.div_ceil(unit);
            let over = failed.saturating_sub(u64::from(free));
            let (mut delay, mut steps) = (0, 0);
            while steps < over && delay < delay_max {
                delay = if steps == 0 { 100 } else { delay * 2 }.min(delay_max);
                steps += 1;
            }
            debts.insert(client, (left.min((u64::from(free) + steps) * unit), now));
            let got = failures.note(&rules, IpAddr::from([192, 0, 2, client]), now);
            prop_assert_eq!(delay_ms(got), u128::from(delay));
        }
    }

    /// Whatever happens, no answer is held back longer than is set, and no moment lies too far ahead.
    #[test]
    fn no_delay_is_longer_than_the_longest_and_nobody_is_remembered_for_ever(
        free in 0_u32..=1_000_000,
        delay_max in 0_u64..=60_000,
        addresses in 1_usize..50,
        failed in prop::collection::vec((any::<u32>(), 0_u64..1000), 1..100),
    ) {
        let (failures, rules) = (Failures::default(), rules(free, delay_max, addresses));
        let mut now = 0;
        for (client, pause) in failed {
            now += pause;
            let verdict = failures.note(&rules, IpAddr::from(client.to_be_bytes()), now);
            if let Verdict::Late { delay, free_in } = verdict {
                prop_assert!(delay <= rules.delay_max && !delay.is_zero());
                prop_assert!(free_in <= Duration::from_secs(21 * 60 + 61));
            }
            prop_assert!(failures.len(now) <= debts::places(addresses));
        }
        prop_assert_eq!(failures.len(now + 22 * WINDOW_US), 0);
    }
}
