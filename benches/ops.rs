//! What it costs to tell operators: a line of the access log (which must not allocate), a page of metrics.

#![allow(clippy::expect_used, reason = "a bench that cannot start should say why")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use divan::{AllocProfiler, Bencher};
use http::{HeaderValue, Method, StatusCode};
use scorefront::core::facts::{Form, Name, ObjectRef, Settings};
use scorefront::core::limiter::Limiter;
use scorefront::core::limits::Limits;
use scorefront::core::outcome::Outcome;
use scorefront::core::record::{Record, id_value};
use scorefront::core::replica_tls::Wire;
use scorefront::core::snapshot::{Access, Deployment, Endpoint, Replica, Snapshot};
use scorefront::core::split::Split;
use scorefront::core::state::{DeploymentState, RefusalState};
use scorefront::core::vitals::Vitals;
use scorefront::ops::access_log::{AccessLog, LogTarget};
use scorefront::ops::metrics::{Format, Metrics};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 1000)]
fn access_log_line(bencher: Bencher<'_, '_>) {
    let record = record();
    let vitals = Arc::new(Vitals::new(1, record.started));
    let target = LogTarget::File("/dev/null".into());
    let log = AccessLog::start(&target, 1, 8 << 20, vitals.clone()).expect("starts");
    let worker = log.worker(0);
    let end = record.started + Duration::from_micros(12_345);
    bencher.bench_local(|| worker.write(divan::black_box(&record), end));
    log.flush(Duration::from_secs(10));
    assert_eq!(vitals.access_log.dropped.read(), 0, "the figure is of lines that were written");
}

#[divan::bench(args = [(100, Format::Classic), (10_000, Format::Classic), (10_000, Format::OpenMetrics)])]
fn page_of_deployments(bencher: Bencher<'_, '_>, (deployments, format): (u32, Format)) {
    let mut snapshot = Snapshot::default();
    for number in 0..deployments {
        snapshot.insert(endpoint(&format!("endpoint-{number}")));
    }
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let metrics = Metrics::new(snapshot, Arc::new(Vitals::new(2, Instant::now())), &Limits::default());
    bencher.bench_local(|| metrics.encode(format).expect("a page").len());
}

fn record() -> Record {
    let id = id_value(Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
    let started = Instant::now();
    let endpoint = endpoint("iris");
    Record {
        method: Some(Method::POST),
        uri: "/api/v1/endpoint/iris/score".parse().ok(),
        user_agent: Some(HeaderValue::from_static("python-requests/2.32.3")),
        trace_id: Some(*b"0af7651916cd43dd8448eb211c80319c"),
        deployment: endpoint.deployments.first().cloned(),
        replica: Some(Replica::sample(5001, 1)),
        endpoint: Some(endpoint),
        queued: Some(Duration::ZERO),
        admitted: Some(started),
        received: Some(started),
        answered: Some(started + Duration::from_micros(12_000)),
        finished: Some(started + Duration::from_micros(12_200)),
        attempts: 1,
        model_status: Some(StatusCode::OK),
        status: Some(StatusCode::OK),
        outcome: Outcome::Served,
        ..Record::new(started, SystemTime::now(), [192, 0, 2, 7].into(), id)
    }
}

fn endpoint(name: &str) -> Arc<Endpoint> {
    let blue = Deployment {
        endpoint: Name::new(name),
        name: Name::new("blue"),
        object: ObjectRef::new("models", name),
        settings: Settings::default(),
        traffic_percent: Some(100),
        wire: Wire::Plain,
        replicas: (1..4).map(|port| Replica::sample(port, 1)).collect(),
        finishing: Vec::new(),
        state: Arc::new(DeploymentState::new(2, 1)),
    };
    Arc::new(Endpoint {
        name: Name::new(name),
        form: Form::Endpoint,
        namespace: "models".into(),
        deployments: vec![Arc::new(blue)],
        split: Split::new(&[Some(100)]),
        mirror: None,
        access: Access::Open,
        cors: None,
        limiter: Limiter::default(),
        refusals: Arc::new(RefusalState::new(2)),
        shares: Arc::default(),
    })
}
