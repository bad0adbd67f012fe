//! Connections that idle: after a while they hold nothing but their sockets, and nobody sees a difference.

use std::time::Duration;

use scorefront::testing::client::{Client, request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::ScriptedReplica;
use scorefront::testing::router::Router;

use crate::tls::echo;
use crate::tls::peer::{Authority, ECDSA, connect, start};

async fn rests(router: &Router, connections: f64) {
    eventually("so many rest", async || router.metric("scorefront_resting_connections").await == connections).await;
}

/// A connection idles for a quarter of `head` before it rests.
async fn begin(head: Duration, idle: Duration) -> (ScriptedReplica, Router) {
    let (replica, world) = echo().await;
    let router = Router::start_with(&world, |config| {
        config.limits.head_timeout = head;
        config.limits.idle_timeout = idle;
    })
    .await;
    (replica, router)
}

const LONG: Duration = Duration::from_secs(100);

#[tokio::test]
async fn a_connection_at_rest_is_used_as_before_again_and_again() {
    let (_replica, router) = begin(Duration::from_secs(8), LONG).await;
    let mut client = router.client().await;
    for round in ["[1]", "[2]"] {
        assert_eq!(client.ask(score(round)).await.text(), round);
        rests(&router, 1.0).await;
    }
    // A head in two parts, the first of which ends the rest.
    let asked = score("[3]");
    let (first, second) = asked.split_at(30);
    client.send(first).await;
    rests(&router, 0.0).await;
    client.send(second).await;
    assert_eq!(client.answer().await.text(), "[3]");
    rests(&router, 1.0).await;
    assert_eq!(client.ask(request("GET", "/", &[], "")).await.status, 200);
    assert_eq!(router.log(4).await.len(), 4);
    assert_eq!(router.metric("scorefront_connections_accepted_total").await, 1.0);
    drop(client);
    eventually("its end is seen", async || router.metric("scorefront_connections").await == 0.0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_is_never_finished_after_a_rest_is_timed_as_any() {
    let (_replica, router) = begin(Duration::from_secs(2), LONG).await;
    let mut client = router.client().await;
    assert_eq!(client.ask(score("[1]")).await.status, 200);
    rests(&router, 1.0).await;
    client.send("POST /api").await;
    assert_eq!(client.answer().await.status, 408);
    assert!(client.is_closed().await);
    router.drain().await;
}

#[tokio::test]
async fn a_rest_ends_with_the_idle_time_or_with_the_router() {
    for idle in [Duration::from_secs(1), LONG] {
        let (_replica, router) = begin(Duration::from_secs(2), idle).await;
        let mut client = router.client().await;
        assert_eq!(client.ask(score("[1]")).await.status, 200);
        if idle == LONG {
            rests(&router, 1.0).await;
            let ((), is_closed) = tokio::join!(router.drain(), client.is_closed());
            assert!(is_closed);
        } else {
            assert!(client.is_closed().await);
            router.drain().await;
        }
    }
}

#[tokio::test]
async fn a_connection_with_tls_rests_too() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = start(&world, &[pair], |config| config.limits.head_timeout = Duration::from_secs(2)).await;
    let mut client = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
    for round in ["[1]", "[2]"] {
        assert_eq!(client.ask(score(round)).await.text(), round);
        rests(&router, 1.0).await;
    }
    router.drain().await;
}
