//! HTTP/2 clients that leave answers unread: the stream is given up, its neighbours and its replica are not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use serde_json::Value;

const LARGE: usize = 1 << 20;

/// One replica with one slot. The path `/large` has a large answer, every other a small one.
async fn start(on_abandon: &str, body_timeout: Duration) -> (ScriptedReplica, Router) {
    let replica =
        ScriptedReplica::start(
            |seen| {
                if seen.line().contains("/large") { ok(&"x".repeat(LARGE)) } else { ok("small") }
            },
        )
        .await;
    let settings = [("on-abandon", on_abandon), ("request-timeout-ms", "60000"), ("max-queue-wait-ms", "20000")];
    let world = World::new().deployment("blue", &settings, &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.body_timeout = body_timeout;
        // The watch over a connection looks first after this time, and then four times as often.
        config.limits.head_timeout = Duration::from_secs(1);
    })
    .await;
    (replica, router)
}

/// A client that lets so many bytes of each answer come unread.
struct Client {
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    async fn connect(router: &Router, window: u32) -> Self {
        let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(8 << 20)
            .handshake(TokioIo::new(socket))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    async fn ask(&mut self, path: &str, key: &str) -> Response<Incoming> {
        let request = Request::post(format!("http://models.test/api/v1/endpoint/iris{path}"))
            .header("authorization", format!("Bearer {key}"))
            .body(Empty::new())
            .unwrap();
        self.sender.send_request(request).await.unwrap()
    }
}

async fn text(answer: Response<Incoming>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

fn assert_untaken(line: &Value) {
    assert_eq!((line["Outcome"].clone(), line["ResponseCode"].clone()), ("client_gone".into(), 200.into()));
    assert!(line["ErrorDetail"].as_str().unwrap_or_default().contains("body-timeout-ms"), "{line}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up_and_its_neighbours_are_served() {
    for on_abandon in ["wait", "close"] {
        // Nothing at all, less than a frame, and more than what the router has buffered of it.
        for window in [0, 1000, 200 << 10] {
            let (_replica, router) = start(on_abandon, Duration::from_millis(200)).await;
            let mut client = Client::connect(&router, window).await;
            let unread = client.ask("/large", "secret-1").await;
            assert_eq!(unread.status(), 200);
            // There is one slot, and the other one has it until it is given up.
            let next = client.ask("/score", "secret-1").await;
            assert_eq!(next.status(), 200);
            assert_untaken(&router.log(1).await[0]);
            let end = unread.into_body().collect().await;
            assert!(end.is_err(), "a part of the answer must not look like the whole ({on_abandon}, {window})");
            if window > 0 {
                assert_eq!(text(next).await, "small");
                assert_eq!(text(client.ask("/score", "secret-1").await).await, "small");
            }
            eventually("the slot is free", async || router.taken("blue") == 0).await;
            router.drain().await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up_also_when_its_replica_is_done() {
    let (_replica, router) = start("wait", Duration::from_millis(200)).await;
    let mut client = Client::connect(&router, 0).await;
    let answer = client.ask("/score", "secret-1").await;
    assert_eq!(answer.status(), 200);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    assert_untaken(&router.log(1).await[0]);
    assert!(answer.into_body().collect().await.is_err());
    // The same for an answer that the router makes itself. Its record does not wait for the client.
    let refusal = client.ask("/score", "wrong").await;
    assert_eq!((refusal.status().as_u16(), router.log(2).await[1]["Outcome"].clone()), (401, "unauthorized".into()));
    assert!(refusal.into_body().collect().await.is_err());
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_gets_the_whole_answer() {
    let body_timeout = Duration::from_secs(1);
    let (_replica, router) = start("wait", body_timeout).await;
    let mut client = Client::connect(&router, 64 << 10).await;
    let mut body = client.ask("/large", "secret-1").await.into_body();
    let (began, mut length) = (Instant::now(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
        // Being slow is what is tested: some 64 frames of 16 KiB take twice the time that one may take.
        tokio::time::sleep(body_timeout / 32).await;
    }
    assert!(length == LARGE && began.elapsed() > body_timeout, "{length} bytes in {:?}", began.elapsed());
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    router.drain().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_client_that_leaves_the_last_bytes_of_an_answer() {
    let (_replica, router) = start("wait", Duration::from_millis(200)).await;
    // "small" does not fit: the exchange is over, and the rest waits in the connection.
    let mut client = Client::connect(&router, 3).await;
    let answer = client.ask("/score", "secret-1").await;
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    // The time that a drain may take is longer than the test has patience.
    router.drain().await;
    assert!(answer.into_body().collect().await.is_err());
}
