//! HTTP/2 with prior knowledge, HTTP/1.0, pipelining, upgrades.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::testing::client::{request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

const KEY: &str = "Authorization: Bearer secret-1";

#[tokio::test]
async fn http2_clients_are_served_on_the_same_port() {
    let replica = ScriptedReplica::start(|seen| ok(&String::from_utf8_lossy(&seen.body))).await;
    let settings = [("max-concurrent-requests-per-instance", "0")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut asked = Vec::new();
    for n in 0..10 {
        let request = http::Request::post(format!("http://models.test/api/v1/endpoint/iris/score?n={n}"))
            .header("authorization", "Bearer secret-1")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::new(Bytes::from(format!("body {n}"))))
            .unwrap();
        let mut sender = sender.clone();
        asked.push(tokio::spawn(async move {
            let answer = sender.send_request(request).await.unwrap();
            let (status, id) = (answer.status(), answer.headers()["x-request-id"].clone());
            (status, id, answer.into_body().collect().await.unwrap().to_bytes())
        }));
    }
    for (n, task) in asked.into_iter().enumerate() {
        let (status, id, body) = task.await.unwrap();
        assert_eq!((status.as_u16(), body), (200, Bytes::from(format!("body {n}"))));
        assert_eq!(id.len(), 36);
    }
    let seen = replica.seen();
    assert_eq!((seen[0].header("host"), seen[0].header("cookie")), (Some("models.test"), Some("a=1; b=2")));
    assert_eq!(router.log(10).await[0]["Protocol"], "HTTP/2");
    drop(sender);
    driver.await.unwrap().unwrap();
    router.drain().await;
}

#[tokio::test]
async fn http10_clients_get_an_answer_that_ends_with_the_connection() {
    let replica = ScriptedReplica::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        vec![Step::Send(head.as_bytes().to_vec())]
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let got =
        client.ask(format!("POST /api/v1/endpoint/iris/score HTTP/1.0\r\n{KEY}\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!((got.status, got.text().as_str()), (200, "abc"));
    assert_eq!(got.header("transfer-encoding"), None);
    router.drain().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let replica = ScriptedReplica::start(|seen| ok(&String::from_utf8_lossy(&seen.body))).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    client.send(score("1") + &score("2") + &score("3")).await;
    for n in ["1", "2", "3"] {
        assert_eq!(client.answer().await.text(), n);
    }
    router.drain().await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_holds_its_slot() {
    let replica = ScriptedReplica::start(|seen| {
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (Some("websocket"), Some("upgrade")));
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Echo]
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let headers = [KEY, "Connection: Upgrade", "Upgrade: websocket"];
    let got = client.ask(request("GET", "/api/v1/endpoint/iris/ws", &headers, "")).await;
    assert_eq!(
        (got.status, got.header("upgrade"), got.header("connection")),
        (101, Some("websocket"), Some("upgrade"))
    );
    assert_eq!(client.peek(6).await, b"hello ");
    client.send("ping").await;
    assert_eq!(client.peek(10).await, b"hello ping");
    assert_eq!(router.taken("blue"), 1);
    drop(client);
    let line = router.log(1).await.remove(0);
    assert_eq!((line["ResponseCode"].clone(), line["Outcome"].clone()), (101.into(), "served".into()));
    assert_eq!((line["RequestPayloadSize"].clone(), line["ResponsePayloadSize"].clone()), (4.into(), 10.into()));
    router.drain().await;
}

#[tokio::test]
async fn an_http2_client_that_is_answered_early_may_finish_what_it_sends() {
    let replica = ScriptedReplica::start(|_| ok("scored")).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = |key: &str, length: &str| {
        http::Request::post("http://models.test/api/v1/endpoint/iris/score")
            .header("authorization", format!("Bearer {key}"))
            .header("content-length", length)
            .body(())
            .unwrap()
    };
    // Refused before its body has come; and answered when only the empty last frame is missing.
    for (key, sent, status) in [("wrong", "", 401), ("secret-1", "hello", 200)] {
        let (answer, mut body) = client.send_request(request(key, "5"), false).unwrap();
        if !sent.is_empty() {
            body.send_data(Bytes::from(sent), false).unwrap();
        }
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        while answer.body_mut().data().await.is_some() {}
        // Another exchange on the connection: had the stream been reset, the client would know by now.
        let (other, mut other_body) = client.send_request(request("secret-1", "1"), false).unwrap();
        other_body.send_data(Bytes::from("x"), true).unwrap();
        assert_eq!(other.await.unwrap().status(), 200);
        body.send_data(Bytes::from(&"hello"[sent.len()..]), true).expect("the stream is still open");
    }
    drop(client);
    driver.abort();
    router.drain().await;
}
