//! Connections that had as many requests as they may have: they end in order, and no request is lost.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::testing::client::{request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use scorefront::testing::{PATIENCE, eventually};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::downgrade::{HEADERS, RESET};
use crate::h2_floods::{Attacker, END_BOTH, ask};

const ENDLESS: (&str, &str) = ("max-concurrent-requests-per-instance", "0");

async fn start(replica: &ScriptedReplica, max: u64) -> Router {
    let world = World::new().deployment("blue", &[ENDLESS], &[replica.address]);
    Router::start_with(&world, |config| config.limits.requests_per_connection_max = max).await
}

async fn used_up(router: &Router) -> f64 {
    router.metric("scorefront_connections_used_up_total").await
}

/// A connection with HTTP/2, and its end.
async fn connect(router: &Router) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let socket = TcpStream::connect(router.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn scoring(body: &str) -> http::Request<Full<Bytes>> {
    http::Request::post("http://models.test/api/v1/endpoint/iris/score")
        .header("authorization", "Bearer secret-1")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

#[tokio::test]
async fn the_last_answer_says_that_the_connection_ends_and_it_does() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = start(&replica, 3).await;
    for connections in 1..=2 {
        let mut client = router.client().await;
        for n in 1..=3 {
            // What is refused counts too.
            let asked = if n == 2 { request("GET", "/nowhere", &[], "") } else { score("[]") };
            let got = client.ask(asked).await;
            assert_eq!(got.header("connection"), (n == 3).then_some("close"), "{n}: {}", got.head);
        }
        assert!(client.is_closed().await);
        assert_eq!(used_up(&router).await, f64::from(connections));
    }
    router.drain().await;
}

#[tokio::test]
async fn what_was_sent_behind_the_last_request_is_not_begun() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = start(&replica, 2).await;
    let mut client = router.client().await;
    client.send([score("1"), score("2"), score("3")].concat()).await;
    assert_eq!((client.answer().await.status, client.answer().await.status), (200, 200));
    assert!(client.try_answer().await.is_none());
    assert_eq!(replica.seen().len(), 2, "the client knows which, and may send it again");
    router.drain().await;
}

#[tokio::test]
async fn an_upgrade_may_be_the_last_request_and_goes_on() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    let replica = ScriptedReplica::start(move |_| vec![Step::Send(head.into()), Step::Echo]).await;
    let router = start(&replica, 1).await;
    let mut client = router.client().await;
    let headers = ["Authorization: Bearer secret-1", "Connection: Upgrade", "Upgrade: websocket"];
    let got = client.ask(request("GET", "/api/v1/endpoint/iris/score", &headers, "")).await;
    assert_eq!((got.status, got.header("connection")), (101, Some("upgrade")));
    assert_eq!(client.peek(5).await, b"hello");
    client.send("again").await;
    assert_eq!(client.peek(10).await, b"helloagain");
    drop(client);
    router.drain().await;
}

#[tokio::test]
async fn with_http2_the_client_is_told_to_leave_and_what_is_under_way_is_finished() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let replica =
        ScriptedReplica::start(move |_| vec![Step::Wait(waiting.clone()), Step::Send(answer(200, &[], "[1]"))]).await;
    let router = start(&replica, 3).await;
    let (mut sender, connection) = connect(&router).await;
    let mut answers = Vec::new();
    for body in ["1", "2", "3"] {
        sender.ready().await.unwrap();
        answers.push(tokio::spawn(sender.send_request(scoring(body))));
        replica.wait_for(answers.len()).await;
    }
    assert_eq!(used_up(&router).await, 1.0);
    gate.add_permits(100);
    for answer in answers {
        let got = timeout(PATIENCE, answer).await.expect("an answer in time").unwrap().expect("it is served");
        assert_eq!(got.status(), 200);
        assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), "[1]");
    }
    // Not for want of a client that would go on.
    timeout(PATIENCE, connection).await.expect("the connection ends").unwrap().expect("it ends in order");
    assert!(sender.is_closed());
    router.drain().await;
}

#[tokio::test]
async fn with_http2_no_request_is_lost_over_many_connections() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = start(&replica, 5).await;
    let mut connections = 1;
    let (mut sender, _) = connect(&router).await;
    for n in 0..100 {
        // As clients do: on the connection there is, or on a new one where that takes no more.
        let mut tried = timeout(PATIENCE, sender.send_request(scoring("[]"))).await.expect("an answer in time");
        if tried.is_err() {
            connections += 1;
            sender = connect(&router).await.0;
            tried = timeout(PATIENCE, sender.send_request(scoring("[]"))).await.expect("an answer in time");
        }
        assert_eq!(tried.unwrap_or_else(|error| panic!("request {n} is lost: {error:?}")).status(), 200);
    }
    assert!(connections >= 10, "{connections}");
    assert_eq!(replica.seen().len(), 100, "what a client is told was not begun was not");
    router.drain().await;
}

/// The code of a stream with which nothing was done.
const REFUSED_STREAM: u32 = 7;

#[tokio::test]
async fn with_http2_streams_behind_the_last_one_are_refused_and_nothing_is_done_with_them() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let router = start(&replica, 3).await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&(0..6).flat_map(|n| ask(2 * n + 1, END_BOTH)).collect::<Vec<u8>>()).await;
    let (mut served, mut refused) = (0, Vec::new());
    while served < 3 || refused.len() < 3 {
        let frame = client.hear().await.expect("the connection goes on");
        match frame.kind {
            HEADERS => served += 1,
            RESET => refused.push((frame.stream, frame.code())),
            _ => {}
        }
    }
    refused.sort_unstable();
    assert_eq!((served, refused), (3, [7, 9, 11].map(|stream| (stream, REFUSED_STREAM)).to_vec()));
    assert_eq!(replica.seen().len(), 3);
    assert_eq!(router.metric("scorefront_http2_streams_refused_total").await, 3.0);
    drop(client);
    router.drain().await;
}

#[tokio::test]
async fn with_http2_a_client_that_does_not_listen_gets_no_further_and_is_cut_off() {
    let replica = ScriptedReplica::start(|_| ok("[1]")).await;
    let world = World::new().deployment("blue", &[ENDLESS], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.requests_per_connection_max = 3;
        config.limits.streams_max = 8;
    })
    .await;
    let mut client = Attacker::connect(&router, &[]).await;
    let mut ids = (0..).map(|n| 2 * n + 1);
    // It answers no PING, so the router does not know whether it has read what it was told.
    for id in ids.by_ref().take(3) {
        client.send(&ask(id, END_BOTH)).await;
        client.wait_for(HEADERS).await;
    }
    for id in ids.by_ref().take(8) {
        client.send(&ask(id, END_BOTH)).await;
        let refused = client.wait_for(RESET).await;
        assert_eq!((refused.stream, refused.code()), (id, REFUSED_STREAM));
    }
    client.send_and_end(&ask(ids.next().unwrap(), END_BOTH)).await;
    assert_eq!(replica.seen().len(), 3);
    let reason = "scorefront_http2_connections_ended_total{reason=\"too_many_requests\"}";
    eventually("it was cut off", async || router.metric(reason).await == 1.0).await;
    router.drain().await;
}
