//! What the steps of a small request cost: route, claim, headers, metrics; and what a change of the world costs.

#![allow(clippy::expect_used, reason = "a bench that cannot start should say why")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, black_box};
use http::HeaderValue;
use scorefront::control::registry::Registry;
use scorefront::core::assemble::World;
use scorefront::core::dice::Dice;
use scorefront::core::facts::{
    AddressFacts, AuthMode, DeploymentFacts, Form, KeyDigest, Name, ObjectRef, Settings, SliceFacts,
};
use scorefront::core::outcome::Outcome;
use scorefront::core::record::Record;
use scorefront::core::route::{self, PublicPath};
use scorefront::core::snapshot::{Access, Deployment, Snapshot};
use scorefront::testing::steps::Heads;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// From a path to a deployment.
#[divan::bench(args = [1, 100, 10_000])]
fn route_among(bencher: Bencher<'_, '_>, endpoints: u32) {
    let (snapshot, mut dice) = (Stage::of(endpoints).snapshot, Dice::new(1));
    bencher.bench_local(|| {
        let Ok(PublicPath::Scoring { form, name, .. }) = route::parse_path(black_box("/api/v1/endpoint/m-0/score"))
        else {
            return None;
        };
        let endpoint = route::find(&snapshot, form, name)?;
        route::choose(endpoint, None, &mut dice).ok().map(Arc::as_ptr)
    });
}

/// A slot of one of so many replicas, and back.
#[divan::bench(args = [1, 2, 12, 200])]
fn claim_among(bencher: Bencher<'_, '_>, replicas: u8) {
    let mut stage = Stage::default();
    stage.service(0).slice(0, replicas).publish();
    let (deployment, mut dice) = (stage.deployment(0), Dice::new(1));
    let gate = &deployment.state.gate;
    bencher.bench_local(|| {
        let replica = gate.try_claim(&deployment.replicas, 1, &mut dice).expect("a slot is free");
        gate.release(&replica);
    });
}

#[divan::bench]
fn key(bencher: Bencher<'_, '_>) {
    let (heads, parts) = (Heads::new(record()), Heads::request());
    let access = Access::Keys(["secret-1", "secret-2"].map(|key| KeyDigest::of(key.as_bytes())).into());
    bencher.bench_local(|| heads.authenticate(&access, black_box(&parts)));
}

#[divan::bench]
fn headers_check(bencher: Bencher<'_, '_>) {
    let (heads, parts) = (Heads::new(record()), Heads::request());
    bencher.bench_local(|| heads.check(black_box(&parts)));
}

#[divan::bench]
fn headers_to_replica(bencher: Bencher<'_, '_>) {
    let mut heads = Heads::new(record());
    bencher.with_inputs(Heads::request).bench_local_refs(|parts| heads.to_replica(parts));
}

#[divan::bench]
fn headers_pass_on(bencher: Bencher<'_, '_>) {
    let mut heads = Heads::new(record());
    bencher.with_inputs(Heads::answer).bench_local_refs(|headers| heads.pass_on(headers));
}

#[divan::bench]
fn headers_read_and_pass_on(bencher: Bencher<'_, '_>) {
    let mut heads = Heads::new(record());
    let lines = Heads::answer().iter().fold(b"HTTP/1.1 200 OK\r\n".to_vec(), |lines, (name, value)| {
        [&lines, name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()
    });
    let head = Bytes::from([&lines, &b"\r\n"[..]].concat());
    assert!(heads.read_and_pass_on(&head) > 0);
    bencher.bench_local(|| heads.read_and_pass_on(black_box(&head)));
}

/// What the end of a served exchange counts.
#[divan::bench]
fn metric_update(bencher: Bencher<'_, '_>) {
    let deployment = Stage::of(1).deployment(0);
    bencher.bench_local(|| {
        let shard = deployment.state.shard(0);
        shard.served.bump(black_box(200));
        for times in [&shard.total, &shard.queue, &shard.upstream, &shard.overhead] {
            times.observe(black_box(1234));
        }
        shard.request_size.observe(black_box(47));
        shard.answer_size.observe(black_box(36));
    });
}

/// The next snapshot after one replica came or went, among so many deployments.
#[divan::bench(args = [1, 100, 10_000])]
fn assemble_one_change_among(bencher: Bencher<'_, '_>, deployments: u32) {
    let mut stage = Stage::of(deployments);
    let mut pods = 12;
    bencher.bench_local(|| {
        pods = 25 - pods;
        stage.slice(0, pods).publish();
    });
}

/// A world with the snapshot that it last made.
struct Stage {
    world: World,
    states: Registry,
    snapshot: Arc<Snapshot>,
}

impl Default for Stage {
    fn default() -> Self {
        Self { world: World::default(), states: Registry::new(2), snapshot: Arc::default() }
    }
}

impl Stage {
    /// So many endpoints with one deployment of three replicas each.
    fn of(endpoints: u32) -> Self {
        let mut stage = Self::default();
        for number in 0..endpoints {
            stage.service(number).slice(number, 3);
        }
        stage.publish();
        stage
    }

    fn service(&mut self, number: u32) -> &mut Self {
        let object = ObjectRef::new("models", &format!("m-{number}"));
        let facts = DeploymentFacts {
            object: object.clone(),
            uid: "uid".into(),
            created: 0,
            form: Form::Endpoint,
            endpoint: Name::new(&format!("m-{number}")),
            deployment: Name::new("blue"),
            settings: Settings { auth: AuthMode::None, ..Settings::default() },
            traffic_percent: None,
            mirror_percent: 0,
        };
        self.world.put_service(&object, Some(Arc::new(facts)));
        self
    }

    fn slice(&mut self, number: u32, pods: u8) -> &mut Self {
        let object = ObjectRef::new("models", &format!("m-{number}-slice"));
        let address = |pod: u8| AddressFacts {
            ip: IpAddr::from([10, 0, 0, pod]),
            pod_uid: Some(format!("uid-{pod}").into()),
            pod_name: Some(format!("pod-{pod}").into()),
            ready: true,
            serving: true,
            terminating: false,
        };
        let facts = SliceFacts {
            object: object.clone(),
            service: format!("m-{number}").into(),
            ports: vec![(None, 5001)],
            addresses: (1..=pods).map(address).collect(),
        };
        self.world.put_slice(&object, Some(Arc::new(facts)));
        self
    }

    fn publish(&mut self) {
        if let Some(assembled) = self.world.assemble(&self.snapshot, &self.states) {
            self.snapshot = assembled.snapshot.clone();
            assembled.settle();
        }
    }

    fn deployment(&self, number: u32) -> Arc<Deployment> {
        let endpoint = self.snapshot.find(Form::Endpoint, &format!("m-{number}")).expect("it was put there");
        endpoint.deployments.first().expect("it has one").clone()
    }
}

fn record() -> Record {
    let deployment = Stage::of(1).deployment(0);
    let id = HeaderValue::from_static("12345678-9abc-4def-8123-456789abcdef");
    Record {
        deployment: Some(deployment),
        queued: Some(Duration::ZERO),
        outcome: Outcome::Served,
        ..Record::new(Instant::now(), SystemTime::UNIX_EPOCH, [192, 0, 2, 7].into(), id)
    }
}
