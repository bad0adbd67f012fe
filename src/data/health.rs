//! What a connect says about a replica: after some failures in a row it is left out, and one success brings it back.
//! What the router itself lacked says nothing.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::worker::Worker;
use crate::core::snapshot::{Deployment, Replica};

/// Whether the router itself had no descriptors, ports or memory left: no replica is to blame for that.
pub(crate) fn is_our_shortage(error: &io::Error) -> bool {
    // ENOMEM, EADDRNOTAVAIL, ENOBUFS: std has no kinds for most of them.
    is_without_descriptors(error) || matches!(error.raw_os_error(), Some(12 | 99 | 105))
}

/// Whether there was no file descriptor.
pub(crate) fn is_without_descriptors(error: &io::Error) -> bool {
    // ENFILE, EMFILE.
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Leaves a replica out after too many connect failures in a row, and sees to it that it is tried again.
pub(crate) fn note_connect_failure(worker: &Worker, deployment: &Arc<Deployment>, replica: &Replica) {
    let Some(backoff_us) = replica.state.connect_failed() else { return };
    let now_us = worker.micros(Instant::now());
    if !deployment.state.gate.leave_out(replica, now_us, backoff_us) {
        return;
    }
    deployment.state.shard(worker.index).ejections.bump();
    tracing::warn!(
        target: "scorefront::health",
        endpoint = %deployment.endpoint, deployment = %deployment.name, replica = %replica.name,
        seconds = backoff_us / 1_000_000, "replica left out after connect failures in a row"
    );
    let (deployment, born) = (deployment.clone(), worker.shared.vitals.born);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_micros(backoff_us)).await;
        let now_us = u64::try_from(born.elapsed().as_micros()).unwrap_or(u64::MAX);
        deployment.state.gate.pump(Some(now_us));
    });
}

/// Uses a replica again that had been left out.
pub(crate) fn note_connect_success(worker: &Worker, deployment: &Deployment, replica: &Replica) {
    if !replica.state.connect_succeeded() {
        return;
    }
    tracing::info!(
        target: "scorefront::health",
        endpoint = %deployment.endpoint, deployment = %deployment.name, replica = %replica.name,
        "replica is back: a connect succeeded"
    );
    deployment.state.gate.pump(Some(worker.micros(Instant::now())));
}
