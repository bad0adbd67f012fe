//! The spool against sinks that take little, nothing, or fail.

use std::collections::VecDeque;
use std::path::Path;

use super::*;

/// What a scripted sink does with one write.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Refuse(io::ErrorKind),
}

#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    taken: Vec<u8>,
    writes: usize,
    /// What was taken before each reopen.
    closed: Vec<Vec<u8>>,
    /// Refuses everything while set.
    shut: bool,
}

#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Sink for Scripted {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.lock();
        script.writes += 1;
        if script.shut {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match script.steps.pop_front().unwrap_or(Step::Take(usize::MAX)) {
            Step::Take(most) => {
                let count = most.min(bytes.len());
                script.taken.extend_from_slice(&bytes[..count]);
                Ok(count)
            }
            Step::Refuse(kind) => Err(kind.into()),
        }
    }

    fn reopen(&mut self) -> io::Result<bool> {
        let mut script = self.0.lock();
        let taken = std::mem::take(&mut script.taken);
        script.closed.push(taken);
        Ok(true)
    }
}

#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<(u64, Vec<&'static str>)>>);

impl Observer for Heard {
    fn wrote(&self, lines: u64) {
        self.0.lock().0 += lines;
    }

    fn failed(&self, _: &io::Error, first: bool) {
        if first {
            self.0.lock().1.push("failed");
        }
    }

    fn recovered(&self) {
        self.0.lock().1.push("recovered");
    }

    fn not_reopened(&self, _: &io::Error) {
        self.0.lock().1.push("not reopened");
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn spool(steps: &[Step], lanes: usize, lane_bytes: usize) -> (Spool, Scripted, Heard) {
    let (sink, heard) = (Scripted::default(), Heard::default());
    sink.0.lock().steps = steps.iter().copied().collect();
    let spool = Spool::start("test-log", sink.clone(), lanes, lane_bytes, heard.clone()).expect("a thread");
    (spool, sink, heard)
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} in time");
        std::thread::yield_now();
    }
}

fn say(lane: &Lane, text: &str) -> bool {
    lane.append(|buffer| {
        buffer.extend_from_slice(text.as_bytes());
        buffer.push(b'\n');
    })
}

#[test]
fn a_line_comes_out_without_being_asked_for() {
    let (spool, sink, _) = spool(&[], 1, LINE_MAX);
    assert!(say(&spool.lane(0), "hello"));
    eventually("the line", || sink.0.lock().taken == b"hello\n");
}

#[test]
fn every_line_of_every_lane_comes_out_whole_and_in_the_order_of_its_lane() {
    let steps: Vec<_> = (1..40).map(Step::Take).collect();
    let (spool, sink, heard) = spool(&steps, 3, 1 << 20);
    std::thread::scope(|scope| {
        for index in 0..3 {
            let lane = spool.lane(index);
            scope.spawn(move || (0..2000).for_each(|n| assert!(say(&lane, &format!("{index} {n}")))));
        }
    });
    assert!(spool.flush(PATIENCE));
    let text = String::from_utf8(sink.0.lock().taken.clone()).expect("text");
    let mut next = [0; 3];
    for line in text.lines() {
        let (lane, number) = line.split_once(' ').expect("two words");
        let lane: usize = lane.parse().expect("a lane");
        assert_eq!(number.parse(), Ok(next[lane]), "{line}");
        next[lane] += 1;
    }
    assert_eq!(next, [2000; 3]);
    assert_eq!(heard.0.lock().0, 6000);
}

#[test]
fn trouble_in_the_middle_of_a_line_is_waited_out_and_told_once() {
    use io::ErrorKind::{Interrupted, StorageFull, WouldBlock};
    let steps = [
        Step::Take(3),
        Step::Refuse(WouldBlock),
        Step::Refuse(Interrupted),
        Step::Take(1),
        Step::Refuse(StorageFull),
        Step::Refuse(StorageFull),
        Step::Take(0),
    ];
    let (spool, sink, heard) = spool(&steps, 1, LINE_MAX);
    assert!(say(&spool.lane(0), "hello"));
    assert!(spool.flush(PATIENCE));
    assert_eq!(sink.0.lock().taken, b"hello\n");
    assert_eq!(*heard.0.lock(), (1, vec!["failed", "recovered"]));
}

#[test]
fn a_full_lane_drops_and_a_blocked_target_neither_blocks_nor_spins() {
    let (spool, sink, _) = spool(&[], 1, 4 * LINE_MAX);
    sink.0.lock().shut = true;
    let lane = spool.lane(0);
    let line = "x".repeat(1000);
    let kept = (0..1000).filter(|_| say(&lane, &line)).count();
    assert!((48..=500).contains(&kept), "{kept}");
    assert!(!spool.flush(Duration::from_millis(150)), "nothing can come out");
    assert!(sink.0.lock().writes < 30, "{} writes", sink.0.lock().writes);
    sink.0.lock().shut = false;
    assert!(spool.flush(PATIENCE));
    assert_eq!(sink.0.lock().taken.len(), kept * 1001);
    assert!(say(&lane, "again"), "there is room again");
}

#[test]
fn a_reopened_target_begins_with_the_whole_line() {
    let steps = [Step::Take(9), Step::Refuse(io::ErrorKind::StorageFull)];
    let (spool, sink, _) = spool(&steps, 1, 1 << 20);
    spool.lane(0).append(|buffer| buffer.extend_from_slice(b"first\n"));
    spool.reopen();
    spool.lane(0).append(|buffer| buffer.extend_from_slice(b"second\n"));
    assert!(spool.flush(PATIENCE));
    let script = sink.0.lock();
    let all = [script.closed.concat(), script.taken.clone()].concat();
    let text = String::from_utf8(all).expect("text");
    assert!(text.contains("first\n") && text.ends_with("second\n"), "{text:?}");
}

#[test]
fn a_reopen_in_the_middle_of_a_line_writes_that_line_again() {
    let (spool, sink, _) = spool(&[Step::Take(9)], 1, 1 << 20);
    sink.0.lock().steps.extend([Step::Refuse(io::ErrorKind::StorageFull); 4]);
    spool.lane(0).append(|buffer| buffer.extend_from_slice(b"first\nsecond\n"));
    eventually("half of it", || sink.0.lock().taken == b"first\nsec");
    spool.reopen();
    assert!(spool.flush(PATIENCE));
    let script = sink.0.lock();
    assert_eq!(script.closed, [b"first\nsec".to_vec()]);
    assert_eq!(script.taken, b"second\n");
}

#[test]
fn a_dropped_spool_writes_what_it_has_and_ends() {
    let (spool, sink, heard) = spool(&[], 1, LINE_MAX);
    assert!(say(&spool.lane(0), "last"));
    let shared = Arc::downgrade(&spool.shared);
    drop(spool);
    eventually("the end of the thread", || shared.upgrade().is_none());
    assert_eq!(sink.0.lock().taken, b"last\n");
    assert_eq!(heard.0.lock().0, 1);
}

#[test]
fn a_file_is_appended_to_reopened_and_never_continues_half_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    std::fs::write(&path, "half").expect("a file");
    let outlet = Outlet::file(&path).expect("opens");
    let spool = Spool::start("test-log", outlet, 1, LINE_MAX, Heard::default()).expect("a thread");
    assert!(say(&spool.lane(0), "one") && spool.flush(PATIENCE));
    let rotated = directory.path().join("access.log.1");
    std::fs::rename(&path, &rotated).expect("rotates");
    assert!(say(&spool.lane(0), "two") && spool.flush(PATIENCE));
    spool.reopen();
    assert!(say(&spool.lane(0), "three") && spool.flush(PATIENCE));
    assert_eq!(std::fs::read_to_string(&rotated).expect("reads"), "half\none\ntwo\n");
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "three\n");
}

#[test]
fn a_full_pipe_keeps_nobody_waiting_and_a_reader_that_comes_late_gets_whole_lines() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let heard = Heard::default();
    let spool = Spool::start("test-log", Outlet::pipe(writer), 1, 1 << 20, heard.clone()).expect("a thread");
    let lane = spool.lane(0);
    let line = "x".repeat(999);
    let kept = (0..4000).filter(|_| say(&lane, &line)).count();
    assert!((1000..4000).contains(&kept), "{kept}");
    let asked = Instant::now();
    assert!(!spool.flush(Duration::from_millis(50)), "nobody reads");
    assert!(asked.elapsed() < Duration::from_secs(10));
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).expect("reads");
        text
    });
    assert!(spool.flush(PATIENCE));
    drop((lane, spool));
    let text = reading.join().expect("reads to the end");
    assert_eq!(text.lines().count(), kept);
    assert!(text.lines().all(|read| read == line));
    assert_eq!(heard.0.lock().0, kept as u64);
}

#[test]
fn a_broken_pipe_is_told_once_and_does_not_spin() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let heard = Heard::default();
    let spool = Spool::start("test-log", Outlet::pipe(writer), 1, 1 << 20, heard.clone()).expect("a thread");
    assert!(say(&spool.lane(0), "lost"));
    assert!(!spool.flush(Duration::from_millis(300)));
    assert_eq!(*heard.0.lock(), (0, vec!["failed"]));
}

#[test]
fn a_target_that_keeps_nothing_is_known() {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, is_null) in [(Path::new("/dev/null"), true), (Path::new("/dev/full"), false), (directory.path(), false)]
    {
        let path = if path.is_dir() { &path.join("access.log") } else { path };
        assert_eq!(Outlet::file(path).expect("opens").is_null(), is_null, "{}", path.display());
    }
}

#[test]
fn a_named_pipe_is_refused_because_opening_it_would_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("runs").success());
    assert_eq!(Outlet::file(&path).expect_err("is refused").kind(), io::ErrorKind::InvalidInput);
}
