//! Keys for tokens from a Secret of a cluster.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use scorefront::control::config::{Config, Source};
use scorefront::core::facts::ObjectRef;
use scorefront::testing::eventually;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::router::Router;
use serde_json::{Value, json};

use super::issuer::Issuer;
use super::{DAY, ask, problem, start_with, world};

/// A Secret with this text under a name.
fn secret(name: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "keys", "namespace": "azureml"},
        "data": {name: ByteString(text.as_bytes().to_vec())},
    })
}

/// Points a router at that Secret of an API server, and leaves the rest of the world to manifests.
fn watch(api: &FakeApi, folder: &Path) -> impl FnOnce(&mut Config) + use<> {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
    move |config| {
        config.sources.push(Source::Kubernetes);
        config.namespaces = vec!["models".to_owned()];
        config.kubeconfig = Some(kubeconfig);
        config.tokens.secret = Some(ObjectRef::new("azureml", "keys"));
    }
}

async fn age(router: &Router) -> f64 {
    router.metric("scorefront_token_keys_age_seconds").await
}

#[tokio::test]
async fn keys_of_a_secret_are_there_before_the_router_is_ready_and_are_renewed() {
    let (_replica, world) = world().await;
    let (api, folder) = (FakeApi::start().await, tempfile::tempdir().unwrap());
    let (old, new) = (Issuer::new(), Issuer::new());
    api.apply([secret("jwks.json", &old.keys())]);
    let router = start_with(&world, DAY, watch(&api, folder.path())).await;
    let (old, new_token) = (old.token("iris", 600), new.token("iris", 600));
    assert_eq!((ask(&router, &old).await.status, ask(&router, &new_token).await.status), (200, 401));
    api.apply([secret("keys.json", &new.keys())]);
    eventually("the new key counts", async || ask(&router, &new_token).await.status == 200).await;
    assert_eq!(ask(&router, &old).await.status, 401);
    let asked = api.asked();
    let of_secrets: Vec<_> = asked.iter().filter(|asked| asked.contains("/azureml/")).collect();
    assert_eq!(of_secrets, ["/api/v1/namespaces/azureml/secrets?metadata.name=keys"], "nothing else is asked for");
    // They are as young as the last word of the API server.
    eventually("the keys have an age", async || age(&router).await > 0.05).await;
    let before = age(&router).await;
    api.send_bookmark();
    eventually("the keys are young again", async || age(&router).await < before).await;
    assert_eq!(router.metric("scorefront_token_keys_renewals_total").await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_secret_that_is_broken_gone_or_out_of_reach_keeps_the_keys_and_is_reported() {
    let (_replica, world) = world().await;
    let (api, folder) = (FakeApi::start().await, tempfile::tempdir().unwrap());
    let (old, new) = (Issuer::new(), Issuer::new());
    api.apply([secret("jwks.json", &old.keys())]);
    let router = start_with(&world, DAY, watch(&api, folder.path())).await;
    let token = old.token("iris", 600);
    let broken = [
        (secret("jwks.json", "{"), "is no key set"),
        (secret("other.json", &new.keys()), "has neither jwks.json nor keys.json"),
        (secret("jwks.json", r#"{"keys":[]}"#), "has no usable key"),
    ];
    for (object, complaint) in broken {
        api.apply([object]);
        eventually(complaint, async || problem(&router).await.contains(complaint)).await;
        assert_eq!(ask(&router, &token).await.status, 200, "{complaint}");
    }
    api.delete(&secret("jwks.json", ""));
    eventually("it is gone", async || problem(&router).await == "is not there").await;
    api.refuse("secrets", Some(403));
    api.disconnect();
    eventually("it is out of reach", async || problem(&router).await.contains("list and watch on secrets")).await;
    assert_eq!(ask(&router, &token).await.status, 200);
    api.apply([secret("jwks.json", &new.keys())]);
    api.refuse("secrets", None);
    eventually("the new key counts", async || ask(&router, &new.token("iris", 600)).await.status == 200).await;
    eventually("nothing is wrong", async || problem(&router).await.is_empty()).await;
    router.drain().await;
}

#[tokio::test]
async fn a_secret_that_never_was_or_is_gone_for_too_long_lets_nobody_in() {
    let (_replica, world) = world().await;
    let (api, folder) = (FakeApi::start().await, tempfile::tempdir().unwrap());
    let issuer = Issuer::new();
    let router = start_with(&world, Duration::from_millis(1500), watch(&api, folder.path())).await;
    let token = issuer.token("iris", 600);
    assert_eq!(ask(&router, &token).await.status, 401);
    assert!(router.log(1).await[0]["ErrorDetail"].as_str().unwrap().contains("could be read since the start"));
    let object = secret("jwks.json", &issuer.keys());
    let is_open = async || {
        // The API server says that nothing has changed, again and again.
        api.send_bookmark();
        ask(&router, &token).await.status == 200
    };
    for _ in 0..2 {
        api.apply([object.clone()]);
        eventually("the keys are there", &is_open).await;
        api.delete(&object);
        eventually("the keys are too old", async || !is_open().await).await;
        let says_why =
            |line: &Value| line["ErrorDetail"].as_str().is_some_and(|why| why.contains("token-stale-max-ms"));
        eventually("the log says why", async || router.log(1).await.iter().any(says_why)).await;
    }
    router.drain().await;
}
