//! Bound sockets, and the loop that hands what they accept to the worker with the fewest connections.
//!
//! An ingress controller may hold only a handful of connections, so where the kernel would spread them by hash, some
//! workers could stand idle beside busy ones; counting spreads them evenly. The loop runs on a worker's own thread, so
//! with one worker a connection never changes threads.
//!
//! A failed accept never ends the loop: a connection that was reset before it was accepted is forgotten, and where the
//! process has no descriptors or memory left the loop pauses, longer each time, and goes on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use uuid::Uuid;

use super::connection::Guard;
use super::tls::Tls;
use super::worker::{Accepted, Handle, Phase, Worker};
use super::{connection, headers, respond};
use crate::core::descriptors::Room;
use crate::core::outcome::Outcome;
use crate::core::telling::Telling;

/// Connections that the kernel holds for us until we accept them.
const BACKLOG: i32 = 4096;
/// The shortest and longest pause after a failed accept.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(100);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Binds to an address; port 0 chooses one. The kernel takes so many bytes of answers from us for one client beyond what
    /// that has room for. Without a limit it takes up to 4 MiB: for thousands of clients that read nothing, gigabytes and
    /// seconds of copying.
    pub fn bind(address: SocketAddr, unsent_max: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // What is accepted has these options too, without a call for each. Small answers would wait for acknowledgements.
        socket.set_tcp_nodelay(true)?;
        // Sandboxes may not know this one. Then the kernel takes what it takes, and all else works.
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_notsent_lowat(unsent_max);
        socket.listen(BACKLOG)?;
        let socket: std::net::TcpListener = socket.into();
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls: None })
    }

    /// The same for clients with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<Tls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whether its clients speak TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Where accepted sockets may go.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[(Arc<Worker>, mpsc::Sender<Accepted>)]>);

impl Workers {
    /// All workers of the router.
    pub fn new(handles: &[Handle]) -> Self {
        Self(handles.iter().map(|handle| (handle.worker.clone(), handle.inbox.clone())).collect())
    }

    /// Gives a socket, accepted by the first worker, to the one with the fewest connections.
    fn give(&self, socket: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>, place: Option<OwnedSemaphorePermit>) {
        let load = |entry: &&(Arc<Worker>, _)| entry.0.connections.load(Ordering::Relaxed);
        let Some((worker, inbox)) = self.0.iter().min_by_key(load) else { return };
        // From here on, not from when the worker gets to it: of a burst it would get all, having none as yet.
        let guard = Guard::new(worker.clone());
        if worker.index == 0 {
            return connection::spawn(guard, socket, peer, tls, place);
        }
        let sent = socket.into_std().map(|socket| inbox.try_send(Accepted { guard, socket, peer, tls, place }));
        if !matches!(sent, Ok(Ok(()))) {
            worker.shared.vitals.connections.refused.bump();
        }
    }
}

/// Accepts until the router no longer takes anything new, then closes the socket. Runs on the first worker.
pub async fn accept(listener: Listener, workers: Workers, mut phase: watch::Receiver<Phase>) -> io::Result<()> {
    let Some((first, _)) = workers.0.first().cloned() else { return Ok(()) };
    let counts = &first.shared.vitals.connections;
    let (tls, listener) = (listener.tls, TcpListener::from_std(listener.socket)?);
    let mut desk = Desk { first: first.clone(), workers, tls, telling: Telling::default() };
    let (mut pause, mut telling) = (*PAUSE.start(), Telling::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => return Ok(()),
        };
        match accepted {
            Ok((socket, peer)) => {
                pause = *PAUSE.start();
                counts.accepted.bump();
                if telling.works() {
                    tracing::info!(target: "scorefront::listen", "connections are accepted again");
                }
                desk.receive(socket, peer);
            }
            Err(error) => {
                counts.accept_errors.bump();
                if !concerns_one_connection(&error) {
                    if telling.fails(Instant::now()) {
                        tracing::warn!(
                            target: "scorefront::listen",
                            %error, "cannot accept connections, pausing; raise the limit of open files, or lower max-connections"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(*PAUSE.end());
                }
            }
        }
    }
}

/// Where an accepted socket is served, or turned away.
struct Desk {
    first: Arc<Worker>,
    workers: Workers,
    tls: Option<Arc<Tls>>,
    /// Of clients that are turned away for want of descriptors.
    telling: Telling,
}

impl Desk {
    fn receive(&mut self, socket: TcpStream, peer: SocketAddr) {
        let (shared, limits) = (&self.first.shared, self.first.limits());
        let (counts, descriptors) = (&shared.vitals.connections, &shared.vitals.descriptors);
        let room = descriptors.room(usize::try_from(socket.as_raw_fd()).unwrap_or(0));
        if counts.open.load(Ordering::Relaxed) >= limits.connections_max {
            counts.refused.bump();
            let told = (room != Room::None).then_some(respond::overloaded as fn(_) -> _);
            return self.refuse(socket, told);
        }
        if room != Room::Enough {
            descriptors.refused.bump();
            if self.telling.fails(Instant::now()) {
                tracing::warn!(
                    target: "scorefront::listen",
                    "clients are turned away: few file descriptors are left, and they are kept for replicas; raise the \
                     limit of open files, or lower max-connections"
                );
            }
            let told = (room == Room::Little).then_some(respond::short_of_descriptors as fn(_) -> _);
            return self.refuse(socket, told);
        }
        if self.telling.works() {
            tracing::info!(target: "scorefront::listen", "clients are served again");
        }
        let mut place = None;
        if shared.vitals.memory.is_short() {
            // Some may come, to be told or to ask for the health page.
            place = shared.turned_away.clone().try_acquire_owned().ok();
            if place.is_none() {
                return shared.vitals.memory.refused_connections.bump();
            }
        }
        self.workers.give(socket, peer, self.tls.clone(), place);
    }

    /// Ends a connection for which there is no room, with these words if any.
    fn refuse(&self, socket: TcpStream, words: Option<fn(Uuid) -> Bytes>) {
        let first = &self.first;
        first.shared.vitals.refusals.bump(first.index, Outcome::Overloaded);
        // With TLS it would take a handshake to say so.
        if let (None, Some(words)) = (&self.tls, words)
            && let Ok(place) = first.shared.turned_away.clone().try_acquire_owned()
        {
            let id = headers::make_id(&mut first.dice());
            let told = turn_away(socket, words(id), first.limits().goodbye_timeout);
            tokio::spawn(async move {
                told.await;
                drop(place);
            });
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tells a client over the limit why it is not served. One that does not take the answer at once is closed all the same.
pub(crate) async fn turn_away(mut socket: TcpStream, answer: Bytes, patience: Duration) {
    let told = async {
        socket.write_all(&answer).await?;
        socket.shutdown().await?;
        // Until it has read that, or has given up: closing with bytes unread would reset the connection.
        let mut waste = [0; 1024];
        while socket.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(patience, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vitals::Vitals;
    use crate::data::worker::Shared;
    use crate::ops::access_log::{AccessLog, LogTarget};

    #[tokio::test]
    async fn a_burst_is_spread_evenly_though_no_worker_gets_to_run_meanwhile() {
        let vitals = Arc::new(Vitals::new(3, Instant::now()));
        let log = AccessLog::start(&LogTarget::Off, 3, 0, vitals.clone()).unwrap();
        let (_phase, shared) = Shared::of_nothing(vitals.clone());
        let all: Vec<_> = (0..3).map(|n| Arc::new(Worker::new(n, shared.clone(), log.worker(n), 1))).collect();
        let (inboxes, mut arrivals): (Vec<_>, Vec<_>) = all.iter().map(|_| mpsc::channel(9)).unzip();
        let workers = Workers(all.iter().cloned().zip(inboxes).collect());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..9 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (socket, peer) = listener.accept().await.unwrap();
            workers.give(socket, peer, None, None);
        }
        let of_each = || all.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!((of_each(), arrivals[1].len(), arrivals[2].len()), (vec![3, 3, 3], 3, 3));
        assert_eq!(vitals.connections.open.load(Ordering::Relaxed), 9, "those on their way are open too");
        // One that is gone before it was taken is no longer counted, nor is one for which there is no room.
        drop(arrivals.remove(2));
        assert_eq!(of_each(), [3, 3, 0]);
        let (socket, _) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
        let (socket, peer) = socket.unwrap();
        workers.give(socket, peer, None, None);
        assert_eq!((of_each(), vitals.connections.refused.read()), (vec![3, 3, 0], 1));
    }

    #[test]
    fn what_is_accepted_has_the_options_of_its_listener() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 12_345).unwrap();
        listener.socket.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.address).unwrap();
        let (accepted, _) = listener.socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert_eq!(socket2::SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), 12_345);
    }

    #[tokio::test]
    async fn a_client_over_the_limit_gets_a_whole_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(turn_away(socket, respond::overloaded(Uuid::nil()), crate::testing::PATIENCE));
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        assert_eq!(body.len(), length);
        assert!(body.contains("max-connections"));
    }
}
