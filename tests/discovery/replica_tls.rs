//! The authorities of replicas, from Secrets of a cluster and from the state file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use scorefront::control::check;
use scorefront::control::discovery::{Discovery, Source};
use scorefront::control::state_file::StateFile;
use scorefront::core::facts::Form;
use scorefront::core::replica_tls::{ReplicaTls, Wire};
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_secret, mk_service, mk_slice};
use serde_json::{Value, json};

use crate::harness::{Running, eventually};

fn pem() -> String {
    rcgen::generate_simple_self_signed(["ca.test".to_owned()]).expect("a certificate").cert.pem()
}

fn secret(pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "ca", "namespace": "ml", "labels": {"ml.azure.com/endpoint-name": "shared"}},
        "data": {"ca.crt": ByteString(pem.as_bytes().to_vec())}
    })
}

fn blue() -> [Value; 2] {
    let service = annotated(mk_service("ml/blue", "iris/blue"), "replica-tls-ca-secret", "ca");
    [service, mk_slice("ml/blue-1", "blue", &["10.0.0.1"])]
}

fn cluster(api: &FakeApi) -> Source {
    Source::Cluster(Box::new(api.config()))
}

/// How the deployment is spoken to, once there is one.
fn wire(router: &Running) -> Option<Wire> {
    let snapshot = router.store.load();
    Some(snapshot.find(Form::Endpoint, "iris")?.deployment("blue")?.wire.clone())
}

async fn closes(router: &Running, words: &str) {
    let closed = |wire| matches!(wire, Wire::Closed(why) if why.contains(words));
    eventually(words, || wire(router).filter(|wire| closed(wire.clone()))).await;
}

async fn speaks_tls(router: &Running, not: Option<&Arc<ReplicaTls>>) -> Arc<ReplicaTls> {
    let other = |tls: &Arc<ReplicaTls>| not.is_none_or(|not| !Arc::ptr_eq(tls, not));
    eventually("TLS", || wire(router)?.tls().filter(|tls| other(tls)).cloned()).await
}

#[tokio::test]
async fn a_secret_that_appears_changes_and_disappears_opens_changes_and_closes_the_deployment() {
    let api = FakeApi::start().await;
    api.apply(blue());
    let router = Running::start(vec![cluster(&api)], &[]);
    closes(&router, "there is no Secret ml/ca").await;
    assert!(check::render(&router.store.load(), &[]).contains("1 ready (10.0.0.1:5001), closed\n"));
    router.complains(&["ml/blue", "replica-tls-ca-secret", "there is no Secret ml/ca"]).await;
    api.apply([secret(&pem())]);
    let first = speaks_tls(&router, None).await;
    assert_eq!(&*first.server_name, "blue.ml.svc");
    router.complains_no_more().await;
    let printed = check::render(&router.store.load(), &[]);
    assert!(printed.contains("1 ready (10.0.0.1:5001), TLS for blue.ml.svc\n"), "{printed}");
    api.apply([secret(&format!("{}{}", pem(), pem()))]);
    let second = speaks_tls(&router, Some(&first)).await;
    assert_eq!((first.roots.iter().len(), second.roots.iter().len()), (1, 2));
    // A Secret with keys alone is one like any other.
    api.apply([mk_secret("ml/ca", "shared", "czNjcmV0")]);
    closes(&router, "Secret ml/ca has no ca.crt").await;
    api.apply([secret("broken")]);
    closes(&router, "cannot be used").await;
    router.complains(&["Secret ml/ca", "data[ca.crt]"]).await;
    api.apply([secret(&pem())]);
    speaks_tls(&router, Some(&second)).await;
    api.delete(&secret(""));
    closes(&router, "there is no Secret ml/ca").await;
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
}

fn start(source: Source, folder: &Path) -> Running {
    let file = StateFile { path: folder.join("world"), max_age: Duration::from_secs(3600), key_file: None };
    Running::start_as(Discovery {
        sources: vec![source],
        namespaces: vec![],
        workers: 1,
        router: Default::default(),
        state_file: Some(file),
    })
}

#[tokio::test]
async fn a_restart_without_the_api_server_still_speaks_tls_or_is_still_closed() {
    for (wrong, expected) in [(false, 1), (true, 0)] {
        let (api, folder) = (FakeApi::start().await, tempfile::tempdir().expect("a folder"));
        let [service, slice] = blue();
        let service = if wrong { annotated(service, "replica-tls-server-name", "*.x") } else { service };
        api.apply([service, slice, secret(&pem())]);
        let router = start(cluster(&api), folder.path());
        router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
        let saves = &router.vitals.state_file.saves;
        eventually("the state file is written", || (saves.read() >= 1).then_some(())).await;
        drop(router);
        ["services", "endpointslices", "secrets"].iter().for_each(|kind| api.refuse(kind, Some(503)));
        let router = start(cluster(&api), folder.path());
        router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
        assert!(router.vitals.discovery.restored.lock().is_some());
        match wire(&router).expect("a deployment") {
            Wire::Tls(tls) => assert_eq!((tls.roots.iter().len(), &*tls.server_name), (expected, "blue.ml.svc")),
            Wire::Closed(why) => assert!(wrong && why.contains("not allowed"), "{why}"),
            Wire::Plain => panic!("without TLS"),
        }
    }
}
