//! Failed attempts to score: answered late, then refused, and never at the cost of who has the right key.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use scorefront::control::config::Config;
use scorefront::core::failures::Rules;
use scorefront::ops::signal::Request;
use scorefront::testing::client::{Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

/// So long that whoever is held back is held back for the whole test.
const FOR_EVER: Duration = Duration::from_secs(60);

async fn start(change: impl FnOnce(&mut Config)) -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.failures.free = 2;
        config.limits.failures.delay_max = FOR_EVER;
        change(config);
    })
    .await;
    (replica, router)
}

fn trust(config: &mut Config) {
    config.limits.trusted_proxies = vec![IpAddr::from([127, 0, 0, 1]).into()];
}

fn ask_with(key: &str, client: &str) -> String {
    let (key, client) = (format!("Authorization: Bearer {key}"), format!("X-Forwarded-For: {client}"));
    request("POST", "/api/v1/endpoint/iris/score", &[&key, &client], "[]")
}

/// As if the address had failed so often that its next answer is held back for ever.
fn fail_often(router: &Router, client: &str) {
    let rules = Rules { free: 2, delay_max: FOR_EVER, ..Rules::default() };
    for _ in 0..20 {
        let now = router.vitals.micros(Instant::now());
        router.vitals.auth.failures.note(&rules, client.parse().unwrap(), now);
    }
}

/// A client whose answer is held back.
async fn hold(router: &Router, client: &str) -> Client {
    let before = held(router).await;
    let mut held_back = router.client().await;
    held_back.send(ask_with("guessed", client)).await;
    eventually("the answer is held back", async || held(router).await > before).await;
    held_back
}

async fn held(router: &Router) -> f64 {
    router.metric("scorefront_auth_answers_held").await
}

#[tokio::test]
async fn beyond_what_is_free_an_answer_is_held_back_and_the_log_says_for_how_long() {
    let (replica, router) = start(|config| config.limits.failures.delay_max = Duration::from_millis(150)).await;
    let mut client = router.client().await;
    let began = Instant::now();
    for _ in 0..4 {
        let got = client.ask(ask_with("guessed", "nobody")).await;
        assert_eq!((got.status, got.error("code").as_str(), got.header("retry-after")), (401, "Unauthorized", None));
    }
    assert!(began.elapsed() >= Duration::from_millis(250), "100 ms and 150 ms");
    assert_eq!(router.metric("scorefront_auth_failures_late_total").await, 2.0);
    assert_eq!((held(&router).await, router.metric("scorefront_auth_failure_addresses").await), (0.0, 1.0));
    let lines = router.log(4).await;
    let details: Vec<_> = lines.iter().map(|line| line["ErrorDetail"].as_str().unwrap()).collect();
    assert!(!details[1].contains("late"), "{details:?}");
    assert!(details[2].ends_with("Answered 100 ms late."), "{details:?}");
    assert!(details[3].ends_with("Answered 150 ms late."), "{details:?}");
    assert_eq!(client.ask(score("[]")).await.status, 200, "the connection goes on");
    assert_eq!(replica.seen().len(), 1);
    router.drain().await;
}

#[tokio::test]
async fn a_right_key_is_served_while_others_of_its_address_are_held_back() {
    let (_replica, router) = start(|_| {}).await;
    fail_often(&router, "127.0.0.1");
    let guessing = [hold(&router, "nobody").await, hold(&router, "nobody").await, hold(&router, "nobody").await];
    let mut client = router.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(score("[]")).await.status, 200);
    }
    assert_eq!(held(&router).await, 3.0);
    drop(guessing);
    eventually("who has gone is held back no longer", async || held(&router).await == 0.0).await;
    let lines = router.log(6).await;
    assert_eq!(lines.iter().filter(|line| line["Outcome"] == "unauthorized").count(), 3);
    router.drain().await;
}

#[tokio::test]
async fn an_address_has_a_part_of_the_places_and_is_refused_at_once_beyond_it() {
    let (_replica, router) = start(|config| {
        trust(config);
        config.limits.failures.held_max = 10;
    })
    .await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        fail_often(&router, client);
    }
    let _held = [hold(&router, "192.0.2.1").await, hold(&router, "192.0.2.1").await];
    let mut client = router.client().await;
    let got = client.ask(ask_with("guessed", "192.0.2.1")).await;
    assert_eq!((got.status, got.error("code").as_str()), (429, "TooManyFailedAttempts"));
    // The most: eleven delays, thirty seconds each, and one of the two that are free.
    let wait: u32 = got.header("retry-after").unwrap().parse().unwrap();
    assert!((300..=360).contains(&wait), "{wait}");
    assert!(got.error("message").contains("with right ones it is served"), "{}", got.text());
    let _other = hold(&router, "192.0.2.2").await;
    assert_eq!(client.ask(ask_with("secret-1", "192.0.2.1")).await.status, 200);
    assert_eq!(router.log(2).await[0]["Outcome"], "too_many_failures");
    router.drain().await;
}

#[tokio::test]
async fn no_more_answers_are_held_back_than_may_be_whatever_their_addresses() {
    let (_replica, router) = start(|config| {
        trust(config);
        config.limits.failures.held_max = 2;
    })
    .await;
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        fail_often(&router, client);
    }
    let held_back = [hold(&router, "192.0.2.1").await, hold(&router, "192.0.2.2").await];
    let mut client = router.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(ask_with("guessed", "192.0.2.3")).await.status, 429);
    }
    drop(held_back);
    eventually("the places are free", async || held(&router).await == 0.0).await;
    let _next = hold(&router, "192.0.2.3").await;
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_is_held_back_is_given_when_the_router_finishes() {
    let (_replica, router) = start(|_| {}).await;
    fail_often(&router, "127.0.0.1");
    let mut guessing = hold(&router, "nobody").await;
    router.signal(Request::Drain).await;
    assert_eq!(guessing.answer().await.status, 401);
    router.drained().await;
}

#[tokio::test]
async fn only_wrong_credentials_count_and_for_the_address_that_they_came_from() {
    let (_replica, router) = start(|_| {}).await;
    let addresses = async || router.metric("scorefront_auth_failure_addresses").await;
    let mut client = router.client().await;
    for _ in 0..5 {
        assert_eq!(client.ask(request("POST", "/api/v1/endpoint/iris/score", &[], "[]")).await.status, 401);
        assert_eq!(client.ask(score("[]")).await.status, 200);
    }
    assert_eq!(addresses().await, 0.0, "a request without credentials is a question, not a guess");
    for forged in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(client.ask(ask_with("guessed", forged)).await.status, 401);
    }
    assert_eq!(addresses().await, 1.0, "whoever is not trusted cannot be another address");
    assert_eq!(router.metric("scorefront_auth_failures_late_total").await, 0.0);
    router.drain().await;
}
