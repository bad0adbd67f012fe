//! The page against what was counted, and against the rules of both formats.

use std::collections::HashSet;
use std::time::Instant;

use crate::core::facts::{Form, Name, ObjectRef, Problem, Settings};
use crate::core::limiter::Limiter;
use crate::core::outcome::Outcome;
use crate::core::replica_tls::Wire;
use crate::core::slots::UNLIMITED;
use crate::core::snapshot::{Access, Deployment, Endpoint, Mirror, Replica};
use crate::core::split::Split;
use crate::core::state::{DeploymentState, RefusalState};

use super::table::{Kind, METRICS};
use super::*;

fn deployment(name: &str, limit: u32) -> Arc<Deployment> {
    Arc::new(Deployment {
        endpoint: Name::new("iris"),
        name: Name::new(name),
        object: ObjectRef::new("models", name),
        settings: Settings::default(),
        traffic_percent: None,
        wire: Wire::Plain,
        replicas: Arc::from([Replica::sample(1, limit), Replica::sample(2, limit)]),
        finishing: vec![Replica::sample(3, 0)],
        state: Arc::new(DeploymentState::new(2, 1)),
    })
}

fn endpoint(form: Form, name: &str, deployments: &[Arc<Deployment>; 2]) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        name: Name::new(name),
        form,
        namespace: "models".into(),
        deployments: deployments.to_vec(),
        split: Split::new(&[Some(50), Some(50)]),
        mirror: Some(Mirror { deployment: deployments[1].clone(), percent: 10 }),
        access: Access::Open,
        cors: None,
        limiter: Limiter::default(),
        refusals: Arc::new(RefusalState::new(2)),
        shares: Arc::default(),
    })
}

fn world() -> (Arc<ArcSwap<Snapshot>>, Arc<Vitals>, [Arc<Deployment>; 2]) {
    let deployments = [deployment("blue", 2), deployment("green", UNLIMITED)];
    let mut snapshot = Snapshot::default();
    snapshot.insert(endpoint(Form::Service, "iris", &deployments));
    snapshot.insert(endpoint(Form::Endpoint, "iris", &deployments));
    (Arc::new(ArcSwap::from_pointee(snapshot)), Arc::new(Vitals::new(2, Instant::now())), deployments)
}

fn page(snapshot: &Arc<ArcSwap<Snapshot>>, vitals: &Arc<Vitals>, format: Format) -> String {
    Metrics::new(snapshot.clone(), vitals.clone(), &Limits::default()).encode(format).expect("a page")
}

#[test]
fn what_was_counted_on_all_workers_is_on_the_page() {
    let (snapshot, vitals, [blue, green]) = world();
    for worker in 0..2 {
        let shard = blue.state.shard(worker);
        shard.served.bump(200);
        shard.served.bump(299);
        shard.outcomes[Outcome::QueueFull.index()].bump();
        shard.total.observe(1_500);
        shard.request_size.observe(300);
        green.state.shard(worker).mirror.answered.bump(500);
    }
    vitals.refusals.bump(0, Outcome::UnknownEndpoint);
    assert!(blue.replicas[0].state.try_claim(None));
    assert!(blue.replicas[0].state.try_claim(None));
    let abandoned = blue.replicas[0].state.abandon();
    let text = page(&snapshot, &vitals, Format::Classic);
    let of = "form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\"";
    for line in [
        format!("scorefront_requests_total{{{of},status=\"200\",outcome=\"served\"}} 2"),
        format!("scorefront_requests_total{{{of},status=\"other\",outcome=\"served\"}} 2"),
        format!("scorefront_requests_total{{{of},status=\"503\",outcome=\"queue_full\"}} 2"),
        "scorefront_requests_total{form=\"\",endpoint=\"\",deployment=\"\",status=\"404\",outcome=\"unknown_endpoint\"} 1"
            .to_owned(),
        format!("scorefront_request_duration_seconds_sum{{{of}}} 0.003"),
        format!("scorefront_request_duration_seconds_bucket{{le=\"0.001\",{of}}} 0"),
        format!("scorefront_request_duration_seconds_bucket{{le=\"0.0025\",{of}}} 2"),
        format!("scorefront_request_duration_seconds_bucket{{le=\"+Inf\",{of}}} 2"),
        format!("scorefront_request_size_bytes_sum{{{of}}} 600.0"),
        format!("scorefront_in_flight_requests{{{of}}} 1"),
        format!("scorefront_abandoned_slots{{{of}}} 1"),
        format!("scorefront_slots{{{of}}} 4"),
        format!("scorefront_replicas{{{of},state=\"ready\"}} 2"),
        format!("scorefront_replicas{{{of},state=\"finishing\"}} 1"),
        "scorefront_mirrored_requests_total{form=\"endpoint\",endpoint=\"iris\",deployment=\"green\",status=\"500\",result=\"answered\"} 2"
            .to_owned(),
        "scorefront_endpoints{form=\"service\"} 1".to_owned(),
        "scorefront_draining 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("scorefront_slots{form=\"endpoint\",endpoint=\"iris\",deployment=\"green\"}"));
    drop(abandoned);
}

#[test]
fn histograms_without_anything_in_them_are_left_out() {
    let (snapshot, vitals, [blue, _]) = world();
    blue.state.shard(1).queue.observe(7);
    let text = page(&snapshot, &vitals, Format::Classic);
    let histograms: HashSet<_> = text.lines().filter(|line| line.contains("_count{")).collect();
    let queue = |form| {
        format!("scorefront_queue_duration_seconds_count{{form=\"{form}\",endpoint=\"iris\",deployment=\"blue\"}} 1")
    };
    assert_eq!(histograms, HashSet::from([&*queue("endpoint"), &*queue("service")]));
    assert!(text.contains("scorefront_retries_total{form=\"endpoint\",endpoint=\"iris\",deployment=\"green\"} 0\n"));
}

#[test]
fn each_line_has_the_names_of_its_own() {
    let deployments = [deployment("blue", 1), deployment("a-longer-name", 1)];
    let mut snapshot = Snapshot::default();
    for name in ["x", "iris", "iris-of-next-year"] {
        snapshot.insert(endpoint(Form::Endpoint, name, &deployments));
    }
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let text = page(&snapshot, &Arc::new(Vitals::new(1, Instant::now())), Format::OpenMetrics);
    let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("scorefront_queued_requests")).collect();
    let of = |endpoint, name| format!("{{form=\"endpoint\",endpoint=\"{endpoint}\",deployment=\"{name}\"}} 0");
    let expected: Vec<_> = ["iris", "iris-of-next-year", "x"]
        .into_iter()
        .flat_map(|endpoint| [of(endpoint, "blue"), of(endpoint, "a-longer-name")])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_object_with_two_problems_is_one_invalid_object() {
    let (snapshot, vitals, _) = world();
    for field in ["a", "b"] {
        let object = ObjectRef::new("models", "x");
        let problem = Problem { kind: "Secret", object, field: field.to_owned(), message: String::new() };
        vitals.discovery.problems.lock().push(problem);
    }
    let text = page(&snapshot, &vitals, Format::Classic);
    assert!(text.contains("\nscorefront_discovery_invalid_objects{kind=\"Secret\"} 1\n"));
    assert!(text.contains("\nscorefront_discovery_invalid_objects{kind=\"Service\"} 0\n"));
}

#[test]
fn no_series_is_there_twice_and_the_order_is_stable() {
    let (snapshot, vitals, _) = world();
    let names = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let first = names(&page(&snapshot, &vitals, Format::OpenMetrics));
    let unique: HashSet<_> = first.iter().collect();
    assert_eq!(unique.len(), first.len());
    assert_eq!(first, names(&page(&snapshot, &vitals, Format::OpenMetrics)));
}

#[test]
fn the_page_holds_exactly_the_metrics_of_the_table() {
    let (snapshot, vitals, _) = world();
    for format in [Format::Classic, Format::OpenMetrics] {
        let text = page(&snapshot, &vitals, format);
        let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected: Vec<_> = METRICS
            .iter()
            .map(|metric| match (format, metric.kind) {
                (Format::Classic, Kind::Info) => format!("{} gauge", metric.name),
                (Format::Classic, kind) => format!("{} {}", metric.name, kind.word()),
                (Format::OpenMetrics, kind) => format!("{} {}", metric.family(), kind.word()),
            })
            .collect();
        assert_eq!(described, expected);
        let helps = text.lines().filter(|line| line.starts_with("# HELP ")).count();
        assert_eq!(helps, METRICS.len());
        assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
    }
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    let names: HashSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        let timed = metric.name.ends_with("_seconds") || metric.name.ends_with("_bytes");
        assert!(metric.kind != Kind::Histogram || timed, "{} names no unit", metric.name);
        assert!(metric.name.starts_with("scorefront_") || metric.name.starts_with("process_"), "{}", metric.name);
        assert!(!metric.help.is_empty() && !metric.help.contains(['\n', '\\']), "{}", metric.name);
    }
}

#[test]
fn the_format_follows_the_accept_header() {
    let cases = [
        ("", Format::Classic),
        ("*/*", Format::Classic),
        ("text/plain;version=0.0.4;q=0.3,*/*;q=0.1", Format::Classic),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", Format::OpenMetrics),
        ("application/openmetrics-text;q=0,text/plain", Format::Classic),
    ];
    for (header, format) in cases {
        assert_eq!(Format::accepted(header), format, "{header}");
    }
}
