//! A replica that timed out, or whose client left, is not free until it is done.

use std::sync::Arc;

use scorefront::testing::client::{Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const KEY: &str = "Authorization: Bearer secret-1";

const WAIT: &[(&str, &str)] = &[("request-timeout-ms", "500"), ("max-queue-wait-ms", "50")];

/// Stalls on the body `slow` until the test lets it go on; answers everything else at once.
async fn stalling() -> (ScriptedReplica, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |seen| {
        let reply = Step::Send(answer(200, &[], "done"));
        if seen.body == b"slow" { vec![Step::Wait(script.clone()), reply] } else { vec![reply] }
    })
    .await;
    (replica, permits)
}

#[tokio::test]
async fn a_slot_that_timed_out_stays_taken_until_the_replica_answers() {
    let (replica, permits) = stalling().await;
    let router = Router::start(&World::new().deployment("blue", WAIT, &[replica.address])).await;
    let mut client = router.client().await;
    let got = client.ask(score("slow")).await;
    assert_eq!((got.status, got.error("code").as_str()), (504, "RequestTimeout"));
    assert!(got.error("message").contains("request-timeout-ms (500)"));
    assert_eq!(got.header("retry-after"), None);
    assert_eq!(router.taken("blue"), 1);
    assert_eq!(router.deployment("blue").replicas[0].state.abandoned(), 1);
    assert_ne!(client.ask(score("next")).await.status, 200, "the next one must not land in its backlog");
    assert_eq!(replica.seen().len(), 1);

    permits.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    assert_eq!(router.deployment("blue").replicas[0].state.abandoned(), 0);
    assert_eq!(client.ask(score("next")).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn a_slot_whose_replica_never_answers_is_free_after_ten_time_outs() {
    let (replica, _permits) = stalling().await;
    let router = Router::start(&World::new().deployment("blue", WAIT, &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("slow")).await.status, 504);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    eventually("the connection is closed", async || replica.open() == 1).await;
    assert_eq!(client.ask(score("next")).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn on_request_an_abandoned_connection_is_closed_and_its_slot_free_at_once() {
    let (replica, permits) = stalling().await;
    let settings = [WAIT, &[("on-abandon", "close")]].concat();
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("slow")).await.status, 504);
    assert_eq!(router.taken("blue"), 0);
    assert_eq!(client.ask(score("next")).await.status, 200);
    permits.add_permits(1);
    eventually("the first connection is closed", async || replica.open() == 1).await;
    router.drain().await;
}

#[tokio::test]
async fn of_unlimited_slots_only_so_many_wait_for_abandoned_answers() {
    let (replica, permits) = stalling().await;
    let settings =
        [("request-timeout-ms", "300"), ("max-concurrent-requests-per-instance", "0"), ("on-abandon", "wait")];
    let world = World::new().deployment("blue", &settings, &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.abandoned_max = 1).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("slow")).await.status, 504);
    assert_eq!((router.taken("blue"), router.deployment("blue").replicas[0].state.abandoned()), (1, 1));
    // The first is waited for; there is no room for the second, so its connection is closed.
    assert_eq!(client.ask(score("slow")).await.status, 504);
    assert_eq!((router.taken("blue"), router.deployment("blue").replicas[0].state.abandoned()), (1, 1));
    permits.add_permits(2);
    eventually("the first one is done", async || router.taken("blue") == 0).await;
    assert_eq!(client.ask(score("next")).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_no_slot_that_still_works() {
    let (replica, permits) = stalling().await;
    let settings = [("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = router.client().await;
    client.send(score("slow")).await;
    replica.wait_for(1).await;
    drop(client);
    let line = router.log(1).await.remove(0);
    assert_eq!((line["Outcome"].clone(), line["Attempts"].clone()), ("client_gone".into(), 1.into()));
    assert_eq!(router.taken("blue"), 1);
    permits.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_answer_frees_the_slot_when_the_answer_is_over() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_vec();
        vec![Step::Send(head), Step::Wait(script.clone()), Step::Send(b"67890".to_vec())]
    })
    .await;
    let settings = [("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = router.client().await;
    client.send(score("")).await;
    let bytes = client.peek(5).await;
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
    drop(client);
    let line = router.log(1).await.remove(0);
    assert_eq!((line["Outcome"].clone(), line["ResponseCode"].clone()), ("client_gone".into(), 200.into()));
    assert_eq!(router.taken("blue"), 1);
    permits.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

/// A client whose socket takes little unread, and the same socket.
async fn narrow_client(router: &Router) -> (Client, std::net::TcpStream) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let socket = socket.connect(router.address).await.unwrap().into_std().unwrap();
    let same = socket.try_clone().unwrap();
    (Client::over(tokio::net::TcpStream::from_std(socket).unwrap()), same)
}

#[tokio::test]
async fn a_client_that_sends_on_has_the_whole_of_its_last_answer() {
    let permits = Arc::new(Semaphore::new(0));
    let (script, body) = (permits.clone(), "x".repeat(12 << 10));
    let replica = ScriptedReplica::start(move |_| {
        vec![Step::Wait(script.clone()), Step::Send(answer(200, &["Content-Type: text/plain"], &body))]
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let (mut client, _socket) = narrow_client(&router).await;
    client.send(request("POST", "/api/v1/endpoint/iris/score", &[KEY, "Connection: close"], "1")).await;
    replica.wait_for(1).await;
    client.send("\r\n").await;
    permits.add_permits(1);
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    assert_eq!(client.answer().await.text().len(), 12 << 10, "what the router had written was thrown away");
    drop(client);
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_more_is_seen_to_leave() {
    let body = "x".repeat(16 << 20);
    let replica = ScriptedReplica::start(move |_| vec![Step::Send(answer(200, &[], &body))]).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let (mut client, socket) = narrow_client(&router).await;
    client.send(score("1")).await;
    assert!(client.peek(12).await.starts_with(b"HTTP/1.1 200"));
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(router.log(1).await[0]["Outcome"], "client_gone");
    router.drain().await;
}
