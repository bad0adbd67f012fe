//! TLS towards replicas: who is believed, what becomes of a request where nobody is, and what TLS must not change.

use std::time::Duration;

use scorefront::testing::client::{Answer, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Seen, Step, answer, ok, ok_and_close};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::tls::peer::{Authority, ECDSA, RSA};

const NAME: &str = "replicas.test";
const ASKS: [(&str, &str); 3] =
    [("replica-tls-ca-secret", "ca"), ("replica-tls-server-name", NAME), ("max-concurrent-requests-per-instance", "0")];

/// A replica whose certificate this authority has made for [`NAME`].
async fn replica(
    authority: &Authority,
    script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
) -> ScriptedReplica {
    ScriptedReplica::start_tls(authority.issue(&[NAME], ECDSA).server(rustls::ALL_VERSIONS), script).await
}

fn echo(seen: &Seen) -> Vec<Step> {
    ok(&String::from_utf8_lossy(&seen.body))
}

/// A world with these authorities in it.
fn world(authorities: &[&Authority], replicas: &[&ScriptedReplica]) -> World {
    let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    World::new().authorities("ca", &pem).deployment("blue", &ASKS, &addresses)
}

async fn ask(router: &Router) -> Answer {
    router.client().await.ask(score("x")).await
}

async fn handshakes(router: &Router, result: &str) -> f64 {
    router.metric(&format!("scorefront_upstream_tls_handshakes_total{{result=\"{result}\"}}")).await
}

/// Refused without a byte of the request on its way, and the message says why.
async fn is_not_believed(router: &Router, words: &str) {
    let got = ask(router).await;
    assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaConnectFailed"));
    assert!(got.error("message").contains(words), "{} instead of {words}", got.error("message"));
    let is_it = |line: &Value| {
        line["Outcome"] == "connect_failed" && line["ErrorDetail"].as_str().is_some_and(|detail| detail.contains(words))
    };
    eventually("it is in the log", async || router.log(1).await.iter().any(is_it)).await;
}

/// What `/debug/snapshot` says of TLS of the deployment, and of problems with it.
async fn debug(router: &Router) -> (Value, Vec<String>) {
    let (_, page) = router.admin("/debug/snapshot").await;
    let page: Value = serde_json::from_str(&page).unwrap();
    let problems = page["problems"].as_array().unwrap().iter();
    let problems = problems.map(|problem| format!("{} {}", problem["field"], problem["message"])).collect();
    (page["endpoints"][0]["deployments"][0]["replica_tls"].clone(), problems)
}

#[tokio::test]
async fn requests_are_served_over_tls_of_both_versions_on_connections_that_are_used_again() {
    let authority = Authority::new();
    for (version, algorithm) in [(&rustls::version::TLS12, RSA), (&rustls::version::TLS13, ECDSA)] {
        let server = authority.issue(&["iris-blue.models.svc"], algorithm).server(&[version]);
        let replica = ScriptedReplica::start_tls(server, echo).await;
        let world = World::new().authorities("ca", &authority.pem());
        let world = world.deployment("blue", &[("replica-tls-ca-secret", "ca")], &[replica.address]);
        let router = Router::start(&world).await;
        let mut client = router.client().await;
        let long = "b".repeat(1 << 20);
        for body in ["one", "two", &long] {
            let got = client.ask(score(body)).await;
            assert!((got.status, got.text().as_str()) == (200, body), "{}", got.head);
        }
        assert_eq!(replica.connections(), 1);
        assert_eq!((handshakes(&router, "full").await, handshakes(&router, "resumed").await), (1.0, 0.0));
        let (tls, problems) = debug(&router).await;
        assert_eq!(tls, serde_json::json!({"server_name": "iris-blue.models.svc", "authorities": 1}));
        assert_eq!(problems, [""; 0]);
        router.drain().await;
    }
}

#[tokio::test]
async fn sessions_are_resumed_with_replicas_that_close_after_each_answer() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let start = async || {
            let server = authority.issue(&[NAME], ECDSA).server(&[version]);
            ScriptedReplica::start_tls(server, |seen| ok_and_close(&String::from_utf8_lossy(&seen.body))).await
        };
        let (one, two) = (start().await, start().await);
        let router = Router::start(&world(&[&authority], &[&one, &two])).await;
        let mut client = router.client().await;
        for _ in 0..12 {
            assert_eq!(client.ask(score("x")).await.status, 200);
        }
        assert_eq!(one.connections() + two.connections(), 12);
        let asked = [&one, &two].iter().filter(|replica| replica.connections() > 0).count() as f64;
        // One for each: what one remembers of the router says nothing to the other.
        assert_eq!(handshakes(&router, "full").await, asked);
        assert_eq!(handshakes(&router, "resumed").await, 12.0 - asked);
        router.drain().await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let replica = replica(&stranger, echo).await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    is_not_believed(&router, "not from an authority in the ca.crt that replica-tls-ca-secret names").await;
    assert!(handshakes(&router, "failed").await >= 1.0);
    assert_eq!((replica.seen().len(), handshakes(&router, "full").await), (0, 0.0));
    router.drain().await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = authority.issue(&["other.test"], ECDSA).server(rustls::ALL_VERSIONS);
    let replica = ScriptedReplica::start_tls(server, echo).await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    is_not_believed(&router, "its certificate is not for replicas.test").await;
    assert_eq!(replica.seen().len(), 0);
    router.drain().await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let authority = Authority::new();
    let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let server = authority.sign(params, ECDSA).server(rustls::ALL_VERSIONS);
    let replica = ScriptedReplica::start_tls(server, echo).await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    is_not_believed(&router, "its certificate has expired").await;
    router.drain().await;
}

#[tokio::test]
async fn a_certificate_for_an_address_is_believed_where_that_is_asked_for() {
    let authority = Authority::new();
    let server = authority.issue(&["127.0.0.1"], ECDSA).server(rustls::ALL_VERSIONS);
    let replica = ScriptedReplica::start_tls(server, echo).await;
    let settings = [("replica-tls-ca-secret", "ca"), ("replica-tls-server-name", "127.0.0.1")];
    let world = World::new().authorities("ca", &authority.pem()).deployment("blue", &settings, &[replica.address]);
    let router = Router::start(&world).await;
    assert_eq!(ask(&router).await.text(), "x");
    router.drain().await;
}

#[tokio::test]
async fn a_replica_without_tls_learns_nothing_of_a_request_and_the_message_says_what_it_is() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new().authorities("ca", &authority.pem());
    let world = world.deployment("blue", &ASKS, &[listener.local_addr().unwrap()]);
    let router = Router::start(&world).await;
    let plain = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.write_all(&answer(400, &[], "what is this?")).await.unwrap();
            // Kept open until the other side has read it.
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        }
    });
    is_not_believed(&router, "it does not speak TLS on this port").await;
    plain.abort();
    router.drain().await;
}

#[tokio::test]
async fn a_replica_that_never_answers_the_handshake_costs_no_more_than_the_connect_timeout() {
    let authority = Authority::new();
    // It waits for the end of a head, which never comes.
    let replica = ScriptedReplica::start(echo).await;
    let change = |config: &mut scorefront::control::config::Config| {
        config.limits.connect_timeout = Duration::from_millis(50);
    };
    let settings = [ASKS[0], ("request-timeout-ms", "60000")];
    let world = World::new().authorities("ca", &authority.pem()).deployment("blue", &settings, &[replica.address]);
    let router = Router::start_with(&world, change).await;
    is_not_believed(&router, "connect-timeout-ms passed before the TLS handshake was over").await;
    assert!(handshakes(&router, "given_up").await >= 1.0);
    eventually("no socket is left", async || replica.open() == 0).await;
    assert!(replica.seen().is_empty());
    router.drain().await;
}

#[tokio::test]
async fn a_replica_that_is_not_believed_is_left_out_and_the_others_serve() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (good, bad) = (replica(&authority, echo).await, replica(&stranger, echo).await);
    let router = Router::start(&world(&[&authority], &[&bad, &good])).await;
    let mut client = router.client().await;
    for _ in 0..40 {
        assert_eq!(client.ask(score("x")).await.status, 200);
    }
    let labels = "{form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\"}";
    assert_eq!(router.metric(&format!("scorefront_ejections_total{labels}")).await, 1.0);
    assert_eq!((handshakes(&router, "failed").await, bad.seen().len()), (3.0, 0));
    router.drain().await;
}

#[tokio::test]
async fn authorities_that_change_count_for_connections_that_are_there_too() {
    let (authority, other) = (Authority::new(), Authority::new());
    let replica = replica(&authority, echo).await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    assert_eq!(ask(&router).await.status, 200);
    router.change(&world(&[&other], &[&replica])).await;
    is_not_believed(&router, "not from an authority").await;
    assert_eq!(replica.connections(), 1, "the old connection is not used");
    router.change(&world(&[&other, &authority], &[&replica])).await;
    eventually("it is believed again", async || ask(&router).await.status == 200).await;
    assert!(replica.connections() >= 2);
    let connections = replica.connections();
    // The same authorities in a Secret that was written again are the same.
    router.rewrite(&world(&[&other, &authority], &[&replica]).deployment("green", &[], &[]));
    eventually("green is there", async || router.snapshot.load().endpoints().any(|e| e.deployments.len() == 2)).await;
    let named = ["Authorization: Bearer secret-1", "azureml-model-deployment: blue"];
    let got = router.client().await.ask(request("POST", "/api/v1/endpoint/iris/score", &named, "x")).await;
    assert_eq!((got.status, replica.connections()), (200, connections));
    router.drain().await;
}

#[tokio::test]
async fn without_authorities_every_request_is_refused_and_nothing_goes_out_without_tls() {
    let authority = Authority::new();
    let (plain, secured) = (ScriptedReplica::start(echo).await, replica(&authority, echo).await);
    let missing = |replica: &ScriptedReplica| World::new().deployment("blue", &ASKS, &[replica.address]);
    let router = Router::start(&missing(&plain)).await;
    for _ in 0..3 {
        let got = ask(&router).await;
        let message = got.error("message");
        assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaConnectFailed"));
        assert!(message.contains("scorefront.dev/replica-tls-ca-secret"), "{message}");
        assert!(message.contains("no Secret models/ca"), "{message}");
    }
    assert_eq!(router.log(3).await[0]["Attempts"], 0);
    let (tls, problems) = debug(&router).await;
    assert!(tls["closed"].as_str().unwrap().contains("models/ca"), "{tls}");
    assert!(problems.len() == 1 && problems[0].contains("every request to the deployment is refused"), "{problems:?}");
    // The Secret comes, goes while there is an idle connection, and comes without what is needed.
    router.change(&world(&[&authority], &[&secured])).await;
    assert_eq!(ask(&router).await.status, 200);
    router.change(&missing(&secured)).await;
    assert_eq!(ask(&router).await.status, 502);
    router.change(&missing(&secured).authorities("ca", "no certificate")).await;
    assert!(ask(&router).await.error("message").contains("ca.crt of Secret models/ca cannot be used"));
    assert_eq!((plain.connections(), secured.connections()), (0, 1));
    // Without the annotations it is a deployment like any other.
    router.change(&World::new().deployment("blue", &[], &[plain.address])).await;
    assert_eq!(ask(&router).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn a_wrong_or_lonely_annotation_closes_the_deployment() {
    let replica = ScriptedReplica::start(echo).await;
    for (settings, words) in [
        ([("replica-tls-ca-secret", "Not/A/Name")], "has a value that is not allowed"),
        ([("replica-tls-server-name", "*.wild.test")], "has a value that is not allowed"),
        ([("replica-tls-server-name", NAME)], "is missing, and replica-tls-server-name alone makes no TLS"),
    ] {
        let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
        let got = ask(&router).await;
        assert!(got.status == 502 && got.error("message").contains(words), "{}", got.error("message"));
        router.drain().await;
    }
    assert_eq!(replica.connections(), 0);
}

#[tokio::test]
async fn an_answer_without_a_length_is_whole_only_if_the_replica_says_goodbye() {
    let authority = Authority::new();
    let replica = replica(&authority, |seen| {
        let end = if seen.body == b"whole" { Step::Close } else { Step::Cut };
        vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\nscore".to_vec()), end]
    })
    .await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    let whole = router.client().await.ask(score("whole")).await;
    assert_eq!((whole.status, whole.text().as_str(), whole.whole), (200, "score", true));
    let cut = router.client().await.ask(score("cut")).await;
    assert_eq!((cut.status, cut.whole), (200, false));
    let log = router.log(2).await;
    assert_eq!((log[0]["Outcome"].as_str(), log[1]["Outcome"].as_str()), (Some("served"), Some("stream_broken")));
    router.drain().await;
}

#[tokio::test]
async fn a_connection_that_ends_between_answers_is_stale_with_a_goodbye_or_without() {
    let authority = Authority::new();
    for end in [Step::Close, Step::Cut] {
        let ending = end.clone();
        let replica = replica(&authority, move |_| vec![Step::Send(answer(200, &[], "score")), ending.clone()]).await;
        let router = Router::start(&world(&[&authority], &[&replica])).await;
        let mut client = router.client().await;
        for _ in 0..10 {
            let got = client.ask(score("x")).await;
            assert!((got.status, got.text().as_str(), got.whole) == (200, "score", true), "{end:?}: {}", got.head);
        }
        router.drain().await;
    }
}

#[tokio::test]
async fn upgraded_connections_pass_over_tls() {
    let authority = Authority::new();
    let replica = replica(&authority, |_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Echo]
    })
    .await;
    let router = Router::start(&world(&[&authority], &[&replica])).await;
    let mut client = router.client().await;
    let headers = ["Authorization: Bearer secret-1", "Connection: Upgrade", "Upgrade: websocket"];
    let got = client.ask(request("GET", "/api/v1/endpoint/iris/ws", &headers, "")).await;
    assert_eq!((got.status, got.header("upgrade")), (101, Some("websocket")));
    assert_eq!(client.peek(6).await, b"hello ");
    client.send("ping").await;
    assert_eq!(client.peek(10).await, b"hello ping");
    drop(client);
    let line = router.log(1).await.remove(0);
    assert_eq!((line["Outcome"].clone(), line["ResponsePayloadSize"].clone()), ("served".into(), 10.into()));
    router.drain().await;
}

#[tokio::test]
async fn copies_go_over_tls_and_never_without() {
    let authority = Authority::new();
    let primary = ScriptedReplica::start(echo).await;
    let (shadow, plain) = (replica(&authority, echo).await, ScriptedReplica::start(echo).await);
    let mirrored = |shadow: &ScriptedReplica, world: World| {
        let asks: Vec<_> = ASKS.into_iter().chain([("traffic-percent", "0"), ("mirror-percent", "50")]).collect();
        let shares = [("traffic-percent", "100"), ("max-concurrent-requests-per-instance", "0")];
        world.deployment("blue", &shares, &[primary.address]).deployment("shadow", &asks, &[shadow.address])
    };
    let router = Router::start(&mirrored(&shadow, World::new().authorities("ca", &authority.pem()))).await;
    eventually("a copy has come", async || ask(&router).await.status == 200 && !shadow.seen().is_empty()).await;
    router.change(&mirrored(&plain, World::new())).await;
    let labels = "form=\"endpoint\",endpoint=\"iris\",deployment=\"shadow\",status=\"\",result=\"skipped\"";
    let skipped = format!("scorefront_mirrored_requests_total{{{labels}}}");
    let before = router.metric(&skipped).await;
    eventually("a copy is skipped", async || {
        ask(&router).await.status == 200 && router.metric(&skipped).await > before
    })
    .await;
    assert_eq!(plain.connections(), 0);
    router.drain().await;
}

#[tokio::test]
async fn workers_share_what_is_remembered_of_sessions() {
    let authority = Authority::new();
    let replica = replica(&authority, |_| ok_and_close("score")).await;
    let router = Router::start_with(&world(&[&authority], &[&replica]), |config| config.workers = 2).await;
    for _ in 0..8 {
        assert_eq!(ask(&router).await.status, 200);
    }
    assert_eq!((handshakes(&router, "full").await, handshakes(&router, "resumed").await), (1.0, 7.0));
    router.drain().await;
}
