//! From the slices of a Service to the replicas of a deployment.
//!
//! Holds: a replica appears once, however many slices name it, and so does an address. Where slices disagree, the
//! better condition counts, then the first slice by name: after a move from one slice to another both name it for a
//! while, and a replica that turns out to be gone costs one more attempt, a missing one costs capacity.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::facts::{AddressFacts, DeploymentFacts, Problem, ScoringPort, SliceFacts};
use super::super::snapshot::ReplicaId;

/// The port of model servers that say nothing else.
const SCORING_PORT: u16 = 5001;

/// Where a replica is, before live state is found for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: ReplicaId,
    pub(super) address: SocketAddr,
    pub(super) name: Arc<str>,
}

/// Replicas by what they may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Those that take new requests.
    pub(super) serving: Vec<Place>,
    /// Those that only finish what they have.
    pub(super) finishing: Vec<Place>,
}

/// What a replica may be used for; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Ready,
    /// On its way out, but still answering: used when nothing is ready.
    LastResort,
    Unfit,
}

impl Condition {
    fn of(address: &AddressFacts) -> Self {
        match address {
            AddressFacts { ready: true, .. } => Self::Ready,
            AddressFacts { serving: true, terminating: true, .. } => Self::LastResort,
            _ => Self::Unfit,
        }
    }
}

/// Finds the replicas of a deployment in the slices of its Service, which come in the order of their names.
pub(super) fn find<'a>(
    facts: &DeploymentFacts,
    slices: impl Iterator<Item = &'a Arc<SliceFacts>>,
    problems: &mut Vec<Problem>,
) -> Places {
    let mut found = Vec::new();
    for slice in slices {
        match port(&facts.settings.scoring_port, &slice.ports) {
            Some(port) => found.extend(slice.addresses.iter().map(|address| (Condition::of(address), address, port))),
            None => problems.push(no_such_port(facts, slice)),
        }
    }
    found.sort_by_key(|&(condition, ..)| condition);
    let best = match found.first() {
        Some((Condition::Unfit, ..)) | None => None,
        Some(&(condition, ..)) => Some(condition),
    };
    let (mut ids, mut addresses) = (HashSet::new(), HashSet::new());
    let mut places = Places::default();
    for (condition, facts, port) in found {
        let place = place(facts, port);
        if !ids.insert(place.id.clone()) || !addresses.insert(place.address) {
            continue;
        }
        let list = if Some(condition) == best { &mut places.serving } else { &mut places.finishing };
        list.push(place);
    }
    places.serving.sort_by(|a, b| a.id.cmp(&b.id));
    places.finishing.sort_by(|a, b| a.id.cmp(&b.id));
    places
}

fn place(facts: &AddressFacts, port: u16) -> Place {
    let address = SocketAddr::new(facts.ip, port);
    let uid = facts.pod_uid.clone().unwrap_or_else(|| facts.ip.to_string().into());
    let name = facts.pod_name.clone().unwrap_or_else(|| address.to_string().into());
    Place { id: ReplicaId { uid, port }, address, name }
}

fn port(wanted: &ScoringPort, ports: &[(Option<Arc<str>>, u16)]) -> Option<u16> {
    let named = |name: &str| ports.iter().find(|(known, _)| known.as_deref() == Some(name)).map(|&(_, port)| port);
    match wanted {
        ScoringPort::Number(port) => Some(*port),
        ScoringPort::Named(name) => named(name),
        ScoringPort::Default => Some(named("http").unwrap_or(match ports {
            [(_, only)] => *only,
            _ => SCORING_PORT,
        })),
    }
}

fn no_such_port(facts: &DeploymentFacts, slice: &SliceFacts) -> Problem {
    let wanted = match &facts.settings.scoring_port {
        ScoringPort::Named(name) => name,
        ScoringPort::Default | ScoringPort::Number(_) => "",
    };
    let known: Vec<_> = slice.ports.iter().filter_map(|(name, _)| name.as_deref()).collect();
    let known = if known.is_empty() { "it has no named port".into() } else { format!("it has {}", known.join(", ")) };
    Problem {
        kind: "Service",
        object: facts.object.clone(),
        field: "scorefront.dev/scoring-port".into(),
        message: format!(
            "endpoint slice {} has no port named \"{wanted}\" and is not used; {known}",
            slice.object.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facts::{Form, Name, ObjectRef, Settings};

    fn deployment(port: ScoringPort) -> DeploymentFacts {
        DeploymentFacts {
            object: ObjectRef::new("ml", "iris-blue"),
            uid: "".into(),
            created: 0,
            form: Form::Endpoint,
            endpoint: Name::new("iris"),
            deployment: Name::new("blue"),
            settings: Settings { scoring_port: port, ..Settings::default() },
            traffic_percent: None,
            mirror_percent: 0,
        }
    }

    fn address(ip: &str, uid: Option<&str>, [ready, serving, terminating]: [bool; 3]) -> AddressFacts {
        let ip = ip.parse().unwrap();
        AddressFacts { ip, pod_uid: uid.map(Into::into), pod_name: None, ready, serving, terminating }
    }

    fn slice(name: &str, ports: &[(Option<&str>, u16)], addresses: Vec<AddressFacts>) -> Arc<SliceFacts> {
        let ports = ports.iter().map(|&(name, port)| (name.map(Into::into), port)).collect();
        Arc::new(SliceFacts { object: ObjectRef::new("ml", name), service: "iris-blue".into(), ports, addresses })
    }

    fn found(port: ScoringPort, slices: &[Arc<SliceFacts>]) -> (Vec<String>, Vec<String>, usize) {
        let mut problems = Vec::new();
        let places = find(&deployment(port), slices.iter(), &mut problems);
        let shown = |places: &[Place]| places.iter().map(|place| place.address.to_string()).collect();
        (shown(&places.serving), shown(&places.finishing), problems.len())
    }

    const READY: [bool; 3] = [true, true, false];
    const LEAVING: [bool; 3] = [false, true, true];
    const DEAD: [bool; 3] = [false, false, true];
    const STARTING: [bool; 3] = [false, false, false];

    #[test]
    fn the_scoring_port_is_the_named_one_else_the_only_one_else_5001() {
        let at = |ports: &[(Option<&str>, u16)], wanted| {
            let (serving, _, problems) = found(wanted, &[slice("s", ports, vec![address("10.0.0.1", None, READY)])]);
            (serving, problems)
        };
        let one = |port: u16| (vec![format!("10.0.0.1:{port}")], 0);
        let several = [(Some("grpc"), 1), (Some("http"), 2)];
        assert_eq!(at(&several, ScoringPort::Default), one(2));
        assert_eq!(at(&[(Some("score"), 3)], ScoringPort::Default), one(3));
        assert_eq!(at(&[(None, 4)], ScoringPort::Default), one(4));
        assert_eq!(at(&[(Some("a"), 1), (Some("b"), 2)], ScoringPort::Default), one(5001));
        assert_eq!(at(&[], ScoringPort::Default), one(5001));
        assert_eq!(at(&several, ScoringPort::Named("grpc".into())), one(1));
        assert_eq!(at(&several, ScoringPort::Number(9)), one(9));
        assert_eq!(at(&several, ScoringPort::Named("rest".into())), (vec![], 1));
    }

    #[test]
    fn ready_ones_serve_and_all_others_only_finish() {
        let addresses = vec![
            address("10.0.0.1", Some("a"), READY),
            address("10.0.0.2", Some("b"), LEAVING),
            address("10.0.0.3", Some("c"), STARTING),
        ];
        let (serving, finishing, _) = found(ScoringPort::Default, &[slice("s", &[(None, 80)], addresses)]);
        assert_eq!(serving, ["10.0.0.1:80"]);
        assert_eq!(finishing, ["10.0.0.2:80", "10.0.0.3:80"]);
    }

    #[test]
    fn terminating_ones_serve_when_none_is_ready() {
        let addresses = vec![
            address("10.0.0.1", Some("a"), LEAVING),
            address("10.0.0.2", Some("b"), DEAD),
            address("10.0.0.3", Some("c"), STARTING),
        ];
        let (serving, finishing, _) = found(ScoringPort::Default, &[slice("s", &[(None, 80)], addresses)]);
        assert_eq!(serving, ["10.0.0.1:80"]);
        assert_eq!(finishing, ["10.0.0.2:80", "10.0.0.3:80"]);
    }

    #[test]
    fn none_serves_when_all_are_unfit() {
        let addresses = vec![address("10.0.0.1", Some("a"), DEAD), address("10.0.0.2", Some("b"), STARTING)];
        let (serving, finishing, _) = found(ScoringPort::Default, &[slice("s", &[(None, 80)], addresses)]);
        assert!(serving.is_empty());
        assert_eq!(finishing.len(), 2);
    }

    #[test]
    fn a_replica_named_by_two_slices_is_one_and_the_better_condition_counts() {
        let slices = [
            slice("s-1", &[(None, 80)], vec![address("10.0.0.1", Some("a"), LEAVING)]),
            slice("s-2", &[(None, 80)], vec![address("10.0.0.1", Some("a"), READY)]),
        ];
        assert_eq!(found(ScoringPort::Default, &slices), (vec!["10.0.0.1:80".into()], vec![], 0));
    }

    #[test]
    fn two_address_families_of_one_pod_are_one_replica_at_its_first_address() {
        let slices = [
            slice("s-4", &[(None, 80)], vec![address("10.0.0.1", Some("a"), READY)]),
            slice("s-6", &[(None, 80)], vec![address("fd00::1", Some("a"), READY)]),
        ];
        assert_eq!(found(ScoringPort::Default, &slices), (vec!["10.0.0.1:80".into()], vec![], 0));
    }

    #[test]
    fn an_address_that_two_pods_claim_is_used_once() {
        let slices = [
            slice("s-1", &[(None, 80)], vec![address("10.0.0.1", Some("old"), LEAVING)]),
            slice("s-2", &[(None, 80)], vec![address("10.0.0.1", Some("new"), READY)]),
        ];
        assert_eq!(found(ScoringPort::Default, &slices), (vec!["10.0.0.1:80".into()], vec![], 0));
    }
}
