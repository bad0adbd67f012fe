//! Floods of HTTP/2 frames, byte by byte: the connection that sends one is ended or loses its streams, another client is
//! served all the while, and nothing stays taken.
//!
//! That memory is bounded follows from where a flood ends. What is kept of it until then is kept in things that have a
//! limit: one answer to a PING and one to SETTINGS (the rest is not read before they are out), `max-streams` streams
//! with a window each, `max-pending-reset-streams`, 4 KiB of header table in each direction, and
//! `max-idle-frames` frames of which nothing is kept at all.

mod endings;
mod heads;
mod idle_frames;
mod streams;
mod windows;

use std::cell::Cell;
use std::time::Duration;

use scorefront::control::config::Config;
use scorefront::testing::client::score;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use scorefront::testing::{PATIENCE, eventually};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::downgrade::{GOAWAY, HEADERS, REQUEST, RESET, SETTINGS, block, frame};

pub(crate) const DATA: u8 = 0;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const END_BOTH: u8 = 5;

/// The error code of HTTP/2 for a client that behaves as in an attack.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
/// Requests of another client that must be served during an attack.
const BYSTANDERS: u32 = 10;

/// Whatever bytes go to and fro on.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A replica with more slots than an attacker has streams, and a router.
pub(crate) async fn start() -> (ScriptedReplica, Router) {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let router = Router::start_with(&world(&replica), |config| {
        config.limits.body_timeout = Duration::from_millis(300);
        config.limits.idle_frames_max = 1000;
        // The watch over a connection looks first after this time, and then four times as often.
        config.limits.head_timeout = Duration::from_secs(1);
        change(config);
    })
    .await;
    (replica, router)
}

pub(crate) fn world(replica: &ScriptedReplica) -> World {
    let notes = [("max-concurrent-requests-per-instance", "500"), ("max-queue-wait-ms", "20000")];
    World::new().deployment("blue", &notes, &[replica.address])
}

/// A client that sends frames as it likes.
pub(crate) struct Attacker {
    reader: ReadHalf<Box<dyn Duplex>>,
    writer: WriteHalf<Box<dyn Duplex>>,
}

/// A frame as the router sent it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM, or of GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl Attacker {
    /// On a connection of its own, with these settings (of six bytes each).
    pub(crate) async fn connect(router: &Router, settings: &[u8]) -> Self {
        Self::over(TcpStream::connect(router.address).await.unwrap(), settings).await
    }

    /// On a connection that is there already.
    pub(crate) async fn over(socket: impl Duplex + 'static, settings: &[u8]) -> Self {
        let socket: Box<dyn Duplex> = Box::new(socket);
        let (reader, writer) = split(socket);
        let mut attacker = Self { reader, writer };
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat();
        attacker.send(&preface).await;
        attacker
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.writer.write_all(bytes)).await.expect("the router reads").unwrap();
        self.writer.flush().await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        timeout(PATIENCE, read_frame(&mut self.reader)).await.expect("the router says something or ends it")
    }

    /// The next frame of this kind.
    pub(crate) async fn wait_for(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.hear().await.expect("the connection goes on");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Sends `bytes` over and over, as long as the router takes them, and reads what it says meanwhile. Gives the error
    /// code with which the connection was ended, if there was one and it arrived before a reset overtook it.
    pub(crate) async fn flood(self, bytes: Vec<u8>) -> Option<u32> {
        let Self { mut reader, mut writer } = self;
        let sending = async { while writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok() {} };
        let mut said = None;
        let listening = async {
            while let Some(frame) = read_frame(&mut reader).await {
                if frame.kind == GOAWAY {
                    said = Some(frame.code());
                }
            }
        };
        timeout(PATIENCE, async { tokio::join!(sending, listening) }).await.expect("the router ends the connection");
        said
    }

    /// Sends `bytes` and reads to the end of the connection. Gives the error code with which it was ended.
    pub(crate) async fn send_and_end(mut self, bytes: &[u8]) -> Option<u32> {
        self.send(bytes).await;
        let mut said = None;
        while let Some(frame) = self.hear().await {
            if frame.kind == GOAWAY {
                said = Some(frame.code());
            }
        }
        said
    }

    /// Never reads, and sends `bytes` over and over, as long as the router takes them.
    pub(crate) async fn flood_deafly(mut self, bytes: Vec<u8>) {
        let sending =
            async { while self.writer.write_all(&bytes).await.is_ok() && self.writer.flush().await.is_ok() {} };
        timeout(PATIENCE, sending).await.expect("the router ends the connection");
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    reader.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// The head of a request on this stream.
pub(crate) fn ask(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(REQUEST))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &8_u32.to_be_bytes())
}

pub(crate) fn update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// One setting, as in the payload of SETTINGS.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Attacks again and again until another client has been served often enough, then checks that nothing is left.
pub(crate) async fn besiege(router: &Router, attack: impl AsyncFn()) {
    let served = Cell::new(0);
    let attacking = async {
        let mut attacks = 0;
        while served.get() < BYSTANDERS {
            attack().await;
            attacks += 1;
        }
        attacks
    };
    let serving = async {
        let mut client = router.client().await;
        while served.get() < BYSTANDERS {
            let answer = client.ask(score("")).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "fine"), "after {} others", served.get());
            served.set(served.get() + 1);
        }
    };
    let (attacks, ()) = tokio::join!(attacking, serving);
    assert!(attacks > 0);
    is_at_rest(router).await;
}

/// Nothing of an attack is left.
pub(crate) async fn is_at_rest(router: &Router) {
    eventually("no slot is taken, nobody waits, no connection is open", async || {
        let open = router.vitals.connections.open.load(std::sync::atomic::Ordering::Relaxed);
        router.taken("blue") == 0 && router.deployment("blue").state.gate.waiting() == 0 && open == 0
    })
    .await;
    assert_eq!(router.client().await.ask(score("")).await.status, 200);
}

/// How many requests have ended so.
pub(crate) async fn count(router: &Router, status: u16, outcome: &str) -> f64 {
    let labels =
        format!("form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\",status=\"{status}\",outcome=\"{outcome}\"");
    router.metric(&format!("scorefront_requests_total{{{labels}}}")).await
}
