//! The same objects by any way make the same world.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::control::registry::Registry;
use crate::testing::objects::{annotated, mk_secret, mk_service, mk_slice};

fn scope(feed: usize) -> Scope {
    Scope { feed, part: format!("source {feed}").into(), is_trusted: true }
}

fn object(json: &Value) -> Object {
    let object = match json["kind"].as_str() {
        Some("Service") => serde_json::from_value(json.clone()).map(|service| Object::Service(Box::new(service))),
        Some("EndpointSlice") => {
            serde_json::from_value(json.clone()).map(|slice| Object::EndpointSlice(Box::new(slice)))
        }
        _ => serde_json::from_value(json.clone()).map(|secret| Object::Secret(Box::new(secret))),
    };
    object.unwrap()
}

/// Everything that can be seen of a world: its snapshot on top of `last`, and its problems.
fn outcome(index: &mut Index, last: &Arc<Snapshot>, registry: &Registry) -> (Arc<Snapshot>, Vec<String>) {
    let assembled = index.assemble(last, registry);
    let snapshot = assembled.map_or_else(|| last.clone(), |assembled| assembled.snapshot);
    let mut lines = Vec::new();
    for endpoint in snapshot.endpoints() {
        let mirror = endpoint.mirror.as_ref().map(|mirror| (&mirror.deployment.name, mirror.percent));
        lines.push(format!(
            "{:?} {} {} {mirror:?} {:?}",
            endpoint.form, endpoint.name, endpoint.namespace, endpoint.access
        ));
        for deployment in &endpoint.deployments {
            let replicas: Vec<_> = deployment.replicas.iter().map(|replica| (&replica.id, replica.address)).collect();
            let settings = &deployment.settings;
            let traffic = deployment.traffic_percent;
            lines.push(format!("{} {} {traffic:?} {settings:?} {replicas:?}", endpoint.name, deployment.object));
        }
    }
    lines.sort();
    index.problems_changed = true;
    lines.extend(index.problems().into_iter().flatten().map(|problem| problem.to_string()));
    (snapshot, lines)
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Value),
    Delete(Value),
}

/// Objects of a small world, so that they meet.
fn any_object() -> impl Strategy<Value = Value> {
    let namespaces = prop::sample::select(vec!["one", "two"]);
    let names = prop::sample::select(vec!["aaa", "bbb", "ccc"]);
    let service = (namespaces.clone(), names.clone(), names.clone(), names.clone(), 0..4_u8, 0..3_u8).prop_map(
        |(namespace, name, endpoint, deployment, traffic, age)| {
            let service = mk_service(&format!("{namespace}/{name}"), &format!("{endpoint}/{deployment}"));
            let mut service = annotated(service, "traffic-percent", &(traffic * 25).to_string());
            if traffic == 0 {
                service = annotated(annotated(service, "auth-mode", "key"), "mirror-percent", "10");
            }
            service["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:0{age}Z").into();
            service
        },
    );
    let pods = prop::sample::subsequence(vec!["10.0.0.1", "10.0.0.2", "bad"], 0..=3);
    let slice = (namespaces.clone(), names.clone(), names.clone(), pods)
        .prop_map(|(namespace, name, service, pods)| mk_slice(&format!("{namespace}/{name}"), service, &pods));
    let secret = (namespaces, names.clone(), names)
        .prop_map(|(namespace, name, endpoint)| mk_secret(&format!("{namespace}/{name}"), endpoint, "czNjcmV0"));
    prop_oneof![3 => service, 3 => slice, 1 => secret]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => any_object().prop_map(Step::Apply), 1 => any_object().prop_map(Step::Delete)]
}

fn replay(index: &mut Index, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Apply(json) => index.apply(&scope(0), &object(json)),
            Step::Delete(json) => index.delete(&scope(0), &object(json).key()),
        }
    }
}

/// The objects that there are after all steps.
fn final_objects(steps: &[Step]) -> Vec<Object> {
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Apply(json) => drop(objects.insert(object(json).key(), object(json))),
            Step::Delete(json) => drop(objects.remove(&object(json).key())),
        }
    }
    objects.into_values().collect()
}

proptest! {
    #[test]
    fn a_relist_equals_the_changes_that_it_stands_for(
        steps in prop::collection::vec(any_step(), 0..40),
        missed_from in 0..40_usize,
    ) {
        let registry = Registry::new(1);
        let none = Arc::new(Snapshot::default());
        let objects = final_objects(&steps);

        let mut replayed = Index::default();
        replay(&mut replayed, &steps);
        let (_, expected) = outcome(&mut replayed, &none, &registry);

        let mut listed = Index::default();
        listed.reset(&scope(0), &objects);
        prop_assert_eq!(&outcome(&mut listed, &none, &registry).1, &expected);

        let mut relisted = Index::default();
        replay(&mut relisted, &steps[..missed_from.min(steps.len())]);
        relisted.reset(&scope(0), &objects);
        prop_assert_eq!(&outcome(&mut relisted, &none, &registry).1, &expected);

        relisted.reset(&scope(0), &[]);
        let (empty, lines) = outcome(&mut relisted, &none, &registry);
        prop_assert_eq!(empty.endpoints().count(), 0);
        prop_assert_eq!(lines, Vec::<String>::new());
        prop_assert!(relisted.objects.is_empty() && relisted.scopes.is_empty());
    }

    #[test]
    fn many_small_publications_lead_where_one_large_one_does(steps in prop::collection::vec(any_step(), 0..40)) {
        // In one namespace: who owns a name depends on history, and is meant to.
        let here = |step: &Step| match step {
            Step::Apply(json) | Step::Delete(json) => json["metadata"]["namespace"] == "one",
        };
        let steps: Vec<_> = steps.into_iter().filter(here).collect();
        let registry = Registry::new(1);
        let none = Arc::new(Snapshot::default());
        let mut large = Index::default();
        replay(&mut large, &steps);
        let (_, expected) = outcome(&mut large, &none, &registry);
        let mut small = Index::default();
        let mut last = none;
        let mut seen = Vec::new();
        for step in &steps {
            replay(&mut small, std::slice::from_ref(step));
            (last, seen) = outcome(&mut small, &last, &registry);
        }
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn what_the_first_scope_says_counts_and_the_next_takes_over_when_it_is_gone() {
    let registry = Registry::new(1);
    let mut index = Index::default();
    let mut last = Arc::new(Snapshot::default());
    let (red, blue) = (object(&mk_service("ml/x", "iris/red")), object(&mk_service("ml/x", "iris/blue")));
    let mut served = |index: &mut Index| {
        let (snapshot, lines) = outcome(index, &last, &registry);
        last = snapshot;
        let deployments = last.endpoints().flat_map(|endpoint| &endpoint.deployments);
        (deployments.map(|deployment| deployment.name.to_string()).collect::<Vec<_>>(), lines.last().cloned())
    };
    index.apply(&scope(1), &red);
    assert_eq!(served(&mut index).0, ["red"]);
    index.apply(&scope(0), &blue);
    let (names, problem) = served(&mut index);
    assert_eq!(names, ["blue"]);
    assert_eq!(
        problem.as_deref(),
        Some("Service ml/x: metadata.name: is in source 0 and in source 1; only the first counts: take one away")
    );
    index.reset(&scope(0), &[]);
    assert_eq!(served(&mut index).0, ["red"]);
    index.delete(&scope(1), &red.key());
    assert_eq!(served(&mut index), (vec![], None));
}

#[test]
fn problems_are_told_when_they_change_and_only_then() {
    let registry = Registry::new(1);
    let mut index = Index::default();
    let wrong = object(&annotated(mk_service("ml/x", "iris/red"), "max-queue-length", "x"));
    index.apply(&scope(0), &wrong);
    index.assemble(&Snapshot::default(), &registry);
    assert_eq!(index.problems().map(|problems| problems.len()), Some(1));
    assert_eq!(index.problems(), None);
    index.apply(&scope(0), &wrong);
    index.assemble(&Snapshot::default(), &registry);
    assert_eq!(index.problems(), None);
    index.apply(&scope(0), &object(&mk_service("ml/x", "iris/red")));
    assert_eq!(index.problems(), Some(vec![]));
}
