//! Idle connections to replicas: per worker, per replica, the last one used first.
//!
//! Owner: one worker; its mutex is never contended. Keyed by the replica state's serial number, which is unique in
//! the process, never by a hash or an address: no request can meet another replica's connection.
//! Holds: a request gets a connection only if that was made by the rules of TLS that hold for the request, the very same.
//!        A connection is parked only when its answer was read whole and the replica did not ask to close; it is not
//!        kept longer than `upstream-idle-ms`, less than common servers keep theirs, so that it is rarely the server
//!        that closes first. Nobody waits for a connection to a replica while one to it is parked since.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::upstream::Upstream;
use crate::core::replica_tls::Wire;

#[derive(Debug)]
struct Idle {
    upstream: Box<Upstream>,
    since: Instant,
}

/// Connections to one replica.
#[derive(Debug, Default)]
struct Stack {
    idle: Vec<Idle>,
    /// Requests whose own connect is slow, the first one first; also those that have gone since.
    waiting: VecDeque<oneshot::Sender<Box<Upstream>>>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Pool {
    idle_max: Duration,
    per_replica_max: usize,
    stacks: Mutex<HashMap<u64, Stack>>,
}

/// A request that waits for the next connection to be parked. Gives nothing where nobody will park any more.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    pool: &'a Pool,
    serial: u64,
    parked: oneshot::Receiver<Box<Upstream>>,
}

impl Pool {
    pub(crate) fn new(idle_max: Duration, per_replica_max: usize) -> Self {
        Self { idle_max, per_replica_max, stacks: Mutex::default() }
    }

    /// An idle connection to this replica, if one is left that is fit for use.
    pub(crate) fn take(&self, serial: u64, address: SocketAddr, wire: &Wire, now: Instant) -> Option<Box<Upstream>> {
        let mut stacks = self.stacks.lock();
        let stack = stacks.get_mut(&serial)?;
        while let Some(idle) = stack.idle.pop() {
            if now.saturating_duration_since(idle.since) < self.idle_max
                && let Some(upstream) = fit(idle.upstream, address, wire)
            {
                return Some(upstream);
            }
        }
        None
    }

    /// The same, parked at `since` or after. Others stay.
    pub(crate) fn take_new(
        &self,
        serial: u64,
        address: SocketAddr,
        wire: &Wire,
        since: Instant,
    ) -> Option<Box<Upstream>> {
        let mut stacks = self.stacks.lock();
        let stack = stacks.get_mut(&serial)?;
        while let Some(idle) = stack.idle.pop_if(|idle| idle.since >= since) {
            if let Some(upstream) = fit(idle.upstream, address, wire) {
                return Some(upstream);
            }
        }
        None
    }

    /// Waits for the next one.
    pub(crate) fn wait(&self, serial: u64) -> Waiting<'_> {
        let (sender, parked) = oneshot::channel();
        self.stacks.lock().entry(serial).or_default().waiting.push_back(sender);
        Waiting { pool: self, serial, parked }
    }

    /// Keeps a connection for the next request, or gives it to the first one that waits.
    pub(crate) fn park(&self, serial: u64, mut upstream: Box<Upstream>, now: Instant) {
        if self.idle_max.is_zero() {
            return;
        }
        // That its replica is still there is for the kernel to ask from now on: nobody waits for an answer.
        upstream.keep_watch();
        let mut stacks = self.stacks.lock();
        let stack = stacks.entry(serial).or_default();
        while let Some(waiting) = stack.waiting.pop_front() {
            match waiting.send(upstream) {
                Ok(()) => return,
                Err(unclaimed) => upstream = unclaimed,
            }
        }
        if stack.idle.len() < self.per_replica_max {
            stack.idle.push(Idle { upstream, since: now });
        }
    }

    /// Connections that are parked.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.stacks.lock().values().map(|stack| stack.idle.len()).sum()
    }

    /// Drops what idled too long, what was closed or spoken on unasked, and what belongs to replicas that are no more.
    pub(crate) fn sweep(&self, now: Instant) {
        self.stacks.lock().retain(|_, stack| {
            stack.waiting.retain(|waiting| !waiting.is_closed());
            stack.idle.retain_mut(|idle| {
                now.saturating_duration_since(idle.since) < self.idle_max && idle.upstream.is_quiet()
            });
            !stack.idle.is_empty() || !stack.waiting.is_empty()
        });
    }
}

/// A parked connection, if it is fit for use.
pub(crate) fn fit(mut upstream: Box<Upstream>, address: SocketAddr, wire: &Wire) -> Option<Box<Upstream>> {
    upstream.reused = true;
    (upstream.leads_to(address, wire) && upstream.is_quiet()).then_some(upstream)
}

impl Future for Waiting<'_> {
    type Output = Option<Box<Upstream>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.parked).poll(cx).map(Result::ok)
    }
}

/// What was given to a request that went another way is for the next one.
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.parked.close();
        if let Ok(upstream) = self.parked.try_recv() {
            self.pool.park(self.serial, upstream, Instant::now());
        }
    }
}
