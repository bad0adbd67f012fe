//! Idle connections to replicas: per worker, per replica, the last one used first.
//!
//! Owner: one worker; its mutex is never contended. Keyed by the replica state's serial number, which is unique in
//! the process, never by a hash or an address: no request can meet another replica's connection.
//! Holds: a request gets a connection only if that was made by the rules of TLS that hold for the request, the very same.
//!        A connection is parked only when its answer was read whole and the replica did not ask to close; it is not
//!        kept longer than `upstream-idle-ms`, less than common servers keep theirs, so that it is rarely the server
//!        that closes first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::upstream::Upstream;
use crate::core::replica_tls::Wire;

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
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
    pub(crate) fn take(&self, serial: u64, address: SocketAddr, wire: &Wire, now: Instant) -> Option<Upstream> {
        let mut stacks = self.stacks.lock();
        let stack = stacks.get_mut(&serial)?;
        while let Some(mut idle) = stack.pop() {
            let young = now.saturating_duration_since(idle.since) < self.idle_max;
            if young && idle.upstream.leads_to(address, wire) && idle.upstream.is_quiet() {
                idle.upstream.reused = true;
                return Some(idle.upstream);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn park(&self, serial: u64, mut upstream: Upstream, now: Instant) {
        if self.idle_max.is_zero() {
            return;
        }
        // That its replica is still there is for the kernel to ask from now on: nobody waits for an answer.
        upstream.keep_watch();
        let mut stacks = self.stacks.lock();
        let stack = stacks.entry(serial).or_default();
        if stack.len() < self.per_replica_max {
            stack.push(Idle { upstream, since: now });
        }
    }

    /// Connections that are parked.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.stacks.lock().values().map(Vec::len).sum()
    }

    /// Drops what idled too long, what was closed or spoken on unasked, and what belongs to replicas that are no more.
    pub(crate) fn sweep(&self, now: Instant) {
        self.stacks.lock().retain(|_, stack| {
            stack.retain_mut(|idle| {
                now.saturating_duration_since(idle.since) < self.idle_max && idle.upstream.is_quiet()
            });
            !stack.is_empty()
        });
    }
}
