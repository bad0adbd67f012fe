//! Lines on their way out: bounded buffers that many threads fill and one thread writes.
//!
//! Owner: the access log (one lane for each worker) and the trace log (one lane).
//!
//! Holds:
//! - whoever appends never waits for the target: a full lane drops the line and says so;
//! - after start nothing is allocated: each lane has a buffer of full size, and the writer has one more, which it
//!   swaps for that of the lane it empties;
//! - a line is written whole before the next one begins, whatever the target does in between: what it did not take
//!   is offered again, from the byte where it stopped. Only a reopened file begins again at the start of that line;
//! - the writer sleeps while there is nothing to do, and is woken once for a batch, not once for a line.
//!
//! How no line is left lying: an appender appends, then looks whether the writer was told (`told`); the writer first
//! clears `told`, then swaps the lanes under their locks. A line that came too late for the swap took the lane's lock
//! after the writer, so its appender sees the cleared flag.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::writer::Writer;

mod sink;
mod writer;

pub(crate) use self::sink::{Outlet, Sink};

/// No line is longer than this: a lane with less room than that is full.
pub(crate) const LINE_MAX: usize = 16 << 10;

/// Hears what becomes of the lines, on the writer's thread.
pub(crate) trait Observer: Send + 'static {
    /// So many whole lines are out.
    fn wrote(&self, lines: u64);
    /// The target did not take anything. `first` is false while the same trouble goes on.
    fn failed(&self, error: &io::Error, first: bool);
    /// The target takes lines again.
    fn recovered(&self);
    /// The target could not be opened anew; the old one goes on taking lines.
    fn not_reopened(&self, error: &io::Error);
}

/// See the head of the file. Dropping it ends the writer after what it is at; [`Spool::flush`] first.
#[derive(Debug)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Starts the writer. `lane_bytes` is the limit of each of the `lanes` buffers.
    pub(crate) fn start(
        name: &str,
        sink: impl Sink,
        lanes: usize,
        lane_bytes: usize,
        observer: impl Observer,
    ) -> io::Result<Self> {
        let lane_bytes = lane_bytes.max(LINE_MAX);
        let shared = Arc::new(Shared {
            lanes: (0..lanes.max(1)).map(|_| Mutex::new(Batch::with_room(lane_bytes))).collect(),
            lane_bytes,
            told: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            requests: Mutex::new(Requests::default()),
            answered: Condvar::new(),
            writer: Mutex::new(None),
        });
        let writer = Writer::new(shared.clone(), sink, observer);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run())?;
        *shared.writer.lock() = Some(handle.thread().clone());
        Ok(Self { shared })
    }

    /// The way in for one thread. Several threads may share a lane; then they may wait for each other's copying.
    pub(crate) fn lane(&self, index: usize) -> Lane {
        let writer = self.shared.writer.lock().clone();
        Lane { shared: self.shared.clone(), index: index % self.shared.lanes.len(), writer }
    }

    /// Opens the target anew before the next write.
    pub(crate) fn reopen(&self) {
        self.shared.requests.lock().reopen = true;
        self.shared.urge();
    }

    /// Waits until every line appended so far is out. False when that took longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut requests = self.shared.requests.lock();
        requests.flush_asked += 1;
        let wanted = requests.flush_asked;
        self.shared.urge();
        while requests.flush_done < wanted {
            if self.shared.answered.wait_until(&mut requests, deadline).timed_out() {
                return requests.flush_done >= wanted;
            }
        }
        true
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.requests.lock().stop = true;
        self.shared.urge();
    }
}

/// The way in for one thread.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    index: usize,
    writer: Option<Thread>,
}

impl Lane {
    /// Appends what `line` writes, which must be one line with its end and not longer than [`LINE_MAX`]. False when
    /// there is no room; then `line` is not called.
    pub(crate) fn append(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(lane) = self.shared.lanes.get(self.index) else { return false };
        let half = self.shared.lane_bytes / 2;
        let mut batch = lane.lock();
        let before = batch.bytes.len();
        if before + LINE_MAX > self.shared.lane_bytes {
            drop(batch);
            return false;
        }
        line(&mut batch.bytes);
        batch.lines += 1;
        let after = batch.bytes.len();
        drop(batch);
        debug_assert!(after - before <= LINE_MAX, "a line of {} bytes", after - before);
        if before < half && after >= half {
            self.shared.hurry.store(true, Ordering::SeqCst);
            self.wake();
        } else if !self.shared.told.load(Ordering::SeqCst) && !self.shared.told.swap(true, Ordering::SeqCst) {
            self.wake();
        }
        true
    }

    fn wake(&self) {
        self.shared.told.store(true, Ordering::SeqCst);
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }
}

/// What appenders and the writer share.
#[derive(Debug)]
struct Shared {
    lanes: Box<[Mutex<Batch>]>,
    lane_bytes: usize,
    /// The writer knows that there is something to write.
    told: AtomicBool,
    /// The writer should not wait for more.
    hurry: AtomicBool,
    requests: Mutex<Requests>,
    answered: Condvar,
    writer: Mutex<Option<Thread>>,
}

impl Shared {
    /// Makes the writer look at its requests at once.
    fn urge(&self) {
        self.hurry.store(true, Ordering::SeqCst);
        self.told.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.lock().as_ref() {
            writer.unpark();
        }
    }
}

/// What is asked of the writer besides writing.
#[derive(Debug, Default)]
struct Requests {
    reopen: bool,
    stop: bool,
    flush_asked: u64,
    flush_done: u64,
}

/// Whole lines.
#[derive(Debug)]
#[repr(align(128))]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lines: 0 }
    }
}

#[cfg(test)]
mod tests;
