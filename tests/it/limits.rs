//! Limits that one client, one request or one deployment could reach: who is over one is told which, and nobody else
//! notices.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scorefront::testing::client::score;
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const HEAD: &str = "POST /api/v1/endpoint/iris/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-1\r\n";

#[tokio::test]
async fn a_deployment_has_its_own_limit_on_bodies_and_the_smaller_one_counts() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    for (router_max, own_max, whose) in
        [(1 << 20, "2000", "scorefront.dev/max-body-bytes (2000)"), (2000, "1048576", "over max-body-bytes (2000)")]
    {
        let world = World::new().deployment("blue", &[("max-body-bytes", own_max)], &[replica.address]);
        let router = Router::start_with(&world, |config| config.limits.body_bytes_max = router_max).await;
        assert_eq!(router.client().await.ask(score(&"x".repeat(2000))).await.status, 200);
        let before = replica.seen().len();
        // Not a byte of the body was sent: it is refused by its length.
        let mut client = router.client().await;
        let got = client.ask(format!("{HEAD}Content-Length: 2001\r\n\r\n")).await;
        assert_eq!((got.status, got.error("code").as_str()), (413, "RequestBodyTooLarge"));
        assert!(got.error("message").contains(whose), "{}", got.text());
        assert_eq!(replica.seen().len(), before, "it went to no replica");
        // Without a length it is cut off on the way.
        let mut client = router.client().await;
        client.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
        client.try_send(format!("7d1\r\n{}\r\n", "x".repeat(2001))).await;
        assert_eq!((client.answer().await.status, client.is_closed().await), (413, true));
        assert_eq!(replica.seen().iter().filter(|seen| seen.body.len() > 2000).count(), 0);
        router.drain().await;
    }
}

/// How many answers of the replica were refused for this.
async fn refused(router: &Router, reason: &str) -> f64 {
    let labels = format!("form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\",reason=\"{reason}\"");
    router.metric(&format!("scorefront_answers_refused_total{{{labels}}}")).await
}

#[tokio::test]
async fn answers_that_no_client_may_have_are_counted_by_what_is_wrong_with_them() {
    let heads = [
        ("malformed", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
        ("transfer_coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("upgrade", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tea\r\n\r\n"),
    ];
    for (reason, head) in heads {
        let replica = ScriptedReplica::start(|_| vec![Step::Send(head.into())]).await;
        let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
        assert_eq!(router.client().await.ask(score("")).await.status, 502, "{reason}");
        assert_eq!(refused(&router, reason).await, 1.0, "{reason}");
        let (_, page) = router.admin("/metrics").await;
        let series = page.lines().filter(|line| line.starts_with("scorefront_answers_refused_total")).count();
        assert_eq!(series, 1, "{reason}");
        router.drain().await;
    }
}

#[tokio::test]
async fn an_answer_with_too_large_a_head_is_a_502_that_names_the_setting() {
    let replica = ScriptedReplica::start(|_| {
        let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(20_000));
        vec![Step::Send(long.into_bytes())]
    })
    .await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    for (max, status) in [(10_000, 502), (30_000, 200)] {
        let router = Router::start_with(&world, |config| config.limits.answer_head_bytes_max = max).await;
        let got = router.client().await.ask(score("")).await;
        assert_eq!(got.status, status, "{}", got.head);
        if status == 502 {
            assert_eq!(got.error("code"), "ReplicaClosedConnection");
            assert!(got.error("message").contains("max-answer-head-bytes"), "{}", got.text());
            assert_eq!(refused(&router, "too_large").await, 1.0);
        }
        router.drain().await;
    }
}

#[tokio::test]
async fn when_nothing_more_can_be_kept_requests_are_forwarded_all_the_same() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let world = World::new().deployment("blue", &[("max-concurrent-requests-per-instance", "2")], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.replay_bytes_total_max = 5000;
        config.limits.share_percent_max = 100;
    })
    .await;
    let kept = || router.vitals.replay.bytes.load(Ordering::SeqCst);
    // Nothing is kept of what goes out on a new connection, because that is not sent again. So there must be used ones.
    let mut clients = [router.client().await, router.client().await];
    for client in &mut clients {
        client.send(format!("{HEAD}Content-Length: 2\r\n\r\n1")).await;
    }
    eventually("both have a connection of their own", async || replica.connections() == 2).await;
    for client in &mut clients {
        assert_eq!((kept(), client.ask("2").await.status), (0, 200));
    }
    let seen = replica.seen().len();
    let mut first = router.client().await;
    first.send(format!("{HEAD}Content-Length: 5000\r\n\r\n{}", "x".repeat(4999))).await;
    eventually("what came is kept", async || kept() == 4999).await;
    let got = router.client().await.ask(score(&"y".repeat(100))).await;
    assert_eq!((got.status, router.metric("scorefront_replay_went_without_total").await), (200, 1.0));
    assert_eq!(replica.seen()[seen].body, "y".repeat(100).into_bytes());
    assert_eq!(kept(), 4999, "nothing of the second is kept");
    assert_eq!(first.ask("x").await.status, 200);
    eventually("it is given back", async || kept() == 0).await;
    assert_eq!(router.client().await.ask(score("z")).await.status, 200);
    assert_eq!(router.metric("scorefront_replay_went_without_total").await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn requests_in_line_are_limited_over_all_deployments() {
    let gate = Arc::new(Semaphore::new(0));
    let hold = gate.clone();
    let replica = ScriptedReplica::start(move |_| [vec![Step::Wait(hold.clone())], ok("fine")].concat()).await;
    let notes = [("max-queue-wait-ms", "60000"), ("request-timeout-ms", "60000")];
    let world = World::new().deployment("blue", &notes, &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.queued_max = 1).await;
    let mut served = router.client().await;
    served.send(score("")).await;
    replica.wait_for(1).await;
    let mut waits = router.client().await;
    waits.send(score("")).await;
    router.wait_for_queue("blue", 1).await;
    let got = router.client().await.ask(score("")).await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "QueueFull"));
    assert!(got.error("message").contains("max-queued-requests 1"), "{}", got.text());
    assert_eq!(router.metric("scorefront_waiting_requests").await, 1.0);
    assert_eq!(router.metric("scorefront_waiting_requests_refused_total").await, 1.0);
    gate.add_permits(2);
    assert_eq!((served.answer().await.status, waits.answer().await.status), (200, 200));
    eventually("nobody is counted", async || router.vitals.queued.load(Ordering::SeqCst) == 0).await;
    router.drain().await;
}
