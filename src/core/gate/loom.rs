//! Every order in which a few threads can meet at the gate, tried by loom.
//!
//! A model ends when all its threads have: whoever then waits in spite of a free slot has been forgotten, and whoever
//! holds a grant without having been woken would sleep on it.

use std::sync::atomic::{AtomicBool, Ordering as Std};
use std::task::Wake;

use loom::thread::{self, JoinHandle};

use super::*;
use crate::core::queue::Ticket;

#[derive(Debug, Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Std::SeqCst);
    }
}

#[derive(Clone)]
struct Bench {
    gate: Arc<Gate>,
    replicas: Arc<[Arc<Replica>]>,
}

/// What a request that entered has.
enum Stay {
    Slot,
    Waiting(Ticket, Arc<Bell>),
    Away,
}

impl Bench {
    fn new(replicas: u16, slots: u32) -> Self {
        let replicas: Arc<[_]> = (0..replicas).map(|port| Replica::sample(port, slots)).collect();
        let gate = Arc::new(Gate::new(1));
        gate.replace(replicas.clone(), slots);
        Self { gate, replicas }
    }

    /// With every slot taken.
    fn full(replicas: u16, slots: u32) -> Self {
        let bench = Self::new(replicas, slots);
        while bench.claim().is_some() {}
        bench
    }

    fn claim(&self) -> Option<Arc<Replica>> {
        self.gate.try_claim(&self.replicas, 0, &mut Dice::new(0))
    }

    fn enter(&self) -> Stay {
        let bell = Arc::new(Bell::default());
        match self.gate.enter(Place::Back { length_max: 9 }, 0, &Waker::from(bell.clone())) {
            Entered::Slot(_) => Stay::Slot,
            Entered::Waiting { ticket, .. } => Stay::Waiting(ticket, bell),
            Entered::Full { .. } | Entered::Closed => Stay::Away,
        }
    }

    fn go(&self, act: impl FnOnce(Self) + 'static) -> JoinHandle<()> {
        let bench = self.clone();
        thread::spawn(move || act(bench))
    }

    fn release(&self, at: usize) {
        self.gate.release(&self.replicas[at]);
    }

    fn taken(&self) -> u32 {
        self.replicas.iter().map(|replica| replica.state.level().taken).sum()
    }

    /// All threads have ended: has this request been served?
    fn is_served(&self, stay: Stay) -> bool {
        match stay {
            Stay::Slot => true,
            Stay::Away => false,
            Stay::Waiting(ticket, bell) => match self.gate.poll(ticket, Waker::noop()) {
                Turn::Granted(_) => {
                    assert!(bell.0.load(Std::SeqCst), "granted and not woken");
                    true
                }
                Turn::Waiting | Turn::Dissolved => false,
            },
        }
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_release_that_meets_an_entry_is_not_missed() {
    loom::model(|| {
        let bench = Bench::full(1, 1);
        let release = bench.go(|bench| bench.release(0));
        let stay = bench.enter();
        join([release]);
        assert!(bench.is_served(stay));
        assert_eq!((bench.taken(), bench.gate.waiting()), (1, 0));
    });
}

#[test]
fn two_entries_that_meet_a_release_share_nothing() {
    loom::model(|| {
        let bench = Bench::full(1, 1);
        let release = bench.go(|bench| bench.release(0));
        let (served, other) = (Arc::new(AtomicBool::new(false)), bench.clone());
        let entry = bench.go({
            let served = served.clone();
            move |bench| match bench.enter() {
                Stay::Slot => served.store(true, Std::SeqCst),
                Stay::Waiting(ticket, _) => bench.gate.leave(ticket),
                Stay::Away => {}
            }
        });
        let stay = other.enter();
        join([release, entry]);
        // The other one left again, with or without having been granted the slot; or it has it.
        assert!(bench.is_served(stay) != served.load(Std::SeqCst));
        assert_eq!(bench.taken(), 1);
    });
}

#[test]
fn two_releases_and_one_that_leaves_serve_the_one_that_stays() {
    loom::model(|| {
        let bench = Bench::full(1, 2);
        let (Stay::Waiting(leaves, _), stays) = (bench.enter(), bench.enter()) else { panic!("full, but not waiting") };
        let releases = [bench.go(|bench| bench.release(0)), bench.go(|bench| bench.release(0))];
        bench.gate.leave(leaves);
        join(releases);
        assert!(bench.is_served(stays));
        assert_eq!((bench.taken(), bench.gate.waiting()), (1, 0));
    });
}

#[test]
fn a_newcomer_gets_nothing_that_a_release_owes_to_the_line() {
    loom::model(|| {
        let bench = Bench::full(1, 1);
        let release = bench.go(|bench| bench.release(0));
        let stay = bench.enter();
        assert!(bench.claim().is_none(), "barged in");
        join([release]);
        assert!(bench.is_served(stay));
        assert_eq!(bench.taken(), 1);
    });
}

#[test]
fn a_newcomer_that_takes_the_slot_before_the_line_forms_passes_it_on() {
    loom::model(|| {
        let bench = Bench::full(1, 1);
        let release = bench.go(|bench| bench.release(0));
        let newcomer = bench.go(|bench| {
            if bench.claim().is_some() {
                bench.release(0);
            }
        });
        let stay = bench.enter();
        join([release, newcomer]);
        assert!(bench.is_served(stay));
        assert_eq!(bench.taken(), 1);
    });
}

#[test]
fn new_replicas_that_meet_an_entry_are_not_missed() {
    loom::model(|| {
        let bench = Bench::new(1, 1);
        bench.gate.replace(Arc::from([]), 1);
        let replace = bench.go(|bench| bench.gate.replace(bench.replicas.clone(), 1));
        let stay = bench.enter();
        join([replace]);
        assert!(bench.is_served(stay));
    });
}

#[test]
fn a_limit_lowered_and_raised_again_under_two_releases_leaves_no_slot_unused() {
    loom::model(|| {
        let bench = Bench::full(1, 2);
        let stay = bench.enter();
        let releases = [bench.go(|bench| bench.release(0)), bench.go(|bench| bench.release(0))];
        bench.gate.replace(bench.replicas.clone(), 1);
        join(releases);
        assert!(bench.is_served(stay));
        assert_eq!(bench.taken(), 1);
    });
}

#[test]
fn a_removed_replica_passes_nothing_on() {
    loom::model(|| {
        let bench = Bench::full(2, 1);
        let stay = bench.enter();
        let release = bench.go(|bench| bench.release(1));
        bench.gate.replace(Arc::from([bench.replicas[0].clone()]), 1);
        // Before its removal the freed slot could be handed on; after it, only the other replica can serve.
        let passed_on = bench.gate.waiting() == 0;
        join([release]);
        assert_eq!(bench.gate.waiting() == 0, passed_on);
        bench.release(0);
        assert!(bench.is_served(stay) || passed_on);
    });
}

#[test]
fn a_closing_gate_leaves_nobody_in_line_and_no_slot_taken() {
    loom::model(|| {
        let bench = Bench::full(1, 1);
        let release = bench.go(|bench| bench.release(0));
        let close = bench.go(|bench| bench.gate.close());
        let served = match bench.enter() {
            Stay::Waiting(ticket, bell) => {
                join([release, close]);
                assert!(bell.0.load(Std::SeqCst), "neither granted nor told");
                u32::from(matches!(bench.gate.poll(ticket, Waker::noop()), Turn::Granted(_)))
            }
            stay => {
                join([release, close]);
                u32::from(matches!(stay, Stay::Slot))
            }
        };
        assert_eq!((bench.taken(), bench.gate.waiting()), (served, 0));
    });
}

/// Two replicas, both full; the first is left out and is being tried by one request.
fn tried(slots: u32) -> Bench {
    let bench = Bench::full(2, slots);
    assert!(bench.gate.leave_out(&bench.replicas[0], 0, 0));
    (0..slots).for_each(|_| bench.release(0));
    assert!(bench.claim().is_some());
    bench
}

#[test]
fn a_trying_request_that_gives_up_lets_the_next_one_try() {
    loom::model(|| {
        let bench = tried(1);
        let gives_up = bench.go(|bench| bench.release(0));
        let stay = bench.enter();
        join([gives_up]);
        assert!(bench.is_served(stay));
    });
}

#[test]
fn a_trying_request_that_succeeds_brings_the_whole_replica_in() {
    loom::model(|| {
        let bench = tried(2);
        let succeeds = bench.go(|bench| {
            if bench.replicas[0].state.connect_succeeded() {
                bench.gate.pump(None);
            }
        });
        let stay = bench.enter();
        join([succeeds]);
        assert!(bench.is_served(stay));
    });
}

#[test]
fn a_slot_freed_while_its_replica_falls_due_is_not_missed() {
    loom::model(|| {
        let bench = Bench::full(2, 1);
        assert!(bench.gate.leave_out(&bench.replicas[0], 0, 1));
        let stay = bench.enter();
        let release = bench.go(|bench| bench.release(0));
        bench.gate.pump(Some(1));
        join([release]);
        assert!(bench.is_served(stay));
    });
}

#[test]
fn of_two_that_want_to_try_a_replica_one_does() {
    loom::model(|| {
        let bench = tried(2);
        bench.release(0);
        let other = bench.go(|bench| drop(bench.claim()));
        let _ = bench.claim();
        join([other]);
        assert_eq!(bench.replicas[0].state.level().taken, 1);
    });
}
