//! A long and unlucky life of a gate, from a seed: requests arrive, wait, connect, fail, retry, finish or go away at any
//! moment, while replicas come, go, flap and break and limits change. The clock and the dice are the world's own, so
//! a seed replays exactly: `SCOREFRONT_SIM_SEED=n cargo test simulation`.
//!
//! After every single call of the gate [`World::check`] compares it with what the world knows.

use std::collections::HashSet;

use super::tests::Bell;
use super::*;
use crate::core::queue::Ticket;
use crate::core::slots::Standing;
use crate::core::state::ReplicaState;

mod check;

use check::Tally;

const SEEDS: u64 = 256;
const STEPS: u32 = 600;
const ATTEMPTS_MAX: u32 = 3;

/// A request in the world.
struct Request {
    stage: Stage,
    attempts: u32,
    gives_up_us: u64,
}

enum Stage {
    Waiting(Waiting),
    Connecting(Arc<Replica>),
    Served(Arc<Replica>),
}

/// One in line, or granted a slot that it has not looked at.
struct Waiting {
    ticket: Ticket,
    /// Front before back, then by arrival.
    order: (bool, u64),
    bell: Arc<Bell>,
    /// Whether the last check found it woken.
    was_woken: bool,
    /// Whether the gate was closed over it.
    dissolved: bool,
}

impl Waiting {
    fn is_woken(&self) -> bool {
        self.bell.rang() > 0
    }
}

struct World {
    gate: Gate,
    dice: Dice,
    now_us: u64,
    requests: Vec<Request>,
    /// Every state there ever was; the newest ones may be in a snapshot.
    states: Vec<Arc<ReplicaState>>,
    /// Snapshots, the newest last; requests may still hold an older one.
    snapshots: Vec<Arc<[Arc<Replica>]>>,
    limit: u32,
    length_max: u32,
    closed: bool,
    broken: HashSet<u64>,
    /// When to pump for whom, as the data path does at the end of a back-off.
    alarms: Vec<(u64, u64)>,
    arrivals: u64,
    entered: u64,
    /// Slots taken at the last check, by state.
    taken_before: Vec<u32>,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            gate: Gate::new(seed),
            dice: Dice::new(seed),
            now_us: 1,
            requests: Vec::new(),
            states: Vec::new(),
            snapshots: vec![Arc::from([])],
            limit: 1,
            length_max: 1000,
            closed: false,
            broken: HashSet::new(),
            alarms: Vec::new(),
            arrivals: 0,
            entered: 0,
            taken_before: Vec::new(),
            tally: Tally::default(),
        };
        (0..6).for_each(|_| world.add_state());
        world.publish();
        world
    }

    fn add_state(&mut self) {
        self.states.push(Arc::new(ReplicaState::new(0)));
        self.taken_before.push(0);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.dice.below(100) < percent
    }

    fn newest(&self) -> Arc<[Arc<Replica>]> {
        self.snapshots.last().unwrap().clone()
    }

    /// The replicas that a request knows: mostly, but not always, those of the newest snapshot.
    fn known(&mut self) -> Arc<[Arc<Replica>]> {
        let age = if self.chance(85) { 0 } else { self.dice.below(4) as usize };
        self.snapshots[self.snapshots.len().saturating_sub(1 + age)].clone()
    }

    /// A request at random of those that `wanted` accepts.
    fn any(&mut self, wanted: impl Fn(&Request) -> bool) -> Option<usize> {
        let found: Vec<_> = (0..self.requests.len()).filter(|&at| wanted(&self.requests[at])).collect();
        found.get(self.dice.below(found.len() as u32) as usize).copied()
    }

    fn step(&mut self) {
        match self.dice.below(1000) {
            0..300 => self.arrive(),
            300..480 => self.look(),
            480..690 => self.connect(),
            690..820 => self.finish(),
            820..870 => self.go_away(),
            870..950 => self.pass_time(),
            950..975 => self.publish(),
            975..980 => self.close(),
            980..985 => self.length_max = [0, 2, 5, 1000][self.dice.below(4) as usize],
            _ => self.break_or_heal(),
        }
        self.check();
    }

    fn arrive(&mut self) {
        let known = self.known();
        let claimed = self.gate.try_claim(&known, self.now_us, &mut self.dice);
        self.arrivals += 1;
        let gives_up_us = self.now_us + u64::from(self.dice.below(5_000_000));
        if let Some(replica) = claimed {
            assert_eq!(self.asleep().count(), 0, "barged in");
            self.tally.claimed_at_once += 1;
            self.requests.push(Request { stage: Stage::Connecting(replica), attempts: 1, gives_up_us });
        } else {
            self.check();
            self.enter(Place::Back { length_max: self.length_max }, 0, gives_up_us);
        }
    }

    fn enter(&mut self, place: Place, attempts: u32, gives_up_us: u64) {
        let bell = Arc::new(Bell::default());
        let is_back = place != Place::Front;
        let before = self.asleep().filter(|other| is_back || !other.order.0).count();
        let in_line = self.gate.waiting();
        match self.gate.enter(place, self.now_us, &Waker::from(bell.clone())) {
            Entered::Slot(replica) => {
                assert_eq!(before, 0, "passed by");
                // Where the line has no places, nobody joined it.
                self.entered += u64::from(place != Place::Back { length_max: 0 });
                self.requests.push(Request { stage: Stage::Connecting(replica), attempts: attempts + 1, gives_up_us });
            }
            Entered::Waiting { ticket, ahead } => {
                assert_eq!(ahead, before);
                self.entered += 1;
                self.tally.waited += 1;
                let order = (is_back, self.entered);
                let waiting = Waiting { ticket, order, bell, was_woken: false, dissolved: false };
                self.requests.push(Request { stage: Stage::Waiting(waiting), attempts, gives_up_us });
            }
            Entered::Full { ahead } => {
                assert!(is_back && ahead == in_line && ahead >= self.length_max as usize);
                self.tally.refused += 1;
            }
            Entered::Closed => assert!(self.closed),
        }
        self.check();
    }

    /// The task of a request is polled: because it was woken, or for no reason at all.
    fn look(&mut self) {
        let woken_only = self.chance(90);
        let wanted = |request: &Request| match &request.stage {
            Stage::Waiting(waiting) => waiting.is_woken() || !woken_only,
            _ => false,
        };
        let Some(at) = self.any(wanted) else { return };
        let Stage::Waiting(waiting) = &self.requests[at].stage else { return };
        match self.gate.poll(waiting.ticket, &Waker::from(waiting.bell.clone())) {
            Turn::Granted(replica) => {
                assert!(waiting.is_woken() && !waiting.dissolved);
                self.tally.granted += 1;
                self.requests[at].stage = Stage::Connecting(replica);
                self.requests[at].attempts += 1;
            }
            Turn::Waiting => assert!(!waiting.is_woken(), "woken for nothing"),
            Turn::Dissolved => {
                assert!(waiting.dissolved && waiting.is_woken());
                self.requests.swap_remove(at);
            }
        }
    }

    fn connect(&mut self) {
        let Some(at) = self.any(|request| matches!(request.stage, Stage::Connecting(_))) else { return };
        let Stage::Connecting(replica) = &self.requests[at].stage else { return };
        let replica = replica.clone();
        let broken = self.broken.contains(&replica.state.serial());
        if broken || self.chance(2) {
            let request = self.requests.swap_remove(at);
            self.fail(&request, &replica);
            return;
        }
        self.requests[at].stage = Stage::Served(replica.clone());
        // Some find a connection that is open still, and learn nothing about new ones.
        if self.chance(80) && replica.state.connect_succeeded() {
            self.tally.readmitted += 1;
            self.gate.pump(None);
        }
    }

    fn fail(&mut self, request: &Request, replica: &Arc<Replica>) {
        let was_tried = replica.state.level().standing == Standing::Tried;
        if let Some(backoff) = replica.state.connect_failed()
            && self.gate.leave_out(replica, self.now_us, backoff)
        {
            assert!((1_000_000..=ReplicaState::OUT_MAX_US).contains(&backoff));
            self.tally.left_out += 1;
            self.tally.tried += u64::from(was_tried);
            self.alarms.push((self.now_us + backoff, replica.state.serial()));
        }
        self.release(replica);
        if request.attempts >= ATTEMPTS_MAX {
            return;
        }
        let known = self.known();
        match self.gate.claim_other(&known, &[replica.state.serial()], self.now_us, &mut self.dice) {
            Some(other) => {
                assert_ne!(other.state.serial(), replica.state.serial());
                let stage = Stage::Connecting(other);
                self.requests.push(Request { stage, attempts: request.attempts + 1, ..*request });
            }
            None => {
                self.tally.to_the_front += 1;
                self.enter(Place::Front, request.attempts, request.gives_up_us);
            }
        }
    }

    fn finish(&mut self) {
        let Some(at) = self.any(|request| matches!(request.stage, Stage::Served(_))) else { return };
        self.drop_request(at);
    }

    fn go_away(&mut self) {
        let Some(at) = self.any(|_| true) else { return };
        self.drop_request(at);
    }

    fn drop_request(&mut self, at: usize) {
        match self.requests.swap_remove(at).stage {
            Stage::Waiting(waiting) => {
                let counter = match (waiting.dissolved, waiting.is_woken()) {
                    (true, _) => &mut self.tally.dissolved,
                    (false, true) => &mut self.tally.left_granted,
                    (false, false) => &mut self.tally.left_waiting,
                };
                *counter += 1;
                self.gate.leave(waiting.ticket);
            }
            Stage::Connecting(replica) | Stage::Served(replica) => self.release(&replica),
        }
        self.check();
    }

    fn pass_time(&mut self) {
        self.now_us += u64::from(self.dice.below(700_000));
        let now = self.now_us;
        while let Some(at) = self.alarms.iter().position(|&(due, _)| due <= now) {
            self.alarms.swap_remove(at);
            self.gate.pump(Some(now));
        }
        self.check();
        let is_late = |request: &Request| matches!(request.stage, Stage::Waiting(_)) && request.gives_up_us <= now;
        while let Some(at) = self.any(is_late) {
            self.drop_request(at);
        }
    }

    /// A new snapshot: some of the newest states, mostly many; sometimes a pod was replaced by a new one.
    fn publish(&mut self) {
        if self.chance(20) {
            self.add_state();
        }
        let share = [0, 20, 50, 80, 100][self.dice.below(5) as usize];
        let newest: Vec<_> = self.states.iter().rev().take(6).cloned().collect();
        let chosen: Vec<_> = newest.into_iter().filter(|_| self.chance(share)).collect();
        if self.chance(50) {
            self.limit = [0, 1, 1, 2, 3][self.dice.below(5) as usize];
        }
        self.publish_these(chosen);
    }

    fn publish_these(&mut self, chosen: Vec<Arc<ReplicaState>>) {
        // Every snapshot makes its replicas anew; only what is alive is taken over.
        let dressed = |state| {
            let Replica { id, address, name, .. } = Arc::into_inner(Replica::sample(1, 0)).unwrap();
            Arc::new(Replica { id, address, name, state })
        };
        self.snapshots.push(chosen.into_iter().map(dressed).collect());
        self.closed = false;
        self.gate.replace(self.newest(), self.limit);
        self.check();
    }

    fn close(&mut self) {
        for request in &mut self.requests {
            if let Stage::Waiting(waiting) = &mut request.stage {
                waiting.dissolved |= !waiting.is_woken();
            }
        }
        self.closed = true;
        self.snapshots.push(Arc::from([]));
        self.gate.close();
    }

    fn break_or_heal(&mut self) {
        let at = self.dice.below(self.states.len() as u32) as usize;
        let serial = self.states[at].serial();
        if !self.broken.remove(&serial) {
            self.broken.insert(serial);
        }
    }

    /// Everything is well again: then all who wait are served, and nothing is left over.
    fn end(&mut self) {
        self.broken.clear();
        self.limit = 1;
        self.publish_these(self.states.iter().rev().take(2).cloned().collect());
        for request in &mut self.requests {
            request.gives_up_us = u64::MAX;
        }
        for _ in 0..100_000 {
            if self.requests.is_empty() {
                break;
            }
            match self.dice.below(4) {
                0 => self.look(),
                1 => self.connect(),
                2 => self.finish(),
                _ => self.pass_time(),
            }
            self.check();
        }
        assert!(self.requests.is_empty(), "somebody waits for ever");
        assert!(self.states.iter().all(|state| state.level().taken == 0), "a slot was lost");
        let (pushed, popped) = self.gate.totals();
        assert_eq!((pushed, self.gate.waiting()), (popped, 0));
    }
}

/// Says which seed it was when a world ends in a panic.
struct Banner(u64);

impl Drop for Banner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this world with SCOREFRONT_SIM_SEED={}", self.0);
        }
    }
}

fn live(seed: u64) -> Tally {
    let _banner = Banner(seed);
    let mut world = World::new(seed);
    (0..STEPS).for_each(|_| world.step());
    world.end();
    world.tally
}

#[test]
fn the_gate_keeps_its_promises_in_every_world() {
    if let Ok(seed) = std::env::var("SCOREFRONT_SIM_SEED") {
        println!("{:#?}", live(seed.parse().expect("SCOREFRONT_SIM_SEED is a number")));
        return;
    }
    let mut sum = [0; 11];
    for tally in (0..SEEDS).map(live) {
        for (total, n) in sum.iter_mut().zip(tally.all()) {
            *total += n;
        }
    }
    assert!(sum.iter().all(|&n| n > SEEDS / 4), "some things hardly happened: {sum:?}");
}
