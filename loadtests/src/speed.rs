//! The `speed` scenario: CPU time of each front-end per request, under each shape of traffic, on one core.
//!
//! Cost = user and system time of the front-end's process (threads and children too) divided by requests served.
//! Front-ends take turns round by round, so that what else the machine does hits all of them. Rounds are short and many: what
//! disturbs a machine for seconds then hits few of them, and for minutes, all front-ends alike.

pub mod clients;
mod judge;
mod shapes;
pub mod wrk;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub use self::judge::machine;
pub use self::shapes::{Body, DEPLOYMENTS};
use self::shapes::{FrontEnd, Load, Replica, SHAPES, Shape};
use self::wrk::{H2load, Loaded, Wrk};
use crate::contenders::{Certificate, Contender, Face, Nginx, Starter, log_name};
use crate::manifests::{Deployment, write_secret};
use crate::origin::BIG;
use crate::process::{Process, status_of};
use crate::report::Verdict;

/// Where every request goes.
pub const PATH: &str = "/api/v1/endpoint/model-0/score";

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
    /// Shapes of traffic, instead of all.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)))]
    only: Vec<String>,
    /// Rounds; each has every front-end.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load on one front-end in one round; twice as many with events and with 10,000 deployments.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Do not judge the figures, only that every request is answered: for machines that are busy with other things.
    #[arg(long)]
    unjudged: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/speed")]
    dir: PathBuf,
}

/// One front-end under one shape, and what its rounds gave.
struct Column {
    front_end: FrontEnd,
    contender: Contender,
    log: Option<PathBuf>,
    cost_us: Vec<f64>,
    requests_per_second: Vec<f64>,
    p99_us: Vec<f64>,
    requests: u64,
    logged: u64,
}

/// What one shape gave.
struct Measured {
    shape: &'static Shape,
    columns: Vec<Column>,
    /// The 99th percentile without a front-end, in µs, where the shape is about that.
    direct_p99_us: Vec<f64>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let certificate = Certificate::make(&dir)?;
    let wanted = |shape: &&Shape| arguments.only.is_empty() || arguments.only.iter().any(|name| name == shape.name);
    let mut results = Vec::new();
    let mut verdict = Verdict::Passed;
    for shape in SHAPES.iter().filter(wanted) {
        let measured = measure(arguments, shape, &dir, &certificate).with_context(|| shape.name)?;
        let (judged, row) = judge::judge(&measured, arguments.unjudged);
        results.push(row);
        if judged == Verdict::Failed {
            verdict = Verdict::Failed;
        }
    }
    judge::write(&results, &dir)?;
    Ok(verdict)
}

fn measure(
    arguments: &Arguments,
    shape: &'static Shape,
    dir: &Path,
    certificate: &Certificate,
) -> anyhow::Result<Measured> {
    let dir = dir.join(shape.name);
    std::fs::create_dir_all(&dir)?;
    let generator = Generator::prepare(shape, &dir)?;
    let face = Face { tls: shape.tls.then_some(certificate), http2: shape.load == Load::Http2, workers: 1 };
    let (scorefront, envoy) = (&*arguments.scorefront, &*arguments.envoy);
    let starter = Starter { dir: &dir, core: Some(0), scorefront, envoy, face };
    let (replica, _replica_process) = start_replica(&Starter { face: Face::PLAIN, ..starter }, shape.replica)?;
    let mut measured = Measured { shape, columns: Vec::new(), direct_p99_us: Vec::new() };
    for &front_end in shape.front_ends {
        measured.columns.push(Column::start(&starter, front_end, replica)?);
    }
    for column in &mut measured.columns {
        let warm_up = generator.load(column.contender.address, 1)?;
        column.count_logged(warm_up.count)?;
        column.logged = 0;
    }
    let seconds = shape.stretch() * arguments.seconds;
    for _ in 0..arguments.rounds {
        for column in &mut measured.columns {
            column.measure(&generator, seconds)?;
        }
        if shape.load == Load::Events {
            measured.direct_p99_us.extend(generator.load(replica, seconds)?.p99_us);
        }
        measured.columns.rotate_left(1);
    }
    measured.columns.sort_by_key(|column| shape.front_ends.iter().position(|&own| own == column.front_end));
    Ok(measured)
}

fn start_replica(starter: &Starter<'_>, replica: Replica) -> anyhow::Result<(SocketAddr, Process)> {
    let core = Some(1);
    match replica {
        Replica::Instant => starter.instant_replica(core, true),
        Replica::Closing => starter.instant_replica(core, false),
        Replica::Reading => starter.origin(core, "small"),
        Replica::Big => starter.origin(core, "big"),
        Replica::Events => starter.origin(core, "events"),
    }
}

impl Column {
    fn start(starter: &Starter<'_>, front_end: FrontEnd, replica: SocketAddr) -> anyhow::Result<Self> {
        let name = front_end.name();
        let contender = match front_end {
            FrontEnd::Floor => starter.floor(replica)?,
            FrontEnd::Nginx => starter.nginx(name, replica, Nginx { logs: false, buffers: true })?,
            FrontEnd::NginxLog => starter.nginx(name, replica, Nginx { logs: true, buffers: true })?,
            FrontEnd::NginxUnbuffered => starter.nginx(name, replica, Nginx { logs: true, buffers: false })?,
            FrontEnd::Haproxy => starter.haproxy(&[replica], None)?,
            FrontEnd::Envoy => starter.envoy(replica)?,
            FrontEnd::Scorefront(deployments) => starter.scorefront(name, &manifests(replica, deployments), &[])?,
        };
        let log = Some(starter.dir.join(log_name(name))).filter(|file| file.is_file());
        let (cost_us, requests_per_second, p99_us) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { front_end, contender, log, cost_us, requests_per_second, p99_us, requests: 0, logged: 0 })
    }

    fn measure(&mut self, generator: &Generator, seconds: u32) -> anyhow::Result<()> {
        let process = &self.contender.process;
        let before = process.cpu_time()?;
        let started = Instant::now();
        let loaded = generator.load(self.contender.address, seconds)?;
        let took = loaded.seconds.unwrap_or(started.elapsed().as_secs_f64());
        if let Some(admin) = self.contender.admin {
            anyhow::ensure!(status_of(admin, "/metrics") == Some(200), "{} gave no metrics", self.contender.name);
        }
        let used = process.cpu_time()?.saturating_sub(before);
        self.cost_us.push(used.as_secs_f64() * 1e6 / loaded.count as f64);
        self.requests_per_second.push(loaded.count as f64 / took);
        self.p99_us.extend(loaded.p99_us);
        self.requests += loaded.count;
        self.count_logged(loaded.count)
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

/// The load of one shape.
enum Generator {
    Wrk(Wrk),
    H2load(H2load),
    Handshakes,
    Events,
}

impl Generator {
    fn prepare(shape: &Shape, dir: &Path) -> anyhow::Result<Self> {
        Ok(match shape.load {
            Load::Requests { connections, body, keeps } => {
                Self::Wrk(Wrk::prepare(dir, connections, body, keeps, shape.tls)?)
            }
            Load::Http2 => Self::H2load(H2load::prepare(dir)?),
            Load::Handshakes => Self::Handshakes,
            Load::Events => Self::Events,
        })
    }

    /// Loads `target`; any failed request fails the scenario.
    fn load(&self, target: SocketAddr, seconds: u32) -> anyhow::Result<Loaded> {
        match self {
            Self::Wrk(wrk) => wrk.load(target, seconds),
            Self::H2load(h2load) => h2load.load(target, seconds),
            Self::Handshakes => clients::load(target, seconds, false),
            Self::Events => clients::load(target, seconds, true),
        }
    }
}

/// So many deployments, two to an endpoint, with keys, all of them on the one replica.
pub fn manifests(replica: SocketAddr, deployments: usize) -> String {
    let mut out = String::new();
    for number in 0..deployments {
        let endpoint = format!("model-{}", number / 2);
        let (name, percent) = if number % 2 == 0 { ("blue", "90") } else { ("green", "10") };
        if number % 2 == 0 {
            write_secret(&endpoint, &mut out);
        }
        let annotations = [("traffic-percent", percent), ("max-concurrent-requests-per-instance", "0")];
        Deployment { endpoint: &endpoint, name, annotations: &annotations, replicas: &[replica] }.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_as_many_deployments_as_asked_for_with_keys() {
        let manifests = manifests(SocketAddr::from(([127, 0, 0, 1], 5001)), 100);
        assert_eq!(manifests.matches("kind: Service\n").count(), 100);
        assert_eq!(manifests.matches("kind: EndpointSlice\n").count(), 100);
        assert_eq!(manifests.matches("kind: Secret\n").count(), 50);
    }
}
