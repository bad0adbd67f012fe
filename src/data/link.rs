//! What the parts of one client connection know of each other: the socket, the watch over it, and its exchanges.
//!
//! Owner: all of them together; it lives as long as the last. Everything is a counter or a mark that one part sets and
//! another looks at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use http::HeaderValue;
use parking_lot::Mutex;
use uuid::Uuid;

use super::ledger::Ledger;
use super::pause::Pause;
use super::splice::Passage;
use super::tls::Secured;
use super::worker::Worker;
use crate::core::addresses::Place;
use crate::core::outcome::Outcome;

pub(crate) use self::doing::Doing;
use self::insert::Insert;
use self::kept_alarm::KeptAlarm;
use self::loan::Loan;
use self::patience::Patience;

mod doing;
mod insert;
mod kept_alarm;
mod loan;
mod patience;

/// Since when a head is coming whose time was not taken yet.
const UNTIMED: u64 = u64::MAX;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: Arc<Worker>,
    pub(crate) peer: SocketAddr,
    /// Its IP address, for headers.
    pub(crate) ip: HeaderValue,
    /// Whether the peer is a trusted proxy.
    pub(crate) trusted: bool,
    /// Its place among the connections of its address, where those are counted: also held by a tunnel that is left of it.
    pub(crate) place: Option<Place>,
    /// What the TLS handshake came to, where there was one.
    pub(crate) tls: Option<Secured>,
    /// The id for a request that could not be read, of which there is at most one.
    pub(crate) fault_id: Uuid,
    doing: AtomicU8,
    /// Since when, in microseconds on the router's clock.
    since_us: AtomicU64,
    patience: Patience,
    /// The answer, while the client has to take what it was given first.
    pause: Pause,
    /// Whether the connection ends because the client takes too little of what is written.
    untaken: AtomicBool,
    /// Exchanges under way: more than one with HTTP/2.
    exchanges: AtomicU64,
    /// Requests so far, where there is a limit.
    requests: AtomicU64,
    /// HTTP/2 streams refused because there had been as many requests.
    refused: AtomicU32,
    /// Whether it is ended because of a flood of HTTP/2 frames.
    flooded: AtomicBool,
    /// Whether an answer broke off, so that the connection must end visibly broken.
    broken: AtomicBool,
    /// Whether a request was answered before all of it was read.
    unread: AtomicBool,
    /// Whether the connection ends with the answer under way.
    last: AtomicBool,
    /// Whether the connection has turned out to speak HTTP/2.
    is_http2: AtomicBool,
    /// Whether it has changed to another protocol.
    is_tunnel: AtomicBool,
    /// Since when its client of HTTP/2 has been told to leave and has not answered the PING that goes with it, in
    /// microseconds on the router's clock; 0: it has, or was not told.
    unanswered_us: AtomicU64,
    /// HTTP/2 frames that the client may send for what was moved since the socket looked.
    allowed: AtomicU32,
    /// Whether there is a ledger below.
    owes: AtomicBool,
    /// The ledger of an answer that is not quite out.
    owed: Mutex<Option<Ledger>>,
    /// For long answers.
    passage: Passage,
    /// For answers that come piece by piece.
    pub(super) loan: Loan,
    /// What hyper does not know of the head of an answer.
    pub(super) insert: Insert,
    /// The alarm of the last exchange, for the next one.
    pub(super) alarm: KeptAlarm,
}

impl Link {
    pub(crate) fn new(worker: Arc<Worker>, peer: SocketAddr) -> Self {
        let mut dice = worker.dice();
        let fault_id = Uuid::from_u64_pair(dice.throw(), dice.throw());
        let now = worker.micros(Instant::now());
        Self {
            trusted: worker.limits().trusts(peer.ip()),
            peer,
            place: None,
            tls: None,
            // An address is always a valid value.
            ip: HeaderValue::try_from(peer.ip().to_canonical().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            fault_id,
            doing: AtomicU8::new(Doing::Fresh as u8),
            since_us: AtomicU64::new(now),
            patience: Patience::new(worker.limits().body_timeout),
            pause: Pause::default(),
            untaken: AtomicBool::new(false),
            exchanges: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            refused: AtomicU32::new(0),
            flooded: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            last: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            unanswered_us: AtomicU64::new(0),
            allowed: AtomicU32::new(0),
            owes: AtomicBool::new(false),
            owed: Mutex::new(None),
            insert: Insert::default(),
            alarm: KeptAlarm::default(),
            passage: Passage::default(),
            loan: Loan::default(),
            worker,
        }
    }

    /// An exchange began.
    pub(crate) fn begin(&self) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.doing.store(Doing::Exchange as u8, Ordering::Relaxed);
    }

    /// An exchange ended.
    pub(crate) fn end(&self, now: Instant) {
        if self.exchanges.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(Doing::Idle, now);
        }
    }

    /// Counts a request, where there is a limit. Says whether no other should follow.
    pub(crate) fn count_request(&self) -> bool {
        let max = self.worker.limits().requests_per_connection_max;
        if max == 0 {
            return false;
        }
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if count == max {
            self.worker.shared.vitals.connections.used_up.bump();
        }
        count >= max
    }

    /// Whether it had as many requests as it may have.
    pub(crate) fn is_used_up(&self) -> bool {
        let max = self.worker.limits().requests_per_connection_max;
        max != 0 && self.requests.load(Ordering::Relaxed) >= max
    }

    /// Whether its client is to be told to leave. With HTTP/1 the answer to the last request says so.
    pub(crate) fn must_leave(&self) -> bool {
        self.is_used_up() && self.is_http2()
    }

    /// A stream is refused, because there were as many requests as there may be.
    pub(crate) fn refuse_stream(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.worker.shared.vitals.connections.streams_refused.bump();
    }

    /// Whether more streams were refused than can have been under way when the client was told to leave.
    pub(crate) fn is_deaf(&self) -> bool {
        self.refused.load(Ordering::Relaxed) > self.worker.limits().streams_max
    }

    /// The client sent too many frames that move nothing.
    pub(super) fn set_flooded(&self) {
        self.flooded.store(true, Ordering::Relaxed);
        self.worker.shared.vitals.connections.flooded.bump();
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// What comes now is another protocol.
    pub(crate) fn set_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    /// Whether the client waits for an answer of HTTP/1, and nobody is left for it when its bytes end.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_busy() && !self.is_http2() && !self.is_tunnel.load(Ordering::Relaxed)
    }

    /// Whether an exchange is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.exchanges.load(Ordering::Relaxed) != 0
    }

    /// Keeps the ledger of an answer until its last bytes are out.
    pub(crate) fn owe(&self, ledger: Ledger) {
        self.owes.store(true, Ordering::Relaxed);
        let earlier = self.owed.lock().replace(ledger);
        drop(earlier);
    }

    /// Whether the answer under way has to wait, because a write is waiting for the client: hyper would buffer more of it.
    /// Whoever asks is woken when everything is out. With HTTP/2, windows see to that.
    pub(crate) fn holds_back(&self, cx: &Context<'_>) -> bool {
        let holds = self.patience.is_blocked() && !self.is_http2();
        if holds {
            self.pause.begin(cx);
        }
        holds
    }

    /// The way past the router's memory: not with TLS, nor with HTTP/2, whose frames are made of what is in them.
    pub(crate) fn passage(&self) -> Option<&Passage> {
        (self.tls.is_none() && !self.is_http2()).then_some(&self.passage)
    }

    /// Everything written so far is out.
    pub(crate) fn settle(&self) {
        self.pause.end();
        if self.owes.load(Ordering::Relaxed) {
            drop(self.take_owed());
        }
    }

    /// Nothing more will be written.
    pub(crate) fn settle_unsent(&self) {
        let Some(mut ledger) = self.take_owed() else { return };
        if ledger.record.outcome == Outcome::Served {
            ledger.conclude(Outcome::ClientGone);
            ledger.record.detail = Some("the connection ended before the end of the answer was out".into());
        }
    }

    fn take_owed(&self) -> Option<Ledger> {
        self.owes.store(false, Ordering::Relaxed);
        self.owed.lock().take()
    }

    /// What it is doing, and since when.
    pub(crate) fn doing(&self) -> (Doing, u64) {
        (Doing::of(self.doing.load(Ordering::Relaxed)), self.since_us.load(Ordering::Relaxed))
    }

    /// Until when the client is waited for that a write is waiting for, on the router's clock in microseconds.
    pub(crate) fn waits_until(&self) -> Option<u64> {
        self.patience.ends()
    }

    /// The client takes too little of what is written: what is under way ends with that.
    pub(crate) fn set_untaken(&self) {
        self.untaken.store(true, Ordering::Relaxed);
        self.worker.shared.vitals.connections.slow_readers.bump();
    }

    pub(crate) fn is_untaken(&self) -> bool {
        self.untaken.load(Ordering::Relaxed)
    }

    /// The answer under way broke off: what the client got must not look whole.
    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// A request was answered before all of it was read: the client may still be sending.
    pub(crate) fn set_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The connection ends with the answer under way, and not because of it.
    pub(crate) fn set_last(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// Whether what is written now is the end of the last answer, so that the connection is shut down when it is out.
    pub(super) fn writes_last(&self) -> bool {
        self.last.load(Ordering::Relaxed) && self.owes.load(Ordering::Relaxed) && !self.is_unread() && !self.is_broken()
    }

    /// It speaks HTTP/2: bytes between requests are frames, not heads.
    pub(crate) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
        if self.doing().0 != Doing::Fresh {
            self.enter(Doing::Idle, Instant::now());
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// The client is told to leave: with HTTP/2 by GOAWAY, and by a PING whose answer says that it knows.
    pub(crate) fn note_goodbye(&self, now: Instant) {
        if self.is_http2() {
            self.unanswered_us.store(self.worker.micros(now).max(1), Ordering::Relaxed);
        }
    }

    /// It answered a PING.
    pub(crate) fn note_pong(&self) {
        self.unanswered_us.store(0, Ordering::Relaxed);
    }

    /// Since when it has not answered that.
    pub(crate) fn unanswered_since(&self) -> Option<u64> {
        Some(self.unanswered_us.load(Ordering::Relaxed)).filter(|&since| since != 0)
    }

    /// Something moved on HTTP/2, for which the client may send so many frames more.
    pub(crate) fn allow(&self, frames: u32) {
        self.allowed.fetch_add(frames, Ordering::Relaxed);
    }

    /// What was allowed since this was asked last.
    pub(super) fn take_allowed(&self) -> u32 {
        self.allowed.swap(0, Ordering::Relaxed)
    }

    fn enter(&self, doing: Doing, now: Instant) {
        self.since_us.store(self.worker.micros(now), Ordering::Relaxed);
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Bytes came. The first head is timed from the connect, the others from their first byte: by [`Self::time_head`],
    /// because most are whole with their first bytes, and need no look at the clock.
    pub(super) fn read(&self) {
        match self.doing() {
            (Doing::Idle, _) if !self.is_http2() => {
                self.since_us.store(UNTIMED, Ordering::Relaxed);
                self.doing.store(Doing::Head as u8, Ordering::Relaxed);
            }
            (Doing::Fresh, _) if self.is_http2() => self.enter(Doing::Idle, Instant::now()),
            (Doing::Fresh, _) => self.doing.store(Doing::Head as u8, Ordering::Relaxed),
            (Doing::Idle | Doing::Head | Doing::Exchange, _) => {}
        }
    }

    /// To be called when what was read is dealt with: a head that is not whole yet is timed from now on.
    pub(super) fn time_head(&self) {
        if self.doing() == (Doing::Head, UNTIMED) {
            self.since_us.store(self.worker.micros(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Takes note of a write that took so many bytes.
    pub(super) fn note<T>(&self, written: &Poll<io::Result<T>>, bytes: usize) {
        match written {
            Poll::Ready(_) => self.patience.wrote(bytes, &self.worker),
            Poll::Pending => self.patience.could_not_write(&self.worker),
        }
    }

    /// Whether it need not be told of writes that go out at once.
    pub(super) fn has_all_patience(&self) -> bool {
        self.patience.is_whole()
    }
}
