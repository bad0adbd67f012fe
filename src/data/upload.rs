//! The request body on its way to a replica: streamed, never collected, but with its first part kept for another
//! attempt.
//!
//! Owner: the exchange. Each attempt gets an [`UploadBody`], which first repeats what is kept and then goes on with
//! what the client still sends. Once more than the limit has gone through, nothing is kept any more and the request
//! cannot be repeated.
//! Holds: bytes kept <= `replay-bytes`, plus the copy for a mirror <= `mirror-bytes`; a body over `max-body-bytes` ends
//!        in an error, never in a truncated body that looks whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;

/// The exchange's side.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Arc<Mutex<Source>>);

/// How the body arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that arrived.
    pub(crate) bytes: u64,
    /// When the last byte arrived, once it has.
    pub(crate) ended: Option<Instant>,
    /// When bytes last arrived, where any did.
    pub(crate) last: Option<Instant>,
    /// Whether it was over the limit.
    pub(crate) too_large: bool,
    /// Whether the client broke it off.
    pub(crate) broken: bool,
}

#[derive(Debug)]
struct Source {
    /// `None` once the router has lost interest.
    incoming: Option<Incoming>,
    progress: Progress,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    keep_max: usize,
    /// Whether everything that arrived is kept.
    whole: bool,
    trailers: Option<HeaderMap>,
    bytes_max: u64,
    copy: Option<Copy>,
    /// Whoever waits for the copy to be complete.
    watcher: Option<Waker>,
    /// Whoever waits for the next bytes.
    reader: Option<Waker>,
    hint: SizeHint,
}

/// A copy for a mirror.
#[derive(Debug, Default)]
struct Copy {
    chunks: Vec<Bytes>,
    bytes: usize,
    bytes_max: usize,
    overflowed: bool,
}

impl Upload {
    /// From the client's body. `None` where there is none.
    pub(crate) fn new(incoming: Incoming, keep_max: usize, bytes_max: u64) -> Option<Self> {
        if incoming.is_end_stream() {
            return None;
        }
        let hint = incoming.size_hint();
        let source = Source {
            incoming: Some(incoming),
            progress: Progress::default(),
            kept: Vec::new(),
            kept_bytes: 0,
            keep_max,
            whole: true,
            trailers: None,
            bytes_max,
            copy: None,
            watcher: None,
            reader: None,
            hint,
        };
        Some(Self(Arc::new(Mutex::new(source))))
    }

    /// Keeps a copy of up to `bytes_max` bytes; before the first attempt.
    pub(crate) fn copy(&self, bytes_max: usize) {
        self.0.lock().copy = Some(Copy { bytes_max, ..Copy::default() });
    }

    /// The copy, once the body has arrived whole; `None` where it was too long or broke off.
    pub(crate) fn poll_copy(&self, cx: &Context<'_>) -> Poll<Option<Vec<Bytes>>> {
        let mut source = self.0.lock();
        let Some(copy) = &source.copy else { return Poll::Ready(None) };
        if copy.overflowed || source.progress.broken || source.progress.too_large {
            source.copy = None;
            return Poll::Ready(None);
        }
        if source.progress.ended.is_some() {
            return Poll::Ready(source.copy.take().map(|copy| copy.chunks));
        }
        source.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether another attempt can send everything again.
    pub(crate) fn is_replayable(&self) -> bool {
        let source = self.0.lock();
        source.whole && !source.progress.broken && !source.progress.too_large
    }

    /// How far it came.
    pub(crate) fn progress(&self) -> Progress {
        self.0.lock().progress
    }

    /// Reads ahead as much as is kept anyway, while the request waits in line: so that the server sees a client that
    /// goes away. Never completes anything; errors surface in the attempt.
    pub(crate) fn read_ahead(&self, cx: &mut Context<'_>) {
        let mut source = self.0.lock();
        while source.whole && source.kept_bytes < source.keep_max && !source.is_over() {
            match source.poll_source(cx) {
                Poll::Ready(Some(Ok(chunk))) => source.keep(chunk),
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => return,
            }
        }
    }

    /// Ends it where it is: the exchange is over. A replica that still reads sees a request that breaks off, and the
    /// client's connection no longer waits for the rest.
    pub(crate) fn cut(&self) {
        let mut source = self.0.lock();
        if source.progress.ended.is_some() {
            return;
        }
        source.incoming = None;
        source.progress.broken = true;
        source.wake();
        let reader = source.reader.take();
        drop(source);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The body of one attempt.
    pub(crate) fn body(&self) -> UploadBody {
        UploadBody(Kind::Live { upload: self.clone(), at: 0, done: false })
    }
}

impl Source {
    fn is_over(&self) -> bool {
        self.progress.ended.is_some() || self.progress.broken || self.progress.too_large
    }

    /// The next chunk of the client; `None` at the end, with the trailers put aside.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if self.progress.ended.is_some() {
                return Poll::Ready(None);
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(Some(Err(io::Error::other("the exchange is over"))));
            };
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let Some(frame) = frame else {
                self.end();
                return Poll::Ready(None);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(chunk)) if chunk.is_empty() => {}
                Ok(Ok(chunk)) => return Poll::Ready(Some(self.arrived(chunk))),
                Ok(Err(frame)) => self.trailers = frame.into_trailers().ok(),
                Err(error) => {
                    self.progress.broken = true;
                    self.wake();
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
            }
        }
    }

    fn arrived(&mut self, chunk: Bytes) -> io::Result<Bytes> {
        self.progress.bytes += chunk.len() as u64;
        self.progress.last = Some(Instant::now());
        if self.progress.bytes > self.bytes_max {
            self.progress.too_large = true;
            self.wake();
            return Err(io::Error::other("request body over max-body-bytes"));
        }
        if let Some(copy) = &mut self.copy {
            copy.bytes += chunk.len();
            if copy.bytes > copy.bytes_max {
                *copy = Copy { overflowed: true, ..Copy::default() };
                self.wake();
            } else if !copy.overflowed {
                copy.chunks.push(chunk.clone());
            }
        }
        if self.incoming.as_ref().is_some_and(Body::is_end_stream) {
            self.end();
        }
        Ok(chunk)
    }

    fn end(&mut self) {
        self.progress.ended = Some(Instant::now());
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    fn keep(&mut self, chunk: Bytes) {
        self.kept_bytes += chunk.len();
        self.kept.push(chunk);
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct UploadBody(Kind);

#[derive(Debug)]
enum Kind {
    /// Of a client that still sends. `at` is the next of the kept chunks to repeat.
    Live { upload: Upload, at: usize, done: bool },
    /// All there: the copy for a mirror, or nothing.
    Whole(std::vec::IntoIter<Bytes>),
}

impl UploadBody {
    /// No body at all.
    pub(crate) fn empty() -> Self {
        Self::whole(Vec::new())
    }

    /// A body that is all there.
    pub(crate) fn whole(chunks: Vec<Bytes>) -> Self {
        Self(Kind::Whole(chunks.into_iter()))
    }
}

impl Source {
    /// The next chunk for the attempt that has had `at` of the kept ones.
    fn poll_chunk(&mut self, at: &mut usize, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(chunk) = self.kept.get(*at) {
            *at += 1;
            return Poll::Ready(Some(Ok(chunk.clone())));
        }
        let next = ready!(self.poll_source(cx));
        if let Some(Ok(chunk)) = &next
            && self.whole
        {
            if self.kept_bytes + chunk.len() <= self.keep_max {
                self.keep(chunk.clone());
                *at += 1;
            } else {
                self.whole = false;
                self.kept = Vec::new();
            }
        }
        Poll::Ready(next)
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(chunks) => Poll::Ready(chunks.next().map(|chunk| Ok(Frame::data(chunk)))),
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
            Kind::Whole(chunks) => chunks.len() == 0,
            Kind::Live { done: true, .. } => true,
            Kind::Live { upload, at, .. } => {
                let source = upload.0.lock();
                source.progress.ended.is_some() && source.trailers.is_none() && source.kept.len() <= *at
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(chunks) => SizeHint::with_exact(chunks.as_slice().iter().map(|chunk| chunk.len() as u64).sum()),
            Kind::Live { upload, .. } => upload.0.lock().hint,
        }
    }
}
