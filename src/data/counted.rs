//! A byte stream that counts what is read from it, and never reads much at once. It gives way before it shuts down: what
//! the last bytes read have set going (the client's answer) is done first, for a shutdown costs system calls and wakes
//! the other side.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    io: T,
    read: Arc<AtomicU64>,
    has_yielded: bool,
}

/// The most that one read takes. hyper doubles its buffer, up to 400 KiB, for as long as reads fill it, and a client that
/// does not read its answer makes several such pieces wait for it. One byte less than a power of two never fills the
/// buffer of that size, so it stays there.
const READ_MAX: usize = (32 << 10) - 1;

impl<T> Counted<T> {
    /// Counts in bytes, from here on.
    pub(crate) fn new(io: T, read: Arc<AtomicU64>) -> Self {
        Self { io, read, has_yielded: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.remaining() <= READ_MAX {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(READ_MAX));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            let length = part.filled().len();
            buf.advance(length);
        }
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills whatever it is given.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.initialize_unfilled().fill(b'x');
            buf.advance(buf.remaining());
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_read_takes_what_there_is_room_for_up_to_a_limit_and_counts_it() {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted::new(Endless, read.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        for (room, taken) in [(1, 1), (READ_MAX, READ_MAX), (READ_MAX + 1, READ_MAX), (1 << 20, READ_MAX)] {
            let mut bytes = vec![0; room + 1];
            let mut buf = ReadBuf::new(&mut bytes);
            buf.put_slice(b"-");
            let before = read.load(Ordering::Relaxed);
            assert!(Pin::new(&mut counted).poll_read(&mut context, &mut buf).is_ready());
            assert_eq!(buf.filled().len(), 1 + taken, "of {room}");
            assert!(buf.filled()[1..].iter().all(|byte| *byte == b'x'));
            assert_eq!(read.load(Ordering::Relaxed) - before, taken as u64);
        }
    }
}
