//! A connection to a replica, and the client side of HTTP/1 on it.
//!
//! Owner: whoever uses it: the exchange, then the body of its answer, and between two of them the pool. There is no task
//! behind it: what comes is read when its owner asks, so a parked connection is looked at before it is used.
//! Holds: one request at a time. A parked connection holds no memory but its socket's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::unconstrained;

use super::replica_tls::{ReplicaSocket, shake_hands};
use super::vanished::Silence;
use super::worker::Worker;
use crate::core::replica_tls::{ReplicaTls, Wire};

pub(crate) use self::answer::ReplicaBody;
pub(crate) use self::call::{Answered, Broken, Call, Cause};
pub(crate) use self::encode::RequestHead;
pub(crate) use self::head::{HeadFlaw, Headers};
pub(crate) use self::text::Text;

mod answer;
mod call;
pub(crate) mod decode;
mod encode;
pub(crate) mod head;
mod sending;
mod text;

/// Reads up to this size go through a buffer of the thread, and what came is copied into memory of about its size: most
/// answers are small, and nobody who waits for one holds a buffer.
const SMALL: usize = 16 << 10;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; SMALL]);
    /// Where small pieces of streams are. Of the thread too: each is mostly sent on before the next comes, of whichever
    /// stream, so that they all have the same memory, and it is still in the caches of the processor.
    static ROOM: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// See the head of the file. Always in a box, which costs an allocation for a connection: it changes hands several times
/// for each request. What a read needs is together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Upstream {
    silence: Silence,
    socket: ReplicaSocket,
    pub(crate) address: SocketAddr,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
    /// By which rules it speaks TLS, if it does.
    tls: Option<Arc<ReplicaTls>>,
    is_nodelay: bool,
}

impl Upstream {
    /// A connection on a socket that is open. What is sent may stay unacknowledged for `unacknowledged_max`.
    pub(crate) fn new(
        socket: ReplicaSocket,
        address: SocketAddr,
        tls: Option<Arc<ReplicaTls>>,
        unacknowledged_max: Duration,
    ) -> Box<Self> {
        let silence = Silence::new(unacknowledged_max);
        Box::new(Self { socket, address, reused: false, tls, is_nodelay: false, silence })
    }

    /// Opens one, with TLS where the rules are so.
    pub(crate) async fn connect(worker: &Worker, address: SocketAddr, wire: &Wire) -> io::Result<Box<Self>> {
        if let Wire::Closed(why) = wire {
            return Err(io::Error::other(&**why));
        }
        let socket = connect(address).await?;
        let unacknowledged_max = worker.limits().upstream_unacknowledged;
        let Some(tls) = wire.tls() else {
            return Ok(Self::new(ReplicaSocket::Plain(socket), address, None, unacknowledged_max));
        };
        // The end of the handshake is a small write, and the request is another.
        socket.set_nodelay(true)?;
        // In a box: without TLS, the request carries nothing of it.
        let shaken = Box::pin(shake_hands(tls, socket, address, &worker.shared.vitals.replica_handshakes));
        let socket = ReplicaSocket::tls(shaken.await?);
        let mut upstream = Self::new(socket, address, Some(tls.clone()), unacknowledged_max);
        upstream.is_nodelay = true;
        Ok(upstream)
    }

    /// Whether it goes there, by the rules of TLS that hold for the request, the very same.
    pub(crate) fn leads_to(&self, address: SocketAddr, wire: &Wire) -> bool {
        let is_made_for = match (&self.tls, wire) {
            (None, Wire::Plain) => true,
            (Some(own), Wire::Tls(tls)) => Arc::ptr_eq(own, tls),
            _ => false,
        };
        is_made_for && self.address == address
    }

    /// Whether it is still open, and the replica has said nothing unasked. Costs no system call while nothing came.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.socket {
            ReplicaSocket::Plain(socket) => {
                matches!(socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // What TLS says for itself (new tickets) is taken on the way.
            socket @ ReplicaSocket::Tls(_) => {
                let mut cx = Context::from_waker(Waker::noop());
                let look = poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut ReadBuf::new(&mut byte)));
                // A task that has done much in its turn would see every connection quiet.
                pin!(unconstrained(look)).poll(&mut cx).is_pending()
            }
        }
    }

    /// How long its replica may be silent before [`Self::keep_watch`] is due; `None` where it is not.
    pub(crate) fn unwatched_for(&self) -> Option<Duration> {
        self.silence.unkept_for()
    }

    /// From now on it ends when the replica is gone without a word.
    pub(crate) fn keep_watch(&mut self) {
        self.silence.keep(self.socket.tcp());
    }

    /// From now on small pieces are sent at once. Best effort: they arrive otherwise too, only later.
    fn set_nodelay(&mut self) {
        if !std::mem::replace(&mut self.is_nodelay, true) {
            let _ = self.socket.tcp().set_nodelay(true);
        }
    }

    /// The socket, where bytes on it are the replica's own.
    fn plain_socket(&self) -> Option<&TcpStream> {
        match &self.socket {
            ReplicaSocket::Plain(socket) => Some(socket),
            ReplicaSocket::Tls(_) => None,
        }
    }

    /// Something came, and was not read by it.
    fn heard(&mut self) {
        self.silence.heard();
    }

    fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>; 3]) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        let n = match pieces {
            [front, chunk, back] if chunk.is_empty() && back.is_empty() => ready!(socket.poll_write(cx, front))?,
            [front, chunk, back] if front.is_empty() && back.is_empty() => ready!(socket.poll_write(cx, chunk))?,
            pieces => ready!(socket.poll_write_vectored(cx, pieces))?,
        };
        self.silence.wrote(self.socket.tcp(), n);
        Poll::Ready(if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// What comes next, up to `size` bytes or [`SMALL`]; nothing at the end. Small pieces of a stream share memory.
    fn poll_read(&mut self, size: usize, is_stream: bool, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if size <= SMALL {
            return READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
                self.silence.heard();
                let read = buffer.filled();
                Poll::Ready(Ok(if is_stream { ROOM.with_borrow_mut(|room| block_in(room, read)) } else { block(read) }))
            });
        }
        // New memory each time: what was sent on is free again, and is had at once by whoever reads next, still in the
        // caches of the processor. Memory of each connection's own would not be.
        let mut room = BytesMut::with_capacity(size).limit(size);
        ready!(pin!(self.socket.read_buf(&mut room)).poll(cx))?;
        self.silence.heard();
        let read = room.into_inner();
        // Little would pin much until the client has taken it.
        let is_little = read.len() < size / 4;
        Poll::Ready(Ok(if is_little { Bytes::copy_from_slice(&read) } else { read.freeze() }))
    }

    /// For another protocol, in which a replica may say much and take nothing: it is still asked whether it is there.
    fn into_socket(mut self) -> ReplicaSocket {
        self.silence.lift(self.socket.tcp());
        self.socket
    }
}

/// What was read, in memory of its own. Small blocks, such as events and the heads of most answers, are in one piece with
/// the count of those who share them: otherwise that is another allocation as soon as a block is taken apart.
fn block(bytes: &[u8]) -> Bytes {
    match bytes.len() {
        0 => Bytes::new(),
        1..=64 => in_one_piece::<64>(bytes),
        65..=128 => in_one_piece::<128>(bytes),
        129..=256 => in_one_piece::<256>(bytes),
        _ => Bytes::copy_from_slice(bytes),
    }
}

/// The same where block follows block, in memory that is used again once the one before is let go.
fn block_in(room: &mut BytesMut, bytes: &[u8]) -> Bytes {
    const ROOM: usize = 256;
    if bytes.len() > ROOM {
        return block(bytes);
    }
    if !room.try_reclaim(bytes.len()) {
        *room = BytesMut::with_capacity(ROOM);
    }
    room.extend_from_slice(bytes);
    room.split().freeze()
}

fn in_one_piece<const SIZE: usize>(bytes: &[u8]) -> Bytes {
    let mut room = [0; SIZE];
    for (to, from) in room.iter_mut().zip(bytes) {
        *to = *from;
    }
    let mut block = Bytes::from_owner(room);
    block.truncate(bytes.len());
    block
}

/// Opens the socket. The request follows at once, and what acknowledges it tells the replica that the connection is open:
/// a packet that says nothing else is saved. What comes later is acknowledged as ever.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Best effort: a packet more does no harm.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&socket).set_tcp_quickack(false);
    socket.connect(address).await
}

#[cfg(test)]
#[path = "upstream/tests.rs"]
mod tests;
