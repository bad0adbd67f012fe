//! One endpoint that is slow and flooded: it has its share of what all have in common, and the others are served.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scorefront::control::config::Config;
use scorefront::core::facts::Form;
use scorefront::core::shares::Shares;
use scorefront::testing::client::{Answer, Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const ENDLESS: (&str, &str) = ("max-concurrent-requests-per-instance", "0");
const PATIENT: [(&str, &str); 2] = [("request-timeout-ms", "60000"), ("max-queue-wait-ms", "60000")];

/// Endpoint `iris`, whose replica answers when it is let, and the service `other`, whose replica answers at once.
struct Stage {
    router: Router,
    slow: ScriptedReplica,
    gate: Arc<Semaphore>,
    _quick: ScriptedReplica,
}

impl Stage {
    async fn start(annotations: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let hold = gate.clone();
        let slow = ScriptedReplica::start(move |_| [vec![Step::Wait(hold.clone())], ok("slow")].concat()).await;
        let quick = ScriptedReplica::start(|_| ok("quick")).await;
        let annotations = [&PATIENT[..], annotations].concat();
        let world =
            World::new().deployment("blue", &annotations, &[slow.address]).v1_service("other", &[quick.address]);
        Self { router: Router::start_with(&world, change).await, slow, gate, _quick: quick }
    }

    async fn send(&self, requests: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..requests {
            let mut client = self.router.client().await;
            client.send(score("")).await;
            clients.push(client);
        }
        clients
    }

    async fn ask_other(&self, body: &str) -> Answer {
        self.router.client().await.ask(request("POST", "/api/v1/service/other/score", &[], body)).await
    }

    fn shares(&self, form: Form, name: &str) -> Arc<Shares> {
        self.router.snapshot.load().find(form, name).unwrap().shares.clone()
    }

    async fn limited(&self, limit: &str) -> f64 {
        let labels = format!("{{form=\"endpoint\",endpoint=\"iris\",limit=\"{limit}\"}}");
        self.router.metric(&format!("scorefront_limited_requests_total{labels}")).await
    }

    /// Lets all be answered, and sees that nothing stays counted.
    async fn end(self, held: Vec<Client>) {
        self.gate.add_permits(held.len());
        for mut client in held {
            assert_eq!(client.answer().await.status, 200);
        }
        let vitals = &self.router.vitals;
        for count in [&vitals.requests, &vitals.queued, &vitals.replay.bytes] {
            eventually("all is given back", async || count.load(Ordering::SeqCst) == 0).await;
        }
        let shares = self.shares(Form::Endpoint, "iris");
        for own in [&shares.requests, &shares.queued, &shares.replay] {
            assert_eq!(own.load(Ordering::SeqCst), 0);
        }
        self.router.drain().await;
    }
}

fn assert_limited(got: &Answer, code: &str, limit: &str, setting: &str) {
    assert_eq!((got.status, got.error("code").as_str()), (503, code), "{}", got.text());
    assert_eq!((got.header("retry-after").is_some(), got.header("x-scorefront-limit")), (true, Some(limit)));
    assert!(got.error("message").contains(setting), "{}", got.text());
}

#[tokio::test]
async fn an_endpoint_has_its_share_of_the_requests_under_way() {
    let stage = Stage::start(&[ENDLESS], |config| config.limits.requests_max = 10).await;
    let held = stage.send(8).await;
    stage.slow.wait_for(8).await;
    let got = stage.router.client().await.ask(score("")).await;
    assert_limited(&got, "RouterOverloaded", "requests-share", "max-requests (10, max-share-percent 80)");
    for _ in 0..20 {
        assert_eq!(stage.ask_other("").await.status, 200);
    }
    assert_eq!(stage.limited("requests-share").await, 1.0);
    assert_eq!(stage.router.metric("scorefront_endpoint_requests{form=\"endpoint\",endpoint=\"iris\"}").await, 8.0);
    assert_eq!(stage.slow.seen().len(), 8);
    stage.end(held).await;
}

#[tokio::test]
async fn without_shares_all_may_be_had_by_one_and_whoever_comes_then_is_told() {
    let stage = Stage::start(&[ENDLESS], |config| {
        config.limits.requests_max = 3;
        config.limits.share_percent_max = 100;
    })
    .await;
    let held = stage.send(3).await;
    stage.slow.wait_for(3).await;
    assert_limited(&stage.ask_other("").await, "RouterOverloaded", "requests", "max-requests 3");
    assert_eq!(stage.router.client().await.ask(request("GET", "/", &[], "")).await.status, 200, "that is no scoring");
    stage.end(held).await;
}

#[tokio::test]
async fn an_endpoint_has_its_share_of_the_places_in_line() {
    let stage = Stage::start(&[], |config| config.limits.queued_max = 5).await;
    let mut held = stage.send(1).await;
    stage.slow.wait_for(1).await;
    held.extend(stage.send(4).await);
    stage.router.wait_for_queue("blue", 4).await;
    let got = stage.router.client().await.ask(score("")).await;
    assert_limited(&got, "QueueFull", "queue-share", "max-queued-requests (5, max-share-percent 80)");
    assert_eq!(stage.ask_other("").await.status, 200);
    assert_eq!(stage.limited("queue-share").await, 1.0);
    stage.end(held).await;
}

#[tokio::test]
async fn an_endpoint_has_its_share_of_what_is_kept_of_bodies() {
    let stage = Stage::start(&[], |config| {
        config.limits.replay_bytes_total_max = 10_000;
        config.limits.share_percent_max = 50;
    })
    .await;
    // What is kept while a request waits in line is kept until there is an answer.
    let mut held = stage.send(1).await;
    stage.slow.wait_for(1).await;
    let shares = stage.shares(Form::Endpoint, "iris");
    for (kept, body) in [(4000, 4000), (5000, 1000)] {
        let mut client = stage.router.client().await;
        client.send(score(&"x".repeat(body))).await;
        eventually("it is kept", async || shares.replay.load(Ordering::SeqCst) == kept).await;
        held.push(client);
    }
    // The third is still served, but nothing more of the endpoint's is kept.
    let mut third = stage.router.client().await;
    third.send(score(&"y".repeat(1000))).await;
    held.push(third);
    stage.router.wait_for_queue("blue", 3).await;
    assert_eq!(shares.replay.load(Ordering::SeqCst), 5000);
    assert_eq!(stage.ask_other(&"z".repeat(1000)).await.status, 200);
    let others = stage.shares(Form::Service, "other");
    assert_eq!(others.refused(scorefront::core::shares::Limit::ReplayShare), 0, "the other's was kept");
    stage.end(held).await;
}

#[tokio::test]
async fn however_one_endpoint_is_flooded_the_other_is_never_turned_away() {
    let notes = [("max-queue-length", "10"), ("max-concurrent-requests-per-instance", "2")];
    let stage = Stage::start(&notes, |config| {
        config.limits.requests_max = 20;
        config.limits.queued_max = 12;
        config.limits.replay_bytes_total_max = 4000;
        config.workers = 2;
    })
    .await;
    let (flooded, address) = (Arc::new(std::sync::atomic::AtomicBool::new(true)), stage.router.address);
    let floods: Vec<_> = (0..24)
        .map(|_| {
            let flooded = flooded.clone();
            tokio::spawn(async move {
                let (mut client, mut statuses) = (Client::connect(address).await, Vec::new());
                while flooded.load(Ordering::SeqCst) {
                    let got = client.ask(score(&"x".repeat(200))).await;
                    statuses.push(got.status);
                    if got.header("connection") == Some("close") {
                        client = Client::connect(address).await;
                    }
                    tokio::task::yield_now().await;
                }
                statuses
            })
        })
        .collect();
    eventually("there is a flood", async || {
        stage.limited("requests-share").await + stage.limited("queue-share").await > 20.0
    })
    .await;
    for round in 0..30 {
        let got = stage.ask_other(&"z".repeat(200)).await;
        assert_eq!(got.status, 200, "round {round}: {}", got.text());
        if round % 5 == 0 {
            // Now and then the slow one answers, and room is taken anew.
            stage.gate.add_permits(1);
        }
    }
    assert!(stage.shares(Form::Endpoint, "iris").requests.load(Ordering::SeqCst) > 0, "it was flooded to the end");
    flooded.store(false, Ordering::SeqCst);
    stage.gate.add_permits(10_000);
    let mut seen = Vec::new();
    for flood in floods {
        seen.extend(flood.await.unwrap());
    }
    assert!(seen.contains(&200) && seen.contains(&503));
    assert!(seen.iter().all(|status| matches!(status, 200 | 503)), "{seen:?}");
    let other = stage.shares(Form::Service, "other");
    for limit in scorefront::core::shares::Limit::ALL {
        assert_eq!(other.refused(limit), 0, "{}", limit.label());
    }
    stage.end(Vec::new()).await;
}
