//! A client's bytes on their way in. Once they are HTTP/2, floods of frames that move nothing end the connection.
//!
//! Answers to a PING are noted on the way, for the goodbye.
//!
//! Owner: the socket. What counts and what does not is in [`crate::core::frames`]; what was moved, the exchanges and
//! their answers tell by way of the [`Link`].
//! Holds: a client that sends more than `max-idle-frames` and what was allowed is not read from any more, and told
//!        nothing: who floods a connection does not wait for an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use super::tls::Transport;
use crate::core::frames::Frames;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Watched {
    transport: Transport,
    /// Of a connection that speaks HTTP/2.
    flood: Option<Box<Flood>>,
}

#[derive(Debug)]
struct Flood {
    frames: Frames,
    link: Arc<Link>,
}

impl Watched {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, flood: None }
    }

    /// The bytes are HTTP/2; `so_far` has been read of them.
    pub(crate) fn expect_frames(&mut self, link: Arc<Link>, so_far: &[u8]) {
        let mut frames = Frames::new(link.worker.limits().idle_frames_max);
        // A buffer of HTTP/1 is too small for a flood; the next frame would end it all the same.
        let _ = frames.read(so_far);
        self.flood = Some(Box::new(Flood { frames, link }));
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    pub(crate) fn into_transport(self) -> Transport {
        self.transport
    }
}

impl Flood {
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.allow(self.link.take_allowed());
        let taken = self.frames.read(bytes);
        if self.frames.take_pong() {
            self.link.note_pong();
        }
        if taken {
            return Ok(());
        }
        self.link.set_flooded();
        tracing::info!(
            target: "scorefront::connection",
            client = %self.link.peer,
            "ended a connection with more HTTP/2 frames that move nothing than max-idle-frames"
        );
        Err(io::Error::other("more HTTP/2 frames that move nothing than max-idle-frames"))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(flood) = &mut this.flood else { return Pin::new(&mut this.transport).poll_read(cx, buf) };
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
        Poll::Ready(flood.check(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, bufs)
    }
}
