//! The client's socket as hyper sees it, with what hyper does not tell: whether the connection idles, is in the middle
//! of a head, or cannot be written to.
//!
//! It also puts a body under the bare answers that hyper gives by itself when a request cannot be read, so that a
//! client that sent too large a head learns which setting stood in its way; where hyper writes what stands in for
//! bytes in a pipe, it lets those out instead ([`super::splice`]); it puts what hyper does not know of a head behind its
//! first line ([`super::link`]); and it looks whether a client that waits for its answer is still there. hyper would do that
//! by reading on, into another buffer for each request.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::unconstrained;

use super::linger::read_over;
use super::link::Link;
use super::respond;
use super::splice::is_stand_in;
use super::tls::Transport;
use super::watched::Watched;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Socket {
    io: TokioIo<Watched>,
    link: Arc<Link>,
    /// Read before anything else: what another protocol had read too much.
    pushback: Bytes,
    substitute: Option<Substitute>,
    /// Whether the client sent more while it waits for an answer: then its end is not seen before that is read.
    sent_more: bool,
}

/// An answer of hyper's that is being replaced.
#[derive(Debug)]
struct Substitute {
    ours: Bytes,
    /// How much of hyper's is declared written once ours is.
    theirs: usize,
}

impl Socket {
    pub(crate) fn new(transport: Transport, link: Arc<Link>) -> Self {
        let io = TokioIo::new(Watched::new(transport));
        Self { io, link, pushback: Bytes::new(), substitute: None, sent_more: false }
    }

    /// The same socket, on which `bytes` are still to be read first.
    pub(crate) fn push_back(mut self, bytes: Bytes) -> Self {
        // Also of nothing the buffer would be kept.
        self.pushback = if bytes.is_empty() { Bytes::new() } else { bytes };
        self
    }

    /// Ends when there is something to read, the end included.
    pub(crate) async fn readable(&self) {
        if self.pushback.is_empty()
            && let Some(socket) = self.io.inner().transport().socket()
        {
            // What is wrong with the socket, if anything, reading tells.
            let _ = socket.readable().await;
        }
    }

    /// The same socket, from whose first byte on everything is HTTP/2.
    pub(crate) fn expect_frames(mut self) -> Self {
        self.io.inner_mut().expect_frames(self.link.clone(), &self.pushback);
        self
    }

    /// Makes the coming close a reset, so that nobody takes a truncated answer for a whole one.
    pub(crate) fn reset_on_close(&self) {
        if let Some(socket) = self.io.inner().transport().socket() {
            // Best effort: where the option cannot be set, the missing end of the body still tells.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Says that nothing more will come, then reads over what the client still sends: a socket that is closed with bytes
    /// unread resets the connection.
    pub(crate) async fn linger(mut self) {
        let patience = self.link.worker.limits().goodbye_timeout;
        let goodbye = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        let _ = tokio::time::timeout(patience, goodbye).await;
        // With TLS too it is bytes that are thrown away: what they mean does not matter.
        let Some(mut socket) = self.io.into_inner().into_transport().into_socket() else { return };
        let mut waste = vec![0; 16 << 10];
        read_over(&self.link.worker, |cx| {
            let mut waste = ReadBuf::new(&mut waste);
            let read = Pin::new(&mut socket).poll_read(cx, &mut waste);
            read.map(|read| read.is_ok() && !waste.filled().is_empty())
        })
        .await;
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| Pin::new(&mut self.io).poll_write(cx, bytes)).await?;
            bytes = bytes.get(n..).filter(|_| n > 0).ok_or(io::ErrorKind::WriteZero)?;
        }
        poll_fn(|cx| Pin::new(&mut self.io).poll_flush(cx)).await
    }

    fn poll_substitute(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let Some(substitute) = &mut self.substitute else { return Poll::Ready(Ok(0)) };
            if substitute.ours.is_empty() {
                let written = substitute.theirs;
                self.substitute = None;
                return Poll::Ready(Ok(written));
            }
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &substitute.ours))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            substitute.ours.advance(n);
        }
    }

    /// Whether what is written next begins an answer, and there is no exchange that it could be the answer of.
    pub(crate) fn is_between_answers(&self) -> bool {
        self.link.insert.is_clean() && !self.link.is_busy() && !self.link.is_http2()
    }

    /// Whether hyper writes a refusal of its own, and what stands in for it. Never looks at what an exchange writes:
    /// those are a model's bytes, whatever they look like.
    fn substitute_for(&self, bytes: &[u8], theirs: usize) -> Option<Substitute> {
        // It has the version of the request before, if there was one.
        let is_refusal = bytes.starts_with(b"HTTP/1.1 4") || bytes.starts_with(b"HTTP/1.0 4");
        if !self.is_between_answers() || !is_refusal || contains(bytes, b"x-request-id") {
            return None;
        }
        let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        let ours = respond::unreadable(status, self.link.fault_id, self.link.worker.limits())?;
        Some(Substitute { ours, theirs })
    }

    /// Lets out what these bytes stand in for.
    fn poll_drain(&self, cx: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        let (Some(passage), Transport::Plain(socket)) = (self.link.passage(), self.io.inner().transport()) else {
            return Poll::Ready(Err(io::Error::other("bytes that stand in for others, and no way past the router")));
        };
        passage.poll_drain(&self.link.worker.pipes, socket, stand_in.len(), cx)
    }

    /// Writes these, and what belongs between them.
    fn poll_write_pieces(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { io, link, .. } = self;
        let mut taken = 0;
        let mut write = |pieces: &[IoSlice<'_>]| {
            let written = match link.writes_last() {
                true => io.inner_mut().transport_mut().poll_write_last(cx, pieces),
                false => Pin::new(&mut *io).poll_write_vectored(cx, pieces),
            };
            taken += bytes_of(&written);
            written
        };
        if !link.insert.has_lines() {
            return write(bufs);
        }
        let written = link.insert.poll_write(bufs, write);
        let of_lines = taken - bytes_of(&written);
        if of_lines > 0 {
            // A client that takes lines takes something, though hyper is not told.
            link.note(&Poll::Ready(Ok(())), of_lines);
        }
        written
    }

    /// Whether there is something of the client that nobody has read, so that closing would be a reset.
    pub(crate) fn is_unread(&self) -> bool {
        if self.sent_more || self.link.is_unread() {
            return true;
        }
        let Some(socket) = self.io.inner().transport().plain() else { return false };
        let mut byte = [0];
        let look = poll_fn(|cx| socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)));
        // A task that has done much in its turn would see nothing.
        let looked = pin!(unconstrained(look)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(looked, Poll::Ready(Ok(1..)))
    }

    /// Fails when a client is gone that waits for an answer; otherwise the connection is woken when it goes.
    fn check_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.sent_more || !self.link.is_waited_for() {
            return Ok(());
        }
        let Some(socket) = self.io.inner().transport().plain() else { return Ok(()) };
        let mut byte = [0];
        match socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(_)) => {
                self.sent_more = true;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(()),
        }
    }

    /// Takes note of a write. Where the client takes nothing more, hyper does not flush: so here too it may be seen to leave.
    fn noted(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.link.insert.set_clean(false);
        self.link.note(&written, bytes_of(&written));
        if written.is_pending() {
            self.check_client(cx)?;
        }
        written
    }
}

/// How many bytes a write took.
fn bytes_of(written: &Poll<io::Result<usize>>) -> usize {
    if let Poll::Ready(Ok(bytes)) = written { *bytes } else { 0 }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pushback.is_empty() {
            let n = this.pushback.len().min(buf.remaining());
            buf.put_slice(&this.pushback.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        this.sent_more = false;
        this.link.read();
        Poll::Ready(read)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.substitute.is_none() {
            this.substitute = this.substitute_for(buf, buf.len());
        }
        let written = match this.substitute {
            Some(_) => this.poll_substitute(cx),
            None if is_stand_in(buf) => this.poll_drain(cx, buf),
            None if this.link.insert.has_lines() => this.poll_write_pieces(cx, &[IoSlice::new(buf)]),
            None => Pin::new(&mut this.io).poll_write(cx, buf),
        };
        this.noted(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.io.inner_mut().transport_mut().is_lent() {
            // What there is to write, and to note of it, is the answer's that has it.
            return Poll::Ready(this.check_client(cx));
        }
        // With TLS, what was written may still be waiting for the client.
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.link.note(&flushed, 0);
        let flushed = ready!(flushed);
        this.link.settle();
        if !this.link.is_busy() {
            this.link.insert.set_clean(true);
        }
        if this.link.loan.is_asked()
            && let Some(socket) = this.io.inner_mut().transport_mut().lend()
        {
            this.link.loan.grant(socket);
        }
        Poll::Ready(flushed.and_then(|()| this.check_client(cx)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.link.note(&shut, 0);
        shut
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What goes before bytes that are elsewhere goes out before them.
        let own = bufs.iter().position(|buf| is_stand_in(buf)).filter(|&own| own > 0);
        let bufs = own.and_then(|own| bufs.get(..own)).unwrap_or(bufs);
        if this.substitute.is_none()
            && let Some(first) = bufs.first()
        {
            this.substitute = this.substitute_for(first, bufs.iter().map(|buf| buf.len()).sum());
        }
        let written = match this.substitute {
            Some(_) => this.poll_substitute(cx),
            None if let Some(buf) = bufs.first().filter(|buf| is_stand_in(buf)) => this.poll_drain(cx, buf),
            None => this.poll_write_pieces(cx, bufs),
        };
        this.noted(written, cx)
    }
}

#[cfg(test)]
#[path = "socket/tests.rs"]
mod tests;
