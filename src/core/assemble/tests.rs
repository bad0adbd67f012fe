//! Facts in, snapshots out.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::*;
use crate::core::facts::{AddressFacts, AuthMode, KeyDigest, Name, Settings};
use crate::core::snapshot::{Access, Endpoint};

/// Live state by identity, as the registry of `control` keeps it.
#[derive(Default)]
struct States {
    deployments: RefCell<HashMap<DeploymentKey, Weak<DeploymentState>>>,
    replicas: RefCell<HashMap<(DeploymentKey, ReplicaId), Weak<ReplicaState>>>,
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

fn mk_secret(object: &str, endpoint: &str, keys: &[u8]) -> SecretFacts {
    let (namespace, name) = object.split_once('/').unwrap();
    let keys = keys.iter().map(|&key| KeyDigest([key; 32])).collect();
    SecretFacts { object: ObjectRef::new(namespace, name), endpoint: Name::new(endpoint), keys }
}

fn keys(endpoint: &Endpoint) -> Option<usize> {
    match &endpoint.access {
        Access::Open => None,
        Access::Keys(keys) => Some(keys.len()),
    }
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
fn the_oldest_namespace_gets_a_name_and_keeps_it_as_long_as_it_has_any_service() {
    let mut stage = Stage::default();
    let aged = |object, names, created| DeploymentFacts { created, ..mk_service(object, names) };
    stage.service(aged("late/a", "iris/blue", 200)).service(aged("early/b", "iris/blue", 100));
    stage.publish();
    assert_eq!(&*stage.endpoint("iris").namespace, "early");
    assert_eq!(
        stage.problems(),
        ["Service late/a: endpoint name: endpoint \"iris\" belongs to namespace early, which had it first; \
          this Service is not served: use another name"]
    );
    // The owner's Service is replaced by a younger one: the name stays.
    stage.service(aged("early/c", "iris/green", 300));
    stage.world.put_service(&ObjectRef::new("early", "b"), None);
    stage.publish();
    assert_eq!(&*stage.endpoint("iris").namespace, "early");
    // Somebody claims to have been there from the beginning.
    stage.service(aged("thief/d", "iris/blue", 0));
    stage.publish();
    assert_eq!(&*stage.endpoint("iris").namespace, "early");
    assert_eq!(stage.problems().len(), 2);
    // The owner gives it up.
    stage.world.put_service(&ObjectRef::new("early", "c"), None);
    let changes = stage.publish();
    assert_eq!(&*stage.endpoint("iris").namespace, "thief");
    assert!(changes[0].contains("namespace early gave the name up to thief"), "{changes:?}");
}

#[test]
fn another_namespace_never_inherits_live_state() {
    let mut stage = Stage::default();
    stage.service(mk_service("one/a", "iris/blue"));
    stage.publish();
    let first = stage.deployment("iris", "blue").state.clone();
    stage.world.put_service(&ObjectRef::new("one", "a"), None);
    stage.service(mk_service("two/a", "iris/blue"));
    stage.publish();
    assert!(!Arc::ptr_eq(&stage.deployment("iris", "blue").state, &first));
    assert!(!first.gate.has_replicas());
}

#[test]
fn of_two_services_for_one_deployment_the_older_is_served() {
    let mut stage = Stage::default();
    let aged = |object, created| DeploymentFacts { created, ..mk_service(object, "iris/blue") };
    stage.service(aged("ml/young", 2)).service(aged("ml/old", 1));
    stage.publish();
    assert_eq!(stage.deployment("iris", "blue").object.to_string(), "ml/old");
    let problems = stage.problems();
    assert!(problems.len() == 1 && problems[0].starts_with("Service ml/young: deployment name:"), "{problems:?}");
    stage.world.put_service(&ObjectRef::new("ml", "old"), None);
    stage.publish();
    assert_eq!(stage.deployment("iris", "blue").object.to_string(), "ml/young");
    assert!(stage.problems().is_empty());
}

#[test]
fn endpoints_and_v1_services_of_one_name_live_side_by_side() {
    let mut stage = Stage::default();
    let service = DeploymentFacts { form: Form::Service, ..mk_service("ml/v1", "iris/iris") };
    stage.service(service).service(mk_service("ml/v2", "iris/blue"));
    stage.publish();
    assert_eq!(stage.snapshot.find(Form::Service, "iris").unwrap().deployments[0].object.to_string(), "ml/v1");
    assert_eq!(stage.endpoint("iris").deployments[0].object.to_string(), "ml/v2");
    assert!(stage.problems().is_empty());
}

#[test]
fn without_keys_everybody_is_refused_unless_all_services_say_none() {
    let mut stage = Stage::default();
    let asking = |object, names| {
        let mut facts = mk_service(object, names);
        facts.settings.auth = AuthMode::Key;
        facts
    };
    stage.service(asking("ml/blue", "iris/blue")).service(mk_service("ml/green", "iris/green"));
    stage.publish();
    assert_eq!(keys(stage.endpoint("iris")), Some(0));
    let problems = stage.problems();
    assert!(problems.iter().any(|p| p.starts_with("Service ml/blue: ") && p.contains("no valid key")), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("Service ml/green: ") && p.contains("no effect")), "{problems:?}");

    let secret = |object: &str, endpoint, keys: &[u8]| Some(Arc::new(mk_secret(object, endpoint, keys)));
    let put = |stage: &mut Stage, object: &str, facts| {
        let (namespace, name) = object.split_once('/').unwrap();
        stage.world.put_secret(&ObjectRef::new(namespace, name), facts);
        stage.publish();
    };
    put(&mut stage, "other/k", secret("other/k", "iris", &[1]));
    assert_eq!(keys(stage.endpoint("iris")), Some(0), "a Secret of another namespace opens nothing");
    put(&mut stage, "ml/k", secret("ml/k", "IRIS", &[1, 2]));
    assert_eq!(keys(stage.endpoint("iris")), Some(2));
    put(&mut stage, "ml/k", secret("ml/k", "wine", &[1, 2]));
    assert_eq!(keys(stage.endpoint("iris")), Some(0));
    stage.service(mk_service("ml/blue", "iris/blue"));
    stage.publish();
    assert_eq!(keys(stage.endpoint("iris")), None, "every Service says none");
    assert!(!stage.problems().iter().any(|p| p.contains("auth-mode")));
}

#[test]
fn a_service_elsewhere_cannot_close_an_open_endpoint() {
    let mut stage = Stage::default();
    let mut foreign = mk_service("other/a", "iris/green");
    foreign.settings.auth = AuthMode::Key;
    foreign.created = 200;
    stage.service(mk_service("ml/blue", "iris/blue")).service(foreign);
    stage.publish();
    assert_eq!(keys(stage.endpoint("iris")), None);
}

#[test]
fn traffic_that_does_not_sum_up_to_100_is_reported() {
    let shares = |shares: &[Option<u8>]| {
        let mut stage = Stage::default();
        for (n, &traffic_percent) in shares.iter().enumerate() {
            stage.service(DeploymentFacts {
                traffic_percent,
                ..mk_service(&format!("ml/s{n}"), &format!("iris/dep{n}"))
            });
        }
        stage.publish();
        (stage.endpoint("iris").split.sum(), stage.problems())
    };
    for right in [&[None][..], &[Some(100)], &[Some(90), Some(10)], &[Some(100), None], &[Some(0), None], &[Some(0)]] {
        assert_eq!(shares(right).1, [""; 0], "{right:?}");
    }
    for wrong in [&[Some(30)][..], &[Some(90), Some(20)], &[Some(90), None], &[None, None]] {
        let (_, problems) = shares(wrong);
        assert!(
            problems.len() == 1 && problems[0].contains("scorefront.dev/traffic-percent"),
            "{wrong:?}: {problems:?}"
        );
    }
    let (sum, problems) = shares(&[Some(90), Some(20)]);
    assert_eq!(sum, 110);
    assert!(
        problems[0].contains("sum up to 110 (dep0 90, dep1 20), so traffic is shared in proportion"),
        "{problems:?}"
    );
}

#[test]
fn copies_go_to_one_deployment_and_never_to_one_alone() {
    let mut stage = Stage::default();
    let mirror = |object, names, mirror_percent, created| DeploymentFacts {
        mirror_percent,
        created,
        traffic_percent: Some(0),
        ..mk_service(object, names)
    };
    stage.service(mirror("ml/a", "iris/aaa", 10, 1));
    stage.publish();
    assert!(stage.endpoint("iris").mirror.is_none());
    assert!(stage.problems()[0].contains("no other deployment"), "{:?}", stage.problems());
    stage.service(mirror("ml/b", "iris/bbb", 0, 2));
    stage.publish();
    let target = |stage: &Stage| {
        let mirror = stage.endpoint("iris").mirror.as_ref().unwrap();
        (mirror.deployment.name.to_string(), mirror.percent)
    };
    assert_eq!(target(&stage), ("aaa".into(), 10));
    assert!(stage.problems().is_empty());
    stage.service(mirror("ml/b", "iris/bbb", 20, 0));
    let changes = stage.publish();
    assert_eq!(target(&stage), ("bbb".into(), 20));
    assert_eq!(changes, ["changed endpoint iris: 20 % copied to bbb"]);
    let problems = stage.problems();
    assert!(
        problems.len() == 1 && problems[0].starts_with("Service ml/a: scorefront.dev/mirror-percent"),
        "{problems:?}"
    );
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
