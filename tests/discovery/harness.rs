//! Discovery under way, and ways to look at what it made.

#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    reason = "each test program uses its part, and the harness fails as tests do"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use scorefront::control::discovery::{self, Discovery, DiscoveryError, Source};
use scorefront::core::facts::{Form, Problem};
use scorefront::core::snapshot::{Access, Snapshot};
use scorefront::core::vitals::Vitals;
use scorefront::testing::PATIENCE;
use tokio::task::JoinHandle;

/// Looks again and again until `look` sees something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a load that cannot be complete waits for, and what it found wrong by then: with as much patience as it takes to
/// find anything, on whatever machine.
pub(crate) async fn not_in_time(discovery: Discovery) -> (String, Vec<Problem>) {
    for patience in [200, 1000, 5000, 20_000].map(Duration::from_millis) {
        match discovery::load(discovery.clone(), patience).await {
            Err(DiscoveryError::TooSlow { problems, .. }) if problems.is_empty() => {}
            Err(DiscoveryError::TooSlow { waiting, problems, .. }) => return (waiting, problems),
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing was found wrong");
}

/// Discovery under way.
pub(crate) struct Running {
    pub(crate) store: Arc<ArcSwap<Snapshot>>,
    pub(crate) vitals: Arc<Vitals>,
    blocked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Holds readiness back while it lives.
struct Block(Arc<AtomicUsize>);

impl Drop for Block {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub(crate) fn start(sources: Vec<Source>, namespaces: &[&str]) -> Self {
        let namespaces = namespaces.iter().map(|&namespace| namespace.to_owned()).collect();
        Self::start_as(Discovery { sources, namespaces, workers: 1, router: Default::default(), state_file: None })
    }

    pub(crate) fn start_as(discovery: Discovery) -> Self {
        let store = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let blocked = Arc::new(AtomicUsize::new(0));
        let counter = blocked.clone();
        let block = move |_: &str| {
            counter.fetch_add(1, Ordering::SeqCst);
            Block(counter.clone())
        };
        let run = discovery::run(discovery, store.clone(), vitals.clone(), block, std::future::pending());
        let task = tokio::spawn(async move { run.await.expect("discovery begins") });
        Self { store, vitals, blocked, task }
    }

    /// Waits until the snapshot reads like this.
    pub(crate) async fn reads(&self, expected: &[&str]) {
        let start = Instant::now();
        while self.read() != expected {
            assert!(start.elapsed() < PATIENCE, "never read {expected:?} but {:?}, {:?}", self.read(), self.problems());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// `endpoint@namespace deployment: addresses [keys]`, one for each deployment, sorted.
    pub(crate) fn read(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for endpoint in self.store.load_full().endpoints() {
            for deployment in &endpoint.deployments {
                let mut line = format!("{}@{} {}:", endpoint.name, endpoint.namespace, deployment.name);
                for replica in deployment.replicas.iter() {
                    line = format!("{line} {}", replica.address);
                }
                if let Access::Keys(keys) = &endpoint.access {
                    line = format!("{line} [{} keys]", keys.len());
                }
                lines.push(line);
            }
        }
        lines.sort();
        lines
    }

    pub(crate) fn publications(&self) -> u64 {
        self.vitals.discovery.publications.read()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) == 0 && self.store.load().version > 0
    }

    pub(crate) async fn is_ready_soon(&self) {
        eventually("ready", || self.is_ready().then_some(())).await;
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.vitals.discovery.problems.lock().iter().map(ToString::to_string).collect()
    }

    /// Waits for a problem that has all of these words.
    pub(crate) async fn complains(&self, words: &[&str]) -> String {
        let fits = |problem: &String| words.iter().all(|word| problem.contains(word));
        eventually(&format!("a problem with {words:?}"), || self.problems().into_iter().find(fits)).await
    }

    pub(crate) async fn complains_no_more(&self) {
        eventually("no problem any more", || self.problems().is_empty().then_some(())).await;
    }

    /// Waits until everything that was said before this call has been taken in.
    pub(crate) async fn is_in_step(&self) {
        let called = self.vitals.micros(Instant::now());
        eventually("in step", || (self.in_step_us() > called).then_some(())).await;
    }

    pub(crate) fn in_step_us(&self) -> u64 {
        self.vitals.discovery.in_step_us.load(Ordering::Relaxed)
    }

    pub(crate) fn has(&self, endpoint: &str) -> bool {
        self.store.load().find(Form::Endpoint, endpoint).is_some()
    }
}
