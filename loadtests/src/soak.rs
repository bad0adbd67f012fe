//! The `soak` scenario: mixed load for a long time, while replicas, keys, certificates and clients come and go.
//!
//! Holds: every request is accounted for three times, by its client, in the access log and in the counters, and all three
//! agree; memory and open files are flat; nothing is left at the end.

mod account;
pub mod authority;
mod churn;
mod clients;
pub mod link;
mod log;
mod raw;
mod replica;
mod steady;
mod verdict;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use self::account::{Account, Books};
use self::authority::Authority;
use self::churn::Churn;
use self::clients::{Client, Ground};
use self::log::LogReader;
use self::replica::Host;
use self::steady::Looking;
use self::world::World;
use crate::gauges::Metrics;
use crate::process::free_address;
use crate::report::Verdict;
use crate::router::Router;

/// How long the router may take to be at rest when the clients have gone: longer than any time-out in this run.
const SETTLE_MAX: Duration = Duration::from_secs(40);

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// The same in seconds, for less than a minute.
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: Option<u64>,
    /// Clients at a time; each sends some six requests a second.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=512))]
    clients: u64,
    /// Seed of what clients do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not judge memory and files, only that all accounts agree: for runs that are too short to say more.
    #[arg(long)]
    unjudged: bool,
    /// Where manifests, logs and results go.
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,
}

impl Arguments {
    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let certificate = dir.join("certificate");
    let authority = Authority::found(&certificate)?;
    let configs = [authority.client("http/1.1")?, authority.client("h2")?];
    let host = Host::start()?;
    let world = World::create(host.clone())?;
    let tls = free_address()?;
    let settings = [
        format!("--listen-tls={tls}"),
        format!("--tls-cert={}", certificate.display()),
        format!("--tls-key={}", certificate.display()),
        format!("--head-timeout-ms={}", world::HEAD_TIMEOUT_MS),
        format!("--body-timeout-ms={}", world::BODY_TIMEOUT_MS),
        "--linger-timeout-ms=1000".to_owned(),
    ];
    let router = Arc::new(Router::start(&arguments.scorefront, None, &dir, &world.manifests(), &settings)?);
    let account = Arc::new(Account::default());
    let mut log = LogReader::open(&router.log)?;
    let ground = Arc::new(Ground {
        plain: router.address,
        tls,
        configs,
        world: world.clone(),
        account: account.clone(),
        arrivals: host.arrivals,
        stop: AtomicBool::new(false),
    });
    let looking = Looking::start(router.clone());
    let churn = Churn::start(world, authority, router.clone());
    let crowd = Crowd::start(ground.clone(), arguments);
    watch(arguments, &router, &mut log, &account, &crowd)?;
    ground.stop.store(true, Ordering::Relaxed);
    let lives = crowd.join()?;
    // Looks from before the load ends are those that count.
    let looks = looking.stop()?;
    let changes = churn.stop()?;
    let end = settle(&router, &mut log, &account)?;
    verdict::Summary { arguments, lives, looks, changes, end, router: &router }.judge(&dir)
}

/// Follows the log until the time is over, and says how it goes.
fn watch(
    arguments: &Arguments,
    router: &Router,
    log: &mut LogReader,
    account: &Account,
    crowd: &Crowd,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut told, mut details) = (started, 0);
    while started.elapsed() < arguments.length() && !crowd.thread.is_finished() {
        thread::sleep(Duration::from_millis(200));
        log.follow(account)?;
        details = tell_new(account, details);
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            let (books, memory) = (account.books(), router.memory().context("the router has ended")?);
            println!(
                "{:5} s  {:8} requests, {} of them open, {} disagreements, {} unexpected, {:.1} MiB, {} files",
                started.elapsed().as_secs(),
                books.lines(),
                books.open(),
                books.disagreements,
                books.unexpected,
                memory.now_mib,
                router.open_files()?
            );
        }
    }
    Ok(())
}

/// Prints what has gone wrong since there were so many details; how many there are now.
fn tell_new(account: &Account, told: usize) -> usize {
    let details = account.details();
    for detail in details.iter().skip(told) {
        println!("{detail}");
    }
    details.len()
}

/// What is left when clients have gone.
struct End {
    books: Books,
    metrics: Metrics,
    /// Gauges that should be zero and are not.
    not_zero: Vec<String>,
}

/// Waits until nothing is under way and each line has been read, and closes the books.
fn settle(router: &Router, log: &mut LogReader, account: &Account) -> anyhow::Result<End> {
    const ZERO: [&str; 5] = [
        "scorefront_in_flight_requests",
        "scorefront_abandoned_slots",
        "scorefront_queued_requests",
        "scorefront_connections",
        "scorefront_replay_bytes",
    ];
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        log.follow(account)?;
        let (mut books, metrics) = (account.books(), router.metrics()?);
        let left = ZERO.iter().map(|name| (name, metrics.total(name))).filter(|(_, value)| *value != 0.0);
        let not_zero: Vec<_> = left.map(|(name, value)| format!("{name} is {value}")).collect();
        let is_read = books.lines() as f64 == metrics.total("scorefront_access_log_written_lines_total");
        if (not_zero.is_empty() && is_read && books.open() == 0) || Instant::now() >= deadline {
            books.close();
            return Ok(End { books, metrics, not_zero });
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The thread of all clients.
struct Crowd {
    thread: thread::JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Crowd {
    fn start(ground: Arc<Ground>, arguments: &Arguments) -> Self {
        let (count, seed) = (arguments.clients, arguments.seed);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(live(ground, count, seed)))
        });
        Self { thread }
    }

    /// What went wrong with clients, apart from what they told the account.
    fn join(self) -> anyhow::Result<Vec<String>> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the clients' thread panicked"))?
    }
}

async fn live(ground: Arc<Ground>, count: u64, seed: u64) -> Vec<String> {
    let mut living = JoinSet::new();
    for number in 0..count {
        living.spawn(Client::new(ground.clone(), number, seed).live());
    }
    let mut failures = Vec::new();
    while let Some(joined) = living.join_next().await {
        if let Err(error) = joined.context("a client panicked").flatten() {
            failures.push(format!("{error:#}"));
        }
    }
    failures
}
