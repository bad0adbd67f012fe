//! Facts in, snapshots out: what is shared, what is reused, what changed.

#[path = "tests/router.rs"]
mod router;
#[path = "tests/rules.rs"]
mod rules;
#[path = "tests/wire.rs"]
mod wire;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::*;
use crate::core::facts::{AddressFacts, AuthMode, Name, Settings};
use crate::core::snapshot::Endpoint;

/// Live state by identity, as the registry of `control` keeps it.
#[derive(Default)]
struct States {
    deployments: RefCell<HashMap<DeploymentKey, Weak<DeploymentState>>>,
    replicas: RefCell<HashMap<(DeploymentKey, ReplicaId), Weak<ReplicaState>>>,
    meters: RefCell<HashMap<EndpointKey, Weak<Meters>>>,
    shares: RefCell<HashMap<EndpointKey, Weak<Shares>>>,
}

impl LiveStates for States {
    fn deployment(&self, key: &DeploymentKey) -> Arc<DeploymentState> {
        find(&self.deployments, key.clone(), || DeploymentState::new(1, 1))
    }

    fn replica(&self, key: &DeploymentKey, id: &ReplicaId, limit: u32) -> Arc<ReplicaState> {
        find(&self.replicas, (key.clone(), id.clone()), || ReplicaState::new(limit))
    }

    fn refusals(&self, _: &EndpointKey) -> Arc<RefusalState> {
        Arc::new(RefusalState::new(1))
    }

    fn meters(&self, key: &EndpointKey) -> Arc<Meters> {
        find(&self.meters, key.clone(), Meters::default)
    }

    fn shares(&self, key: &EndpointKey) -> Arc<Shares> {
        find(&self.shares, key.clone(), Shares::default)
    }
}

fn find<K: Eq + std::hash::Hash, T>(map: &RefCell<HashMap<K, Weak<T>>>, key: K, make: impl FnOnce() -> T) -> Arc<T> {
    let mut map = map.borrow_mut();
    let entry = map.entry(key).or_default();
    entry.upgrade().unwrap_or_else(|| {
        let state = Arc::new(make());
        *entry = Arc::downgrade(&state);
        state
    })
}

/// A world with the snapshot that it last made.
#[derive(Default)]
struct Stage {
    world: World,
    states: States,
    snapshot: Arc<Snapshot>,
}

impl Stage {
    fn service(&mut self, facts: DeploymentFacts) -> &mut Self {
        self.world.put_service(&facts.object.clone(), Some(Arc::new(facts)));
        self
    }

    fn slice(&mut self, facts: SliceFacts) -> &mut Self {
        self.world.put_slice(&facts.object.clone(), Some(Arc::new(facts)));
        self
    }

    /// Assembles, stores and settles; the changes as text.
    fn publish(&mut self) -> Vec<String> {
        let Some(assembled) = self.world.assemble(&self.snapshot, &self.states) else { return Vec::new() };
        assert_eq!(assembled.snapshot.version, self.snapshot.version + 1);
        self.snapshot = assembled.snapshot.clone();
        assembled.settle();
        assembled.changes.iter().map(ToString::to_string).collect()
    }

    fn endpoint(&self, name: &str) -> &Arc<Endpoint> {
        self.snapshot.find(Form::Endpoint, name).unwrap()
    }

    fn deployment(&self, endpoint: &str, name: &str) -> &Arc<Deployment> {
        self.endpoint(endpoint).deployment(name).unwrap()
    }

    fn problems(&self) -> Vec<String> {
        self.world.problems().map(ToString::to_string).collect()
    }
}

/// `namespace/service` for `endpoint/deployment`, open to everybody so that missing keys do not get in the way.
fn mk_service(object: &str, names: &str) -> DeploymentFacts {
    let (namespace, name) = object.split_once('/').unwrap();
    let (endpoint, deployment) = names.split_once('/').unwrap();
    DeploymentFacts {
        object: ObjectRef::new(namespace, name),
        uid: name.into(),
        created: 100,
        form: Form::Endpoint,
        endpoint: Name::new(endpoint),
        deployment: Name::new(deployment),
        settings: Settings { auth: AuthMode::None, ..Settings::default() },
        traffic_percent: None,
        mirror_percent: 0,
    }
}

/// A slice with ready pods named by their last address byte.
fn mk_slice(object: &str, service: &str, pods: &[u8]) -> SliceFacts {
    let (namespace, name) = object.split_once('/').unwrap();
    let address = |&pod: &u8| AddressFacts {
        ip: IpAddr::from([10, 0, 0, pod]),
        pod_uid: Some(format!("uid-{pod}").into()),
        pod_name: Some(format!("pod-{pod}").into()),
        ready: true,
        serving: true,
        terminating: false,
    };
    let object = ObjectRef::new(namespace, name);
    let addresses = pods.iter().map(address).collect();
    SliceFacts { object, service: service.into(), ports: vec![(Some("http".into()), 5001)], addresses }
}

#[test]
fn a_service_and_its_slices_make_a_deployment_with_replicas() {
    let mut stage = Stage::default();
    stage.slice(mk_slice("ml/s1", "blue", &[1, 2])).slice(mk_slice("ml/s2", "blue", &[3]));
    stage.service(mk_service("ml/blue", "Iris/Blue"));
    let changes = stage.publish();
    assert_eq!(changes[0], "added endpoint Iris: in namespace ml");
    assert_eq!(changes[1], "added deployment Iris/Blue: from Service ml/blue");
    assert_eq!(changes[2], "added replica Iris/Blue/pod-1 (10.0.0.1:5001): takes requests");
    assert_eq!(changes.len(), 5);
    let deployment = stage.deployment("iris", "BLUE");
    assert_eq!(deployment.replicas.len(), 3);
    assert!(deployment.state.gate.has_replicas());
    assert!(stage.publish().is_empty(), "nothing changed since");
}

#[test]
fn what_did_not_change_is_shared_with_the_snapshot_before() {
    let mut stage = Stage::default();
    for n in 0..100 {
        stage.service(mk_service(&format!("ml/s{n}"), &format!("end{n}/blue")));
        stage.slice(mk_slice(&format!("ml/x{n}"), &format!("s{n}"), &[1, 2]));
    }
    stage.publish();
    let before = stage.snapshot.clone();
    stage.slice(mk_slice("ml/x7", "s7", &[1, 2, 3]));
    assert_eq!(stage.publish(), ["added replica end7/blue/pod-3 (10.0.0.3:5001): takes requests"]);
    for endpoint in before.endpoints() {
        let same = Arc::ptr_eq(endpoint, stage.endpoint(endpoint.name.key()));
        assert_eq!(same, endpoint.name.key() != "end7", "{}", endpoint.name);
    }
    let (old, new) = (before.find(Form::Endpoint, "end7").unwrap(), stage.endpoint("end7"));
    assert!(Arc::ptr_eq(&old.deployments[0].replicas[0], &new.deployments[0].replicas[0]));
    assert!(Arc::ptr_eq(&old.deployments[0].state, &new.deployments[0].state));
    assert!(Arc::ptr_eq(&old.refusals, &new.refusals));
}

#[test]
fn the_same_facts_again_publish_nothing() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.slice(mk_slice("ml/other", "nobody", &[9]));
    assert!(!stage.world.is_dirty());
    assert!(stage.publish().is_empty());
}

#[test]
fn a_replica_that_flaps_finds_its_state_while_somebody_holds_it() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    let held = stage.deployment("iris", "blue").replicas[0].clone();
    assert!(held.state.try_claim(None));
    stage.slice(mk_slice("ml/s1", "blue", &[]));
    assert_eq!(stage.publish(), ["removed replica iris/blue/pod-1 (10.0.0.1:5001): in no endpoint slice any more"]);
    assert_eq!(held.state.level().limit, 0, "gone: it takes no new request");
    stage.slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    let again = &stage.deployment("iris", "blue").replicas[0];
    assert_eq!(again.state.serial(), held.state.serial());
    assert_eq!((again.state.level().limit, again.state.level().taken), (1, 1));
}

#[test]
fn a_replica_that_is_not_ready_any_more_finishes_what_it_has() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1, 2]));
    stage.publish();
    let mut slice = mk_slice("ml/s1", "blue", &[1, 2]);
    slice.addresses[0].ready = false;
    slice.addresses[0].terminating = true;
    stage.slice(slice);
    assert_eq!(stage.publish(), ["changed replica iris/blue/pod-1 (10.0.0.1:5001): takes no new requests"]);
    let deployment = stage.deployment("iris", "blue");
    assert_eq!((deployment.replicas.len(), deployment.finishing.len()), (1, 1));
    assert_eq!(deployment.finishing[0].state.level().limit, 0);
    let slice = mk_slice("ml/s1", "blue", &[1, 2]);
    stage.slice(slice);
    assert_eq!(stage.publish(), ["changed replica iris/blue/pod-1 (10.0.0.1:5001): takes requests"]);
    assert!(stage.deployment("iris", "blue").replicas.iter().all(|replica| replica.state.level().limit == 1));
}

#[test]
fn changed_settings_reach_the_slots_of_running_replicas() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    let mut facts = mk_service("ml/blue", "iris/blue");
    facts.settings.slots_per_replica = 4;
    facts.settings.request_timeout = Duration::from_secs(9);
    stage.service(facts);
    assert_eq!(
        stage.publish(),
        ["changed deployment iris/blue: request-timeout-ms 5000 -> 9000, max-concurrent-requests-per-instance 1 -> 4"]
    );
    assert_eq!(stage.deployment("iris", "blue").replicas[0].state.level().limit, 4);
}

#[test]
fn a_removed_deployment_closes_its_gate_and_one_that_returns_opens_it() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    let held = stage.deployment("iris", "blue").clone();
    stage.world.put_service(&held.object, None);
    let changes = stage.publish();
    assert_eq!(changes[0], "removed endpoint iris: no Service names it any more");
    assert!(stage.snapshot.find(Form::Endpoint, "iris").is_none());
    assert!(!held.state.gate.has_replicas());
    stage.service(mk_service("ml/blue", "iris/blue"));
    stage.publish();
    assert!(Arc::ptr_eq(&stage.deployment("iris", "blue").state, &held.state));
    assert!(held.state.gate.has_replicas());
}

#[test]
fn a_service_that_changes_its_endpoint_leaves_the_old_one() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1]));
    stage.publish();
    stage.service(mk_service("ml/blue", "wine/blue"));
    stage.publish();
    assert!(stage.snapshot.find(Form::Endpoint, "iris").is_none());
    assert_eq!(stage.deployment("wine", "blue").replicas.len(), 1);
    // And so does a slice that changes its Service.
    stage.slice(mk_slice("ml/s1", "other", &[1]));
    stage.publish();
    assert!(stage.deployment("wine", "blue").replicas.is_empty());
}
