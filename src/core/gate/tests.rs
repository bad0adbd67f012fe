//! The gate's promises, one by one, in a single thread. What threads can do to it is in `loom.rs`, what a long and
//! unlucky life can do to it in `simulation.rs`.

use std::sync::atomic::AtomicUsize as Count;
use std::task::Wake;

use super::*;
use crate::core::state::ReplicaState;

mod left_out;

/// A waker that counts how often it rang.
#[derive(Debug, Default)]
pub(super) struct Bell(Count);

impl Bell {
    pub(super) fn rang(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A gate with its replicas, as one deployment has it.
struct Bench {
    gate: Gate,
    replicas: Vec<Arc<Replica>>,
    dice: Dice,
    now_us: u64,
}

/// One who waits.
struct Waiter {
    ticket: Ticket,
    ahead: usize,
    bell: Arc<Bell>,
}

const ROOMY: Place = Place::Back { length_max: 1000 };

impl Bench {
    fn new(replicas: u16, slots_per_replica: u32) -> Self {
        let replicas: Vec<_> = (0..replicas).map(|port| Replica::sample(port, 0)).collect();
        let bench = Self { gate: Gate::new(1), replicas, dice: Dice::new(2), now_us: 1_000_000 };
        bench.replace(.., slots_per_replica);
        bench
    }

    /// A new snapshot with these of the replicas.
    fn replace(&self, range: impl std::slice::SliceIndex<[Arc<Replica>], Output = [Arc<Replica>]>, slots: u32) {
        self.gate.replace(self.replicas[range].into(), slots);
    }

    fn claim(&mut self) -> Option<Arc<Replica>> {
        self.gate.try_claim(&self.replicas, self.now_us, &mut self.dice)
    }

    fn claim_all(&mut self) -> Vec<Arc<Replica>> {
        std::iter::from_fn(|| self.claim()).collect()
    }

    fn enter(&self, place: Place) -> (Entered, Arc<Bell>) {
        let bell = Arc::new(Bell::default());
        (self.gate.enter(place, self.now_us, &Waker::from(bell.clone())), bell)
    }

    fn wait_at(&self, place: Place) -> Waiter {
        match self.enter(place) {
            (Entered::Waiting { ticket, ahead }, bell) => Waiter { ticket, ahead, bell },
            (other, _) => panic!("expected to wait, not {other:?}"),
        }
    }

    fn wait(&self) -> Waiter {
        self.wait_at(ROOMY)
    }

    /// What the waiter gets, if it was woken for it.
    fn granted(&self, waiter: &Waiter) -> Option<Arc<Replica>> {
        match self.gate.poll(waiter.ticket, &Waker::from(waiter.bell.clone())) {
            Turn::Granted(replica) => {
                assert!(waiter.bell.rang() > 0, "granted without being woken");
                Some(replica)
            }
            Turn::Waiting => None,
            Turn::Dissolved => panic!("dissolved"),
        }
    }

    fn taken(&self) -> Vec<u32> {
        self.replicas.iter().map(|replica| replica.state.level().taken).collect()
    }

    /// The replica fails to connect until it is left out; says for how long that is.
    fn break_down(&self, replica: &Arc<Replica>) -> u64 {
        let failures: Vec<_> = (0..ReplicaState::FAILURES_MAX).map(|_| replica.state.connect_failed()).collect();
        assert_eq!(failures[..2], [None, None]);
        assert!(self.gate.leave_out(replica, self.now_us, failures[2].unwrap()));
        failures[2].unwrap()
    }
}

#[test]
fn free_slots_are_had_at_once_and_up_to_the_limit() {
    let mut bench = Bench::new(2, 3);
    assert_eq!(bench.claim_all().len(), 6);
    assert_eq!(bench.taken(), [3, 3]);
    bench.gate.release(&bench.replicas[1].clone());
    assert!(Arc::ptr_eq(&bench.claim().unwrap(), &bench.replicas[1]));
}

#[test]
fn freed_slots_go_to_the_waiters_in_order_of_arrival() {
    let mut bench = Bench::new(1, 2);
    let held = bench.claim_all();
    let waiters = [bench.wait(), bench.wait(), bench.wait()];
    assert_eq!(waiters.each_ref().map(|waiter| waiter.ahead), [0, 1, 2]);
    assert_eq!(bench.gate.waiting(), 3);
    for (turn, replica) in held.iter().enumerate() {
        bench.gate.release(replica);
        assert_eq!(waiters.each_ref().map(|waiter| waiter.bell.rang()), [0, 1, 2].map(|at| usize::from(at <= turn)));
        assert_eq!(bench.taken(), [2], "the slot was never free");
    }
    assert!(bench.granted(&waiters[2]).is_none());
    assert!(bench.granted(&waiters[1]).is_some() && bench.granted(&waiters[0]).is_some());
    assert_eq!(bench.gate.totals(), (3, 2));
}

#[test]
fn a_newcomer_does_not_pass_those_who_wait() {
    let mut bench = Bench::new(1, 1);
    let held = bench.claim().unwrap();
    let first = bench.wait();
    assert!(bench.claim().is_none());
    let second = bench.wait();
    bench.gate.release(&held);
    assert!(bench.claim().is_none());
    assert!(bench.granted(&second).is_none() && bench.granted(&first).is_some());
}

#[test]
fn a_waiter_that_leaves_is_skipped() {
    let mut bench = Bench::new(1, 1);
    let held = bench.claim().unwrap();
    let (first, second) = (bench.wait(), bench.wait());
    bench.gate.leave(first.ticket);
    assert_eq!(bench.gate.waiting(), 1);
    bench.gate.release(&held);
    assert_eq!(first.bell.rang(), 0);
    assert!(bench.granted(&second).is_some());
}

#[test]
fn a_slot_granted_to_one_who_left_goes_to_the_next() {
    let mut bench = Bench::new(1, 1);
    let held = bench.claim().unwrap();
    let (first, second) = (bench.wait(), bench.wait());
    bench.gate.release(&held);
    bench.gate.leave(first.ticket);
    let replica = bench.granted(&second).unwrap();
    assert_eq!((bench.taken(), bench.gate.waiting()), (vec![1], 0));
    bench.gate.leave(second.ticket);
    assert_eq!(bench.taken(), [1], "a used ticket means nothing");
    bench.gate.release(&replica);
    assert_eq!(bench.taken(), [0]);
}

#[test]
fn those_at_the_front_go_first_and_among_themselves_in_order_of_arrival() {
    let mut bench = Bench::new(1, 1);
    let held = bench.claim().unwrap();
    let back = bench.wait();
    let front = [bench.wait_at(Place::Front), bench.wait_at(Place::Front)];
    assert_eq!(front.each_ref().map(|waiter| waiter.ahead), [0, 1]);
    for waiter in [&front[0], &front[1], &back] {
        bench.gate.release(&held);
        assert!(bench.granted(waiter).is_some());
    }
}

#[test]
fn a_full_line_takes_nobody_at_its_back_but_whoever_had_its_turn() {
    let mut bench = Bench::new(1, 1);
    bench.claim().unwrap();
    let short = Place::Back { length_max: 1 };
    bench.wait_at(short);
    assert!(matches!(bench.enter(short).0, Entered::Full { ahead: 1 }));
    bench.wait_at(Place::Front);
    assert_eq!(bench.gate.waiting(), 2);
}

#[test]
fn where_nobody_may_wait_a_slot_freed_just_now_is_still_had() {
    let mut bench = Bench::new(1, 1);
    let held = bench.claim().unwrap();
    let never = Place::Back { length_max: 0 };
    assert!(matches!(bench.enter(never).0, Entered::Full { ahead: 0 }));
    bench.gate.release(&held);
    assert!(matches!(bench.enter(never).0, Entered::Slot(_)));
    let front = bench.wait_at(Place::Front);
    assert!(matches!(bench.enter(never).0, Entered::Full { ahead: 1 }));
    bench.gate.release(&held);
    assert!(bench.granted(&front).is_some());
    assert_eq!(bench.taken(), [1]);
}

#[test]
fn whoever_finds_a_free_slot_on_entering_does_not_wait() {
    let bench = Bench::new(1, 1);
    assert!(matches!(bench.enter(ROOMY).0, Entered::Slot(_)));
    assert_eq!((bench.gate.waiting(), bench.gate.totals()), (0, (1, 1)));
}

#[test]
fn a_closed_gate_sends_everybody_away_and_opens_again_with_its_deployment() {
    let mut bench = Bench::new(1, 2);
    let held = bench.claim_all();
    let (granted, waiting) = (bench.wait(), bench.wait());
    bench.gate.release(&held[0]);
    bench.gate.close();
    assert_eq!(waiting.bell.rang(), 1);
    assert!(matches!(bench.gate.poll(waiting.ticket, Waker::noop()), Turn::Dissolved));
    let replica = bench.granted(&granted).expect("what was granted stays granted");
    assert!(matches!(bench.enter(ROOMY).0, Entered::Closed) && matches!(bench.enter(Place::Front).0, Entered::Closed));
    assert!(bench.claim().is_none() && !bench.gate.has_replicas());
    bench.gate.release(&replica);
    bench.gate.release(&held[1]);
    assert_eq!((bench.taken(), bench.gate.totals()), (vec![0], (2, 2)));
    bench.replace(.., 1);
    assert!(matches!(bench.enter(ROOMY).0, Entered::Slot(_)));
}

#[test]
fn new_replicas_and_a_raised_limit_wake_waiters_at_once() {
    let mut bench = Bench::new(3, 1);
    bench.replace(..1, 1);
    bench.claim().unwrap();
    let waiters: Vec<_> = (0..6).map(|_| bench.wait()).collect();
    let woken = || waiters.iter().filter(|waiter| waiter.bell.rang() == 1).count();
    bench.replace(.., 1);
    assert_eq!(woken(), 2);
    bench.replace(.., 2);
    assert_eq!(woken(), 5);
    bench.replace(.., 0);
    assert_eq!((woken(), bench.gate.waiting()), (6, 0));
    assert!(waiters.iter().all(|waiter| bench.granted(waiter).is_some()));
}

#[test]
fn a_lowered_limit_drains_down_and_hands_nothing_on() {
    let mut bench = Bench::new(1, 3);
    let held = bench.claim_all();
    let waiter = bench.wait();
    bench.replace(.., 1);
    for expected in [2, 1] {
        bench.gate.release(&held[0]);
        assert_eq!((waiter.bell.rang(), bench.taken()), (0, vec![expected]));
    }
    bench.gate.release(&held[0]);
    assert!(bench.granted(&waiter).is_some());
    assert_eq!(bench.taken(), [1]);
}

#[test]
fn the_slot_of_a_removed_replica_is_not_handed_on() {
    let mut bench = Bench::new(2, 1);
    bench.claim_all();
    let waiter = bench.wait();
    bench.replace(..1, 1);
    bench.gate.release(&bench.replicas[1]);
    assert_eq!((waiter.bell.rang(), bench.taken()), (0, vec![1, 0]));
    let not = [bench.replicas[0].state.serial()];
    assert!(bench.gate.claim_other(&bench.replicas, &not, 0, &mut bench.dice).is_none(), "old snapshot");
    bench.gate.release(&bench.replicas[0]);
    assert!(bench.granted(&waiter).is_some());
}

#[test]
fn a_replica_that_comes_back_still_counts_what_it_works_on() {
    let mut bench = Bench::new(2, 1);
    bench.claim_all();
    let waiter = bench.wait();
    bench.replace(..1, 1);
    bench.replace(.., 1);
    assert_eq!((waiter.bell.rang(), bench.taken()), (0, vec![1, 1]));
    bench.gate.release(&bench.replicas[1]);
    assert!(Arc::ptr_eq(&bench.granted(&waiter).unwrap(), &bench.replicas[1]));
}

#[test]
fn nobody_waits_for_unlimited_replicas() {
    let mut bench = Bench::new(2, 0);
    for _ in 0..100 {
        assert!(bench.claim().is_some());
        assert!(matches!(bench.enter(ROOMY).0, Entered::Slot(_)));
    }
    bench.break_down(&bench.replicas[0].clone());
    assert!(matches!(bench.enter(ROOMY).0, Entered::Slot(_)));
    assert_eq!(bench.gate.waiting(), 0);
}

#[test]
fn a_retry_takes_another_replica_past_the_line() {
    let mut bench = Bench::new(2, 1);
    let held = bench.claim_all();
    let not = [held[0].state.serial()];
    assert!(bench.gate.claim_other(&bench.replicas, &not, 0, &mut bench.dice).is_none());
    bench.gate.release(&held[1]);
    let other = bench.gate.claim_other(&bench.replicas, &not, 0, &mut bench.dice).unwrap();
    assert!(Arc::ptr_eq(&other, &held[1]));
}
