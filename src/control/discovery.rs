//! Discovery as a whole: all feeds and the publisher, on one thread.
//!
//! Each source is one or more feeds: a directory of manifests, or one watch of the API server for each kind and
//! namespace. Feeds only speak; the publisher decides what becomes of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

use super::kube::{self, Watch};
use super::manifests::{self, Namespaces};
use super::objects::Kind;
use super::publish::{BACKLOG, Cover, Publisher, Update};
use super::state_file::{Keeper, Origin, StateFile};
use crate::core::assemble::Router;
use crate::core::facts::Problem;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;

/// Where objects come from.
#[derive(Clone)]
pub enum Source {
    /// The API server of the kubeconfig where there is one, else of the cluster that the router runs in.
    Kubernetes,
    /// An API server that the caller knows how to reach.
    Cluster(Box<::kube::Config>),
    /// A directory of manifests.
    Manifests(PathBuf),
    /// Manifests at hand.
    Text {
        /// What messages call it.
        name: String,
        /// The manifests, as YAML.
        text: String,
    },
}

/// Without what may hold keys.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => f.write_str("Kubernetes"),
            Self::Cluster(config) => write!(f, "Cluster({})", config.cluster_url),
            Self::Manifests(dir) => write!(f, "Manifests({})", dir.display()),
            Self::Text { name, .. } => write!(f, "Text({name})"),
        }
    }
}

/// What is to be discovered.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The sources; where two name the same object, the first counts.
    pub sources: Vec<Source>,
    /// The namespaces that are looked at; none is all.
    pub namespaces: Vec<String>,
    /// How many workers count.
    pub workers: usize,
    /// What settings of the router mean for endpoints.
    pub router: Router,
    /// Where the world is kept for a start without the sources, if anywhere.
    pub state_file: Option<StateFile>,
}

/// Why discovery cannot begin, or was not complete in time.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Nothing to discover from.
    #[error("no source of endpoints: name one with --source kubernetes or --source manifests:DIR")]
    NoSource,
    /// A namespace that cannot exist.
    #[error("namespace {0:?} is not allowed: up to 63 lower-case letters, digits and hyphens")]
    BadNamespace(String),
    /// Neither a kubeconfig nor a pod's credentials.
    #[error("source kubernetes: no way to the API server: {0}")]
    NoCluster(String),
    /// Not complete in time.
    #[error("not complete after {seconds} s: still waiting for {waiting}")]
    TooSlow {
        /// How long it waited.
        seconds: u64,
        /// What for.
        waiting: String,
        /// What is known to be wrong.
        problems: Vec<Problem>,
    },
}

/// One source of updates, not yet running.
struct Feed {
    name: String,
    cover: Cover,
    run: Box<dyn FnOnce(usize, mpsc::Sender<Update>) -> Saying + Send>,
}

/// Ends when nobody listens any more.
type Saying = BoxFuture<'static, Result<(), SendError<Update>>>;

/// Discovers and publishes until `stop` is done. `block` makes what holds readiness back, one for each feed by its
/// name; it is dropped when the first snapshot was published.
pub async fn run<B>(
    discovery: Discovery,
    store: Arc<ArcSwap<Snapshot>>,
    vitals: Arc<Vitals>,
    mut block: impl FnMut(&str) -> B,
    stop: impl Future<Output = ()>,
) -> Result<(), DiscoveryError> {
    let (feeds, sources) = feeds(&discovery).await?;
    // Collected here and not lazily: everything blocks readiness before anything runs.
    let spoken: Vec<_> = feeds.iter().map(|feed| (feed.cover.clone(), block(&feed.name))).collect();
    // Whoever waits for the end of all blocks would wait for this one too.
    drop(block);
    let keeper = match discovery.state_file {
        Some(file) => {
            let mut namespaces = discovery.namespaces;
            namespaces.sort_unstable();
            Some(Keeper::open(file, Origin { sources, namespaces }, vitals.clone()).await)
        }
        None => None,
    };
    let publisher = Publisher::new(store, vitals, (discovery.workers, discovery.router), spoken.into_iter(), keeper);
    let (sender, updates) = mpsc::channel(BACKLOG);
    let running = join_all(feeds.into_iter().enumerate().map(|(number, feed)| (feed.run)(number, sender.clone())));
    drop(sender);
    tokio::select! {
        ((), _) = futures_util::future::join(publisher.run(updates), running) => {}
        () = stop => {}
    }
    Ok(())
}

/// Discovers once, for `scorefront check`: the first complete snapshot and everything that is wrong.
pub async fn load(discovery: Discovery, patience: Duration) -> Result<(Arc<Snapshot>, Vec<Problem>), DiscoveryError> {
    let store = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let vitals = Arc::new(Vitals::new(discovery.workers, Instant::now()));
    let waiting = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (done, mut is_done) = tokio::sync::watch::channel(());
    let names = waiting.clone();
    let block = move |name: &str| {
        names.lock().push(name.to_owned());
        done.clone()
    };
    // An error says that every sender was dropped: nothing blocks any more.
    let complete = async move { while is_done.changed().await.is_ok() {} };
    let running = run(discovery, store.clone(), vitals.clone(), block, complete);
    match tokio::time::timeout(patience, running).await {
        Ok(Ok(())) => Ok((store.load_full(), vitals.discovery.problems.lock().clone())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(DiscoveryError::TooSlow {
            seconds: patience.as_secs(),
            waiting: waiting.lock().join(", "),
            problems: vitals.discovery.problems.lock().clone(),
        }),
    }
}

/// The feeds of all sources, and where each source is.
async fn feeds(discovery: &Discovery) -> Result<(Vec<Feed>, Vec<String>), DiscoveryError> {
    if discovery.sources.is_empty() {
        return Err(DiscoveryError::NoSource);
    }
    if let Some(bad) = discovery.namespaces.iter().find(|namespace| !is_label(namespace)) {
        return Err(DiscoveryError::BadNamespace(bad.clone()));
    }
    let namespaces = Namespaces(discovery.namespaces.clone().into());
    let (mut feeds, mut places) = (Vec::new(), Vec::new());
    for source in &discovery.sources {
        match source {
            Source::Kubernetes => {
                let config = ::kube::Config::infer().await;
                let config = config.map_err(|error| DiscoveryError::NoCluster(error.to_string()))?;
                places.push(place(&config));
                feeds.extend(watches(config, &discovery.namespaces)?);
            }
            Source::Cluster(config) => {
                places.push(place(config));
                feeds.extend(watches((**config).clone(), &discovery.namespaces)?);
            }
            Source::Manifests(dir) => {
                let (dir, namespaces) = (dir.clone(), namespaces.clone());
                let name = format!("manifests {}", dir.display());
                places.push(name.clone());
                let run = Box::new(|number, updates| manifests::follow(number, dir, namespaces, updates).boxed());
                feeds.push(Feed { name, cover: EVERYTHING, run });
            }
            Source::Text { name, text } => {
                let (part, text, namespaces) = (name.as_str().into(), text.as_str().into(), namespaces.clone());
                let run =
                    Box::new(|number, updates| manifests::recite(number, part, text, namespaces, updates).boxed());
                places.push(format!("manifests {name}"));
                feeds.push(Feed { name: format!("manifests {name}"), cover: EVERYTHING, run });
            }
        }
    }
    Ok((feeds, places))
}

/// Files may hold anything.
const EVERYTHING: Cover = Cover { kind: None, namespace: None };

/// Which cluster it is, without credentials that may be in the URL.
fn place(config: &::kube::Config) -> String {
    let url = &config.cluster_url;
    let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("kubernetes {}{port}", url.host().unwrap_or_default())
}

/// Whether it may be the name of a namespace; it becomes part of a path.
fn is_label(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-')
}

/// One watch for each kind and namespace.
fn watches(config: ::kube::Config, namespaces: &[String]) -> Result<Vec<Feed>, DiscoveryError> {
    let client = kube::client(config).map_err(|error| DiscoveryError::NoCluster(error.to_string()))?;
    let places: Vec<_> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    let pairs = places.into_iter().flat_map(|place| Kind::ALL.map(|kind| (place.clone(), kind)));
    let feed = |(namespace, kind): (Option<String>, Kind)| {
        let cover = Cover { kind: Some(kind), namespace: namespace.clone() };
        let watch = Watch::new(client.clone(), kind, namespace);
        Feed { name: watch.name(), cover, run: Box::new(|number, updates| watch.run(number, updates).boxed()) }
    };
    Ok(pairs.map(feed).collect())
}
