//! The socket of a connection to a replica, with TLS or without. Without, it is nothing but the socket.
//!
//! Holds: with TLS, an end without a goodbye (`close_notify`) is an error and never a clean end: whoever is on the way
//! could have cut the connection, and an answer without a length would look whole. Our own goodbye is said when the
//! socket is dropped, if there is room for it then.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::data::gather::poll_write_all_of;

/// See the head of the file.
#[derive(Debug)]
pub(crate) enum ReplicaSocket {
    /// Bytes as they are.
    Plain(TcpStream),
    /// With TLS.
    Tls(TlsSocket),
}

/// In a box, because it is some twenty times as large as a socket.
#[derive(Debug)]
pub(crate) struct TlsSocket(Box<TlsStream<TcpStream>>);

impl Drop for TlsSocket {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut *self.0).poll_shutdown(&mut cx);
    }
}

impl ReplicaSocket {
    /// After the handshake.
    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(TlsSocket(Box::new(stream)))
    }

    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(TlsSocket(stream)) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for ReplicaSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(TlsSocket(stream)) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ReplicaSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(TlsSocket(stream)) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(TlsSocket(stream)) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// The goodbye is said if there is room for it: a replica that reads nothing more must not keep the socket.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(TlsSocket(stream)) => match Pin::new(&mut **stream).poll_shutdown(cx) {
                Poll::Pending => Pin::new(stream.get_mut().0).poll_shutdown(cx),
                done => done,
            },
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(TlsSocket(stream)) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => poll_write_all_of(Pin::new(socket), cx, bufs),
            Self::Tls(TlsSocket(stream)) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
