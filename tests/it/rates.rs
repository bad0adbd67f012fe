//! Rate limits: which one was in the way, for whom, and that what was taken is given back.

use std::sync::Arc;

use scorefront::testing::client::{Answer, Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const ENDLESS: (&str, &str) = ("max-concurrent-requests-per-instance", "0");

async fn ask(client: &mut Client, key: &str) -> Answer {
    let key = format!("Authorization: Bearer {key}");
    client.ask(request("POST", "/api/v1/endpoint/iris/score", &[&key], "[]")).await
}

/// How many requests count as under way: of all, and of each key.
fn under_way(router: &Router) -> (u32, Vec<u32>) {
    let snapshot = router.snapshot.load();
    let endpoint = snapshot.find(scorefront::core::facts::Form::Endpoint, "iris").unwrap();
    let keys = endpoint.limiter.keys.iter().map(|meter| meter.under_way()).collect();
    (endpoint.limiter.meters.under_way(), keys)
}

fn series(limit: &str) -> String {
    format!("scorefront_rate_limited_total{{form=\"endpoint\",endpoint=\"iris\",limit=\"{limit}\"}}")
}

#[tokio::test]
async fn over_the_rate_of_the_endpoint_clients_are_told_so_and_when_to_come_back() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let limits = [("rate-limit-per-second", "1"), ("rate-limit-burst", "2")];
    let router = Router::start(&World::new().deployment("blue", &limits, &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(
        client.ask(request("POST", "/api/v1/endpoint/iris/score", &[], "[]")).await.status,
        401,
        "costs nothing"
    );
    // Two at once, and one for each second that passes.
    let mut refused = None;
    for _ in 0..200 {
        let got = ask(&mut client, "secret-1").await;
        if got.status == 429 {
            refused = Some(got);
            break;
        }
        assert_eq!(got.status, 200);
    }
    let refused = refused.expect("hundreds in a second are too many");
    assert_eq!(
        (refused.header("retry-after"), refused.header("x-scorefront-limit")),
        (Some("1"), Some("endpoint-rate"))
    );
    assert_eq!(refused.error("code"), "TooManyRequests");
    assert!(refused.error("message").contains("over rate-limit-per-second (1)"), "{}", refused.text());
    assert!(replica.seen().len() >= 2);
    let log = router.log(replica.seen().len() + 2).await;
    let line = log.last().unwrap();
    assert_eq!((line["Outcome"].as_str(), line["ResponseCode"].as_u64()), (Some("rate_limited"), Some(429)));
    assert!(line["ErrorDetail"].as_str().unwrap().contains("rate-limit-per-second"), "{line}");
    assert!(router.metric(&series("endpoint-rate")).await >= 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_key_over_its_limit_does_not_hinder_the_other_and_stays_over_it_after_a_change() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let replica =
        ScriptedReplica::start(move |_| vec![Step::Wait(waiting.clone()), Step::Send(answer(200, &[], "[1]"))]).await;
    let limits = [ENDLESS, ("key-rate-limit-concurrent", "1")];
    let world = |more: &[(&str, &str)]| {
        let limits: Vec<_> = limits.iter().chain(more).copied().collect();
        World::new().deployment("blue", &limits, &[replica.address])
    };
    let router = Router::start(&world(&[])).await;
    let (mut first, mut second, mut third) = (router.client().await, router.client().await, router.client().await);
    first.send(score("[]")).await;
    replica.wait_for(1).await;
    let refused = ask(&mut second, "secret-1").await;
    assert_eq!((refused.status, refused.header("x-scorefront-limit")), (429, Some("key-concurrency")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    router.change(&world(&[("max-queue-length", "7")])).await;
    assert_eq!(ask(&mut second, "secret-1").await.status, 429, "a change of the world does not set it free");
    third.send(request("POST", "/api/v1/endpoint/iris/score", &["Authorization: Bearer secret-2"], "[]")).await;
    replica.wait_for(2).await;
    gate.add_permits(100);
    assert_eq!((first.answer().await.status, third.answer().await.status), (200, 200));
    assert_eq!(ask(&mut second, "secret-1").await.status, 200);
    assert!((router.metric(&series("key-concurrency")).await - 2.0).abs() < 0.1);
    eventually("nothing counts as under way", async || under_way(&router) == (0, vec![0, 0])).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_place_back() {
    let replica = ScriptedReplica::start(|seen| match seen.body.as_slice() {
        b"stuck" => vec![Step::Wait(Arc::new(Semaphore::new(0)))],
        _ => ok("[1]"),
    })
    .await;
    let limits = [ENDLESS, ("rate-limit-concurrent", "1")];
    let router = Router::start(&World::new().deployment("blue", &limits, &[replica.address])).await;
    let mut gone = router.client().await;
    gone.send(score("stuck")).await;
    replica.wait_for(1).await;
    let mut client = router.client().await;
    let refused = ask(&mut client, "secret-1").await;
    assert_eq!((refused.status, refused.header("x-scorefront-limit")), (429, Some("endpoint-concurrency")));
    drop(gone);
    eventually("the place is free", async || under_way(&router).0 == 0).await;
    assert_eq!(ask(&mut client, "secret-1").await.status, 200);
    eventually("nothing counts as under way", async || under_way(&router).0 == 0).await;
}
