//! Answers that come piece by piece, such as streams of events: from the third piece on each goes to the client's socket as
//! it comes, framed here, and hyper is not woken for it. Pieces that come together go out together.
//!
//! Owner: the body of the answer, which hyper holds. A task on the same thread does the work; it ends with the body.
//! Holds: there is one writer at a time. The task has the client's socket only after hyper has nothing more to write, and
//!        hyper gets nothing more of the answer before the task has written a piece to its end and given the socket back.
//!        What is not a piece (end, trailers, a break) is hyper's to tell the client. However the task ends, hyper is woken.

use std::cell::Cell;
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

/// In this order, and with what is not there by itself: between two events of a stream a processor forgets it all, and what
/// costs most of an event here is how many lines of memory it needs. The first is all of these.
#[derive(Debug)]
#[repr(C)]
struct Relay {
    /// `None` when the body is gone.
    passing: Option<Box<Passing>>,
    /// The client's, for as long as the task has it.
    socket: Option<Arc<TcpStream>>,
    /// Pieces that are still to be written.
    left: Option<Box<Out>>,
    is_counted: bool,
    /// Whether the connection need not be told of writes, as long as they go out at once.
    is_prompt: bool,
    /// What hyper is to be told when they are.
    last: Option<Next>,
    hyper: Option<Waker>,
}

thread_local! {
    /// Where pieces are put together, in the caches of the processor whichever stream they are of.
    static OUT: Cell<Option<Box<Out>>> = const { Cell::new(None) };
}

impl Relayed {
    /// Goes on with `passing` on the client's `socket`.
    pub(crate) fn start(passing: Box<Passing>, socket: Arc<TcpStream>) -> Self {
        let relay = Arc::new(Mutex::new(Relay::new(Some(passing), socket)));
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
    fn new(passing: Option<Box<Passing>>, socket: Arc<TcpStream>) -> Self {
        let socket = Some(socket);
        Self { passing, socket, left: None, is_counted: false, is_prompt: false, last: None, hyper: None }
    }

    /// Passes on piece by piece, up to what hyper is to be told.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Without pieces that are left, hyper has been told all there was.
        let is_last = self.left.is_some() && self.last.is_some();
        let mut out = self.left.take().or_else(|| OUT.take()).unwrap_or_default();
        let polled = self.poll_with(&mut out, is_last, cx);
        if polled.is_ready() {
            out.clear();
        }
        if out.is_empty() {
            OUT.set(Some(out));
        } else {
            self.left = Some(out);
        }
        polled
    }

    fn poll_with(&mut self, out: &mut Out, mut is_last: bool, cx: &mut Context<'_>) -> Poll<()> {
        let (mut waits, mut turn) = (false, TURN);
        loop {
            match ready!(self.poll_write(out, cx)) {
                Ok(written) => turn = turn.saturating_sub(written),
                Err(error) => (self.last, is_last) = (Some(Some(Err(error))), true),
            }
            if is_last {
                self.hand_back();
                return Poll::Ready(());
            }
            if waits {
                return Poll::Pending;
            }
            if turn == 0 {
                // Now it is another connection's turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.poll_fill(out, cx) {
                Poll::Ready(filled) => is_last = filled,
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => waits = true,
            }
        }
    }

    /// Takes the next pieces, all that came together if they are small, or else what hyper is to be told. Says whether it
    /// has that.
    fn poll_fill(&mut self, out: &mut Out, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(passing) = &mut self.passing else {
            self.last = Some(None);
            return Poll::Ready(true);
        };
        loop {
            let last = match ready!(passing.poll_next(cx)) {
                Some(Ok(frame)) if !passing.is_over() => match frame.into_data() {
                    Ok(data) => {
                        out.push(data);
                        if out.is_full() || !passing.has_more() {
                            return Poll::Ready(false);
                        }
                        continue;
                    }
                    Err(trailers) => Some(Ok(trailers)),
                },
                // With the last piece comes the end, and hyper writes both.
                last => last,
            };
            self.last = Some(last);
            return Poll::Ready(true);
        }
    }

    /// Writes what there is to its end. Says how much that took of a turn.
    fn poll_write(&mut self, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (Some(socket), Some(passing)) = (&self.socket, &self.passing) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if !std::mem::replace(&mut self.is_counted, true) {
            passing.count_relayed();
        }
        while !out.is_empty() {
            let written = out.poll_write(socket, cx);
            if !self.is_prompt || written.is_pending() {
                self.is_prompt = !passing.note_written(&written);
            }
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => out.sent(bytes),
            }
        }
        Poll::Ready(Ok(out.clear()))
    }

    fn hand_back(&mut self) {
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
        relay.last = Some(Some(Err(io::Error::other("the answer was given up on its way"))));
        relay.hand_back();
        drop(relay);
        // Here, so that a panic is recorded as one.
        drop(passing);
    }
}

/// Up to here pieces are copied together.
const SMALL: usize = 4 << 10;

/// Bytes after which it is another connection's turn, where each write counts as many as [`SMALL`] at least.
const TURN: usize = 64 << 10;

const END_OF_LINE: &[u8] = b"\r\n";

/// Pieces of an answer as chunks (RFC 9112, section 7.1): some small ones, or small ones with a large one behind them.
#[derive(Debug, Default)]
struct Out {
    /// The small ones with all that frames them, and the size of the large one.
    front: Vec<u8>,
    large: Bytes,
    sent: usize,
}

impl Out {
    /// Another piece, if it is not full. An empty one is none: as a chunk it would be the end.
    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        push_size(&mut self.front, data.len());
        if data.len() > SMALL {
            self.large = data;
        } else {
            self.front.extend_from_slice(&data);
            self.front.extend_from_slice(END_OF_LINE);
        }
    }

    /// Whether it is to be written before another piece comes.
    fn is_full(&self) -> bool {
        self.front.len() > SMALL || !self.large.is_empty()
    }

    fn length(&self) -> usize {
        let large = if self.large.is_empty() { 0 } else { self.large.len() + END_OF_LINE.len() };
        self.front.len() + large
    }

    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool {
        self.sent >= self.length()
    }

    /// What is to be written.
    fn left(&self) -> [&[u8]; 3] {
        let end = if self.large.is_empty() { &[] } else { END_OF_LINE };
        let mut sent = self.sent;
        [&self.front, &*self.large, end].map(|part| {
            let skipped = sent.min(part.len());
            sent -= skipped;
            part.get(skipped..).unwrap_or_default()
        })
    }

    fn poll_write(&self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.left();
        match left {
            [front, [], []] => poll_write_shared(socket, cx, &[IoSlice::new(front)]),
            _ => poll_write_shared(socket, cx, &left.map(IoSlice::new)),
        }
    }

    fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Everything is written. Says what it was of a turn.
    fn clear(&mut self) -> usize {
        let length = self.length();
        self.front.clear();
        (self.large, self.sent) = (Bytes::new(), 0);
        length.max(SMALL)
    }
}

/// The size of a chunk, and the end of its line.
fn push_size(to: &mut Vec<u8>, mut size: usize) {
    let mut digits = [0; 16];
    let mut begin = digits.len();
    while size > 0 {
        begin -= 1;
        digits[begin] = b"0123456789abcdef"[size % 16];
        size /= 16;
    }
    to.extend_from_slice(&digits[begin..]);
    to.extend_from_slice(END_OF_LINE);
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
        let relay = Arc::new(Mutex::new(Relay::new(None, socket)));
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
    fn pieces_are_chunks_in_their_order_however_they_are_sent() {
        for sizes in [&[1][..], &[9, 15, 16], &[17, 0, 255], &[4096, 1], &[4097], &[3, 70_000]] {
            let pieces: Vec<Bytes> =
                sizes.iter().zip(b'a'..).map(|(&size, byte)| Bytes::from(vec![byte; size])).collect();
            let chunk = |piece: &Bytes| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            let whole: Vec<u8> = pieces.iter().filter(|piece| !piece.is_empty()).flat_map(chunk).collect();
            for step in [1, 2, 3, 7, 4095, whole.len()].into_iter().filter(|&step| whole.len() / step < 5000) {
                let (mut out, mut sent) = (Out::default(), Vec::new());
                pieces.iter().cloned().for_each(|piece| out.push(piece));
                while !out.is_empty() {
                    let left = out.left().concat();
                    let part = &left[..step.min(left.len())];
                    sent.extend_from_slice(part);
                    out.sent(part.len());
                }
                assert!(sent == whole, "{sizes:?} in steps of {step}");
                assert_eq!(out.clear(), whole.len().max(SMALL));
                assert!(out.is_empty() && !out.is_full() && out.front.capacity() <= 3 * SMALL);
            }
        }
    }
}
