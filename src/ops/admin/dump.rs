//! `/debug/snapshot`: the world as it is routed, with live counters, in a stable order.
//!
//! No secrets: of keys, only how many there are.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::core::facts::{AuthMode, OnAbandon, Problem, ScoringPort};
use crate::core::outcome::Outcome;
use crate::core::replica_tls::Wire;
use crate::core::slots::UNLIMITED;
use crate::core::snapshot::{Access, Deployment, Endpoint, Replica, Snapshot};
use crate::core::vitals::Vitals;
use crate::ops::metrics::discovery_age;

use self::rules::{CorsView, RatesView};

mod rules;

/// As of now.
pub(super) fn of(snapshot: &Snapshot, vitals: &Vitals) -> impl Serialize + use<> {
    let mut endpoints: Vec<_> = snapshot.endpoints().collect();
    endpoints.sort_by(|a, b| (a.form, &a.name).cmp(&(b.form, &b.name)));
    World {
        version: snapshot.version,
        discovery_age_seconds: discovery_age(vitals, Instant::now()).map(|age| age.as_secs_f64()),
        restored: vitals.discovery.restored.lock().is_some(),
        draining: vitals.is_draining(),
        endpoints: endpoints.into_iter().map(|endpoint| EndpointView::of(endpoint)).collect(),
        problems: vitals.discovery.problems.lock().iter().map(ProblemView::of).collect(),
    }
}

#[derive(Serialize)]
struct World {
    version: u64,
    discovery_age_seconds: Option<f64>,
    /// Whether it comes from the state file.
    restored: bool,
    draining: bool,
    endpoints: Vec<EndpointView>,
    problems: Vec<ProblemView>,
}

#[derive(Serialize)]
struct EndpointView {
    name: String,
    form: &'static str,
    namespace: String,
    access: &'static str,
    keys: usize,
    /// Null where replicas decide.
    cors: Option<CorsView>,
    /// Null where nothing is limited.
    rate_limits: Option<RatesView>,
    mirror: Option<MirrorView>,
    deployments: Vec<DeploymentView>,
}

#[derive(Serialize)]
struct MirrorView {
    deployment: String,
    percent: u8,
}

#[derive(Serialize)]
struct DeploymentView {
    name: String,
    service: String,
    traffic_percent: Option<u8>,
    settings: SettingsView,
    /// Null where replicas are spoken to without TLS.
    replica_tls: Option<TlsView>,
    waiting: usize,
    queue_pushed: u64,
    queue_popped: u64,
    rate_per_second: Option<f64>,
    served: u64,
    failed: u64,
    retries: u64,
    replicas: Vec<ReplicaView>,
    finishing: Vec<ReplicaView>,
}

#[derive(Serialize)]
struct SettingsView {
    request_timeout_ms: u64,
    /// 0 is unlimited.
    max_concurrent_requests_per_instance: u32,
    max_queue_wait_ms: u64,
    max_queue_length: u32,
    max_body_bytes: Option<u64>,
    scoring_path: String,
    scoring_port: String,
    auth_mode: &'static str,
    on_abandon: &'static str,
    retry_reused: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TlsView {
    Open {
        server_name: String,
        authorities: usize,
    },
    /// Requests are refused, and why.
    Closed {
        closed: String,
    },
}

#[derive(Serialize)]
struct ReplicaView {
    id: String,
    name: String,
    address: SocketAddr,
    /// Slots; null is unlimited.
    limit: Option<u32>,
    taken: u32,
    abandoned: usize,
    left_out: bool,
    requests: u64,
    connect_failures: u64,
}

#[derive(Serialize)]
struct ProblemView {
    kind: &'static str,
    object: String,
    field: String,
    message: String,
}

impl EndpointView {
    fn of(endpoint: &Endpoint) -> Self {
        let (access, keys) = match &endpoint.access {
            Access::Open => ("open", 0),
            Access::Keys(keys) => ("keys", keys.len()),
            Access::Token => ("token", 0),
        };
        let mirror = endpoint.mirror.as_ref();
        Self {
            name: endpoint.name.to_string(),
            form: endpoint.form.word(),
            namespace: endpoint.namespace.to_string(),
            access,
            keys,
            cors: endpoint.cors.as_deref().map(CorsView::of),
            rate_limits: endpoint.limiter.is_set().then(|| RatesView::of(&endpoint.limiter)),
            mirror: mirror.map(|m| MirrorView { deployment: m.deployment.name.to_string(), percent: m.percent }),
            deployments: endpoint.deployments.iter().map(|deployment| DeploymentView::of(deployment)).collect(),
        }
    }
}

impl DeploymentView {
    fn of(deployment: &Deployment) -> Self {
        let state = &deployment.state;
        let (queue_pushed, queue_popped) = state.gate.totals();
        let served = state.total(|shard| shard.served.read().map(|(_, count)| count).sum());
        let failed = state.total(|shard| {
            let others = Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Served);
            others.filter_map(|outcome| shard.outcomes.get(outcome.index())).map(|cell| cell.read()).sum()
        });
        Self {
            name: deployment.name.to_string(),
            service: deployment.object.to_string(),
            traffic_percent: deployment.traffic_percent,
            settings: SettingsView::of(deployment),
            replica_tls: TlsView::of(&deployment.wire),
            waiting: state.gate.waiting(),
            queue_pushed,
            queue_popped,
            rate_per_second: state.pace.lock().drain_rate(),
            served,
            failed,
            retries: state.total(|shard| shard.retries.read()),
            replicas: sorted(deployment.replicas.iter().map(|replica| ReplicaView::of(replica))),
            finishing: sorted(deployment.finishing.iter().map(|replica| ReplicaView::of(replica))),
        }
    }
}

impl SettingsView {
    fn of(deployment: &Deployment) -> Self {
        let settings = &deployment.settings;
        Self {
            request_timeout_ms: settings.request_timeout.as_millis() as u64,
            max_concurrent_requests_per_instance: settings.slots_per_replica,
            max_queue_wait_ms: settings.queue_wait_max.as_millis() as u64,
            max_queue_length: settings.queue_length_max,
            max_body_bytes: settings.body_bytes_max,
            scoring_path: settings.scoring_path.to_string(),
            scoring_port: match &settings.scoring_port {
                ScoringPort::Default => "default".to_owned(),
                ScoringPort::Named(name) => name.to_string(),
                ScoringPort::Number(number) => number.to_string(),
            },
            auth_mode: match settings.auth {
                AuthMode::Key => "key",
                AuthMode::Token => "aml_token",
                AuthMode::None => "none",
            },
            on_abandon: match settings.on_abandon {
                OnAbandon::Wait => "wait",
                OnAbandon::Close => "close",
            },
            retry_reused: settings.retry_reused,
        }
    }
}

impl TlsView {
    fn of(wire: &Wire) -> Option<Self> {
        match wire {
            Wire::Plain => None,
            Wire::Tls(tls) => {
                Some(Self::Open { server_name: tls.server_name.to_string(), authorities: tls.roots.iter().len() })
            }
            Wire::Closed(why) => Some(Self::Closed { closed: why.to_string() }),
        }
    }
}

impl ReplicaView {
    fn of(replica: &Replica) -> Self {
        let level = replica.state.level();
        Self {
            id: format!("{:?}", replica.id),
            name: replica.name.to_string(),
            address: replica.address,
            limit: (level.limit != UNLIMITED).then_some(level.limit),
            taken: level.taken,
            abandoned: replica.state.abandoned(),
            left_out: replica.state.is_left_out(),
            requests: replica.state.requests.read(),
            connect_failures: replica.state.connect_failures.read(),
        }
    }
}

fn sorted(replicas: impl Iterator<Item = ReplicaView>) -> Vec<ReplicaView> {
    let mut replicas: Vec<_> = replicas.collect();
    replicas.sort_by(|a, b| a.id.cmp(&b.id));
    replicas
}

impl ProblemView {
    fn of(problem: &Problem) -> Self {
        let object = &problem.object;
        Self {
            kind: problem.kind,
            object: if object.namespace.is_empty() { object.name.to_string() } else { object.to_string() },
            field: problem.field.clone(),
            message: problem.message.clone(),
        }
    }
}
