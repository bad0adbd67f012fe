//! TLS towards replicas: what is asked for and had, what is not, and what goes on when something changes.

use super::*;
use crate::core::replica_tls::{Asked, Ca, ReplicaTls, Roots, Wire};

fn asking(object: &str, names: &str, secret: Option<&str>, name: Option<&str>) -> DeploymentFacts {
    let mut facts = mk_service(object, names);
    facts.settings.replica_tls =
        Asked { ca_secret: secret.map(Into::into), server_name: name.map(Into::into), is_wrong: false };
    facts
}

fn roots(bytes: &[u8]) -> Ca {
    Ca::Read(Roots::new(bytes.iter().map(|&byte| vec![byte].into()).collect()))
}

impl Stage {
    fn authorities(&mut self, object: &str, endpoint: &str, ca: Ca) -> &mut Self {
        let (namespace, name) = object.split_once('/').unwrap();
        let object = ObjectRef::new(namespace, name);
        let secret = SecretFacts { object: object.clone(), endpoint: Name::new(endpoint), keys: Vec::new(), ca };
        self.world.put_secret(&object, Some(Arc::new(secret)));
        self
    }

    fn tls(&self, endpoint: &str, name: &str) -> Arc<ReplicaTls> {
        match &self.deployment(endpoint, name).wire {
            Wire::Tls(tls) => tls.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn closed(&self, endpoint: &str, name: &str) -> String {
        match &self.deployment(endpoint, name).wire {
            Wire::Closed(why) => why.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn without_the_annotations_there_is_no_tls_and_with_them_there_is_for_the_service_or_the_name_that_is_given() {
    let mut stage = Stage::default();
    stage.authorities("ml/ca", "other", roots(&[1]));
    stage.service(mk_service("ml/a", "iris/plain"));
    stage.service(asking("ml/b", "iris/blue", Some("ca"), None));
    stage.service(asking("ml/c", "iris/green", Some("ca"), Some("models.test")));
    stage.publish();
    assert!(matches!(stage.deployment("iris", "plain").wire, Wire::Plain));
    assert_eq!(
        (&*stage.tls("iris", "blue").server_name, &*stage.tls("iris", "green").server_name),
        ("b.ml.svc", "models.test")
    );
    assert!(stage.problems().iter().all(|problem| !problem.contains("replica-tls")), "{:?}", stage.problems());
}

#[test]
fn what_cannot_be_had_closes_the_deployment_and_says_what_to_do() {
    let mut stage = Stage::default();
    stage.authorities("ml/keys", "iris", Ca::Absent).authorities("ml/broken", "iris", Ca::Broken);
    stage.authorities("elsewhere/ca", "iris", roots(&[1])).authorities("ml/ca", "iris", roots(&[1]));
    let mut wrong = mk_service("ml/wrong", "iris/wrong");
    wrong.settings.replica_tls.is_wrong = true;
    wrong.settings.replica_tls.ca_secret = Some("ca".into());
    stage.service(wrong);
    let long = format!("ml/{}", "s".repeat(64));
    for (object, name, secret, server_name, words) in [
        ("ml/wrong", "wrong", None, None, "has a value that is not allowed"),
        ("ml/a", "keys", Some("keys"), None, "Secret ml/keys has no ca.crt"),
        ("ml/b", "broken", Some("broken"), None, "the ca.crt of Secret ml/broken cannot be used"),
        ("ml/c", "missing", Some("none"), None, "there is no Secret ml/none with the label"),
        ("elsewhere/c", "foreign", Some("ca"), None, ""),
        ("ml/d", "nameless", None, Some("models.test"), "is missing, and replica-tls-server-name alone"),
        (&long, "long", Some("ca"), None, ".ml.svc is no host name"),
    ] {
        if name != "wrong" {
            stage.service(asking(object, &format!("iris/{name}"), secret, server_name));
        }
        stage.publish();
        if object.starts_with("elsewhere/") {
            // Of another namespace: not served at all.
            continue;
        }
        let closed = stage.closed("iris", name);
        assert!(closed.contains(words) && closed.contains("scorefront.dev/replica-tls-"), "{closed}");
        let told = stage.problems();
        let told = told.iter().find(|problem| problem.contains(object) && problem.contains(words));
        assert!(told.is_some_and(|problem| problem.contains("every request to the deployment is refused")), "{told:?}");
    }
}

#[test]
fn a_secret_that_comes_changes_or_goes_is_followed_whosever_label_it_has() {
    let mut stage = Stage::default();
    stage.service(asking("ml/b", "iris/blue", Some("ca"), None)).slice(mk_slice("ml/b-1", "b", &[1]));
    stage.publish();
    stage.closed("iris", "blue");
    stage.authorities("ml/ca", "other", roots(&[1]));
    assert_eq!(stage.publish(), ["changed deployment iris/blue: tls to replicas closed -> for b.ml.svc"]);
    let first = stage.tls("iris", "blue");
    // A change of anything else leaves connections usable.
    stage.slice(mk_slice("ml/b-1", "b", &[1, 2]));
    stage.publish();
    assert!(Arc::ptr_eq(&first, &stage.tls("iris", "blue")));
    let before = stage.deployment("iris", "blue").clone();
    stage.authorities("ml/ca", "third", roots(&[1]));
    assert_eq!(stage.publish(), [""; 0], "the same authorities under another label");
    stage.authorities("ml/ca", "third", roots(&[1, 2]));
    assert_eq!(stage.publish(), ["changed deployment iris/blue: authorities of replicas replaced"]);
    let second = stage.tls("iris", "blue");
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&before.replicas[0], &stage.deployment("iris", "blue").replicas[0]), "replicas stay");
    stage.world.put_secret(&ObjectRef::new("ml", "ca"), None);
    assert_eq!(stage.publish(), ["changed deployment iris/blue: tls to replicas for b.ml.svc -> closed"]);
    stage.service(mk_service("ml/b", "iris/blue"));
    assert_eq!(stage.publish(), ["changed deployment iris/blue: tls to replicas closed -> none"]);
    stage.authorities("ml/ca", "third", roots(&[1]));
    assert_eq!(stage.publish(), [""; 0], "nobody names it any more");
}

#[test]
fn a_secret_that_a_service_names_is_kept_for_the_next_start() {
    let mut stage = Stage::default();
    stage.authorities("ml/ca", "other", roots(&[1])).authorities("ml/stray", "other", roots(&[2]));
    stage.service(asking("ml/b", "iris/blue", Some("ca"), None));
    stage.publish();
    let facts = stage.world.facts();
    assert_eq!(facts.secrets.iter().map(|secret| secret.object.to_string()).collect::<Vec<_>>(), ["ml/ca"]);
    let mut again = Stage { world: World::of(facts), ..Stage::default() };
    again.publish();
    assert_eq!(again.tls("iris", "blue").roots, stage.tls("iris", "blue").roots);
}
