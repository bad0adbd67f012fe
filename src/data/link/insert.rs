//! Lines of an answer's head that hyper does not know, and the socket puts into what hyper writes.
//!
//! hyper says the status, how the body is framed, the date, and whether the connection ends: what it has to know to keep the
//! connection in order. All else that a replica says is lines already ([`crate::data::upstream`]), and goes out behind
//! the first line of that.
//!
//! Owner: the client's connection, on one thread: the answer hands them over, the socket takes them with the next bytes
//! that hyper writes.
//! Holds: those bytes begin with the head of that answer. So lines are taken only where all bytes before it are out; hyper
//! flushes only when it holds none (`pipeline_flush` is off), and writes the head in the turn in which it gets the answer.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};

use parking_lot::Mutex;

use crate::data::upstream::Text;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Insert {
    /// Whether every answer so far is out, so that what is written next begins an answer.
    is_clean: AtomicBool,
    has_lines: AtomicBool,
    lines: Mutex<Option<Lines>>,
}

impl Default for Insert {
    fn default() -> Self {
        Self { is_clean: AtomicBool::new(true), has_lines: AtomicBool::new(false), lines: Mutex::new(None) }
    }
}

#[derive(Debug)]
struct Lines {
    text: Text,
    sent: usize,
    /// How much of hyper's goes before them; `None` as long as nothing went.
    before: Option<usize>,
}

impl Insert {
    /// Something was written, or all of it is out and no other answer is under way.
    pub(crate) fn set_clean(&self, is_clean: bool) {
        self.is_clean.store(is_clean, Ordering::Relaxed);
    }

    /// Whether what is written next begins an answer.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean.load(Ordering::Relaxed)
    }

    /// The next bytes that hyper writes are the head of an answer that these belong to.
    pub(crate) fn put(&self, text: Text) {
        debug_assert!(self.is_clean() && !self.has_lines());
        let earlier = self.lines.lock().replace(Lines { text, sent: 0, before: None });
        drop(earlier);
        self.has_lines.store(true, Ordering::Relaxed);
    }

    /// The answer that they were put for does not go out, another one does in its place. If something was written since,
    /// they are of an answer before it, and stay.
    pub(crate) fn take_back(&self) {
        if self.is_clean() {
            self.has_lines.store(false, Ordering::Relaxed);
            let lines = self.lines.lock().take();
            drop(lines);
        }
    }

    /// Whether there are some that are not out.
    pub(crate) fn has_lines(&self) -> bool {
        self.has_lines.load(Ordering::Relaxed)
    }

    /// Writes them with the bytes that hyper writes, `bufs`, of which there are some. Says how much of those was taken.
    pub(crate) fn poll_write(
        &self,
        bufs: &[IoSlice<'_>],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut slot = self.lines.lock();
        let Some(lines) = &mut *slot else { return write(bufs) };
        let taken = ready!(lines.poll_write(bufs, &mut write));
        if lines.left().is_empty() {
            *slot = None;
            self.has_lines.store(false, Ordering::Relaxed);
        }
        Poll::Ready(taken)
    }
}

/// As many pieces as are written at a time: a head takes three of them, and so does each chunk behind it.
const PIECES: usize = 32;

impl Lines {
    fn left(&self) -> &[u8] {
        self.text.bytes().get(self.sent..).unwrap_or_default()
    }

    fn poll_write(
        &mut self,
        bufs: &[IoSlice<'_>],
        write: &mut impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some((first, others)) = bufs.split_first() else { return write(bufs) };
        if self.before.is_none() && !first.starts_with(b"HTTP/1.") {
            // Not even then may they be put into something else.
            return Poll::Ready(Err(io::Error::other("lines of a head, and none that they belong to")));
        }
        loop {
            let before = self.before.unwrap_or_else(|| first_line(first));
            let (status, rest) = first.split_at_checked(before).unwrap_or((first, &[]));
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let own = [status, self.left(), rest].map(IoSlice::new);
            let mut count = 0;
            for (place, piece) in pieces.iter_mut().zip(own.iter().chain(others)) {
                *place = *piece;
                count += 1;
            }
            let n = ready!(write(pieces.get(..count).unwrap_or_default()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_status = n.min(status.len());
            let of_lines = (n - of_status).min(self.left().len());
            self.before = Some(before - of_status);
            self.sent += of_lines;
            // It must not be told of nothing: to hyper that is the end.
            if n > of_lines {
                return Poll::Ready(Ok(n - of_lines));
            }
        }
    }
}

/// How long the first line is.
fn first_line(head: &[u8]) -> usize {
    head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYPERS: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", b"bo", b"", b"dy", b"!!"];
    const LINES: &[u8] = b"x-a: b\r\n";
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 6\r\n\r\nbody!!";

    /// What a client gets that takes `step` bytes at a time, and now and then nothing; hyper goes on where it was told.
    fn written(step: usize, text: Text, hypers: &[&[u8]]) -> Vec<u8> {
        let insert = Insert::default();
        insert.put(text);
        let (mut out, mut left, mut turn) = (Vec::new(), hypers.concat(), 0);
        while !left.is_empty() {
            // Where it was in the first piece it still is.
            let first = left.len().saturating_sub(hypers[1..].concat().len());
            let (first, others) = left.split_at(first);
            let bufs: Vec<IoSlice<'_>> =
                [first].into_iter().chain(others.chunks(2)).filter(|buf| !buf.is_empty()).map(IoSlice::new).collect();
            let taken = insert.poll_write(&bufs, |pieces| {
                turn += 1;
                if turn % 3 == 0 {
                    return Poll::Pending;
                }
                let all = pieces.iter().flat_map(|piece| piece.iter().copied());
                let before = out.len();
                out.extend(all.take(step));
                Poll::Ready(Ok(out.len() - before))
            });
            match taken {
                Poll::Ready(taken) => drop(left.drain(..taken.unwrap())),
                Poll::Pending => {}
            }
        }
        assert!(!insert.has_lines());
        out
    }

    fn lines() -> Text {
        let mut text = Text::default();
        text.add(&http::HeaderName::from_static("x-a"), b"b");
        assert_eq!(text.bytes(), LINES);
        text
    }

    fn length(pieces: &[IoSlice<'_>]) -> usize {
        pieces.iter().map(|piece| piece.len()).sum()
    }

    #[test]
    fn lines_go_behind_the_first_line_whatever_is_taken_at_a_time() {
        for step in 1..=WHOLE.len() {
            assert_eq!(written(step, lines(), HYPERS).escape_ascii().to_string(), WHOLE.escape_ascii().to_string());
        }
        assert_eq!(written(7, Text::default(), HYPERS), HYPERS.concat());
    }

    #[test]
    fn what_takes_nothing_is_an_error_and_so_is_what_is_no_head() {
        let insert = Insert::default();
        insert.put(lines());
        let taken = insert.poll_write(&[IoSlice::new(HYPERS[0])], |_| Poll::Ready(Ok(0)));
        assert!(matches!(taken, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero));
        let taken = insert.poll_write(&[IoSlice::new(b"body\r\n")], |_| panic!("it must not be written"));
        assert!(matches!(taken, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Other));
        insert.set_clean(false);
        insert.take_back();
        assert!(insert.has_lines(), "they are of an answer that has begun");
        insert.set_clean(true);
        insert.take_back();
        let taken = insert.poll_write(&[IoSlice::new(b"body\r\n")], |pieces| Poll::Ready(Ok(length(pieces))));
        assert!(matches!(taken, Poll::Ready(Ok(6))));
    }

    #[test]
    fn a_head_and_some_chunks_are_one_write() {
        let insert = Insert::default();
        insert.put(lines());
        let bufs = [HYPERS[0]].into_iter().chain([&b"c"[..]; 28]).map(IoSlice::new).collect::<Vec<_>>();
        let taken = insert.poll_write(&bufs, |pieces| {
            assert_eq!(length(pieces), HYPERS[0].len() + LINES.len() + 28);
            Poll::Ready(Ok(length(pieces)))
        });
        assert!(matches!(taken, Poll::Ready(Ok(taken)) if taken == HYPERS[0].len() + 28));
    }
}
