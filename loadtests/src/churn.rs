//! The `churn` scenario: what 1,000 changed EndpointSlices a second do to the requests that are served meanwhile.
//!
//! Scorefront finds 1,000 deployments at an API server of this program, and one more, which is scored, in manifests.
//! Round by round the same open-loop load is sent without changes and with them. Counted are the 99th percentile of the
//! requests' times and the CPU time of all threads but the workers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::cluster::Cluster;
use crate::contenders::{Face, Starter};
use crate::generator::Load;
use crate::machine::Cores;
use crate::report::{Rounds, Verdict, Waits};
use crate::speed::{PATH, manifests};

/// Deployments that change.
const DEPLOYMENTS: usize = 1000;

/// Most that the p99 may be of that without changes, and most of one core that everything but the workers may use.
const P99_RATIO_MAX: f64 = 1.1;
const CONTROL_SHARE_MAX: f64 = 0.2;

/// How long the first world may take to be known.
const DISCOVERY_MAX: Duration = Duration::from_secs(60);

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Rounds; each without changes and with them.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of arrivals in one round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Requests per second.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Changed slices per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    changes: u64,
    /// Do not judge the figures, only that every request is answered: for machines that are busy with other things.
    #[arg(long)]
    unjudged: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/churn")]
    dir: PathBuf,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let cores = Cores::divide()?;
    let cluster = Cluster::start(DEPLOYMENTS)?;
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig())?;
    let (scorefront, envoy) = (&*arguments.scorefront, Path::new(""));
    let starter = Starter { dir: &dir, core: cores.router, scorefront, envoy, face: Face::PLAIN };
    let (replica, _replica_process) = starter.origin(cores.others, "small")?;
    let more = ["--source=kubernetes", &format!("--kubeconfig={}", kubeconfig.display())];
    let contender = starter.scorefront("scorefront", &manifests(replica, 2), &more)?;
    let admin = contender.admin.context("no admin port")?;
    let deadline = Instant::now() + DISCOVERY_MAX;
    while !crate::process::body_of(admin, "/debug/snapshot").is_some_and(|body| body.contains("churn-999")) {
        anyhow::ensure!(Instant::now() < deadline, "the deployments of the API server did not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (mut calm, mut changing, mut shares, mut changes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        for rate in [0, arguments.changes] {
            let load = Load {
                target: contender.address,
                path: PATH,
                rate: arguments.rate,
                service_mean: Duration::ZERO,
                duration: Duration::from_secs(arguments.seconds),
                warm_up: Duration::from_millis(500),
                seed: round + 1,
            };
            cluster.change(rate);
            let (before, sent, started) =
                (contender.process.cpu_time_beside("worker-")?, cluster.sent(), Instant::now());
            let measured = load.run()?;
            let took = started.elapsed().as_secs_f64();
            let used = contender.process.cpu_time_beside("worker-")?.saturating_sub(before).as_secs_f64();
            anyhow::ensure!(measured.failed() == 0, "requests failed: {:?}", measured.broken_why);
            let times = Waits::of(measured.waits_ms).context("nothing was measured")?;
            if rate == 0 {
                calm.push(times);
            } else {
                changing.push(times);
                shares.push(used / took);
                changes.push((cluster.sent() - sent) as f64 / took);
            }
        }
    }
    cluster.change(0);
    judge(arguments, &calm, &changing, shares, changes, &dir)
}

fn judge(
    arguments: &Arguments,
    calm: &[Waits],
    changing: &[Waits],
    shares: Vec<f64>,
    changes: Vec<f64>,
    dir: &Path,
) -> anyhow::Result<Verdict> {
    let p99 = |times: &[Waits]| Rounds::of(times.iter().map(|time| time.p99_ms * 1e3).collect()).context("no rounds");
    let (quiet, busy) = (p99(calm)?, p99(changing)?);
    let ratio = busy.median / quiet.median;
    let share = Rounds::of(shares).context("no rounds")?;
    let rate = Rounds::of(changes).context("no rounds")?;
    println!(
        "{:.0} changes/s: p99 {:.0} µs, {:.0} µs without ({ratio:.2} x, bar {P99_RATIO_MAX}); beside the workers {:.1} % \
         of a core (bar {:.0} %)",
        rate.median,
        busy.median,
        quiet.median,
        share.median * 100.0,
        CONTROL_SHARE_MAX * 100.0
    );
    let file = dir.join("churn.json");
    let row = json!({
        "changes_per_second": rate, "calm_p99_us": quiet, "changing_p99_us": busy, "ratio": ratio, "control_share": share,
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&row)?)?;
    println!("results: {}", file.display());
    let over = ratio > P99_RATIO_MAX || share.median > CONTROL_SHARE_MAX;
    Ok(if over && !arguments.unjudged { Verdict::Failed } else { Verdict::Passed })
}
