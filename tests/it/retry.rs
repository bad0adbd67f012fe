//! What is tried again, what is not, and which replicas are left out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scorefront::testing::client::score;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::net::TcpSocket;

/// An address where nobody listens, nor can, for as long as this lives: a port that were only free would soon be taken
/// by a router or a replica of another test.
struct Nobody {
    address: SocketAddr,
    _bound: TcpSocket,
}

fn nobody() -> Nobody {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has a free port");
    Nobody { address: socket.local_addr().expect("a bound socket has an address"), _bound: socket }
}

#[tokio::test]
async fn a_refused_connect_goes_to_another_replica_and_the_bad_one_is_left_out() {
    let replica = ScriptedReplica::start(|_| ok("alive")).await;
    let dead = nobody();
    let router = Router::start(&World::new().deployment("blue", &[], &[dead.address, replica.address])).await;
    let mut client = router.client().await;
    for n in 0..40 {
        let got = client.ask(score(&n.to_string())).await;
        assert_eq!((got.status, got.text().as_str()), (200, "alive"));
    }
    let lines = router.log(40).await;
    let twice = lines.iter().filter(|line| line["Attempts"] == 2).count();
    assert_eq!(twice, 3, "after three failures in a row it is asked no more for a while");
    let labels = "{form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\"}";
    assert_eq!(router.metric(&format!("scorefront_retries_total{labels}")).await, 3.0);
    assert_eq!(router.metric(&format!("scorefront_ejections_total{labels}")).await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn no_replica_is_tried_twice_while_there_is_one_that_was_not_tried() {
    let replica = ScriptedReplica::start(|_| ok("alive")).await;
    let dead = [nobody(), nobody()];
    for slots in ["1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "4", "4", "4", "4", "4", "0", "0", "0", "0", "0"] {
        // As many attempts as replicas: one of them wasted on a replica that was tried before is one too few.
        let settings = [("max-concurrent-requests-per-instance", slots)];
        let addresses = [dead[0].address, dead[1].address, replica.address];
        let router = Router::start(&World::new().deployment("blue", &settings, &addresses)).await;
        let got = router.client().await.ask(score("")).await;
        assert_eq!((got.status, got.text().as_str()), (200, "alive"), "with {slots} slots");
        router.drain().await;
    }
}

#[tokio::test]
async fn a_lone_replica_that_cannot_be_reached_is_named() {
    let dead = nobody();
    let router = Router::start(&World::new().deployment("blue", &[], &[dead.address])).await;
    let got = router.client().await.ask(score("")).await;
    assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaConnectFailed"));
    assert!(got.error("message").contains("iris-blue-0"), "{}", got.error("message"));
    assert_eq!(router.log(1).await[0]["Attempts"], 3);
    router.drain().await;
}

/// Answers the first request of each connection, and dies on the second one without a byte.
async fn dies_when_reused() -> ScriptedReplica {
    let used = Arc::new(dashmap::DashMap::new());
    ScriptedReplica::start(
        move |seen| {
            if used.insert(seen.connection, ()).is_some() { vec![Step::Reset] } else { ok("first") }
        },
    )
    .await
}

#[tokio::test]
async fn a_reused_connection_that_died_is_tried_again() {
    let replica = dies_when_reused().await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("a")).await.status, 200);
    let got = client.ask(score("b")).await;
    assert_eq!((got.status, got.text().as_str()), (200, "first"));
    assert_eq!(router.log(2).await[1]["Attempts"], 2);
    let bodies: Vec<Vec<u8>> = replica.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"a", b"b", b"b"], "the body is sent again whole");
    router.drain().await;
}

#[tokio::test]
async fn where_one_idle_connection_died_the_others_are_not_tried() {
    let replica = dies_when_reused().await;
    let settings = [("max-concurrent-requests-per-instance", "0")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    // Several connections idle at a time: all of them will die when they are used again.
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(router.client().await);
    }
    for client in &mut clients {
        client.send(score("a")).await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    let got = clients[0].ask(score("b")).await;
    assert_eq!((got.status, got.text().as_str()), (200, "first"));
    assert_eq!(router.log(6).await[5]["Attempts"], 2);
    router.drain().await;
}

#[tokio::test]
async fn scripts_with_side_effects_can_refuse_to_be_asked_twice() {
    let replica = dies_when_reused().await;
    let settings = [("retry-reused", "false")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("a")).await.status, 200);
    let got = client.ask(score("b")).await;
    assert_eq!(got.status, 502);
    assert!(got.error("message").starts_with("Replica closed connection before replying"));
    router.drain().await;
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_not_sent_twice() {
    let replica = dies_when_reused().await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("a")).await.status, 200);
    let got = client.ask(score(&"x".repeat(200_000))).await;
    assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaClosedConnection"));
    router.drain().await;
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let replica = ScriptedReplica::start(|_| vec![Step::Close]).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let got = client.ask(score("")).await;
    assert_eq!(got.status, 502);
    assert!(got.error("message").starts_with("Replica closed connection before replying"));
    assert_eq!(replica.seen().len(), 1);
    router.drain().await;
}

#[tokio::test]
async fn nonsense_from_a_replica_is_never_passed_on() {
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        let replica =
            ScriptedReplica::start(move |_| vec![Step::Send(nonsense.as_bytes().to_vec()), Step::Close]).await;
        let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
        let got = router.client().await.ask(score("")).await;
        assert_eq!((got.status, got.error("code").as_str()), (502, "ReplicaClosedConnection"), "{nonsense}");
        assert_eq!(replica.seen().len(), 1);
        router.drain().await;
    }
}

#[tokio::test]
async fn a_replica_that_comes_back_is_used_again() {
    let dead = Arc::new(AtomicBool::new(false));
    let script = dead.clone();
    let replica =
        ScriptedReplica::start(move |_| if script.load(Ordering::SeqCst) { vec![Step::Close] } else { ok("up") }).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    dead.store(true, Ordering::SeqCst);
    assert_eq!(client.ask(score("")).await.status, 502);
    dead.store(false, Ordering::SeqCst);
    assert_eq!(client.ask(score("")).await.text(), "up");
    router.drain().await;
}
