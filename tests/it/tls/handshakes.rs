//! Limits of handshakes, and sessions that go on where another one ended.

use std::sync::Arc;
use std::time::Duration;

use scorefront::control::config::Config;
use scorefront::testing::client::{Client, score};
use scorefront::testing::eventually;
use scorefront::testing::router::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::echo;
use super::peer::{Authority, ECDSA, connect, connect_as, shake_hands_as, start};

async fn handshakes(router: &Router, result: &str) -> f64 {
    router.metric(&format!("scorefront_tls_handshakes_total{{result=\"{result}\"}}")).await
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_ends_and_is_counted() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router =
        start(&world, &[pair], |config| config.limits.tls_handshake_timeout = Duration::from_millis(200)).await;
    let mut silent = TcpStream::connect(router.tls()).await.unwrap();
    let mut slow = TcpStream::connect(router.tls()).await.unwrap();
    // The beginning of a handshake record, which never goes on.
    slow.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    for socket in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
    eventually("both are counted", async || handshakes(&router, "timed_out").await == 2.0).await;
    assert_eq!(router.metric("scorefront_tls_open_handshakes").await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn no_more_handshakes_than_allowed_are_under_way_and_the_next_waits_for_its_turn() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let change = |config: &mut Config| {
        config.limits.tls_handshakes_max = 1;
        config.limits.tls_handshake_timeout = Duration::from_millis(700);
    };
    let router = start(&world, &[pair], change).await;
    let held = TcpStream::connect(router.tls()).await.unwrap();
    let open = async || router.metric("scorefront_tls_open_handshakes").await;
    eventually("a handshake is under way", async || open().await == 1.0).await;
    let mut late = TcpStream::connect(router.tls()).await.unwrap();
    let (patient, ()) = tokio::join!(
        async {
            eventually("a place is free", async || open().await == 0.0).await;
            connect(router.tls(), "models.test", authority.plain_client()).await
        },
        async {
            let _ = late.read_to_end(&mut Vec::new()).await;
        }
    );
    let got = Client::over(patient.unwrap()).ask(score("x")).await;
    assert_eq!(got.status, 200);
    eventually("both others are counted", async || {
        handshakes(&router, "timed_out").await + handshakes(&router, "crowded_out").await == 2.0
    })
    .await;
    assert_eq!(handshakes(&router, "full").await, 1.0);
    drop(held);
    router.drain().await;
}

#[tokio::test]
async fn who_says_nothing_after_the_handshake_is_cut_off_whatever_was_agreed() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| config.limits.head_timeout = Duration::from_millis(150)).await;
    for protocol in ["h2", "http/1.1"] {
        let config = authority.client(rustls::ALL_VERSIONS, &[protocol], None);
        let mut silent = connect(router.tls(), "models.test", config).await.unwrap();
        // What comes is what the router has to say of itself, and then the end.
        let end = tokio::time::timeout(scorefront::testing::PATIENCE, silent.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "{protocol}: not cut off");
    }
    router.drain().await;
}

#[tokio::test]
async fn what_is_no_tls_fails_and_is_counted() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    let mut plain = Client::connect(router.tls()).await;
    assert!(plain.try_send(score("x")).await);
    assert!(plain.try_answer().await.is_none());
    let stranger = Authority::new().plain_client();
    connect(router.tls(), "models.test", stranger).await.unwrap_err();
    eventually("both are counted", async || handshakes(&router, "failed").await == 2.0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_session_goes_on_with_whatever_worker_the_client_gets() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| config.workers = 3).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.client(&[version], &["http/1.1"], None));
        // All stay open, so each goes to a worker of its own.
        let mut clients = Vec::new();
        for n in 0..4 {
            let stream = connect_as(router.tls(), "models.test", config.clone()).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, n > 0, "connection {n} of {version:?}: {kind:?}");
            let mut client = Client::over(stream);
            // The ticket comes with, or before, the first answer.
            assert_eq!(client.ask(score("x")).await.status, 200);
            clients.push(client);
        }
    }
    assert_eq!((handshakes(&router, "full").await, handshakes(&router, "resumed").await), (2.0, 6.0));
    router.drain().await;
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_up_the_drain() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| config.limits.tls_handshake_timeout = Duration::from_secs(300)).await;
    let silent = TcpStream::connect(router.tls()).await.unwrap();
    eventually("a handshake is under way", async || router.metric("scorefront_tls_open_handshakes").await == 1.0).await;
    router.drain().await;
    drop(silent);
}

/// Trusted proxies name their clients in PROXY headers.
fn require_headers(config: &mut Config) {
    config.limits.proxy_protocol = true;
    config.limits.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
}

/// A connection for this client, before its handshake.
async fn begin(router: &Router, client: &str) -> TcpStream {
    let mut socket = TcpStream::connect(router.tls()).await.unwrap();
    let header = format!("PROXY TCP4 {client} 198.51.100.1 51000 443\r\n");
    socket.write_all(header.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn an_address_with_too_many_handshakes_gets_no_further_one_and_others_do() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| {
        require_headers(config);
        config.limits.tls_handshakes_per_address_max = 2;
        config.limits.tls_handshake_timeout = Duration::from_secs(300);
    })
    .await;
    let open = async || router.metric("scorefront_tls_open_handshakes").await;
    let silent = [begin(&router, "192.0.2.1").await, begin(&router, "192.0.2.1").await];
    eventually("both are under way", async || open().await == 2.0).await;
    let config = Arc::new(authority.plain_client());
    let shake_hands = async |client| {
        let socket = begin(&router, client).await;
        shake_hands_as(socket, "models.test", config.clone()).await
    };
    shake_hands("192.0.2.1").await.unwrap_err();
    assert_eq!(handshakes(&router, "crowded_address").await, 1.0);
    let other = shake_hands("192.0.2.2").await.unwrap();
    assert_eq!(Client::over(other).ask(score("x")).await.status, 200);
    drop(silent);
    eventually("the places are free again", async || open().await == 0.0).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        // Those whose handshake is over do not count.
        let mut client = Client::over(shake_hands("192.0.2.1").await.unwrap());
        assert_eq!(client.ask(score("x")).await.status, 200);
        all.push(client);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_any_number_of_handshakes() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| {
        config.limits.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.limits.tls_handshakes_per_address_max = 1;
    })
    .await;
    let silent = [TcpStream::connect(router.tls()).await.unwrap(), TcpStream::connect(router.tls()).await.unwrap()];
    eventually("both are under way", async || router.metric("scorefront_tls_open_handshakes").await == 2.0).await;
    let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    assert_eq!(Client::over(stream).ask(score("x")).await.status, 200);
    assert_eq!(handshakes(&router, "crowded_address").await, 0.0);
    drop(silent);
    router.drain().await;
}

#[tokio::test]
async fn an_address_has_no_more_connections_with_tls_than_without() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| {
        require_headers(config);
        config.limits.connections_per_address_max = 2;
    })
    .await;
    let config = Arc::new(authority.plain_client());
    let connect = async |client| {
        let socket = begin(&router, client).await;
        shake_hands_as(socket, "models.test", config.clone()).await.map(Client::over)
    };
    let mut one = connect("192.0.2.1").await.unwrap();
    assert_eq!(one.ask(score("x")).await.status, 200);
    // The listeners share the count.
    let mut plain = router.client().await;
    plain.send([b"PROXY TCP4 192.0.2.1 198.51.100.1 51000 80\r\n", score("x").as_bytes()].concat()).await;
    assert_eq!(plain.answer().await.status, 200);
    assert!(connect("192.0.2.1").await.is_err(), "a third one gets no handshake");
    assert_eq!(router.metric("scorefront_connections_refused_per_address_total").await, 1.0);
    assert_eq!((handshakes(&router, "full").await, handshakes(&router, "failed").await), (1.0, 0.0));
    assert_eq!(connect("192.0.2.2").await.unwrap().ask(score("x")).await.status, 200);
    drop(one);
    eventually("the place is free again", async || match connect("192.0.2.1").await {
        Ok(mut next) => next.try_send(score("x")).await && next.try_answer().await.is_some_and(|got| got.status == 200),
        Err(_) => false,
    })
    .await;
    router.drain().await;
}
