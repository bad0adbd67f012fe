//! The thread that empties the lanes.
//!
//! A round: wait until told, give stragglers a moment, swap each lane's buffer for an empty one and write
//! it. Trouble with the target never loses the place: the same bytes are offered again after a pause that grows, and
//! meanwhile the lanes fill up and drop what no longer fits. That is the only place where lines are lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Batch, Observer, Shared, Sink};

/// How long a round waits for more lines after the first one: a line is out after that at the latest. Every round takes
/// a processor from somebody, and where few requests come that could be one who waits for an answer.
const COALESCE: Duration = Duration::from_millis(50);
/// Pauses after a failed write: the first, and the longest. A full pipe is tried again sooner than a full disk.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After being told to stop, this much longer for a target that does not take what is left.
const STOP_PATIENCE: Duration = Duration::from_millis(100);

/// See the head of the file.
pub(super) struct Writer<S, O> {
    shared: Arc<Shared>,
    sink: S,
    observer: O,
    /// The empty buffer that is swapped in next.
    spare: Batch,
    failing: bool,
    stop_since: Option<Instant>,
}

impl<S: Sink, O: Observer> Writer<S, O> {
    pub(super) fn new(shared: Arc<Shared>, sink: S, observer: O) -> Self {
        let spare = Batch::with_room(shared.lane_bytes);
        Self { shared, sink, observer, spare, failing: false, stop_since: None }
    }

    pub(super) fn run(mut self) {
        loop {
            self.wait();
            let flush = self.shared.requests.lock().flush_asked;
            self.answer_requests();
            let complete = self.empty_lanes();
            if complete {
                let mut requests = self.shared.requests.lock();
                requests.flush_done = requests.flush_done.max(flush);
                self.shared.answered.notify_all();
            }
            if self.stop_since.is_some() {
                return;
            }
        }
    }

    /// Until there is something to do, and then a little longer unless somebody is in a hurry.
    fn wait(&self) {
        while !self.shared.told.load(Ordering::SeqCst) {
            std::thread::park();
        }
        let until = Instant::now() + COALESCE;
        while !self.shared.hurry.load(Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::park_timeout(left);
        }
        self.shared.hurry.store(false, Ordering::SeqCst);
        self.shared.told.store(false, Ordering::SeqCst);
    }

    /// Says whether the target is another one now.
    fn answer_requests(&mut self) -> bool {
        let (reopen, stop) = {
            let mut requests = self.shared.requests.lock();
            (std::mem::take(&mut requests.reopen), requests.stop)
        };
        if stop && self.stop_since.is_none() {
            self.stop_since = Some(Instant::now());
        }
        if !reopen {
            return false;
        }
        match self.sink.reopen() {
            Ok(another) => another,
            Err(error) => {
                self.observer.not_reopened(&error);
                false
            }
        }
    }

    /// Says whether everything that was in the lanes is out.
    fn empty_lanes(&mut self) -> bool {
        for index in 0..self.shared.lanes.len() {
            let Some(lane) = self.shared.lanes.get(index) else { continue };
            std::mem::swap(&mut *lane.lock(), &mut self.spare);
            let complete = self.write_batch();
            self.spare.bytes.clear();
            self.spare.lines = 0;
            if !complete {
                return false;
            }
        }
        true
    }

    /// Writes `spare`, however long it takes; gives up only when told to stop.
    fn write_batch(&mut self) -> bool {
        let (mut at, mut pause) = (0, Duration::ZERO);
        while at < self.spare.bytes.len() {
            let rest = self.spare.bytes.get(at..).unwrap_or_default();
            match self.sink.take(rest) {
                Ok(0) => pause = self.fail(&io::ErrorKind::WriteZero.into(), pause),
                Ok(n) => {
                    at += n;
                    pause = Duration::ZERO;
                    self.recover();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pause = grown(pause, BUSY_PAUSE),
                Err(error) => pause = self.fail(&error, pause),
            }
            std::thread::park_timeout(pause);
            if self.answer_requests() {
                at = line_start(&self.spare.bytes, at);
            }
            if self.stop_since.is_some_and(|since| Instant::now() > since + STOP_PATIENCE) {
                return false;
            }
        }
        if self.spare.lines > 0 {
            self.observer.wrote(self.spare.lines);
        }
        true
    }

    fn fail(&mut self, error: &io::Error, pause: Duration) -> Duration {
        self.observer.failed(error, !std::mem::replace(&mut self.failing, true));
        grown(pause, FAILURE_PAUSE)
    }

    fn recover(&mut self) {
        if std::mem::take(&mut self.failing) {
            self.observer.recovered();
        }
    }
}

fn grown(pause: Duration, (first, longest): (Duration, Duration)) -> Duration {
    (pause * 2).clamp(first, longest)
}

/// Where the line begins that `at` is in.
fn line_start(bytes: &[u8], at: usize) -> usize {
    let written = bytes.get(..at).unwrap_or_default();
    written.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}
