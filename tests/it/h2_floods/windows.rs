//! Windows that stay shut, open byte by byte, or overflow.

use std::time::Duration;

use scorefront::testing::replica::{ScriptedReplica, Seen, ok};
use scorefront::testing::router::Router;

use super::{Attacker, DATA, END_BOTH, ask, besiege, count, is_at_rest, setting, start, update, world};
use crate::downgrade::{HEADERS, REQUEST, RESET, block, frame};

const FLOW_CONTROL_ERROR: u32 = 3;
const STREAMS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// What the endpoint answers to those who ask for much.
const LARGE: usize = 300 << 10;

/// Answers that fit into no window to those on HTTP/2, and small ones to others.
async fn start_large(idle_frames_max: u32) -> (ScriptedReplica, Router) {
    let script = |seen: &Seen| {
        if seen.header("x-large").is_some() { ok(&"x".repeat(LARGE)) } else { ok("fine") }
    };
    let replica = ScriptedReplica::start(script).await;
    let router = Router::start_with(&world(&replica), |config| {
        config.limits.body_timeout = Duration::from_millis(300);
        config.limits.head_timeout = Duration::from_secs(1);
        config.limits.idle_frames_max = idle_frames_max;
    })
    .await;
    (replica, router)
}

fn ask_for_much() -> Vec<u8> {
    let fields = [REQUEST, &[("x-large", "1")]].concat();
    let block = block(&fields);
    STREAMS.iter().flat_map(|&stream| frame(HEADERS, END_BOTH, stream, &block)).collect()
}

/// Waits until each of the streams was reset.
async fn are_reset(attacker: &mut Attacker) {
    let mut reset = Vec::new();
    while reset.len() < STREAMS.len() {
        reset.push(attacker.wait_for(RESET).await.stream);
    }
    reset.sort_unstable();
    assert_eq!(reset, STREAMS);
}

#[tokio::test]
async fn streams_whose_window_stays_shut_are_reset_and_give_their_slots_back() {
    let (_replica, router) = start_large(1000).await;
    besiege(&router, async || {
        let mut attacker = Attacker::connect(&router, &setting(4, 0)).await;
        attacker.send(&ask_for_much()).await;
        are_reset(&mut attacker).await;
        // The connection goes on: it may open its window after all.
        attacker.send(&[ask(13, END_BOTH), update(13, 100)].concat()).await;
        assert_eq!(attacker.wait_for(DATA).await.payload, b"fine");
    })
    .await;
    assert!(count(&router, 499, "client_gone").await >= STREAMS.len() as f64);
    router.drain().await;
}

#[tokio::test]
async fn streams_of_a_connection_whose_window_is_used_up_are_reset() {
    let (_replica, router) = start_large(1000).await;
    besiege(&router, async || {
        // Room on each stream, but only the first 65,535 bytes of the connection.
        let mut attacker = Attacker::connect(&router, &setting(4, 1 << 30)).await;
        attacker.send(&ask_for_much()).await;
        are_reset(&mut attacker).await;
    })
    .await;
    router.drain().await;
}

#[tokio::test]
async fn windows_that_open_byte_by_byte_end_the_connection() {
    let (_replica, router) = start_large(1000).await;
    besiege(&router, async || {
        let mut attacker = Attacker::connect(&router, &setting(4, 0)).await;
        attacker.send(&ask_for_much()).await;
        // As fast as the router takes them: so that no stream is ever without anything for long.
        attacker.flood(STREAMS.iter().flat_map(|&stream| update(stream, 1)).collect()).await;
    })
    .await;
    assert!(router.vitals.connections.flooded.read() > 0);
    router.drain().await;
}

#[tokio::test]
async fn a_stream_whose_window_opens_by_a_byte_now_and_then_is_reset() {
    let (_replica, router) = start_large(1_000_000).await;
    let mut attacker = Attacker::connect(&router, &setting(4, 0)).await;
    attacker.send(&ask_for_much()).await;
    let mut reset = 0;
    while reset < STREAMS.len() {
        let frame = attacker.hear().await.expect("the connection goes on");
        match frame.kind {
            // One byte for each: a piece of an answer takes more turns than fit into the time.
            HEADERS | DATA => attacker.send(&update(frame.stream, 1)).await,
            RESET => reset += 1,
            _ => {}
        }
    }
    drop(attacker);
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_window_that_overflows_ends_the_connection() {
    let (_replica, router) = start().await;
    besiege(&router, async || {
        let attacker = Attacker::connect(&router, &[]).await;
        let said = attacker.send_and_end(&update(0, 0x7fff_ffff).repeat(2)).await;
        assert_eq!(said, Some(FLOW_CONTROL_ERROR));
    })
    .await;
    router.drain().await;
}
