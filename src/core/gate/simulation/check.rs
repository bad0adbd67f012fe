//! What must hold after every call of the gate.

use super::*;

/// How often what happened: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) claimed_at_once: u64,
    pub(super) waited: u64,
    pub(super) refused: u64,
    pub(super) granted: u64,
    pub(super) left_granted: u64,
    pub(super) left_waiting: u64,
    pub(super) dissolved: u64,
    pub(super) to_the_front: u64,
    pub(super) left_out: u64,
    pub(super) tried: u64,
    pub(super) readmitted: u64,
}

impl Tally {
    pub(super) fn all(&self) -> [u64; 11] {
        [
            self.claimed_at_once,
            self.waited,
            self.refused,
            self.granted,
            self.left_granted,
            self.left_waiting,
            self.dissolved,
            self.to_the_front,
            self.left_out,
            self.tried,
            self.readmitted,
        ]
    }
}

impl World {
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiting> {
        self.requests.iter().filter_map(|request| match &request.stage {
            Stage::Waiting(waiting) if !waiting.dissolved => Some(waiting),
            _ => None,
        })
    }

    /// Those who wait and have not been woken.
    pub(super) fn asleep(&self) -> impl Iterator<Item = &Waiting> {
        self.waiters().filter(|waiting| !waiting.is_woken())
    }

    /// A slot that is as taken after its release as before was handed on: not over the limit, not of one left out.
    pub(super) fn release(&mut self, replica: &Arc<Replica>) {
        let before = replica.state.level();
        self.gate.release(replica);
        let handed_on = replica.state.level().taken == before.taken;
        let allowed = before.taken <= before.limit && before.standing != Standing::Out;
        assert!(!handed_on || allowed, "handed on: {before:?}");
        self.check();
    }

    pub(super) fn check(&mut self) {
        self.check_line();
        self.check_slots();
        self.check_left_out();
    }

    /// First come, first served; everybody granted was woken once; the counters agree with the line.
    fn check_line(&mut self) {
        let head = self.asleep().map(|waiting| waiting.order).min();
        for waiting in self.waiters().filter(|waiting| waiting.is_woken() && !waiting.was_woken) {
            assert!(head.is_none_or(|head| waiting.order < head), "{:?} was served before {head:?}", waiting.order);
            assert_eq!(waiting.bell.rang(), 1);
        }
        let asleep = self.asleep().count();
        assert_eq!(self.gate.waiting(), asleep, "somebody was woken for nothing, or granted without being woken");
        let (pushed, popped) = self.gate.totals();
        assert_eq!((pushed, pushed - popped), (self.entered, asleep as u64));
        for request in &mut self.requests {
            if let Stage::Waiting(waiting) = &mut request.stage {
                waiting.was_woken = waiting.is_woken();
                assert!(!waiting.dissolved || waiting.was_woken, "nobody told that the line was dissolved");
            }
        }
    }

    /// Slots taken are those held and those granted; none is taken over a limit; nobody waits for a free one.
    fn check_slots(&mut self) {
        let granted = self.waiters().filter(|waiting| waiting.is_woken()).count();
        let held = self.requests.iter().filter(|request| !matches!(request.stage, Stage::Waiting(_))).count();
        let taken: u32 = self.states.iter().map(|state| state.level().taken).sum();
        assert_eq!(taken as usize, granted + held, "slots leaked or doubled");
        let newest = self.newest();
        for (state, before) in self.states.iter().zip(&mut self.taken_before) {
            let level = state.level();
            let listed = newest.iter().any(|replica| replica.state.serial() == state.serial());
            let limit = if self.limit == 0 { UNLIMITED } else { self.limit };
            assert_eq!(level.limit, if listed { limit } else { 0 });
            assert!(level.taken <= *before || level.taken <= level.limit, "claimed over the limit: {level:?}");
            *before = level.taken;
            let usable = level.has_room() && matches!(level.standing, Standing::In | Standing::Due);
            assert!(!usable || self.gate.waiting() == 0, "somebody waits in spite of a free slot: {level:?}");
        }
    }

    /// Never more than half are left out; whoever is out has an alarm that will let it in; whoever is tried, is.
    fn check_left_out(&self) {
        let newest = self.newest();
        let out = newest.iter().filter(|replica| replica.state.is_left_out()).count();
        assert!(out * 2 <= newest.len(), "{out} of {} are left out", newest.len());
        for replica in newest.iter() {
            let level = replica.state.level();
            match level.standing {
                Standing::Out => {
                    let alarm = |&(due, serial): &(u64, u64)| serial == replica.state.serial() && due > self.now_us;
                    assert!(self.alarms.iter().any(alarm), "left out and forgotten");
                }
                Standing::Tried => assert!(level.taken > 0, "tried by nobody"),
                Standing::In | Standing::Due => {}
            }
        }
    }
}
