//! HTTP/2 answers at the client's pace, and the end of those that nobody takes.
//!
//! Owner: the task of one HTTP/2 stream, which is its exchange and then the body of its answer.
//! Holds: a stream whose client takes nothing for `body-timeout-ms`, or less than `min-answer-bytes-per-second`, is reset,
//!        alone on its connection, and gives back what it held.
//!
//! On HTTP/1 a client that does not read blocks the socket, and the connection's watch sees it. On HTTP/2 it closes its
//! window, and the socket stays free for the others: hyper then keeps one chunk of the answer and waits for room, and
//! does not ask the body for more until there is some. So the body notes what it handed out, and the task looks at that
//! whenever hyper has to wait. The body goes out in pieces of one frame, because only a piece that went out whole shows
//! that the client reads.
//!
//! To reset a stream it is enough to drop it: h2 discards what it had buffered and sends `RST_STREAM` once nothing of
//! ours refers to the stream any more.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

use super::link::Link;
use super::stream::AnswerBody;
use crate::core::patience::Tempo;

/// Bytes handed to the connection at a time: the smallest `SETTINGS_MAX_FRAME_SIZE`, which is also what clients use.
const PIECE: usize = 16 << 10;

/// Frames, foremost window updates, that a client may send for a piece: as many as these, and one for so many bytes.
/// Clients usually send two for half a window.
const FRAMES_PER_PIECE: u32 = 8;
const BYTES_PER_FRAME: usize = 64;

tokio::task_local! {
    /// Of the stream whose task this is.
    static PACE: Arc<Pace>;
}

/// What the task of a stream and the body of its answer know of each other. Both live on one thread.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes of pieces that went out.
    gone: AtomicU64,
    /// Bytes of the last piece, while the connection still has that in its hand: it has not asked for another since.
    held: AtomicU64,
    /// Whether it has one.
    holds: AtomicBool,
    /// Whether the client took too long.
    overdue: AtomicBool,
}

impl Pace {
    fn hand_out(&self, piece: usize) {
        let before = self.held.swap(piece as u64, Ordering::Relaxed);
        self.gone.fetch_add(before, Ordering::Relaxed);
        self.holds.store(true, Ordering::Relaxed);
    }

    /// The connection wants more than there is: now it is not the client that is waited for.
    fn run_dry(&self) {
        self.hand_out(0);
        self.holds.store(false, Ordering::Relaxed);
    }
}

/// Runs the streams of HTTP/2 connections, each as a task of its own.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor {
    /// How a client must take an answer.
    pub(crate) tempo: Tempo,
}

impl<S> Executor<S> for StreamExecutor
where
    S: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: S) {
        let pace = Arc::new(Pace::default());
        // In a box from the start: it is large, and would be copied each time that something is put around it.
        tokio::spawn(PACE.scope(pace.clone(), run(Box::pin(stream), pace, self.tempo)));
    }
}

/// Drives a stream to its end, or until its client has taken too little for too long; then drops it.
async fn run(mut stream: Pin<Box<impl Future<Output = ()>>>, pace: Arc<Pace>, tempo: Tempo) {
    let mut alarm = Alarm { tempo, gone: 0, left: tempo.grace, since: None, sleep: None };
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        alarm.poll(cx, &pace).map(|()| pace.overdue.store(true, Ordering::Relaxed))
    })
    .await;
}

/// Rings when the connection has had pieces in its hand for too long. Costs nothing where it never has to wait.
struct Alarm {
    tempo: Tempo,
    /// Bytes that had gone out when it last looked.
    gone: u64,
    /// How long the client is waited for, from `since` on.
    left: Duration,
    /// Since when a piece does not go out, if there is one.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, pace: &Pace) -> Poll<()> {
        let (gone, holds) = (pace.gone.load(Ordering::Relaxed), pace.holds.load(Ordering::Relaxed));
        let moved = gone - std::mem::replace(&mut self.gone, gone);
        if moved > 0 || !holds {
            let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            self.left = self.tempo.after(self.left, waited, moved);
        }
        if !holds {
            return Poll::Pending;
        }
        let (since, left) = (&mut self.since, self.left);
        let sleep = match &mut self.sleep {
            Some(sleep) if since.is_some() => sleep,
            Some(sleep) => {
                sleep.as_mut().reset(*since.insert(Instant::now()) + left);
                sleep
            }
            none => none.insert(Box::pin(sleep_until(*since.insert(Instant::now()) + left))),
        };
        sleep.as_mut().poll(cx)
    }
}

/// Puts the answer of an exchange at the pace of the stream whose task this is.
pub(crate) fn pace<E>(
    link: Arc<Link>,
    answer: impl Future<Output = Result<Response<AnswerBody>, E>>,
) -> impl Future<Output = Result<Response<PacedBody>, E>> {
    answer.map_ok(|answer| {
        // Outside of a stream's task nobody would look at it.
        let pace = PACE.try_with(Arc::clone).unwrap_or_default();
        answer.map(|answer| PacedBody { answer, rest: Bytes::new(), pace, link })
    })
}

/// The body of an HTTP/2 answer.
#[derive(Debug)]
pub(crate) struct PacedBody {
    answer: AnswerBody,
    /// What is left of the last chunk.
    rest: Bytes,
    pace: Arc<Pace>,
    link: Arc<Link>,
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = match Pin::new(&mut this.answer).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                nothing => {
                    this.pace.run_dry();
                    return nothing;
                }
            };
            match frame.into_data() {
                Ok(chunk) => this.rest = chunk,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        this.pace.hand_out(piece.len());
        this.link.allow(FRAMES_PER_PIECE + (piece.len() / BYTES_PER_FRAME) as u32);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (answer, rest) = (self.answer.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = answer.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(answer.lower().saturating_add(rest));
        hint
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        if self.pace.overdue.load(Ordering::Relaxed) {
            self.answer.leave_untaken();
        }
    }
}
