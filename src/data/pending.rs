//! A slot in use, and what becomes of it when nobody waits for the answer any more.
//!
//! The stock model server works on after its client has gone. Its slot must then stay taken, or the next request lands
//! in its backlog and time-outs cascade. So a slot in use is never simply dropped: it is `done`, or it is abandoned,
//! and then a task of its own waits for the replica to answer, to close, or for ten request time-outs to pass.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http_body_util::BodyExt;

use super::upload::UploadBody;
use super::upstream::{Answered, Broken, Call, ReplicaBody, RequestHead, Upstream};
use super::worker::Worker;
use crate::core::facts::OnAbandon;
use crate::core::snapshot::{Deployment, Replica};

/// An abandoned slot is given back after this many request time-outs at the latest.
const ABANDONED_MAX: u32 = 10;

/// One slot of one replica; dropping it gives it back, to the head of the line if anybody waits.
#[derive(Debug)]
pub(crate) struct Lease {
    deployment: Arc<Deployment>,
    replica: Arc<Replica>,
}

impl Lease {
    /// For a slot that the gate of this deployment has handed out.
    pub(crate) fn new(deployment: Arc<Deployment>, replica: Arc<Replica>) -> Self {
        Self { deployment, replica }
    }

    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.deployment.state.gate.release(&self.replica);
    }
}

/// A slot whose replica is working on a request.
#[derive(Debug)]
pub(crate) struct Busy {
    lease: Lease,
    worker: Arc<Worker>,
}

impl Busy {
    pub(crate) fn new(lease: Lease, worker: Arc<Worker>) -> Self {
        Self { lease, worker }
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.lease.replica
    }

    /// The replica is done with the request; its connection may be used again.
    pub(crate) fn done(self, upstream: Option<Box<Upstream>>, now: Instant) {
        self.lease.deployment.state.shard(self.worker.index).completed.bump();
        self.lease.replica.state.requests.bump();
        if let Some(upstream) = upstream {
            self.worker.pool.park(self.lease.replica.state.serial(), upstream, now);
        }
    }

    /// The request was never sent: the slot as it was.
    pub(crate) fn unused(self) -> Lease {
        self.lease
    }

    /// Nobody wants the rest of the answer.
    pub(crate) fn abandon_body(self, mut body: ReplicaBody) {
        body.keep_watch();
        self.abandon(async move {
            drain(&mut body).await;
        });
    }

    /// Nobody waits for `work` any more.
    fn abandon(self, work: impl Future<Output = ()> + Send + 'static) {
        let settings = &self.lease.deployment.settings;
        self.lease.deployment.state.shard(self.worker.index).abandoned.bump();
        let too_many = self.lease.replica.state.abandoned() >= self.worker.limits().abandoned_max;
        if settings.on_abandon == OnAbandon::Close || too_many {
            return;
        }
        // Without a runtime the process is on its way out and nobody will ask for the slot.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let patience = settings.request_timeout * ABANDONED_MAX;
        let counted = self.lease.replica.state.abandon();
        runtime.spawn(async move {
            let _ = tokio::time::timeout(patience, work).await;
            drop(counted);
            self.done(None, Instant::now());
        });
    }
}

/// Reads to the end. Says whether it came.
async fn drain(body: &mut ReplicaBody) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

/// An answer whose body nobody wants, for as long as the replica works on it. Dropping it abandons the slot.
#[derive(Debug)]
pub(crate) struct Unread(Option<(Busy, ReplicaBody)>);

impl Unread {
    pub(crate) fn new(busy: Busy, body: ReplicaBody) -> Self {
        Self(Some((busy, body)))
    }

    /// Reads to the end and gives the slot back. Says whether the end came.
    pub(crate) async fn drain(mut self) -> bool {
        let Some((_, body)) = &mut self.0 else { return false };
        let whole = drain(body).await;
        if let Some((busy, _)) = self.0.take() {
            busy.done(None, Instant::now());
        }
        whole
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some((busy, body)) = self.0.take() {
            busy.abandon_body(body);
        }
    }
}

/// What sending a request comes to.
pub(crate) type Reply = Result<Answered, Box<Broken>>;

/// A request that was sent and not answered yet. Dropping it abandons the slot.
#[derive(Debug)]
pub(crate) struct Pending {
    call: Option<Call>,
    busy: Option<Busy>,
}

impl Pending {
    /// Sends the request on this connection, as this is polled. The map is room for the answer's headers.
    pub(crate) fn send(upstream: Box<Upstream>, head: (RequestHead, HeaderMap), body: UploadBody, busy: Busy) -> Self {
        let head_bytes_max = busy.worker.limits().answer_head_bytes_max;
        Self { call: Some(Call::new(upstream, head, body, head_bytes_max)), busy: Some(busy) }
    }

    /// The reply, once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        let result = ready!(call.poll(cx));
        let reply = self.call.take().map(|call| match result {
            Ok((head, start)) => Ok(call.answer(head, start)),
            Err(cause) => Err(Box::new(call.broken(cause))),
        });
        Poll::Ready(reply)
    }

    /// See [`Upstream::unwatched_for`].
    pub(crate) fn unwatched_for(&self) -> Option<Duration> {
        self.call.as_ref().and_then(Call::unwatched_for)
    }

    /// See [`Upstream::keep_watch`].
    pub(crate) fn keep_watch(&mut self) {
        if let Some(call) = &mut self.call {
            call.keep_watch();
        }
    }

    /// After the reply: the slot.
    pub(crate) fn take_busy(&mut self) -> Option<Busy> {
        self.busy.take()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(busy) = self.busy.take() else { return };
        let Some(mut call) = self.call.take() else { return };
        // Of a request that was not sent the replica knows nothing: its slot is as it was.
        if call.is_unsent() {
            return;
        }
        call.keep_watch();
        busy.abandon(async move {
            if let Ok((head, start)) = poll_fn(|cx| call.poll(cx)).await {
                drain(&mut call.answer(head, start).body).await;
            }
        });
    }
}
