//! The composition root: a configuration becomes a running router. The only file that sees every plane.
//!
//! Threads: this one (the control runtime: discovery, admin port, signals, drain), one for each worker, and the
//! writers of the logs. Sockets are bound before anything runs, so that a taken port is an error at start.
//!
//! The end, in order: readiness fails and clients are discouraged, while new requests are still served for the grace;
//! then the listeners close and what runs is finished, up to the drain time-out, shortly before which those who still
//! wait in line are turned away; then what still runs is cut off; the logs are flushed. A second signal skips to the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use crate::control;
use crate::control::certificates::Certificates;
use crate::control::config::{self, Config};
use crate::control::discovery::{self, Discovery, Source};
use crate::control::state_file::StateFile;
use crate::control::tokens;
use crate::core::assemble::Router;
use crate::core::facts::{ObjectRef, Problem};
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;
use crate::data::listen::{Listener, Workers, accept};
use crate::data::tls::Tls;
use crate::data::worker::{Handle, Phase, Shared, Worker};
use crate::ops::access_log::AccessLog;
use crate::ops::admin::{self, Admin};
use crate::ops::descriptors;
use crate::ops::logging::Levels;
use crate::ops::memory;
use crate::ops::metrics::Metrics;
use crate::ops::priority;
use crate::ops::ready::Ready;
use crate::ops::signal::Request;

/// How long the logs have to be written out at the end.
pub const FLUSH: Duration = Duration::from_secs(2);

/// How long before the end of the drain time-out those who still wait in line are told.
const LAST_CALL: Duration = Duration::from_secs(1);

/// A router with its sockets bound, not serving yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// Objects that come from elsewhere than the configuration.
    embedded: Option<String>,
    /// The world, as it is routed.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Counters of the router as a whole.
    pub vitals: Arc<Vitals>,
    ready: Ready,
    listeners: Vec<Listener>,
    certificates: Option<Certificates>,
    admin: Admin,
    access_log: AccessLog,
}

/// Where a router listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For clients without TLS.
    pub listen: Vec<SocketAddr>,
    /// For clients with TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// For operators.
    pub admin: SocketAddr,
}

impl App {
    /// Binds all sockets and opens the access log.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        let workers = config.workers;
        let vitals = Arc::new(Vitals::new(workers, Instant::now()));
        vitals.memory.set_limit(config.memory_bytes_max.unwrap_or(0));
        let pipes_max = workers.saturating_mul(config.limits.splice_pipes_max);
        descriptors::prepare(&vitals, config.limits.connections_max, pipes_max);
        let bind = |address: &SocketAddr, setting: &str| {
            Listener::bind(*address, config.limits.unsent_max).with_context(|| format!("{setting} {address}"))
        };
        let mut listeners =
            config.listen.iter().map(|address| bind(address, "--listen")).collect::<anyhow::Result<Vec<_>>>()?;
        let mut certificates = None;
        if !config.tls.listen.is_empty() {
            let opened = Certificates::open(&config.tls, vitals.clone()).map_err(anyhow::Error::msg)?;
            let tls = Arc::new(Tls::new(&config.limits, opened.resolver(), opened.verifier())?);
            for address in &config.tls.listen {
                listeners.push(bind(address, "--listen-tls")?.with_tls(tls.clone()));
            }
            certificates = Some(opened);
        }
        let admin = admin::bind(config.admin).with_context(|| format!("--admin {}", config.admin))?;
        let access_log = AccessLog::start(&config.access_log, workers, config.access_log_buffer_bytes, vitals.clone())
            .with_context(|| format!("--access-log {}", config.access_log))?;
        let ready = Ready::new(vitals.clone());
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        Ok(Self { config, embedded: None, snapshot, vitals, ready, listeners, certificates, admin, access_log })
    }

    /// Serves these manifests too.
    #[must_use]
    pub fn with_manifests(mut self, manifests: String) -> Self {
        self.embedded = Some(manifests);
        self
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        let (tls, plain): (Vec<_>, Vec<_>) = self.listeners.iter().partition(|listener| listener.has_tls());
        let [listen, listen_tls] = [plain, tls].map(|some| some.into_iter().map(Listener::address).collect());
        Addresses { listen, listen_tls, admin: self.admin.local_addr() }
    }

    /// Serves until it is asked to end. Must run on a single-threaded runtime with time and I/O.
    pub async fn run(self, levels: Levels, mut requests: mpsc::Receiver<Request>) -> anyhow::Result<()> {
        let addresses = self.addresses();
        let (phase, phases) = watch::channel(Phase::Running);
        let limits = self.config.limits.clone();
        let shared = Shared::new(self.snapshot.clone(), limits, self.vitals.clone(), phases.clone());
        let mut sources = discovery(&self.config).await?;
        sources.state_file = self.config.state_file.clone().map(|path| StateFile {
            path,
            max_age: self.config.state_max_age,
            key_file: self.config.state_key_file.clone(),
        });
        sources.sources.extend(self.embedded.map(|text| Source::Text { name: "embedded".to_owned(), text }));
        // Until discovery has said what it waits for, this block stands for all of that.
        let (ready, first) = (self.ready.clone(), self.ready.block("discovery to begin"));
        let block = move |what: &str| {
            let _ = &first;
            ready.block(what)
        };
        let discovery =
            discovery::run(sources, self.snapshot.clone(), self.vitals.clone(), block, std::future::pending());
        let mut discovery = tokio::spawn(discovery);
        let state = Arc::new(admin::State {
            snapshot: self.snapshot.clone(),
            vitals: self.vitals.clone(),
            ready: self.ready.clone(),
            metrics: Metrics::new(self.snapshot.clone(), self.vitals.clone(), &self.config.limits),
            levels,
            config: serde_json::to_value(&self.config)?,
        });
        let renewing = match self.certificates {
            Some(certificates) => Some(tokio::spawn(follow(certificates, &self.config, &self.ready).await?)),
            None => None,
        };
        let tokens = follow_tokens(&self.config, &self.vitals, &self.ready).await?.map(tokio::spawn);
        let memory = tokio::spawn(memory::watch(self.vitals.clone()));
        let giving_back = tokio::spawn(memory::give_back());
        let admin = tokio::spawn(self.admin.serve(state, reached(phases.clone(), Phase::Forced)));
        let ended = Arc::new(Notify::new());
        let workers = start_workers(&self.config, &shared, &self.access_log, &ended)?;
        // After the workers have started, which would be as nice.
        priority::give_way();
        serve_listeners(self.listeners, &workers, &phases);
        tracing::info!(
            target: "scorefront::start",
            version = env!("CARGO_PKG_VERSION"), commit = env!("SCOREFRONT_COMMIT"),
            listen = ?addresses.listen, listen_tls = ?addresses.listen_tls, admin = %addresses.admin, workers = workers.len(), "serving"
        );
        // Every worker is waited for, also after one that ended badly.
        let join = move || workers.into_iter().map(Handle::join).filter(|joined| !joined).count() == 0;
        let mut done = tokio::task::spawn_blocking(join);
        let drain = Drain { phase, ended, vitals: &self.vitals, access_log: &self.access_log, config: &self.config };
        let end = tokio::select! {
            end = drain.watch(&mut requests, &mut done) => end,
            end = &mut discovery => Err(match end {
                Ok(Ok(())) => anyhow::anyhow!("discovery has ended by itself; see the trace log"),
                Ok(Err(error)) => error.into(),
                Err(error) => error.into(),
            }),
        };
        // Whatever happened: no thread and no line is left behind.
        drain.phase.send_replace(Phase::Forced);
        if !done.is_finished() {
            let _ = (&mut done).await;
        }
        discovery.abort();
        admin.abort();
        memory.abort();
        giving_back.abort();
        tokens.inspect(tokio::task::JoinHandle::abort);
        renewing.inspect(tokio::task::JoinHandle::abort);
        if !self.access_log.flush(FLUSH) {
            tracing::warn!(target: "scorefront::drain", "lines of the access log are lost at the end: its target takes none");
        }
        end
    }
}

/// Follows the certificates; readiness waits for those of Secrets.
async fn follow(
    certificates: Certificates,
    config: &Config,
    ready: &Ready,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let cluster = if certificates.need_cluster() { Some(cluster("tls-secret", config).await?) } else { None };
    certificates.follow(cluster, |what| ready.block(what)).map_err(anyhow::Error::msg)
}

/// Follows the keys for tokens, where there are any; readiness waits for the first look at them.
async fn follow_tokens(
    config: &Config,
    vitals: &Arc<Vitals>,
    ready: &Ready,
) -> anyhow::Result<Option<impl Future<Output = ()> + Send + 'static>> {
    let cluster = if tokens::need_cluster(config) { Some(cluster("token-jwks-secret", config).await?) } else { None };
    tokens::follow(config, vitals.clone(), cluster, |what| ready.block(what)).map_err(anyhow::Error::msg)
}

/// Where the API server is that a setting asks for.
async fn cluster(setting: &'static str, config: &Config) -> anyhow::Result<kube::Config> {
    match &config.kubeconfig {
        Some(file) => read_kubeconfig(file).await,
        None => kube::Config::infer().await.with_context(|| format!("{setting}: no way to the API server")),
    }
}

fn start_workers(
    config: &Config,
    shared: &Shared,
    access_log: &AccessLog,
    ended: &Arc<Notify>,
) -> io::Result<Vec<Handle>> {
    let mut seed = [0; 8];
    (0..config.workers)
        .map(|index| {
            aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("no random numbers to be had"))?;
            Worker::start(index, shared.clone(), access_log.worker(index), u64::from_ne_bytes(seed), ended)
        })
        .collect()
}

fn serve_listeners(listeners: Vec<Listener>, handles: &[Handle], phases: &watch::Receiver<Phase>) {
    let Some(first) = handles.first() else { return };
    for listener in listeners {
        let (workers, phases, address) = (Workers::new(handles), phases.clone(), listener.address());
        first.spawn(async move {
            if let Err(error) = accept(listener, workers, phases).await {
                tracing::error!(target: "scorefront::listen", %address, %error, "the listener has ended");
            }
        });
    }
}

/// Ends when the router is that far on its way out.
async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the router is gone: further out than any phase.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// The way out.
struct Drain<'a> {
    phase: watch::Sender<Phase>,
    /// The first worker that ends.
    ended: Arc<Notify>,
    vitals: &'a Vitals,
    access_log: &'a AccessLog,
    config: &'a Config,
}

type Done = tokio::task::JoinHandle<bool>;

impl Drain<'_> {
    /// Waits to be asked to end, and does. That time runs out is an end like others; a second signal is an error.
    async fn watch(&self, requests: &mut mpsc::Receiver<Request>, done: &mut Done) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Reopen) => self.access_log.reopen(),
                    Some(Request::Drain) | None => break,
                    Some(Request::Quit) => return self.quit(),
                },
                // One is enough: what it had is lost, and the others would serve with a part of the threads for ever.
                () = self.ended.notified() => anyhow::bail!("a worker has ended by itself; see the trace log"),
            }
        }
        let grace = self.config.drain_grace;
        tracing::info!(target: "scorefront::drain", grace_ms = grace.as_millis(), "draining: still serving for the grace");
        self.vitals.set_draining();
        self.phase.send_replace(Phase::Discouraging);
        if self.unless_asked_to_quit(requests, tokio::time::sleep(grace)).await.is_none() {
            return self.quit();
        }
        tracing::info!(target: "scorefront::drain", connections = self.open(), "draining: listeners closed, finishing");
        self.phase.send_replace(Phase::Finishing);
        let last_call = LAST_CALL.min(self.config.drain_timeout / 4);
        for (patience, next) in [(self.config.drain_timeout - last_call, Phase::LastCall), (last_call, Phase::Forced)] {
            let finished = tokio::time::timeout(patience, &mut *done);
            match self.unless_asked_to_quit(requests, finished).await {
                Some(Ok(joined)) => {
                    tracing::info!(target: "scorefront::drain", "drained: everything is finished");
                    anyhow::ensure!(joined?, "a worker has ended badly; see the trace log");
                    return Ok(());
                }
                Some(Err(_)) if next != Phase::Forced => drop(self.phase.send_replace(next)),
                Some(Err(_)) => break,
                None => return self.quit(),
            }
        }
        tracing::warn!(
            target: "scorefront::drain",
            connections = self.open(), "the drain time-out passed: cutting off what still runs"
        );
        Ok(())
    }

    fn open(&self) -> usize {
        self.vitals.connections.open.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn quit(&self) -> anyhow::Result<()> {
        tracing::warn!(target: "scorefront::drain", connections = self.open(), "asked to end at once");
        anyhow::bail!("ended at once, as asked, before everything under way was finished")
    }

    /// What the future comes to; `None` when the operator does not want to wait for it.
    async fn unless_asked_to_quit<F: Future>(
        &self,
        requests: &mut mpsc::Receiver<Request>,
        work: F,
    ) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                Some(request) = requests.recv() => match request {
                    Request::Reopen => self.access_log.reopen(),
                    Request::Drain | Request::Quit => return None,
                },
            }
        }
    }
}

/// What is to be discovered, by the configuration.
async fn discovery(config: &Config) -> anyhow::Result<Discovery> {
    let mut sources = Vec::new();
    for source in &config.sources {
        sources.push(match (source, &config.kubeconfig) {
            (config::Source::Manifests(directory), _) => Source::Manifests(directory.clone()),
            (config::Source::Kubernetes, None) => Source::Kubernetes,
            (config::Source::Kubernetes, Some(file)) => Source::Cluster(Box::new(read_kubeconfig(file).await?)),
        });
    }
    Ok(Discovery {
        sources,
        namespaces: config.namespaces.clone(),
        workers: config.workers,
        router: Router { takes_tokens: config.tokens.has_source(), body_bytes_max: config.limits.body_bytes_max },
        state_file: None,
    })
}

async fn read_kubeconfig(file: &Path) -> anyhow::Result<kube::Config> {
    let named = || format!("--kubeconfig {}", file.display());
    let text = kube::config::Kubeconfig::read_from(file).with_context(named)?;
    kube::Config::from_custom_kubeconfig(text, &Default::default()).await.with_context(named)
}

/// Runs `scorefront check`: what would be served, as a table with the problems below, and whether there are none.
pub async fn check(config: &Config) -> anyhow::Result<(String, bool)> {
    let (snapshot, mut problems) = discovery::load(discovery(config).await?, CHECK_PATIENCE).await?;
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    let certificates = Certificates::open(&config.tls, vitals).map(drop);
    let tokens = tokens::check(&config.tokens).await;
    for (name, found) in [("tls", certificates), ("tokens", tokens)] {
        let Err(message) = found else { continue };
        let object = ObjectRef { namespace: "".into(), name: name.into() };
        problems.push(Problem { kind: "Setting", object, field: "files".to_owned(), message });
    }
    Ok((control::check::render(&snapshot, &problems), problems.is_empty()))
}

/// How long a check waits for the objects.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
#[path = "app/tests.rs"]
mod tests;
