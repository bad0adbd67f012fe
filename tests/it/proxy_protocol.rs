//! The PROXY header of trusted proxies: who the client is then, and what becomes of a connection without one.

use std::net::IpAddr;
use std::time::Duration;

use scorefront::control::config::Config;
use scorefront::testing::client::{Client, request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::tls::peer::{self, Authority, ECDSA};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n";
/// Version 2: PROXY, TCP over IPv6, with four bytes of a field that means nothing here.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x28\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xc7\x38\x01\xbb\
    \x04\x00\x01\x00";
/// Version 2: LOCAL, as a proxy says when it looks whether the router is there.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn require(config: &mut Config) {
    config.limits.proxy_protocol = true;
    config.limits.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
}

async fn start(change: impl FnOnce(&mut Config)) -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = Router::start_with(&World::new().deployment("blue", &[], &[replica.address]), change).await;
    (replica, router)
}

async fn wrong_headers(router: &Router) -> f64 {
    router.metric("scorefront_proxy_protocol_errors_total").await
}

#[tokio::test]
async fn the_client_that_a_header_names_is_the_client_of_log_and_replica() {
    let (replica, router) = start(require).await;
    let expected = [(LINE, "192.0.2.7"), (BINARY, "2001:db8::7"), (LOCAL, "127.0.0.1")];
    for (header, _) in expected {
        let mut client = router.client().await;
        client.send([header, score("1").as_bytes()].concat()).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(client.ask(score("2")).await.status, 200, "a header is at the beginning of a connection only");
    }
    let (lines, seen) = (router.log(6).await, replica.seen());
    for (n, (_, address)) in expected.into_iter().enumerate() {
        for at in [2 * n, 2 * n + 1] {
            assert_eq!(lines[at]["ClientIp"].as_str(), Some(address));
            assert_eq!(seen[at].header("x-forwarded-for"), Some(address));
        }
    }
    assert_eq!(wrong_headers(&router).await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn behind_a_header_it_is_the_named_client_that_is_trusted_or_not() {
    let (replica, router) = start(require).await;
    let claim = request(
        "POST",
        "/api/v1/endpoint/iris/score",
        &["Authorization: Bearer secret-1", "X-Forwarded-For: 203.0.113.9"],
        "",
    );
    for header in [LINE, LOCAL] {
        let mut client = router.client().await;
        client.send([header, claim.as_bytes()].concat()).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let seen = replica.seen();
    assert_eq!(seen[0].header("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(seen[1].header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    router.drain().await;
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte_and_takes_none_of_what_follows() {
    let (_replica, router) = start(require).await;
    for header in [LINE, BINARY] {
        let mut client = router.client().await;
        for byte in [header, &score("1").as_bytes()[..20]].concat() {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(&score("1").as_bytes()[20..]).await;
        assert_eq!(client.answer().await.status, 200);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_header_before_tls_is_read_before_the_handshake() {
    let (_replica, world) = crate::tls::echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = peer::start(&world, &[pair], require).await;
    let mut socket = TcpStream::connect(router.tls()).await.unwrap();
    socket.write_all(LINE).await.unwrap();
    let stream = peer::shake_hands(socket, "models.test", authority.plain_client()).await.unwrap();
    assert_eq!(Client::over(stream).ask(score("x")).await.status, 200);
    peer::connect(router.tls(), "models.test", authority.plain_client()).await.unwrap_err();
    assert_eq!(router.log(1).await[0]["ClientIp"], "192.0.2.7");
    assert_eq!(wrong_headers(&router).await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_trusted_proxy_without_a_right_header_in_time_is_cut_off_and_counted() {
    let change = |config: &mut Config| {
        require(config);
        config.limits.head_timeout = Duration::from_millis(100);
    };
    let (replica, router) = start(change).await;
    let plain = score("1");
    let wrong: [&[u8]; 4] = [plain.as_bytes(), b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 192.0.2.7", b""];
    for (bytes, count) in wrong.into_iter().zip(1..) {
        let mut client = router.client().await;
        client.send(bytes).await;
        assert!(client.try_answer().await.is_none());
        assert_eq!(wrong_headers(&router).await, f64::from(count));
    }
    assert!(replica.seen().is_empty());
    // One that says nothing and goes only looked whether the router is there.
    drop(router.client().await);
    assert_eq!(wrong_headers(&router).await, 4.0);
    router.drain().await;
}

#[tokio::test]
async fn whoever_is_not_trusted_is_served_without_a_header_and_refused_with_one() {
    let change = |config: &mut Config| {
        config.limits.proxy_protocol = true;
        config.limits.trusted_proxies = vec![IpAddr::from([192, 0, 2, 1]).into()];
    };
    let (replica, router) = start(change).await;
    assert_eq!(router.client().await.ask(score("1")).await.status, 200);
    for header in [LINE, BINARY] {
        let mut client = router.client().await;
        client.try_send([header, score("1").as_bytes()].concat()).await;
        assert_eq!(client.answer().await.status, 400);
        assert!(client.is_closed().await);
    }
    assert_eq!(replica.seen().len(), 1);
    assert_eq!(router.log(3).await[1]["ClientIp"], "127.0.0.1");
    router.drain().await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_and_others_are_served() {
    let change = |config: &mut Config| {
        require(config);
        config.limits.connections_per_address_max = 1;
    };
    let (_replica, router) = start(change).await;
    let connect = async |header: &[u8]| {
        let mut client = router.client().await;
        client.send(header).await;
        client
    };
    let mut one = connect(LINE).await;
    assert_eq!(one.ask(score("1")).await.status, 200);
    let mut told = connect(LINE).await;
    let got = told.answer().await;
    assert_eq!((got.status, got.error("code").as_str()), (503, "RouterOverloaded"));
    assert!(got.error("message").contains("max-connections-per-address"));
    assert!(told.is_closed().await);
    for header in [BINARY, LOCAL, LOCAL] {
        let mut other = connect(header).await;
        assert_eq!(other.ask(score("1")).await.status, 200, "others, and the proxy itself, are not meant");
    }
    drop(one);
    scorefront::testing::eventually("the place is free again", async || {
        let mut next = connect(LINE).await;
        next.try_send(score("1")).await && next.try_answer().await.is_some_and(|answer| answer.status == 200)
    })
    .await;
    assert!(router.metric("scorefront_connections_refused_per_address_total").await >= 1.0);
    router.drain().await;
}

#[tokio::test]
async fn an_upgraded_connection_keeps_the_place_of_its_address() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    let replica = ScriptedReplica::start(move |_| vec![Step::Send(head.into()), Step::Echo]).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        require(config);
        config.limits.connections_per_address_max = 1;
    })
    .await;
    let mut one = router.client().await;
    one.send(LINE).await;
    let headers = ["Authorization: Bearer secret-1", "Connection: Upgrade", "Upgrade: websocket"];
    let got = one.ask(request("GET", "/api/v1/endpoint/iris/score", &headers, "")).await;
    assert_eq!((got.status, one.peek(5).await.as_slice()), (101, &b"hello"[..]));
    let mut other = router.client().await;
    other.send(LINE).await;
    assert_eq!(other.answer().await.error("code"), "RouterOverloaded");
    drop(one);
    router.drain().await;
}

#[tokio::test]
async fn a_header_that_does_not_come_does_not_hold_up_the_drain() {
    let change = |config: &mut Config| {
        require(config);
        config.limits.head_timeout = Duration::from_secs(300);
    };
    let (_replica, router) = start(change).await;
    let mut silent = router.client().await;
    silent.send(&LINE[..9]).await;
    scorefront::testing::eventually("it is there", async || router.metric("scorefront_connections").await == 1.0).await;
    router.drain().await;
}
