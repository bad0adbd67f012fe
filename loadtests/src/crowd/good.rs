//! Clients that behave: an open loop of small requests, on kept connections and on fresh ones, each of them answered.
//!
//! Holds: nothing is tried again. A request that is not answered with 200 is a failure, also on a kept connection.
//! Bounded: the schedule is drawn before the first request, each request has a deadline.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::dice::Dice;
use crate::manifests::KEY;

/// The longest that one request may take.
pub const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Every so many requests have a connection of their own.
const FRESH_EVERY: usize = 10;

/// Connections that are kept at the start; they are used in turns.
const KEPT: usize = 32;

/// What they send.
#[derive(Clone, Copy)]
pub struct Good {
    /// The router.
    pub target: SocketAddr,
    /// The endpoint that they ask.
    pub endpoint: &'static str,
    /// Mean arrivals per second, as a Poisson stream.
    pub rate: f64,
}

/// What they saw.
#[derive(Default)]
pub struct Seen {
    /// From the planned departure to the last byte, in ms, in no order.
    pub latencies_ms: Vec<f64>,
    /// Requests without a 200.
    pub failed: u64,
    /// The first reason.
    pub failed_why: Option<String>,
}

impl Good {
    /// Sends for this long and waits for the last answer.
    pub fn run(self, duration: Duration, seed: u64) -> anyhow::Result<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let departures = self.schedule(duration, seed);
        let client = Rc::new(Client { good: self, kept: RefCell::default() });
        LocalSet::new().block_on(&runtime, async {
            for _ in 0..KEPT {
                let stream = client.connect().await?;
                client.kept.borrow_mut().push_back(stream);
            }
            let started = Instant::now();
            let (clock, departing) = tell_time(started, departures);
            let seen = client.clone().send_all(started, departing).await;
            clock.join().map_err(|_| anyhow::anyhow!("the clock thread panicked"))?;
            Ok(seen)
        })
    }

    /// The same on a thread of its own.
    pub fn start(self, duration: Duration, seed: u64) -> JoinHandle<anyhow::Result<Seen>> {
        thread::spawn(move || self.run(duration, seed))
    }

    fn schedule(&self, duration: Duration, seed: u64) -> Vec<Duration> {
        let (mut dice, gap) = (Dice::new(seed), Duration::from_secs_f64(1.0 / self.rate));
        let arrivals = std::iter::successors(Some(dice.exponential(gap)), |at| Some(*at + dice.exponential(gap)));
        arrivals.take_while(|at| *at < duration).collect()
    }
}

/// Says when each request has to leave. A thread, because the runtime's timer would round to milliseconds.
fn tell_time(started: Instant, departures: Vec<Duration>) -> (JoinHandle<()>, mpsc::UnboundedReceiver<Duration>) {
    let (departing, departed) = mpsc::unbounded_channel();
    let clock = thread::spawn(move || {
        for at in departures {
            thread::sleep((started + at).saturating_duration_since(Instant::now()));
            if departing.send(at).is_err() {
                return;
            }
        }
    });
    (clock, departed)
}

struct Client {
    good: Good,
    kept: RefCell<VecDeque<TcpStream>>,
}

impl Client {
    async fn send_all(self: Rc<Self>, started: Instant, mut departing: mpsc::UnboundedReceiver<Duration>) -> Seen {
        let mut running = JoinSet::new();
        let mut number = 0;
        while let Some(at) = departing.recv().await {
            number += 1;
            let (client, fresh) = (self.clone(), number % FRESH_EVERY == 0);
            running.spawn_local(async move {
                let answered = timeout(REQUEST_MAX, client.ask(fresh)).await;
                let latency = started.elapsed().saturating_sub(at);
                answered.with_context(|| format!("no answer within {REQUEST_MAX:?}")).flatten().map(|()| latency)
            });
        }
        let mut seen = Seen::default();
        while let Some(joined) = running.join_next().await {
            match joined.context("a request task panicked").flatten() {
                Ok(latency) => seen.latencies_ms.push(latency.as_secs_f64() * 1e3),
                Err(error) => {
                    seen.failed += 1;
                    seen.failed_why.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        seen
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.good.target).await.context("connect to the router")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn ask(&self, fresh: bool) -> anyhow::Result<()> {
        if fresh {
            return self.exchange(&mut self.connect().await?).await.context("on a fresh connection");
        }
        let kept = self.kept.borrow_mut().pop_front();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        self.exchange(&mut stream).await.context("on a kept connection")?;
        self.kept.borrow_mut().push_back(stream);
        Ok(())
    }

    async fn exchange(&self, stream: &mut TcpStream) -> anyhow::Result<()> {
        const BODY: &str = r#"{"data":[[5.1,3.5,1.4,0.2]],"method":"predict"}"#;
        let Good { target, endpoint, .. } = self.good;
        let length = BODY.len();
        let request = format!(
            "POST /api/v1/endpoint/{endpoint}/score HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{BODY}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(1024);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("the connection ended after {} bytes of an answer", answer.len());
            }
            if is_whole(&answer)? {
                return Ok(());
            }
        }
    }
}

/// Whether all of the answer is there; an error if it is not a 200.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    anyhow::ensure!(head.starts_with("http/1.1 200 "), "answered: {}", head.lines().next().unwrap_or_default());
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without content-length")?.trim().parse()?;
    Ok(answer.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::replica::Replica;

    #[test]
    fn every_request_is_answered_and_timed() {
        let replica = Replica::start(false, Duration::ZERO).unwrap();
        let good = Good { target: replica.address, endpoint: "good", rate: 200.0 };
        let seen = good.run(Duration::from_millis(500), 7).unwrap();
        assert_eq!(seen.failed, 0, "{:?}", seen.failed_why);
        assert_eq!(seen.latencies_ms.len(), good.schedule(Duration::from_millis(500), 7).len());
    }

    #[test]
    fn anything_but_a_200_is_a_failure() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{").unwrap());
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap());
        assert!(is_whole(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}").is_err());
    }
}
