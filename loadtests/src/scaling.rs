//! The `scaling` scenario: what a second worker gives, with few client connections and with many.
//!
//! The small request of `speed`, with everything on. One Scorefront has one worker, the other one two; they take turns
//! round by round. Nothing is pinned: front-end, clients and replica share all cores, as in a pod that has them all, so
//! what the others took is shown beside it. The figures are not judged, only that all requests are answered, and that
//! the connections are spread over the workers wherever there are enough of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contenders::{Contender, Face, Starter, log_name};
use crate::process::{Process, cpu_time_of_ended_children};
use crate::report::{Rounds, Verdict};
use crate::speed::wrk::Wrk;
use crate::speed::{Body, DEPLOYMENTS, machine, manifests};

/// Client connections: an ingress may hold only a handful.
const CONNECTIONS: [u32; 4] = [1, 8, 64, 1024];

/// From so many connections on each worker has some.
const SPREAD_FROM: u32 = 8;

/// The least CPU time that a worker then has used, of that of the one that used most, in the median of the rounds. They
/// differ by one connection at most, but not in CPU time alone: a worker may share its core with clients and replica while
/// the other one has a core for itself. An idle one uses a thousandth.
const SPREAD_MIN: f64 = 0.02;

/// Files for 1,024 connections of clients and as many of replicas, and some more.
const FILES: usize = 4096;

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Rounds; each has one worker and two, with each number of connections.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load on one front-end with one number of connections in one round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/scaling")]
    dir: PathBuf,
}

/// What one load gave: rates in requests per second, shares of all cores.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    cost_us: f64,
    router: f64,
    clients: f64,
    replica: f64,
    /// The worker with the least CPU time, of the one with the most.
    spread: f64,
}

/// All rounds of one Scorefront with one number of connections.
struct Row {
    connections: u32,
    workers: usize,
    samples: Vec<Sample>,
}

/// The medians of a row.
#[derive(Serialize)]
struct Figures {
    connections: u32,
    workers: usize,
    requests_per_second: Rounds,
    cost_us: Rounds,
    router_share: Rounds,
    clients_share: Rounds,
    replica_share: Rounds,
    spread: Rounds,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    crate::machine::allow_open_files(FILES)?;
    let (scorefront, envoy) = (&*arguments.scorefront, Path::new(""));
    let starter = |workers| Starter { dir: &dir, core: None, scorefront, envoy, face: Face { workers, ..Face::PLAIN } };
    let (replica, replica_process) = starter(1).instant_replica(None, true)?;
    let world = manifests(replica, DEPLOYMENTS);
    let mut contenders = [
        (1, starter(1).scorefront("scorefront-of-1", &world, &[])?),
        (2, starter(2).scorefront("scorefront-of-2", &world, &[])?),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for connections in CONNECTIONS {
        rows.extend([1, 2].map(|workers| Row { connections, workers, samples: Vec::new() }));
    }
    for _ in 0..arguments.rounds {
        for connections in CONNECTIONS {
            let wrk = Wrk::prepare(&dir, connections, Body::Small, true, false)?.on_any_core();
            for (workers, contender) in &contenders {
                let sample = measure(contender, &replica_process, &wrk, arguments.seconds)?;
                let row = rows.iter_mut().find(|row| row.connections == connections && row.workers == *workers);
                row.context("no such row")?.samples.push(sample);
                // Half a gigabyte a minute otherwise.
                File::options().write(true).open(dir.join(log_name(contender.name)))?.set_len(0)?;
            }
        }
        contenders.rotate_left(1);
    }
    report(&rows, &dir)
}

fn measure(contender: &Contender, replica: &Process, wrk: &Wrk, seconds: u32) -> anyhow::Result<Sample> {
    let times = || anyhow::Ok([contender.process.cpu_time()?, cpu_time_of_ended_children()?, replica.cpu_time()?]);
    let (before, workers_before, started) = (times()?, worker_times(contender)?, Instant::now());
    let loaded = wrk.load(contender.address, seconds)?;
    let took = started.elapsed().as_secs_f64();
    let (after, workers_after) = (times()?, worker_times(contender)?);
    let cores = std::thread::available_parallelism()?.get() as f64;
    let spent = |which: usize| after[which].saturating_sub(before[which]).as_secs_f64();
    let share = |which| spent(which) / took / cores;
    let worked = workers_after.iter().zip(&workers_before).map(|(after, before)| after.saturating_sub(*before));
    Ok(Sample {
        rate: loaded.count as f64 / took,
        cost_us: spent(0) * 1e6 / loaded.count as f64,
        router: share(0),
        clients: share(1),
        replica: share(2),
        spread: spread(&worked.collect::<Vec<_>>()),
    })
}

/// CPU time of each worker so far.
fn worker_times(contender: &Contender) -> anyhow::Result<Vec<Duration>> {
    let threads = contender.process.cpu_time_by_thread()?;
    Ok(threads.into_iter().filter(|(name, _)| name.starts_with("worker-")).map(|(_, time)| time).collect())
}

fn spread(worked: &[Duration]) -> f64 {
    let (least, most) = (worked.iter().min(), worked.iter().max());
    least.zip(most).map_or(0.0, |(least, most)| least.as_secs_f64() / most.as_secs_f64().max(f64::MIN_POSITIVE))
}

impl Row {
    fn figures(&self) -> anyhow::Result<Figures> {
        let rounds =
            |figure: fn(&Sample) -> f64| Rounds::of(self.samples.iter().map(figure).collect()).context("no rounds");
        Ok(Figures {
            connections: self.connections,
            workers: self.workers,
            requests_per_second: rounds(|sample| sample.rate)?,
            cost_us: rounds(|sample| sample.cost_us)?,
            router_share: rounds(|sample| sample.router)?,
            clients_share: rounds(|sample| sample.clients)?,
            replica_share: rounds(|sample| sample.replica)?,
            spread: rounds(|sample| sample.spread)?,
        })
    }
}

fn report(rows: &[Row], dir: &Path) -> anyhow::Result<Verdict> {
    println!(
        "connections  workers  requests/s  of one   µs/request   CPU of all cores: router  clients  replica  spread"
    );
    let mut verdict = Verdict::Passed;
    let mut results: Vec<Value> = Vec::new();
    let mut of_one = f64::NAN;
    for row in rows {
        let figures = row.figures()?;
        let rate = figures.requests_per_second.median;
        if row.workers == 1 {
            of_one = rate;
        }
        let percent = |rounds: Rounds| rounds.median * 100.0;
        println!(
            "{:11}  {:7}  {rate:10.0}  {:4.2} x  {:11.1}  {:23.0} %  {:5.0} %  {:5.0} %  {:6.2}",
            row.connections,
            row.workers,
            rate / of_one,
            figures.cost_us.median,
            percent(figures.router_share),
            percent(figures.clients_share),
            percent(figures.replica_share),
            figures.spread.median
        );
        if is_uneven(row.connections, figures.spread.median) {
            println!("{} connections left a worker idle", row.connections);
            verdict = Verdict::Failed;
        }
        results.push(serde_json::to_value(figures)?);
    }
    let file = dir.join("scaling.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&json!({ "machine": machine(), "rows": results }))?)?;
    println!("results: {}", file.display());
    Ok(verdict)
}

fn is_uneven(connections: u32, spread: f64) -> bool {
    connections >= SPREAD_FROM && spread < SPREAD_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_beside_a_busy_one_is_uneven_where_there_are_connections_for_both() {
        let ms = |each: &[u64]| spread(&each.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>());
        assert!(is_uneven(8, ms(&[4000, 10])) && is_uneven(1024, ms(&[0, 3000])));
        assert!(!is_uneven(1, ms(&[4000, 10])) && !is_uneven(8, ms(&[900, 1100])) && !is_uneven(64, ms(&[2000])));
        // Nothing was seen of any worker: that is no even spread.
        assert!(is_uneven(8, ms(&[])) && is_uneven(8, ms(&[0, 0])));
    }
}
