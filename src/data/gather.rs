//! Several small pieces, written as one: a head, what a chunk is framed with, a short body. A vectored write costs the
//! kernel more to take apart than a few hundred bytes cost to copy.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite as _, Interest};
use tokio::net::TcpStream;

/// The most that the kernel sends as one packet, to be cut into segments late or never: 45 segments of 1,448 bytes, as TCP
/// has them with time stamps on Ethernet. Loopback takes 323 bytes more. Long bodies are read in multiples of this: what a
/// piece has beyond that becomes a packet of its own, which costs as much as a full one.
pub(crate) const PACKET: usize = 45 * 1_448;

/// Up to here pieces are copied together.
const TOGETHER_MAX: usize = 4 << 10;

thread_local! {
    /// Where they are; empty between two calls.
    static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes these pieces, or the first bytes of them.
pub(crate) fn poll_write_all_of(
    socket: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match pieces {
        [piece] => socket.poll_write(cx, piece),
        _ if pieces.iter().map(|piece| piece.len()).sum::<usize>() > TOGETHER_MAX => {
            socket.poll_write_vectored(cx, pieces)
        }
        _ => TOGETHER.with_borrow_mut(|together| {
            together.clear();
            pieces.iter().for_each(|piece| together.extend_from_slice(piece));
            socket.poll_write(cx, together)
        }),
    }
}

/// The same on a socket that others have too. The kernel is asked before tokio's note of whether the socket takes more,
/// which nearly always says so, and is seldom at hand.
pub(crate) fn poll_write_shared(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let is_small = pieces.iter().map(|piece| piece.len()).sum::<usize>() <= TOGETHER_MAX;
    #[cfg(target_os = "linux")]
    if let [piece] = pieces {
        use rustix::net::{SendFlags, send};
        match send(socket, piece, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::AGAIN) => {}
            sent => return Poll::Ready(Ok(sent?)),
        }
    }
    loop {
        let written = if let [piece] = pieces {
            socket.try_write(piece)
        } else if is_small {
            TOGETHER.with_borrow_mut(|together| {
                together.clear();
                pieces.iter().for_each(|piece| together.extend_from_slice(piece));
                socket.try_write(together)
            })
        } else {
            socket.try_write_vectored(pieces)
        };
        match written {
            // It mostly takes them, so it is asked only where it does not.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(socket.poll_write_ready(cx))?,
            written => return Poll::Ready(written),
        }
    }
}

/// The same for the end of an answer after which the connection is shut down: small ones wait for that, so that one packet
/// says both.
#[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "other kernels do not let bytes wait"))]
pub(crate) fn poll_write_last_of(
    mut socket: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    #[cfg(target_os = "linux")]
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() <= TOGETHER_MAX {
        use rustix::net::{SendFlags, send};
        return TOGETHER.with_borrow_mut(|together| {
            together.clear();
            pieces.iter().for_each(|piece| together.extend_from_slice(piece));
            loop {
                ready!(socket.as_mut().poll_write_ready(cx))?;
                let sent = socket.try_io(Interest::WRITABLE, || {
                    Ok(send(&*socket, together, SendFlags::MORE | SendFlags::NOSIGNAL)?)
                });
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => return Poll::Ready(sent),
                }
            }
        });
    }
    poll_write_all_of(socket, cx, pieces)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_in_order_whatever_their_sizes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut reader, _) = listener.accept().await.unwrap();
        let shapes: [&[usize]; 6] =
            [&[5], &[3, 0, 4], &[100, 36], &[TOGETHER_MAX - 1, 1], &[TOGETHER_MAX, 1], &[1, 1 << 16, 2]];
        for shape in shapes {
            let pieces: Vec<Vec<u8>> = (b'a'..).zip(shape).map(|(byte, length)| vec![byte; *length]).collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let whole = pieces.concat();
            for is_shared in [false, true] {
                let written = poll_fn(|cx| match is_shared {
                    true => poll_write_shared(&writer, cx, &slices),
                    false => poll_write_all_of(Pin::new(&mut writer), cx, &slices),
                });
                let written = written.await.unwrap();
                assert!(written == whole.len() || shape.len() == 3 && written > 0, "{written} of {shape:?}");
                let mut read = vec![0; written];
                reader.read_exact(&mut read).await.unwrap();
                assert_eq!(read, whole[..written], "{shape:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_last_pieces_arrive_with_the_end() {
        for shape in [&[5][..], &[100, 36], &[TOGETHER_MAX, 1], &[1, 1 << 16, 2]] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut reader, _) = listener.accept().await.unwrap();
            let pieces: Vec<Vec<u8>> = (b'a'..).zip(shape).map(|(byte, length)| vec![byte; *length]).collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let written = poll_fn(|cx| poll_write_last_of(Pin::new(&mut writer), cx, &slices)).await.unwrap();
            let whole = pieces.concat();
            assert!(written == whole.len() || shape.len() == 3 && written > 0, "{written} of {shape:?}");
            writer.shutdown().await.unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, whole[..written], "{shape:?}");
        }
    }
}
