//! Idle connections to replicas: per worker, per replica, the last one used first.
//!
//! Owner: one worker; its mutex is never contended. Keyed by the replica state's serial number, which is unique in
//! the process, never by a hash or an address: no request can meet another replica's connection.
//! Holds: a request gets a connection only if that was made by the rules of TLS that hold for the request, the very same.
//!        A connection is parked only when its answer was read whole and the replica did not ask to close; it is not
//!        kept longer than `upstream-idle-ms`, less than common servers keep theirs, so that it is rarely the server
//!        that closes first.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::counted::Counted;
use super::replica_tls::{ReplicaSocket, shake_hands};
use super::upload::UploadBody;
use super::vanished::Bounded;
use super::worker::Worker;
use crate::core::replica_tls::{ReplicaTls, Wire};

/// A connection to a replica that can take a request.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) sender: SendRequest<UploadBody>,
    pub(crate) address: SocketAddr,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
    /// By which rules it speaks TLS, if it does.
    tls: Option<Arc<ReplicaTls>>,
    /// Bytes that came from the replica.
    read: Arc<AtomicU64>,
}

impl Connector {
    /// Bytes that have come from the replica so far.
    pub(crate) fn read(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    fn is_made_for(&self, wire: &Wire) -> bool {
        match (&self.tls, wire) {
            (None, Wire::Plain) => true,
            (Some(own), Wire::Tls(tls)) => Arc::ptr_eq(own, tls),
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Idle {
    connector: Connector,
    since: Instant,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Pool {
    idle_max: Duration,
    per_replica_max: usize,
    stacks: Mutex<HashMap<u64, Vec<Idle>>>,
}

impl Pool {
    pub(crate) fn new(idle_max: Duration, per_replica_max: usize) -> Self {
        Self { idle_max, per_replica_max, stacks: Mutex::default() }
    }

    /// An idle connection to this replica, if one is left that is fit for use.
    pub(crate) fn take(&self, serial: u64, address: SocketAddr, wire: &Wire, now: Instant) -> Option<Connector> {
        let mut stacks = self.stacks.lock();
        let stack = stacks.get_mut(&serial)?;
        while let Some(mut idle) = stack.pop() {
            let young = now.saturating_duration_since(idle.since) < self.idle_max;
            let fits = idle.connector.address == address && idle.connector.is_made_for(wire);
            if young && fits && idle.connector.sender.is_ready() {
                idle.connector.reused = true;
                return Some(idle.connector);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn park(&self, serial: u64, connector: Connector, now: Instant) {
        if connector.sender.is_closed() || self.idle_max.is_zero() {
            return;
        }
        let mut stacks = self.stacks.lock();
        let stack = stacks.entry(serial).or_default();
        if stack.len() < self.per_replica_max {
            stack.push(Idle { connector, since: now });
        }
    }

    /// Drops what idled too long, and what belongs to replicas that are no more.
    pub(crate) fn sweep(&self, now: Instant) {
        self.stacks.lock().retain(|_, stack| {
            stack.retain(|idle| {
                now.saturating_duration_since(idle.since) < self.idle_max && !idle.connector.sender.is_closed()
            });
            !stack.is_empty()
        });
    }
}

/// Opens a connection, with TLS where the rules are so.
pub(crate) async fn connect(worker: &Worker, address: SocketAddr, wire: &Wire) -> io::Result<Connector> {
    if let Wire::Closed(why) = wire {
        return Err(io::Error::other(&**why));
    }
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let socket = match wire.tls() {
        None => ReplicaSocket::Plain(socket),
        Some(tls) => {
            // In a box: without TLS, the request carries nothing of it.
            let shaken = Box::pin(shake_hands(tls, socket, address, &worker.shared.vitals.replica_handshakes));
            ReplicaSocket::Tls(Box::new(shaken.await?))
        }
    };
    speak(worker, socket, address, wire.tls()).await
}

/// A connection on a socket that is open. Its driver runs as a task of its own until either side closes.
pub(crate) async fn speak(
    worker: &Worker,
    socket: ReplicaSocket,
    address: SocketAddr,
    tls: Option<&Arc<ReplicaTls>>,
) -> io::Result<Connector> {
    let read = Arc::new(AtomicU64::new(0));
    let (sender, connection) = Builder::new()
        .max_header_size(worker.limits().answer_head_bytes_max)
        .handshake(TokioIo::new(Counted::new(Bounded::new(socket, worker.limits()), read.clone())))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection.with_upgrades());
        // What went wrong is told to whoever waits for the answer.
        let _ = connection.as_mut().await;
        // The close gives way too.
        tokio::task::yield_now().await;
    });
    Ok(Connector { sender, address, reused: false, tls: tls.cloned(), read })
}
