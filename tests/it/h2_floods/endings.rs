//! Why connections ended, as the metric has it, and the limit of streams that a client makes fail.

use std::sync::Arc;
use std::time::Duration;

use scorefront::core::vitals::Http2End;
use scorefront::testing::replica::{ScriptedReplica, Step};
use tokio::sync::Semaphore;

use super::*;

/// Waits until so many connections have ended for this reason, and no other for any but that and `in_order`.
async fn ended(router: &Router, reason: Http2End, times: u64) {
    let ends = &router.vitals.connections.http2_ended;
    eventually("the connection has ended", async || ends.read(reason) == times).await;
    let others = Http2End::ALL.into_iter().filter(|other| ![reason, Http2End::InOrder].contains(other));
    let others: Vec<_> = others.filter(|&other| ends.read(other) > 0).collect();
    assert!(others.is_empty(), "{others:?}");
    let series = format!("scorefront_http2_connections_ended_total{{reason=\"{}\"}}", reason.label());
    assert_eq!(router.metric(&series).await, times as f64);
}

/// The end of a connection on which a client sent this after its first request was answered.
async fn after(router: &Router, bytes: &[u8]) -> Option<u32> {
    let mut client = Attacker::connect(router, &[]).await;
    client.send(&ask(1, END_BOTH)).await;
    client.wait_for(DATA).await;
    client.send_and_end(bytes).await
}

fn goaway(code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0_u32.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Requests whose windows overflow: an error of the stream.
fn faulty(streams: std::ops::Range<u32>) -> Vec<u8> {
    let ids = streams.map(|number| 2 * number + 1);
    ids.flat_map(|stream| [ask(stream, END_HEADERS), update(stream, 0x7fff_ffff)].concat()).collect()
}

#[tokio::test]
async fn a_connection_that_its_client_leaves_ends_in_order() {
    let (_replica, router) = start().await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&ask(1, END_BOTH)).await;
    client.wait_for(DATA).await;
    drop(client);
    ended(&router, Http2End::InOrder, 1).await;
    assert_eq!(after(&router, &goaway(0)).await, Some(0));
    ended(&router, Http2End::InOrder, 2).await;
    router.drain().await;
}

#[tokio::test]
async fn an_error_that_the_client_tells_of_is_its_own() {
    let (_replica, router) = start().await;
    after(&router, &goaway(2)).await;
    ended(&router, Http2End::ClientError, 1).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_counted_as_such() {
    let (_replica, router) = start().await;
    // DATA belongs to a stream.
    assert_eq!(after(&router, &frame(DATA, 0, 0, b"x")).await, Some(1));
    ended(&router, Http2End::ProtocolError, 1).await;
    router.drain().await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_lost() {
    let (_replica, router) = start().await;
    let socket = TcpStream::connect(router.address).await.unwrap();
    // Closing it is a reset then.
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Attacker::over(socket, &[]).await;
    client.send(&ask(1, END_BOTH)).await;
    client.wait_for(DATA).await;
    drop(client);
    ended(&router, Http2End::Lost, 1).await;
    router.drain().await;
}

#[tokio::test]
async fn floods_are_told_apart_by_what_they_are_of() {
    let (_replica, router) = start().await;
    let rapid: Vec<u8> = (1..30).flat_map(|n| [ask(2 * n + 1, END_BOTH), reset(2 * n + 1)].concat()).collect();
    assert_eq!(after(&router, &rapid).await, Some(ENHANCE_YOUR_CALM));
    ended(&router, Http2End::Flood, 1).await;
    router.drain().await;
    let (_replica, router) = start().await;
    Attacker::connect(&router, &[]).await.flood(frame(PING, 0, 0, &[0; 8]).repeat(100)).await;
    ended(&router, Http2End::IdleFrames, 1).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_silent() {
    let never = Arc::new(Semaphore::new(0));
    let replica = ScriptedReplica::start(move |_| vec![Step::Wait(never.clone())]).await;
    let world = World::new().deployment("blue", &[("request-timeout-ms", "60000")], &[replica.address]);
    let router = Router::start_with(&world, |config| {
        config.limits.idle_timeout = Duration::from_millis(200);
        config.limits.head_timeout = Duration::from_millis(200);
    })
    .await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&ask(1, END_BOTH)).await;
    client.wait_for(PING).await;
    while client.hear().await.is_some() {}
    ended(&router, Http2End::Silent, 1).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_may_make_so_many_streams_fail_and_no_more() {
    let (_replica, router) = start_with(|config| config.limits.faulty_streams_max = 5).await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&faulty(0..5)).await;
    for _ in 0..5 {
        client.wait_for(RESET).await;
    }
    client.send(&ask(11, END_BOTH)).await;
    client.wait_for(DATA).await;
    assert_eq!(client.send_and_end(&faulty(6..7)).await, Some(ENHANCE_YOUR_CALM));
    ended(&router, Http2End::Flood, 1).await;
    router.drain().await;
}
