//! Discovery as a whole: a scripted API server or files on one side, the published snapshot on the other.

#![allow(clippy::expect_used, reason = "the harness fails as the tests do")]

#[path = "discovery/cluster.rs"]
mod cluster;
#[path = "discovery/files.rs"]
mod files;
#[path = "discovery/logs.rs"]
mod logs;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use scorefront::control::discovery::{self, Discovery, Source};
use scorefront::core::facts::Form;
use scorefront::core::snapshot::{Access, Snapshot};
use scorefront::core::vitals::Vitals;
use scorefront::testing::PATIENCE;
use tokio::task::JoinHandle;

/// Looks again and again until `look` sees something.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Discovery under way.
struct Running {
    store: Arc<ArcSwap<Snapshot>>,
    vitals: Arc<Vitals>,
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
    fn start(sources: Vec<Source>, namespaces: &[&str]) -> Self {
        let namespaces = namespaces.iter().map(|&namespace| namespace.to_owned()).collect();
        let discovery = Discovery { sources, namespaces, workers: 1 };
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
    async fn reads(&self, expected: &[&str]) {
        eventually(&format!("{expected:?}"), || (self.read() == expected).then_some(())).await;
    }

    /// `endpoint@namespace deployment: addresses [keys]`, one for each deployment, sorted.
    fn read(&self) -> Vec<String> {
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

    fn publications(&self) -> u64 {
        self.vitals.discovery.publications.read()
    }

    fn is_ready(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) == 0 && self.store.load().version > 0
    }

    async fn is_ready_soon(&self) {
        eventually("ready", || self.is_ready().then_some(())).await;
    }

    fn problems(&self) -> Vec<String> {
        self.vitals.discovery.problems.lock().iter().map(ToString::to_string).collect()
    }

    /// Waits for a problem that has all of these words.
    async fn complains(&self, words: &[&str]) -> String {
        let fits = |problem: &String| words.iter().all(|word| problem.contains(word));
        eventually(&format!("a problem with {words:?}"), || self.problems().into_iter().find(fits)).await
    }

    async fn complains_no_more(&self) {
        eventually("no problem any more", || self.problems().is_empty().then_some(())).await;
    }

    /// Waits until everything that was said before this call has been taken in.
    async fn is_in_step(&self) {
        let called = self.vitals.micros(Instant::now());
        eventually("in step", || (self.in_step_us() > called).then_some(())).await;
    }

    fn in_step_us(&self) -> u64 {
        self.vitals.discovery.in_step_us.load(Ordering::Relaxed)
    }

    fn has(&self, endpoint: &str) -> bool {
        self.store.load().find(Form::Endpoint, endpoint).is_some()
    }
}
