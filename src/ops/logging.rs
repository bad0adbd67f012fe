//! The trace log: what the router does and why, on standard error, as text or JSON.
//!
//! Owner: main starts it first and flushes it last. Levels can be changed while the router runs ([`Levels`]).
//!
//! Holds: logging never waits for standard error. Lines go through a `super::spool`; while nobody reads them they
//! are dropped, and the next line that goes through says how many.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::spool::{LINE_MAX, Lane, Observer, Outlet, Spool};

/// What may wait for standard error, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word for it in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Text, Self::Json].into_iter().find(|format| format.word() == text).ok_or(())
    }
}

/// Which lines are written: a level, or levels by module (`info,scorefront::discovery=warn`).
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(text.trim())
        .map_err(|error| error.to_string())
}

/// The running trace log.
#[derive(Debug)]
pub struct Logging {
    spool: Spool,
    levels: Levels,
}

impl Logging {
    /// Makes it the log of the whole process. Can be done once.
    pub fn start(format: LogFormat, filter: &str) -> io::Result<Self> {
        let spool = Spool::start("trace-log", Outlet::stderr()?, 1, BUFFER_BYTES, Unheard)?;
        let sink = Lines { lane: spool.lane(0), format, dropped: Arc::default() };
        let filter = parse_filter(filter).map_err(io::Error::other)?;
        let (subscriber, levels) = subscriber(format, filter, sink);
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        tell_of_panics();
        Ok(Self { spool, levels })
    }

    /// For looking at and changing the levels.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// Waits until every line so far is out, or until `patience` is over: then says false.
    pub fn flush(&self, patience: Duration) -> bool {
        self.spool.flush(patience)
    }
}

/// From now on panics are lines of the trace log like others, and no longer written to standard error by the thread
/// that panics: that would wait for whoever reads it, and would be no JSON.
pub fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
        tracing::error!(
            target: "scorefront::panic",
            thread = thread.name().unwrap_or_default(), %location, backtrace,
            "a bug of the router, please report it: {}", panic.payload_as_str().unwrap_or("panic without words")
        );
    }));
}

/// Looks at and changes the levels of the trace log.
#[derive(Clone)]
pub struct Levels(reload::Handle<EnvFilter, Registry>);

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels").field(&self.current()).finish()
    }
}

impl Levels {
    /// The filter in force.
    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_else(|_| "unknown: the log has ended".to_owned())
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// Says what is wrong with the text; then the old filter stays.
    pub fn change(&self, text: &str) -> Result<(), String> {
        let filter = parse_filter(text)?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }

    /// Levels of a log that nobody reads: for tests of what shows them.
    #[cfg(any(test, feature = "testing"))]
    pub fn detached(filter: &str) -> (Self, impl Subscriber + Send + Sync + 'static) {
        let filter = parse_filter(filter).unwrap_or_default();
        let (subscriber, levels) = subscriber(LogFormat::Text, filter, io::sink);
        (levels, subscriber)
    }
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, sink: W) -> (impl Subscriber + Send + Sync, Levels)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(sink).with_ansi(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
    };
    (Registry::default().with(filter).with(lines.with_filter(filter_fn(is_ours_to_tell))), Levels(handle))
}

/// The Kubernetes client logs each failed request as an error of its own, and whole answers, Secrets included, when
/// they do not parse. Discovery reports every failure once, as a problem, and without what came: that is enough.
///
/// The HTTP/2 library warns of what a peer does, once for each frame: whoever sends frames could fill the log.
fn is_ours_to_tell(line: &Metadata<'_>) -> bool {
    let is_http2 = line.target().starts_with("h2::") && *line.level() <= Level::WARN;
    !is_http2 && !line.target().starts_with("kube_client")
}

/// Makes a writer for each line.
#[derive(Clone, Debug)]
struct Lines {
    lane: Lane,
    format: LogFormat,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self }
    }
}

/// The formatter hands a line over in one call.
struct Line<'a> {
    lines: &'a Lines,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let dropped = self.lines.dropped.swap(0, Ordering::Relaxed);
        let taken = self.lines.lane.append(|buffer| {
            if dropped > 0 {
                append_notice(buffer, self.lines.format, dropped);
            }
            append_cut(buffer, bytes);
        });
        if !taken {
            self.lines.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writing into a vector cannot fail.
fn append_notice(buffer: &mut Vec<u8>, format: LogFormat, dropped: u64) {
    let _ = match format {
        LogFormat::Text => writeln!(buffer, "WARN trace log lines dropped: {dropped}"),
        LogFormat::Json => {
            writeln!(buffer, "{{\"level\":\"WARN\",\"message\":\"trace log lines dropped\",\"dropped\":{dropped}}}")
        }
    };
}

/// A line longer than the spool takes is cut, at the end of a character, and still ends as a line.
fn append_cut(buffer: &mut Vec<u8>, bytes: &[u8]) {
    const ROOM: usize = LINE_MAX - 256;
    if bytes.len() <= ROOM {
        buffer.extend_from_slice(bytes);
        return;
    }
    let is_boundary = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let at = (ROOM - 3..ROOM + 1).rev().find(is_boundary).unwrap_or(ROOM);
    buffer.extend_from_slice(bytes.get(..at).unwrap_or_default());
    buffer.push(b'\n');
}

/// There is nowhere to report trouble with the trace log but the trace log.
struct Unheard;

impl Observer for Unheard {
    fn wrote(&self, _: u64) {}
    fn failed(&self, _: &io::Error, _: bool) {}
    fn recovered(&self) {}
    fn not_reopened(&self, _: &io::Error) {}
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, work: impl FnOnce(&Levels)) -> String {
        let captured = Captured::default();
        let sink = captured.clone();
        let filter = parse_filter(filter).expect("a filter");
        let (subscriber, levels) = subscriber(format, filter, move || sink.clone());
        tracing::subscriber::with_default(subscriber, || work(&levels));
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn json_lines_are_json_with_the_fields_beside_the_message() {
        let text = logged(LogFormat::Json, "info", |_| tracing::info!(endpoint = "iris\n", replicas = 3, "added"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("json");
        assert_eq!(line["message"], "added");
        assert_eq!(line["endpoint"], "iris\n");
        assert_eq!(line["replicas"], 3);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn levels_change_while_it_runs_and_a_wrong_one_changes_nothing() {
        let text = logged(LogFormat::Text, "info", |levels| {
            tracing::debug!("one");
            levels.change("info,scorefront=debug").expect("a filter");
            tracing::debug!("two");
            assert!(levels.change("scorefront=loud").is_err());
            assert!(levels.change("  ").is_err());
            assert_eq!(levels.current(), "scorefront=debug,info");
            tracing::debug!("three");
        });
        assert!(!text.contains("one") && text.contains("two") && text.contains("three"), "{text}");
    }

    #[test]
    fn what_nobody_read_is_counted_in_the_next_line_that_goes_through() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let spool = Spool::start("test-log", Outlet::pipe(writer), 1, LINE_MAX, Unheard).expect("a thread");
        let lines = Lines { lane: spool.lane(0), format: LogFormat::Json, dropped: Arc::default() };
        let line = format!("{:4095}\n", "{}");
        let write = || lines.make_writer().write_all(line.as_bytes()).expect("never fails");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while lines.dropped.load(Ordering::Relaxed) == 0 {
            write();
            assert!(std::time::Instant::now() < deadline, "the pipe is full in time");
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            io::Read::read_to_string(&mut reader, &mut text).expect("reads");
            text
        });
        assert!(spool.flush(Duration::from_secs(20)));
        write();
        assert!(spool.flush(Duration::from_secs(20)));
        drop((lines, spool));
        let text = reading.join().expect("reads to the end");
        assert!(text.contains("\"message\":\"trace log lines dropped\",\"dropped\":1}\n"), "{text}");
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn an_overlong_line_is_cut_between_characters() {
        let mut buffer = Vec::new();
        append_cut(&mut buffer, "é".repeat(LINE_MAX).as_bytes());
        assert!(buffer.len() <= LINE_MAX && buffer.ends_with(b"\n"));
        assert!(String::from_utf8(buffer).is_ok());
    }

    #[test]
    fn what_a_peer_sends_on_http2_writes_no_warnings() {
        let text = logged(LogFormat::Text, "trace", |_| {
            tracing::warn!(target: "h2::proto::ping_pong", "recv PING ack that we never sent");
            tracing::debug!(target: "h2::codec", "a frame");
        });
        assert!(text.contains("a frame") && !text.contains("PING"), "{text}");
    }

    #[test]
    fn the_kubernetes_client_says_nothing_of_its_own_at_any_level() {
        let text = logged(LogFormat::Text, "trace", |_| {
            tracing::error!(target: "kube_client::client", "a whole answer");
            tracing::error!(target: "scorefront::discovery", "a problem");
        });
        assert!(text.contains("a problem") && !text.contains("a whole answer"), "{text}");
    }
}
