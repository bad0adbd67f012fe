//! A slot in use, and what becomes of it when nobody waits for the answer any more.
//!
//! The stock model server works on after its client has gone. Its slot must then stay taken, or the next request lands
//! in its backlog and time-outs cascade. So a slot in use is never simply dropped: it is `done`, or it is abandoned,
//! and then a task of its own waits for the replica to answer, to close, or for ten request time-outs to pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::pool::Connector;
use super::upload::UploadBody;
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
    pub(crate) fn done(self, connector: Option<Connector>, now: Instant) {
        self.lease.deployment.state.shard(self.worker.index).completed.bump();
        self.lease.replica.state.requests.bump();
        if let Some(connector) = connector {
            self.worker.pool.park(self.lease.replica.state.serial(), connector, now);
        }
    }

    /// The request was never sent: the slot as it was.
    pub(crate) fn unused(self) -> Lease {
        self.lease
    }

    /// Nobody wants the rest of the answer.
    pub(crate) fn abandon_body(self, mut incoming: Incoming) {
        self.abandon(async move {
            drain(&mut incoming).await;
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
async fn drain(incoming: &mut Incoming) -> bool {
    while let Some(frame) = incoming.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

/// An answer whose body nobody wants, for as long as the replica works on it. Dropping it abandons the slot.
#[derive(Debug)]
pub(crate) struct Unread(Option<(Busy, Incoming)>);

impl Unread {
    pub(crate) fn new(busy: Busy, incoming: Incoming) -> Self {
        Self(Some((busy, incoming)))
    }

    /// Reads to the end and gives the slot back. Says whether the end came.
    pub(crate) async fn drain(mut self) -> bool {
        let Some((_, incoming)) = &mut self.0 else { return false };
        let whole = drain(incoming).await;
        if let Some((busy, _)) = self.0.take() {
            busy.done(None, Instant::now());
        }
        whole
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some((busy, incoming)) = self.0.take() {
            busy.abandon_body(incoming);
        }
    }
}

/// What sending a request comes to.
pub(crate) type Reply = Result<Response<Incoming>, TrySendError<Request<UploadBody>>>;

/// A request that was sent and not answered yet. Dropping it abandons the slot.
pub(crate) struct Pending {
    reply: Option<Pin<Box<dyn Future<Output = Reply> + Send>>>,
    busy: Option<Busy>,
    /// Kept alive: hyper closes the connection when nobody can send on it any more.
    connector: Option<Connector>,
}

impl Pending {
    /// Sends the request on this connection.
    pub(crate) fn send(mut connector: Connector, request: Request<UploadBody>, busy: Busy) -> Self {
        let reply = Box::pin(connector.sender.try_send_request(request));
        Self { reply: Some(reply), busy: Some(busy), connector: Some(connector) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        let Some(reply) = &mut self.reply else { return Poll::Ready(None) };
        match reply.as_mut().poll(cx) {
            Poll::Ready(done) => {
                self.reply = None;
                Poll::Ready(Some(done))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// After the reply: slot and connection.
    pub(crate) fn into_parts(mut self) -> (Option<Busy>, Option<Connector>) {
        (self.busy.take(), self.connector.take())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let (Some(reply), Some(busy)) = (self.reply.take(), self.busy.take()) {
            let connector = self.connector.take();
            busy.abandon(async move {
                let answer = reply.await;
                if let Ok(answer) = answer {
                    drain(&mut answer.into_body()).await;
                }
                drop(connector);
            });
        }
    }
}
