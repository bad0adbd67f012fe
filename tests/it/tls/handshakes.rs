//! Limits of handshakes, and sessions that go on where another one ended.

use std::sync::Arc;
use std::time::Duration;

use scorefront::testing::client::{Client, score};
use scorefront::testing::eventually;
use scorefront::testing::router::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::echo;
use super::peer::{Authority, ECDSA, connect, connect_as, start};

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
    let change = |config: &mut scorefront::control::config::Config| {
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
