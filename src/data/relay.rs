//! Answers that come piece by piece, such as streams of events: from the second piece or so on each goes to the client's
//! socket as it comes, framed here, and hyper is not woken for it.
//!
//! Owner: the body of the answer, which hyper holds. A task on the same thread does the work; it ends with the body.
//! Holds: there is one writer at a time. The task has the client's socket only after hyper has nothing more to write, and
//!        hyper gets nothing more of the answer before the task has written a piece to its end and given the socket back.
//!        What is not a piece (end, trailers, a break) is hyper's to tell the client. However the task ends, hyper is woken.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::gather::poll_write_shared;
use super::stream::Passing;

type Next = Option<io::Result<Frame<Bytes>>>;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Relayed {
    relay: Arc<Mutex<Relay>>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Relay {
    /// `None` when the body is gone.
    passing: Option<Box<Passing>>,
    /// The client's, for as long as the task has it.
    socket: Option<Arc<TcpStream>>,
    piece: Piece,
    /// What hyper is to be told.
    last: Option<Next>,
    hyper: Option<Waker>,
}

impl Relayed {
    /// Goes on with `passing` on the client's `socket`.
    pub(crate) fn start(passing: Box<Passing>, socket: Arc<TcpStream>) -> Self {
        let (passing, socket) = (Some(passing), Some(socket));
        let relay = Relay { passing, socket, piece: Piece::default(), last: None, hyper: None };
        let relay = Arc::new(Mutex::new(relay));
        let end = End(relay.clone());
        let task = tokio::spawn(std::future::poll_fn(move |cx| end.0.lock().poll(cx)));
        Self { relay, task: task.abort_handle() }
    }

    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut relay = self.relay.lock();
        if relay.socket.is_some() {
            if !relay.hyper.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                relay.hyper = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if let Some(last) = relay.last.take() {
            return Poll::Ready(last);
        }
        relay.passing.as_mut().map_or(Poll::Ready(None), |passing| passing.poll_frame(cx))
    }

    pub(crate) fn is_over(&self) -> bool {
        let relay = self.relay.lock();
        relay.socket.is_none() && relay.last.is_none() && relay.passing.as_ref().is_none_or(|passing| passing.is_over())
    }

    /// With what is left of the answer, if it is not gone.
    pub(crate) fn with_passing(&self, change: impl FnOnce(&mut Passing)) {
        if let Some(passing) = &mut self.relay.lock().passing {
            change(passing);
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.task.abort();
        let mut relay = self.relay.lock();
        let gone = (relay.socket.take(), relay.passing.take());
        drop(relay);
        drop(gone);
    }
}

impl Relay {
    /// Passes on piece by piece, up to what hyper is to be told.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let last = loop {
            if let Err(error) = ready!(self.poll_write(cx)) {
                break Some(Err(error));
            }
            let Some(passing) = &mut self.passing else { break None };
            match ready!(passing.poll_frame(cx)) {
                Some(Ok(frame)) if !passing.is_over() => match frame.into_data() {
                    Ok(data) => self.piece = Piece::new(data),
                    Err(trailers) => break Some(Ok(trailers)),
                },
                // With the last piece comes the end, and hyper writes both.
                last => break last,
            }
        };
        self.hand_back(last);
        Poll::Ready(())
    }

    /// Writes what there is of a piece to its end.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(socket), Some(passing)) = (&self.socket, &mut self.passing) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while !self.piece.is_out() {
            let written = poll_write_shared(socket, cx, &self.piece.left());
            passing.note_written(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.piece.sent += bytes,
            }
        }
        passing.let_out();
        self.piece = Piece::default();
        Poll::Ready(Ok(()))
    }

    fn hand_back(&mut self, last: Next) {
        self.last = Some(last);
        self.socket = None;
        self.hyper.take().into_iter().for_each(Waker::wake);
    }
}

/// The task's part. Dropped with it, however it ends.
struct End(Arc<Mutex<Relay>>);

impl Drop for End {
    fn drop(&mut self) {
        let mut relay = self.0.lock();
        if relay.socket.is_none() {
            return;
        }
        let mut passing = relay.passing.take();
        passing.iter_mut().for_each(|passing| passing.break_connection());
        relay.hand_back(Some(Err(io::Error::other("the answer was given up on its way"))));
        drop(relay);
        // Here, so that a panic is recorded as one.
        drop(passing);
    }
}

/// Digits of a size, and the end of their line.
const LINE: usize = 16 + 2;
const END_OF_LINE: &[u8] = b"\r\n";

/// A piece of the answer as a chunk (RFC 9112, section 7.1), and how much of it was sent.
#[derive(Debug, Default)]
struct Piece {
    line: [u8; LINE],
    /// Where the first digit is.
    begin: usize,
    data: Bytes,
    sent: usize,
}

impl Piece {
    /// An empty one is none: as a chunk it would be the end.
    fn new(data: Bytes) -> Self {
        let mut line = [0; LINE];
        let (digits, end) = line.split_at_mut(LINE - END_OF_LINE.len());
        end.copy_from_slice(END_OF_LINE);
        let (mut size, mut begin) = (data.len(), digits.len());
        for digit in digits.iter_mut().rev() {
            if size == 0 {
                break;
            }
            *digit = b"0123456789abcdef"[size % 16];
            (size, begin) = (size / 16, begin - 1);
        }
        Self { line, begin, data, sent: 0 }
    }

    fn is_out(&self) -> bool {
        self.data.is_empty() || self.sent >= LINE - self.begin + self.data.len() + END_OF_LINE.len()
    }

    /// What is left to be sent.
    fn left(&self) -> [IoSlice<'_>; 3] {
        let mut sent = self.sent;
        [self.line.get(self.begin..).unwrap_or_default(), &self.data, END_OF_LINE].map(|part| {
            let skipped = sent.min(part.len());
            sent -= skipped;
            IoSlice::new(part.get(skipped..).unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_before_its_answer_breaks_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let relay = Relay { passing: None, socket: Some(socket), piece: Piece::default(), last: None, hyper: None };
        let relay = Arc::new(Mutex::new(relay));
        let end = End(relay.clone());
        let task = tokio::spawn(async move {
            // It begins when it is waited for.
            while end.0.lock().hyper.is_none() {
                tokio::task::yield_now().await;
            }
            panic!("a bug");
        });
        let relayed = Relayed { relay, task: task.abort_handle() };
        let next = poll_fn(|cx| relayed.poll_frame(cx)).await;
        assert!(matches!(next, Some(Err(_))), "{next:?}");
        assert!(poll_fn(|cx| relayed.poll_frame(cx)).await.is_none());
        assert!(task.await.unwrap_err().is_panic());
    }

    #[test]
    fn a_piece_is_one_chunk_however_it_is_sent() {
        for size in [1, 9, 15, 16, 17, 255, 4096] {
            let data = Bytes::from(vec![b'x'; size]);
            let whole = [format!("{size:x}\r\n").as_bytes(), &data, b"\r\n"].concat();
            for step in [1, 2, 3, 7, 4095, whole.len()] {
                let mut piece = Piece::new(data.clone());
                let mut out = Vec::new();
                while !piece.is_out() {
                    let left: Vec<u8> = piece.left().iter().flat_map(|part| part.to_vec()).collect();
                    let part = &left[..step.min(left.len())];
                    out.extend_from_slice(part);
                    piece.sent += part.len();
                }
                assert_eq!(out, whole, "{size} in steps of {step}");
            }
        }
        assert!(Piece::new(Bytes::new()).is_out() && Piece::default().is_out());
    }
}
