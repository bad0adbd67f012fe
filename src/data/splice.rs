//! Long answers that go from a replica's socket to the client's without a copy: the kernel moves its own pages through a
//! pipe, and the router never has the bytes.
//!
//! hyper owns the client's connection and wants bytes. It is given others in their place, a slice of a memory that is for
//! nothing else. It counts, frames and orders those as it does any; the client's socket knows them by their address, and
//! lets out what is in the pipe instead.
//!
//! Owner: the worker has the pipes, a connection one of them for as long as there is something in it.
//! Holds: a pipe is used again only if as much came out as went in, and what stands in is never sent: where nothing is in
//!        the pipe for it, the connection breaks. What was wanted and could not be had is copied instead.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::gather::PACKET;
use crate::core::descriptors::Room;
use crate::core::vitals::Vitals;

/// Below this, what is left of an answer is copied: two more system calls cost as much.
pub(crate) const WORTHWHILE: u64 = 32 << 10;

/// One packet at a time. Where the kernel paces what is sent (BBR), the second of two that go out in one call waits for a
/// timer, and setting that costs more than a copy.
const MOST: usize = PACKET;

/// What a pipe is to take: as many pieces of memory as a packet has where each of its segments has one of its own.
const ROOM: usize = 64 * 4096;

/// A pipe with less is of no use: the kernel gives little to a user that has many.
const ROOM_MIN: usize = 64 << 10;

/// Stands in for what is in a pipe. Never written, never sent.
static STAND_IN: [u8; MOST] = [0; MOST];

/// Whether these bytes stand in for others.
pub(crate) fn is_stand_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// A pipe, and how much is in it.
#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
    /// Its place among those that are open.
    _place: Place,
}

impl Pipe {
    /// Says also whether it has room enough.
    fn open(place: Place) -> io::Result<(Self, bool)> {
        let (out, into) = sys::pipe()?;
        let is_roomy = sys::make_room(&into, ROOM) >= ROOM_MIN;
        Ok((Self { out, into, held: 0, _place: place }, is_roomy))
    }

    /// The higher one of its descriptors.
    fn number(&self) -> usize {
        usize::try_from(self.into.as_raw_fd().max(self.out.as_raw_fd())).unwrap_or(usize::MAX)
    }
}

/// A place among the pipes of a worker, and of the router.
#[derive(Debug)]
struct Place {
    own: Arc<AtomicUsize>,
    vitals: Arc<Vitals>,
}

impl Place {
    fn take(own: &Arc<AtomicUsize>, vitals: &Arc<Vitals>) -> Self {
        own.fetch_add(1, Ordering::Relaxed);
        vitals.splice.pipes.fetch_add(1, Ordering::Relaxed);
        Self { own: own.clone(), vitals: vitals.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.vitals.splice.pipes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pipes that wait for the next piece.
#[derive(Debug, Default)]
struct Idle {
    pipes: Vec<Pipe>,
    /// The fewest that there were since they were looked through.
    fewest: usize,
}

impl Idle {
    fn pop(&mut self) -> Option<Pipe> {
        let pipe = self.pipes.pop();
        self.fewest = self.fewest.min(self.pipes.len());
        pipe
    }
}

/// The pipes of one worker.
#[derive(Debug)]
pub(crate) struct Pipes {
    max: usize,
    open: Arc<AtomicUsize>,
    /// Those with nothing in them. One serves all answers whose clients take what they get.
    idle: Mutex<Idle>,
    /// Whether this kernel, or what stands for one, does not do it.
    is_refused: AtomicBool,
    /// Whether no more could be had since the last sweep: trying again for each piece costs as much as copying it.
    is_short: AtomicBool,
    vitals: Arc<Vitals>,
}

impl Pipes {
    /// At most `max` at a time.
    pub(crate) fn new(max: usize, vitals: Arc<Vitals>) -> Self {
        let [is_refused, is_short] = [false; 2].map(AtomicBool::new);
        Self { max, open: Arc::default(), idle: Mutex::default(), is_refused, is_short, vitals }
    }

    /// Whether there are any to be had at all.
    fn is_off(&self) -> bool {
        self.max == 0 || self.is_refused.load(Ordering::Relaxed) || !cfg!(target_os = "linux")
    }

    fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.lock().pop() {
            return Some(pipe);
        }
        let pipe = self.open();
        if pipe.is_none() {
            self.vitals.splice.missing.bump();
        }
        pipe
    }

    fn open(&self) -> Option<Pipe> {
        if self.is_short.load(Ordering::Relaxed) || self.open.load(Ordering::Relaxed) >= self.max {
            return None;
        }
        let opened = Pipe::open(Place::take(&self.open, &self.vitals)).ok();
        let fit = opened.and_then(|(pipe, is_roomy)| is_roomy.then_some(pipe));
        // Connections need descriptors more.
        let spare = fit.filter(|pipe| self.vitals.descriptors.room(pipe.number()) == Room::Enough);
        self.is_short.store(spare.is_none(), Ordering::Relaxed);
        spare
    }

    /// Takes it back, if nothing is in it.
    fn put(&self, pipe: Pipe) {
        if pipe.held != 0 {
            return;
        }
        debug_assert_eq!(sys::held(&pipe.out), 0, "a pipe with more in it than was counted");
        self.idle.lock().pipes.push(pipe);
    }

    /// Closes those that nobody has needed since the last time.
    pub(crate) fn sweep(&self) {
        self.is_short.store(false, Ordering::Relaxed);
        let mut idle = self.idle.lock();
        let needed = idle.pipes.len() - idle.fewest;
        idle.pipes.truncate(needed);
        idle.fewest = needed;
    }

    /// Notes that it cannot be done here, or must not, where the error says so.
    fn judge(&self, error: &io::Error) {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
            && !self.is_refused.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                target: "scorefront::splice",
                %error,
                "long answers are copied, because the kernel does not move them from socket to socket: allow the router the \
                 system call splice, or set max-splice-pipes to 0"
            );
        }
    }
}

/// The way past the router's memory, of one connection.
#[derive(Debug, Default)]
pub(crate) struct Passage(Mutex<Option<Pipe>>);

impl Passage {
    /// Takes up to `most` bytes out of `socket`, and gives what stands in for them, nothing at its end. `None` where they
    /// are to be copied.
    pub(crate) fn poll_fill(
        &self,
        pipes: &Pipes,
        socket: &TcpStream,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let most = usize::try_from(most).unwrap_or(MOST).min(MOST);
        let mut own = self.0.lock();
        loop {
            // What is in the pipe goes out first: whoever is asked twice copies what comes next.
            if own.is_some() || pipes.is_off() {
                return Poll::Ready(Ok(None));
            }
            ready!(socket.poll_read_ready(cx))?;
            let Some(mut pipe) = pipes.take() else { return Poll::Ready(Ok(None)) };
            match socket.try_io(Interest::READABLE, || sys::transfer(socket, &pipe.into, most)) {
                Ok(taken) => {
                    pipe.held = taken;
                    if taken == 0 {
                        pipes.put(pipe);
                    } else {
                        *own = Some(pipe);
                    }
                    return Poll::Ready(Ok(STAND_IN.get(..taken).map(Bytes::from_static)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pipes.put(pipe),
                // Nothing was taken. A read says what it is, if it is the connection.
                Err(error) => {
                    pipes.judge(&error);
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// Lets up to `most` bytes out into `socket`.
    pub(crate) fn poll_drain(
        &self,
        pipes: &Pipes,
        socket: &TcpStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut own = self.0.lock();
        loop {
            let Some(pipe) = own.as_mut().filter(|pipe| pipe.held >= most) else {
                return Poll::Ready(Err(io::Error::other("less is in the pipe than stands in for it")));
            };
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || sys::transfer(&pipe.out, socket, most)) {
                Ok(sent) => {
                    pipe.held -= sent;
                    if pipe.held == 0 {
                        own.take().into_iter().for_each(|pipe| pipes.put(pipe));
                    }
                    pipes.vitals.splice.bytes.add(sent as u64);
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    pipes.judge(&error);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod sys {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::io::{Errno, ioctl_fionread};
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

    /// The end to read from, and the one to write to.
    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
    }

    /// The room that it has then, which may be less, or more.
    pub(super) fn make_room(pipe: &OwnedFd, room: usize) -> usize {
        let has = |pipe| fcntl_getpipe_size(pipe).unwrap_or(0);
        // Best effort: with less room pieces are smaller. Where pages are large, it has more from the start.
        if has(pipe) < room {
            let _ = fcntl_setpipe_size(pipe, room);
        }
        has(pipe)
    }

    pub(super) fn held(pipe: &OwnedFd) -> u64 {
        ioctl_fionread(pipe).unwrap_or(0)
    }

    pub(super) fn transfer(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
        loop {
            match splice(&from, None, &to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

/// Other kernels have nothing of the kind: there is never a pipe.
#[cfg(not(target_os = "linux"))]
mod sys {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};

    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn make_room(_: &OwnedFd, _: usize) -> usize {
        0
    }

    pub(super) fn held(_: &OwnedFd) -> u64 {
        0
    }

    pub(super) fn transfer(_: impl AsFd, _: impl AsFd, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "splice/tests.rs"]
mod tests;
