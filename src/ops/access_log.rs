//! The access log: one JSON line for every request, whatever became of it.
//!
//! Owner: the app. Each worker has a [`WorkerLog`] and hands every finished [`Record`] to it once.
//!
//! Holds: writing a line allocates nothing and never waits for the target; a line that finds no room is dropped and
//! counted. How lines get out is `super::spool`'s business; what is in them is in `line`; what is said of lost ones in
//! `trouble`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::record::Record;
use crate::core::vitals::Vitals;

use self::trouble::Trouble;
use super::spool::{Lane, Outlet, Spool};

pub(crate) mod escape;
mod line;
pub(crate) mod number;
mod trouble;

pub use self::line::FIELDS;

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
    /// Where there is no spool although there should be lines.
    goes_nowhere: bool,
    trouble: Arc<Trouble>,
}

impl AccessLog {
    /// Opens the target and starts the writer. Every worker gets a buffer of `buffer_bytes` (and the writer one more
    /// in exchange); what does not fit while the target is slow is dropped.
    pub fn start(target: &LogTarget, workers: usize, buffer_bytes: usize, vitals: Arc<Vitals>) -> io::Result<Self> {
        let trouble = Arc::new(Trouble::new(vitals));
        let outlet = match target {
            LogTarget::Off => return Ok(Self { spool: None, goes_nowhere: false, trouble }),
            LogTarget::Stdout => Outlet::stdout()?,
            LogTarget::File(path) => Outlet::file(path)
                .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))?,
        };
        if *target == LogTarget::Stdout && outlet.is_null() {
            trouble.report_nowhere();
            return Ok(Self { spool: None, goes_nowhere: true, trouble });
        }
        let spool = Spool::start("access-log", outlet, workers, buffer_bytes, trouble.clone())?;
        Ok(Self { spool: Some(spool), goes_nowhere: false, trouble })
    }

    /// The log of one worker.
    pub fn worker(&self, index: usize) -> WorkerLog {
        WorkerLog {
            lane: self.spool.as_ref().map(|spool| spool.lane(index)),
            goes_nowhere: self.goes_nowhere,
            trouble: self.trouble.clone(),
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
    goes_nowhere: bool,
    trouble: Arc<Trouble>,
}

impl WorkerLog {
    /// Writes the line of an exchange that was over at `end`. Never blocks.
    pub fn write(&self, record: &Record, end: Instant) {
        let Some(lane) = &self.lane else {
            if self.goes_nowhere {
                self.trouble.lose_line();
            }
            return;
        };
        if !lane.append(|buffer| line::write(buffer, record, end)) {
            self.trouble.drop_line(end);
        }
    }
}

#[cfg(test)]
mod tests;
