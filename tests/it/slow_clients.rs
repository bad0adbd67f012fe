//! Clients that send or read all the time, but too little: they are cut off, and nobody else is taken for one of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::control::config::Config;
use scorefront::testing::client::score;
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

/// A rate that nobody keeps up.
const ALL_AT_ONCE: u64 = 1 << 40;
const LARGE: usize = 32 << 20;
const DRIP: Duration = Duration::from_millis(20);
const HEAD: &str = "POST /api/v1/endpoint/iris/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-1\r\n";

async fn route_to(replica: &ScriptedReplica, change: impl FnOnce(&mut Config)) -> Router {
    let settings = [("request-timeout-ms", "300000"), ("max-queue-wait-ms", "60000")];
    let world = World::new().deployment("blue", &settings, &[replica.address]);
    Router::start_with(&world, |config| {
        // The watch over a connection looks four times within this time.
        config.limits.head_timeout = Duration::from_secs(1);
        change(config);
    })
    .await
}

async fn cut(router: &Router, what: &str) -> f64 {
    router.metric(&format!("scorefront_slow_clients_cut_total{{what=\"{what}\"}}")).await
}

async fn assert_slot_is_free(router: &Router) {
    eventually("the slot is free", async || router.taken("blue") == 0).await;
}

/// A body of single bytes.
struct Drips {
    sent: u64,
    pause: Pin<Box<Sleep>>,
}

impl Body for Drips {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ready!(self.pause.as_mut().poll(cx));
        self.pause = Box::pin(sleep(DRIP));
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

async fn ask_h2<B>(router: &Router, window: u32, body: B) -> Response<Incoming>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://models.test/api/v1/endpoint/iris/score")
        .header("authorization", "Bearer secret-1")
        .body(body)
        .unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn a_body_that_drips_gets_408_though_it_is_never_silent() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = route_to(&replica, |config| {
        config.limits.body_timeout = Duration::from_millis(400);
        config.limits.body_rate_min = ALL_AT_ONCE;
    })
    .await;
    let mut client = router.client().await;
    client.send(format!("{HEAD}Content-Length: 1000000\r\n\r\n")).await;
    while client.try_send("x").await && cut(&router, "body").await == 0.0 {
        sleep(DRIP).await;
    }
    let got = client.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (408, "RequestTooSlow"));
    assert!(got.error("message").contains("min-body-bytes-per-second"), "{}", got.text());
    assert_eq!(router.log(1).await[0]["Outcome"], "request_too_slow");
    let got = ask_h2(&router, 1 << 20, Drips { sent: 0, pause: Box::pin(sleep(DRIP)) }).await;
    assert_eq!(got.status(), 408);
    assert_eq!(cut(&router, "body").await, 2.0);
    assert_slot_is_free(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_replica_that_does_not_read_is_not_the_clients_fault() {
    let gate = Arc::new(Semaphore::new(0));
    let hold = gate.clone();
    let replica = ScriptedReplica::start_early(move |_| {
        vec![Step::Wait(hold.clone()), Step::ReadBody, Step::Send(answer(200, &[], "all"))]
    })
    .await;
    let grace = Duration::from_secs(4);
    let router = route_to(&replica, |config| config.limits.body_timeout = grace).await;
    let mut socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    socket.write_all(format!("{HEAD}Content-Length: {LARGE}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let sends = tokio::spawn(async move { writer.write_all(&vec![b'x'; LARGE]).await.map(|()| writer) });
    replica.wait_for(1).await;
    // That time passes is what is tested.
    sleep(grace * 2).await;
    assert!(!sends.is_finished(), "it waits for the replica");
    gate.add_permits(1);
    let mut head = [0; 15];
    reader.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    assert!(sends.await.unwrap().is_ok());
    assert_eq!(cut(&router, "body").await, 0.0);
    drop(reader);
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_reads_all_the_time_but_too_little_is_cut_off() {
    let replica = ScriptedReplica::start(|_| ok(&"x".repeat(LARGE))).await;
    let router = route_to(&replica, |config| {
        config.limits.body_timeout = Duration::from_secs(1);
        config.limits.answer_rate_min = ALL_AT_ONCE;
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    socket.write_all(score("").as_bytes()).await.unwrap();
    let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
    while let Ok(n @ 1..) = socket.read(&mut buffer).await {
        read += n;
        sleep(DRIP).await;
    }
    assert!(read < LARGE, "{read}");
    let line = &router.log(1).await[0];
    assert_eq!(line["Outcome"], "client_gone");
    assert!(line["ErrorDetail"].as_str().unwrap_or_default().contains("min-answer-bytes-per-second"), "{line}");
    assert_eq!(cut(&router, "answer").await, 1.0);
    assert_slot_is_free(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn over_http2_such_a_client_loses_the_stream() {
    let replica = ScriptedReplica::start(|_| ok(&"x".repeat(LARGE))).await;
    let router = route_to(&replica, |config| {
        config.limits.body_timeout = Duration::from_secs(1);
        config.limits.answer_rate_min = ALL_AT_ONCE;
    })
    .await;
    let mut body = ask_h2(&router, 64 << 10, Empty::new()).await.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        sleep(DRIP).await;
    }
    assert!(read < LARGE, "{read}");
    let line = &router.log(1).await[0];
    assert!(line["ErrorDetail"].as_str().unwrap_or_default().contains("min-answer-bytes-per-second"), "{line}");
    assert_eq!(cut(&router, "answer").await, 1.0);
    assert_slot_is_free(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn the_pauses_of_a_model_harm_nobody() {
    let gate = Arc::new(Semaphore::new(0));
    let hold = gate.clone();
    let replica = ScriptedReplica::start(move |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let event = || [Step::Send(b"9\r\ndata: 1\n\n\r\n".to_vec()), Step::Wait(hold.clone())];
        let events = (0..4).flat_map(|_| event()).collect();
        [vec![Step::Send(head.to_vec())], events, vec![Step::Send(b"0\r\n\r\n".to_vec())]].concat()
    })
    .await;
    let grace = Duration::from_millis(300);
    let router = route_to(&replica, |config| {
        config.limits.body_timeout = grace;
        config.limits.answer_rate_min = 1 << 20;
        config.limits.head_timeout = grace;
    })
    .await;
    for is_http2 in [false, true] {
        let pauses = async {
            for _ in 0..4 {
                // That time passes is what is tested: together it is several times what a client may take.
                sleep(grace * 2).await;
                gate.add_permits(1);
            }
        };
        let takes = async {
            if is_http2 {
                return ask_h2(&router, 64 << 10, Empty::new()).await.into_body().collect().await.unwrap().to_bytes();
            }
            router.client().await.ask(score("")).await.body.into()
        };
        let (text, ()) = tokio::join!(takes, pauses);
        assert_eq!(text, "data: 1\n\n".repeat(4), "{is_http2}");
    }
    assert_eq!(cut(&router, "answer").await, 0.0);
    router.drain().await;
}
