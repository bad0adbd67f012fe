//! What a careful reading of the request path found; each test failed before its fix.

use std::sync::Arc;
use std::time::Duration;

use scorefront::testing::client::{Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const KEY: &str = "Authorization: Bearer secret-1";
const PATH: &str = "/api/v1/endpoint/iris/score";

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

async fn route_to(replica: &ScriptedReplica, settings: &[(&str, &str)]) -> Router {
    Router::start(&World::new().deployment("blue", settings, &[replica.address])).await
}

#[tokio::test]
async fn a_models_bytes_are_never_taken_for_a_refusal() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |seen| {
        if seen.body.is_empty() {
            return ok("next");
        }
        let wait = Step::Wait(script.clone());
        vec![
            send("HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\nlog: "),
            wait,
            send("HTTP/1.1 404 Not Found, it said. ok"),
        ]
    })
    .await;
    let router = route_to(&replica, &[("request-timeout-ms", "60000")]).await;
    let mut client = router.client().await;
    client.send(score("x")).await;
    // The first part is out before the second one comes.
    while !String::from_utf8(client.peek(1).await).unwrap().contains("log: ") {
        let n = client.peek(1).await.len();
        client.peek(n + 1).await;
    }
    permits.add_permits(1);
    assert_eq!(client.answer().await.text(), "log: HTTP/1.1 404 Not Found, it sa");
    drop(client);
    assert_eq!(router.client().await.ask(score("")).await.text(), "next");
}

#[tokio::test]
async fn an_upload_that_breaks_off_in_line_never_reaches_a_replica_as_a_whole_one() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |_| [vec![Step::Wait(script.clone())], ok("done")].concat()).await;
    let settings = [("max-queue-wait-ms", "60000"), ("request-timeout-ms", "60000")];
    let router = route_to(&replica, &settings).await;
    let mut first = router.client().await;
    first.send(score("first")).await;
    replica.wait_for(1).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut broken = router.client().await;
    broken.send(&head).await;
    let mut malformed = router.client().await;
    malformed.send(&head).await;
    router.wait_for_queue("blue", 2).await;
    drop(broken);
    malformed.send("ZZ\r\n").await;
    let got = malformed.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (400, "MalformedRequest"));
    router.wait_for_queue("blue", 0).await;
    permits.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    let outcomes: Vec<String> = router.log(3).await.iter().map(|line| line["Outcome"].to_string()).collect();
    assert!(outcomes.iter().any(|outcome| outcome.contains("client_gone")), "{outcomes:?}");
    assert_eq!(replica.seen().len(), 1);
    router.drain().await;
}

#[tokio::test]
async fn a_router_that_cannot_discover_anything_ends_with_an_error() {
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let config = scorefront::control::config::Config {
        listen: vec![loopback],
        admin: loopback,
        kubeconfig: Some("/nonexistent/kubeconfig".into()),
        access_log: scorefront::ops::access_log::LogTarget::Off,
        workers: 2,
        ..Default::default()
    };
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_signals, requests) = tokio::sync::mpsc::channel(1);
        let (levels, _) = scorefront::ops::logging::Levels::detached("info");
        let result = runtime.block_on(async { scorefront::app::App::bind(config)?.run(levels, requests).await });
        drop(runtime);
        let _ = ended.blocking_send(result.unwrap_err().to_string());
    });
    let error = tokio::time::timeout(scorefront::testing::PATIENCE, end.recv()).await.expect("it ends").unwrap();
    assert!(error.contains("/nonexistent/kubeconfig"), "{error}");
    thread.join().unwrap();
}

#[tokio::test]
async fn an_idle_http2_connection_lives_as_long_as_it_may() {
    let replica = ScriptedReplica::start(|_| ok("ok")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.head_timeout = Duration::from_millis(100);
        config.limits.idle_timeout = Duration::from_secs(20);
    })
    .await;
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(socket));
    let mut builder = hyper::client::conn::http2::Builder::new(executor);
    // Its pings are frames between requests, and no heads.
    builder
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(20))
        .keep_alive_while_idle(true);
    let (mut sender, connection) = builder.handshake::<_, http_body_util::Empty<bytes::Bytes>>(io).await.unwrap();
    let driver = tokio::spawn(connection);
    let health = || http::Request::get("http://models.test/").body(http_body_util::Empty::new()).unwrap();
    assert_eq!(sender.send_request(health()).await.unwrap().status(), 200);
    // Several times the time that a head may take, measured by requests on other connections that are cut off by it.
    for _ in 0..3 {
        let mut slow: Client = router.client().await;
        slow.send("POST").await;
        assert_eq!(slow.answer().await.status, 408);
    }
    assert_eq!(sender.send_request(health()).await.unwrap().status(), 200);
    drop(sender);
    let _ = driver.await;
    router.drain().await;
}

#[tokio::test]
async fn an_answer_without_a_length_that_breaks_off_ends_in_a_reset() {
    let replica = ScriptedReplica::start(|_| {
        vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), Step::Reset]
    })
    .await;
    let router = route_to(&replica, &[]).await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    socket.write_all(format!("POST {PATH} HTTP/1.0\r\n{KEY}\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(end.is_err() || text.starts_with("HTTP/1.1 502") || text.starts_with("HTTP/1.0 502"), "{text}");
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_sends_on_after_a_refusal_still_reads_it() {
    let replica = ScriptedReplica::start(|_| ok("")).await;
    let router = route_to(&replica, &[]).await;
    let mut client = router.client().await;
    client
        .send(format!(
            "POST {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\nContent-Length: 5000000\r\n\r\n"
        ))
        .await;
    for _ in 0..50 {
        client.send(vec![b'x'; 100_000]).await;
    }
    let got = client.answer().await;
    assert_eq!((got.status, got.whole, got.header("connection")), (401, true, Some("close")));
    router.drain().await;
}

#[tokio::test]
async fn a_refused_request_whose_small_body_comes_late_does_not_cost_the_connection() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.goodbye_timeout = Duration::from_millis(300)).await;
    let head = |more: &str| {
        format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\n{more}Content-Length: 5\r\n\r\n")
    };
    // As some clients do: the head, and a moment later the body.
    let mut client = router.client().await;
    client.send(head("")).await;
    eventually("the head is read", async || router.metric("scorefront_connections").await == 1.0).await;
    client.send("hello").await;
    let got = client.answer().await;
    assert_eq!((got.status, got.header("connection")), (401, None));
    assert_eq!(client.ask(score("next")).await.status, 200);
    // A body that does not come, or that waits to be asked for, ends the connection, and the client is told so.
    for more in ["", "Expect: 100-continue\r\n"] {
        let mut client = router.client().await;
        let got = client.ask(head(more)).await;
        assert_eq!((got.status, got.header("connection")), (401, Some("close")), "{more}");
        assert!(client.is_closed().await);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_refused_client_that_never_stops_sending_is_cut_off() {
    let replica = ScriptedReplica::start(|_| ok("")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.linger_timeout = Duration::from_millis(300)).await;
    let refused = format!(
        "POST {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\nContent-Length: 99999999999\r\n\r\n"
    );
    let (mut silent, mut busy) = (router.client().await, router.client().await);
    silent.send(&refused).await;
    assert_eq!(silent.answer().await.status, 401);
    eventually("it is lingered for", async || router.metric("scorefront_lingering_clients").await > 0.0).await;
    busy.send(&refused).await;
    let all = async { while busy.try_send(vec![b'x'; 1000]).await {} };
    tokio::time::timeout(scorefront::testing::PATIENCE, all).await.expect("it is cut off");
    assert!(silent.is_closed().await);
    eventually("both are counted", async || router.metric("scorefront_lingering_clients_cut_total").await == 2.0).await;
    assert_eq!(router.metric("scorefront_lingering_clients").await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_cut_an_answer() {
    let replica = ScriptedReplica::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        vec![send(head), send("a\r\n0123456789\r\n0\r\n\r\n"), Step::Close]
    })
    .await;
    let router = route_to(&replica, &[]).await;
    let got = router.client().await.ask(score("")).await;
    assert!((got.text() == "0123456789" && got.whole) || got.status == 502, "{} {}", got.head, got.text());
    router.drain().await;
}

#[tokio::test]
async fn a_request_that_was_partly_answered_is_not_sent_again() {
    for start in ["HTTP/1.1 200 OK\r\nCont", "what is this\r\n\r\n"] {
        let used = dashmap::DashMap::new();
        let replica = ScriptedReplica::start(move |seen| {
            let again = used.insert(seen.connection, ()).is_some();
            if again { vec![send(start), Step::Close] } else { ok("first") }
        })
        .await;
        let router = route_to(&replica, &[]).await;
        let mut client = router.client().await;
        assert_eq!(client.ask(score("a")).await.status, 200);
        assert_eq!(client.ask(score("b")).await.status, 502, "{start}");
        assert_eq!(replica.seen().len(), 2, "{start}");
        router.drain().await;
    }
}

#[tokio::test]
async fn only_the_upgrade_that_was_asked_for_is_accepted() {
    let replica = ScriptedReplica::start(|_| {
        vec![send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), Step::Echo]
    })
    .await;
    let router = route_to(&replica, &[]).await;
    for upgrade in ["h2c", "h2c, x", "websocket"] {
        let headers = [KEY, "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"];
        let upgrade = format!("Upgrade: {upgrade}");
        let headers: Vec<&str> = headers.into_iter().chain([upgrade.as_str()]).collect();
        let got = router.client().await.ask(request("GET", "/api/v1/endpoint/iris/x", &headers, "")).await;
        assert_eq!(got.status, 502, "{upgrade}");
    }
    for seen in replica.seen() {
        assert_ne!(seen.header("upgrade"), Some("h2c"));
        assert_eq!(seen.header("http2-settings"), None);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_copy_that_is_given_up_keeps_the_shadows_slot_until_it_is_done() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let primary = ScriptedReplica::start(|_| ok("primary")).await;
    let shadow = ScriptedReplica::start(move |_| {
        vec![send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12"), Step::Wait(script.clone()), send("345")]
    })
    .await;
    let mirrored = [("traffic-percent", "0"), ("mirror-percent", "50"), ("request-timeout-ms", "300")];
    let world = World::new().deployment("blue", &[("traffic-percent", "100")], &[primary.address]).deployment(
        "shadow",
        &mirrored,
        &[shadow.address],
    );
    let router = Router::start(&world).await;
    let mut client = router.client().await;
    while shadow.seen().is_empty() {
        assert_eq!(client.ask(score("x")).await.status, 200);
    }
    let abandoned = async || router.deployment("shadow").replicas[0].state.abandoned() == 1;
    eventually("the copy is given up", abandoned).await;
    assert_eq!(router.taken("shadow"), 1);
    permits.add_permits(100);
    eventually("the slot is free", async || router.taken("shadow") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_replica_that_reads_slowly_is_not_the_clients_fault() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start_early(move |_| {
        vec![Step::Wait(script.clone()), Step::ReadBody, Step::Send(answer(200, &[], "read"))]
    })
    .await;
    let world = World::new().deployment("blue", &[("request-timeout-ms", "60000")], &[replica.address]);
    let router = Router::start_with(&world, |config| config.limits.body_timeout = Duration::from_millis(100)).await;
    let mut client = router.client().await;
    let body = "x".repeat(20 << 20);
    let asked = tokio::spawn(async move { client.ask(score(&body)).await });
    replica.wait_for(1).await;
    // Another client, whose body does not arrive, is cut off meanwhile: the time has passed.
    let other = ScriptedReplica::start(|_| ok("")).await;
    let second = route_to_with(&other, Duration::from_millis(400)).await;
    let mut slow = second.client().await;
    slow.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 9\r\n\r\n")).await;
    assert_eq!(slow.answer().await.status, 408);
    permits.add_permits(1);
    assert_eq!(asked.await.unwrap().text(), "read");
    router.drain().await;
}

async fn route_to_with(replica: &ScriptedReplica, body_timeout: Duration) -> Router {
    let world = World::new().deployment("blue", &[("request-timeout-ms", "60000")], &[replica.address]);
    Router::start_with(&world, |config| config.limits.body_timeout = body_timeout).await
}
