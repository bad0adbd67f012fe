//! The world as the data path sees it: immutable, complete, replaced as a whole.
//!
//! Owner: `control::publish` stores it, workers load it once per request. Live counters ride along by `Arc` and
//! outlive it ([`super::state`]).

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::cors::Cors;
use super::facts::{Form, KeyDigest, Name, ObjectRef, Settings};
use super::limiter::Limiter;
use super::replica_tls::Wire;
use super::shares::Shares;
use super::split::Split;
use super::state::{DeploymentState, RefusalState, ReplicaState};

/// Everything that can be routed to.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every publication.
    pub version: u64,
    endpoints: Table,
    services: Table,
}

impl Snapshot {
    /// The endpoint of this lower-case name.
    pub fn find(&self, form: Form, key: &str) -> Option<&Arc<Endpoint>> {
        self.table(form).find(key)
    }

    /// All endpoints and v1 services, in no particular order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().chain(self.services.iter())
    }

    /// Puts an endpoint in place of the one of the same form and name.
    pub fn insert(&mut self, endpoint: Arc<Endpoint>) {
        let key = Arc::from(endpoint.name.key());
        self.table_mut(endpoint.form).shard_mut(endpoint.name.key()).insert(key, endpoint);
    }

    /// Takes an endpoint out.
    pub fn remove(&mut self, form: Form, key: &str) -> Option<Arc<Endpoint>> {
        self.table_mut(form).shard_mut(key).remove(key)
    }

    fn table(&self, form: Form) -> &Table {
        match form {
            Form::Endpoint => &self.endpoints,
            Form::Service => &self.services,
        }
    }

    fn table_mut(&mut self, form: Form) -> &mut Table {
        match form {
            Form::Endpoint => &mut self.endpoints,
            Form::Service => &mut self.services,
        }
    }
}

/// A map in shards that snapshots share: a change copies the shard it is in and nothing else.
#[derive(Clone, Debug)]
struct Table {
    shards: [Arc<HashMap<Arc<str>, Arc<Endpoint>>>; SHARDS],
}

const SHARDS: usize = 64;

impl Default for Table {
    fn default() -> Self {
        let empty = Arc::new(HashMap::new());
        Self { shards: std::array::from_fn(|_| empty.clone()) }
    }
}

impl Table {
    fn find(&self, key: &str) -> Option<&Arc<Endpoint>> {
        self.shards[Self::shard_of(key)].get(key)
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    fn shard_mut(&mut self, key: &str) -> &mut HashMap<Arc<str>, Arc<Endpoint>> {
        Arc::make_mut(&mut self.shards[Self::shard_of(key)])
    }

    fn shard_of(key: &str) -> usize {
        let hash = key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        (hash >> 32) as usize % SHARDS
    }
}

/// A client-facing name with its deployments and rules.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name.
    pub name: Name,
    /// The URL form that it answers to.
    pub form: Form,
    /// The namespace that owns the name.
    pub namespace: Arc<str>,
    /// Its deployments, by name.
    pub deployments: Vec<Arc<Deployment>>,
    /// Which share of requests each deployment gets, in the same order.
    pub split: Split,
    /// Where copies go.
    pub mirror: Option<Mirror>,
    /// Who may score.
    pub access: Access,
    /// Pages of which origins may score, where the router is to say.
    pub cors: Option<Arc<Cors>>,
    /// How much may be asked of it.
    pub limiter: Limiter,
    /// Requests turned away before a deployment was chosen.
    pub refusals: Arc<RefusalState>,
    /// What it has of what all endpoints have in common.
    pub shares: Arc<Shares>,
}

impl Endpoint {
    /// The deployment of this name, in any case.
    pub fn deployment(&self, name: &str) -> Option<&Arc<Deployment>> {
        self.deployments.iter().find(|deployment| deployment.name.key().eq_ignore_ascii_case(name))
    }
}

/// Copies of a share of the requests.
#[derive(Debug)]
pub struct Mirror {
    /// Where they go.
    pub deployment: Arc<Deployment>,
    /// How many of a hundred requests are copied.
    pub percent: u8,
}

/// Who may score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Whoever has a key of one of these digests. Empty: nobody.
    Keys(Arc<[KeyDigest]>),
    /// Whoever has a token for the endpoint that fits the router's rules.
    Token,
}

/// One version of a model behind an endpoint.
#[derive(Debug)]
pub struct Deployment {
    /// The endpoint it belongs to.
    pub endpoint: Name,
    /// Its name.
    pub name: Name,
    /// The Service it comes from.
    pub object: ObjectRef,
    /// Its settings.
    pub settings: Settings,
    /// Its share of the traffic as it was set.
    pub traffic_percent: Option<u8>,
    /// How its replicas are spoken to.
    pub wire: Wire,
    /// Replicas that take new requests.
    pub replicas: Arc<[Arc<Replica>]>,
    /// Replicas that only finish what they have.
    pub finishing: Vec<Arc<Replica>>,
    /// Live counters and admission.
    pub state: Arc<DeploymentState>,
}

/// What tells one replica from another: the pod's UID (else its address) and the port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId {
    /// Pod UID, or the address where no pod is known.
    pub uid: Arc<str>,
    /// Port.
    pub port: u16,
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.port)
    }
}

/// One addressable pod and port that serves a deployment.
#[derive(Debug)]
pub struct Replica {
    /// Its identity.
    pub id: ReplicaId,
    /// Where to connect.
    pub address: SocketAddr,
    /// The pod's name, else the address: for logs.
    pub name: Arc<str>,
    /// Live counters.
    pub state: Arc<ReplicaState>,
}

#[cfg(any(test, feature = "testing"))]
impl Replica {
    /// A replica on loopback for tests.
    pub fn sample(port: u16, limit: u32) -> Arc<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Arc::new(Self {
            id: ReplicaId { uid: "127.0.0.1".into(), port },
            address,
            name: address.to_string().into(),
            state: Arc::new(ReplicaState::new(limit)),
        })
    }
}
