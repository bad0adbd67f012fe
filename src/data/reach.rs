//! A new connection to a replica, or one that is parked meanwhile, where the new one is slow to come.
//!
//! Within a cluster a connect takes a millisecond. It takes a second, until the kernel asks again, where the replica's
//! backlog is full: many requests came at once, each with a connection of its own. The replica is well, and as soon as it
//! has answered some of them, there are connections for the others. Such a connection is proof that the replica is there,
//! which a connect in vain is not.

use std::io;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

use super::pool;
use super::upstream::Upstream;
use super::worker::Worker;
use crate::core::replica_tls::Wire;
use crate::core::snapshot::Replica;

/// After this a connect is slow. Long enough that kept connections do not keep the router from having as many as it needs.
const SLOW: Duration = Duration::from_millis(20);

/// A connection to this replica, by these rules of TLS, before `until`.
pub(crate) async fn connect(
    worker: &Worker,
    replica: &Replica,
    wire: &Wire,
    now: Instant,
    until: Instant,
) -> Result<io::Result<Box<Upstream>>, Elapsed> {
    let mut connect = pin!(Upstream::connect(worker, replica.address, wire));
    let soon = until.min(now + SLOW);
    if let Ok(connected) = timeout_at(soon.into(), connect.as_mut()).await {
        return Ok(connected);
    }
    // In a box: other requests carry nothing of it.
    Box::pin(timeout_at(until.into(), connect_or_reuse(worker, replica, wire, now, connect))).await
}

async fn connect_or_reuse(
    worker: &Worker,
    replica: &Replica,
    wire: &Wire,
    since: Instant,
    mut connect: Pin<&mut impl Future<Output = io::Result<Box<Upstream>>>>,
) -> io::Result<Box<Upstream>> {
    let serial = replica.state.serial();
    loop {
        if let Some(upstream) = worker.pool.take_new(serial, replica.address, wire, since) {
            return Ok(upstream);
        }
        let parked = worker.pool.wait(serial);
        tokio::select! {
            biased;
            connected = connect.as_mut() => return connected,
            Some(upstream) = parked => {
                if let Some(upstream) = pool::fit(upstream, replica.address, wire) {
                    return Ok(upstream);
                }
            }
        }
    }
}
