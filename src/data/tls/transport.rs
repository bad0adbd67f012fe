//! A client's socket, with TLS or without. Without, it is nothing but the socket, which an answer may borrow.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::data::gather::{poll_write_all_of, poll_write_last_of, poll_write_shared};

/// See the head of the file.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Bytes as they are.
    Plain(TcpStream),
    /// The same, while an answer has it too.
    Lent(Arc<TcpStream>),
    /// In a box, because it is some twenty times as large.
    Tls(Box<TlsStream<TcpStream>>),
    /// None, for as long as it takes to make one of these from another.
    Nothing,
}

impl Transport {
    /// The socket itself.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Lent(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Nothing => None,
        }
    }

    /// The socket, where bytes on it are the client's own.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Lent(socket) => Some(socket),
            Self::Tls(_) | Self::Nothing => None,
        }
    }

    /// The socket, for somebody else to write to as well: not where bytes on it are those of TLS.
    pub(crate) fn lend(&mut self) -> Option<Arc<TcpStream>> {
        if let Self::Plain(_) = self
            && let Self::Plain(socket) = std::mem::replace(self, Self::Nothing)
        {
            *self = Self::Lent(Arc::new(socket));
        }
        if let Self::Lent(socket) = self { Some(socket.clone()) } else { None }
    }

    /// Whether somebody else has it too. If not any more, it is as before.
    pub(crate) fn is_lent(&mut self) -> bool {
        if let Self::Lent(_) = self
            && let Self::Lent(socket) = std::mem::replace(self, Self::Nothing)
        {
            *self = Arc::try_unwrap(socket).map_or_else(Self::Lent, Self::Plain);
        }
        matches!(self, Self::Lent(_))
    }

    /// Writes the end of the last answer: see [`poll_write_last_of`].
    pub(crate) fn poll_write_last(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.is_lent();
        match self {
            Self::Plain(socket) => poll_write_last_of(Pin::new(socket), cx, bufs),
            // What TLS has to say at the end is another write.
            _ => Pin::new(self).poll_write_vectored(cx, bufs),
        }
    }

    /// Nothing but the socket, if nobody else has it.
    pub(crate) fn into_socket(mut self) -> Option<TcpStream> {
        self.is_lent();
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.into_inner().0),
            Self::Lent(_) | Self::Nothing => None,
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Lent(socket) => loop {
                ready!(socket.poll_read_ready(cx))?;
                match socket.try_read_buf(buf) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read.map(|_| ())),
                }
            },
            Self::Nothing => gone(),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, buf) {
                // Gone without a goodbye (close_notify), as many clients go. Whether something is missing is for HTTP
                // to say, as it does without TLS.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => read,
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Lent(socket) => poll_write_shared(socket, cx, &[IoSlice::new(buf)]),
            Self::Nothing => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            // A socket keeps nothing back.
            Self::Lent(_) => Poll::Ready(Ok(())),
            Self::Nothing => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Lent(socket) => Poll::Ready(socket2::SockRef::from(&**socket).shutdown(Shutdown::Write)),
            Self::Nothing => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(_) | Self::Lent(_) | Self::Nothing => true,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => poll_write_all_of(Pin::new(socket), cx, bufs),
            Self::Lent(socket) => poll_write_shared(socket, cx, bufs),
            Self::Nothing => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
