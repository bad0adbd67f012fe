//! The only writer of the snapshot: takes updates in, publishes, and tells operators what changed.
//!
//! The first change is published at once; under a burst, at most one snapshot every [`INTERVAL`], each of them as dear
//! as what changed. Nothing is published before every feed was complete once: half a world would refuse requests that
//! the whole one serves, and might give a name to the wrong namespace. From then on the last snapshot stays whatever
//! becomes of the feeds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::index::{Index, Scope};
use super::objects::{Object, ObjectKey};
use super::registry::Registry;
use crate::core::assemble::Change;
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
    published: bool,
}

struct Feed<B> {
    in_step_us: Option<u64>,
    block: Option<B>,
}

impl<B> Publisher<B> {
    /// With one block for each feed.
    pub(super) fn new(
        store: Arc<ArcSwap<Snapshot>>,
        vitals: Arc<Vitals>,
        workers: usize,
        blocks: impl Iterator<Item = B>,
    ) -> Self {
        let feeds = blocks.map(|block| Feed { in_step_us: None, block: Some(block) }).collect();
        Self { index: Index::default(), registry: Registry::new(workers), store, vitals, feeds, published: false }
    }

    /// Takes updates in and publishes, until nobody is left to send any.
    pub(super) async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        let mut next = Instant::now();
        while let Some(update) = updates.recv().await {
            self.take(update);
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
        match update {
            Update::Apply(scope, object) => self.index.apply(&scope, &object),
            Update::Delete(scope, key) => self.index.delete(&scope, &key),
            Update::Reset(scope, objects) => self.index.reset(&scope, &objects),
            Update::Trouble(part, problem) => {
                if problem.is_some() {
                    self.vitals.discovery.errors.bump();
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

    /// Publishes what changed. Says whether there was anything.
    fn publish(&mut self) -> bool {
        let oldest = self.feeds.iter().map(|feed| feed.in_step_us).min().flatten();
        if self.feeds.is_empty() || oldest.is_some() {
            let last = self.store.load_full();
            let assembled = self.index.assemble(&last, &self.registry);
            let is_first = !std::mem::replace(&mut self.published, true);
            let news = assembled.is_some() || is_first;
            match assembled {
                Some(assembled) => {
                    self.store.store(assembled.snapshot.clone());
                    assembled.settle();
                    assembled.changes.iter().for_each(log_change);
                }
                // An empty world is a world: who waits for the first snapshot must see it.
                None if is_first => {
                    let mut empty = (*last).clone();
                    empty.version += 1;
                    self.store.store(Arc::new(empty));
                }
                None => {}
            }
            if news {
                self.vitals.discovery.publications.bump();
            }
            self.vitals.discovery.in_step_us.store(oldest.unwrap_or(0), Ordering::Relaxed);
            for feed in &mut self.feeds {
                feed.block = None;
            }
            self.tell_problems();
            return news;
        }
        self.tell_problems();
        false
    }

    /// Each problem is logged when it appears and when it is gone.
    fn tell_problems(&mut self) {
        let Some(problems) = self.index.problems() else { return };
        let mut known = self.vitals.discovery.problems.lock();
        for problem in problems.iter().filter(|problem| known.binary_search(problem).is_err()) {
            tracing::warn!(target: TARGET, kind = problem.kind, object = %problem.object, field = problem.field, "{}", problem.message);
        }
        for problem in known.iter().filter(|problem| problems.binary_search(problem).is_err()) {
            tracing::info!(target: TARGET, kind = problem.kind, object = %problem.object, field = problem.field, "solved: {}", problem.message);
        }
        *known = problems;
    }
}

fn log_change(change: &Change) {
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
