//! One endpoint from the facts about it. What did not change is taken over from the endpoint before, object by
//! object, so whoever compares pointers sees what did.

use std::sync::Arc;

use super::super::facts::{DeploymentFacts, Name, Problem};
use super::super::slots::UNLIMITED;
use super::super::snapshot::{Deployment, Endpoint, Mirror, Replica};
use super::super::split::Split;
use super::replicas::{self, Place};
use super::{DeploymentKey, EndpointKey, Keyring, LiveStates, World, access, cors, rates, wire};

/// An endpoint and what is wrong with it.
pub(super) struct Built {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) problems: Vec<Problem>,
}

/// Builds the endpoint, or says that no Service names it.
pub(super) fn build(
    world: &World,
    key: &EndpointKey,
    before: Option<&Arc<Endpoint>>,
    states: &impl LiveStates,
) -> Option<Built> {
    let mut problems = Vec::new();
    let services = services(world, key, &mut problems);
    let oldest = *services.first()?;
    let namespace = oldest.object.namespace.clone();
    let chosen = choose(&services, &mut problems);
    let deployments: Vec<_> = chosen
        .iter()
        .map(|facts| {
            let before = before.and_then(|endpoint| endpoint.deployment(facts.deployment.key()));
            deployment(world, (key, &oldest.endpoint), facts, before, states, &mut problems)
        })
        .collect();
    let percents: Vec<_> = chosen.iter().map(|facts| facts.traffic_percent).collect();
    let split = Split::new(&percents);
    problems.extend(traffic_problem(&chosen, split.sum()));
    let mirror = mirror(&chosen, &deployments, &mut problems);
    let secrets = world.secrets.get(&Keyring { namespace: namespace.clone(), endpoint: key.name.clone() });
    let access = access::decide(&services, secrets, &mut problems);
    world.router.judge(&services, &access, &mut problems);
    let meters = before.map_or_else(|| states.meters(key), |endpoint| endpoint.limiter.meters.clone());
    let endpoint = Endpoint {
        name: oldest.endpoint.clone(),
        form: key.form,
        namespace,
        deployments,
        split,
        mirror,
        limiter: rates::decide(&services, &access, meters, &mut problems),
        access,
        cors: cors::decide(&services, &mut problems),
        refusals: before.map_or_else(|| states.refusals(key), |endpoint| endpoint.refusals.clone()),
        shares: before.map_or_else(|| states.shares(key), |endpoint| endpoint.shares.clone()),
    };
    let endpoint = match before {
        Some(before) if is_same(before, &endpoint) => before.clone(),
        _ => Arc::new(endpoint),
    };
    Some(Built { endpoint, problems })
}

/// The Services of the endpoint in the namespace that owns its name, the oldest first. Others are reported.
fn services<'w>(world: &'w World, key: &EndpointKey, problems: &mut Vec<Problem>) -> Vec<&'w Arc<DeploymentFacts>> {
    let objects = world.services.get(key);
    let mut all: Vec<_> = objects.into_iter().flatten().filter_map(|object| world.deployments.get(object)).collect();
    all.sort_by(|a, b| (a.created, &a.object).cmp(&(b.created, &b.object)));
    let held = world.owners.get(key).filter(|owner| all.iter().any(|facts| facts.object.namespace == **owner));
    let Some(owner) = held.or_else(|| all.first().map(|&facts| &facts.object.namespace)) else { return Vec::new() };
    let (mine, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|facts| facts.object.namespace == *owner);
    for facts in others {
        let (form, name) = (facts.form.word(), &facts.endpoint);
        problems.push(Problem {
            kind: "Service",
            object: facts.object.clone(),
            field: format!("{form} name"),
            message: format!("{form} \"{name}\" belongs to namespace {owner}, which had it first; this Service is not served: use another name"),
        });
    }
    mine
}

/// One Service for each deployment, in the order of their names: the oldest. Others are reported.
fn choose<'w>(services: &[&'w Arc<DeploymentFacts>], problems: &mut Vec<Problem>) -> Vec<&'w Arc<DeploymentFacts>> {
    let mut chosen: Vec<&Arc<DeploymentFacts>> = Vec::with_capacity(services.len());
    for &facts in services {
        match chosen.iter().find(|other| other.deployment == facts.deployment) {
            None => chosen.push(facts),
            Some(other) => problems.push(Problem {
                kind: "Service",
                object: facts.object.clone(),
                field: "deployment name".into(),
                message: format!(
                    "deployment \"{}\" of {} \"{}\" is served from the older Service {}; this one is not served: use another name",
                    facts.deployment,
                    facts.form.word(),
                    facts.endpoint,
                    other.object
                ),
            }),
        }
    }
    chosen.sort_by(|a, b| a.deployment.cmp(&b.deployment));
    chosen
}

/// The endpoint's name is written the same way in all its deployments, however their Services write it.
fn deployment(
    world: &World,
    (key, endpoint): (&EndpointKey, &Name),
    facts: &Arc<DeploymentFacts>,
    before: Option<&Arc<Deployment>>,
    states: &impl LiveStates,
    problems: &mut Vec<Problem>,
) -> Arc<Deployment> {
    let identity = DeploymentKey {
        endpoint: key.clone(),
        deployment: facts.deployment.key().into(),
        namespace: facts.object.namespace.clone(),
    };
    let before = before.filter(|before| before.object.namespace == facts.object.namespace);
    let slices = world.slices.get(&facts.object);
    let places = replicas::find(facts, slices.into_iter().flat_map(|slices| slices.values()), problems);
    let limit = if facts.settings.slots_per_replica == 0 { UNLIMITED } else { facts.settings.slots_per_replica };
    let known: Vec<&Arc<Replica>> = before.map_or_else(Vec::new, |before| {
        let mut known: Vec<_> = before.replicas.iter().chain(&before.finishing).collect();
        known.sort_by(|a, b| a.id.cmp(&b.id));
        known
    });
    let replicas = |places: Vec<Place>, limit| -> Vec<Arc<Replica>> {
        places.into_iter().map(|place| replica(place, &known, &identity, limit, states)).collect()
    };
    let (serving, finishing) = (replicas(places.serving, limit), replicas(places.finishing, 0));
    let wire = wire::decide(world, facts, before.map(|before| &before.wire), problems);
    if let Some(before) = before
        && before.object == facts.object
        && before.name.as_str() == facts.deployment.as_str()
        && before.endpoint.as_str() == endpoint.as_str()
        && before.settings == facts.settings
        && before.traffic_percent == facts.traffic_percent
        && before.wire.is_same(&wire)
        && are_same(&before.replicas, &serving)
        && are_same(&before.finishing, &finishing)
    {
        return before.clone();
    }
    Arc::new(Deployment {
        endpoint: endpoint.clone(),
        name: facts.deployment.clone(),
        object: facts.object.clone(),
        settings: facts.settings.clone(),
        traffic_percent: facts.traffic_percent,
        wire,
        replicas: serving.into(),
        finishing,
        state: before.map_or_else(|| states.deployment(&identity), |before| before.state.clone()),
    })
}

/// The replica at this place: the one known before if nothing about it changed. `known` is sorted by identity.
fn replica(
    place: Place,
    known: &[&Arc<Replica>],
    key: &DeploymentKey,
    limit: u32,
    states: &impl LiveStates,
) -> Arc<Replica> {
    let found = known.binary_search_by(|replica| replica.id.cmp(&place.id)).ok().and_then(|at| known.get(at));
    if let Some(before) = found
        && before.address == place.address
        && before.name == place.name
    {
        return Arc::clone(before);
    }
    let state = found.map_or_else(|| states.replica(key, &place.id, limit), |before| before.state.clone());
    Arc::new(Replica { id: place.id, address: place.address, name: place.name, state })
}

/// A sum of 100 is right, and so is 0 where somebody said it.
fn traffic_problem(chosen: &[&Arc<DeploymentFacts>], sum: u32) -> Option<Problem> {
    let silent = chosen.iter().all(|facts| facts.traffic_percent.is_none());
    if sum == 100 || (sum == 0 && !silent) {
        return None;
    }
    let first = chosen.first()?;
    let (form, name) = (first.form.word(), &first.endpoint);
    let shares: Vec<_> = chosen
        .iter()
        .map(|facts| match facts.traffic_percent {
            Some(percent) => format!("{} {percent}", facts.deployment),
            None => format!("{} none", facts.deployment),
        })
        .collect();
    let effect = if sum == 0 { "no deployment gets any traffic" } else { "traffic is shared in proportion" };
    Some(Problem {
        kind: "Service",
        object: first.object.clone(),
        field: "scorefront.dev/traffic-percent".into(),
        message: format!(
            "the deployments of {form} \"{name}\" sum up to {sum} ({}), so {effect}; the sum must be 100, or 0 to stop all traffic",
            shares.join(", ")
        ),
    })
}

/// The mirror target: the oldest Service that asks for copies.
fn mirror(
    chosen: &[&Arc<DeploymentFacts>],
    deployments: &[Arc<Deployment>],
    problems: &mut Vec<Problem>,
) -> Option<Mirror> {
    let asking: Vec<_> = chosen.iter().zip(deployments).filter(|(facts, _)| facts.mirror_percent > 0).collect();
    let (target, deployment) = asking.iter().min_by_key(|(facts, _)| (facts.created, &facts.object))?;
    let report = |facts: &DeploymentFacts, message: String| Problem {
        kind: "Service",
        object: facts.object.clone(),
        field: "scorefront.dev/mirror-percent".into(),
        message,
    };
    for (facts, _) in asking.iter().filter(|(facts, _)| facts.object != target.object) {
        let message = format!(
            "{}: copies of {} \"{}\" go to {} already, and only one deployment may get them; ignored",
            facts.mirror_percent,
            facts.form.word(),
            facts.endpoint,
            target.object
        );
        problems.push(report(facts, message));
    }
    if chosen.len() == 1 {
        let message =
            format!("{}: there is no other deployment whose requests could be copied; ignored", target.mirror_percent);
        problems.push(report(target, message));
        return None;
    }
    Some(Mirror { deployment: Arc::clone(deployment), percent: target.mirror_percent })
}

fn is_same(before: &Endpoint, after: &Endpoint) -> bool {
    let mirrors = match (&before.mirror, &after.mirror) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(&a.deployment, &b.deployment) && a.percent == b.percent,
        _ => false,
    };
    mirrors
        && before.name.as_str() == after.name.as_str()
        && before.namespace == after.namespace
        && before.split == after.split
        && before.access == after.access
        && before.cors == after.cors
        && before.limiter.rates == after.limiter.rates
        && are_same(&before.deployments, &after.deployments)
}

fn are_same<T>(before: &[Arc<T>], after: &[Arc<T>]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(a, b)| Arc::ptr_eq(a, b))
}
