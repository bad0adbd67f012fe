//! Counters of the router as a whole, shared by all planes: each writes its own part, `ops` reads them all.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::certificates::CertificateState;
use super::count::{Apart, Counter, ShardedCounter, micros};
use super::descriptors::Descriptors;
use super::facts::Problem;
use super::failures::Failures;
use super::memory::Memory;
use super::state::RefusalState;
use super::token::TokenState;

/// See the head of the file.
#[derive(Debug)]
pub struct Vitals {
    /// When the process started: the zero of the router's own clock.
    pub born: Instant,
    /// Exchanges that ended before an endpoint was found.
    pub refusals: RefusalState,
    /// Client connections.
    pub connections: ConnectionCounts,
    /// TLS handshakes with clients.
    pub handshakes: HandshakeCounts,
    /// TLS handshakes with replicas.
    pub replica_handshakes: ReplicaHandshakeCounts,
    /// Certificates that clients are shown, in the order of the configuration.
    pub certificates: Mutex<Vec<CertificateState>>,
    /// The keys that tokens are checked against.
    pub tokens: TokenState,
    /// Failed attempts of clients to prove who they are.
    pub auth: AuthState,
    /// The access log.
    pub access_log: LogCounts,
    /// Discovery.
    pub discovery: DiscoveryCounts,
    /// The file that a restart would be served from.
    pub state_file: StateFileCounts,
    /// What is kept of request bodies for other attempts.
    pub replay: ReplayCounts,
    /// The memory of the process.
    pub memory: Memory,
    /// Long answers that are not copied.
    pub splice: SpliceCounts,
    /// Answers that went on piece by piece.
    pub relayed: Counter,
    /// Its file descriptors.
    pub descriptors: Descriptors,
    /// Requests under way, over all endpoints.
    pub requests: Apart<AtomicUsize>,
    /// Requests in line, over all deployments.
    pub queued: AtomicUsize,
    /// Requests turned away because of that number.
    pub crowded_out: Counter,
    /// Copies of mirrored requests under way.
    pub mirrors: AtomicUsize,
    draining: AtomicBool,
}

impl Vitals {
    /// For `workers` workers; `born` is now.
    pub fn new(workers: usize, born: Instant) -> Self {
        Self {
            born,
            refusals: RefusalState::new(workers),
            connections: ConnectionCounts::new(workers),
            handshakes: HandshakeCounts::default(),
            replica_handshakes: ReplicaHandshakeCounts::default(),
            certificates: Mutex::default(),
            tokens: TokenState::default(),
            auth: AuthState::default(),
            access_log: LogCounts::default(),
            discovery: DiscoveryCounts::default(),
            state_file: StateFileCounts::default(),
            replay: ReplayCounts::default(),
            memory: Memory::default(),
            requests: Apart::default(),
            splice: SpliceCounts::default(),
            relayed: Counter::default(),
            descriptors: Descriptors::default(),
            queued: AtomicUsize::new(0),
            crowded_out: Counter::default(),
            mirrors: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// Microseconds since the process started.
    pub fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.born))
    }

    /// The same in nanoseconds: the clock of rates.
    pub fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the router is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says that it is.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Connections, with clients and with replicas.
#[derive(Debug)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: AtomicUsize,
    /// Accepted so far.
    pub accepted: Counter,
    /// Turned away at the limit.
    pub refused: Counter,
    /// Turned away because their address had as many as it may have.
    pub crowded: Counter,
    /// Ended because they had as many requests as they may have.
    pub used_up: Counter,
    /// Client connections that idle with nothing but their sockets.
    pub resting: AtomicUsize,
    /// Clients that go on sending after their last answer, refused or not, and are read over now.
    pub lingering: AtomicUsize,
    /// Those that were cut off because it took too long.
    pub lingering_cut: Counter,
    /// Clients whose request bodies came too slowly.
    pub slow_bodies: Counter,
    /// Clients that took answers too slowly.
    pub slow_readers: Counter,
    /// Connections of trusted proxies that did not begin with a PROXY header.
    pub proxy_headers_wrong: Counter,
    /// Ended because of a flood of HTTP/2 frames.
    pub flooded: Counter,
    /// Those with HTTP/2 that are over.
    pub http2_ended: Http2Ends,
    /// HTTP/2 streams refused because their connection had as many requests as it may have.
    pub streams_refused: Counter,
    /// Failed accepts.
    pub accept_errors: Counter,
    /// Connections to replicas opened so far.
    pub upstream_opened: Counter,
    /// Requests sent to replicas on a connection that was used before.
    pub upstream_reused: ShardedCounter,
}

impl ConnectionCounts {
    fn new(workers: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            accepted: Counter::default(),
            refused: Counter::default(),
            crowded: Counter::default(),
            used_up: Counter::default(),
            resting: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            lingering_cut: Counter::default(),
            slow_bodies: Counter::default(),
            slow_readers: Counter::default(),
            proxy_headers_wrong: Counter::default(),
            flooded: Counter::default(),
            http2_ended: Http2Ends::default(),
            streams_refused: Counter::default(),
            accept_errors: Counter::default(),
            upstream_opened: Counter::default(),
            upstream_reused: ShardedCounter::new(workers),
        }
    }
}

/// Long answers that go through the kernel alone.
#[derive(Debug, Default)]
pub struct SpliceCounts {
    /// Pipes open now.
    pub pipes: AtomicUsize,
    /// Bytes that clients got so.
    pub bytes: Counter,
    /// Times that there was no pipe for one, so that it was copied.
    pub missing: Counter,
}

/// Why a client connection with HTTP/2 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2End {
    /// The client left, or was told to and did.
    InOrder,
    /// The client told of an error.
    ClientError,
    /// It broke off.
    Lost,
    /// The client did not follow the protocol.
    ProtocolError,
    /// The client did too much of something: resets, faulty streams, CONTINUATION, tiny DATA.
    Flood,
    /// More frames that move nothing than `max-idle-frames` allows.
    IdleFrames,
    /// The client was told to leave and went on asking.
    TooManyRequests,
    /// There was no request for `client-idle-timeout-ms`.
    Idle,
    /// The client did not answer a PING.
    Silent,
    /// The client took nothing, or too little.
    Slow,
    /// The router stopped.
    Forced,
}

impl Http2End {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::InOrder,
        Self::ClientError,
        Self::Lost,
        Self::ProtocolError,
        Self::Flood,
        Self::IdleFrames,
        Self::TooManyRequests,
        Self::Idle,
        Self::Silent,
        Self::Slow,
        Self::Forced,
    ];

    /// The word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::InOrder => "in_order",
            Self::ClientError => "client_error",
            Self::Lost => "lost",
            Self::ProtocolError => "protocol_error",
            Self::Flood => "flood",
            Self::IdleFrames => "idle_frames",
            Self::TooManyRequests => "too_many_requests",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Forced => "forced",
        }
    }
}

/// How many ended for which reason.
#[derive(Debug, Default)]
pub struct Http2Ends([Counter; Http2End::ALL.len()]);

impl Http2Ends {
    /// One more.
    pub fn bump(&self, reason: Http2End) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.bump();
        }
    }

    /// So many.
    pub fn read(&self, reason: Http2End) -> u64 {
        self.0.get(reason as usize).map_or(0, Counter::read)
    }
}

/// What is kept of request bodies for other attempts.
#[derive(Debug, Default)]
pub struct ReplayCounts {
    /// Bytes kept now, of all requests.
    pub bytes: Apart<AtomicUsize>,
    /// Requests of which no more was kept because all of them had reached the limit.
    pub went_without: Counter,
}

/// TLS handshakes with clients.
#[derive(Debug, Default)]
pub struct HandshakeCounts {
    /// Under way now.
    pub open: AtomicUsize,
    /// Done from the beginning to the end.
    pub full: Counter,
    /// Done on the strength of an earlier one.
    pub resumed: Counter,
    /// Failed: the client sent no TLS, nothing in common with the router, or no valid certificate, or went away.
    pub failed: Counter,
    /// Not done in time.
    pub timed_out: Counter,
    /// Not begun in time, because so many others were under way.
    pub crowded_out: Counter,
    /// Not begun, because their address had as many as it may have.
    pub crowded_address: Counter,
}

/// Failed attempts of clients to prove who they are.
#[derive(Debug, Default)]
pub struct AuthState {
    /// Who failed how often lately.
    pub failures: Failures,
    /// Answers held back now.
    pub held: AtomicUsize,
    /// Answers held back so far.
    pub late: Counter,
}

/// TLS handshakes with replicas, those for copies of mirrored requests included.
#[derive(Debug, Default)]
pub struct ReplicaHandshakeCounts {
    /// Done from the beginning to the end.
    pub full: Counter,
    /// Done on the strength of an earlier one.
    pub resumed: Counter,
    /// Failed: the replica sent no TLS, nothing in common with the router, or no certificate to believe, or went away.
    pub failed: Counter,
    /// Not done in time, or not waited for because the client went away.
    pub given_up: Counter,
}

/// The access log.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Lines written.
    pub written: Counter,
    /// Lines that were not written.
    pub dropped: DroppedLines,
    /// Failed writes.
    pub errors: Counter,
}

/// Lines of the access log that were not written, by why.
#[derive(Debug, Default)]
pub struct DroppedLines {
    /// The target took lines too slowly.
    pub slow: Counter,
    /// Writing failed for so long that the buffer was full.
    pub failing: Counter,
    /// There is no target: standard output was closed from the start.
    pub nowhere: Counter,
}

impl DroppedLines {
    /// For whatever reason.
    pub fn read(&self) -> u64 {
        self.slow.read() + self.failing.read() + self.nowhere.read()
    }
}

/// Discovery.
#[derive(Debug, Default)]
pub struct DiscoveryCounts {
    /// Snapshots published.
    pub publications: Counter,
    /// Reconnects and failed reads of a source.
    pub errors: Counter,
    /// Microseconds on the router's clock when every source was last known to be in step; 0 is never.
    pub in_step_us: AtomicU64,
    /// What is wrong with objects right now, sorted.
    pub problems: Mutex<Vec<Problem>>,
    /// While what is served was read from the state file: as of when it is.
    pub restored: Mutex<Option<Stamp>>,
}

/// The state file.
#[derive(Debug, Default)]
pub struct StateFileCounts {
    /// As of when the world in it is; none as long as there is no file that counts.
    pub as_of: Mutex<Option<Stamp>>,
    /// How long it is.
    pub bytes: AtomicU64,
    /// Times that it was written.
    pub saves: Counter,
    /// Times that it could not be written, or was refused.
    pub errors: Counter,
}

/// A moment that may be longer ago than the process: how old something was when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// How old it was.
    pub age: Duration,
    /// When.
    pub at: Instant,
}

impl Stamp {
    /// How old it is now.
    pub fn age_at(&self, now: Instant) -> Duration {
        self.age + now.saturating_duration_since(self.at)
    }
}
