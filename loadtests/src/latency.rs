//! The `latency` scenario: what a front-end adds to the time of a request, at a load far under what it can do.
//!
//! Open loop: small requests leave at 5,000 a second, as a Poisson stream, whatever became of those before. The same
//! schedule goes to the replica directly and through each front-end, in turns; what counts is the difference, of means
//! and of 99th percentiles, in the same round. Two workers each; nothing is pinned.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::contenders::{Face, Nginx, Starter};
use crate::generator::Load;
use crate::report::{Rounds, Verdict, Waits};
use crate::speed::{DEPLOYMENTS, PATH, manifests};

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// The Envoy binary.
    #[arg(long, default_value = ".venv/bin/envoy")]
    envoy: PathBuf,
    /// Rounds; each has the replica alone and every front-end.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of arrivals in one round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Requests per second.
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    /// Most that Scorefront may add to the mean, in µs.
    #[arg(long, default_value_t = 150.0)]
    mean_max_us: f64,
    /// Most that Scorefront may add to the 99th percentile, in µs.
    #[arg(long, default_value_t = 1000.0)]
    p99_max_us: f64,
    /// Do not judge the figures, only that every request is answered: for machines that are busy with other things.
    #[arg(long)]
    unjudged: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/latency")]
    dir: PathBuf,
}

/// A way to the replica, and the times that requests took on it, round by round.
struct Way {
    name: &'static str,
    address: SocketAddr,
    times: Vec<Waits>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let face = Face { workers: 2, ..Face::PLAIN };
    let starter = Starter { dir: &dir, core: None, scorefront: &arguments.scorefront, envoy: &arguments.envoy, face };
    let (replica, _replica_process) = starter.origin(None, "small")?;
    let contenders = [
        starter.nginx("nginx+log", replica, Nginx { logs: true, buffers: true })?,
        starter.haproxy(&[replica], None)?,
        starter.envoy(replica)?,
        starter.scorefront("scorefront", &manifests(replica, DEPLOYMENTS), &[])?,
    ];
    let mut ways = vec![Way { name: "direct", address: replica, times: Vec::new() }];
    ways.extend(contenders.iter().map(|own| Way { name: own.name, address: own.address, times: Vec::new() }));
    for round in 0..arguments.rounds {
        for way in &mut ways {
            let load = Load {
                target: way.address,
                path: PATH,
                rate: arguments.rate,
                service_mean: Duration::ZERO,
                duration: Duration::from_secs(arguments.seconds),
                warm_up: Duration::from_millis(500),
                seed: round + 1,
            };
            let measured = load.run()?;
            anyhow::ensure!(
                measured.failed() == 0,
                "{}: {} requests failed: by status {:?}, broken {:?}",
                way.name,
                measured.failed(),
                measured.refused,
                measured.broken_why
            );
            way.times.push(Waits::of(measured.waits_ms).context("nothing was measured")?);
        }
    }
    judge(arguments, &ways, &dir)
}

fn judge(arguments: &Arguments, ways: &[Way], dir: &std::path::Path) -> anyhow::Result<Verdict> {
    let direct = ways.first().context("no rounds")?;
    let mut verdict = Verdict::Passed;
    let mut rows = Vec::new();
    println!("way         mean µs   p99 µs   added: mean µs   p99 µs");
    for way in ways {
        let (mean, p99) = (rounds(way, |time| time.mean_ms)?, rounds(way, |time| time.p99_ms)?);
        let (more_mean, more_p99) = (added(way, direct, |time| time.mean_ms)?, added(way, direct, |time| time.p99_ms)?);
        println!(
            "{:10}  {:7.0}  {:7.0}  {:15.0}  {:7.0}",
            way.name, mean.median, p99.median, more_mean.median, more_p99.median
        );
        let over = more_mean.median > arguments.mean_max_us || more_p99.median > arguments.p99_max_us;
        if way.name == "scorefront" && over {
            println!(
                "scorefront adds more than {} µs to the mean or {} µs to the p99",
                arguments.mean_max_us, arguments.p99_max_us
            );
            verdict = if arguments.unjudged { verdict } else { Verdict::Failed };
        }
        rows.push(json!({
            "way": way.name, "mean_us": mean, "p99_us": p99, "added_mean_us": more_mean, "added_p99_us": more_p99,
        }));
    }
    let file = dir.join("latency.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&rows)?)?;
    println!("results: {}", file.display());
    Ok(verdict)
}

fn rounds(way: &Way, figure: fn(&Waits) -> f64) -> anyhow::Result<Rounds> {
    Rounds::of(way.times.iter().map(|time| figure(time) * 1e3).collect()).context("no rounds")
}

/// What the way adds in each round to what the same round took without it.
fn added(way: &Way, direct: &Way, figure: fn(&Waits) -> f64) -> anyhow::Result<Rounds> {
    let more = way.times.iter().zip(&direct.times).map(|(own, direct)| (figure(own) - figure(direct)) * 1e3);
    Rounds::of(more.collect()).context("no rounds")
}
