//! A replica for what nginx does not give: it reads the whole request body before it answers, gives big answers, and
//! answers as a stream of events.
//!
//! One thread, one task for each connection; keep-alive. Request bodies must have a length. A connection costs next to
//! nothing, and thousands may come at once: a front-end that has stood still for a second, as virtual machines do, opens
//! one for each request that came meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::replica::SERVICE_HEADER;

/// Bytes of a big answer, and of a big request.
pub const BIG: usize = 1 << 20;

/// Events per second of one stream.
pub const EVENTS_PER_SECOND: u64 = 100;

/// The longest that one stream of events lasts.
const EVENTS_MAX: u64 = 60 * EVENTS_PER_SECOND;

/// Connections that the kernel holds until they are accepted, as many as the front-ends are given and nginx as a replica.
const BACKLOG: u32 = 4096;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// With 36 bytes, once the body was read.
    Small,
    /// With 1 MiB.
    Big,
    /// With events that say when each was written, in nanoseconds since 1970.
    Events,
}

/// How it is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where it takes connections.
    #[arg(long)]
    listen: SocketAddr,
    /// How it answers.
    #[arg(long)]
    way: Way,
}

/// Runs until it is ended from outside.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(arguments.listen)?;
        let answers = Arc::new(Answers::new());
        loop {
            let (stream, _) = listener.accept().await?;
            let (way, answers) = (arguments.way, answers.clone());
            tokio::spawn(async move {
                // A connection that ends in an error is the front-end's affair.
                drop(serve(stream, way, &answers).await);
            });
        }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What all connections share: whole answers, made once, and the beat of streams.
struct Answers {
    small: Vec<u8>,
    big: Vec<u8>,
    beats: Beats,
}

/// When streams send.
///
/// Not when each of them began and every so often from then on: how many events come at a time would depend on how fast the
/// front-end opened the streams, and each would be measured with another load.
struct Beats {
    start: Instant,
    streams: AtomicU64,
}

/// Between two events of one stream.
const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / EVENTS_PER_SECOND);

impl Beats {
    /// When the next stream sends its first event, if it may from `now` on. Streams are spread over the period, evenly
    /// however many there are, but for the millisecond of the timer, as those of clients are that know nothing of each other.
    fn first(&self, now: Instant) -> Instant {
        let position = self.streams.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN) >> 32;
        let phase = PERIOD.mul_f64(position as f64 / f64::from(u32::MAX));
        let since = now.saturating_duration_since(self.start + phase);
        let beats = since.as_nanos().div_ceil(PERIOD.as_nanos());
        self.start + phase + PERIOD * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

/// The golden section of the numbers of 64 bits: its multiples lie evenly at any time.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Answers {
    fn new() -> Self {
        let beats = Beats { start: Instant::now(), streams: AtomicU64::new(0) };
        Self { small: answer(br#"{"predictions":[0],"model":"iris:1"}"#), big: answer(&vec![b'x'; BIG]), beats }
    }
}

async fn serve(stream: TcpStream, way: Way, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::with_capacity(64 << 10, reading);
    while let Some(length) = read_head(&mut reading).await? {
        tokio::io::copy(&mut (&mut reading).take(length), &mut tokio::io::sink()).await?;
        match way {
            Way::Small => writing.write_all(&answers.small).await?,
            Way::Big if length > 0 => writing.write_all(&answers.big).await?,
            Way::Events if length > 0 => return events(&mut writing, answers.beats.first(Instant::now())).await,
            // Not a scoring request: whoever started this looks whether it is there.
            Way::Big | Way::Events => writing.write_all(&answers.small).await?,
        }
    }
    Ok(())
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{SERVICE_HEADER}: 0\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The length of the body that follows; `None` when the connection is over.
async fn read_head(reading: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<u64>> {
    let mut length = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reading.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok(Some(length));
        }
        let Some(colon) = text.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = text.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default()).trim().parse();
            length = value.map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(io::Error::other("a request without a length"));
        }
    }
}

async fn events(writing: &mut (impl tokio::io::AsyncWrite + Unpin), first: Instant) -> io::Result<()> {
    writing
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let mut beat = tokio::time::interval_at(first, PERIOD);
    for _ in 0..EVENTS_MAX {
        beat.tick().await;
        let event = format!("data: {}\n\n", nanos_now());
        writing.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
    writing.write_all(b"0\r\n\r\n").await
}

/// Nanoseconds since 1970: the one clock that several processes share.
pub fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that finds no place waits in vain, however long: nobody accepts.
    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn streams_send_at_different_times_whenever_they_began() {
        let start = Instant::now();
        let beats = Beats { start, streams: AtomicU64::new(0) };
        let mut tenths = [0; 10];
        for stream in 0..64 {
            // All at once, or each long after the one before.
            let now = start + Duration::from_micros(if stream % 2 == 0 { 0 } else { 12_345 * stream });
            let first = beats.first(now);
            assert!(first >= now && first <= now + PERIOD, "{stream}");
            let phase = (first - start).as_nanos() % PERIOD.as_nanos();
            tenths[(phase * 10 / PERIOD.as_nanos()) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (5..=8).contains(count)), "{tenths:?}");
    }

    async fn lengths(text: &str) -> Vec<io::Result<Option<u64>>> {
        let mut reading = text.as_bytes();
        let mut all = Vec::new();
        loop {
            all.push(read_head(&mut reading).await);
            if !matches!(all.last(), Some(Ok(Some(_)))) {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn heads_give_the_length_of_their_body() {
        let all = lengths("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all, [Some(12), Some(0), None]);
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_an_error() {
        assert!(lengths("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await[0].is_err());
    }

    /// More connections than any default backlog holds, before the first is accepted.
    #[tokio::test]
    async fn a_burst_of_connections_is_held_until_it_is_accepted() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
        let burst = 1500.min(somaxconn);
        crate::machine::allow_open_files(burst).unwrap();
        let mut clients = Vec::new();
        for _ in 0..burst {
            clients.push(std::net::TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE).unwrap());
        }
    }
}
