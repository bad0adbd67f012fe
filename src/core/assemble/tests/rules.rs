//! Who owns a name, who is served, who may score, who gets which share.

use super::*;
use crate::core::cors::{Origins, Rules};
use crate::core::facts::KeyDigest;
use crate::core::limiter::Rates;
use crate::core::rate::Limit;
use crate::core::replica_tls::Ca;
use crate::core::snapshot::Access;

fn mk_secret(object: &str, endpoint: &str, keys: &[u8]) -> SecretFacts {
    let (namespace, name) = object.split_once('/').unwrap();
    let keys = keys.iter().map(|&key| KeyDigest::Plain([key; 32])).collect();
    SecretFacts { object: ObjectRef::new(namespace, name), endpoint: Name::new(endpoint), keys, ca: Ca::Absent }
}

fn keys(endpoint: &Endpoint) -> Option<usize> {
    match &endpoint.access {
        Access::Open => None,
        Access::Keys(keys) => Some(keys.len()),
        Access::Token => panic!("no endpoint of these tests asks for tokens"),
    }
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
fn a_name_stays_with_its_owner_in_a_world_that_succeeds_another() {
    let mut stage = Stage::default();
    let aged = |object, names, created| DeploymentFacts { created, ..mk_service(object, names) };
    stage.service(aged("early/a", "iris/blue", 100)).service(aged("early/b", "wine/red", 100));
    stage.publish();
    let older = World::of(stage.world.facts());
    // Meanwhile somebody came who claims to be older, and one name is nobody's any more.
    stage.world = World::default();
    stage.service(aged("thief/a", "iris/blue", 0)).service(aged("early/a", "iris/blue", 100));
    stage.world.succeed(&older);
    let changes = stage.publish();
    assert_eq!(&*stage.endpoint("iris").namespace, "early");
    assert_eq!(changes[0], "removed endpoint wine: no Service names it any more");
    assert!(stage.snapshot.find(Form::Endpoint, "wine").is_none());
    // What it was the owner of once does not count when it comes back.
    stage.service(aged("early/b", "wine/red", 100)).service(aged("late/b", "wine/red", 50));
    stage.publish();
    assert_eq!(&*stage.endpoint("wine").namespace, "late");
}

#[test]
fn a_world_that_says_the_same_as_the_one_before_changes_nothing() {
    let mut stage = Stage::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1, 2]));
    stage.slice(mk_slice("ml/stranger", "nobody", &[9]));
    stage.publish();
    let before = stage.endpoint("iris").clone();
    let facts = stage.world.facts();
    assert_eq!((facts.services.len(), facts.slices.len()), (1, 1), "what serves nobody is not kept");
    let older = World::of(facts);
    stage.world = World::default();
    stage.service(mk_service("ml/blue", "iris/blue")).slice(mk_slice("ml/s1", "blue", &[1, 2]));
    stage.world.succeed(&older);
    assert!(stage.publish().is_empty());
    assert!(Arc::ptr_eq(stage.endpoint("iris"), &before));
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
fn the_strictest_of_keys_tokens_and_nothing_counts() {
    use AuthMode::{Key, None, Token};
    let decide = |modes: &[AuthMode]| {
        let mut stage = Stage::default();
        for (n, auth) in modes.iter().enumerate() {
            let mut facts = mk_service(&format!("ml/s{n}"), &format!("iris/dep{n}"));
            facts.settings.auth = *auth;
            stage.service(facts);
        }
        stage.publish();
        (stage.endpoint("iris").access.clone(), stage.problems().iter().filter(|p| p.contains("has no effect")).count())
    };
    assert_eq!(decide(&[Token, Token]), (Access::Token, 0));
    assert_eq!(decide(&[None, Token]), (Access::Token, 1));
    assert_eq!(decide(&[Token, None, Key]), (Access::Keys([].into()), 2));
    assert_eq!(decide(&[None, None]), (Access::Open, 0));
}

#[test]
fn several_secrets_are_all_valid_up_to_a_limit() {
    let mut stage = Stage::default();
    let mut facts = mk_service("ml/blue", "iris/blue");
    facts.settings.auth = AuthMode::Key;
    stage.service(facts);
    for n in 0..40_u8 {
        let facts = mk_secret(&format!("ml/k{n:02}"), "iris", &[n]);
        stage.world.put_secret(&facts.object.clone(), Some(Arc::new(facts)));
        stage.publish();
        let expected = usize::from(n + 1).min(32);
        assert_eq!(keys(stage.endpoint("iris")), Some(expected));
        assert_eq!(stage.problems().len(), usize::from(n >= 32), "{:?}", stage.problems());
    }
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
fn an_endpoint_is_written_the_same_way_in_all_its_deployments() {
    let mut stage = Stage::default();
    stage.service(DeploymentFacts { created: 1, ..mk_service("ml/a", "Iris/aaa") });
    stage.service(DeploymentFacts { created: 2, ..mk_service("ml/b", "IRIS/bbb") });
    stage.publish();
    let names: Vec<_> = stage.endpoint("iris").deployments.iter().map(|d| d.endpoint.to_string()).collect();
    assert_eq!(names, ["Iris", "Iris"]);
}

#[test]
fn the_oldest_service_that_says_anything_about_cors_decides_and_others_that_disagree_are_reported() {
    let origins = |origin: &str| Rules { origins: Some(Origins::These(vec![origin.into()])), ..Rules::default() };
    let with = |object, names, created, cors| {
        let facts = mk_service(object, names);
        DeploymentFacts { created, settings: Settings { cors, ..facts.settings.clone() }, ..facts }
    };
    let mut stage = Stage::default();
    let share = |facts| DeploymentFacts { traffic_percent: Some(0), ..facts };
    stage.service(share(with("ml/a", "iris/silent", 1, Rules::default())));
    stage.publish();
    assert_eq!(stage.endpoint("iris").cors, None);
    stage.service(share(with("ml/b", "iris/blue", 2, origins("https://a.test"))));
    stage.service(share(with("ml/c", "iris/same", 3, origins("https://a.test"))));
    let changes = stage.publish();
    assert!(changes.iter().any(|change| change == "changed endpoint iris: other rules about CORS"), "{changes:?}");
    assert_eq!(stage.endpoint("iris").cors.as_deref(), origins("https://a.test").compile().as_ref());
    assert_eq!(stage.problems(), [""; 0]);
    stage.service(share(with("ml/d", "iris/other", 4, origins("https://b.test"))));
    stage.publish();
    assert_eq!(stage.endpoint("iris").cors.as_deref(), origins("https://a.test").compile().as_ref());
    let problems = stage.problems();
    assert!(
        problems.len() == 1 && problems[0].starts_with("Service ml/d: scorefront.dev/cors-origins:"),
        "{problems:?}"
    );
    assert!(problems[0].contains("the older Service ml/b says something else"), "{problems:?}");
    // The one that says nothing of origins is the oldest that speaks now.
    stage.service(share(with("ml/a", "iris/silent", 1, Rules { max_age_s: Some(1), ..Rules::default() })));
    stage.publish();
    assert_eq!(stage.endpoint("iris").cors, None);
    assert_eq!(stage.problems().len(), 4, "it has no effect, and three say something else");
}

#[test]
fn rate_limits_are_the_oldest_services_and_what_has_no_effect_is_reported() {
    let mut stage = Stage::default();
    let with = |object, names, created, rates| {
        let facts = mk_service(object, names);
        let settings = Settings { rates, ..facts.settings.clone() };
        DeploymentFacts { created, settings, traffic_percent: Some(0), ..facts }
    };
    let limit = |per_second, burst| Limit { per_second, burst, concurrent: None };
    let rates = Rates { endpoint: limit(Some(5), None), key: limit(None, Some(3)) };
    stage.service(with("ml/a", "iris/blue", 1, rates)).service(with("ml/b", "iris/silent", 2, Rates::default()));
    let other = Rates { key: limit(Some(1), None), ..Rates::default() };
    stage.service(with("ml/c", "iris/other", 3, other));
    stage.publish();
    assert_eq!(stage.endpoint("iris").limiter.rates, rates);
    let meters = stage.endpoint("iris").limiter.meters.clone();
    let problems = stage.problems().join("\n");
    assert!(problems.contains("ml/c: scorefront.dev/rate-limit-per-second: what this Service says"), "{problems}");
    assert!(
        problems.contains("ml/a: scorefront.dev/key-rate-limit-burst: has no effect without key-rate"),
        "{problems}"
    );
    // The oldest goes; the endpoint is open, so limits of keys mean nothing.
    stage.world.put_service(&ObjectRef::new("ml", "a"), None);
    let changes = stage.publish();
    assert!(changes.iter().any(|change| change == "changed endpoint iris: other rate limits"), "{changes:?}");
    assert_eq!(stage.endpoint("iris").limiter.rates, other);
    assert!(stage.problems().join("\n").contains("no effect where neither a key nor a token is asked for"));
    assert!(Arc::ptr_eq(&stage.endpoint("iris").limiter.meters, &meters), "live state outlives the snapshot");
}
