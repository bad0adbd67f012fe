//! The router's own connection code between a client and a replica that are both here: on pairs of local sockets, in one
//! thread, without a clock. What was said depends on the bytes alone, and is over when nothing moves any more.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::message::{Message, read_request};
use crate::core::facts::{Form, Name, ObjectRef, Settings};
use crate::core::limiter::Limiter;
use crate::core::limits::Limits;
use crate::core::replica_tls::Wire;
use crate::core::snapshot::{Access, Deployment, Endpoint, Replica, Snapshot};
use crate::core::split::Split;
use crate::core::state::{DeploymentState, RefusalState};
use crate::core::vitals::Vitals;
use crate::data::connection::{self, Guard};
use crate::data::replica_tls::ReplicaSocket;
use crate::data::upstream::Upstream;
use crate::data::worker::{Phase, Shared, Worker};
use crate::ops::access_log::{AccessLog, LogTarget};

/// Turns of the runtime in which every task had its go, and after which a piece was seen.
const SEEN: usize = 4;
/// The same, after which nothing will come of itself: the longest chain from one end to the other takes half as many.
const QUIET: usize = 24;

/// What came of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// What the client got.
    pub(super) answers: Vec<u8>,
    /// Whole requests that replicas got, in order.
    pub(super) requests: Vec<Message>,
    /// Whether the router had closed when the client had said everything.
    pub(super) closed_early: bool,
    /// Whether it has closed now that the client will say no more.
    pub(super) closed: bool,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answers, requests, closed_early, closed } = self;
        write!(f, "{} ({closed_early}, {closed}) {requests:?}", answers.escape_ascii())
    }
}

/// What a replica does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply<'a> {
    /// Answers it well.
    Well,
    /// Writes these bytes and closes.
    Raw(&'a [u8]),
}

/// A client says these pieces, one after the other has been seen, to a router with endpoint `iris`.
pub(super) fn converse(pieces: &[&[u8]], reply: Reply<'_>) -> Said {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (requests, phase) = (Arc::new(Mutex::new(Vec::new())), watch::channel(Phase::Running));
        let (worker, replica) = router(phase.1);
        // As many as there can be requests: one that is not ready for the next request at once is not used again.
        let most = 1 + pieces.concat().windows(5).filter(|word| word == b"/api/").count();
        for _ in 0..most {
            let (ours, theirs) = pair();
            let socket = ReplicaSocket::Plain(ours);
            let upstream = Upstream::new(socket, replica.address, None, Duration::ZERO);
            worker.pool.park(replica.state.serial(), upstream, Instant::now());
            let raw = if let Reply::Raw(bytes) = reply { Some(bytes.to_vec()) } else { None };
            tokio::spawn(serve(theirs, raw, requests.clone()));
        }
        let (client, ours) = pair();
        let guard = Guard::new(worker.clone());
        connection::spawn(guard, ours, SocketAddr::from(([192, 0, 2, 9], 4711)), None, None);
        let mut said = Said::default();
        let mut client = Client { socket: client, answers: Vec::new(), closed: false };
        for piece in pieces {
            // A router that has closed does not take it.
            let _ = client.socket.write_all(piece).await;
            client.settle(SEEN).await;
        }
        client.settle(QUIET).await;
        said.closed_early = client.closed;
        let _ = client.socket.shutdown().await;
        client.settle(QUIET).await;
        (said.answers, said.closed) = (client.answers, client.closed);
        said.requests = std::mem::take(&mut requests.lock());
        said
    })
}

struct Client {
    socket: TcpStream,
    answers: Vec<u8>,
    closed: bool,
}

impl Client {
    /// Lets everybody have so many turns after the last byte that came.
    async fn settle(&mut self, turns: usize) {
        let mut left = turns;
        let mut buffer = [0; 4096];
        while left > 0 {
            left -= 1;
            tokio::task::yield_now().await;
            match self.socket.try_read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(n) => {
                    self.answers.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    left = turns;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
        }
    }
}

/// Two ends of a socket. No part of the router asks of which family it is.
fn pair() -> (TcpStream, TcpStream) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    (tokio_socket(one), tokio_socket(other))
}

fn tokio_socket(socket: UnixStream) -> TcpStream {
    socket.set_nonblocking(true).expect("a socket that does not block");
    TcpStream::from_std(OwnedFd::from(socket).into()).expect("a socket of the runtime")
}

async fn serve(mut socket: TcpStream, raw: Option<Vec<u8>>, requests: Arc<Mutex<Vec<Message>>>) {
    let mut bytes = Vec::new();
    while matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
        while let Some((request, length)) = read_request(&bytes) {
            bytes.drain(..length);
            let is_head = request.first.starts_with("HEAD ");
            requests.lock().push(request);
            let answer: &[u8] = match &raw {
                Some(raw) => raw,
                None if is_head => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                None => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntaken",
            };
            if socket.write_all(answer).await.is_err() || raw.is_some() {
                return;
            }
        }
    }
}

fn router(phase: watch::Receiver<Phase>) -> (Arc<Worker>, Arc<Replica>) {
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    // Nobody listens there: a connection that is not one of the pairs is refused.
    let replica = Replica::sample(1, 1);
    let blue = Deployment {
        endpoint: Name::new("iris"),
        name: Name::new("blue"),
        object: ObjectRef::new("models", "iris"),
        settings: Settings::default(),
        traffic_percent: Some(100),
        wire: Wire::Plain,
        replicas: [replica.clone()].into_iter().collect(),
        finishing: Vec::new(),
        state: Arc::new(DeploymentState::new(1, 1)),
    };
    let endpoint = Endpoint {
        name: Name::new("iris"),
        form: Form::Endpoint,
        namespace: "models".into(),
        deployments: vec![Arc::new(blue)],
        split: Split::new(&[Some(100)]),
        mirror: None,
        access: Access::Open,
        cors: None,
        limiter: Limiter::default(),
        refusals: Arc::new(RefusalState::new(1)),
        shares: Arc::default(),
    };
    let mut snapshot = Snapshot::default();
    snapshot.version = 1;
    snapshot.insert(Arc::new(endpoint));
    let log = AccessLog::start(&LogTarget::Off, 1, 0, vitals.clone()).expect("a log that goes nowhere");
    let limits = Limits { upstream_idle_max: 1000, server_timing: false, ..Limits::default() };
    let shared = Shared::new(Arc::new(ArcSwap::from_pointee(snapshot)), limits, vitals, phase);
    (Arc::new(Worker::new(0, shared, log.worker(0), 1)), replica)
}
