//! Choosing a replica and taking one of its slots, in one step.
//!
//! With limited slots: the least loaded replica that has room, ties at random. The scan starts at a random replica
//! and walks with a random stride, so that among equals every one has the same chance, and stops at the first idle
//! one, so that a large deployment under normal load is not walked whole. With unlimited slots: the less loaded of
//! two replicas drawn at random.
//!
//! A replica that was left out after connect failures is skipped until its time has come, then claimed by exactly
//! one request. Which replicas may be left out at all is decided in [`super::gate`].

use std::sync::Arc;

use super::dice::Dice;
use super::slots::UNLIMITED;
use super::snapshot::Replica;

/// Strides for the scan. A stride serves a list whose length it does not divide.
const STRIDES: [usize; 8] = [1, 3, 5, 7, 11, 13, 17, 19];

/// What a claim is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The numbers of replicas that this request does not want (again).
    pub not: &'a [u64],
    /// The time now in microseconds, to let replicas back in whose time has come; `None` lets none back in.
    pub now_us: Option<u64>,
}

impl Wish<'_> {
    /// Any replica that is not left out.
    pub const ANY: Wish<'static> = Wish { not: &[], now_us: None };

    fn accepts(&self, replica: &Replica) -> bool {
        !self.not.contains(&replica.state.serial())
    }
}

/// Takes a slot of one of `replicas`, or says that there is none to be had.
pub fn claim(replicas: &[Arc<Replica>], wish: Wish<'_>, dice: &mut Dice) -> Option<Arc<Replica>> {
    if replicas.is_empty() {
        return None;
    }
    if let Some(replica) = claim_of_two(replicas, wish, dice) {
        return Some(replica);
    }
    // The chosen one may be taken by somebody else between the look and the claim: look again, it costs little.
    loop {
        let best = least_loaded(replicas, wish, dice)?;
        if best.state.try_claim(wish.now_us) {
            return Some(best.clone());
        }
    }
}

/// For unlimited replicas only; falls through to the scan whenever the draw is not a clear case.
fn claim_of_two(replicas: &[Arc<Replica>], wish: Wish<'_>, dice: &mut Dice) -> Option<Arc<Replica>> {
    let n = u32::try_from(replicas.len()).ok()?;
    let a = replicas.get(dice.below(n) as usize)?;
    if a.state.level().limit != UNLIMITED {
        return None;
    }
    let b = replicas.get(dice.below(n) as usize)?;
    let better = if b.state.level().taken < a.state.level().taken { b } else { a };
    (wish.accepts(better) && better.state.try_claim(None)).then(|| better.clone())
}

fn least_loaded<'a>(replicas: &'a [Arc<Replica>], wish: Wish<'_>, dice: &mut Dice) -> Option<&'a Arc<Replica>> {
    let n = replicas.len();
    let throw = dice.throw();
    let stride = STRIDES[(throw & 7) as usize];
    let stride = if n.is_multiple_of(stride) { 1 } else { stride % n };
    let mut at = dice.below(u32::try_from(n).unwrap_or(u32::MAX)) as usize;
    let mut best: Option<(&Arc<Replica>, u32)> = None;
    for _ in 0..n {
        let replica = &replicas[at];
        at += stride;
        if at >= n {
            at -= n;
        }
        let level = replica.state.level();
        if !replica.state.is_usable(level, wish.now_us) || !wish.accepts(replica) {
            continue;
        }
        if level.taken == 0 {
            return Some(replica);
        }
        if best.is_none_or(|(_, taken)| level.taken < taken) {
            best = Some((replica, level.taken));
        }
    }
    best.map(|(replica, _)| replica)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::core::snapshot::Replica;

    fn replicas(n: usize, limit: u32) -> Vec<Arc<Replica>> {
        (0..n).map(|i| Replica::sample(i as u16, limit)).collect()
    }

    #[test]
    fn takes_each_idle_replica_once_and_then_none() {
        let all = replicas(5, 1);
        let mut dice = Dice::new(1);
        let mut taken: Vec<u64> = (0..5).map(|_| claim(&all, Wish::ANY, &mut dice).unwrap().state.serial()).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 5);
        assert!(claim(&all, Wish::ANY, &mut dice).is_none());
        assert!(claim(&[], Wish::ANY, &mut dice).is_none());
    }

    #[test]
    fn prefers_the_least_loaded() {
        let all = replicas(3, 4);
        let mut dice = Dice::new(2);
        for _ in 0..9 {
            claim(&all, Wish::ANY, &mut dice).unwrap();
        }
        assert!(all.iter().all(|r| r.state.level().taken == 3));
    }

    #[test]
    fn ties_are_broken_evenly_also_beside_busy_ones() {
        let all = replicas(7, 1);
        for busy in &all[1..4] {
            assert!(busy.state.try_claim(None));
        }
        let mut dice = Dice::new(3);
        let mut hits = [0_u32; 7];
        for _ in 0..8000 {
            let chosen = claim(&all, Wish::ANY, &mut dice).unwrap();
            hits[usize::from(chosen.address.port())] += 1;
            chosen.state.unclaim();
        }
        // Four idle ones: an even share is 2000 each. A scan with stride 1 would give one of them 3400.
        for idle in [0, 4, 5, 6] {
            assert!((1400..2800).contains(&hits[idle]), "{hits:?}");
        }
    }

    #[test]
    fn unlimited_replicas_share_the_load() {
        let all = replicas(4, UNLIMITED);
        let mut dice = Dice::new(4);
        for _ in 0..400 {
            claim(&all, Wish::ANY, &mut dice).unwrap();
        }
        for replica in &all {
            assert!((90..=110).contains(&replica.state.level().taken), "{:?}", replica.state.level());
        }
    }

    #[test]
    fn a_replica_can_be_declined() {
        let all = replicas(2, 1);
        let mut dice = Dice::new(5);
        for _ in 0..20 {
            let wish = Wish { not: &[all[0].state.serial()], now_us: None };
            let chosen = claim(&all, wish, &mut dice).unwrap();
            assert_eq!(chosen.state.serial(), all[1].state.serial());
            chosen.state.unclaim();
        }
    }

    #[test]
    fn a_left_out_replica_is_tried_by_one_request_when_its_time_has_come() {
        let all = replicas(2, UNLIMITED);
        all[0].state.leave_out(1_000, 500);
        let mut dice = Dice::new(6);
        for _ in 0..50 {
            let wish = Wish { not: &[], now_us: Some(1_499) };
            assert_eq!(claim(&all, wish, &mut dice).unwrap().state.serial(), all[1].state.serial());
        }
        let not = [all[1].state.serial()];
        let wish = Wish { not: &not, now_us: Some(1_500) };
        assert!(claim(&all, wish, &mut dice).is_some());
        assert!(claim(&all, wish, &mut dice).is_none(), "only one request may try it");
    }
}
