//! The record of an exchange, handed in exactly once.
//!
//! Owner: the exchange at first, then the body of its answer, and from the body's end until the answer is out the
//! client's connection. Whoever holds it when it is dropped has decided how the exchange ended: finished, broken off,
//! panicked, or simply dropped because the client went away. Dropping it counts the metrics and writes the log line.
//! The connection keeps it so that this is done after the answer went out, not before.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::cors::Marks;
use super::entry;
use super::link::Link;
use super::upload::{Upload, discard};
use crate::core::count::micros;
use crate::core::limiter::Passed;
use crate::core::outcome::Outcome;
use crate::core::record::Record;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) record: Box<Record>,
    pub(crate) upload: Option<Upload>,
    /// Tells the copy of a mirrored request how the primary ended.
    pub(crate) mirror: Option<oneshot::Sender<StatusCode>>,
    /// What the answer says about CORS, where the router is to say.
    pub(crate) cors: Option<Box<Marks>>,
    /// Whether it counts among the requests under way, of all and of its endpoint.
    pub(crate) counts: bool,
    /// What it holds of the endpoint's rate limits, until the end of the answer at the latest.
    pub(crate) passed: Option<Passed>,
    link: Arc<Link>,
}

const UNTAKEN: &str =
    "the client took nothing of the answer for body-timeout-ms, or less than min-answer-bytes-per-second";

impl Ledger {
    pub(crate) fn new(record: Box<Record>, link: Arc<Link>) -> Self {
        link.begin();
        Self { record, upload: None, mirror: None, cors: None, counts: false, passed: None, link }
    }

    /// An alarm that rings at `until` or before: whoever it wakes looks at the clock.
    pub(crate) fn take_alarm(&self, until: Instant) -> Pin<Box<Sleep>> {
        self.link.alarm.take(until.into())
    }

    /// Gives it back.
    pub(crate) fn keep_alarm(&self, alarm: Pin<Box<Sleep>>) {
        self.link.alarm.keep(alarm);
    }

    /// Says how it ended. The status stays as it was sent where an answer had begun.
    pub(crate) fn conclude(&mut self, outcome: Outcome) {
        self.record.outcome = outcome;
    }

    /// The client takes nothing of the answer, or too little at a time.
    pub(crate) fn leave_untaken(&mut self) {
        self.conclude(Outcome::ClientGone);
        self.link.worker.shared.vitals.connections.slow_readers.bump();
        self.record.detail = Some(UNTAKEN.into());
    }

    /// Marks the client's connection: what it got of the answer must not look whole.
    pub(crate) fn break_connection(&self) {
        self.link.set_broken();
    }

    /// The body of the answer is over. What remains to be done waits until the answer is out.
    fn close(mut self) {
        // Before the answer is out: whoever has it may ask again.
        self.passed = None;
        if std::thread::panicking() || self.link.is_http2() {
            return;
        }
        self.take_over_upload();
        self.link.clone().owe(self);
    }

    fn take_over_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            let progress = upload.progress();
            self.record.request_bytes = progress.bytes;
            self.record.received = progress.ended;
            match upload.cut() {
                Some(rest) if self.link.is_http2() => discard(self.link.clone(), rest),
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

/// The ledger of an answer under way. Dropping it closes the ledger.
#[derive(Debug)]
pub(crate) struct Open(Option<Ledger>);

impl Open {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(Some(ledger))
    }

    /// The link it belongs to.
    pub(super) fn link(&self) -> Option<&Link> {
        self.0.as_ref().map(|ledger| &*ledger.link)
    }

    /// Nothing to record: that has been done.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    /// Whether the answer has to wait for the client: see [`Link::holds_back`].
    pub(crate) fn holds_back(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|ledger| ledger.link.holds_back(cx))
    }

    /// Changes what is recorded.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Ledger)) {
        if let Some(ledger) = &mut self.0 {
            change(ledger);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(ledger) = self.0.take() {
            ledger.close();
        }
    }
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
        if self.record.outcome == Outcome::ClientGone && self.link.is_untaken() {
            self.record.detail.get_or_insert_with(|| UNTAKEN.into());
        }
        if let (Some(mirror), Some(status)) = (self.mirror.take(), self.record.status) {
            // Where the copy is done already, nobody is interested any more.
            let _ = mirror.send(status);
        }
        self.take_over_upload();
        if let (true, Some(endpoint)) = (self.counts, &self.record.endpoint) {
            entry::leave(&self.link.worker, endpoint);
        }
        self.count(end);
        self.link.worker.log.write(&self.record, end);
        self.link.end(end);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::SystemTime;

    use super::*;

    use crate::core::vitals::Vitals;
    use crate::data::worker::{Shared, Worker};
    use crate::ops::access_log::{AccessLog, LogTarget};

    /// One client connection of a router of its own.
    struct Bench {
        directory: tempfile::TempDir,
        log: AccessLog,
        vitals: Arc<Vitals>,
        link: Arc<Link>,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let target = LogTarget::File(directory.path().join("access.log"));
            let vitals = Arc::new(Vitals::new(1, Instant::now()));
            let log = AccessLog::start(&target, 1, 1 << 20, vitals.clone()).unwrap();
            let (_, shared) = Shared::of_nothing(vitals.clone());
            let worker = Arc::new(Worker::new(0, shared, log.worker(0), 1));
            Self { directory, log, vitals, link: Arc::new(Link::new(worker, ([127, 0, 0, 1], 1).into())) }
        }

        fn ledger(&self) -> Ledger {
            let id = http::HeaderValue::from_static("the-id");
            let record = Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id);
            Ledger::new(Box::new(record), self.link.clone())
        }

        fn lines(&self) -> Vec<String> {
            assert!(self.log.flush(crate::testing::PATIENCE));
            let text = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn an_exchange_that_panics_is_recorded_once_as_the_routers_fault() {
        let bench = Bench::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _ledger = bench.ledger();
            panic!("a bug");
        }));
        assert!(outcome.is_err());
        assert_eq!(bench.vitals.refusals.read(Outcome::Internal), 1);
        let [line] = &bench.lines()[..] else { panic!("one line") };
        assert!(line.contains("\"the-id\"") && line.contains("\"internal\"") && line.contains("panicked"), "{line}");
    }

    #[test]
    fn a_panic_while_the_answer_is_written_is_recorded_once() {
        let bench = Bench::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _open = Open::new(bench.ledger());
            panic!("a bug");
        }));
        assert!(outcome.is_err());
        bench.link.settle_unsent();
        let [line] = &bench.lines()[..] else { panic!("one line") };
        assert!(line.contains("\"internal\""), "{line}");
    }

    #[test]
    fn an_answer_is_recorded_when_it_is_out_and_otherwise_as_one_that_the_client_did_not_get() {
        let bench = Bench::new();
        for is_out in [true, false] {
            let mut open = Open::new(bench.ledger());
            open.note(|ledger| ledger.conclude(Outcome::Served));
            let before = bench.lines().len();
            drop(open);
            assert_eq!(bench.lines().len(), before, "not before it is out");
            if is_out {
                bench.link.settle()
            } else {
                bench.link.settle_unsent()
            }
            bench.link.settle_unsent();
            assert_eq!(bench.lines().len(), before + 1);
        }
        let lines = bench.lines();
        assert!(lines[0].contains("\"served\""), "{lines:?}");
        assert!(lines[1].contains("\"client_gone\"") && lines[1].contains("before the end of the answer"), "{lines:?}");
    }

    #[test]
    fn of_two_answers_that_go_out_together_both_are_recorded() {
        let bench = Bench::new();
        drop(Open::new(bench.ledger()));
        drop(Open::new(bench.ledger()));
        bench.link.settle();
        assert_eq!(bench.lines().len(), 2);
    }
}
