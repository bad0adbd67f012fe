//! What must hold for any input: the pure parts of the core against naive models of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::balance::{Wish, claim};
use super::dice::Dice;
use super::pace::Pace;
use super::queue::{Queue, Ticket, Turn};
use super::route::{PublicPath, Wanted, parse_path};
use super::slots::{Level, Standing};
use super::snapshot::Replica;
use super::split::Split;

const PREFIX: &str = "/api/v1/endpoint/iris";

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// A path below the prefix, made of pieces that have been used to fool routers.
fn hostile_path() -> impl Strategy<Value = String> {
    let separators = vec!["/", "/", "/", "/", "//", "\\", "%2f", "%2F", "%5c"];
    let pieces = vec![
        ".", ".", "..", "%2e", "%2E", "%2e%2e", "%252e", "%25", "%", "%2", "%zz", "%u002e", "%00", "%0d%0a", "%20",
        ";", ";a=b", "%3b", "%3B", "a", "score", "é", "%c3%a9", "%ff", ":",
    ];
    let segment = (select(separators), prop::collection::vec(select(pieces), 0..4));
    let joined = |(separator, pieces): (&str, Vec<&str>)| format!("{separator}{}", pieces.concat());
    prop::collection::vec(segment.prop_map(joined), 0..5).prop_map(|segments| segments.concat())
}

/// Percent-decodes as servers do: what is no escape stays.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let hex = |offset: usize| path.get(at + offset).and_then(|&digit| char::from(digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, hex(1), hex(2)) {
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    decoded
}

/// The segments as the least careful server would see them: backslashes separate, parameters are cut off.
fn segments(path: &[u8]) -> Vec<&[u8]> {
    let separated = path.split(|byte| matches!(byte, b'/' | b'\\'));
    separated.map(|segment| segment.split(|&byte| byte == b';').next().unwrap_or_default()).collect()
}

fn has_dot_segment(path: &[u8]) -> bool {
    segments(path).iter().any(|segment| matches!(segment, [b'.'] | [b'.', b'.']))
}

/// Whether a replica that decodes the path (or does not) could read it otherwise than the router has.
fn reads_two_ways(path: &str) -> bool {
    let decoded = decode(path.as_bytes());
    let parameters_first = segments(path.as_bytes()).into_iter().any(|segment| has_dot_segment(&decode(segment)));
    has_dot_segment(path.as_bytes())
        || has_dot_segment(&decoded)
        || parameters_first
        || segments(&decoded).len() != path.split('/').count()
        || decoded.iter().any(u8::is_ascii_control)
        || path.starts_with("//")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..config() })]

    #[test]
    fn an_accepted_path_stays_below_its_endpoint_however_it_is_read(rest in hostile_path()) {
        let path = format!("{PREFIX}{rest}");
        if let Ok(PublicPath::Scoring { name: "iris", wanted, .. }) = parse_path(&path) {
            let forwarded = match wanted {
                Wanted::Score => "/score",
                Wanted::Path(forwarded) => forwarded,
            };
            prop_assert_eq!(forwarded, &rest);
            prop_assert!(forwarded.starts_with('/'));
            prop_assert!(!reads_two_ways(forwarded), "{}", forwarded);
        }
    }

    #[test]
    fn a_plain_path_is_accepted(segments in prop::collection::vec("[a-zA-Z0-9_:~-]{1,8}(\\.[a-z]{1,4})?", 1..6)) {
        let rest = format!("/{}", segments.join("/"));
        let path = format!("{PREFIX}{rest}");
        prop_assert!(matches!(parse_path(&path), Ok(PublicPath::Scoring { name: "iris", .. })), "{}", path);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_path_makes_the_router_panic(path in ".*", rest in ".*") {
        let _ = parse_path(&path);
        let _ = parse_path(&format!("{PREFIX}/{rest}"));
    }

    #[test]
    fn a_split_gives_everyone_its_share_and_nothing_to_those_without(
        percents in prop::collection::vec(prop::option::of(prop_oneof![Just(0_u8), 0..=100_u8]), 0..8),
        seed: u64,
    ) {
        const DRAWS: u32 = 4000;
        let (split, mut dice) = (Split::new(&percents), Dice::new(seed));
        let mut hits = vec![0_u32; percents.len()];
        for _ in 0..DRAWS {
            match split.choose(&mut dice) {
                Some(position) => hits[position] += 1,
                None => prop_assert_eq!(split.sum(), 0),
            }
        }
        let lone = percents.len() == 1;
        for (percent, hits) in percents.iter().zip(hits) {
            let weight = percent.unwrap_or(if lone { 100 } else { 0 });
            let share = f64::from(weight) / f64::from(split.sum().max(1));
            let expected = share * f64::from(DRAWS);
            // Six standard deviations: never by chance, and none at all where the share is nothing or everything.
            let tolerance = 6.0 * (expected * (1.0 - share)).sqrt();
            prop_assert!((f64::from(hits) - expected).abs() <= tolerance, "{} of {}", hits, expected);
        }
    }

    #[test]
    fn a_queue_does_what_two_plain_lists_would(acts in prop::collection::vec(any::<QueueAct>(), 0..80)) {
        let (mut queue, mut plain) = (Queue::default(), PlainQueue::default());
        let mut tickets: Vec<Ticket> = Vec::new();
        for (grant, act) in acts.into_iter().enumerate() {
            match act {
                QueueAct::Back => {
                    plain.back.push(tickets.len());
                    tickets.push(queue.enter(Waker::noop().clone()));
                }
                QueueAct::Front => {
                    plain.front.push(tickets.len());
                    tickets.push(queue.enter_front(Waker::noop().clone()));
                }
                QueueAct::Grant => prop_assert_eq!(queue.grant(grant).is_ok(), plain.grant(grant)),
                QueueAct::Poll(index) if !tickets.is_empty() => {
                    let who = index.index(tickets.len());
                    let turn = match queue.poll(tickets[who], Waker::noop()) {
                        Turn::Waiting => None,
                        Turn::Granted(grant) => Some(Some(grant)),
                        Turn::Dissolved => Some(None),
                    };
                    let expected = (!plain.is_waiting(who)).then(|| plain.granted.remove(&who));
                    prop_assert_eq!(turn, expected);
                }
                QueueAct::Leave(index) if !tickets.is_empty() => {
                    let who = index.index(tickets.len());
                    prop_assert_eq!(queue.leave(tickets[who]), plain.leave(who));
                }
                QueueAct::Dissolve => prop_assert_eq!(queue.dissolve().len(), plain.dissolve()),
                QueueAct::Poll(_) | QueueAct::Leave(_) => {}
            }
            let waiting = plain.front.len() + plain.back.len();
            prop_assert_eq!((queue.len(), queue.is_empty()), (waiting, waiting == 0));
            prop_assert_eq!(queue.totals(), (tickets.len() as u64, (tickets.len() - waiting) as u64));
            for (ahead, &who) in plain.front.iter().chain(&plain.back).enumerate() {
                prop_assert_eq!(queue.ahead_of(tickets[who]), ahead);
            }
        }
    }

    #[test]
    fn a_claim_takes_one_slot_of_the_least_loaded_that_may_be_used(
        loads in prop::collection::vec((0..4_u32, 0..4_u32, 0..3_u8), 0..24),
        seed: u64,
        not in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let replicas: Vec<_> = loads.iter().map(|&(limit, taken, kind)| replica_at(limit, taken, kind)).collect();
        let levels = || replicas.iter().map(|replica| replica.state.level()).collect::<Vec<_>>();
        let before = levels();
        let not: Vec<_> = not.iter().filter(|_| !replicas.is_empty()).map(|not| not.index(replicas.len())).collect();
        let serials: Vec<_> = not.iter().map(|&at| replicas[at].state.serial()).collect();
        let usable = |at: usize| {
            !not.contains(&at) && before[at].has_room() && matches!(before[at].standing, Standing::In | Standing::Due)
        };
        let least = (0..before.len()).filter(|&at| usable(at)).map(|at| before[at].taken).min();
        let wish = Wish { not: &serials, now_us: None };
        let chosen = claim(&replicas, wish, &mut Dice::new(seed));
        let chosen = chosen.map(|chosen| replicas.iter().position(|replica| Arc::ptr_eq(replica, &chosen)).unwrap());
        prop_assert_eq!(chosen.map(|at| before[at].taken), least);
        prop_assert!(chosen.is_none_or(usable));
        let mut expected = before.clone();
        if let Some(at) = chosen {
            let standing = if before[at].standing == Standing::Due { Standing::Tried } else { Standing::In };
            expected[at] = Level { taken: before[at].taken + 1, standing, ..before[at] };
        }
        prop_assert_eq!(levels(), expected);
    }

    #[test]
    fn retry_after_and_the_retry_budget_stay_in_bounds(
        looks in prop::collection::vec((0..30_000_u64, 0..1000_u64, 0..2000_usize, 0..40_usize), 0..30),
    ) {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut total = 0;
        for (ms, more, ahead, retries) in looks {
            // Threads read the clock before they take the lock: time may seem to run backwards.
            let now = start + Duration::from_millis(ms);
            total += more;
            pace.observe(total, now);
            prop_assert!((1..=30).contains(&pace.retry_after_seconds(ahead)));
            let allowed = (0..retries).filter(|_| pace.try_retry(total, now)).count() as u64;
            prop_assert!(allowed <= 10 + total / 5);
        }
    }
}

#[derive(Clone, Debug)]
enum QueueAct {
    Back,
    Front,
    Grant,
    Poll(Index),
    Leave(Index),
    Dissolve,
}

impl Arbitrary for QueueAct {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            6 => Just(Self::Back),
            2 => Just(Self::Front),
            5 => Just(Self::Grant),
            5 => any::<Index>().prop_map(Self::Poll),
            3 => any::<Index>().prop_map(Self::Leave),
            1 => Just(Self::Dissolve),
        ]
        .boxed()
    }
}

#[derive(Default)]
struct PlainQueue {
    front: Vec<usize>,
    back: Vec<usize>,
    granted: BTreeMap<usize, usize>,
}

impl PlainQueue {
    fn is_waiting(&self, who: usize) -> bool {
        self.front.contains(&who) || self.back.contains(&who)
    }

    fn grant(&mut self, grant: usize) -> bool {
        let list = if self.front.is_empty() { &mut self.back } else { &mut self.front };
        if list.is_empty() {
            return false;
        }
        self.granted.insert(list.remove(0), grant);
        true
    }

    fn leave(&mut self, who: usize) -> Option<usize> {
        self.front.retain(|&other| other != who);
        self.back.retain(|&other| other != who);
        self.granted.remove(&who)
    }

    fn dissolve(&mut self) -> usize {
        self.front.drain(..).count() + self.back.drain(..).count()
    }
}

/// A replica with so many slots taken that is in use, left out, or due.
fn replica_at(limit: u32, taken: u32, kind: u8) -> Arc<Replica> {
    let replica = Replica::sample(0, limit.max(taken));
    (0..taken).for_each(|_| assert!(replica.state.try_claim(None)));
    replica.state.set_limit(limit);
    if kind > 0 {
        assert!(replica.state.leave_out(0, 1));
    }
    if kind > 1 {
        replica.state.fall_due(1);
    }
    replica
}
