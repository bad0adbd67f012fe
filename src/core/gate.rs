//! Admission to one deployment: claim a slot of a replica, or wait in line for one.
//!
//! This is the seam that a coordinated fleet of routers will replace: whoever asks gets a replica with a slot taken,
//! now or later, and gives it back when done. Nothing outside this file knows how slots and waiters meet.
//!
//! Owner: [`super::state::DeploymentState`]. One mutex, taken only to wait, to free a slot while somebody waits, and
//! when replicas come, go, are left out or are let in again.
//!
//! Holds:
//! - nobody waits while a usable slot is free, except for the moment that it takes to hand it over;
//! - no barging: while somebody waits, a newcomer joins the line, and a freed slot goes to the head of the line
//!   without ever being free;
//! - a replica that is left out is tried by one request at a time once its time has come, and however that request
//!   ends, the next one may follow: nothing stays out because somebody went away;
//! - every slot taken is given back once: by [`Gate::release`], or by [`Gate::leave`] for a waiter that goes away
//!   with a slot it never looked at.
//!
//! How the lock-free path stays honest: a newcomer takes a slot only after it saw nobody waiting. A waiter first
//! counts itself (`waiting`), then looks for a slot once more; whoever releases first frees the slot, then looks at
//! `waiting`. Both are sequentially consistent, so at least one of the two sees the other.

use std::sync::Arc;
use std::task::Waker;

use super::balance::{Wish, claim};
use super::dice::Dice;
use super::queue::{Queue, Ticket, Turn};
use super::slots::UNLIMITED;
use super::snapshot::Replica;
use super::sync::{AtomicUsize, Mutex, Ordering};

/// What came of asking to wait.
#[derive(Debug)]
pub enum Entered {
    /// A slot turned out to be free.
    Slot(Arc<Replica>),
    /// In line; `ahead` wait in front.
    Waiting {
        /// For [`Gate::poll`] and [`Gate::leave`].
        ticket: Ticket,
        /// How many were in line at arrival.
        ahead: usize,
    },
    /// As many wait as may wait; `ahead` is that number.
    Full {
        /// How many were in line at arrival.
        ahead: usize,
    },
    /// The deployment was removed.
    Closed,
}

/// Where in the line a request joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind everybody, if fewer than `length_max` wait.
    Back {
        /// The limit of the line.
        length_max: u32,
    },
    /// Before all of those: the request had its turn, and its replica could not be reached.
    Front,
}

/// Admission to one deployment.
#[derive(Debug)]
pub struct Gate {
    /// How many wait. Changed under the lock only; read without it.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    queue: Queue<Arc<Replica>>,
    /// The replicas that take new requests, as of the newest snapshot.
    replicas: Arc<[Arc<Replica>]>,
    closed: bool,
    dice: Dice,
}

impl Gate {
    /// Without replicas; `seed` feeds the random tie breaks of hand-overs.
    pub fn new(seed: u64) -> Self {
        let line = Line { queue: Queue::default(), replicas: Arc::from([]), closed: false, dice: Dice::new(seed) };
        Self { waiting: AtomicUsize::new(0), line: Mutex::new(line) }
    }

    /// The fast path: a slot at once if one is free and nobody waits. Takes no lock.
    pub fn try_claim(&self, replicas: &[Arc<Replica>], now_us: u64, dice: &mut Dice) -> Option<Arc<Replica>> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        claim(replicas, Wish { not: &[], now_us: Some(now_us) }, dice)
    }

    /// A slot of another replica than those with the numbers `not`, past the line: for a request that had its turn
    /// already.
    pub fn claim_other(
        &self,
        replicas: &[Arc<Replica>],
        not: &[u64],
        now_us: u64,
        dice: &mut Dice,
    ) -> Option<Arc<Replica>> {
        claim(replicas, Wish { not, now_us: Some(now_us) }, dice)
    }

    /// Joins the line, unless a slot is free after all. Whoever gets a ticket must poll it to the end or leave.
    pub fn enter(&self, place: Place, now_us: u64, waker: &Waker) -> Entered {
        let mut line = self.line.lock();
        if line.closed {
            return Entered::Closed;
        }
        let ahead = line.queue.len();
        let ticket = match place {
            Place::Back { length_max } if ahead >= length_max as usize => {
                // Nobody is in line where queueing is switched off: then a slot freed a moment ago may be had.
                let free = if ahead == 0 { line.claim(Some(now_us)) } else { None };
                return free.map_or(Entered::Full { ahead }, Entered::Slot);
            }
            Place::Back { .. } => line.queue.enter(waker.clone()),
            Place::Front => line.queue.enter_front(waker.clone()),
        };
        self.count(&line);
        // At the back that is the length of the line, and the front is short.
        let ahead = if place == Place::Front { line.queue.ahead_of(ticket) } else { ahead };
        let woken = self.hand_over(&mut line, Some(now_us));
        let turn = line.queue.poll(ticket, waker);
        drop(line);
        // Slots that were free go to those ahead; this request's own waker is among them only if it was granted.
        woken.into_iter().for_each(Waker::wake);
        match turn {
            Turn::Granted(replica) => Entered::Slot(replica),
            Turn::Waiting => Entered::Waiting { ticket, ahead },
            Turn::Dissolved => Entered::Closed,
        }
    }

    /// How waiting stands. After `Granted` or `Dissolved` the ticket is used up.
    pub fn poll(&self, ticket: Ticket, waker: &Waker) -> Turn<Arc<Replica>> {
        self.line.lock().queue.poll(ticket, waker)
    }

    /// Leaves the line; a slot that was granted meanwhile goes to the next.
    pub fn leave(&self, ticket: Ticket) {
        let mut line = self.line.lock();
        let granted = line.queue.leave(ticket);
        self.count(&line);
        drop(line);
        if let Some(replica) = granted {
            self.release(&replica);
        }
    }

    /// Gives back the slot of a replica: to the head of the line if anybody waits.
    pub fn release(&self, replica: &Arc<Replica>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let mut line = self.line.lock();
            if replica.state.may_be_passed_on()
                && let Ok(waker) = line.queue.grant(replica.clone())
            {
                self.count(&line);
                drop(line);
                waker.wake();
                return;
            }
        }
        replica.state.unclaim();
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pump(None);
        }
    }

    /// Hands free slots to those who wait: when a replica that was left out is used again, or, with the time, when its
    /// time has come to be tried.
    pub fn pump(&self, now_us: Option<u64>) {
        let mut line = self.line.lock();
        let woken = self.hand_over(&mut line, now_us);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Takes over the replicas of a new snapshot with their limit (0 stands for unlimited). Those no longer in the
    /// list get no new request; what they hold runs on.
    pub fn replace(&self, replicas: Arc<[Arc<Replica>]>, slots_per_replica: u32) {
        let limit = if slots_per_replica == 0 { UNLIMITED } else { slots_per_replica };
        // Sorted before the lock is taken: a deployment of a thousand replicas is compared within a moment.
        let mut kept: Vec<_> = replicas.iter().map(|replica| (replica.state.serial(), replica.address)).collect();
        kept.sort_unstable();
        let mut line = self.line.lock();
        let old = std::mem::replace(&mut line.replicas, replicas);
        for was in old.iter() {
            let at = kept.binary_search_by_key(&was.state.serial(), |&(serial, _)| serial);
            match at.ok().and_then(|at| kept.get(at)) {
                None => was.state.withdraw(),
                Some(&(_, address)) if address != was.address => was.state.give_another_try(),
                Some(_) => {}
            }
        }
        line.closed = false;
        for replica in line.replicas.iter() {
            replica.state.set_limit(limit);
        }
        line.readmit_beyond_half();
        let woken = self.hand_over(&mut line, None);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The deployment is gone: nobody is admitted any more, and everybody in line is told.
    pub fn close(&self) {
        let mut line = self.line.lock();
        line.closed = true;
        for replica in line.replicas.iter() {
            replica.state.withdraw();
        }
        line.replicas = Arc::from([]);
        let woken = line.queue.dissolve();
        self.count(&line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Leaves a replica out for `backoff_us`, unless it is out already, or has left the list, or more than half would
    /// be out then. Says whether it did; if so, whoever waits relies on a [`Gate::pump`] with the time when the
    /// back-off ends.
    pub fn leave_out(&self, replica: &Replica, now_us: u64, backoff_us: u64) -> bool {
        let line = self.line.lock();
        let is_it = |other: &Arc<Replica>| other.state.serial() == replica.state.serial();
        let others_out = line.replicas.iter().filter(|other| other.state.is_left_out() && !is_it(other)).count();
        let allowed = line.replicas.iter().any(is_it) && (others_out + 1) * 2 <= line.replicas.len();
        allowed && replica.state.leave_out(now_us, backoff_us)
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many ever joined the line, and how many left it.
    pub fn totals(&self) -> (u64, u64) {
        self.line.lock().queue.totals()
    }

    /// Whether any replica takes new requests.
    pub fn has_replicas(&self) -> bool {
        !self.line.lock().replicas.is_empty()
    }

    fn hand_over(&self, line: &mut Line, now_us: Option<u64>) -> Vec<Waker> {
        if let Some(now) = now_us {
            line.replicas.iter().for_each(|replica| replica.state.fall_due(now));
        }
        let mut woken = Vec::new();
        while !line.queue.is_empty() {
            let Some(replica) = line.claim(now_us) else { break };
            match line.queue.grant(replica) {
                Ok(waker) => woken.push(waker),
                Err(replica) => {
                    replica.state.unclaim();
                    break;
                }
            }
        }
        self.count(line);
        woken
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.queue.len(), Ordering::SeqCst);
    }
}

impl Line {
    fn claim(&mut self, now_us: Option<u64>) -> Option<Arc<Replica>> {
        claim(&self.replicas, Wish { not: &[], now_us }, &mut self.dice)
    }

    /// The list may have shrunk since replicas were left out.
    fn readmit_beyond_half(&self) {
        let out: Vec<_> = self.replicas.iter().filter(|r| r.state.is_left_out()).collect();
        for replica in out.iter().skip(self.replicas.len() / 2) {
            replica.state.readmit();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod simulation;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(all(test, loom))]
#[path = "gate/loom.rs"]
mod loom_tests;
