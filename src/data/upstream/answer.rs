//! The body of an answer, read from the replica as it is asked for. It owns the connection until it is whole.
//!
//! Holds: bytes behind the end of the body, or a request that was not sent whole, leave a connection that is not used
//!        again. Where the replica answers before it has the whole request, the rest of that goes on in a task of its
//!        own, whether or not anybody takes the answer: otherwise a client that reads only when it has sent everything,
//!        and a replica, would wait for each other. The task ends with this body.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::decode::Decoder;
use super::head::Head;
use super::sending::{SendError, Sending};
use super::{SMALL, Upstream};
use crate::data::gather::PACKET;
use crate::data::link::Link;
use crate::data::replica_tls::ReplicaSocket;
use crate::data::splice::WORTHWHILE;

/// The most that one read takes.
const READ_MAX: usize = 2 * PACKET;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct ReplicaBody {
    source: Source,
    decoder: Decoder,
    /// What was read and not taken out of its framing yet.
    input: Bytes,
    /// A piece that was taken out ahead, to see whether the body is whole with it.
    next: Bytes,
    /// Bytes handed on.
    passed: u64,
    /// Bytes that the last read took.
    came: usize,
    keeps_alive: bool,
    /// Whether the connection took no more of the request. It may have been reset, and its end tells nothing then.
    is_cut: bool,
    /// Whether the last piece went past the router.
    ends_in_pipe: bool,
}

#[derive(Debug)]
enum Source {
    Own(Box<Upstream>),
    /// The request is still being sent on it.
    Shared(Arc<Mutex<Shared>>, AbortHandle),
    Gone,
}

#[derive(Debug)]
struct Shared {
    upstream: Box<Upstream>,
    /// Whether the request will never be whole, by its own fault.
    is_broken: bool,
    /// Whether the replica took no more of it.
    is_cut: bool,
    reader: Option<Waker>,
}

impl ReplicaBody {
    /// `start` came with the head. `sending` is what the replica does not have yet of the request; with `is_cut` it took no
    /// more of it.
    pub(super) fn new(
        upstream: Box<Upstream>,
        head: Head,
        start: Bytes,
        sending: Option<Sending>,
        is_cut: bool,
    ) -> Self {
        let mut body = Self {
            source: Source::Own(upstream),
            decoder: Decoder::new(head.framing),
            input: start,
            next: Bytes::new(),
            passed: 0,
            came: SMALL,
            keeps_alive: head.keeps_alive && sending.is_none() && !is_cut,
            is_cut,
            ends_in_pipe: false,
        };
        // A flaw is found again by whoever asks for the next piece.
        if let Ok(Some(piece)) = body.decoder.next(&mut body.input) {
            body.next = piece;
        }
        match sending {
            // Nobody may go on with a connection on which a request was not finished, not in another protocol either.
            Some(_) if body.is_whole() => body.source = Source::Gone,
            Some(sending) => body.share(sending),
            None => {}
        }
        body
    }

    /// The rest of the request goes out beside the answer.
    fn share(&mut self, mut sending: Sending) {
        let Source::Own(upstream) = std::mem::replace(&mut self.source, Source::Gone) else { return };
        let shared = Arc::new(Mutex::new(Shared { upstream, is_broken: false, is_cut: false, reader: None }));
        let theirs = shared.clone();
        let task = tokio::spawn(poll_fn(move |cx| {
            let mut shared = theirs.lock();
            match ready!(sending.poll(&mut shared.upstream, cx)) {
                Ok(()) => {}
                // A replica that has answered already need not read the rest. Its answer may be there to be read.
                Err(SendError::Connection(_)) if shared.upstream.is_plain() => shared.is_cut = true,
                Err(_) => {
                    shared.is_broken = true;
                    let reader = shared.reader.take();
                    drop(shared);
                    reader.into_iter().for_each(Waker::wake);
                }
            }
            Poll::Ready(())
        }));
        self.source = Source::Shared(shared, task.abort_handle());
    }

    /// Whether all of it came from the replica.
    pub(crate) fn is_whole(&self) -> bool {
        self.decoder.is_over()
    }

    /// The connection of an answer that is whole, if it is fit for another request.
    pub(crate) fn take_upstream(&mut self) -> Option<Box<Upstream>> {
        if matches!(self.source, Source::Shared(..)) {
            // A client that reads only when it has sent everything still needs the task. It ends with this body.
            return None;
        }
        let fit = self.is_whole() && self.keeps_alive && self.input.is_empty();
        match std::mem::replace(&mut self.source, Source::Gone) {
            // A read sees what came behind the end; a pipe takes none of it.
            Source::Own(mut upstream) if fit => (!self.ends_in_pipe || upstream.is_quiet()).then_some(upstream),
            _ => None,
        }
    }

    /// Whether the replica had all of the request, as far as it takes it, when it answered.
    pub(crate) fn has_whole_request(&self) -> bool {
        !matches!(self.source, Source::Shared(..))
    }

    /// Bytes of the body handed on.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether something was read that is not taken out of its framing yet.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// See [`Upstream::unwatched_for`].
    pub(crate) fn unwatched_for(&self) -> Option<Duration> {
        match &self.source {
            Source::Own(upstream) => upstream.unwatched_for(),
            Source::Shared(shared, _) => shared.lock().upstream.unwatched_for(),
            Source::Gone => None,
        }
    }

    /// See [`Upstream::keep_watch`].
    pub(crate) fn keep_watch(&mut self) {
        match &mut self.source {
            Source::Own(upstream) => upstream.keep_watch(),
            Source::Shared(shared, _) => shared.lock().upstream.keep_watch(),
            Source::Gone => {}
        }
    }

    /// The socket for another protocol, and what came on it already.
    pub(crate) fn into_socket(mut self) -> Option<(ReplicaSocket, Bytes)> {
        match std::mem::replace(&mut self.source, Source::Gone) {
            Source::Own(mut upstream) => {
                upstream.set_nodelay();
                Some((upstream.into_socket(), std::mem::take(&mut self.input)))
            }
            Source::Shared(..) | Source::Gone => None,
        }
    }

    /// How much to read: as the client takes more, more at a time, so that a client that takes little makes little wait
    /// for it. From a whole packet on, whole packets. But little where little came the last time: of a stream of events,
    /// each comes alone.
    fn read_size(&self) -> usize {
        if self.came < SMALL {
            return SMALL;
        }
        let grown = match usize::try_from(self.passed).unwrap_or(READ_MAX).min(READ_MAX) {
            READ_MAX => READ_MAX,
            passed => passed.min(PACKET),
        };
        // One byte more than is to come: it would not belong to the answer.
        let left =
            self.decoder.left().map_or(READ_MAX, |left| usize::try_from(left.saturating_add(1)).unwrap_or(READ_MAX));
        grown.min(left).max(SMALL)
    }

    /// Whether the replica is known to take no more of the request.
    #[cfg(test)]
    pub(super) fn is_known_cut(&self) -> bool {
        matches!(&self.source, Source::Shared(shared, _) if shared.lock().is_cut)
    }

    #[cfg(test)]
    pub(super) fn read_size_after(&mut self, passed: u64, came: usize) -> usize {
        (self.passed, self.came) = (passed, came);
        self.read_size()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let size = self.read_size();
        match &mut self.source {
            Source::Own(upstream) => {
                // One that comes in more than one piece may come in many.
                let is_stream = self.passed > 0 && self.decoder.left().is_none();
                upstream.poll_read(size, is_stream, cx)
            }
            Source::Shared(shared, _) => {
                let mut shared = shared.lock();
                if shared.is_broken {
                    return Poll::Ready(Err(io::Error::other("the request broke off")));
                }
                self.is_cut |= shared.is_cut;
                let read = shared.upstream.poll_read(size, false, cx);
                if read.is_pending() {
                    shared.reader = Some(cx.waker().clone());
                }
                read
            }
            Source::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// The next piece, past the router's memory if it may: then these are not its bytes, but what stands in for them.
    fn poll_fill(&mut self, link: Option<&Link>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        // First what is at hand: for an event it is all that is looked at.
        let (Decoder::Length(left), Source::Own(upstream), Some(link), true) =
            (&self.decoder, &mut self.source, link, self.passed > 0)
        else {
            return Poll::Ready(None);
        };
        let (Some(passage), Some(socket)) = (link.passage(), upstream.plain_socket()) else {
            return Poll::Ready(None);
        };
        if *left < WORTHWHILE {
            return Poll::Ready(None);
        }
        let piece = match ready!(passage.poll_fill(&link.worker.pipes, socket, *left, cx)) {
            Ok(Some(piece)) => piece,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        upstream.heard();
        self.decoder.pass(piece.len() as u64);
        self.ends_in_pipe = self.decoder.is_over();
        Poll::Ready(Some(Ok(piece)))
    }

    fn poll_piece(&mut self, link: Option<&Link>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.next.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.next))));
        }
        while !self.decoder.is_over() {
            match self.decoder.next(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_over() => break,
                Ok(None) => {}
                Err(flaw) => return Poll::Ready(Some(Err(io::Error::other(flaw)))),
            }
            match ready!(self.poll_fill(link, cx)) {
                Some(Ok(piece)) if !piece.is_empty() => return Poll::Ready(Some(Ok(piece))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Its end, which a read finds again, or a piece to be copied.
                Some(Ok(_)) | None => {}
            }
            // Empty by now, but it keeps the memory that it was in.
            self.input = Bytes::new();
            match ready!(self.poll_read(cx)) {
                Ok(block) if !block.is_empty() => {
                    self.came = block.len();
                    self.input = block;
                }
                // Whoever writes to a connection that was reset is told so, and whoever reads then sees a mere end.
                Ok(_) if self.is_cut && matches!(self.decoder, Decoder::UntilClose) => {
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
                Ok(_) => {
                    if let Err(flaw) = self.decoder.end() {
                        return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, flaw))));
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(None)
    }

    /// See [`Body::poll_frame`]; `link` is the client's, where what comes may go there past the router's memory.
    pub(crate) fn poll_frame_by(
        &mut self,
        link: Option<&Link>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match ready!(self.poll_piece(link, cx)) {
            Some(Ok(piece)) => {
                self.passed += piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(self.decoder.take_trailers().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }
}

impl Body for ReplicaBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().poll_frame_by(None, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole() && self.next.is_empty() && !self.decoder.has_trailers()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.decoder {
            // Whether the end of the chunks is here already is no reason to frame them otherwise.
            Decoder::Chunked(_) | Decoder::UntilClose => SizeHint::new(),
            Decoder::Length(left) => SizeHint::with_exact(left + self.next.len() as u64),
            Decoder::Over => SizeHint::with_exact(self.next.len() as u64),
        }
    }
}

impl Drop for ReplicaBody {
    fn drop(&mut self) {
        if let Source::Shared(_, task) = &self.source {
            task.abort();
        }
    }
}
