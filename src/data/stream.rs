//! The answer's body: streamed chunk by chunk, and owner of everything that must be given back when it is over.
//!
//! Owner: hyper's server side, from the moment the answer is returned to it.
//! Holds: the slot is given back as soon as the last byte came from the replica, not when the client has it; a replica
//!        whose answer nobody wants any more keeps its slot until it is done (`on-abandon: wait`); an answer that breaks
//!        off, or is silent for longer than `request-timeout-ms`, ends in an error, which hyper turns into a visibly
//!        broken connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;

use super::alarm::Alarm;
use super::ledger::{Ledger, Open};
use super::pending::Busy;
use super::relay::Relayed;
use super::splice::is_stand_in;
use super::upstream::ReplicaBody;
use crate::core::outcome::Outcome;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct AnswerBody(Kind);

#[derive(Debug)]
enum Kind {
    /// Made by the router.
    Local { bytes: Bytes, ledger: Open },
    /// Coming from a replica.
    Replica(Box<Passing>),
    /// The same, past hyper.
    Relayed(Relayed),
}

impl Kind {
    fn nothing() -> Self {
        Self::Local { bytes: Bytes::new(), ledger: Open::nothing() }
    }
}

/// An answer on its way through. First what each piece of it needs: between two events of a stream a processor forgets
/// this, and each line of memory that it has to get again costs more than what is done with it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Passing {
    /// `None` once it broke off.
    body: Option<ReplicaBody>,
    /// That it broke, which is told when what came before is out.
    failure: Option<io::Error>,
    /// Since when it is silent; `None` while bytes come.
    silent_since: Option<tokio::time::Instant>,
    /// Rings when the replica was silent for so long, or before.
    alarm: Option<Alarm>,
    /// Pieces until it goes past hyper; `None` where it never does.
    pieces_left: Option<u8>,
    /// Whether so much was handed on that it is to go out before more is read.
    is_ahead: bool,
    /// Longest silence.
    silence_max: Duration,
    /// The slot, until the last byte came.
    busy: Option<Busy>,
    ledger: Open,
}

const BROKE_OFF: &str = "the replica broke off its answer";
const SILENT: &str = "the replica was silent for longer than request-timeout-ms";

/// So large a piece goes out before another is read: so little waits for the client, and its memory is used again. So does
/// one that is in a pipe, so that the next can be there.
const LARGE: usize = 32 << 10;

/// An answer that comes in so many pieces is likely to come in more.
const PIECES: u8 = 2;

impl Passing {
    /// `takes_chunks` says whether the client gets an answer of unknown length in chunks.
    pub(crate) fn new(
        body: ReplicaBody,
        busy: Busy,
        ledger: Ledger,
        silence_max: Duration,
        takes_chunks: bool,
    ) -> Self {
        let is_chunked = takes_chunks && body.size_hint().exact().is_none();
        let answered = ledger.record.answered;
        let mut passing = Self {
            body: Some(body),
            busy: Some(busy),
            ledger: Open::new(ledger),
            silence_max,
            alarm: None,
            silent_since: None,
            is_ahead: false,
            failure: None,
            pieces_left: is_chunked.then_some(PIECES),
        };
        // What came with the head came when that did.
        passing.finish_if_whole(|| answered.unwrap_or_else(Instant::now));
        passing
    }

    /// The client's socket, if the answer is to go on past hyper from here.
    fn take_socket(&self) -> Option<Arc<TcpStream>> {
        if self.pieces_left != Some(0) {
            return None;
        }
        self.ledger.link()?.loan.take()
    }

    /// A piece is handed to hyper. When it is out, the next one may go past it.
    fn hand_on(&mut self) {
        let Some(left) = &mut self.pieces_left else { return };
        *left = left.saturating_sub(1);
        // An answer that began before all of the request was sent stays with hyper, which reads the rest of that.
        let may_follow = *left == 0 && self.body.as_ref().is_some_and(ReplicaBody::has_whole_request);
        if let (true, Some(link)) = (may_follow, self.ledger.link()) {
            link.loan.ask();
        }
    }

    /// Takes note of a write to the client that was none of hyper's. Says whether it is to be told of the next one too,
    /// though that should go out at once.
    pub(super) fn note_written(&self, written: &Poll<io::Result<usize>>) -> bool {
        let bytes = if let Poll::Ready(Ok(bytes)) = written { *bytes } else { 0 };
        let Some(link) = self.ledger.link() else { return false };
        link.note(written, bytes);
        !link.has_all_patience()
    }

    /// Whether more was read than it has given.
    pub(super) fn has_more(&self) -> bool {
        self.body.as_ref().is_some_and(ReplicaBody::has_input)
    }

    /// It goes past hyper.
    pub(super) fn count_relayed(&self) {
        if let Some(link) = self.ledger.link() {
            link.worker.shared.vitals.relayed.bump();
        }
    }

    /// What the client got must not look whole.
    pub(super) fn break_connection(&mut self) {
        self.ledger.note(|ledger| ledger.break_connection());
    }

    /// The replica is done, if it is: all of the answer is here, though the client may have nothing of it.
    fn finish_if_whole(&mut self, now: impl FnOnce() -> Instant) {
        let Some(body) = self.body.as_mut().filter(|body| body.is_whole()) else { return };
        if let Some(busy) = self.busy.take() {
            let now = now();
            self.alarm = None;
            self.ledger.note(|ledger| _ = ledger.record.finished.get_or_insert(now));
            busy.done(body.take_upstream(), now);
        }
    }

    /// The replica is to blame: its connection is gone, and so is whatever it was working on.
    fn break_off(&mut self, detail: &'static str, silent: bool) -> io::Error {
        self.ledger.note(|ledger| {
            ledger.conclude(Outcome::StreamBroken);
            ledger.record.detail = Some(detail.into());
            ledger.record.finished.get_or_insert_with(Instant::now);
            ledger.break_connection();
        });
        self.count();
        if let (Some(busy), Some(body)) = (self.busy.take(), self.body.take()) {
            // A silent replica may still be working; one that broke the connection is not.
            if silent { busy.abandon_body(body) } else { busy.done(None, Instant::now()) }
        }
        io::Error::other(detail)
    }

    /// Records how much was handed on, now that it is over.
    fn count(&mut self) {
        if let Some(body) = &self.body {
            self.ledger.note(|ledger| ledger.record.answer_bytes = body.passed());
        }
    }

    /// The alarm is not set anew for each piece, nor asked before its time, which cost more than a look at the clock. It
    /// rings first when a new connection is to be watched.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = match self.silent_since {
            Some(since) => since,
            None => {
                let now = tokio::time::Instant::now();
                self.silent_since = Some(now);
                if self.alarm.as_ref().is_some_and(|alarm| alarm.is_set(now, cx)) {
                    return Poll::Pending;
                }
                now
            }
        };
        let until = since + self.silence_max;
        loop {
            let unwatched_for = self.body.as_ref().and_then(ReplicaBody::unwatched_for);
            let due = unwatched_for.map_or(until, |silence| until.min(since + silence));
            let alarm = self.alarm.get_or_insert_with(|| Alarm::new(due));
            let rang = ready!(alarm.poll(cx));
            if rang >= until {
                return Poll::Ready(());
            }
            match &mut self.body {
                Some(body) if rang >= due => body.keep_watch(),
                _ => alarm.reset(due),
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.failure.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// What comes next, for hyper, which keeps what it could not write yet.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ledger.holds_back(cx) {
            return Poll::Pending;
        }
        if std::mem::take(&mut self.is_ahead) {
            return let_out(cx);
        }
        let next = ready!(self.poll_next(cx));
        if let Some(Ok(frame)) = &next {
            self.is_ahead = frame.data_ref().is_some_and(|chunk| chunk.len() >= LARGE || is_stand_in(chunk));
        }
        Poll::Ready(next)
    }

    /// What comes next, for who has written all that came before.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(self.failure.take().map(Err)) };
        // Without a length, none of it goes past the router's memory.
        let link = if self.pieces_left.is_none() { self.ledger.link() } else { None };
        match body.poll_frame_by(link, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silent_since = None;
                self.finish_if_whole(Instant::now);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish_if_whole(Instant::now);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.failure = Some(self.break_off(BROKE_OFF, false));
                let_out(cx)
            }
            Poll::Pending => self.poll_silence(cx).map(|()| Some(Err(self.break_off(SILENT, true)))),
        }
    }
}

/// Goes on in the next turn. Meanwhile the connection writes what it has.
fn let_out<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let (Some(_), Some(link)) = (self.pieces_left, self.ledger.link()) {
            link.loan.cancel();
        }
        self.count();
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        self.ledger.note(|ledger| {
            ledger.conclude(Outcome::ClientGone);
            ledger.record.finished.get_or_insert_with(Instant::now);
        });
        if let Some(busy) = self.busy.take() {
            busy.abandon_body(body);
        }
    }
}

impl AnswerBody {
    /// Of an answer that the router made.
    pub(crate) fn local(bytes: Bytes, mut ledger: Ledger) -> Self {
        ledger.record.answer_bytes = bytes.len() as u64;
        Self(Kind::Local { bytes, ledger: Open::new(ledger) })
    }

    /// Of an answer whose exchange has been recorded already.
    pub(crate) fn unrecorded(bytes: Bytes) -> Self {
        Self(Kind::Local { bytes, ledger: Open::nothing() })
    }

    /// Of an answer that comes from a replica.
    pub(crate) fn passing(passing: Passing) -> Self {
        Self(Kind::Replica(Box::new(passing)))
    }

    /// It is dropped next, because the client takes nothing of it: the record says so.
    pub(crate) fn leave_untaken(&mut self) {
        // Only streams of HTTP/2 are left so, and none of those goes past hyper.
        if let Kind::Replica(passing) = &mut self.0 {
            passing.ledger.note(Ledger::leave_untaken);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self(kind) = self.get_mut();
        if let Kind::Replica(passing) = kind
            && let Some(socket) = passing.take_socket()
            && let Kind::Replica(mut passing) = std::mem::replace(kind, Kind::nothing())
        {
            passing.is_ahead = false;
            *kind = Kind::Relayed(Relayed::start(passing, socket));
        }
        match kind {
            Kind::Local { bytes, ledger } => {
                let chunk = std::mem::take(bytes);
                *ledger = Open::nothing();
                Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
            }
            Kind::Replica(passing) => {
                let next = passing.poll_frame(cx);
                if let Poll::Ready(Some(Ok(_))) = next {
                    passing.hand_on();
                }
                next
            }
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Local { bytes, .. } => bytes.is_empty(),
            Kind::Replica(passing) => passing.is_over(),
            Kind::Relayed(relayed) => relayed.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Local { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Kind::Replica(passing) => {
                // Of one that broke nothing is known.
                passing.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
            }
            Kind::Relayed(_) => SizeHint::new(),
        }
    }
}
