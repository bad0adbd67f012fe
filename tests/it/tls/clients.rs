//! Certificates of clients, and what replicas and the access log learn from them.

use std::sync::Arc;

use scorefront::control::config::{ClientAuth, Config};
use scorefront::testing::client::{Client, request, score};
use scorefront::testing::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::echo;
use super::peer::{Authority, ECDSA, Issued, connect, connect_as, start};

const SPIFFE: &str = "spiffe://cluster/ns/batch/sa/nightly";

/// Puts the authorities for clients in place.
fn ask_clients(authority: &Authority, auth: ClientAuth) -> impl FnOnce(&mut Config) {
    let file = authority.write_root();
    move |config| {
        config.tls.client_ca = Some(file);
        config.tls.client_auth = auth;
    }
}

fn with_own(authority: &Authority, own: &Issued) -> rustls::ClientConfig {
    authority.client(rustls::ALL_VERSIONS, &["http/1.1"], Some(own))
}

/// Whether the router serves a client with this configuration. With TLS 1.3 a client learns only afterwards that its
/// certificate was refused.
async fn is_served(address: std::net::SocketAddr, config: rustls::ClientConfig) -> bool {
    let Ok(mut stream) = connect(address, "models.test", config).await else { return false };
    let mut answer = [0; 12];
    stream.write_all(score("x").as_bytes()).await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"HTTP/1.1 200"
}

#[tokio::test]
async fn a_required_certificate_must_be_there_and_be_valid() {
    let (_replica, world) = echo().await;
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], ask_clients(&clients, ClientAuth::Required)).await;
    let [known, stranger] = [&clients, &strangers].map(|of| of.issue_client("client-7", &[]));
    assert!(is_served(router.tls(), with_own(&authority, &known)).await);
    assert!(!is_served(router.tls(), with_own(&authority, &stranger)).await);
    assert!(!is_served(router.tls(), authority.plain_client()).await);
    let mut expired = rcgen::CertificateParams::default();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = clients.sign(expired, ECDSA);
    assert!(!is_served(router.tls(), with_own(&authority, &expired)).await);
    let failed = "scorefront_tls_handshakes_total{result=\"failed\"}";
    eventually("all three are counted", async || router.metric(failed).await == 3.0).await;
    router.drain().await;
}

#[tokio::test]
async fn where_certificates_are_accepted_a_client_may_have_none_but_not_an_invalid_one() {
    let (replica, world) = echo().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], ask_clients(&clients, ClientAuth::Accepted)).await;
    assert!(is_served(router.tls(), authority.plain_client()).await);
    assert!(is_served(router.tls(), with_own(&authority, &clients.issue_client("client-7", &[]))).await);
    assert!(!is_served(router.tls(), with_own(&authority, &authority.issue_client("client-7", &[]))).await);
    let seen = replica.seen();
    assert_eq!(seen[0].header("x-forwarded-client-cert"), None);
    assert!(seen[1].header("x-forwarded-client-cert").unwrap().ends_with(";Subject=\"CN=client-7\""));
    let log = router.log(2).await;
    let identities: Vec<_> = log.iter().map(|line| line["ClientCertificate"].as_str()).collect();
    assert!(identities.contains(&None) && identities.contains(&Some("CN=client-7")), "{identities:?}");
    router.drain().await;
}

#[tokio::test]
async fn the_identity_goes_to_replica_and_log_and_cannot_be_forged() {
    let (replica, world) = echo().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], ask_clients(&clients, ClientAuth::Accepted)).await;
    let forged = [
        "Authorization: Bearer secret-1",
        "X-Forwarded-Client-Cert: Subject=\"CN=admin\"",
        "X_Forwarded_Client_Cert: Subject=\"CN=admin\"",
        "x-forwarded-client-cert: Subject=\"CN=root\"",
    ];
    let forging = request("POST", "/api/v1/endpoint/iris/score", &forged, "x");
    let own = clients.issue_client("client-7", &[SPIFFE]);
    let stream = connect(router.tls(), "models.test", with_own(&authority, &own)).await.unwrap();
    assert_eq!(Client::over(stream).ask(&forging).await.status, 200);
    let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
    assert_eq!(Client::over(stream).ask(&forging).await.status, 200);
    assert_eq!(router.client().await.ask(&forging).await.status, 200);
    let seen = replica.seen();
    let value = seen[0].header("x-forwarded-client-cert").unwrap();
    assert!(value.ends_with(&format!(";Subject=\"CN=client-7\";URI={SPIFFE}")), "{value}");
    for seen in &seen {
        assert!(!seen.head.contains("CN=admin") && !seen.head.contains("CN=root"), "{}", seen.head);
    }
    assert_eq!([1, 2].map(|n| seen[n].header("x-forwarded-client-cert")), [None, None]);
    assert_eq!(router.log(3).await[0]["ClientCertificate"], SPIFFE);
    router.drain().await;
}

#[tokio::test]
async fn authorities_are_replaced_while_the_router_runs_for_resumed_sessions_too() {
    let (_replica, world) = echo().await;
    let (authority, clients, later) = (Authority::new(), Authority::new(), Authority::new());
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let file = clients.write_root();
    let router = start(&world, &[pair], ask_clients(&clients, ClientAuth::Required)).await;
    let old = Arc::new(with_own(&authority, &clients.issue_client("client-7", &[])));
    let ask = async |config: &Arc<rustls::ClientConfig>| {
        let stream = connect_as(router.tls(), "models.test", config.clone()).await.ok()?;
        let kind = stream.get_ref().1.handshake_kind();
        let mut client = Client::over(stream);
        let sent = client.try_send(score("x")).await;
        if sent { client.try_answer().await.map(|answer| (kind, answer.status)) } else { None }
    };
    assert_eq!(ask(&old).await, Some((Some(rustls::HandshakeKind::Full), 200)));
    assert_eq!(ask(&old).await, Some((Some(rustls::HandshakeKind::Resumed), 200)));
    let new = with_own(&authority, &later.issue_client("client-8", &[]));
    std::fs::copy(later.write_root(), &file).unwrap();
    eventually("the new authority counts", async || is_served(router.tls(), new.clone()).await).await;
    assert_eq!(ask(&old).await, None);
    router.drain().await;
}
