//! An open-loop generator: requests leave when their time has come, whatever became of those before.
//!
//! Wait = latency (from the planned departure to the last byte) minus the service time that the replica reports.
//! Bounded: the whole schedule is drawn before the first request, each request has a deadline.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::dice::Dice;
use crate::manifests::KEY;
use crate::replica::{SERVICE_HEADER, SERVICE_MAX};

/// The longest that one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// The longest run that the generator agrees to.
const DURATION_MAX: Duration = Duration::from_secs(600);

/// What to send.
pub struct Load {
    /// The front-end.
    pub target: SocketAddr,
    /// Path of every request.
    pub path: &'static str,
    /// Mean arrivals per second.
    pub rate: f64,
    /// Mean of the exponential service time.
    pub service_mean: Duration,
    /// How long requests are sent.
    pub duration: Duration,
    /// Departures before this are sent but not measured.
    pub warm_up: Duration,
    /// One seed, one schedule.
    pub seed: u64,
}

/// One request of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Departure {
    at: Duration,
    service: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Measured {
    /// Waits of the measured requests, in ms, in no order.
    pub waits_ms: Vec<f64>,
    /// Answers other than 200, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Requests without a whole answer, and the first reason.
    pub broken: u64,
    /// The first reason for a broken one.
    pub broken_why: Option<String>,
}

impl Load {
    fn schedule(&self) -> Vec<Departure> {
        let mut dice = Dice::new(self.seed);
        let gap_mean = Duration::from_secs_f64(1.0 / self.rate);
        let mut at = Duration::ZERO;
        let mut departures = Vec::new();
        loop {
            at += dice.exponential(gap_mean);
            if at >= self.duration.min(DURATION_MAX) {
                return departures;
            }
            departures.push(Departure { at, service: dice.exponential(self.service_mean).min(SERVICE_MAX) });
        }
    }

    /// Sends the whole schedule and waits for the last answer.
    pub fn run(&self) -> anyhow::Result<Measured> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let schedule = self.schedule();
        let (departing, departures) = mpsc::unbounded_channel();
        let started = Instant::now();
        // A thread, because the runtime's timer would round departures to milliseconds.
        let clock = thread::spawn(move || {
            for departure in schedule {
                thread::sleep((started + departure.at).saturating_duration_since(Instant::now()));
                if departing.send(departure).is_err() {
                    return;
                }
            }
        });
        let measured = LocalSet::new().block_on(&runtime, self.collect(started, departures));
        clock.join().map_err(|_| anyhow::anyhow!("the generator's clock thread panicked"))?;
        Ok(measured)
    }

    async fn collect(&self, started: Instant, mut departures: mpsc::UnboundedReceiver<Departure>) -> Measured {
        let client = Rc::new(Client { target: self.target, path: self.path, idle: RefCell::default() });
        let mut running = JoinSet::new();
        while let Some(departure) = departures.recv().await {
            let client = client.clone();
            running.spawn_local(async move {
                let answer = timeout(REQUEST_MAX, client.ask(departure.service)).await;
                let latency = started.elapsed().saturating_sub(departure.at);
                let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {REQUEST_MAX:?}")));
                (departure, latency, answer)
            });
        }
        let mut measured = Measured::default();
        while let Some(joined) = running.join_next().await {
            let Ok((departure, latency, answer)) = joined else {
                measured.broke("a request task panicked".to_owned());
                continue;
            };
            match answer {
                Ok(Answer { status: 200, service: Some(service) }) if departure.at >= self.warm_up => {
                    measured.waits_ms.push((latency.as_secs_f64() - service.as_secs_f64()) * 1e3);
                }
                Ok(Answer { status: 200, service: Some(_) }) => {}
                Ok(Answer { status: 200, service: None }) => {
                    measured.broke(format!("an answer lost its {SERVICE_HEADER} header"));
                }
                Ok(Answer { status, .. }) => *measured.refused.entry(status).or_default() += 1,
                Err(error) => measured.broke(format!("{error:#}")),
            }
        }
        measured
    }
}

impl Measured {
    fn broke(&mut self, why: String) {
        self.broken += 1;
        self.broken_why.get_or_insert(why);
    }

    /// Adds another run of the same load.
    pub fn merge(&mut self, other: Self) {
        self.waits_ms.extend(other.waits_ms);
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        if let Some(why) = other.broken_why {
            self.broken_why.get_or_insert(why);
        }
    }

    /// Requests that did not end in a whole 200.
    pub fn failed(&self) -> u64 {
        self.broken + self.refused.values().sum::<u64>()
    }
}

struct Answer {
    status: u16,
    service: Option<Duration>,
}

/// Keeps connections to the front-end, last used first.
struct Client {
    target: SocketAddr,
    path: &'static str,
    idle: RefCell<Vec<BufStream<TcpStream>>>,
}

impl Client {
    async fn ask(&self, service: Duration) -> anyhow::Result<Answer> {
        let kept = self.idle.borrow_mut().pop();
        if let Some(connection) = kept
            && let Ok(answer) = self.exchange(connection, service).await
        {
            return Ok(answer);
        }
        // A kept connection may have been closed meanwhile: the time that took counts, the failure does not.
        let stream = TcpStream::connect(self.target).await.context("connect to the front-end")?;
        stream.set_nodelay(true)?;
        self.exchange(BufStream::new(stream), service).await.context("exchange on a new connection")
    }

    async fn exchange(&self, mut connection: BufStream<TcpStream>, service: Duration) -> io::Result<Answer> {
        const BODY: &str = r#"{"data":[[5.1,3.5,1.4,0.2]],"method":"predict"}"#;
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{SERVICE_HEADER}: {}\r\n\r\n{BODY}",
            self.path,
            self.target,
            BODY.len(),
            service.as_micros()
        );
        connection.write_all(request.as_bytes()).await?;
        connection.flush().await?;
        let head = AnswerHead::read(&mut connection).await?;
        let mut body = vec![0; head.length];
        connection.read_exact(&mut body).await?;
        if !head.closes {
            self.idle.borrow_mut().push(connection);
        }
        Ok(Answer { status: head.status, service: head.service })
    }
}

/// The few parts of an answer's head that matter here. The replicas give every answer a length.
struct AnswerHead {
    status: u16,
    length: usize,
    closes: bool,
    service: Option<Duration>,
}

impl AnswerHead {
    async fn read(connection: &mut BufStream<TcpStream>) -> io::Result<Self> {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut length = None;
        let mut head = Self { status, length: 0, closes: false, service: None };
        loop {
            line.clear();
            if connection.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                head.length = length.ok_or_else(|| io::Error::other("an answer without content-length"))?;
                return Ok(head);
            }
            let Some((name, value)) = text.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok(),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                SERVICE_HEADER => head.service = value.parse().ok().map(Duration::from_micros),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Replicas;

    fn load(target: SocketAddr) -> Load {
        Load {
            target,
            path: "/score",
            rate: 200.0,
            service_mean: Duration::from_millis(1),
            duration: Duration::from_millis(500),
            warm_up: Duration::ZERO,
            seed: 3,
        }
    }

    #[test]
    fn a_schedule_is_sorted_bounded_and_the_same_for_one_seed() {
        let load = load(SocketAddr::from(([127, 0, 0, 1], 1)));
        let schedule = load.schedule();
        assert_eq!(schedule, load.schedule());
        assert!(schedule.is_sorted_by_key(|departure| departure.at));
        assert!(schedule.iter().all(|departure| departure.at < load.duration && departure.service <= SERVICE_MAX));
        assert!((60..=140).contains(&schedule.len()), "{} departures at 200/s in 0.5 s", schedule.len());
    }

    #[test]
    fn every_departure_is_answered_and_measured() {
        let replicas = Replicas::start(1).unwrap();
        let load = load(replicas.addresses()[0]);
        let measured = load.run().unwrap();
        assert_eq!(measured.failed(), 0, "{:?}", measured.broken_why);
        assert_eq!(measured.waits_ms.len(), load.schedule().len());
        assert!(measured.waits_ms.iter().all(|&wait| wait > 0.0));
    }

    #[test]
    fn a_front_end_that_is_not_there_is_counted_and_named() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let measured = load(address).run().unwrap();
        assert!(measured.waits_ms.is_empty());
        assert!(measured.failed() > 0);
        assert!(measured.broken_why.unwrap().contains("connect to the front-end"));
    }
}
