//! Clients as slow as can be: heads and bodies of one byte a second, and readers that do not read.
//!
//! One thread, one task for each client, and nothing to do for a task between two of its bytes. Clients come at a
//! bounded pace from many addresses of loopback, so that the limit for each address stays in force.
//! Bounded: no client stays longer than its patience.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::clock::Clock;
use super::replica::BIG_PATH;
use crate::machine::step_back;
use crate::manifests::KEY;

/// Clients of one address.
const PER_ADDRESS: usize = 20;

/// Bytes in one TCP segment.
const SEGMENT: u32 = 1460;

/// The time from one byte to the next.
const BEAT: Duration = Duration::from_secs(1);

/// How long a connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What a client is slow at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sends its head one byte a second.
    Head,
    /// Sends its body one byte a second.
    Body,
    /// Asks for a big answer and reads nothing of it.
    Reader,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Head, Self::Body, Self::Reader];
}

/// What became of one client.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// What it was slow at.
    pub kind: Kind,
    /// From the connect to the end of the connection; `None` where it had no connection or was never cut off.
    pub lasted: Option<Duration>,
    /// The status that it was told, if it was told one.
    pub status: Option<u16>,
}

/// A crowd to be.
#[derive(Clone, Copy)]
pub struct Crowd {
    /// The router.
    pub target: SocketAddr,
    /// The endpoint that it asks.
    pub endpoint: &'static str,
    /// How many.
    pub clients: usize,
    /// How many come in a second.
    pub pace: usize,
    /// After that a client leaves by itself: it was not cut off.
    pub patience: Duration,
}

impl Crowd {
    /// Lets it loose on a thread of its own.
    pub fn start(self) -> JoinHandle<anyhow::Result<Vec<End>>> {
        thread::spawn(move || {
            step_back()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, self.come()))
        })
    }

    async fn come(self) -> Vec<End> {
        let (crowd, clock) = (Rc::new(self), Clock::start());
        let started = Instant::now();
        let mut running = JoinSet::new();
        for number in 0..self.clients {
            sleep_until(started + Duration::from_secs_f64(number as f64 / self.pace as f64)).await;
            running.spawn_local(crowd.clone().be_slow(number, clock.clone()));
        }
        let mut ends = Vec::new();
        while let Some(joined) = running.join_next().await {
            // A task that panicked is missing from the count, which is judged.
            ends.extend(joined);
        }
        ends
    }

    async fn be_slow(self: Rc<Self>, number: usize, clock: Clock) -> End {
        let kind = Kind::ALL.into_iter().cycle().nth(number % Kind::ALL.len()).unwrap_or(Kind::Head);
        // From before the connect: the router's clock starts no earlier.
        let opened = Instant::now();
        let connected = timeout(CONNECT_MAX, connect(self.target, source(number), kind)).await;
        let Ok(Ok(stream)) = connected else { return End { kind, lasted: None, status: None } };
        let (endpoint, target) = (self.endpoint, self.target);
        let beat = Beat { clock, next: std::time::Instant::now() + offset(number) };
        match kind {
            Kind::Head => {
                let head = format!("POST /api/v1/endpoint/{endpoint}/score HTTP/1.1\r\n");
                self.drip(kind, opened, stream, &head, beat).await
            }
            Kind::Body => {
                let head = format!(
                    "POST /api/v1/endpoint/{endpoint}/score HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {KEY}\r\n\
                     content-length: 1000000\r\n\r\n"
                );
                let mut stream = stream;
                if stream.write_all(head.as_bytes()).await.is_err() {
                    return End { kind, lasted: None, status: None };
                }
                self.drip(kind, opened, stream, "", beat).await
            }
            Kind::Reader => {
                let head = format!(
                    "GET /api/v1/endpoint/{endpoint}{BIG_PATH} HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {KEY}\r\n\r\n"
                );
                self.stare(opened, stream, &head).await
            }
        }
    }

    /// Sends `text`, and then more of no meaning, one byte a second until the router ends it.
    async fn drip(&self, kind: Kind, opened: Instant, mut stream: TcpStream, text: &str, mut beat: Beat) -> End {
        let mut bytes = text.bytes().chain(std::iter::repeat(b'a'));
        let (mut status, mut chunk) = (None, [0; 512]);
        let mut tick = Box::pin(beat.clone().wait());
        loop {
            tokio::select! {
                read = stream.read(&mut chunk) => match read {
                    Ok(read) if read > 0 => {
                        status = status.or_else(|| status_in(chunk.get(..read)?));
                    }
                    Ok(_) | Err(_) => return End { kind, lasted: Some(opened.elapsed()), status },
                },
                () = &mut tick => {
                    beat.next += BEAT;
                    tick.set(beat.clone().wait());
                    if opened.elapsed() > self.patience {
                        return End { kind, lasted: None, status };
                    }
                    // One that cannot be written to is about to be read from, which says why.
                    drop(stream.try_write(&bytes.next().map_or([b'a'], |byte| [byte])));
                }
            }
        }
    }

    /// Sends a request and does not read the answer.
    async fn stare(&self, opened: Instant, mut stream: TcpStream, request: &str) -> End {
        let sent = stream.write_all(request.as_bytes()).await;
        let cut = async {
            // Wakes for a reset alone: there is always something to read.
            while sent.is_ok() && stream.ready(Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {}
        };
        let lasted = timeout(self.patience, cut).await.is_ok().then(|| opened.elapsed());
        End { kind: Kind::Reader, lasted, status: None }
    }
}

/// When a client sends its next byte.
#[derive(Clone)]
struct Beat {
    clock: Clock,
    next: std::time::Instant,
}

impl Beat {
    async fn wait(self) {
        self.clock.wait_until(self.next).await;
    }
}

/// How long a client waits before its first byte, so that they are spread over the whole second whatever the pace at which
/// they come: thousands that send in step would be one client that sends much at a time.
fn offset(number: usize) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    BEAT.mul_f64((number as f64 * GOLDEN).fract())
}

async fn connect(target: SocketAddr, source: Ipv4Addr, kind: Kind) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Segments of an Ethernet and not of 64 KiB, as loopback has them: by them the kernel sizes its buffers.
    socket.set_tcp_mss(SEGMENT)?;
    if kind == Kind::Reader {
        // The less room there is here, the more the router is left with.
        socket.set_recv_buffer_size(4096)?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.bind((source, 0).into())?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The address that a client comes from.
fn source(number: usize) -> Ipv4Addr {
    let address = number / PER_ADDRESS;
    let octet = |value: usize| u8::try_from(value % 250 + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 1, octet(address / 250), octet(address))
}

fn status_in(answer: &[u8]) -> Option<u16> {
    String::from_utf8_lossy(answer).split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn clients_come_from_addresses_of_loopback_with_few_on_each() {
        let mut counts = BTreeMap::new();
        for number in 0..10_000 {
            let address = source(number);
            assert!(address.is_loopback(), "{address}");
            *counts.entry(address).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 10_000 / PER_ADDRESS);
        assert!(counts.values().all(|&count| count == PER_ADDRESS));
    }

    #[test]
    fn a_client_that_nobody_cuts_off_leaves_after_its_patience() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let patience = Duration::from_millis(50);
        let ends = Crowd { target, endpoint: "crowd", clients: 6, pace: 1000, patience }.start();
        let ends = ends.join().unwrap().unwrap();
        assert_eq!(ends.len(), 6);
        assert!(ends.iter().all(|end| end.lasted.is_none()), "{ends:?}");
    }

    #[test]
    fn a_client_that_is_refused_says_what_it_was_told() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let refuse = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        });
        let patience = Duration::from_secs(20);
        let ends = Crowd { target, endpoint: "crowd", clients: 1, pace: 1000, patience }.start();
        let ends = ends.join().unwrap().unwrap();
        refuse.join().unwrap();
        assert!(matches!(ends[..], [End { kind: Kind::Head, lasted: Some(_), status: Some(408) }]), "{ends:?}");
    }
}
