//! The live state of everything that is or was a moment ago, to be found again by identity.
//!
//! A replica that drops out of the snapshot and comes back while a request still holds its slot must find the same
//! counters, or the slot would be counted twice over. Snapshots cannot tell: the last one no longer knows it.
//!
//! Holds: references are weak, so nothing lives longer because it is registered; the entries of what is dead are
//! swept out whenever their number has doubled.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use super::courtesy;
use crate::core::assemble::{DeploymentKey, EndpointKey, LiveStates};
use crate::core::limiter::Meters;
use crate::core::shares::Shares;
use crate::core::snapshot::ReplicaId;
use crate::core::state::{DeploymentState, RefusalState, ReplicaState};

/// See the head of the file.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    seeds: RandomState,
    deployments: States<DeploymentKey, DeploymentState>,
    replicas: States<(DeploymentKey, ReplicaId), ReplicaState>,
    refusals: States<EndpointKey, RefusalState>,
    meters: States<EndpointKey, Meters>,
    shares: States<EndpointKey, Shares>,
}

impl Registry {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            seeds: RandomState::new(),
            deployments: States::default(),
            replicas: States::default(),
            refusals: States::default(),
            meters: States::default(),
            shares: States::default(),
        }
    }
}

impl LiveStates for Registry {
    fn deployment(&self, key: &DeploymentKey) -> Arc<DeploymentState> {
        self.deployments.find(key, || DeploymentState::new(self.workers, self.seeds.hash_one(key)))
    }

    fn replica(&self, key: &DeploymentKey, id: &ReplicaId, limit: u32) -> Arc<ReplicaState> {
        self.replicas.find(&(key.clone(), id.clone()), || ReplicaState::new(limit))
    }

    fn refusals(&self, key: &EndpointKey) -> Arc<RefusalState> {
        self.refusals.find(key, || RefusalState::new(self.workers))
    }

    fn meters(&self, key: &EndpointKey) -> Arc<Meters> {
        self.meters.find(key, Meters::default)
    }

    fn shares(&self, key: &EndpointKey) -> Arc<Shares> {
        self.shares.find(key, Shares::default)
    }

    fn give_way(&self) {
        courtesy::give_way();
    }
}

/// State of one kind by identity.
#[derive(Debug)]
struct States<K: Eq + Hash, T> {
    known: DashMap<K, Weak<T>>,
    sweep_at: AtomicUsize,
}

/// Fewer entries than this are not worth a sweep.
const SWEEP_MIN: usize = 1024;

impl<K: Eq + Hash, T> Default for States<K, T> {
    fn default() -> Self {
        Self { known: DashMap::new(), sweep_at: AtomicUsize::new(SWEEP_MIN) }
    }
}

impl<K: Clone + Eq + Hash, T> States<K, T> {
    fn find(&self, key: &K, make: impl FnOnce() -> T) -> Arc<T> {
        if self.known.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.known.retain(|_, state| state.strong_count() > 0);
            self.sweep_at.store((self.known.len() * 2).max(SWEEP_MIN), Ordering::Relaxed);
        }
        let mut entry = self.known.entry(key.clone()).or_default();
        if let Some(state) = entry.upgrade() {
            return state;
        }
        let state = Arc::new(make());
        *entry = Arc::downgrade(&state);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facts::Form;

    fn key(deployment: &str) -> DeploymentKey {
        let endpoint = EndpointKey { form: Form::Endpoint, name: "iris".into() };
        DeploymentKey { endpoint, deployment: deployment.into(), namespace: "ml".into() }
    }

    #[test]
    fn whoever_still_holds_a_state_lets_others_find_it() {
        let registry = Registry::new(2);
        let id = ReplicaId { uid: "a".into(), port: 80 };
        let held = registry.replica(&key("blue"), &id, 1);
        assert_eq!(registry.replica(&key("blue"), &id, 9).serial(), held.serial());
        assert_ne!(registry.replica(&key("green"), &id, 1).serial(), held.serial());
        let serial = held.serial();
        drop(held);
        assert_ne!(registry.replica(&key("blue"), &id, 1).serial(), serial);
    }

    #[test]
    fn what_is_dead_is_swept_out() {
        let registry = Registry::new(1);
        let held = registry.replica(&key("blue"), &ReplicaId { uid: "kept".into(), port: 1 }, 1);
        for n in 0..10 * SWEEP_MIN {
            registry.replica(&key("blue"), &ReplicaId { uid: n.to_string().into(), port: 1 }, 1);
        }
        assert!(registry.replicas.known.len() <= SWEEP_MIN, "{}", registry.replicas.known.len());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
