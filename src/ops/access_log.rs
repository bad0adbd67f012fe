//! The access log: one JSON line for every request, whatever became of it.
//!
//! Owner: the app. Each worker has a [`WorkerLog`] and hands every finished [`Record`] to it once.
//!
//! Holds: writing a line allocates nothing and never waits for the target; a line that finds no room is dropped and
//! counted. How lines get out is `super::spool`'s business; what is in them is in `line`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::core::record::Record;
use crate::core::vitals::Vitals;

use super::spool::{Lane, Observer, Outlet, Sink, Spool};

pub(crate) mod escape;
mod line;
pub(crate) mod number;

pub use self::line::FIELDS;

/// The trace log hears of dropped lines this often at most.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Appended to this file, which is opened anew on SIGHUP.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for LogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("is empty"),
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Off => f.write_str("off"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub struct AccessLog {
    spool: Option<Spool>,
    vitals: Arc<Vitals>,
    reported_us: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the target and starts the writer. Every worker gets a buffer of `buffer_bytes` (and the writer one more
    /// in exchange); what does not fit while the target is slow is dropped.
    pub fn start(target: &LogTarget, workers: usize, buffer_bytes: usize, vitals: Arc<Vitals>) -> io::Result<Self> {
        let outlet = match target {
            LogTarget::Off => return Ok(Self { spool: None, vitals, reported_us: Arc::default() }),
            LogTarget::Stdout => Outlet::stdout()?,
            LogTarget::File(path) => Outlet::file(path)
                .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))?,
        };
        Self::into_sink(outlet, workers, buffer_bytes, vitals)
    }

    fn into_sink(sink: impl Sink, workers: usize, buffer_bytes: usize, vitals: Arc<Vitals>) -> io::Result<Self> {
        let counts = Counts(vitals.clone());
        let spool = Spool::start("access-log", sink, workers, buffer_bytes, counts)?;
        Ok(Self { spool: Some(spool), vitals, reported_us: Arc::default() })
    }

    /// The log of one worker.
    pub fn worker(&self, index: usize) -> WorkerLog {
        WorkerLog {
            lane: self.spool.as_ref().map(|spool| spool.lane(index)),
            vitals: self.vitals.clone(),
            reported_us: self.reported_us.clone(),
        }
    }

    /// Opens the file anew, for log rotation.
    pub fn reopen(&self) {
        if let Some(spool) = &self.spool {
            spool.reopen();
        }
    }

    /// Waits until every line so far is out, or until `patience` is over: then says false.
    pub fn flush(&self, patience: Duration) -> bool {
        self.spool.as_ref().is_none_or(|spool| spool.flush(patience))
    }
}

/// The access log of one worker: cheap to clone, shared by its connections.
#[derive(Clone, Debug)]
pub struct WorkerLog {
    lane: Option<Lane>,
    vitals: Arc<Vitals>,
    reported_us: Arc<AtomicU64>,
}

impl WorkerLog {
    /// Writes the line of an exchange that was over at `end`. Never blocks.
    pub fn write(&self, record: &Record, end: Instant) {
        let Some(lane) = &self.lane else { return };
        if !lane.append(|buffer| line::write(buffer, record, end)) {
            self.vitals.access_log.dropped.bump();
            self.report_dropped(end);
        }
    }

    #[cold]
    fn report_dropped(&self, now: Instant) {
        let now_us = self.vitals.micros(now).max(1);
        let last = self.reported_us.load(Ordering::Relaxed);
        let due = last == 0 || now_us.saturating_sub(last) >= REPORT_EVERY.as_micros() as u64;
        if due && self.reported_us.compare_exchange(last, now_us, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let dropped = self.vitals.access_log.dropped.read();
            tracing::warn!(dropped, "access log lines dropped: the target does not take them fast enough");
        }
    }
}

/// Counts lines, and tells the trace log when the target fails and when it is back.
struct Counts(Arc<Vitals>);

impl Observer for Counts {
    fn wrote(&self, lines: u64) {
        self.0.access_log.written.add(lines);
    }

    fn failed(&self, error: &io::Error, first: bool) {
        self.0.access_log.errors.bump();
        if first {
            tracing::error!(%error, "access log cannot be written; lines are kept as long as there is room");
        }
    }

    fn recovered(&self) {
        tracing::info!("access log is written again");
    }
}

#[cfg(test)]
mod tests;
