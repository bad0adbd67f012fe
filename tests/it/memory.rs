//! Memory is short: what runs is served, new work is told to come back, the health page and operators are answered.

use std::sync::Arc;
use std::time::Duration;

use scorefront::core::memory::{REQUESTS_ALWAYS, Turn};
use scorefront::testing::client::{Answer, Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const ENDLESS: (&str, &str) = ("max-concurrent-requests-per-instance", "0");
const PATIENT: (&str, &str) = ("request-timeout-ms", "60000");

/// A replica that answers requests with the body `hold` only when it is let.
async fn start(
    change: impl FnOnce(&mut scorefront::control::config::Config),
) -> (ScriptedReplica, Router, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let hold = gate.clone();
    let replica = ScriptedReplica::start(move |seen| {
        let wait = if seen.body == b"hold" { vec![Step::Wait(hold.clone())] } else { Vec::new() };
        [wait, ok("fine")].concat()
    })
    .await;
    let world = World::new().deployment("blue", &[ENDLESS, PATIENT], &[replica.address]);
    let router = Router::start_with(&world, change).await;
    (replica, router, gate)
}

/// As many requests as are always let in.
async fn hold(router: &Router, replica: &ScriptedReplica) -> Vec<Client> {
    let before = replica.seen().len();
    let mut held = Vec::new();
    for _ in 0..REQUESTS_ALWAYS {
        let mut client = router.client().await;
        client.send(score("hold")).await;
        held.push(client);
    }
    replica.wait_for(before + held.len()).await;
    held
}

fn make_short(router: &Router) {
    router.vitals.memory.set_limit(1000);
    assert_eq!(router.vitals.memory.observe(1001), Some(Turn::Short));
}

fn assert_told(got: &Answer) {
    assert_eq!((got.status, got.error("code").as_str()), (503, "RouterOverloaded"));
    assert_eq!((got.header("retry-after"), got.header("x-scorefront-limit")), (Some("1"), Some("memory")));
    assert!(got.error("message").contains("max-memory-bytes (1000)"), "{}", got.text());
}

#[tokio::test]
async fn what_runs_is_served_and_new_work_is_told_to_come_back() {
    let (replica, router, gate) = start(|_| {}).await;
    let mut known = router.client().await;
    assert_eq!(known.ask(score("")).await.status, 200);
    let held = hold(&router, &replica).await;
    make_short(&router);
    for mut client in [known, router.client().await] {
        assert_told(&client.ask(score("")).await);
        assert!(client.is_closed().await, "its connection gives back what it holds");
    }
    let seen = replica.seen().len();
    assert_eq!(router.client().await.ask(request("GET", "/", &[], "")).await.status, 200);
    assert_eq!(router.metric("scorefront_memory_short").await, 1.0);
    assert_eq!(router.metric("scorefront_memory_refused_requests_total").await, 2.0);
    let series = "scorefront_limited_requests_total{form=\"endpoint\",endpoint=\"iris\",limit=\"memory\"}";
    assert_eq!(router.metric(series).await, 2.0);
    gate.add_permits(held.len());
    for mut client in held {
        assert_eq!(client.answer().await.status, 200);
    }
    eventually("nothing runs", async || router.metric("scorefront_requests").await == 0.0).await;
    assert_eq!(replica.seen().len(), seen);
    // Turning everything away would not help any more.
    assert_eq!(router.client().await.ask(score("")).await.status, 200);
    assert_eq!(router.vitals.memory.observe(900), Some(Turn::Enough));
    let mut client = router.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(score("")).await.status, 200, "and the connection stays");
    }
    router.drain().await;
}

#[tokio::test]
async fn over_http2_new_work_is_told_too() {
    let (replica, router, gate) = start(|_| {}).await;
    let held = hold(&router, &replica).await;
    make_short(&router);
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(socket),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://models.test/api/v1/endpoint/iris/score")
        .header("authorization", "Bearer secret-1")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(b"[]")))
        .unwrap();
    let got = sender.send_request(request).await.unwrap();
    assert_eq!((got.status().as_u16(), got.headers()["x-scorefront-limit"].as_bytes()), (503, &b"memory"[..]));
    gate.add_permits(held.len());
    for mut client in held {
        assert_eq!(client.answer().await.status, 200);
    }
    router.drain().await;
}

#[tokio::test]
async fn only_so_many_connections_may_come_to_be_told() {
    let (_replica, router, _gate) = start(|config| config.limits.connections_max = 9).await;
    make_short(&router);
    let mut told = router.client().await;
    eventually("it has come", async || router.metric("scorefront_connections").await == 1.0).await;
    assert!(router.client().await.try_answer().await.is_none(), "one is all that may come");
    assert_eq!(router.metric("scorefront_memory_refused_connections_total").await, 1.0);
    assert_eq!(told.ask(request("GET", "/", &[], "")).await.status, 200);
    assert!(told.is_closed().await);
    eventually("there is room for another", async || {
        router.client().await.try_send(request("GET", "/", &[], "")).await
            && router.metric("scorefront_connections").await <= 1.0
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn idle_connections_give_back_what_they_hold() {
    let (_replica, router, _gate) = start(|config| {
        config.limits.idle_timeout = Duration::from_secs(20);
        config.limits.head_timeout = Duration::from_millis(400);
    })
    .await;
    let mut idle = router.client().await;
    assert_eq!(idle.ask(score("")).await.status, 200);
    make_short(&router);
    let began = std::time::Instant::now();
    assert!(idle.is_closed().await);
    assert!(began.elapsed() < Duration::from_secs(20), "before its time");
    router.drain().await;
}
