//! The client's socket as hyper sees it, with what hyper does not tell: whether the connection idles, is in the middle
//! of a head, or cannot be written to.
//!
//! It also puts a body under the bare answers that hyper gives by itself when a request cannot be read, so that a
//! client that sent too large a head learns which setting stood in its way.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, ReadBuf};
use uuid::Uuid;

use super::ledger::Ledger;
use super::linger::read_over;
use super::respond;
use super::tls::{Secured, Transport};
use super::worker::Worker;
use crate::core::outcome::Outcome;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Waiting for the first byte of the next request.
    Idle = 0,
    /// Reading a head.
    Head = 1,
    /// At least one exchange is under way.
    Exchange = 2,
    /// Waiting for the first byte of the first request.
    Fresh = 3,
}

/// What the parts of one client connection know of each other.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: Arc<Worker>,
    pub(crate) peer: SocketAddr,
    /// Its IP address, for headers.
    pub(crate) ip: HeaderValue,
    /// Whether the peer is a trusted proxy.
    pub(crate) trusted: bool,
    /// What the TLS handshake came to, where there was one.
    pub(crate) tls: Option<Secured>,
    /// The id for a request that could not be read, of which there is at most one.
    pub(crate) fault_id: Uuid,
    doing: AtomicU8,
    /// Since when, in microseconds on the router's clock.
    since_us: AtomicU64,
    /// Since when a write has been waiting for the client; 0 when none is.
    blocked_us: AtomicU64,
    /// Exchanges under way: more than one with HTTP/2.
    exchanges: AtomicU64,
    /// Whether an answer broke off, so that the connection must end visibly broken.
    broken: AtomicBool,
    /// Whether a request was answered before all of it was read.
    unread: AtomicBool,
    /// Whether the connection has turned out to speak HTTP/2.
    is_http2: AtomicBool,
    /// Whether there is a ledger below.
    owes: AtomicBool,
    /// The ledger of an answer that is not quite out.
    owed: Mutex<Option<Ledger>>,
}

impl Link {
    pub(crate) fn new(worker: Arc<Worker>, peer: SocketAddr) -> Self {
        let mut dice = worker.dice();
        let fault_id = Uuid::from_u64_pair(dice.throw(), dice.throw());
        let now = worker.micros(Instant::now());
        Self {
            trusted: worker.limits().trusts(peer.ip()),
            peer,
            tls: None,
            // An address is always a valid value.
            ip: HeaderValue::from_str(&peer.ip().to_canonical().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            fault_id,
            doing: AtomicU8::new(Doing::Fresh as u8),
            since_us: AtomicU64::new(now),
            blocked_us: AtomicU64::new(0),
            exchanges: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            owes: AtomicBool::new(false),
            owed: Mutex::new(None),
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

    /// Keeps the ledger of an answer until its last bytes are out.
    pub(crate) fn owe(&self, ledger: Ledger) {
        self.owes.store(true, Ordering::Relaxed);
        let earlier = self.owed.lock().replace(ledger);
        drop(earlier);
    }

    /// Everything written so far is out.
    pub(crate) fn settle(&self) {
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
        let doing = match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Idle,
            1 => Doing::Head,
            3 => Doing::Fresh,
            _ => Doing::Exchange,
        };
        (doing, self.since_us.load(Ordering::Relaxed))
    }

    /// Since when a write has been waiting for the client.
    pub(crate) fn blocked_since(&self) -> Option<u64> {
        Some(self.blocked_us.load(Ordering::Relaxed)).filter(|&since| since != 0)
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

    fn enter(&self, doing: Doing, now: Instant) {
        self.since_us.store(self.worker.micros(now), Ordering::Relaxed);
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Bytes came. The first head is timed from the connect, the others from their first byte.
    fn read(&self) {
        match self.doing() {
            (Doing::Idle, _) if !self.is_http2() => self.enter(Doing::Head, Instant::now()),
            (Doing::Fresh, _) if self.is_http2() => self.enter(Doing::Idle, Instant::now()),
            (Doing::Fresh, _) => self.doing.store(Doing::Head as u8, Ordering::Relaxed),
            (Doing::Idle | Doing::Head | Doing::Exchange, _) => {}
        }
    }

    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        match written {
            Poll::Ready(_) => self.wrote(),
            Poll::Pending => self.could_not_write(),
        }
    }

    fn wrote(&self) {
        if self.blocked_us.load(Ordering::Relaxed) != 0 {
            self.blocked_us.store(0, Ordering::Relaxed);
        }
    }

    fn could_not_write(&self) {
        if self.blocked_us.load(Ordering::Relaxed) == 0 {
            self.blocked_us.store(self.worker.micros(Instant::now()).max(1), Ordering::Relaxed);
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Socket {
    io: TokioIo<Transport>,
    link: Arc<Link>,
    /// Read before anything else: what another protocol had read too much.
    pushback: Bytes,
    substitute: Option<Substitute>,
    /// Whether every answer so far is out, so that what is written next begins an answer.
    is_clean: bool,
}

/// An answer of hyper's that is being replaced.
#[derive(Debug)]
struct Substitute {
    ours: Bytes,
    /// How much of hyper's is declared written once ours is.
    theirs: usize,
}

impl Socket {
    pub(crate) fn new(io: Transport, link: Arc<Link>) -> Self {
        Self { io: TokioIo::new(io), link, pushback: Bytes::new(), substitute: None, is_clean: true }
    }

    /// The same socket, on which `bytes` are still to be read first.
    pub(crate) fn push_back(mut self, bytes: Bytes) -> Self {
        self.pushback = bytes;
        self
    }

    /// Makes the coming close a reset, so that nobody takes a truncated answer for a whole one.
    pub(crate) fn reset_on_close(&self) {
        // Best effort: where the option cannot be set, the missing end of the body still tells.
        let _ = socket2::SockRef::from(self.io.inner().socket()).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more will come, then reads over what the client still sends: a socket that is closed with bytes
    /// unread resets the connection.
    pub(crate) async fn linger(mut self) {
        let patience = self.link.worker.limits().goodbye_timeout;
        let goodbye = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        let _ = tokio::time::timeout(patience, goodbye).await;
        // With TLS too it is bytes that are thrown away: what they mean does not matter.
        let mut socket = self.io.into_inner().into_socket();
        let mut waste = vec![0; 16 << 10];
        read_over(&self.link.worker, |cx| {
            let mut waste = ReadBuf::new(&mut waste);
            let read = Pin::new(&mut socket).poll_read(cx, &mut waste);
            read.map(|read| read.is_ok() && !waste.filled().is_empty())
        })
        .await;
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| Pin::new(&mut self.io).poll_write(cx, bytes)).await?;
            bytes = bytes.get(n..).filter(|_| n > 0).ok_or(io::ErrorKind::WriteZero)?;
        }
        poll_fn(|cx| Pin::new(&mut self.io).poll_flush(cx)).await
    }

    fn poll_substitute(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let Some(substitute) = &mut self.substitute else { return Poll::Ready(Ok(0)) };
            if substitute.ours.is_empty() {
                let written = substitute.theirs;
                self.substitute = None;
                return Poll::Ready(Ok(written));
            }
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &substitute.ours))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            substitute.ours.advance(n);
        }
    }

    /// Whether what is written next begins an answer, and there is no exchange that it could be the answer of.
    pub(crate) fn is_between_answers(&self) -> bool {
        self.is_clean && self.link.exchanges.load(Ordering::Relaxed) == 0 && !self.link.is_http2()
    }

    /// Whether hyper writes a refusal of its own, and what stands in for it. Never looks at what an exchange writes:
    /// those are a model's bytes, whatever they look like.
    fn substitute_for(&self, bytes: &[u8], theirs: usize) -> Option<Substitute> {
        if !self.is_between_answers() || !bytes.starts_with(b"HTTP/1.1 4") || contains(bytes, b"x-request-id") {
            return None;
        }
        let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        let ours = respond::unreadable(status, self.link.fault_id, self.link.worker.limits())?;
        Some(Substitute { ours, theirs })
    }

    fn note<T>(&mut self, written: &Poll<io::Result<T>>) {
        self.is_clean = false;
        self.link.note(written);
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pushback.is_empty() {
            let n = this.pushback.len().min(buf.remaining());
            buf.put_slice(&this.pushback.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        this.link.read();
        Poll::Ready(read)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.substitute.is_none() {
            this.substitute = this.substitute_for(buf, buf.len());
        }
        let written = match this.substitute {
            Some(_) => this.poll_substitute(cx),
            None => Pin::new(&mut this.io).poll_write(cx, buf),
        };
        this.note(&written);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // With TLS, what was written may still be waiting for the client.
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.link.note(&flushed);
        let flushed = ready!(flushed);
        this.link.settle();
        this.is_clean = this.link.exchanges.load(Ordering::Relaxed) == 0;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.link.note(&shut);
        shut
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.substitute.is_none()
            && let Some(first) = bufs.first()
        {
            this.substitute = this.substitute_for(first, bufs.iter().map(|buf| buf.len()).sum());
        }
        let written = match this.substitute {
            Some(_) => this.poll_substitute(cx),
            None => Pin::new(&mut this.io).poll_write_vectored(cx, bufs),
        };
        this.note(&written);
        written
    }
}
