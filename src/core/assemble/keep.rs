//! A world as facts that can be kept elsewhere, and back.
//!
//! Holds: a world that is made of what another one gave away serves the same, owners of names included.

use std::sync::Arc;

use super::super::facts::{DeploymentFacts, Form, ObjectRef, SecretFacts, SliceFacts};
use super::{EndpointKey, World};

/// Everything that a world serves from. What concerns no deployment is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// All Services, also those that are not served because another namespace has the name.
    pub services: Vec<Arc<DeploymentFacts>>,
    /// The slices of those.
    pub slices: Vec<Arc<SliceFacts>>,
    /// The Secrets of their endpoints, and those that they name.
    pub secrets: Vec<Arc<SecretFacts>>,
    /// Which namespace has which name.
    pub owners: Vec<(EndpointKey, Arc<str>)>,
}

impl World {
    /// What it serves from now, in a stable order.
    pub fn facts(&self) -> Facts {
        let mut services: Vec<_> = self.deployments.values().cloned().collect();
        services.sort_unstable_by(|a, b| a.object.cmp(&b.object));
        let slices = services.iter().filter_map(|service| self.slices.get(&service.object));
        let slices = slices.flat_map(|slices| slices.values().cloned()).collect();
        let is_asked_for = |name: &Arc<str>| {
            let key = |form| EndpointKey { form, name: name.clone() };
            [Form::Endpoint, Form::Service].into_iter().any(|form| self.services.contains_key(&key(form)))
        };
        let secrets =
            self.secrets.iter().flat_map(|(place, secrets)| secrets.values().map(move |secret| (place, secret)));
        let secrets =
            secrets.filter(|(place, secret)| is_asked_for(&place.endpoint) || self.is_trusted(&secret.object));
        let mut secrets: Vec<_> = secrets.map(|(_, secret)| secret.clone()).collect();
        secrets.sort_unstable_by(|a, b| a.object.cmp(&b.object));
        let mut owners: Vec<_> = self.owners.iter().map(|(key, owner)| (key.clone(), owner.clone())).collect();
        owners.sort_unstable();
        Facts { services, slices, secrets, owners }
    }

    /// The world of these facts.
    pub fn of(facts: Facts) -> Self {
        let mut world = Self { owners: facts.owners.into_iter().collect(), ..Self::default() };
        for service in facts.services {
            world.put_service(&service.object.clone(), Some(service));
        }
        for slice in facts.slices {
            world.put_slice(&slice.object.clone(), Some(slice));
        }
        for secret in facts.secrets {
            world.put_secret(&secret.object.clone(), Some(secret));
        }
        world
    }

    /// Takes over what a newer world says of the Services in scope: all that it has, and no others.
    pub fn follow_services(&mut self, newer: &World, in_scope: impl Fn(&str) -> bool) {
        let objects = self.deployments.keys().chain(newer.deployments.keys());
        for object in scoped(objects, in_scope) {
            self.put_service(&object, newer.deployments.get(&object).cloned());
        }
    }

    /// The same of slices.
    pub fn follow_slices(&mut self, newer: &World, in_scope: impl Fn(&str) -> bool) {
        let of = |object: &ObjectRef| newer.slices.get(newer.service_of_slice.get(object)?)?.get(&object.name).cloned();
        let objects = self.service_of_slice.keys().chain(newer.service_of_slice.keys());
        for object in scoped(objects, in_scope) {
            self.put_slice(&object, of(&object));
        }
    }

    /// The same of Secrets.
    pub fn follow_secrets(&mut self, newer: &World, in_scope: impl Fn(&str) -> bool) {
        let of =
            |object: &ObjectRef| newer.secrets.get(newer.keyring_of_secret.get(object)?)?.get(&object.name).cloned();
        let objects = self.keyring_of_secret.keys().chain(newer.keyring_of_secret.keys());
        for object in scoped(objects, in_scope) {
            self.put_secret(&object, of(&object));
        }
    }

    /// Takes the place of an older world that may be served already: names stay with their owners, and what the older
    /// one had and this one has not is taken out by the next [`World::assemble`].
    pub fn succeed(&mut self, older: &World) {
        for (key, owner) in &older.owners {
            self.owners.entry(key.clone()).or_insert_with(|| owner.clone());
        }
        self.dirty.extend(older.services.keys().cloned());
    }
}

fn scoped<'a>(objects: impl Iterator<Item = &'a ObjectRef>, in_scope: impl Fn(&str) -> bool) -> Vec<ObjectRef> {
    objects.filter(|object| in_scope(&object.namespace)).cloned().collect()
}
