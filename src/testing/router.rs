//! The whole router in the test's process, on free ports, with the world in a directory of manifests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::mpsc;

use super::client::{Client, request};
use super::world::World;
use super::{PATIENCE, eventually};
use crate::app::App;
use crate::control::config::{Config, Source};
use crate::core::snapshot::{Deployment, Snapshot};
use crate::core::vitals::Vitals;
use crate::ops::access_log::LogTarget;
use crate::ops::logging::Levels;
use crate::ops::signal::Request;

/// See the head of the file. Dropping it ends it at once.
pub struct Router {
    /// For clients.
    pub address: SocketAddr,
    /// For clients with TLS, where it listens for those.
    pub listen_tls: Vec<SocketAddr>,
    /// For operators.
    pub admin: SocketAddr,
    /// The world, as it is routed.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Counters of the router as a whole.
    pub vitals: Arc<Vitals>,
    directory: tempfile::TempDir,
    signals: mpsc::Sender<Request>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Router {
    /// Starts with the defaults and one worker, and waits until it is ready.
    pub async fn start(world: &World) -> Self {
        Self::start_with(world, |_| {}).await
    }

    /// The same with another configuration.
    pub async fn start_with(world: &World, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            listen: vec![loopback],
            admin: loopback,
            sources: vec![Source::Manifests(directory.path().join("manifests"))],
            workers: 1,
            access_log: LogTarget::File(directory.path().join("access.log")),
            drain_grace: Duration::ZERO,
            ..Config::default()
        };
        change(&mut config);
        std::fs::create_dir(directory.path().join("manifests")).expect("a directory for manifests");
        let (signals, requests) = mpsc::channel(8);
        let (tell, started) = tokio::sync::oneshot::channel();
        write_manifests(directory.path().join("manifests"), world);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async move {
                    let app = App::bind(config)?;
                    let addresses = app.addresses();
                    let _ = tell.send((addresses, app.snapshot.clone(), app.vitals.clone()));
                    let (levels, _) = Levels::detached("info");
                    app.run(levels, requests).await
                })
            })
            .expect("a thread for the router");
        let (addresses, snapshot, vitals) = started.await.expect("the router binds its sockets");
        let (address, listen_tls) = (addresses.listen[0], addresses.listen_tls);
        let (admin, thread) = (addresses.admin, Some(thread));
        let router = Self { address, listen_tls, admin, snapshot, vitals, directory, signals, thread };
        eventually("the router is ready", async || router.admin("/readyz").await.0 == 200).await;
        router
    }

    /// Puts another world in place of the present one, in one step, and waits until it is routed.
    pub async fn change(&self, world: &World) {
        let before = self.snapshot.load().version;
        self.rewrite(world);
        eventually("the change is routed", async || self.snapshot.load().version > before).await;
    }

    /// Puts another world in place of the present one, in one step.
    pub fn rewrite(&self, world: &World) {
        write_manifests(self.directory.path().join("manifests"), world);
    }

    /// For clients with TLS.
    pub fn tls(&self) -> SocketAddr {
        *self.listen_tls.first().expect("it listens with TLS")
    }

    /// A connection for a client.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Status and body of a page of the admin port.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.admin).await;
        let answer = client.ask(request("GET", path, &["Connection: close"], "")).await;
        (answer.status, answer.text())
    }

    /// The value of a series of `/metrics`, written as it is there; 0 where it is not.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.admin("/metrics").await;
        page.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.split(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until the access log has `n` lines, and returns them.
    pub async fn log(&self, n: usize) -> Vec<Value> {
        let path = self.directory.path().join("access.log");
        let read = || -> Vec<Value> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(|line| serde_json::from_str(line).expect("a log line is JSON")).collect()
        };
        eventually("the log lines are there", async || read().len() >= n).await;
        read()
    }

    /// A deployment of endpoint `iris` as it is routed now.
    pub fn deployment(&self, name: &str) -> Arc<Deployment> {
        let snapshot = self.snapshot.load();
        let endpoint = snapshot.find(crate::core::facts::Form::Endpoint, "iris").expect("endpoint iris is served");
        endpoint.deployment(name).expect("the deployment is served").clone()
    }

    /// Slots taken of all replicas of a deployment.
    pub fn taken(&self, name: &str) -> u32 {
        self.deployment(name).replicas.iter().map(|replica| replica.state.level().taken).sum()
    }

    /// Waits until so many requests wait for a deployment.
    pub async fn wait_for_queue(&self, name: &str, n: usize) {
        eventually("requests are in line", async || self.deployment(name).state.gate.waiting() == n).await;
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Request) {
        self.signals.send(signal).await.expect("the router runs");
    }

    /// Waits for the end. Says how it ended.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let thread = self.thread.take().expect("it has not ended yet");
        eventually("the router has ended", async || thread.is_finished()).await;
        thread.join().expect("the router does not panic")
    }

    /// Drains it, and checks that nothing was left behind.
    pub async fn drain(self) {
        self.signal(Request::Drain).await;
        self.drained().await;
    }

    /// Waits for the end of a drain, and checks that nothing was left behind: no slot taken, nobody in line.
    pub async fn drained(self) {
        let snapshot = self.snapshot.clone();
        self.end().await.expect("it drains");
        for endpoint in snapshot.load().endpoints() {
            for deployment in &endpoint.deployments {
                assert_eq!(deployment.state.gate.waiting(), 0, "somebody is still in line");
                for replica in deployment.replicas.iter() {
                    assert_eq!(replica.state.level().taken, 0, "a slot of {} is still taken", replica.name);
                }
            }
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let _ = self.signals.try_send(Request::Quit);
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn write_manifests(directory: PathBuf, world: &World) {
    let draft = directory.with_extension("draft");
    std::fs::write(&draft, world.text()).expect("the draft is written");
    std::fs::rename(draft, directory.join("world.yaml")).expect("the draft takes its place");
}
