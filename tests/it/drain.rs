//! The way out: what runs is finished, nothing new is lost, and there is an end to waiting.

use std::sync::Arc;
use std::time::Duration;

use scorefront::ops::signal::Request;
use scorefront::testing::client::{Client, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

use crate::downgrade::GOAWAY;
use crate::h2_floods::{Attacker, DATA, END_BOTH, END_STREAM, ask};

async fn held() -> (ScriptedReplica, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica =
        ScriptedReplica::start(move |_| vec![Step::Wait(script.clone()), Step::Send(answer(200, &[], "done"))]).await;
    (replica, permits)
}

const PATIENT: &[(&str, &str)] = &[("max-queue-wait-ms", "60000"), ("request-timeout-ms", "60000")];

#[tokio::test]
async fn new_requests_are_served_for_the_grace_and_connections_discouraged() {
    let replica = ScriptedReplica::start(|_| ok("still here")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| config.drain_grace = Duration::from_secs(60)).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("")).await.header("connection"), None);
    router.signal(Request::Drain).await;
    eventually("readiness fails", async || router.admin("/readyz").await.0 == 503).await;
    let got = client.ask(score("")).await;
    assert_eq!((got.text().as_str(), got.header("connection")), ("still here", Some("close")));
    assert!(client.is_closed().await);
    let mut late = router.client().await;
    assert_eq!(late.ask(score("")).await.status, 200);
    let health = router.client().await.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((health.status, health.error("code").as_str()), (503, "RouterDraining"));
    router.signal(Request::Drain).await;
    assert!(router.end().await.is_err(), "a second signal ends at once, and says so");
}

#[tokio::test]
async fn what_runs_and_what_waits_is_finished_before_the_end() {
    let (replica, permits) = held().await;
    let router = Router::start(&World::new().deployment("blue", PATIENT, &[replica.address])).await;
    let (mut first, mut second, mut idle) = (router.client().await, router.client().await, router.client().await);
    first.send(score("1")).await;
    replica.wait_for(1).await;
    second.send(score("2")).await;
    router.wait_for_queue("blue", 1).await;
    let address = router.address;
    router.signal(Request::Drain).await;
    assert!(idle.is_closed().await);
    eventually("the listener is closed", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    permits.add_permits(2);
    assert_eq!((first.answer().await.status, second.answer().await.status), (200, 200));
    router.drained().await;
}

#[tokio::test]
async fn there_is_an_end_to_finishing() {
    let (replica, _permits) = held().await;
    let world = World::new().deployment("blue", PATIENT, &[replica.address]);
    let router = Router::start_with(&world, |config| config.drain_timeout = Duration::from_millis(50)).await;
    let mut client: Client = router.client().await;
    client.send(score("1")).await;
    replica.wait_for(1).await;
    router.signal(Request::Drain).await;
    assert!(client.is_closed().await);
    router.end().await.unwrap();
}

#[tokio::test]
async fn those_who_still_wait_at_the_end_are_told() {
    let (replica, _permits) = held().await;
    let world = World::new().deployment("blue", PATIENT, &[replica.address]);
    let router = Router::start_with(&world, |config| config.drain_timeout = Duration::from_secs(2)).await;
    let (mut first, mut second) = (router.client().await, router.client().await);
    first.send(score("1")).await;
    replica.wait_for(1).await;
    second.send(score("2")).await;
    router.wait_for_queue("blue", 1).await;
    router.signal(Request::Drain).await;
    let got = second.answer().await;
    assert_eq!((got.status, got.error("code").as_str(), got.header("retry-after")), (503, "RouterDraining", Some("1")));
    router.end().await.unwrap();
}

#[tokio::test]
async fn http2_clients_are_told_to_go_elsewhere_and_finish_what_they_have() {
    let (replica, permits) = held().await;
    let world = World::new().deployment("blue", PATIENT, &[replica.address]);
    let router = Router::start_with(&world, |config| config.drain_grace = Duration::from_secs(60)).await;
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(socket));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post("http://models.test/api/v1/endpoint/iris/score")
        .header("authorization", "Bearer secret-1")
        .body(http_body_util::Full::new(bytes::Bytes::from("x")))
        .unwrap();
    let answer = sender.send_request(request);
    replica.wait_for(1).await;
    router.signal(Request::Drain).await;
    eventually("the client may send no more", async || {
        let health = http::Request::get("http://models.test/").body(http_body_util::Full::default()).unwrap();
        sender.clone().send_request(health).await.is_err()
    })
    .await;
    permits.add_permits(1);
    assert_eq!(answer.await.unwrap().status(), 200);
    driver.await.unwrap().unwrap();
    router.signal(Request::Drain).await;
    let _ = router.end().await;
}

#[tokio::test]
async fn an_idle_http2_client_that_answers_no_ping_does_not_hold_the_drain() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let long = Duration::from_secs(600);
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        (config.drain_timeout, config.limits.body_timeout, config.limits.idle_timeout) = (long, long, long);
        config.limits.goodbye_timeout = Duration::from_millis(50);
    })
    .await;
    // Its window is open from the start, so nothing of the answer waits for it.
    let mut deaf = Attacker::connect(&router, &[]).await;
    deaf.send(&ask(1, END_BOTH)).await;
    while deaf.wait_for(DATA).await.flags & END_STREAM == 0 {}
    router.signal(Request::Drain).await;
    assert_eq!(deaf.wait_for(GOAWAY).await.code(), 0);
    while deaf.hear().await.is_some() {}
    router.drained().await;
}
