//! The only writer of the snapshot: takes updates in, publishes, and tells operators what changed.
//!
//! The first change is published at once; under a burst, at most one snapshot every [`INTERVAL`], each of them as dear
//! as what changed. Nothing is published before every feed was complete once: half a world would refuse requests that
//! the whole one serves, and might give a name to the wrong namespace. From then on the last snapshot stays whatever
//! becomes of the feeds. Where there is a state file, its world may be served until then, as a whole too: each kind of
//! object in each namespace is as the file says or, once the feeds have said all of it, as they say; Services wait for
//! their slices. So a key that was taken away is not valid because something else cannot be listed.
//!
//! A burst of news is some milliseconds of work: between two updates, two endpoints and two lines of the log it gives way
//! to whoever serves requests on the same core.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::courtesy;
use super::index::{Index, Scope};
use super::objects::{Kind, Object, ObjectKey};
use super::registry::Registry;
use super::state_file::{Event, Keeper};
use crate::core::assemble::{Assembled, Change, Router, World};
use crate::core::facts::Problem;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;

/// What the lines of the trace log are filed under.
pub const TARGET: &str = "scorefront::discovery";

/// The shortest time between two publications.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Updates on their way to the publisher; whoever has more waits.
pub(super) const BACKLOG: usize = 1024;

/// What feeds say.
#[derive(Debug)]
pub(super) enum Update {
    /// An object is new or was changed.
    Apply(Scope, Object),
    /// An object is gone.
    Delete(Scope, ObjectKey),
    /// These are all objects of the scope.
    Reset(Scope, Vec<Object>),
    /// What is wrong with a part of a feed; `None`: nothing any more.
    Trouble(Arc<str>, Option<Problem>),
    /// Everything there was to say until now has been said.
    InStep(usize),
}

/// See the head of the file. `B` blocks readiness until it is dropped.
pub(super) struct Publisher<B> {
    index: Index,
    registry: Registry,
    store: Arc<ArcSwap<Snapshot>>,
    vitals: Arc<Vitals>,
    feeds: Vec<Feed<B>>,
    keeper: Option<Keeper>,
    /// The world of the state file, while it is served.
    restored: Option<World>,
    published: bool,
}

/// What a feed speaks of.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    /// Objects of this kind; `None` is all.
    pub(super) kind: Option<Kind>,
    /// In this namespace; `None` is all.
    pub(super) namespace: Option<String>,
}

struct Feed<B> {
    cover: Cover,
    in_step_us: Option<u64>,
    block: Option<B>,
}

impl<B> Publisher<B> {
    /// For a router with so many workers and these settings, with one block for each feed, and whoever keeps the world for the next start.
    pub(super) fn new(
        store: Arc<ArcSwap<Snapshot>>,
        vitals: Arc<Vitals>,
        (workers, router): (usize, Router),
        feeds: impl Iterator<Item = (Cover, B)>,
        keeper: Option<(Keeper, Option<Problem>)>,
    ) -> Self {
        let feeds = feeds.map(|(cover, block)| Feed { cover, in_step_us: None, block: Some(block) }).collect();
        let mut index = Index::for_router(router);
        let keeper = keeper.map(|(keeper, problem)| {
            if let Some(world) = keeper.world() {
                index.succeed(world);
            }
            index.report(&keeper.part(), problem);
            keeper
        });
        let registry = Registry::new(workers);
        Self { index, registry, store, vitals, feeds, keeper, restored: None, published: false }
    }

    /// Takes updates in and publishes, until nobody is left to send any.
    pub(super) async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => break,
                },
                event = next_event(&mut self.keeper) => self.heed(event),
            }
            while Instant::now() < next
                && let Ok(Some(update)) = timeout_at(next, updates.recv()).await
            {
                self.take(update);
            }
            while let Ok(update) = updates.try_recv() {
                self.take(update);
            }
            if self.publish() {
                next = Instant::now() + INTERVAL;
            }
        }
    }

    fn take(&mut self, update: Update) {
        courtesy::give_way();
        match update {
            Update::Apply(scope, object) => self.index.apply(&scope, &object),
            Update::Delete(scope, key) => self.index.delete(&scope, &key),
            Update::Reset(scope, objects) => self.index.reset(&scope, &objects),
            Update::Trouble(part, problem) => {
                if let Some(problem) = &problem {
                    self.vitals.discovery.errors.bump();
                    if let Some(keeper) = self.keeper.as_mut().filter(|_| problem.kind == "Source") {
                        keeper.source_failed();
                    }
                }
                self.index.report(&part, problem);
            }
            Update::InStep(feed) => {
                let now = self.vitals.micros(Instant::now().into_std()).max(1);
                if let Some(feed) = self.feeds.get_mut(feed) {
                    feed.in_step_us = Some(now);
                }
            }
        }
    }

    fn heed(&mut self, event: Event) {
        if let (Event::Told(problem), Some(keeper)) = (event, &self.keeper) {
            self.index.report(&keeper.part(), problem);
        }
    }

    /// Publishes what changed. Says whether there was anything.
    fn publish(&mut self) -> bool {
        let oldest = self.feeds.iter().map(|feed| feed.in_step_us).min().flatten();
        let news = match oldest {
            Some(oldest) => self.publish_live(oldest),
            None => self.publish_restored(),
        };
        self.tell_problems();
        news
    }

    /// Every feed was complete once, and all of them were in step at `oldest`.
    fn publish_live(&mut self, oldest: u64) -> bool {
        if let Some(restored) = self.restored.take() {
            self.index.succeed(&restored);
        }
        let last = self.store.load_full();
        let assembled = self.index.assemble(&last, &self.registry);
        let is_first = !std::mem::replace(&mut self.published, true);
        let news = assembled.is_some() || is_first;
        match assembled {
            Some(assembled) => self.put(&assembled),
            // An empty world is a world: who waits for the first snapshot must see it.
            None if is_first => {
                let mut same = (*last).clone();
                same.version += 1;
                self.store.store(Arc::new(same));
            }
            None => {}
        }
        if news {
            self.vitals.discovery.publications.bump();
        }
        self.vitals.discovery.in_step_us.store(oldest, Ordering::Relaxed);
        self.unblock();
        if let Some(keeper) = &mut self.keeper {
            keeper.live(news, oldest, || self.index.facts());
        }
        news
    }

    /// Some feed has said nothing yet. What the others said all of replaces what the state file says of that.
    fn publish_restored(&mut self) -> bool {
        let is_first = self.restored.is_none();
        if is_first {
            self.restored = self.keeper.as_mut().and_then(Keeper::restore);
        }
        let Some(mut world) = self.restored.take() else { return false };
        for kind in Kind::ALL {
            let depends_on = needed(kind);
            self.index
                .tell(&mut world, kind, |namespace| depends_on.iter().all(|&kind| self.is_all_said(kind, namespace)));
        }
        let assembled = world.assemble(&self.store.load_full(), &self.registry);
        self.restored = Some(world);
        if let Some(assembled) = &assembled {
            self.put(assembled);
        }
        if is_first {
            self.unblock();
        }
        let news = is_first || assembled.is_some();
        if news {
            self.vitals.discovery.publications.bump();
        }
        news
    }

    /// Whether every feed that speaks of these objects has said all of them.
    fn is_all_said(&self, kind: Kind, namespace: &str) -> bool {
        let concerned = |cover: &Cover| {
            cover.kind.is_none_or(|covered| covered == kind)
                && cover.namespace.as_ref().is_none_or(|covered| covered == namespace)
        };
        self.feeds.iter().all(|feed| feed.in_step_us.is_some() || !concerned(&feed.cover))
    }

    fn put(&self, assembled: &Assembled) {
        self.store.store(assembled.snapshot.clone());
        assembled.settle();
        assembled.changes.iter().for_each(log_change);
    }

    fn unblock(&mut self) {
        for feed in &mut self.feeds {
            feed.block = None;
        }
    }

    /// Each problem is logged when it appears and when it is gone.
    fn tell_problems(&mut self) {
        let Some(problems) = self.index.problems() else { return };
        let known = std::mem::replace(&mut *self.vitals.discovery.problems.lock(), problems.clone());
        for problem in problems.iter().filter(|problem| known.binary_search(problem).is_err()) {
            let Problem { kind, object, field, message } = problem;
            tracing::warn!(target: TARGET, kind, %object, field, "{message}");
        }
        // A source that now fails in another way is not in order again.
        let goes_on = |old: &Problem| {
            old.kind == "Source" && problems.iter().any(|new| new.kind == old.kind && new.object == old.object)
        };
        let gone = known.iter().filter(|problem| problems.binary_search(problem).is_err() && !goes_on(problem));
        for problem in gone {
            let Problem { kind, object, field, message } = problem;
            tracing::info!(target: TARGET, kind, %object, field, "solved: {message}");
        }
    }
}

/// What must be known before objects of a kind are served as the sources say: traffic must not go to a deployment whose
/// replicas are not known.
fn needed(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Service => &[Kind::Service, Kind::EndpointSlice],
        Kind::EndpointSlice => &[Kind::EndpointSlice],
        Kind::Secret => &[Kind::Secret],
    }
}

/// Never comes where nothing is kept.
async fn next_event(keeper: &mut Option<Keeper>) -> Event {
    match keeper {
        Some(keeper) => keeper.next().await,
        None => std::future::pending().await,
    }
}

fn log_change(change: &Change) {
    courtesy::give_way();
    tracing::info!(
        target: TARGET,
        endpoint = change.endpoint.as_str(),
        deployment = change.deployment.as_ref().map(|name| name.as_str()),
        replica = change.replica.as_deref(),
        why = change.why,
        "{} {}",
        change.subject(),
        change.action.word(),
    );
}
