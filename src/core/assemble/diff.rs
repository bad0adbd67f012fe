//! What is different between an endpoint and the one before it, as values for the trace log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::super::facts::{Form, Name};
use super::super::replica_tls::Wire;
use super::super::snapshot::{Access, Deployment, Endpoint, Replica, ReplicaId};

/// What happened to the thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another than before.
    Changed,
}

impl Action {
    /// The word for logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// One thing that is different now: an endpoint, one of its deployments, or a replica of one of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub action: Action,
    /// The URL form of the endpoint.
    pub form: Form,
    /// The endpoint.
    pub endpoint: Name,
    /// The deployment, unless it is about the endpoint as a whole.
    pub deployment: Option<Name>,
    /// The replica's name and address, if it is about one.
    pub replica: Option<Arc<str>>,
    /// What it is, or what is different about it.
    pub why: String,
}

impl Change {
    /// `endpoint`, `service`, `deployment` or `replica`.
    pub fn subject(&self) -> &'static str {
        match (&self.deployment, &self.replica) {
            (_, Some(_)) => "replica",
            (Some(_), None) => "deployment",
            (None, None) => self.form.word(),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action.word(), self.subject(), self.endpoint)?;
        if let Some(deployment) = &self.deployment {
            write!(f, "/{deployment}")?;
        }
        if let Some(replica) = &self.replica {
            write!(f, "/{replica}")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Lists all differences.
pub(super) fn compare(before: Option<&Arc<Endpoint>>, after: Option<&Arc<Endpoint>>, changes: &mut Vec<Change>) {
    let Some(endpoint) = after.or(before) else { return };
    let mut log = Log { endpoint, deployment: None, changes };
    match (before, after) {
        (Some(before), Some(after)) => {
            let why = endpoint_reasons(before, after);
            if !why.is_empty() {
                log.push(Action::Changed, None, why.join(", "));
            }
        }
        (None, Some(after)) => log.push(Action::Added, None, format!("in namespace {}", after.namespace)),
        (Some(_), None) => log.push(Action::Removed, None, "no Service names it any more".into()),
        (None, None) => {}
    }
    let (old, new) = (by_name(before), by_name(after));
    for (name, was) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        log.deployment = Some((*name).clone());
        log.push(Action::Removed, None, format!("Service {} is gone or names another", was.object));
    }
    for (name, is) in &new {
        log.deployment = Some((*name).clone());
        match old.get(name) {
            None => log.push(Action::Added, None, format!("from Service {}", is.object)),
            Some(was) if !Arc::ptr_eq(was, is) => {
                let why = deployment_reasons(was, is);
                if !why.is_empty() {
                    log.push(Action::Changed, None, why.join(", "));
                }
            }
            Some(_) => continue,
        }
        compare_replicas(old.get(name).copied(), is, &mut log);
    }
}

struct Log<'a> {
    endpoint: &'a Endpoint,
    deployment: Option<Name>,
    changes: &'a mut Vec<Change>,
}

impl Log<'_> {
    fn push(&mut self, action: Action, replica: Option<&Replica>, why: String) {
        self.changes.push(Change {
            action,
            form: self.endpoint.form,
            endpoint: self.endpoint.name.clone(),
            deployment: self.deployment.clone(),
            replica: replica.map(shown),
            why,
        });
    }
}

fn shown(replica: &Replica) -> Arc<str> {
    let address = replica.address.to_string();
    if *address == *replica.name { address.into() } else { format!("{} ({address})", replica.name).into() }
}

fn by_name(endpoint: Option<&Arc<Endpoint>>) -> BTreeMap<&Name, &Arc<Deployment>> {
    endpoint.into_iter().flat_map(|endpoint| &endpoint.deployments).map(|d| (&d.name, d)).collect()
}

fn endpoint_reasons(before: &Endpoint, after: &Endpoint) -> Vec<String> {
    let mut why = Vec::new();
    if before.namespace != after.namespace {
        why.push(format!("namespace {} gave the name up to {}", before.namespace, after.namespace));
    }
    if before.name.as_str() != after.name.as_str() {
        why.push(format!("written \"{}\" now", after.name));
    }
    match (&before.access, &after.access) {
        (a, b) if is_same_access(a, b) => {}
        (_, Access::Open) => why.push("open to everybody".into()),
        (_, Access::Token) => why.push("asks for a token".into()),
        (Access::Open | Access::Token, Access::Keys(keys)) => why.push(format!("asks for one of {} keys", keys.len())),
        (Access::Keys(a), Access::Keys(b)) => why.push(format!("keys replaced ({} before, {} now)", a.len(), b.len())),
    }
    match (&before.cors, &after.cors) {
        (a, b) if a == b => {}
        (_, Some(_)) => why.push("other rules about CORS".into()),
        (_, None) => why.push("CORS is left to the replicas".into()),
    }
    if before.limiter.rates != after.limiter.rates {
        why.push(if after.limiter.is_set() { "other rate limits" } else { "no rate limits any more" }.into());
    }
    let target = |endpoint: &Endpoint| endpoint.mirror.as_ref().map(|m| (m.deployment.name.clone(), m.percent));
    match (target(before), target(after)) {
        (a, b) if a == b => {}
        (_, Some((name, percent))) => why.push(format!("{percent} % copied to {name}")),
        (_, None) => why.push("no copies any more".into()),
    }
    why
}

/// After a world was restored, the same keys come again in another form.
fn is_same_access(before: &Access, after: &Access) -> bool {
    match (before, after) {
        (Access::Keys(before), Access::Keys(after)) => {
            before.len() == after.len() && after.iter().all(|key| before.iter().any(|old| old.is_of_same_key(key)))
        }
        (before, after) => before == after,
    }
}

fn deployment_reasons(before: &Deployment, after: &Deployment) -> Vec<String> {
    let mut why = Vec::new();
    let mut note = |what: &str, before: String, after: String| {
        if before != after {
            why.push(format!("{what} {before} -> {after}"));
        }
    };
    let percent = |percent: Option<u8>| percent.map_or_else(|| "none".to_owned(), |percent| percent.to_string());
    let (old, new) = (&before.settings, &after.settings);
    note("service", before.object.to_string(), after.object.to_string());
    note("traffic-percent", percent(before.traffic_percent), percent(after.traffic_percent));
    note(
        "request-timeout-ms",
        old.request_timeout.as_millis().to_string(),
        new.request_timeout.as_millis().to_string(),
    );
    note("max-concurrent-requests-per-instance", old.slots_per_replica.to_string(), new.slots_per_replica.to_string());
    note("max-queue-wait-ms", old.queue_wait_max.as_millis().to_string(), new.queue_wait_max.as_millis().to_string());
    let body = |max: Option<u64>| max.map_or_else(|| "the router's".to_owned(), |bytes| bytes.to_string());
    note("max-body-bytes", body(old.body_bytes_max), body(new.body_bytes_max));
    note("max-queue-length", old.queue_length_max.to_string(), new.queue_length_max.to_string());
    note("scoring-path", old.scoring_path.to_string(), new.scoring_path.to_string());
    note("scoring-port", format!("{:?}", old.scoring_port), format!("{:?}", new.scoring_port));
    note("auth-mode", format!("{:?}", old.auth), format!("{:?}", new.auth));
    note("on-abandon", format!("{:?}", old.on_abandon), format!("{:?}", new.on_abandon));
    note("tls to replicas", shown_wire(&before.wire), shown_wire(&after.wire));
    note("retry-reused", old.retry_reused.to_string(), new.retry_reused.to_string());
    if let (Wire::Tls(was), Wire::Tls(is)) = (&before.wire, &after.wire)
        && was.roots != is.roots
    {
        why.push("authorities of replicas replaced".into());
    }
    why
}

fn shown_wire(wire: &Wire) -> String {
    match wire {
        Wire::Plain => "none".into(),
        Wire::Tls(tls) => format!("for {}", tls.server_name),
        Wire::Closed(_) => "closed".into(),
    }
}

fn compare_replicas(before: Option<&Arc<Deployment>>, after: &Deployment, log: &mut Log<'_>) {
    let mut old = before.map(|before| by_id(before)).unwrap_or_default();
    for (id, (is, serves)) in by_id(after) {
        match old.remove(id) {
            None if serves => log.push(Action::Added, Some(is), "takes requests".into()),
            None => log.push(Action::Added, Some(is), "not ready".into()),
            Some((_, true)) if !serves => log.push(Action::Changed, Some(is), "takes no new requests".into()),
            Some((_, false)) if serves => log.push(Action::Changed, Some(is), "takes requests".into()),
            Some((was, _)) if was.address != is.address => {
                log.push(Action::Changed, Some(is), format!("was at {}", was.address));
            }
            Some(_) => {}
        }
    }
    for (was, _) in old.into_values() {
        log.push(Action::Removed, Some(was), "in no endpoint slice any more".into());
    }
}

fn by_id(deployment: &Deployment) -> BTreeMap<&ReplicaId, (&Replica, bool)> {
    let serving = deployment.replicas.iter().map(|replica| (&replica.id, (&**replica, true)));
    let finishing = deployment.finishing.iter().map(|replica| (&replica.id, (&**replica, false)));
    serving.chain(finishing).collect()
}
