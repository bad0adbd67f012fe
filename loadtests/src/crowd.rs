//! The `crowd` scenario: thousands of slow clients at once, while good ones score.
//!
//! In each round the good clients are timed without the crowd and then with it, from its first connect until its last
//! client is cut off. The deadlines of the router are set short, so that a run is too.
//! Holds: a round ends with the router as it was before: no request under way, no connection or file of the crowd.

mod clients;
mod clock;
pub mod good;
pub mod replica;
mod verdict;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::clients::{Crowd, Kind};
use self::good::Good;
use self::replica::Replica;
use self::verdict::{Leftovers, Round};
use crate::gauges::socket_memory_mib;
use crate::machine::{Cores, allow_open_files, step_forward};
use crate::manifests::{Deployment, write_secret};
use crate::report::Verdict;
use crate::router::Router;

/// How long the router may take to be as before once the crowd is gone.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Files that the router may have open more than before: connections to replicas that it keeps for a while.
const FILES_SLACK: usize = 16;

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Slow clients at a time, a third of each kind.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(3..=20_000))]
    clients: u32,
    /// Slow clients that come in a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pace: u32,
    /// Time-outs of the router for slow clients, in seconds. All of the crowd must be there before the first is cut off.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=120))]
    deadline: u32,
    /// Rounds, each without and with the crowd.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Seconds of good requests before the crowd comes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    calm: u32,
    /// Good requests in a second, on average.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// How long the good clients' model takes, in ms. With 0 it answers at once, so that no service time hides what the
    /// router adds; fast models take ten.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    model_ms: u32,
    /// The most that the good clients' p99 may be of what it is without the crowd.
    #[arg(long, default_value_t = 1.2)]
    bar: f64,
    /// The most resident memory of the router, in MiB.
    #[arg(long, default_value_t = 800)]
    memory: u32,
    /// Do not judge times and memory, only that good requests are answered, slow clients cut off, and nothing is left.
    #[arg(long)]
    unjudged: bool,
    /// Where manifests, logs and results go.
    #[arg(long, default_value = "target/crowd")]
    dir: PathBuf,
}

/// The router's time-outs in this run.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    head: Duration,
    body: Duration,
    request: Duration,
    linger: Duration,
    goodbye: Duration,
}

impl Deadlines {
    fn of(seconds: u32) -> Self {
        let time = Duration::from_secs(seconds.into());
        let (linger, goodbye) = (Duration::from_secs(1), Duration::from_millis(500));
        Self { head: time, body: time, request: time * 3, linger, goodbye }
    }

    fn settings(&self) -> Vec<String> {
        let flag = |name: &str, value: Duration| format!("--{name}={}", value.as_millis());
        vec![
            flag("head-timeout-ms", self.head),
            flag("body-timeout-ms", self.body),
            flag("linger-timeout-ms", self.linger),
            flag("goodbye-timeout-ms", self.goodbye),
        ]
    }

    /// The earliest and the latest moment at which such a client is cut off, counted from its connect.
    fn cut(&self, kind: Kind) -> (Duration, Duration) {
        match kind {
            Kind::Head => (self.head, self.head + self.goodbye),
            // A byte a second is under min-body-bytes-per-second, which is judged from then on; request-timeout-ms would
            // end it much later. It is told so, and may go on sending for a while.
            Kind::Body => (self.body, self.body + self.linger),
            // Whoever is waited for while writing is looked at four times in a head's time.
            Kind::Reader => (self.body, self.body + self.head / 4),
        }
    }

    fn latest(&self) -> Duration {
        Kind::ALL.into_iter().map(|kind| self.cut(kind).1).max().unwrap_or_default()
    }
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let clients = arguments.clients as usize;
    // Each client, and the connection to a replica that two of three of them cause.
    allow_open_files(clients + clients * 2 / 3 + 1000)?;
    let cores = Cores::divide()?;
    step_forward();
    let deadlines = Deadlines::of(arguments.deadline);
    let model = Duration::from_millis(arguments.model_ms.into());
    let (good_replica, crowd_replica) = (Replica::start(false, model)?, Replica::start(true, Duration::ZERO)?);
    let mut settings = deadlines.settings();
    settings.push(format!("--max-connections={}", clients + 1000));
    let world = world(&good_replica, &crowd_replica, &deadlines);
    let router = Router::start(&arguments.scorefront, cores.router, &dir, &world, &settings)?;

    let good = Good { target: router.address, endpoint: "good", rate: arguments.rate.into() };
    // Whatever is made at the first use is there before the first look.
    good.run(Duration::from_secs(2), 0)?;
    let mut rounds = Vec::new();
    for number in 0..arguments.rounds {
        rounds.push(one_round(arguments, &router, good, deadlines, number)?);
    }
    let slow_cut = router.metrics()?.by_label("scorefront_slow_clients_cut_total", "what");
    let summary = verdict::Summary { arguments, deadlines, cores, rounds, slow_cut, router: &router };
    summary.judge(&dir)
}

fn one_round(
    arguments: &Arguments,
    router: &Router,
    good: Good,
    deadlines: Deadlines,
    number: u32,
) -> anyhow::Result<Round> {
    let seed = 1000 + u64::from(number) * 10;
    let files_before = router.open_files()?;
    let before = good.run(Duration::from_secs(arguments.calm.into()), seed)?;

    let coming = Duration::from_secs_f64(f64::from(arguments.clients) / f64::from(arguments.pace));
    let length = coming + deadlines.latest();
    let crowd = Crowd {
        target: router.address,
        endpoint: "crowd",
        clients: arguments.clients as usize,
        pace: arguments.pace as usize,
        patience: deadlines.latest() * 2 + Duration::from_secs(20),
    };
    let slow = crowd.start();
    let beside = good.start(length, seed + 1);
    // All have come, and the first has time left: now it is fullest.
    thread::sleep(coming + deadlines.head.min(deadlines.body).saturating_sub(coming) / 4);
    let at_once = router.metrics()?.total("scorefront_connections") as u64;
    let sockets_mib = socket_memory_mib();
    let during = beside.join().map_err(|_| anyhow::anyhow!("a good client panicked"))??;
    let ends = slow.join().map_err(|_| anyhow::anyhow!("the crowd panicked"))??;
    let leftovers = settle(router, files_before)?;
    let memory = router.memory().context("the router has ended")?;
    println!(
        "round {}: {at_once} connections at once, {:.0} MiB resident at most, {:.0} MiB afterwards",
        number + 1,
        memory.peak_mib,
        memory.now_mib
    );
    Ok(Round { before, during, ends, at_once, sockets_mib, memory, leftovers })
}

/// Waits until nothing of the crowd is left, and says what is left if that does not happen.
fn settle(router: &Router, files_before: usize) -> anyhow::Result<Leftovers> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let metrics = router.metrics()?;
        let left = Leftovers {
            files: router.open_files()?.saturating_sub(files_before + FILES_SLACK),
            connections: metrics.total("scorefront_connections") as u64,
            in_flight: metrics.total("scorefront_in_flight_requests") as u64,
            abandoned: metrics.total("scorefront_abandoned_slots") as u64,
            queued: metrics.total("scorefront_queued_requests") as u64,
            lingering: metrics.total("scorefront_lingering_clients") as u64,
        };
        if left == Leftovers::default() || Instant::now() >= deadline {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Two endpoints, so that the crowd may have a replica of its own. Both have keys, and the crowd knows its key.
fn world(good: &Replica, crowd: &Replica, deadlines: &Deadlines) -> String {
    let mut out = String::new();
    // Good requests are late on a slow machine, and no failures for that.
    let (patient, short) = (good::REQUEST_MAX.as_millis().to_string(), deadlines.request.as_millis().to_string());
    for (endpoint, replica, timeout) in [("good", good.address, patient), ("crowd", crowd.address, short)] {
        let annotations = [("max-concurrent-requests-per-instance", "0"), ("request-timeout-ms", timeout.as_str())];
        write_secret(endpoint, &mut out);
        Deployment { endpoint, name: "blue", annotations: &annotations, replicas: &[replica] }.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_from_the_settings_that_the_router_gets() {
        let deadlines = Deadlines::of(10);
        assert!(deadlines.settings().contains(&"--head-timeout-ms=10000".to_owned()));
        let seconds = |kind| {
            let (earliest, latest) = deadlines.cut(kind);
            (earliest.as_secs_f64(), latest.as_secs_f64())
        };
        assert_eq!(seconds(Kind::Head), (10.0, 10.5));
        assert_eq!(seconds(Kind::Body), (10.0, 11.0));
        assert!(deadlines.request > deadlines.latest());
        assert_eq!(seconds(Kind::Reader), (10.0, 12.5));
    }
}
