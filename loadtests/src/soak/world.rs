//! The world of a soak: endpoints whose replicas stay, come and go, or die, with keys that change.
//!
//! Owner: the churn changes it, clients look at it for the key that is good. Whatever is changed is written as one file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::replica::{Host, Replica};
use crate::manifests::Deployment;

/// Replicas of each endpoint.
const REPLICAS: usize = 3;

/// An endpoint that clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Its replicas stay.
    Calm,
    /// Replicas come and go as in a rollout: nobody may notice.
    Moving,
    /// Replicas die, whatever they are doing.
    Dying,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Moving, Self::Dying];

    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Moving => "moving",
            Self::Dying => "dying",
        }
    }
}

/// Time-outs of the router and its endpoints that slow requests run into, in ms.
pub const HEAD_TIMEOUT_MS: u64 = 4000;
/// The same for readers that do not read.
pub const BODY_TIMEOUT_MS: u64 = 4000;
/// The same for whole requests and answers.
pub const REQUEST_TIMEOUT_MS: u64 = 6000;

/// See the head of the file.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

struct State {
    host: Host,
    replicas: [Vec<Replica>; 3],
    /// Number of the newest key; the one before is good too.
    key: u32,
    /// Number of the key that clients use.
    key_used: u32,
    /// Number of the endpoint that nobody asks.
    comet: u32,
}

impl World {
    /// With all its replicas.
    pub fn create(host: Host) -> anyhow::Result<Self> {
        let mut replicas = [const { Vec::new() }; 3];
        for set in &mut replicas {
            for _ in 0..REPLICAS {
                set.push(host.replica()?);
            }
        }
        Ok(Self(Arc::new(Mutex::new(State { host, replicas, key: 1, key_used: 1, comet: 0 }))))
    }

    /// A key that is good now and for a while.
    pub fn key(&self) -> String {
        key(self.lock().key_used)
    }

    /// A new primary key; what was primary becomes secondary.
    pub fn turn_key(&self) {
        self.lock().key += 1;
    }

    /// From now on clients use the primary key.
    pub fn use_new_key(&self) {
        let mut state = self.lock();
        state.key_used = state.key;
    }

    /// Another endpoint that nobody asks instead of the last one.
    pub fn next_comet(&self) {
        self.lock().comet += 1;
    }

    /// Adds a replica to an endpoint and takes out its oldest, which goes on until it is dropped.
    pub fn replace(&self, endpoint: Endpoint) -> anyhow::Result<Option<Replica>> {
        let mut state = self.lock();
        let new = state.host.replica()?;
        let Some(set) = state.replicas.get_mut(endpoint as usize) else { return Ok(None) };
        set.push(new);
        Ok(Some(set.remove(0)))
    }

    /// All of it, as Kubernetes objects.
    pub fn manifests(&self) -> String {
        let state = self.lock();
        let mut out = String::new();
        let timeout = REQUEST_TIMEOUT_MS.to_string();
        let annotations = [
            ("max-concurrent-requests-per-instance", "16"),
            ("max-queue-wait-ms", "5000"),
            ("request-timeout-ms", timeout.as_str()),
        ];
        for (endpoint, replicas) in Endpoint::ALL.into_iter().zip(&state.replicas) {
            let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
            let name = endpoint.name();
            Deployment { endpoint: name, name: "blue", annotations: &annotations, replicas: &addresses }
                .write(&mut out);
            out.push_str(&secret(name, state.key));
        }
        let comet = format!("comet-{}", state.comet);
        Deployment { endpoint: &comet, name: "blue", annotations: &annotations, replicas: &[] }.write(&mut out);
        out
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is done under the lock that could leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(number: u32) -> String {
    format!("soak-key-{number:08}-0123456789")
}

fn secret(endpoint: &str, newest: u32) -> String {
    let (primary, secondary) = (key(newest), key(newest.saturating_sub(1)));
    format!(
        r#"---
apiVersion: v1
kind: Secret
metadata:
  name: {endpoint}-keys
  namespace: loadtests
  labels:
    ml.azure.com/endpoint-name: {endpoint}
stringData:
  primaryKey: {primary}
  secondaryKey: {secondary}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_clients_use_stays_good_while_keys_turn() {
        let world = World::create(Host::start().unwrap()).unwrap();
        for _ in 0..3 {
            let used = world.key();
            assert!(world.manifests().contains(&used));
            world.turn_key();
            assert!(world.manifests().contains(&used));
            world.use_new_key();
        }
    }

    #[test]
    fn a_replaced_replica_leaves_the_manifests_and_runs_on() {
        let world = World::create(Host::start().unwrap()).unwrap();
        let old = world.replace(Endpoint::Moving).unwrap().unwrap();
        assert!(!world.manifests().contains(&format!("port: {}\n", old.address.port())));
        assert_eq!(world.manifests().matches("kind: EndpointSlice\n").count(), 3 * REPLICAS);
        drop(std::net::TcpStream::connect(old.address).unwrap());
    }
}
