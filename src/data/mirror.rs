//! Copies of requests for a shadow deployment.
//!
//! The copy never delays or harms the primary: it is made of chunks that pass by anyway, waits for the whole body off
//! the primary's path, takes a slot only if one is free, and has limits of its own (`max-mirrors`, `mirror-bytes`).
//! Its answer is counted and thrown away.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::health::{is_our_shortage, note_connect_failure, note_connect_success};
use super::ledger::Ledger;
use super::outgoing::Outgoing;
use super::pending::{Busy, Lease, Pending, Unread};
use super::upload::{Upload, UploadBody};
use super::upstream::{RequestHead, Upstream};
use super::worker::Worker;
use crate::core::count::micros;
use crate::core::replica_tls::Wire;
use crate::core::snapshot::Deployment;
use crate::core::state::MirrorShard;

/// One copy under way; counts as such until it is dropped.
struct Copy {
    worker: Arc<Worker>,
    deployment: Arc<Deployment>,
    request: RequestHead,
    upload: Option<Upload>,
    primary: oneshot::Receiver<StatusCode>,
}

/// Copies this request, if it is one of those to be copied.
pub(crate) fn start(worker: &Arc<Worker>, outgoing: &Outgoing, ledger: &mut Ledger) {
    let endpoint = ledger.record.endpoint.as_ref();
    let Some(mirror) = endpoint.and_then(|endpoint| endpoint.mirror.as_ref()) else { return };
    let is_primary = ledger.record.deployment.as_ref().is_some_and(|chosen| Arc::ptr_eq(chosen, &mirror.deployment));
    if is_primary || worker.dice().below(100) >= u32::from(mirror.percent) {
        return;
    }
    let deployment = mirror.deployment.clone();
    if let Wire::Closed(_) = deployment.wire {
        deployment.state.shard(worker.index).mirror.skipped.bump();
        return;
    }
    let (limits, mirrors) = (worker.limits(), &worker.shared.vitals.mirrors);
    if mirrors.fetch_add(1, Ordering::Relaxed) >= limits.mirrors_max {
        mirrors.fetch_sub(1, Ordering::Relaxed);
        deployment.state.shard(worker.index).mirror.skipped.bump();
        return;
    }
    let request = outgoing.head.clone();
    if let Some(upload) = &outgoing.upload {
        upload.copy(limits.mirror_bytes_max);
    }
    let (tell, primary) = oneshot::channel();
    ledger.mirror = Some(tell);
    ledger.record.mirrored = Some(deployment.clone());
    let copy = Copy { worker: worker.clone(), deployment, request, upload: outgoing.upload.clone(), primary };
    tokio::spawn(copy.run());
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.worker.shared.vitals.mirrors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Copy {
    async fn run(mut self) {
        let deployment = self.deployment.clone();
        let counts = &deployment.state.shard(self.worker.index).mirror;
        let deadline = Instant::now() + deployment.settings.request_timeout;
        let Some(body) = self.body(deadline).await else {
            counts.skipped.bump();
            return;
        };
        let (now, gate) = (Instant::now(), &deployment.state.gate);
        let free = gate.try_claim(&deployment.replicas, self.worker.micros(now), &mut self.worker.dice());
        let Some(replica) = free else {
            counts.skipped.bump();
            return;
        };
        let lease = Lease::new(deployment.clone(), replica);
        match timeout_at(deadline.into(), self.send(lease, body)).await {
            Ok(Some(status)) => self.count(counts, status, now).await,
            Ok(None) | Err(_) => counts.failed.bump(),
        }
    }

    /// The body, once the primary's client has sent it all.
    async fn body(&self, deadline: Instant) -> Option<Bytes> {
        let Some(upload) = &self.upload else { return Some(Bytes::new()) };
        timeout_at(deadline.into(), poll_fn(|cx| upload.poll_copy(cx))).await.ok()?
    }

    /// Sends the copy and reads its answer to the end.
    async fn send(&mut self, lease: Lease, body: Bytes) -> Option<StatusCode> {
        let replica = lease.replica().clone();
        let wire = &self.deployment.wire;
        let parked = self.worker.pool.take(replica.state.serial(), replica.address, wire, Instant::now());
        let mut upstream = match parked {
            Some(upstream) => upstream,
            None => {
                let connect = Upstream::connect(&self.worker, replica.address, wire);
                match tokio::time::timeout(self.worker.limits().connect_timeout, connect).await {
                    Ok(Ok(upstream)) => {
                        note_connect_success(&self.worker, &self.deployment, &replica);
                        upstream
                    }
                    Ok(Err(error)) if is_our_shortage(&error) => return None,
                    Ok(Err(_)) | Err(_) => {
                        note_connect_failure(&self.worker, &self.deployment, &replica);
                        return None;
                    }
                }
            }
        };
        upstream.keep_watch();
        let (head, body) = ((std::mem::take(&mut self.request), HeaderMap::new()), UploadBody::whole(body));
        let mut pending = Pending::send(upstream, head, body, Busy::new(lease, self.worker.clone()));
        let reply = poll_fn(|cx| pending.poll(cx)).await?;
        let busy = pending.take_busy()?;
        let Ok(answered) = reply else {
            busy.done(None, Instant::now());
            return None;
        };
        let status = answered.status;
        Unread::new(busy, answered.body).drain().await.then_some(status)
    }

    async fn count(&mut self, counts: &MirrorShard, status: StatusCode, started: Instant) {
        counts.answered.bump(status.as_u16());
        counts.duration.observe(micros(started.elapsed()));
        let patience = self.deployment.settings.request_timeout;
        if let Ok(Ok(primary)) = tokio::time::timeout(patience, &mut self.primary).await {
            let same = primary.as_u16() / 100 == status.as_u16() / 100;
            if same { counts.agreed.bump() } else { counts.differed.bump() }
        }
    }
}
