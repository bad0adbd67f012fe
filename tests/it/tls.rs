//! TLS of clients: what is agreed, which certificate is shown, and what a connection over TLS still has to do.

mod clients;
mod handshakes;
pub(crate) mod peer;
mod redirect;
mod renewal;
mod secrets;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::testing::client::{Client, request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use peer::{Authority, ECDSA, RSA, connect, shown, start};

/// A replica that answers what it was sent, and a world with it.
pub(crate) async fn echo() -> (ScriptedReplica, World) {
    let replica = ScriptedReplica::start(|seen| ok(&String::from_utf8_lossy(&seen.body))).await;
    let world = World::new().deployment("blue", &[("max-concurrent-requests-per-instance", "0")], &[replica.address]);
    (replica, world)
}

#[tokio::test]
async fn a_request_over_tls_is_served_and_the_replica_learns_that_it_was_https() {
    let (replica, world) = echo().await;
    let authority = Authority::new();
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = authority.client(&[version], &["http/1.1"], None);
        let stream = connect(router.tls(), "models.test", config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let mut client = Client::over(stream);
        for body in ["one", "two"] {
            let got = client.ask(score(body)).await;
            assert_eq!((got.status, got.text().as_str()), (200, body));
        }
    }
    let seen = replica.seen();
    assert_eq!(seen[0].header("x-forwarded-proto"), Some("https"));
    let mut plain = router.client().await;
    assert_eq!(plain.ask(score("three")).await.status, 200);
    assert_eq!(replica.seen().last().unwrap().header("x-forwarded-proto"), Some("http"));
    assert_eq!(router.metric("scorefront_tls_handshakes_total{result=\"full\"}").await, 2.0);
    router.drain().await;
}

#[tokio::test]
async fn the_handshake_decides_between_http2_and_http11() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    let config = authority.client(rustls::ALL_VERSIONS, &["h2", "http/1.1"], None);
    let stream = connect(router.tls(), "models.test", config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for body in ["one", "two"] {
        let request = http::Request::post("https://models.test/api/v1/endpoint/iris/score")
            .header("authorization", "Bearer secret-1")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (http::StatusCode::OK, http::Version::HTTP_2));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }
    drop(sender);
    driver.await.unwrap().unwrap();
    for line in router.log(2).await {
        assert_eq!((line["Protocol"].as_str(), line["Outcome"].as_str()), (Some("HTTP/2"), Some("served")));
    }
    let without = authority.client(rustls::ALL_VERSIONS, &[], None);
    let mut client = Client::over(connect(router.tls(), "models.test", without).await.unwrap());
    assert_eq!(client.ask(score("three")).await.text(), "three");
    let strange = authority.client(rustls::ALL_VERSIONS, &["spdy/1"], None);
    let error = connect(router.tls(), "models.test", strange).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    router.drain().await;
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let (first, second) =
        (authority.issue(&["first.test"], ECDSA), authority.issue(&["second.test", "*.wild.test"], RSA));
    let pairs = [authority.write("first", &first), authority.write("second", &second)];
    let router = start(&world, &pairs, |_| {}).await;
    for (name, expected) in [("first.test", &first), ("second.test", &second), ("a.wild.test", &second)] {
        let stream = connect(router.tls(), name, authority.plain_client()).await.unwrap();
        assert_eq!(shown(&stream), expected.der.as_ref(), "{name}");
    }
    // Who asks for an unknown name gets the first, and finds that it is for another one.
    let error = connect(router.tls(), "unknown.test", authority.plain_client()).await.unwrap_err();
    assert!(error.to_string().contains("first.test"), "{error}");
    router.drain().await;
}

#[tokio::test]
async fn a_minimum_version_is_kept() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let change = |config: &mut scorefront::control::config::Config| {
        config.limits.tls_version_min = scorefront::core::limits::TlsVersion::V13;
    };
    let router = start(&world, &[pair], change).await;
    let old = authority.client(&[&rustls::version::TLS12], &[], None);
    let error = connect(router.tls(), "models.test", old).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    router.drain().await;
}

#[tokio::test]
async fn the_key_exchange_withstands_quantum_computers_where_the_client_can() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
    let config = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(authority.roots()).with_no_client_auth();
    let stream = connect(router.tls(), "models.test", config).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    router.drain().await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_over_tls() {
    let replica = ScriptedReplica::start(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Echo]
    })
    .await;
    let authority = Authority::new();
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    let mut client = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
    let headers = ["Authorization: Bearer secret-1", "Connection: Upgrade", "Upgrade: websocket"];
    assert_eq!(client.ask(request("GET", "/api/v1/endpoint/iris/ws", &headers, "")).await.status, 101);
    assert_eq!(client.peek(6).await, b"hello ");
    client.send("ping").await;
    assert_eq!(client.peek(10).await, b"hello ping");
    drop(client);
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_without_a_goodbye() {
    let replica = ScriptedReplica::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Close]
    })
    .await;
    let authority = Authority::new();
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = start(&world, &[authority.write("own", &authority.issue(&["models.test"], ECDSA))], |_| {}).await;
    let mut stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    stream.write_all(score("x").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A proper end (close_notify) would be `Ok`: nobody may take what came for the whole.
    stream.read_to_end(&mut answer).await.unwrap_err();
    assert!(String::from_utf8_lossy(&answer).ends_with("part"));
    assert_eq!(router.log(1).await[0]["Outcome"], "stream_broken");
    router.drain().await;
}

#[tokio::test]
async fn a_client_refused_in_the_middle_of_its_body_gets_the_whole_answer_over_tls() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| config.limits.body_bytes_max = 1024).await;
    let mut client = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
    client
        .send(request("POST", "/api/v1/endpoint/iris/score", &["Authorization: Bearer secret-1"], &"x".repeat(300_000)))
        .await;
    let got = client.answer().await;
    assert_eq!((got.status, got.whole), (413, true));
    assert!(client.is_closed().await);
    router.drain().await;
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_are_told_so_over_tls() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router =
        start(&world, &[pair], |config| config.limits.head_timeout = std::time::Duration::from_millis(300)).await;
    let long = format!("Long: {}", "x".repeat(200_000));
    for (bytes, status) in [(request("GET", "/", &[&long], ""), 431), ("GET / HTTP/1.1\r\nHo".to_owned(), 408)] {
        let mut client = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
        client.try_send(bytes).await;
        let got = client.answer().await;
        assert_eq!((got.status, got.whole), (status, true));
        assert!(got.error("message").contains("head"), "{}", got.text());
        assert!(client.is_closed().await);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_client_over_tls_that_does_not_read_is_cut_off() {
    let replica = ScriptedReplica::start(|_| ok(&"x".repeat(8 << 20))).await;
    let authority = Authority::new();
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let change = |config: &mut scorefront::control::config::Config| {
        config.limits.body_timeout = std::time::Duration::from_millis(300);
        config.limits.head_timeout = std::time::Duration::from_millis(400);
    };
    let router = start(&world, &[pair], change).await;
    let mut stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    stream.write_all(score("x").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(router.log(1).await[0]["Outcome"], "client_gone");
    router.drain().await;
}
