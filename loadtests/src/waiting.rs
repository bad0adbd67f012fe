//! The `waiting` scenario: one queue in front of 12 replicas that serve one request at a time.
//!
//! In each round and at each load both front-ends get the same arrivals with the same work, one after the other, in
//! turns as to who is first. HAProxy with `maxconn 1` per server is a single perfect queue: the yardstick.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::contenders::{Contender, Face, Starter};
use crate::generator::{Load, Measured};
use crate::manifests::Deployment;
use crate::replica::Replicas;
use crate::report::{Rounds, Verdict, Waits};

const REPLICAS: usize = 12;
const SERVICE_MEAN: Duration = Duration::from_millis(20);
const PATH: &str = "/api/v1/endpoint/waiting/score";

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Loads, in percent of what the replicas can serve.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 70, 80], value_parser = clap::value_parser!(u32).range(1..=95))]
    loads: Vec<u32>,
    /// Rounds; each has every load for every front-end. Many short ones: what disturbs the machine spoils one of them.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of arrivals in one round at one load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: u64,
    /// Seed of arrivals and service times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The most that mean and p99 may be of HAProxy's.
    #[arg(long, default_value_t = 1.1)]
    bar: f64,
    /// Do not judge the figures, only that every request is answered: for machines that are busy with other things.
    #[arg(long)]
    unjudged: bool,
    /// Measure HAProxy alone.
    #[arg(long)]
    yardstick_only: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/waiting")]
    dir: PathBuf,
}

/// All rounds of one load, by front-end.
struct Column {
    percent: u32,
    measured: Vec<(&'static str, Vec<Measured>)>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let replicas = Replicas::start(REPLICAS)?;
    let (scorefront, envoy) = (&*arguments.scorefront, Path::new(""));
    let starter = Starter { dir: &dir, core: None, scorefront, envoy, face: Face::PLAIN };
    let mut contenders = vec![starter.haproxy(replicas.addresses(), Some(1))?];
    if !arguments.yardstick_only {
        contenders.push(starter.scorefront("scorefront", &manifests(replicas.addresses()), &[])?);
    }

    let mut columns: Vec<Column> =
        arguments.loads.iter().map(|&percent| Column { percent, measured: Vec::new() }).collect();
    for round in 0..arguments.rounds {
        for column in &mut columns {
            measure(arguments, &contenders, round, column)?;
        }
        contenders.reverse();
    }
    let silent = replicas.silent_connections();
    if silent > 0 {
        println!("{silent} connections to replicas brought no request: a front-end connects ahead of need or gives up");
    }
    judge(arguments, columns, &dir)
}

fn measure(arguments: &Arguments, contenders: &[Contender], round: u64, column: &mut Column) -> anyhow::Result<()> {
    let capacity = REPLICAS as f64 / SERVICE_MEAN.as_secs_f64();
    for contender in contenders {
        let load = Load {
            target: contender.address,
            path: PATH,
            rate: capacity * f64::from(column.percent) / 100.0,
            service_mean: SERVICE_MEAN,
            duration: Duration::from_secs(arguments.seconds),
            warm_up: Duration::from_secs(1).min(Duration::from_secs(arguments.seconds) / 4),
            seed: arguments.seed + round * 1000 + u64::from(column.percent),
        };
        let measured = load.run()?;
        match column.measured.iter_mut().find(|(name, _)| *name == contender.name) {
            Some((_, rounds)) => rounds.push(measured),
            None => column.measured.push((contender.name, vec![measured])),
        }
    }
    Ok(())
}

/// Prints the table, writes it as JSON, and says whether Scorefront keeps to the bar.
fn judge(arguments: &Arguments, columns: Vec<Column>, dir: &Path) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Passed;
    let mut rows = Vec::new();
    println!("load  front-end   requests  mean ms    p99 ms   mean ratio  p99 ratio");
    for Column { percent, mut measured } in columns {
        measured.sort_by_key(|(name, _)| *name);
        let mut yardstick: Option<Vec<Waits>> = None;
        for (name, rounds) in measured {
            let waits: Vec<_> = rounds.iter().filter_map(|round| Waits::of(round.waits_ms.clone())).collect();
            let count = waits.iter().map(|round| round.count).sum::<usize>();
            let mut measured = Measured::default();
            rounds.into_iter().for_each(|round| measured.merge(round));
            let failed = measured.failed();
            if failed > 0 {
                println!(
                    "{percent:3}%  {name}: {failed} requests failed: by status {:?}, broken {} ({})",
                    measured.refused,
                    measured.broken,
                    measured.broken_why.as_deref().unwrap_or("none")
                );
                verdict = Verdict::Failed;
            }
            let base = yardstick.get_or_insert_with(|| waits.clone());
            let (means, p99s) =
                (compare(&waits, base, |round| round.mean_ms), compare(&waits, base, |round| round.p99_ms));
            let (Some((mean, mean_ratio)), Some((p99, p99_ratio))) = (means, p99s) else {
                println!("{percent:3}%  {name}: nothing was measured");
                verdict = Verdict::Failed;
                continue;
            };
            println!(
                "{percent:3}%  {name:10}  {count:8}  {:7.2}  {:8.2}  {:11.2}  {:9.2}",
                mean.median, p99.median, mean_ratio.median, p99_ratio.median
            );
            if !arguments.unjudged && mean_ratio.median.max(p99_ratio.median) > arguments.bar {
                println!("{percent:3}%  {name}: waits longer than {} times HAProxy's", arguments.bar);
                verdict = Verdict::Failed;
            }
            rows.push(serde_json::json!({
                "load_percent": percent, "front_end": name, "requests": count, "failed": failed, "rounds": waits,
                "mean_ms": mean, "p99_ms": p99, "mean_ratio": mean_ratio, "p99_ratio": p99_ratio,
            }));
        }
    }
    let file = dir.join("waiting.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&rows)?)?;
    println!("results: {}", file.display());
    Ok(verdict)
}

/// Medians over the rounds of one figure, and of its ratio to the yardstick's in the same round: a round that something
/// else on the machine disturbed does not decide.
fn compare(waits: &[Waits], base: &[Waits], figure: fn(&Waits) -> f64) -> Option<(Rounds, Rounds)> {
    let ratios = waits.iter().zip(base).map(|(own, other)| figure(own) / figure(other));
    Some((Rounds::of(waits.iter().map(figure).collect())?, Rounds::of(ratios.collect())?))
}

fn manifests(replicas: &[SocketAddr]) -> String {
    let mut out = String::new();
    let annotations = [
        ("auth-mode", "none"),
        ("max-concurrent-requests-per-instance", "1"),
        ("max-queue-wait-ms", "30000"),
        ("max-queue-length", "10000"),
        ("request-timeout-ms", "60000"),
    ];
    Deployment { endpoint: "waiting", name: "blue", annotations: &annotations, replicas }.write(&mut out);
    out
}
