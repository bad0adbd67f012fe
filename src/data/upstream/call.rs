//! A request on a connection, until the head of its answer is there.
//!
//! Owner: `Pending`, which sees to it that the slot is not lost when nobody waits any more.
//! Holds: nothing is read before the head of the request is ready to be written; that is here until there is an answer, so
//!        that it can be sent again.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::ReplicaBody;
use super::encode::RequestHead;
use super::head::{Expected, Head, HeadFlaw, HeadReader, Headers};
use super::sending::{SendError, Sending};
use super::{SMALL, Upstream};
use crate::data::upload::UploadBody;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Call {
    upstream: Box<Upstream>,
    request: RequestHead,
    /// Those of the answer.
    headers: Headers,
    sending: Sending,
    reader: HeadReader,
    expected: Expected,
    /// Whether a byte of an answer came.
    has_read: bool,
    /// Why the connection took no more of the request. The answer may be there all the same.
    unwritten: Option<io::Error>,
}

/// An answer whose head is there.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: Headers,
    pub(crate) body: ReplicaBody,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The replica closed the connection.
    Closed,
    Connection(io::Error),
    /// The request's own body is not whole.
    Body(io::Error),
    Head(HeadFlaw),
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: Cause,
    /// Whether nothing of it was sent.
    pub(crate) is_unsent: bool,
    /// Whether the connection had been used before, and no byte of an answer came.
    pub(crate) is_stale: bool,
    /// The request's, and a map for the headers of another answer.
    pub(crate) head: (RequestHead, HeaderMap),
}

impl Call {
    pub(crate) fn new(
        upstream: Box<Upstream>,
        (request, headers): (RequestHead, HeaderMap),
        body: UploadBody,
        head_bytes_max: usize,
    ) -> Self {
        let (is_bodiless, as_lines) = (request.is_head(), request.takes_lines());
        let expected = Expected { is_bodiless, bytes_max: head_bytes_max, as_lines };
        Self {
            upstream,
            request,
            headers: headers.into(),
            sending: Sending::new(body),
            reader: HeadReader::default(),
            expected,
            has_read: false,
            unwritten: None,
        }
    }

    /// Whether the replica knows nothing of it. What TLS had taken may be out or not.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.sending.is_under_way() && (self.upstream.is_plain() || !self.sending.has_begun())
    }

    /// See [`Upstream::unwatched_for`].
    pub(crate) fn unwatched_for(&self) -> Option<Duration> {
        self.upstream.unwatched_for()
    }

    /// See [`Upstream::keep_watch`].
    pub(crate) fn keep_watch(&mut self) {
        self.upstream.keep_watch();
    }

    /// Sends, and reads until the head is there. Then it is what it has become: see [`Self::answer`] and [`Self::broken`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Head, Bytes), Cause>> {
        if !self.sending.has_begun()
            && let Err(error) = ready!(self.sending.poll_begin(&self.request, cx))
        {
            return Poll::Ready(Err(cause(error)));
        }
        if self.unwritten.is_none()
            && !self.sending.is_done()
            && let Poll::Ready(Err(error)) = self.sending.poll(&mut self.upstream, cx)
        {
            match cause(error) {
                // A replica that has answered already need not read the rest.
                Cause::Connection(error) if self.sending.is_under_way() && self.upstream.is_plain() => {
                    self.unwritten = Some(error);
                }
                cause => return Poll::Ready(Err(cause)),
            }
        }
        loop {
            let block = match ready!(self.upstream.poll_read(SMALL, false, cx)) {
                Ok(block) if !block.is_empty() => block,
                read => {
                    let error = self.unwritten.take().or_else(|| read.err());
                    return Poll::Ready(Err(error.map_or(Cause::Closed, Cause::Connection)));
                }
            };
            self.has_read = true;
            match self.reader.push(block, self.expected, &mut self.headers) {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Err(flaw) => return Poll::Ready(Err(Cause::Head(flaw))),
            }
        }
    }

    /// The answer that it has become.
    pub(crate) fn answer(self, head: Head, start: Bytes) -> Answered {
        let Self { upstream, headers, sending, unwritten, .. } = self;
        let sending = Some(sending).filter(|sending| !sending.is_done() && unwritten.is_none());
        let body = ReplicaBody::new(upstream, head, start, sending, unwritten.is_some());
        Answered { status: head.status, headers, body }
    }

    /// What is left of it.
    pub(crate) fn broken(self, cause: Cause) -> Broken {
        let (is_unsent, is_stale) = (self.is_unsent(), self.upstream.reused && !self.has_read);
        Broken { cause, is_unsent, is_stale, head: (self.request, self.headers.map) }
    }
}

fn cause(error: SendError) -> Cause {
    match error {
        SendError::Body(error) => Cause::Body(error),
        SendError::Connection(error) => Cause::Connection(error),
    }
}
