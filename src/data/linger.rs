//! Reading over what nobody wants any more: the rest of a request that was refused. A client that is cut off while it
//! still sends may never see the answer that it was given.
//!
//! Holds: it lasts `linger-timeout-ms` at most, and ends after a fifth of that without a byte.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::time::timeout;

use super::worker::Worker;

/// Counts one client that is lingered for.
struct Lingering<'a>(&'a Worker);

impl<'a> Lingering<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.shared.vitals.connections.lingering.fetch_add(1, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.shared.vitals.connections.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls `skip`, which reads something and says whether there may be more, until there is no more or the time is up.
pub(crate) async fn read_over(worker: &Worker, mut skip: impl FnMut(&mut Context<'_>) -> Poll<bool>) {
    let _counted = Lingering::new(worker);
    let patience = worker.limits().linger_timeout;
    let all = async {
        loop {
            match timeout(patience / 5, poll_fn(&mut skip)).await {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    };
    if !timeout(patience, all).await.unwrap_or(false) {
        worker.shared.vitals.connections.lingering_cut.bump();
    }
}
