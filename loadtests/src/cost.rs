//! The `cost` scenario: CPU time per small request of each front-end, on one core, at full load.
//!
//! Cost = user and system time of the front-end's process (threads and children too) divided by requests served.
//! Front-ends take turns round by round, so that what else the machine does hits all of them.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::contenders::{Contender, Starter, log_name};
use crate::manifests::{Deployment, KEY, write_secret};
use crate::process::{find_program, status_of};
use crate::report::{Rounds, Verdict};

const CONNECTIONS: u32 = 64;
const ENDPOINTS: usize = 50;
const PATH: &str = "/api/v1/endpoint/model-0/score";
const YARDSTICK: &str = "nginx+log";

/// The share of requests that a front-end with an access log must have logged: a line less costs less.
const LOGGED_MIN: f64 = 0.99;

/// How long the last log lines may take to reach the file.
const LOG_DELAY_MAX: Duration = Duration::from_secs(3);

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// The Envoy binary.
    #[arg(long, default_value = ".venv/bin/envoy")]
    envoy: PathBuf,
    /// Rounds; each has every front-end.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load on one front-end in one round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// The most that a request may cost of what it costs nginx with its log.
    #[arg(long, default_value_t = 1.3)]
    bar: f64,
    /// Do not judge the figures, only that every request is answered: for machines that are busy with other things.
    #[arg(long)]
    unjudged: bool,
    /// Measure the peers alone.
    #[arg(long)]
    yardstick_only: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/cost")]
    dir: PathBuf,
}

/// One front-end and what its rounds gave.
struct Column {
    contender: Contender,
    log: Option<PathBuf>,
    cost_us: Vec<f64>,
    requests_per_second: Vec<f64>,
    requests: u64,
    logged: u64,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let wrk = Wrk::prepare(&dir, arguments.seconds)?;
    let starter = Starter { dir: &dir, core: Some(0), scorefront: &arguments.scorefront, envoy: &arguments.envoy };
    let (replica, _replica_process) = starter.instant_replica(Some(1))?;
    let mut columns = Vec::new();
    for contender in start_all(&starter, arguments, replica)? {
        let log = Some(dir.join(log_name(contender.name))).filter(|file| file.is_file());
        columns.push(Column {
            contender,
            log,
            cost_us: Vec::new(),
            requests_per_second: Vec::new(),
            requests: 0,
            logged: 0,
        });
    }
    for column in &mut columns {
        let warm_up = wrk.load(column.contender.address, 1)?;
        column.count_logged(warm_up)?;
        column.logged = 0;
    }
    for _ in 0..arguments.rounds {
        for column in &mut columns {
            column.measure(&wrk)?;
        }
        columns.rotate_left(1);
    }
    columns.sort_by_key(|column| column.contender.name);
    judge(arguments, &columns, &dir)
}

fn start_all(starter: &Starter<'_>, arguments: &Arguments, replica: SocketAddr) -> anyhow::Result<Vec<Contender>> {
    let mut contenders = vec![
        starter.nginx("nginx", replica, false)?,
        starter.nginx(YARDSTICK, replica, true)?,
        starter.haproxy(&[replica], None)?,
        starter.envoy(replica)?,
    ];
    if !arguments.yardstick_only {
        contenders.push(starter.scorefront(&manifests(replica))?);
    }
    Ok(contenders)
}

impl Column {
    fn measure(&mut self, wrk: &Wrk) -> anyhow::Result<()> {
        let process = &self.contender.process;
        let before = process.cpu_time()?;
        let started = Instant::now();
        let requests = wrk.load(self.contender.address, wrk.seconds)?;
        if let Some(admin) = self.contender.admin {
            anyhow::ensure!(status_of(admin, "/metrics") == Some(200), "{} gave no metrics", self.contender.name);
        }
        let used = process.cpu_time()?.saturating_sub(before);
        self.cost_us.push(used.as_secs_f64() * 1e6 / requests as f64);
        self.requests_per_second.push(requests as f64 / started.elapsed().as_secs_f64());
        self.requests += requests;
        self.count_logged(requests)
    }

    /// Counts the lines of this round, waiting for the last of them, and empties the file.
    fn count_logged(&mut self, requests: u64) -> anyhow::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let deadline = Instant::now() + LOG_DELAY_MAX;
        let mut lines = count_lines(log)?;
        while lines < requests && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
            lines = count_lines(log)?;
        }
        self.logged += lines;
        File::options().write(true).open(log)?.set_len(0)?;
        Ok(())
    }
}

fn count_lines(file: &Path) -> anyhow::Result<u64> {
    let mut file = File::open(file).with_context(|| format!("read {}", file.display()))?;
    let mut chunk = vec![0; 1 << 20];
    let mut lines = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(lines);
        }
        lines += chunk.iter().take(read).filter(|&&byte| byte == b'\n').count() as u64;
    }
}

/// Debian's load generator, on the other core.
struct Wrk {
    program: PathBuf,
    script: PathBuf,
    seconds: u32,
}

impl Wrk {
    fn prepare(dir: &Path, seconds: u32) -> anyhow::Result<Self> {
        let script = dir.join("score.lua");
        std::fs::write(&script, include_str!("score.lua").replace("KEY", KEY))?;
        Ok(Self { program: find_program("wrk", "wrk")?, script, seconds })
    }

    /// Loads `target` and gives the number of requests; any failed request fails the scenario.
    fn load(&self, target: SocketAddr, seconds: u32) -> anyhow::Result<u64> {
        let output = Command::new("taskset")
            .args(["--cpu-list", "1"])
            .arg(&self.program)
            .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "-s"])
            .arg(&self.script)
            .arg(format!("http://{target}{PATH}"))
            .output()
            .context("start taskset (Debian package util-linux)")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        requests_in(&printed)
            .with_context(|| format!("wrk on {target}: {printed}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The number of requests that wrk reports, if all of them were answered with 2xx.
fn requests_in(report: &str) -> anyhow::Result<u64> {
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        bail!("some requests failed");
    }
    let line = report.lines().find(|line| line.contains(" requests in ")).context("no count of requests")?;
    let count: u64 = line.trim().split(' ').next().unwrap_or_default().parse().context("not a count")?;
    anyhow::ensure!(count > 0, "no request was answered");
    Ok(count)
}

/// Prints the table, writes it as JSON, and says whether Scorefront keeps to the bar.
fn judge(arguments: &Arguments, columns: &[Column], dir: &Path) -> anyhow::Result<Verdict> {
    let costs = |column: &Column| Rounds::of(column.cost_us.clone()).context("no rounds");
    let yardstick = columns.iter().find(|column| column.contender.name == YARDSTICK).context("no yardstick")?;
    let base = costs(yardstick)?.median;
    let mut verdict = Verdict::Passed;
    let mut rows = Vec::new();
    println!("front-end   µs/request: median   least    most  requests/s  logged  ratio to {YARDSTICK}");
    for column in columns {
        let name = column.contender.name;
        let cost = costs(column)?;
        let rate = Rounds::of(column.requests_per_second.clone()).context("no rounds")?;
        let ratio = cost.median / base;
        let logged = column.log.as_ref().map(|_| column.logged as f64 / column.requests as f64);
        let logged_shown = logged.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        println!(
            "{name:10}  {:18.1}  {:6.1}  {:6.1}  {:10.0}  {logged_shown:>7}  {ratio:5.2}",
            cost.median, cost.least, cost.most, rate.median
        );
        if logged.is_some_and(|share| share < LOGGED_MIN) {
            println!("{name}: logged only {logged_shown} of its requests");
            verdict = if arguments.unjudged { verdict } else { Verdict::Failed };
        }
        if name == "scorefront" && !arguments.unjudged && ratio > arguments.bar {
            println!("{name}: costs more than {} times {YARDSTICK}", arguments.bar);
            verdict = Verdict::Failed;
        }
        rows.push(serde_json::json!({
            "front_end": name, "cost_us": cost, "rounds_us": column.cost_us, "requests": column.requests,
            "requests_per_second": rate, "logged_share": logged, "ratio": ratio,
        }));
    }
    let file = dir.join("cost.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&rows)?)?;
    println!("results: {}", file.display());
    Ok(verdict)
}

/// 100 deployments with keys, all of them on the one replica.
fn manifests(replica: SocketAddr) -> String {
    let mut out = String::new();
    for number in 0..ENDPOINTS {
        let endpoint = format!("model-{number}");
        write_secret(&endpoint, &mut out);
        for (name, percent) in [("blue", "90"), ("green", "10")] {
            let annotations = [("traffic-percent", percent), ("max-concurrent-requests-per-instance", "0")];
            Deployment { endpoint: &endpoint, name, annotations: &annotations, replicas: &[replica] }.write(&mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_report_gives_its_count() {
        assert_eq!(requests_in("Running 5s test\n  312345 requests in 5.00s, 60MB read\n").unwrap(), 312_345);
    }

    #[test]
    fn a_report_with_failures_is_no_measurement() {
        for line in ["  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 1, write 0, timeout 0"] {
            assert!(requests_in(&format!("  12 requests in 5.00s\n{line}\n")).is_err());
        }
        assert!(requests_in("").is_err());
        assert!(requests_in("  0 requests in 5.00s").is_err());
    }

    #[test]
    fn the_table_has_a_hundred_deployments_with_keys() {
        let manifests = manifests(SocketAddr::from(([127, 0, 0, 1], 5001)));
        assert_eq!(manifests.matches("kind: Service\n").count(), 100);
        assert_eq!(manifests.matches("kind: EndpointSlice\n").count(), 100);
        assert_eq!(manifests.matches("kind: Secret\n").count(), 50);
    }
}
