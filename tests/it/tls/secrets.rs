//! Certificates from Secrets of a cluster.

use k8s_openapi::ByteString;
use scorefront::control::config::{Config, Source};
use scorefront::core::facts::ObjectRef;
use scorefront::testing::client::{Client, request};
use scorefront::testing::eventually;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use serde_json::{Value, json};

use super::peer::{Authority, ECDSA, Issued, RSA, connect, shown, start};

/// A Secret with these two entries.
fn secret(name: &str, names: [&str; 2], chain: &str, key: &str) -> Value {
    let [chain, key] = [chain, key].map(|text| json!(ByteString(text.as_bytes().to_vec())));
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": "azureml"},
        "data": {names[0]: chain, names[1]: key},
    })
}

fn as_kubernetes(name: &str, issued: &Issued) -> Value {
    secret(name, ["tls.crt", "tls.key"], &issued.chain, &issued.key)
}

fn as_azure(name: &str, issued: &Issued) -> Value {
    secret(name, ["cert.pem", "key.pem"], &issued.chain, &issued.key)
}

/// Points a router at this API server and these Secrets.
fn watch<'a>(api: &FakeApi, authority: &Authority, secrets: &'a [&'a str]) -> impl FnOnce(&mut Config) + 'a {
    let kubeconfig = authority.path("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
    move |config| {
        config.sources = vec![Source::Kubernetes];
        config.namespaces = vec!["models".to_owned()];
        config.kubeconfig = Some(kubeconfig);
        config.tls.secrets = secrets.iter().map(|name| ObjectRef::new("azureml", name)).collect();
    }
}

async fn sees(router: &Router, authority: &Authority, name: &str, expected: &Issued) {
    eventually("the certificate is shown", async || {
        let stream = connect(router.tls(), name, authority.plain_client()).await.unwrap();
        shown(&stream) == expected.der.as_ref()
    })
    .await;
}

async fn problem(router: &Router) -> String {
    let (_, page) = router.admin("/debug/certificates").await;
    assert!(!page.contains("PRIVATE"), "{page}");
    serde_json::from_str::<Value>(&page).unwrap()[0]["problem"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn secrets_of_both_forms_are_shown_by_name_and_renewed_under_running_connections() {
    let (api, authority) = (FakeApi::start().await, Authority::new());
    let (first, other) = (authority.issue(&["models.test"], ECDSA), authority.issue(&["other.test"], RSA));
    api.apply([as_azure("tls", &first), as_kubernetes("other", &other)]);
    let router = start(&World::new(), &[], watch(&api, &authority, &["tls", "other"])).await;
    sees(&router, &authority, "models.test", &first).await;
    sees(&router, &authority, "other.test", &other).await;
    let mut old = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
    assert_eq!(old.ask(request("GET", "/", &[], "")).await.status, 200);
    let second = authority.issue(&["models.test"], ECDSA);
    api.apply([as_kubernetes("tls", &second)]);
    sees(&router, &authority, "models.test", &second).await;
    assert_eq!(old.ask(request("GET", "/", &[], "")).await.status, 200);
    let asked = api.asked();
    let of_secrets: Vec<_> = asked.iter().filter(|asked| asked.contains("/azureml/")).collect();
    let expected = ["other", "tls"].map(|name| format!("/api/v1/namespaces/azureml/secrets?metadata.name={name}"));
    assert_eq!(of_secrets, expected.iter().collect::<Vec<_>>(), "nothing but these two is asked for");
    router.drain().await;
}

#[tokio::test]
async fn what_is_broken_gone_or_out_of_reach_changes_nothing_and_is_reported() {
    let (api, authority) = (FakeApi::start().await, Authority::new());
    let (first, second) = (authority.issue(&["models.test"], ECDSA), authority.issue(&["models.test"], ECDSA));
    api.apply([as_kubernetes("tls", &first)]);
    let router = start(&World::new(), &[], watch(&api, &authority, &["tls"])).await;
    for (broken, complaint) in [
        (secret("tls", ["tls.crt", "tls.key"], &second.chain, &first.key), "does not belong"),
        (secret("tls", ["tls.crt", "other"], &second.chain, &second.key), "neither tls.crt and tls.key nor"),
        (secret("tls", ["cert.pem", "key.pem"], "no", &second.key), "holds no certificate"),
    ] {
        api.apply([broken]);
        eventually(complaint, async || problem(&router).await.contains(complaint)).await;
        sees(&router, &authority, "models.test", &first).await;
    }
    api.delete(&as_kubernetes("tls", &first));
    eventually("it is gone", async || problem(&router).await == "there is no such Secret").await;
    api.refuse("secrets", Some(403));
    eventually("it is out of reach", async || problem(&router).await.contains("list and watch on secrets")).await;
    sees(&router, &authority, "models.test", &first).await;
    api.apply([as_kubernetes("tls", &second)]);
    api.refuse("secrets", None);
    sees(&router, &authority, "models.test", &second).await;
    eventually("nothing is wrong", async || problem(&router).await.is_empty()).await;
    router.drain().await;
}

#[tokio::test]
async fn readiness_waits_for_the_first_certificate() {
    let (api, authority) = (FakeApi::start().await, Authority::new());
    let issued = authority.issue(&["models.test"], ECDSA);
    let change = watch(&api, &authority, &["tls", "missing"]);
    let world = World::new();
    let mut waiting = std::pin::pin!(start(&world, &[], change));
    let looked_for = async {
        eventually("both were looked for", async || api.watches("secrets") >= 3).await;
        api.apply([as_kubernetes("tls", &issued)]);
    };
    tokio::select! {
        biased;
        _ = waiting.as_mut() => panic!("it is ready without a certificate"),
        () = looked_for => {}
    }
    let router = waiting.await;
    sees(&router, &authority, "models.test", &issued).await;
    router.drain().await;
}
