//! The `fairness` scenario: what clients of one endpoint notice while another one is flooded and its replicas are broken.
//!
//! In each round the good clients are timed alone, and then beside the flood. The flooded endpoint has replicas that take
//! requests and never answer, that close each connection, and that take none: its line is full, its slots are taken for
//! nobody, its requests are tried again. None of that is the other endpoint's business.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::crowd::good::{Good, Seen};
use crate::crowd::replica::Replica;
use crate::machine::{Cores, allow_open_files, step_back, step_forward};
use crate::manifests::{Deployment, write_secret};
use crate::report::{Rounds, Verdict, Waits};
use crate::router::Router;

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Rounds, each without and with the flood.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of good requests, without and with the flood.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Good requests in a second, on average.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Requests in a second to the flooded endpoint, on average. There must be CPU left: it has no shares.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    flood: u32,
    /// The most that the good clients' p99 may be of what it is without the flood.
    #[arg(long, default_value_t = 1.2)]
    bar: f64,
    /// Do not judge times, only that good requests are answered.
    #[arg(long)]
    unjudged: bool,
    /// Where manifests, logs and results go.
    #[arg(long, default_value = "target/fairness")]
    dir: PathBuf,
}

/// One round.
struct Round {
    alone: Seen,
    beside: Seen,
    flooded: Seen,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    // What waits in line at most, and as many again that are on their way.
    allow_open_files(8000)?;
    let cores = Cores::divide()?;
    step_forward();
    let (good_replica, broken) = (Replica::start(false, Duration::ZERO)?, Broken::start()?);
    let world = world(good_replica.address, &broken.addresses);
    let settings = ["--max-connections-per-address=0".to_owned()];
    let router = Router::start(&arguments.scorefront, cores.router, &dir, &world, &settings)?;

    let good = Good { target: router.address, endpoint: "good", rate: arguments.rate.into() };
    let flood = Good { target: router.address, endpoint: "flooded", rate: arguments.flood.into() };
    let time = Duration::from_secs(arguments.seconds);
    good.run(Duration::from_secs(2), 0)?;
    let mut rounds = Vec::new();
    for number in 0..u64::from(arguments.rounds) {
        let alone = good.run(time, number * 10)?;
        // The flood is there before and after.
        let flooding = thread::spawn(move || {
            // What the good clients' core has to do for the flood is not the router's doing.
            step_back()?;
            flood.run(time + Duration::from_secs(2), number * 10 + 1)
        });
        thread::sleep(Duration::from_secs(1));
        let beside = good.run(time, number * 10 + 2)?;
        let flooded = flooding.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        rounds.push(Round { alone, beside, flooded });
    }
    judge(arguments, &rounds, &router, &dir)
}

/// Prints the table, writes it as JSON, and judges.
fn judge(arguments: &Arguments, rounds: &[Round], router: &Router, dir: &Path) -> anyhow::Result<Verdict> {
    let waits = |seen: &Seen| Waits::of(seen.latencies_ms.clone());
    let pairs: Vec<_> = rounds.iter().filter_map(|round| waits(&round.alone).zip(waits(&round.beside))).collect();
    let median = |figure: fn(&(Waits, Waits)) -> f64| Rounds::of(pairs.iter().map(figure).collect());
    let ratio = median(|(alone, beside)| beside.p99_ms / alone.p99_ms).context("no good request was timed")?;
    let (alone, beside) = median(|pair| pair.0.p99_ms).zip(median(|pair| pair.1.p99_ms)).context("no rounds")?;
    println!(
        "good clients' p99, ms: alone {:.2}, beside the flood {:.2} (medians of rounds)",
        alone.median, beside.median
    );
    println!("ratio: {:.2} (rounds: {:.2} to {:.2})", ratio.median, ratio.least, ratio.most);
    let outcomes = router.metrics()?.by_label("scorefront_requests_total", "outcome");
    println!("outcomes of all requests: {outcomes:?}");
    let mut failures = router.faults();
    let failed: u64 = rounds.iter().map(|round| round.alone.failed + round.beside.failed).sum();
    if failed > 0 {
        failures.push(format!("{failed} good requests failed"));
        failures.extend(rounds.iter().find_map(|round| round.beside.failed_why.clone()));
    }
    if rounds.iter().any(|round| round.flooded.failed == 0 || !round.flooded.latencies_ms.is_empty()) {
        failures.push("the flooded endpoint was not broken".to_owned());
    }
    if !arguments.unjudged && ratio.median > arguments.bar {
        failures.push(format!("the good clients' p99 is {:.2} times as long ({})", ratio.median, arguments.bar));
    }
    for failure in &failures {
        println!("over the bar: {failure}");
    }
    let file = dir.join("fairness.json");
    let results = serde_json::json!({
        "rounds": pairs, "p99_ratio": ratio, "outcomes": outcomes, "failures": failures, "good_per_second": arguments.rate,
        "flood_per_second": arguments.flood,
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    println!("results: {}", file.display());
    Ok(if failures.is_empty() { Verdict::Passed } else { Verdict::Failed })
}

/// Replicas that are no good, on threads that end with the process.
struct Broken {
    addresses: Vec<SocketAddr>,
    /// Bound and not listening: connects are refused, and nobody else gets the port.
    _deaf: Socket,
}

impl Broken {
    fn start() -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        for is_silent in [true, true, false, false] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            addresses.push(listener.local_addr()?);
            thread::spawn(move || {
                if let Err(error) = step_back() {
                    eprintln!("a broken replica is in the way of the good one: {error:#}");
                }
                // As many as a router may leave behind: one for each slot.
                let mut kept = Vec::new();
                while let Ok((stream, _)) = listener.accept() {
                    if is_silent && kept.len() < 1000 {
                        kept.push(stream);
                    }
                }
            });
        }
        let deaf = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        deaf.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        addresses.push(deaf.local_addr()?.as_socket().context("an address of a socket")?);
        Ok(Self { addresses, _deaf: deaf })
    }
}

fn world(good: SocketAddr, broken: &[SocketAddr]) -> String {
    let mut out = String::new();
    let patient = [("max-concurrent-requests-per-instance", "0"), ("request-timeout-ms", "60000")];
    let flooded = [("max-queue-wait-ms", "2000"), ("request-timeout-ms", "1000"), ("on-abandon", "close")];
    for (endpoint, replicas, annotations) in [("good", &[good][..], &patient[..]), ("flooded", broken, &flooded)] {
        write_secret(endpoint, &mut out);
        Deployment { endpoint, name: "blue", annotations, replicas }.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn broken_replicas_are_silent_or_close_or_refuse() {
        let broken = Broken::start().unwrap();
        let [first, _, third, _, last] = broken.addresses[..] else { panic!("{:?}", broken.addresses) };
        let silent = TcpStream::connect(first).unwrap();
        silent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!((&silent).read(&mut [0; 1]).is_err());
        assert_eq!(TcpStream::connect(third).unwrap().read(&mut [0; 1]).unwrap(), 0);
        assert!(TcpStream::connect(last).is_err());
    }
}
