//! Ports without TLS that send everybody to the one with.

use scorefront::control::config::Config;
use scorefront::testing::client::{Client, request, score};

use super::echo;
use super::peer::{Authority, ECDSA, connect, start};

fn redirect(config: &mut Config) {
    config.limits.https_port = Some(443);
}

#[tokio::test]
async fn requests_without_tls_are_sent_to_https_and_health_is_answered() {
    let (replica, world) = echo().await;
    let authority = Authority::new();
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], redirect).await;
    let mut client = router.client().await;
    let got = client.ask(request("POST", "/api/v1/endpoint/iris/score?a=1", &[], "x")).await;
    let expected = "https://models.test/api/v1/endpoint/iris/score?a=1";
    assert_eq!((got.status, got.header("location")), (308, Some(expected)));
    assert_eq!(got.error("code"), "HttpsRequired");
    assert_eq!(
        client.ask(request("GET", "/nowhere", &[], "")).await.header("location"),
        Some("https://models.test/nowhere")
    );
    assert_eq!(client.ask(request("GET", "/", &[], "")).await.status, 200);
    assert!(replica.seen().is_empty());
    let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    assert_eq!(Client::over(stream).ask(score("x")).await.status, 200);
    let log = router.log(4).await;
    assert_eq!((&log[0]["Outcome"], &log[0]["ResponseCode"]), (&"redirected".into(), &308.into()));
    router.drain().await;
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_that_it_was_https() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let own = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let forwarded = ["Authorization: Bearer secret-1", "X-Forwarded-Proto: https"];
    let forwarded = request("POST", "/api/v1/endpoint/iris/score", &forwarded, "x");
    let router = start(&world, std::slice::from_ref(&own), redirect).await;
    assert_eq!(router.client().await.ask(&forwarded).await.status, 308);
    router.drain().await;
    let trusting = |config: &mut Config| {
        redirect(config);
        config.limits.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let router = start(&world, &[own], trusting).await;
    assert_eq!(router.client().await.ask(&forwarded).await.status, 200);
    assert_eq!(router.client().await.ask(score("x")).await.status, 308);
    router.drain().await;
}
