//! A world as facts that can be kept elsewhere, and back.
//!
//! Holds: a world that is made of what another one gave away serves the same, owners of names included.

use std::sync::Arc;

use super::super::facts::{DeploymentFacts, Form, SecretFacts, SliceFacts};
use super::{EndpointKey, World};

/// Everything that a world serves from. What concerns no deployment is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// All Services, also those that are not served because another namespace has the name.
    pub services: Vec<Arc<DeploymentFacts>>,
    /// The slices of those.
    pub slices: Vec<Arc<SliceFacts>>,
    /// The Secrets of their endpoints.
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
        let secrets = self.secrets.iter().filter(|(place, _)| is_asked_for(&place.endpoint));
        let mut secrets: Vec<_> = secrets.flat_map(|(_, secrets)| secrets.values().cloned()).collect();
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

    /// Takes the place of an older world that may be served already: names stay with their owners, and what the older
    /// one had and this one has not is taken out by the next [`World::assemble`].
    pub fn succeed(&mut self, older: &World) {
        for (key, owner) in &older.owners {
            self.owners.entry(key.clone()).or_insert_with(|| owner.clone());
        }
        self.dirty.extend(older.services.keys().cloned());
    }
}
