//! Pages of other origins: preflights, marks on answers, and what happens without rules.

use scorefront::testing::client::request;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

const KEY: &str = "Authorization: Bearer secret-1";
const PATH: &str = "/api/v1/endpoint/iris/score";
const ORIGIN: &str = "Origin: https://app.test";
const ASKS: &str = "Access-Control-Request-Method: POST";
const RULES: &[(&str, &str)] = &[("cors-origins", "https://app.test,https://b.test:8443")];

#[tokio::test]
async fn a_preflight_is_answered_without_credentials_and_without_a_replica() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = Router::start(&World::new().deployment("blue", RULES, &[replica.address])).await;
    let mut client = router.client().await;
    let wants = "Access-Control-Request-Headers: authorization, content-type";
    let got = client.ask(request("OPTIONS", PATH, &[ORIGIN, ASKS, wants], "")).await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (204, Some("https://app.test")));
    assert_eq!(got.header("access-control-allow-methods"), Some("POST"));
    assert!(got.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert_eq!(got.header("access-control-max-age"), Some("600"));
    assert_eq!((got.header("vary"), got.header("content-length")), (Some("origin"), None));
    for refused in [["Origin: https://evil.test", ASKS], [ORIGIN, "Access-Control-Request-Method: DELETE"]] {
        let got = client.ask(request("OPTIONS", PATH, &refused, "")).await;
        assert_eq!(got.status, 204);
        assert!(!got.head.to_lowercase().contains("access-control-"), "{}", got.head);
    }
    // On the same connection, so that nothing of the preflight was left behind.
    assert_eq!(client.ask(request("POST", PATH, &[KEY, ORIGIN], "[]")).await.status, 200);
    assert_eq!(replica.seen().len(), 1);
    let log = router.log(4).await;
    assert_eq!((log[0]["Outcome"].as_str(), log[0]["ResponseCode"].as_u64()), (Some("preflight"), Some(204)));
    assert_eq!(log[1]["ErrorDetail"], "preflight: the origin is not one of cors-origins");
    let series = "scorefront_requests_total{form=\"endpoint\",endpoint=\"iris\",deployment=\"\",status=\"204\",outcome=\"preflight\"}";
    assert!((router.metric(series).await - 3.0).abs() < 0.1);
    router.drain().await;
}

#[tokio::test]
async fn answers_carry_the_rules_of_the_router_and_none_of_the_replica() {
    let replica = ScriptedReplica::start(|_| {
        let said = ["Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true", "Vary: Accept"];
        vec![Step::Send(answer(200, &said, "[1]"))]
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", RULES, &[replica.address])).await;
    let mut client = router.client().await;
    let got = client.ask(request("POST", PATH, &[KEY, ORIGIN], "[]")).await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (200, Some("https://app.test")));
    assert_eq!(got.header("access-control-allow-credentials"), None);
    assert!(got.header("access-control-expose-headers").unwrap().contains("x-ms-request-id"));
    assert!(got.head.to_lowercase().contains("vary: accept") && got.head.to_lowercase().contains("vary: origin"));
    let refused = client.ask(request("POST", PATH, &[ORIGIN], "[]")).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("https://app.test")));
    for headers in [&[KEY, "Origin: https://evil.test"][..], &[KEY]] {
        let got = client.ask(request("POST", PATH, headers, "[]")).await;
        assert_eq!((got.status, got.header("access-control-allow-origin"), got.whole), (200, None, true));
        assert!(got.head.to_lowercase().contains("vary: origin"), "{}", got.head);
    }
    router.drain().await;
}

#[tokio::test]
async fn without_rules_options_needs_credentials_and_the_replica_decides() {
    let replica =
        ScriptedReplica::start(|_| vec![Step::Send(answer(200, &["Access-Control-Allow-Origin: *"], ""))]).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let got = client.ask(request("OPTIONS", PATH, &[ORIGIN, ASKS], "")).await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (401, None));
    let got = client.ask(request("OPTIONS", PATH, &[KEY, ORIGIN, ASKS], "")).await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!((got.header("vary"), replica.seen().len()), (None, 1));
    router.drain().await;
}

#[tokio::test]
async fn an_options_request_that_is_no_preflight_needs_credentials_with_rules_too() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = Router::start(&World::new().deployment("blue", RULES, &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(request("OPTIONS", PATH, &[ORIGIN], "")).await.status, 401);
    assert_eq!(client.ask(request("OPTIONS", PATH, &[ORIGIN, ASKS], "with a body")).await.status, 401);
    assert_eq!(client.ask(request("OPTIONS", PATH, &[KEY, ORIGIN], "")).await.status, 200);
    assert_eq!(replica.seen().len(), 1);
    router.drain().await;
}
