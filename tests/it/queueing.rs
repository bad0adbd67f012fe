//! Waiting for a slot: order, limits, and every way in which a wait can end.

use std::sync::Arc;

use scorefront::testing::client::{Answer, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

/// A replica that answers each request once the test lets it.
async fn held() -> (ScriptedReplica, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        vec![Step::Wait(script.clone()), Step::Send(answer(200, &[], &body))]
    })
    .await;
    (replica, permits)
}

const PATIENT: &[(&str, &str)] = &[("max-queue-wait-ms", "60000"), ("request-timeout-ms", "60000")];

async fn ask_in_background(router: &Router, body: &str) -> tokio::task::JoinHandle<Answer> {
    let (mut client, text) = (router.client().await, score(body));
    tokio::spawn(async move { client.ask(text).await })
}

#[tokio::test]
async fn requests_wait_in_order_of_arrival_and_learn_how_long() {
    let (replica, permits) = held().await;
    let router = Router::start(&World::new().deployment("blue", PATIENT, &[replica.address])).await;
    let mut asked = Vec::new();
    for n in 0..4 {
        asked.push(ask_in_background(&router, &n.to_string()).await);
        if n == 0 {
            replica.wait_for(1).await;
        } else {
            router.wait_for_queue("blue", n).await;
        }
    }
    assert_eq!(
        router.metric("scorefront_queued_requests{form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\"}").await,
        3.0
    );
    permits.add_permits(4);
    for (n, task) in asked.into_iter().enumerate() {
        let got = task.await.unwrap();
        assert_eq!((got.status, got.text()), (200, n.to_string()));
        let timing = got.header("server-timing").unwrap();
        assert_eq!(timing.starts_with("queue;dur=0.000"), n == 0, "{timing}");
    }
    let order: Vec<String> = replica.seen().iter().map(|s| String::from_utf8_lossy(&s.body).into_owned()).collect();
    assert_eq!(order, ["0", "1", "2", "3"]);
    let lines = router.log(4).await;
    let positions: Vec<_> = lines.iter().map(|line| line["QueuePosition"].clone()).collect();
    assert_eq!(positions, [serde_json::Value::Null, 0.into(), 1.into(), 2.into()]);
    router.drain().await;
}

#[tokio::test]
async fn a_full_queue_turns_away_at_once_and_says_which_limit_it_was() {
    let (replica, permits) = held().await;
    let settings = [PATIENT, &[("max-queue-length", "1")]].concat();
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(1).await;
    let second = ask_in_background(&router, "2").await;
    router.wait_for_queue("blue", 1).await;
    let got = router.client().await.ask(score("3")).await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "QueueFull"));
    assert!(got.error("message").starts_with("Too many requests for service iris (overloaded)"));
    assert!(got.error("message").contains("max-queue-length"));
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(got.header("azureml-model-deployment"), Some("blue"));
    permits.add_permits(2);
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (200, 200));
    router.drain().await;
}

#[tokio::test]
async fn a_wait_ends_after_the_longest_wait() {
    let (replica, permits) = held().await;
    let settings = [("max-queue-wait-ms", "30"), ("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(1).await;
    let got = router.client().await.ask(score("2")).await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "QueueWaitExceeded"));
    assert!(got.error("message").contains("max-queue-wait-ms"));
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    let line = router.log(2).await.remove(0);
    assert_eq!(line["Outcome"], "queue_timeout");
    assert!(line["QueueDurationMs"].as_f64().unwrap() >= 30.0);
    router.drain().await;
}

#[tokio::test]
async fn a_wait_ends_at_the_deadline_of_the_request() {
    let (replica, permits) = held().await;
    let settings = [("max-queue-wait-ms", "60000"), ("request-timeout-ms", "40"), ("on-abandon", "wait")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = router.client().await;
    let first = client.ask(score("1")).await;
    let second = client.ask(score("2")).await;
    assert_eq!((first.status, second.status), (504, 504));
    assert!(second.error("message").contains("no slot became free"));
    assert_eq!(replica.seen().len(), 1);
    permits.add_permits(1);
    eventually("the slot is free again", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_leaves_no_trace() {
    let (replica, permits) = held().await;
    let router = Router::start(&World::new().deployment("blue", PATIENT, &[replica.address])).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(1).await;
    let mut gone = router.client().await;
    gone.send(score("gone")).await;
    router.wait_for_queue("blue", 1).await;
    let third = ask_in_background(&router, "3").await;
    router.wait_for_queue("blue", 2).await;
    drop(gone);
    router.wait_for_queue("blue", 1).await;
    permits.add_permits(2);
    assert_eq!((first.await.unwrap().text(), third.await.unwrap().text()), ("1".to_owned(), "3".to_owned()));
    assert_eq!(replica.seen().len(), 2, "nothing of the one that left reached the replica");
    let lines = router.log(3).await;
    assert_eq!((lines[0]["Outcome"].clone(), lines[0]["ResponseCode"].clone()), ("client_gone".into(), 499.into()));
    router.drain().await;
}

#[tokio::test]
async fn a_new_replica_and_a_raised_limit_wake_those_who_wait() {
    let (replica, permits) = held().await;
    let world = World::new().deployment("blue", PATIENT, &[replica.address]);
    let router = Router::start(&world).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(1).await;
    let second = ask_in_background(&router, "2").await;
    router.wait_for_queue("blue", 1).await;
    let other = ScriptedReplica::start(|_| ok("other")).await;
    router.change(&World::new().deployment("blue", PATIENT, &[replica.address, other.address])).await;
    assert_eq!(second.await.unwrap().text(), "other");

    router.change(&world).await;
    let third = ask_in_background(&router, "3").await;
    router.wait_for_queue("blue", 1).await;
    let raised = [PATIENT, &[("max-concurrent-requests-per-instance", "2")]].concat();
    router.change(&World::new().deployment("blue", &raised, &[replica.address])).await;
    replica.wait_for(2).await;
    permits.add_permits(2);
    assert_eq!((first.await.unwrap().text(), third.await.unwrap().text()), ("1".to_owned(), "3".to_owned()));
    router.drain().await;
}

#[tokio::test]
async fn without_a_ready_replica_a_request_waits_for_one_and_is_told_if_none_comes() {
    let settings = [("max-queue-wait-ms", "30")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[])).await;
    let got = router.client().await.ask(score("1")).await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "NoReadyReplica"));
    assert!(got.error("message").starts_with("No ready replicas for service iris."));
    assert!(got.header("retry-after").is_some());

    router.change(&World::new().deployment("blue", PATIENT, &[])).await;
    let waiting = ask_in_background(&router, "2").await;
    router.wait_for_queue("blue", 1).await;
    let replica = ScriptedReplica::start(|_| ok("ready")).await;
    router.change(&World::new().deployment("blue", PATIENT, &[replica.address])).await;
    assert_eq!(waiting.await.unwrap().text(), "ready");
    router.drain().await;
}

#[tokio::test]
async fn those_who_wait_for_a_removed_deployment_are_told() {
    let (replica, permits) = held().await;
    let router = Router::start(&World::new().deployment("blue", PATIENT, &[replica.address])).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(1).await;
    let second = ask_in_background(&router, "2").await;
    router.wait_for_queue("blue", 1).await;
    router.change(&World::new()).await;
    assert_eq!(second.await.unwrap().status, 503);
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200, "what runs is finished");
    router.drain().await;
}

#[tokio::test]
async fn switched_off_limits_and_queues_are_switched_off() {
    let (replica, permits) = held().await;
    let unlimited = [("max-concurrent-requests-per-instance", "0"), ("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &unlimited, &[replica.address])).await;
    let mut asked = Vec::new();
    for n in 0..20 {
        asked.push(ask_in_background(&router, &n.to_string()).await);
    }
    replica.wait_for(20).await;
    permits.add_permits(20);
    for task in asked {
        assert_eq!(task.await.unwrap().status, 200);
    }
    let never = [("max-queue-wait-ms", "0"), ("request-timeout-ms", "60000")];
    router.change(&World::new().deployment("blue", &never, &[replica.address])).await;
    let first = ask_in_background(&router, "1").await;
    replica.wait_for(21).await;
    let path = "/api/v1/endpoint/iris/score";
    let got = router.client().await.ask(request("POST", path, &["Authorization: Bearer secret-1"], "")).await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "QueueFull"));
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    router.drain().await;
}
