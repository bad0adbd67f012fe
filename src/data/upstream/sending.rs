//! A request on its way out: its head, then its body, as far as the socket takes them.
//!
//! Owner: the exchange; where the answer came first, a task of its own.
//! Holds: what is written frames exactly what it announced, or the connection ends: a body that breaks off never looks
//!        whole. One chunk at a time is held, and no other is asked for before it is out.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::Upstream;
use super::encode::{RequestHead, Sent, write_end, write_size};
use crate::data::upload::UploadBody;

/// A chunk up to this size is copied behind what frames it and goes out with it in one piece.
const TOGETHER_MAX: usize = 4 << 10;

/// A text that grew larger is not kept for the next request.
const SPARE_MAX: usize = 16 << 10;

thread_local! {
    /// The memory for the next head.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why a request cannot be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Its body is not whole.
    Body(io::Error),
    /// The connection does not take it.
    Connection(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body was not asked for its first chunk.
    Fresh,
    /// It was, and had none yet.
    Asked,
    /// The head and a small chunk are ready, and more may come in this turn or the next.
    Gathering,
    Waiting,
    Body,
    /// What is to be written is the last.
    Last,
    Done,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Sending {
    body: UploadBody,
    sent: Sent,
    state: State,
    /// What is to be written: this, a chunk, and what follows the chunk.
    front: Vec<u8>,
    written: usize,
    chunk: Bytes,
    back: &'static [u8],
    /// Whether anything was taken by the socket.
    is_under_way: bool,
}

impl Sending {
    pub(super) fn new(body: UploadBody) -> Self {
        Self {
            body,
            sent: Sent::Length(0),
            state: State::Fresh,
            front: Vec::new(),
            written: 0,
            chunk: Bytes::new(),
            back: b"",
            is_under_way: false,
        }
    }

    /// Whether the head is ready to be written, or was.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.state, State::Body | State::Last | State::Done)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Gets the head ready, and with it what is there of the body: so most requests are one write.
    ///
    /// The server passes on what it has of a body once somebody has asked for it, in its next turn. That much is waited
    /// for; of a body in chunks once more, because the end is a piece of its own.
    pub(super) fn poll_begin(&mut self, head: &RequestHead, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if matches!(self.state, State::Fresh | State::Asked) {
            let length = self.body.size_hint().exact();
            let first = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => Some(frame),
                Poll::Pending if self.state == State::Fresh => return self.wait_a_turn(State::Asked, cx),
                Poll::Pending => None,
            };
            self.front = SPARE.take();
            self.front.clear();
            self.sent = head.write(length, &mut self.front);
            self.state = State::Body;
            let Some(frame) = first else { return Poll::Ready(Ok(())) };
            self.load(frame)?;
            if self.can_gather() {
                self.state = State::Gathering;
            }
        }
        while matches!(self.state, State::Gathering | State::Waiting) {
            let before = std::mem::replace(&mut self.state, State::Body);
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    self.load(frame)?;
                    if self.can_gather() {
                        self.state = before;
                    }
                }
                Poll::Pending if before == State::Gathering => return self.wait_a_turn(State::Waiting, cx),
                Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wait_a_turn<T>(&mut self, state: State, cx: &Context<'_>) -> Poll<T> {
        self.state = state;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether more of the body could go out with what is ready.
    fn can_gather(&self) -> bool {
        let has_room = self.chunk.is_empty() && self.front.len() < TOGETHER_MAX;
        self.state == State::Body && has_room && matches!(self.sent, Sent::Chunked(_))
    }

    /// Writes on, to the end of the body.
    pub(super) fn poll(&mut self, upstream: &mut Upstream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            while self.written < self.front.len() || !self.chunk.is_empty() || !self.back.is_empty() {
                let front = self.front.get(self.written..).unwrap_or_default();
                let pieces = [IoSlice::new(front), IoSlice::new(&self.chunk), IoSlice::new(self.back)];
                let n = ready!(upstream.poll_write(cx, &pieces)).map_err(SendError::Connection)?;
                self.is_under_way = true;
                self.advance(n);
            }
            ready!(upstream.poll_flush(cx)).map_err(SendError::Connection)?;
            match self.state {
                State::Last => {
                    self.state = State::Done;
                    let front = std::mem::take(&mut self.front);
                    if front.capacity() <= SPARE_MAX {
                        SPARE.set(front);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Done => return Poll::Ready(Ok(())),
                State::Fresh | State::Asked | State::Gathering | State::Waiting | State::Body => {}
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.front.clear();
            self.written = 0;
            self.load(frame)?;
            // More than one write: what is small must not wait for what was sent to be acknowledged.
            upstream.set_nodelay();
        }
    }

    fn advance(&mut self, mut n: usize) {
        let front = n.min(self.front.len() - self.written);
        self.written += front;
        n -= front;
        let chunk = n.min(self.chunk.len());
        self.chunk.advance(chunk);
        n -= chunk;
        self.back = self.back.get(n..).unwrap_or_default();
        if self.chunk.is_empty() {
            self.chunk = Bytes::new();
        }
    }

    /// Gets a frame ready to be written behind what is in front.
    fn load(&mut self, frame: Option<io::Result<Frame<Bytes>>>) -> Result<(), SendError> {
        let frame = frame.transpose().map_err(SendError::Body)?;
        match frame.map(Frame::into_data) {
            Some(Ok(chunk)) => self.load_chunk(chunk),
            Some(Err(frame)) => self.load_end(&frame.into_trailers().unwrap_or_default()),
            None => self.load_end(&HeaderMap::new()),
        }
    }

    fn load_chunk(&mut self, chunk: Bytes) -> Result<(), SendError> {
        if chunk.is_empty() {
            return Ok(());
        }
        match &mut self.sent {
            Sent::Length(left) => {
                *left = left.checked_sub(chunk.len() as u64).ok_or_else(wrong_length)?;
                if *left == 0 {
                    self.state = State::Last;
                }
            }
            Sent::Chunked(_) => {
                write_size(chunk.len(), &mut self.front);
                self.back = b"\r\n";
                if self.body.is_end_stream() {
                    self.back = b"\r\n0\r\n\r\n";
                    self.state = State::Last;
                }
            }
        }
        if !self.front.is_empty() && self.front.len() + chunk.len() <= TOGETHER_MAX {
            self.front.extend_from_slice(&chunk);
            self.front.extend_from_slice(std::mem::take(&mut self.back));
        } else {
            self.chunk = chunk;
        }
        Ok(())
    }

    fn load_end(&mut self, trailers: &HeaderMap) -> Result<(), SendError> {
        self.state = State::Last;
        match &self.sent {
            Sent::Length(0) => Ok(()),
            Sent::Length(_) => Err(wrong_length()),
            Sent::Chunked(named) => {
                write_end(trailers, named, &mut self.front);
                Ok(())
            }
        }
    }
}

fn wrong_length() -> SendError {
    SendError::Body(io::Error::other("the request body is not as long as was announced"))
}
