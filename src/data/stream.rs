//! The answer's body: streamed chunk by chunk, and owner of everything that must be given back when it is over.
//!
//! Owner: hyper's server side, from the moment the answer is returned to it.
//! Holds: the slot is given back as soon as the last byte came from the replica, not when the client has it; a replica
//!        whose answer nobody wants any more keeps its slot until it is done (`on-abandon: wait`); an answer that breaks
//!        off, or is silent for longer than `request-timeout-ms`, ends in an error, which hyper turns into a visibly
//!        broken connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::ledger::{Ledger, Open};
use super::pending::Busy;
use super::pool::Connector;
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
}

/// An answer on its way through.
#[derive(Debug)]
pub(crate) struct Passing {
    /// `None` once it is over.
    pub(crate) incoming: Option<Incoming>,
    /// The slot, until the last byte came.
    pub(crate) busy: Option<Busy>,
    /// The connection, if it may be used again.
    pub(crate) connector: Option<Connector>,
    pub(crate) ledger: Open,
    /// Longest silence.
    pub(crate) silence_max: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Whether bytes came since the alarm was set.
    moved: bool,
}

impl Passing {
    pub(crate) fn new(
        incoming: Incoming,
        busy: Busy,
        connector: Option<Connector>,
        ledger: Ledger,
        silence_max: Duration,
    ) -> Self {
        let ledger = Open::new(ledger);
        Self { incoming: Some(incoming), busy: Some(busy), connector, ledger, silence_max, silence: None, moved: true }
    }

    fn finish(&mut self) {
        self.incoming = None;
        self.silence = None;
        let now = Instant::now();
        self.ledger.note(|ledger| _ = ledger.record.finished.get_or_insert(now));
        if let Some(busy) = self.busy.take() {
            busy.done(self.connector.take(), now);
        }
    }

    /// The replica is to blame: its connection is gone, and so is whatever it was working on.
    fn break_off(&mut self, detail: &'static str) -> io::Error {
        self.ledger.note(|ledger| {
            ledger.conclude(Outcome::StreamBroken);
            ledger.record.detail = Some(detail.into());
            ledger.record.finished.get_or_insert_with(Instant::now);
            ledger.break_connection();
        });
        self.connector = None;
        let silent = self.silence.as_ref().is_some_and(|alarm| alarm.is_elapsed());
        if let (Some(busy), Some(incoming)) = (self.busy.take(), self.incoming.take()) {
            // A silent replica may still be working; one that broke the connection is not.
            if silent { busy.abandon_body(incoming) } else { busy.done(None, Instant::now()) }
        }
        io::Error::other(detail)
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = |max: Duration| tokio::time::Instant::now() + max;
        let alarm = self.silence.get_or_insert_with(|| Box::pin(sleep_until(deadline(self.silence_max))));
        if std::mem::take(&mut self.moved) {
            alarm.as_mut().reset(deadline(self.silence_max));
        }
        alarm.as_mut().poll(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        if self.ledger.holds_back(cx) {
            return Poll::Pending;
        }
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved = true;
                if let Some(chunk) = frame.data_ref() {
                    self.ledger.note(|ledger| ledger.record.answer_bytes += chunk.len() as u64);
                }
                // Trailers are the last frame, and whoever takes them asks for no more.
                if frame.is_trailers() || incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.break_off("the replica broke off its answer")))),
            Poll::Pending => match self.poll_silence(cx) {
                Poll::Ready(()) => {
                    Poll::Ready(Some(Err(self.break_off("the replica was silent for longer than request-timeout-ms"))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let (Some(busy), Some(incoming)) = (self.busy.take(), self.incoming.take()) {
            self.ledger.note(|ledger| {
                ledger.conclude(Outcome::ClientGone);
                ledger.record.finished.get_or_insert_with(Instant::now);
            });
            busy.abandon_body(incoming);
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
    pub(crate) fn passing(mut passing: Passing) -> Self {
        if passing.incoming.as_ref().is_none_or(Body::is_end_stream) {
            passing.finish();
        }
        Self(Kind::Replica(Box::new(passing)))
    }

    /// It is dropped next, because the client takes nothing of it: the record says so.
    pub(crate) fn leave_untaken(&mut self) {
        if let Kind::Replica(passing) = &mut self.0 {
            passing.ledger.note(Ledger::leave_untaken);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Kind::Local { bytes, ledger } => {
                let chunk = std::mem::take(bytes);
                *ledger = Open::nothing();
                Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
            }
            Kind::Replica(passing) => passing.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Local { bytes, .. } => bytes.is_empty(),
            Kind::Replica(passing) => passing.incoming.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Local { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Kind::Replica(passing) => {
                passing.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
            }
        }
    }
}
