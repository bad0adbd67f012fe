//! The request body on its way to a replica: streamed, never collected, but with its first part kept for another
//! attempt.
//!
//! Owner: the exchange. Each attempt gets an [`UploadBody`], which first repeats what is kept and then goes on with
//! what the client still sends. Once more than the limit has gone through, or something on a connection of which no
//! other attempt may follow, nothing is kept any more and the request cannot be repeated.
//! Holds: bytes kept <= `replay-bytes`, plus the copy for a mirror <= `mirror-bytes`, both in buffers of their own (a
//!        chunk as it came would pin the whole read buffer that it is a slice of); a body that broke off, or is over
//!        `max-body-bytes`, ends in an error for every attempt, never as a truncated body that looks whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;

use super::kept::Kept;
use super::linger::read_over;
use super::link::Link;
use crate::core::patience::Tempo;
use crate::core::shares::Shares;

/// Frames that a client may send on HTTP/2 for each that was taken: that one, and another.
const FRAMES_PER_CHUNK: u32 = 2;

/// The exchange's side.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Arc<Mutex<Source>>);

/// Why a body will never be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It was over the limit.
    TooLarge,
    /// Its framing is not valid.
    Malformed,
    /// The client broke it off.
    BrokenOff,
    /// The exchange was over before it was.
    Cut,
}

/// How the body arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that arrived.
    pub(crate) bytes: u64,
    /// When the last byte arrived, once it has.
    pub(crate) ended: Option<Instant>,
    /// Since when the router has been waiting for the client to go on, while it is.
    pub(crate) waiting_since: Option<Instant>,
    /// How long it is waited for from then on, once it is timed: see [`Upload::waits_until`].
    patience: Option<Duration>,
    /// Why it will never be whole.
    pub(crate) flaw: Option<Flaw>,
}

#[derive(Debug)]
struct Source {
    /// `None` once the router has lost interest.
    incoming: Option<Incoming>,
    /// Where it came on HTTP/2.
    link: Option<Arc<Link>>,
    progress: Progress,
    kept: Kept,
    /// Whether what arrives now is to be kept.
    keeps: bool,
    /// Whether everything that arrived is kept.
    whole: bool,
    trailers: Option<HeaderMap>,
    bytes_max: u64,
    tempo: Tempo,
    copy: Option<BytesMut>,
    copy_max: usize,
    /// Whoever waits for the copy to be complete.
    watcher: Option<Waker>,
    /// Whoever waits for the next bytes.
    reader: Option<Waker>,
    hint: SizeHint,
}

impl Upload {
    /// From the client's body. `None` where there is none.
    pub(crate) fn new(incoming: Incoming, link: &Arc<Link>, shares: &Arc<Shares>, bytes_max: u64) -> Option<Self> {
        if incoming.is_end_stream() {
            return None;
        }
        let hint = incoming.size_hint();
        let source = Source {
            incoming: Some(incoming),
            link: link.is_http2().then(|| link.clone()),
            progress: Progress::default(),
            kept: Kept::new(link.worker.clone(), shares.clone()),
            keeps: true,
            whole: true,
            trailers: None,
            bytes_max,
            tempo: link.worker.limits().body_tempo(),
            copy: None,
            copy_max: 0,
            watcher: None,
            reader: None,
            hint,
        };
        Some(Self(Arc::new(Mutex::new(source))))
    }

    /// Keeps a copy of up to `bytes_max` bytes; before the first attempt.
    pub(crate) fn copy(&self, bytes_max: usize) {
        let mut source = self.0.lock();
        source.copy = Some(BytesMut::new());
        source.copy_max = bytes_max;
    }

    /// The copy, once the body has arrived whole; `None` where it was too long or broke off.
    pub(crate) fn poll_copy(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut source = self.0.lock();
        if source.copy.is_none() || source.progress.flaw.is_some() {
            source.copy = None;
            return Poll::Ready(None);
        }
        if source.progress.ended.is_some() {
            return Poll::Ready(source.copy.take().map(BytesMut::freeze));
        }
        source.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether another attempt can send everything again.
    pub(crate) fn is_replayable(&self) -> bool {
        let source = self.0.lock();
        source.whole && source.progress.flaw.is_none()
    }

    /// How far it came.
    pub(crate) fn progress(&self) -> Progress {
        self.0.lock().progress
    }

    /// Until when the rest is waited for, if nothing more comes; `None` once there is no more to come.
    ///
    /// To be asked for the first time when the grace is over: only then is the client timed, so that most requests cost
    /// no look at the clock. What it sent until then counts for it. While the replica is to take something, it has the
    /// whole grace.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        let mut source = self.0.lock();
        let (tempo, bytes) = (source.tempo, source.progress.bytes);
        if source.progress.ended.is_some() {
            return None;
        }
        let patience = *source.progress.patience.get_or_insert_with(|| tempo.earned(bytes));
        Some(source.progress.waiting_since.map_or(now + tempo.grace, |since| since + patience))
    }

    /// Reads ahead as much as is kept anyway, while the request waits in line: so that the server sees a client that
    /// goes away.
    pub(crate) fn read_ahead(&self, cx: &mut Context<'_>) {
        let mut source = self.0.lock();
        while source.whole && source.kept.has_room() {
            match source.poll_source(cx) {
                Poll::Ready(Some(Ok(chunk))) => source.kept.push(&chunk),
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => return,
            }
        }
    }

    /// There is an answer: no attempt will follow, so nothing is kept any more.
    pub(crate) fn settle(&self) {
        let mut source = self.0.lock();
        // A body that is still being repeated is let go of when that is done.
        if source.progress.ended.is_some() {
            source.kept.clear();
        }
        source.whole = false;
    }

    /// Ends it where it is: the exchange is over. A replica that still reads sees a request that breaks off, and the
    /// client's connection no longer waits for the rest. Returns what the rest would come from, if there is one.
    pub(crate) fn cut(&self) -> Option<Incoming> {
        let mut source = self.0.lock();
        if source.progress.ended.is_some() {
            return None;
        }
        let rest = source.incoming.take();
        source.fail(Flaw::Cut);
        let reader = source.reader.take();
        drop(source);
        if let Some(reader) = reader {
            reader.wake();
        }
        rest
    }

    /// The body of one attempt. Without `keep` no other can follow once it has sent something.
    pub(crate) fn body(&self, keep: bool) -> UploadBody {
        self.0.lock().keeps = keep;
        UploadBody(Kind::Live { upload: self.clone(), at: 0, done: false })
    }
}

impl Source {
    /// The next chunk of the client; `None` at the end, with the trailers put aside.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if self.progress.flaw.is_some() {
                return Poll::Ready(Some(Err(io::Error::other("the request body is not whole"))));
            }
            if self.progress.ended.is_some() {
                return Poll::Ready(None);
            }
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                self.reader = Some(cx.waker().clone());
                self.progress.waiting_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            let waited_since = self.progress.waiting_since.take();
            if let (Some(since), Some(patience)) = (waited_since, &mut self.progress.patience) {
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    _ => 0,
                };
                *patience = self.tempo.after(*patience, since.elapsed(), bytes as u64);
            }
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => self.end(),
                Some(Ok(Ok(chunk))) if chunk.is_empty() => {}
                Some(Ok(Ok(chunk))) => {
                    self.arrived(&chunk);
                    if self.progress.flaw.is_none() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
                Some(Ok(Err(frame))) => self.trailers = frame.into_trailers().ok(),
                Some(Err(error)) => self.fail(if is_malformed(&error) { Flaw::Malformed } else { Flaw::BrokenOff }),
            }
        }
    }

    fn arrived(&mut self, chunk: &Bytes) {
        self.progress.bytes += chunk.len() as u64;
        if let Some(link) = &self.link {
            link.allow(FRAMES_PER_CHUNK);
        }
        if self.progress.bytes > self.bytes_max {
            return self.fail(Flaw::TooLarge);
        }
        if let Some(copy) = &mut self.copy {
            if copy.len() + chunk.len() <= self.copy_max {
                copy.extend_from_slice(chunk);
            } else {
                self.copy = None;
                self.wake();
            }
        }
        if self.incoming.as_ref().is_some_and(Body::is_end_stream) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.progress.ended = Some(Instant::now());
        self.wake();
    }

    fn fail(&mut self, flaw: Flaw) {
        self.progress.flaw.get_or_insert(flaw);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// The next chunk for the attempt that has had `at` of the bytes that are kept.
    fn poll_chunk(&mut self, at: &mut usize, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(chunk) = self.kept.after(*at) {
            *at += chunk.len();
            return Poll::Ready(Some(Ok(chunk)));
        }
        let next = ready!(self.poll_source(cx));
        if let Some(Ok(chunk)) = &next
            && self.whole
        {
            if self.keeps && self.kept.try_push(chunk) {
                *at = self.kept.len();
            } else {
                self.whole = false;
            }
        }
        if !self.whole {
            self.kept.clear();
        }
        Poll::Ready(next)
    }
}

/// Takes the rest of a body on HTTP/2 and throws it away: dropping it would reset the stream under a client that still
/// sends, though it may lack nothing but the last, empty frame, and many clients then forget the answer that they have.
pub(crate) fn discard(link: Arc<Link>, mut rest: Incoming) {
    // Without a runtime the process is on its way out.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        read_over(&link.worker, |cx| {
            link.allow(FRAMES_PER_CHUNK);
            Pin::new(&mut rest).poll_frame(cx).map(|frame| matches!(frame, Some(Ok(_))))
        })
        .await;
    });
}

/// Whether the client sent bytes that are no body, rather than too few.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct UploadBody(Kind);

#[derive(Debug)]
enum Kind {
    /// Of a client that still sends. `at` is how much of the kept bytes was repeated.
    Live { upload: Upload, at: usize, done: bool },
    /// All there: the copy for a mirror, or nothing.
    Whole(Bytes),
}

impl UploadBody {
    /// No body at all.
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body that is all there.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) => {
                let chunk = std::mem::take(bytes);
                Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
            }
            Kind::Live { done: true, .. } => Poll::Ready(None),
            Kind::Live { upload, at, done } => {
                let mut source = upload.0.lock();
                match ready!(source.poll_chunk(at, cx)) {
                    Some(chunk) => Poll::Ready(Some(chunk.map(Frame::data))),
                    None => {
                        *done = true;
                        Poll::Ready(source.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Live { done: true, .. } => true,
            Kind::Live { upload, at, .. } => {
                let source = upload.0.lock();
                let progress = &source.progress;
                let all_sent = source.kept.len() <= *at;
                progress.ended.is_some() && progress.flaw.is_none() && source.trailers.is_none() && all_sent
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Live { upload, .. } => upload.0.lock().hint,
        }
    }
}
