//! Tokens instead of keys: who gets in, and what becomes of it when the key set changes or goes away.

mod issuer;
mod secrets;
mod server;
mod subjects;
mod url;

use std::path::Path;
use std::time::Duration;

use scorefront::control::config::Config;
use scorefront::testing::client::{Answer, request};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

use issuer::Issuer;

/// A router that trusts [`Issuer`] for as long as this, with keys from where `change` says.
async fn start_with(world: &World, stale_max: Duration, change: impl FnOnce(&mut Config)) -> Router {
    Router::start_with(world, move |config| {
        let rules = &mut config.limits.tokens;
        rules.issuer = "https://issuer".to_owned();
        rules.audiences = vec!["scoring".to_owned()];
        rules.endpoint_claim = Some("endpoint".to_owned());
        rules.stale_max = stale_max;
        change(config);
    })
    .await
}

async fn start(world: &World, path: &Path, stale_max: Duration) -> Router {
    start_with(world, stale_max, |config| config.tokens.file = Some(path.to_owned())).await
}

async fn ask(router: &Router, credential: &str) -> Answer {
    let header = format!("Authorization: Bearer {credential}");
    router.client().await.ask(request("POST", "/api/v1/endpoint/iris/score", &[&header], "")).await
}

async fn world() -> (ScriptedReplica, World) {
    let replica = ScriptedReplica::start(|_| ok("in")).await;
    let world = World::new().deployment("blue", &[("auth-mode", "aml_token")], &[replica.address]);
    (replica, world)
}

/// What is wrong with the source of the keys.
async fn problem(router: &Router) -> String {
    let (_, page) = router.admin("/debug/tokens").await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    page["problem"].as_str().unwrap_or_default().to_owned()
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_valid_token_opens_its_endpoint_and_nothing_else_does() {
    let (replica, world) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let issuer = Issuer::new();
    issuer.publish(&path);
    let router = start(&world, folder.path(), DAY).await;
    assert_eq!(ask(&router, &issuer.token("iris", 60)).await.status, 200);
    let expired = issuer.token("iris", -3600);
    for (credential, why) in [
        (expired.as_str(), "the token has expired"),
        (&issuer.token("wine", 60), "for another endpoint"),
        (&Issuer::new().token("iris", 60), "signature is wrong"),
        ("secret-1", "no JSON Web Token"),
    ] {
        let got = ask(&router, credential).await;
        assert_eq!(got.status, 401, "{why}");
        assert!(got.error("message").contains(why), "{}", got.text());
    }
    assert_eq!(replica.seen().len(), 1);
    assert_eq!(replica.seen()[0].header("authorization"), None);
    let log = router.log(5).await;
    assert_eq!((log[0]["AuthType"].as_str(), log[1]["Outcome"].as_str()), (Some("token"), Some("unauthorized")));
    assert!(!log.iter().any(|line| line.to_string().contains(&expired)));
    assert_eq!(router.metric("scorefront_token_keys").await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_renewed_key_set_is_taken_up_and_a_broken_one_is_not() {
    let (_replica, world) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let (old, new) = (Issuer::new(), Issuer::new());
    old.publish(&path);
    let router = start(&world, &path, DAY).await;
    let (old, new_token) = (old.token("iris", 600), new.token("iris", 600));
    assert_eq!((ask(&router, &old).await.status, ask(&router, &new_token).await.status), (200, 401));
    std::fs::write(&path, "{}").unwrap();
    let failures = async || router.metric("scorefront_token_keys_failures_total").await;
    eventually("the broken file is seen", async || failures().await > 0.0).await;
    assert_eq!(ask(&router, &old).await.status, 200);
    new.publish(&path);
    eventually("the new key counts", async || ask(&router, &new_token).await.status == 200).await;
    assert_eq!(ask(&router, &old).await.status, 401);
    assert_eq!(router.metric("scorefront_token_keys_renewals_total").await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn keys_that_never_came_or_are_too_old_let_nobody_in() {
    let (_replica, world) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let issuer = Issuer::new();
    let router = start(&world, &path, Duration::from_millis(1500)).await;
    let token = issuer.token("iris", 600);
    let got = ask(&router, &token).await;
    assert_eq!((got.status, got.error("message").as_str()), (401, "Unauthorized. The router cannot check tokens now."));
    assert!(router.log(1).await[0]["ErrorDetail"].as_str().unwrap().contains("no key set for tokens could be read"));
    issuer.publish(&path);
    eventually("the keys are there", async || ask(&router, &token).await.status == 200).await;
    std::fs::remove_file(&path).unwrap();
    eventually("the keys are too old", async || ask(&router, &token).await.status == 401).await;
    // How many requests it took until then nobody knows, so the line is waited for, not a number of them.
    let says_why =
        |line: &serde_json::Value| line["ErrorDetail"].as_str().is_some_and(|why| why.contains("token-stale-max-ms"));
    eventually("the log says why", async || router.log(1).await.iter().any(says_why)).await;
    router.drain().await;
}

#[tokio::test]
async fn what_a_service_asks_of_the_router_in_vain_is_reported() {
    let annotations = [("auth-mode", "aml_token"), ("max-body-bytes", "200000000")];
    let router = Router::start(&World::new().deployment("blue", &annotations, &[])).await;
    let (_, page) = router.admin("/debug/snapshot").await;
    for told in ["endpoint iris asks for tokens and the router has no keys", "the router's max-body-bytes is 104857600"]
    {
        assert!(page.contains(told), "{told}: {page}");
    }
    router.drain().await;
    let (_replica, world) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let router = start(&world, &folder.path().join("jwks.json"), DAY).await;
    let (_, page) = router.admin("/debug/snapshot").await;
    assert!(!page.contains("no keys to check them with"), "they may come yet: {page}");
    router.drain().await;
}
