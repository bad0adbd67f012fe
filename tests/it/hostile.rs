//! Clients that break the rules: each is told which, and harms nobody.

use scorefront::testing::client::{request, score};
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use std::time::Duration;

const KEY: &str = "Authorization: Bearer secret-1";
const PATH: &str = "/api/v1/endpoint/iris/score";

async fn start() -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    (replica, router)
}

#[tokio::test]
async fn a_head_over_a_limit_gets_431_with_the_setting() {
    let (replica, router) = start().await;
    let ok_size = format!("x-long: {}", "a".repeat(60 << 10));
    assert_eq!(router.client().await.ask(request("POST", PATH, &[KEY, &ok_size], "")).await.status, 200);
    let many: Vec<String> = (0..200).map(|n| format!("x-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let a_bit_long = format!("x-long: {}", "a".repeat(65 << 10));
    let very_long = format!("x-long: {}", "a".repeat(300 << 10));
    for headers in [&many[..], &[&a_bit_long], &[&very_long]] {
        let mut client = router.client().await;
        client.try_send(request("POST", PATH, headers, "")).await;
        let got = client.answer().await;
        assert_eq!((got.status, got.error("code").as_str()), (431, "RequestHeadTooLarge"));
        assert!(got.error("message").contains("max-head-bytes") && got.error("message").contains("max-headers"));
        assert!(client.is_closed().await);
    }
    let lines = router.log(4).await;
    for line in &lines[1..] {
        assert_eq!((line["ResponseCode"].clone(), line["Outcome"].clone()), (431.into(), "head_too_large".into()));
    }
    assert_eq!(replica.seen().len(), 1);
    router.drain().await;
}

#[tokio::test]
async fn the_number_of_headers_is_the_setting_above_and_below_the_default() {
    for max in [20, 100, 300] {
        let replica = ScriptedReplica::start(|_| ok("[]")).await;
        let world = World::new().deployment("blue", &[], &[replica.address]);
        let router = Router::start_with(&world, |config| config.limits.headers_max = max).await;
        for (headers, status) in [(max, 200), (max + 1, 431)] {
            // Host, Authorization and Content-Length are three of them.
            let others: Vec<String> = (3..headers).map(|n| format!("x-{n}: 1")).collect();
            let lines: Vec<&str> = others.iter().map(String::as_str).chain([KEY]).collect();
            let got = router.client().await.ask(request("POST", PATH, &lines, "[]")).await;
            assert_eq!(got.status, status, "{headers} headers where {max} may be");
        }
        router.drain().await;
    }
}

#[tokio::test]
async fn what_is_not_http_gets_400_with_an_id_that_is_in_the_log() {
    let (replica, router) = start().await;
    for bytes in [
        "GET /\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nbad header: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/9.9\r\nHost: h\r\n\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
    ] {
        let mut client = router.client().await;
        client.send(bytes).await;
        let got = client.answer().await;
        assert_eq!((got.status, got.error("code").as_str()), (400, "MalformedRequest"), "{bytes:?}");
        assert_eq!(got.error("requestId"), got.header("x-request-id").unwrap());
        assert!(client.is_closed().await, "{bytes:?}");
        let lines = router.log(1).await;
        assert!(
            lines.iter().any(|line| line["XRequestId"] == got.error("requestId").as_str())
                || router.log(lines.len() + 1).await.len() > 1
        );
    }
    let lines = router.log(7).await;
    assert!(lines.iter().all(|line| line["Outcome"] == "malformed" && line["ResponseCode"] == 400));
    assert!(replica.seen().is_empty());
    router.drain().await;
}

#[tokio::test]
async fn requests_that_two_servers_read_differently_are_refused() {
    let (replica, router) = start().await;
    for lines in [
        "Host: a\r\nHost: b\r\n",
        "",
        "Host: h\r\nTransfer-Encoding: gzip\r\n",
        "Host: h\r\nTransfer-Encoding: chunked, gzip\r\n",
    ] {
        let mut client = router.client().await;
        client.send(format!("POST {PATH} HTTP/1.1\r\n{KEY}\r\n{lines}\r\n0\r\n\r\n")).await;
        let got = client.answer().await;
        assert_eq!(got.status, 400, "{lines:?} {}", got.head);
        assert!(client.is_closed().await, "{lines:?}");
    }
    assert!(replica.seen().is_empty());
    // Both lengths at once: read as chunked, and passed on with that one alone.
    let mut client = router.client().await;
    let head =
        format!("POST {PATH} HTTP/1.1\r\n{KEY}\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(client.ask(format!("{head}\r\n2\r\nab\r\n0\r\n\r\n")).await.status, 200);
    let seen = replica.wait_for(1).await.remove(0);
    assert_eq!((seen.header("content-length"), seen.body.as_slice()), (None, &b"ab"[..]));
    router.drain().await;
}

#[tokio::test]
async fn a_body_over_the_limit_gets_413() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.body_bytes_max = 1000).await;
    let mut client = router.client().await;
    let got = client.ask(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 1001\r\n\r\n")).await;
    assert_eq!((got.status, got.error("code").as_str()), (413, "RequestBodyTooLarge"));
    assert!(got.error("message").contains("max-body-bytes"));
    let mut client = router.client().await;
    assert!(client.try_send(score(&"x".repeat(2 << 20))).await, "what it still sends is read over");
    assert_eq!((client.answer().await.status, client.is_closed().await), (413, true));
    let mut client = router.client().await;
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    client.try_send(format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000))).await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(router.client().await.ask(score(&"x".repeat(1000))).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_does_not_arrive_gets_408() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.head_timeout = Duration::from_millis(80)).await;
    let mut silent = router.client().await;
    let mut slow = router.client().await;
    slow.send("POST /api").await;
    let got = slow.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (408, "RequestTooSlow"));
    assert!(got.error("message").contains("head-timeout-ms"));
    assert!(slow.is_closed().await);
    assert!(silent.is_closed().await, "who never says anything is closed without a word");
    let mut later = router.client().await;
    assert_eq!(later.ask(score("")).await.status, 200);
    later.send("POST /api").await;
    assert_eq!(later.answer().await.status, 408, "the same holds for the second request of a connection");
    let lines = router.log(3).await;
    assert_eq!(lines.iter().filter(|line| line["Outcome"] == "request_too_slow").count(), 2);
    router.drain().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_gets_408_and_frees_the_slot() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let settings = [("request-timeout-ms", "60000")];
    let world = World::new().deployment("blue", &settings, &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.body_timeout = Duration::from_millis(80)).await;
    let mut client = router.client().await;
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 100\r\n\r\npart")).await;
    let got = client.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (408, "RequestTooSlow"));
    assert!(client.is_closed().await);
    scorefront::testing::eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_over_the_limit_told() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.idle_timeout = Duration::from_millis(100);
        config.limits.head_timeout = Duration::from_secs(2);
        config.limits.connections_max = 2;
        config.limits.goodbye_timeout = Duration::from_secs(60);
    })
    .await;
    let mut one = router.client().await;
    assert_eq!(one.ask(score("")).await.status, 200);
    let _two = router.client().await;
    scorefront::testing::eventually("both are there", async || {
        router.vitals.connections.open.load(std::sync::atomic::Ordering::SeqCst) == 2
    })
    .await;
    let mut told = router.client().await;
    let got = told.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "RouterOverloaded"));
    // Until the one that was told has gone there is no time for another.
    assert!(router.client().await.try_answer().await.is_none());
    assert!(one.is_closed().await);
    assert_eq!(router.metric("scorefront_connections_refused_total").await, 2.0);
    router.drain().await;
}

#[tokio::test]
async fn an_unknown_endpoint_never_becomes_a_label() {
    let (_replica, router) = start().await;
    let mut client = router.client().await;
    for n in 0..50 {
        let path = format!("/api/v1/endpoint/made-up-{n}/score");
        assert_eq!(client.ask(request("POST", &path, &[KEY], "")).await.status, 404);
    }
    let (_, page) = router.admin("/metrics").await;
    assert!(!page.contains("made-up"));
    router.drain().await;
}
