//! An access log that cannot be written: lines that are lost are counted by why, and the trace log hears what to do.
//!
//! Owner: the access log. The workers drop lines, the writer finds out why.
//!
//! Holds: whatever the target does, the trace log hears little of it ([`Telling`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::core::telling::Telling;
use crate::core::vitals::Vitals;
use crate::ops::spool::Observer;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Trouble {
    vitals: Arc<Vitals>,
    is_failing: AtomicBool,
    failure: Mutex<Failure>,
    dropping: Mutex<Telling>,
}

/// What the writer last met with.
#[derive(Debug, Default)]
struct Failure {
    error: String,
    remedy: &'static str,
    telling: Telling,
}

impl Trouble {
    pub(super) fn new(vitals: Arc<Vitals>) -> Self {
        Self { vitals, is_failing: AtomicBool::new(false), failure: Mutex::default(), dropping: Mutex::default() }
    }

    /// There is no target, and there should be one.
    pub(super) fn report_nowhere(&self) {
        tracing::warn!(
            target: "scorefront::access_log",
            "the access log goes nowhere: standard output is closed, or is /dev/null; keep it open, or set access-log \
             to a file, or to off where none is wanted"
        );
    }

    /// Counts a line that has nowhere to go.
    pub(super) fn lose_line(&self) {
        self.vitals.access_log.dropped.nowhere.bump();
    }

    /// Counts a line that found no room.
    #[cold]
    pub(super) fn drop_line(&self, now: Instant) {
        let is_failing = self.is_failing.load(Ordering::Relaxed);
        let dropped = &self.vitals.access_log.dropped;
        if is_failing {
            dropped.failing.bump()
        } else {
            dropped.slow.bump()
        }
        // Whoever is telling already tells for the others too.
        if self.dropping.try_lock().is_some_and(|mut telling| telling.fails(now)) {
            self.report_dropped(dropped.read(), is_failing);
        }
    }

    fn report_dropped(&self, dropped: u64, is_failing: bool) {
        if is_failing {
            let failure = self.failure.lock();
            tracing::warn!(
                target: "scorefront::access_log",
                dropped, error = %failure.error, "access log lines dropped: they cannot be written; {}", failure.remedy
            );
        } else {
            tracing::warn!(
                target: "scorefront::access_log",
                dropped,
                "access log lines dropped: the target takes them too slowly; have it read faster, or raise \
                 access-log-buffer-bytes"
            );
        }
    }
}

/// On the writer's thread.
impl Observer for Arc<Trouble> {
    fn wrote(&self, lines: u64) {
        self.vitals.access_log.written.add(lines);
    }

    fn failed(&self, error: &io::Error, first: bool) {
        self.vitals.access_log.errors.bump();
        if !first {
            return;
        }
        let mut failure = self.failure.lock();
        (failure.error, failure.remedy) = (error.to_string(), remedy(error));
        self.is_failing.store(true, Ordering::Relaxed);
        if failure.telling.fails(Instant::now()) {
            tracing::error!(
                target: "scorefront::access_log",
                %error, "access log cannot be written; lines are kept as long as there is room; {}", failure.remedy
            );
        }
    }

    fn recovered(&self) {
        self.is_failing.store(false, Ordering::Relaxed);
        if self.failure.lock().telling.works() {
            tracing::info!(target: "scorefront::access_log", "access log is written again");
        }
    }

    fn not_reopened(&self, error: &io::Error) {
        self.vitals.access_log.errors.bump();
        tracing::error!(
            target: "scorefront::access_log", %error, "access log cannot be opened anew; the old file goes on taking lines"
        );
    }
}

/// What to do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its disk",
        io::ErrorKind::BrokenPipe => "whoever read standard output is gone: start it, and the router, anew",
        _ => "set access-log to another target",
    }
}
