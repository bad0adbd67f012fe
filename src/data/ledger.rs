//! The record of an exchange, handed in exactly once.
//!
//! Owner: the exchange at first, then the body of its answer. Whoever holds it when it is dropped has decided how the
//! exchange ended: finished, broken off, panicked, or simply dropped because the client went away. Dropping it counts
//! the metrics and writes the log line.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use tokio::sync::oneshot;

use super::socket::Link;
use super::upload::{Upload, discard};
use crate::core::outcome::Outcome;
use crate::core::record::Record;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) record: Box<Record>,
    pub(crate) upload: Option<Upload>,
    /// Tells the copy of a mirrored request how the primary ended.
    pub(crate) mirror: Option<oneshot::Sender<StatusCode>>,
    link: Arc<Link>,
}

impl Ledger {
    pub(crate) fn new(record: Record, link: Arc<Link>) -> Self {
        link.begin();
        Self { record: Box::new(record), upload: None, mirror: None, link }
    }

    /// Says how it ended. The status stays as it was sent where an answer had begun.
    pub(crate) fn conclude(&mut self, outcome: Outcome) {
        self.record.outcome = outcome;
    }

    /// Marks the client's connection: what it got of the answer must not look whole.
    pub(crate) fn break_connection(&self) {
        self.link.set_broken();
    }

    fn take_over_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            let progress = upload.progress();
            self.record.request_bytes = progress.bytes;
            self.record.received = progress.ended;
            match upload.cut() {
                Some(rest) if self.link.is_http2() => discard(rest),
                Some(_) => self.link.set_unread(),
                None => {}
            }
        }
    }

    fn count(&self, end: Instant) {
        let record = &*self.record;
        let index = self.link.worker.index;
        let Some(deployment) = &record.deployment else {
            let refusals = record.endpoint.as_ref().map_or(&self.link.worker.shared.vitals.refusals, |e| &e.refusals);
            refusals.bump(index, record.outcome);
            return;
        };
        let shard = deployment.state.shard(index);
        if record.outcome == Outcome::Served {
            shard.served.bump(record.status.unwrap_or_else(|| record.outcome.status()).as_u16());
        } else {
            shard.outcomes[record.outcome.index()].bump();
        }
        shard.total.observe(micros(end.saturating_duration_since(record.started)));
        shard.request_size.observe(record.request_bytes);
        if let Some(queued) = record.queued {
            shard.queue.observe(micros(queued));
        }
        if let (Some(upstream), Some(overhead)) = (record.upstream(end), record.overhead(end)) {
            shard.upstream.observe(micros(upstream));
            shard.overhead.observe(micros(overhead));
            shard.answer_size.observe(record.answer_bytes);
        }
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let end = Instant::now();
        if std::thread::panicking() {
            self.record.outcome = Outcome::Internal;
            self.record.detail = Some("the router panicked while it handled this request".into());
        }
        if self.record.status.is_none() {
            self.record.status = Some(self.record.outcome.status());
        }
        if let (Some(mirror), Some(status)) = (self.mirror.take(), self.record.status) {
            // Where the copy is done already, nobody is interested any more.
            let _ = mirror.send(status);
        }
        self.take_over_upload();
        self.count(end);
        self.link.worker.log.write(&self.record, end);
        self.link.end(end);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::SystemTime;

    use arc_swap::ArcSwap;
    use tokio::sync::watch;

    use super::*;
    use crate::core::limits::Limits;
    use crate::core::snapshot::Snapshot;
    use crate::core::vitals::Vitals;
    use crate::data::worker::{Phase, Shared, Worker};
    use crate::ops::access_log::{AccessLog, LogTarget};

    #[test]
    fn an_exchange_that_panics_is_recorded_once_as_the_routers_fault() {
        let directory = tempfile::tempdir().unwrap();
        let target = LogTarget::File(directory.path().join("access.log"));
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let log = AccessLog::start(&target, 1, 1 << 20, vitals.clone()).unwrap();
        let shared = Shared {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            limits: Arc::new(Limits::default()),
            vitals: vitals.clone(),
            phase: watch::channel(Phase::Running).1,
        };
        let worker = Arc::new(Worker::new(0, shared, log.worker(0), 1));
        let link = Arc::new(Link::new(worker, ([127, 0, 0, 1], 1).into()));
        let id = http::HeaderValue::from_static("the-id");
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _ledger = Ledger::new(Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id), link);
            panic!("a bug");
        }));
        assert!(outcome.is_err());
        assert_eq!(vitals.refusals.read(Outcome::Internal), 1);
        assert!(log.flush(crate::testing::PATIENCE));
        let text = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("\"the-id\"") && text.contains("\"internal\"") && text.contains("panicked"), "{text}");
    }
}
