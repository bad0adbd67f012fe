//! From facts to the next snapshot: only what changed is built anew, everything else is shared with the last one.
//!
//! [`World`] keeps the facts that hold now, indexed by what they belong to, and remembers which endpoints are touched
//! by a change. [`World::assemble`] rebuilds those, so a publication costs as much as the endpoints that changed,
//! however many there are.
//!
//! Owner: the publisher of `control`, the only writer.
//! Holds: the same facts in any order of arrival make the same snapshot, except for who owns a name: a namespace that
//!        has one keeps it as long as it has any Service for it. Live state is taken over by identity, never by
//!        position ([`LiveStates`]).

mod access;
mod cors;
mod diff;
mod endpoint;
mod keep;
mod rates;
mod replicas;
mod router;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use self::diff::{Action, Change};
pub use self::keep::Facts;
pub use self::router::Router;
use super::facts::{DeploymentFacts, Form, ObjectRef, Problem, SecretFacts, SliceFacts};
use super::limiter::Meters;
use super::shares::Shares;
use super::snapshot::{Deployment, Endpoint, ReplicaId, Snapshot};
use super::state::{DeploymentState, RefusalState, ReplicaState};

/// An endpoint as maps are keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Its URL form.
    pub form: Form,
    /// Its name in lower case.
    pub name: Arc<str>,
}

impl EndpointKey {
    fn of(facts: &DeploymentFacts) -> Self {
        Self { form: facts.form, name: facts.endpoint.key().into() }
    }
}

/// What tells the live state of one deployment from that of all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeploymentKey {
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// The deployment's name in lower case.
    pub deployment: Arc<str>,
    /// The namespace: another one is another deployment, whatever its name.
    pub namespace: Arc<str>,
}

/// Where live state comes from. Asked again for the same, it gives the same as long as anybody still holds it.
pub trait LiveStates {
    /// Of a deployment.
    fn deployment(&self, key: &DeploymentKey) -> Arc<DeploymentState>;
    /// Of a replica; `limit` is for a new one, the gate sets it ever after.
    fn replica(&self, key: &DeploymentKey, id: &ReplicaId, limit: u32) -> Arc<ReplicaState>;
    /// Of an endpoint.
    fn refusals(&self, key: &EndpointKey) -> Arc<RefusalState>;
    /// Of the rate limits of an endpoint.
    fn meters(&self, key: &EndpointKey) -> Arc<Meters>;
    /// Of what an endpoint has of what all have in common.
    fn shares(&self, key: &EndpointKey) -> Arc<Shares>;
    /// Called before each endpoint, for many may have changed at once: the moment to let others have the core.
    fn give_way(&self) {}
}

/// The facts that hold now.
#[derive(Debug, Default)]
pub struct World {
    /// By Service.
    deployments: HashMap<ObjectRef, Arc<DeploymentFacts>>,
    /// The Services of an endpoint, in whatever namespace.
    services: HashMap<EndpointKey, BTreeSet<ObjectRef>>,
    /// The slices of a Service, by their names.
    slices: HashMap<ObjectRef, BTreeMap<Arc<str>, Arc<SliceFacts>>>,
    /// Which Service a slice belongs to.
    service_of_slice: HashMap<ObjectRef, ObjectRef>,
    /// The Secrets of an endpoint, by their names.
    secrets: HashMap<Keyring, BTreeMap<Arc<str>, Arc<SecretFacts>>>,
    /// Which endpoint a Secret belongs to.
    keyring_of_secret: HashMap<ObjectRef, Keyring>,
    /// The Services that name a Secret, there or not, for the authorities of their replicas.
    trusting: HashMap<ObjectRef, BTreeSet<ObjectRef>>,
    /// The namespace that owns an endpoint's name.
    owners: HashMap<EndpointKey, Arc<str>>,
    /// What has to be built anew.
    dirty: BTreeSet<EndpointKey>,
    /// What is wrong with endpoints as a whole.
    problems: BTreeMap<EndpointKey, Vec<Problem>>,
    problems_changed: bool,
    /// What it is all for.
    router: Router,
}

/// Where the keys of an endpoint are: endpoints and v1 services of one name share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Keyring {
    namespace: Arc<str>,
    /// In lower case.
    endpoint: Arc<str>,
}

/// The next snapshot and what has to be done about it.
#[derive(Debug)]
pub struct Assembled {
    /// To be stored.
    pub snapshot: Arc<Snapshot>,
    /// What is different from the one before.
    pub changes: Vec<Change>,
    /// Deployments whose gate must learn their replicas.
    replaced: Vec<Arc<Deployment>>,
    /// Deployments that are gone.
    closed: Vec<Arc<Deployment>>,
}

impl Assembled {
    /// Tells the gates. Only after the snapshot was stored: a waiter that is woken must find the new world.
    pub fn settle(&self) {
        for deployment in &self.replaced {
            deployment.state.gate.replace(deployment.replicas.clone(), deployment.settings.slots_per_replica);
        }
        for deployment in &self.closed {
            deployment.state.gate.close();
        }
    }
}

impl World {
    /// An empty one for a router with these settings.
    pub fn for_router(router: Router) -> Self {
        Self { router, ..Self::default() }
    }

    /// What a Service says now; `None` when it is gone or no deployment.
    pub fn put_service(&mut self, object: &ObjectRef, facts: Option<Arc<DeploymentFacts>>) {
        let before = self.deployments.get(object).cloned();
        if before == facts {
            return;
        }
        if let Some(before) = before {
            let key = EndpointKey::of(&before);
            if let Some(services) = self.services.get_mut(&key) {
                services.remove(object);
                if services.is_empty() {
                    self.services.remove(&key);
                }
            }
            self.trust_no_more(&before);
            self.deployments.remove(object);
            self.dirty.insert(key);
        }
        if let Some(facts) = facts {
            let key = EndpointKey::of(&facts);
            self.services.entry(key.clone()).or_default().insert(object.clone());
            self.trust(&facts);
            self.deployments.insert(object.clone(), facts);
            self.dirty.insert(key);
        }
    }

    /// What an EndpointSlice says now; `None` when it is gone.
    pub fn put_slice(&mut self, object: &ObjectRef, facts: Option<Arc<SliceFacts>>) {
        if let Some(service) = self.service_of_slice.get(object).cloned() {
            let slices = self.slices.get_mut(&service);
            let before = slices.as_ref().and_then(|slices| slices.get(&object.name));
            if before == facts.as_ref() {
                return;
            }
            if let Some(slices) = slices {
                slices.remove(&object.name);
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            self.service_of_slice.remove(object);
            self.touch_service(&service);
        }
        if let Some(facts) = facts {
            let service = ObjectRef { namespace: object.namespace.clone(), name: facts.service.clone() };
            self.touch_service(&service);
            self.slices.entry(service.clone()).or_default().insert(object.name.clone(), facts);
            self.service_of_slice.insert(object.clone(), service);
        }
    }

    /// What a Secret says now; `None` when it is gone.
    pub fn put_secret(&mut self, object: &ObjectRef, facts: Option<Arc<SecretFacts>>) {
        if let Some(place) = self.keyring_of_secret.get(object).cloned() {
            let before = self.secrets.get(&place).and_then(|secrets| secrets.get(&object.name));
            if before == facts.as_ref() {
                return;
            }
            self.keyring_of_secret.remove(object);
            if let Some(secrets) = self.secrets.get_mut(&place) {
                secrets.remove(&object.name);
                if secrets.is_empty() {
                    self.secrets.remove(&place);
                }
            }
            self.touch_name(&place.endpoint);
            self.touch_trusting(object);
        }
        if let Some(facts) = facts {
            let place = Keyring { namespace: object.namespace.clone(), endpoint: facts.endpoint.key().into() };
            self.touch_name(&place.endpoint);
            self.touch_trusting(object);
            self.secrets.entry(place.clone()).or_default().insert(object.name.clone(), facts);
            self.keyring_of_secret.insert(object.clone(), place);
        }
    }

    /// Whether anything changed since the last [`World::assemble`].
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What is wrong with endpoints as a whole, as of the last [`World::assemble`].
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Whether those are others than when this was last asked.
    pub fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// Builds what changed on top of `last`. `None`: nothing that anybody could see did.
    pub fn assemble(&mut self, last: &Snapshot, states: &impl LiveStates) -> Option<Assembled> {
        if self.dirty.is_empty() {
            return None;
        }
        let mut next = last.clone();
        let mut is_same = true;
        let (mut changes, mut replaced, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.dirty) {
            states.give_way();
            let before = last.find(key.form, &key.name);
            let built = self.build(&key, before, states);
            let after = built.as_ref();
            match (before, after) {
                (None, None) => continue,
                (Some(before), Some(after)) if Arc::ptr_eq(before, after) => continue,
                _ => is_same = false,
            }
            diff::compare(before, after, &mut changes);
            let (old, new) = (deployments(before), deployments(after));
            replaced.extend(new.iter().filter(|d| !old.iter().any(|o| Arc::ptr_eq(d, o))).cloned());
            closed.extend(old.iter().filter(|d| !new.iter().any(|n| Arc::ptr_eq(&d.state, &n.state))).cloned());
            match built {
                Some(endpoint) => next.insert(endpoint),
                None => drop(next.remove(key.form, &key.name)),
            }
        }
        if is_same {
            return None;
        }
        next.version += 1;
        Some(Assembled { snapshot: Arc::new(next), changes, replaced, closed })
    }

    /// Builds one endpoint and takes notes of who owns it and what is wrong with it.
    fn build(
        &mut self,
        key: &EndpointKey,
        before: Option<&Arc<Endpoint>>,
        states: &impl LiveStates,
    ) -> Option<Arc<Endpoint>> {
        let built = endpoint::build(self, key, before, states);
        let (endpoint, problems) = match built {
            Some(built) => (Some(built.endpoint), built.problems),
            None => (None, Vec::new()),
        };
        match &endpoint {
            Some(endpoint) => drop(self.owners.insert(key.clone(), endpoint.namespace.clone())),
            None => drop(self.owners.remove(key)),
        }
        let known = match problems.is_empty() {
            true => self.problems.remove(key),
            false => self.problems.insert(key.clone(), problems.clone()),
        };
        self.problems_changed |= known.unwrap_or_default() != problems;
        endpoint
    }

    fn touch_service(&mut self, service: &ObjectRef) {
        if let Some(facts) = self.deployments.get(service) {
            self.dirty.insert(EndpointKey::of(facts));
        }
    }

    fn touch_name(&mut self, name: &Arc<str>) {
        for form in [Form::Endpoint, Form::Service] {
            let key = EndpointKey { form, name: name.clone() };
            if self.services.contains_key(&key) {
                self.dirty.insert(key);
            }
        }
    }
}

fn deployments(endpoint: Option<&Arc<Endpoint>>) -> &[Arc<Deployment>] {
    endpoint.map_or(&[], |endpoint| &endpoint.deployments)
}

#[cfg(test)]
#[path = "assemble/tests.rs"]
mod tests;
