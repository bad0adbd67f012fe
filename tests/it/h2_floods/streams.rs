//! Streams that are opened and reset, opened and left, or opened beyond what is allowed.

use std::sync::Arc;

use scorefront::testing::client::request;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

use super::{
    Attacker, DATA, END_BOTH, END_HEADERS, ENHANCE_YOUR_CALM, ask, besiege, count, is_at_rest, reset, setting, start,
    start_with, update,
};
use crate::downgrade::{HEADERS, RESET, SETTINGS, frame};
use crate::tls::peer::{Authority, ECDSA, connect};

/// The error code of HTTP/2 for a stream that is one too many.
const REFUSED_STREAM: u32 = 7;

/// The ids of so many streams of a client.
fn ids(streams: u32) -> impl Iterator<Item = u32> {
    (0..streams).map(|number| 2 * number + 1)
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_for_over_and_over_is_ended() {
    let (_replica, router) = start().await;
    let rapid: Vec<u8> = ids(20_000).flat_map(|stream| [ask(stream, END_BOTH), reset(stream)].concat()).collect();
    besiege(&router, async || {
        let said = Attacker::connect(&router, &[]).await.flood(rapid.clone()).await;
        assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn over_tls_such_a_client_is_ended_too() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router = crate::tls::peer::start(&super::world(&replica), &[pair], |_| {}).await;
    let rapid: Vec<u8> = ids(20_000).flat_map(|stream| [ask(stream, END_BOTH), reset(stream)].concat()).collect();
    besiege(&router, async || {
        let config = authority.client(rustls::ALL_VERSIONS, &["h2"], None);
        let stream = connect(router.tls(), "models.test", config).await.unwrap();
        let said = Attacker::over(stream, &[]).await.flood(rapid.clone()).await;
        assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn resets_within_one_read_are_answered_with_a_reason() {
    let (replica, router) = start().await;
    let rapid: Vec<u8> = ids(30).flat_map(|stream| [ask(stream, END_BOTH), reset(stream)].concat()).collect();
    assert_eq!(Attacker::connect(&router, &[]).await.send_and_end(&rapid).await, Some(ENHANCE_YOUR_CALM));
    assert!(replica.seen().is_empty());
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_makes_the_router_reset_its_streams_is_ended() {
    let (_replica, router) = start().await;
    // A window that overflows is an error of the stream: the router resets it, and would take the next one.
    let tricks: Vec<u8> =
        ids(10_000).flat_map(|stream| [ask(stream, END_HEADERS), update(stream, 0x7fff_ffff)].concat()).collect();
    besiege(&router, async || {
        let said = Attacker::connect(&router, &[]).await.flood(tricks.clone()).await;
        assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_one_by_one_and_those_within_it_are_served() {
    let (_replica, router) = start_with(|config| {
        config.limits.streams_max = 8;
        config.limits.body_timeout = std::time::Duration::from_secs(20);
    })
    .await;
    let mut client = Attacker::connect(&router, &[]).await;
    // The router's settings come first; what comes before they are acknowledged is held to them all the same.
    client.wait_for(SETTINGS).await;
    client.send(&frame(SETTINGS, 1, 0, &[])).await;
    client.send(&ids(12).flat_map(|stream| ask(stream, END_HEADERS)).collect::<Vec<u8>>()).await;
    for stream in ids(12).skip(8) {
        let refused = client.wait_for(RESET).await;
        assert_eq!((refused.stream, refused.code()), (stream, REFUSED_STREAM));
    }
    client.send(&ids(8).flat_map(|stream| frame(DATA, super::END_STREAM, stream, b"{}")).collect::<Vec<u8>>()).await;
    let mut answered: Vec<u32> = Vec::new();
    while answered.len() < 8 {
        answered.push(client.wait_for(HEADERS).await.stream);
    }
    answered.sort_unstable();
    assert_eq!(answered, ids(8).collect::<Vec<_>>());
    drop(client);
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_goes_on_opening_streams_beyond_the_limit_is_ended() {
    let (_replica, router) = start_with(|config| config.limits.streams_max = 8).await;
    let many: Vec<u8> = ids(20_000).flat_map(|stream| ask(stream, END_HEADERS)).collect();
    besiege(&router, async || {
        let said = Attacker::connect(&router, &[]).await.flood(many.clone()).await;
        assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn streams_that_are_opened_and_never_finished_end_at_the_body_time_out() {
    let (_replica, router) = start().await;
    besiege(&router, async || {
        let mut attacker = Attacker::connect(&router, &[]).await;
        attacker.send(&ids(100).flat_map(|stream| ask(stream, END_HEADERS)).collect::<Vec<u8>>()).await;
        let mut answered = 0;
        while answered < 100 {
            let frame = attacker.hear().await.expect("the connection goes on");
            answered += usize::from(frame.kind == HEADERS);
        }
    })
    .await;
    assert!(count(&router, 408, "request_too_slow").await >= 100.0);
    router.drain().await;
}

#[tokio::test]
async fn a_window_that_jumps_under_many_open_streams_is_a_flood_like_others() {
    let (_replica, router) = start_with(|config| config.limits.idle_frames_max = 200).await;
    let flips = [setting(4, 0), setting(4, 65_535)].map(|setting| frame(SETTINGS, 0, 0, &setting)).concat();
    besiege(&router, async || {
        let mut attacker = Attacker::connect(&router, &[]).await;
        attacker.send(&ids(20).flat_map(|stream| ask(stream, END_HEADERS)).collect::<Vec<u8>>()).await;
        attacker.flood(flips.repeat(10)).await;
    })
    .await;
    assert!(router.vitals.connections.flooded.read() > 0);
    router.drain().await;
}

#[tokio::test]
async fn data_for_streams_that_are_over_ends_the_connection() {
    let (_replica, router) = start().await;
    besiege(&router, async || {
        let mut attacker = Attacker::connect(&router, &[]).await;
        attacker.send(&ask(1, END_BOTH)).await;
        attacker.wait_for(DATA).await;
        attacker.flood(frame(DATA, 0, 1, &[7; 1000])).await;
    })
    .await;
    assert!(router.vitals.connections.flooded.read() > 0);
    router.drain().await;
}

#[tokio::test]
async fn a_body_in_tiny_pieces_that_nobody_takes_yet_ends_the_connection() {
    let go_on = Arc::new(Semaphore::new(0));
    let wait = go_on.clone();
    let replica = ScriptedReplica::start(move |seen| {
        if seen.header("x-slow").is_some() { [vec![Step::Wait(wait.clone())], ok("slow")].concat() } else { ok("fine") }
    })
    .await;
    let world = World::new().deployment("blue", &[("max-queue-wait-ms", "60000")], &[replica.address]);
    // What waits in line is not read ahead: it stays in the connection.
    let router = Router::start_with(&world, |config| config.limits.replay_bytes_max = 0).await;
    let mut slow = router.client().await;
    slow.send(request("POST", "/api/v1/endpoint/iris/score", &["Authorization: Bearer secret-1", "X-Slow: 1"], ""))
        .await;
    replica.wait_for(1).await;
    let mut attacker = Attacker::connect(&router, &[]).await;
    attacker.send(&ask(1, END_HEADERS)).await;
    router.wait_for_queue("blue", 1).await;
    let said = attacker.flood(frame(DATA, 0, 1, b"x").repeat(10)).await;
    assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    router.wait_for_queue("blue", 0).await;
    go_on.add_permits(1);
    assert_eq!(slow.answer().await.text(), "slow");
    drop(slow);
    is_at_rest(&router).await;
    router.drain().await;
}
