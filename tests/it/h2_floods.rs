//! Floods of HTTP/2 frames: the connection that sends one is ended, and another client is served after it.

use scorefront::testing::client::score;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use scorefront::testing::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::downgrade::{GOAWAY, HEADERS, REQUEST, RESET, SETTINGS, block, frame};

const CONTINUATION: u8 = 9;
const END_BOTH: u8 = 5;
/// The error code of HTTP/2 for a client that behaves as in an attack.
const ENHANCE_YOUR_CALM: u32 = 11;

async fn start() -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let notes = [("max-concurrent-requests-per-instance", "8")];
    let world = World::new().deployment("blue", &notes, &[replica.address]);
    let router = Router::start(&world).await;
    (replica, router)
}

async fn open(router: &Router) -> TcpStream {
    let mut socket = TcpStream::connect(router.address).await.unwrap();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    socket.write_all(&preface).await.unwrap();
    socket
}

/// Sends all of it, as far as the router takes it. Gives the error code with which the router ended the connection, if
/// it said one before it closed.
async fn flood(router: &Router, bytes: Vec<u8>) -> Option<u32> {
    let (mut reader, mut writer) = open(router).await.into_split();
    // A router that has had enough closes, and then this fails.
    let sending = tokio::spawn(async move { drop(writer.write_all(&bytes).await) });
    let mut said = None;
    let listen = async {
        loop {
            let mut head = [0; 9];
            if reader.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if reader.read_exact(&mut payload).await.is_err() {
                return;
            }
            if head[3] == GOAWAY {
                said = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
            }
        }
    };
    timeout(PATIENCE, listen).await.expect("the router ends the connection");
    timeout(PATIENCE, sending).await.expect("nothing more is taken").unwrap();
    said
}

/// Another client is served now, and nothing is left of the flood.
async fn is_well(router: &Router) {
    assert_eq!(router.client().await.ask(score("")).await.status, 200);
    eventually("no slot is taken and nobody waits", async || {
        router.taken("blue") == 0 && router.deployment("blue").state.gate.waiting() == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_for_over_and_over_is_ended() {
    let (_replica, router) = start().await;
    let streams = (0..20_000).flat_map(|n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_BOTH, stream, &block(REQUEST)), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert_eq!(flood(&router, streams.collect()).await, Some(ENHANCE_YOUR_CALM));
    is_well(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let (replica, router) = start().await;
    let more = frame(CONTINUATION, 0, 1, &block(&[("x-more", "y")]).repeat(1000));
    let bytes = [frame(HEADERS, 0, 1, &block(REQUEST)), more.repeat(2000)].concat();
    assert_eq!(flood(&router, bytes).await, Some(ENHANCE_YOUR_CALM));
    assert!(replica.seen().is_empty());
    is_well(&router).await;
    router.drain().await;
}
