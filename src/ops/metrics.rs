//! Metrics for Prometheus, read from the live counters when somebody scrapes.
//!
//! Nothing is registered and nothing is looked up while requests run: one collector walks the snapshot of the moment
//! and the counters that hang on it. So the labels are exactly the endpoints and deployments that exist, and the
//! series of a removed deployment end with it.
//!
//! Every metric is a row of [`table`]; `docs/metrics.md` is made of the same rows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::core::limits::Limits;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;

use self::classic::Classic;
use self::deployments::Deployments;
use self::page::Page;

mod auth;
mod classic;
mod deployments;
mod limits;
mod page;
mod process;
mod router;
pub mod table;
mod tls;
mod tokens;

pub(super) use self::process::resident_bytes;
pub(super) use self::router::discovery_age;

/// The two text formats that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic text format, version 0.0.4.
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client with this `Accept` header gets: OpenMetrics if it is named there and not refused.
    pub fn accepted(header: &str) -> Self {
        let takes_open_metrics = header.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0));
            named && !refused
        });
        if takes_open_metrics { Self::OpenMetrics } else { Self::Classic }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Room for the page of a router with a few endpoints.
const ROOM_MIN: usize = 64 << 10;

/// See the head of the file.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What the last page took: the next one is about as long, and is not to be copied as it grows.
    room: AtomicUsize,
}

impl Metrics {
    /// Of everything that these three hold.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, vitals: Arc<Vitals>, limits: &Limits) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Everything { snapshot, vitals, limits: limits.clone() }));
        Self { registry, room: AtomicUsize::new(ROOM_MIN) }
    }

    /// All metrics as of now.
    ///
    /// # Errors
    /// Never in practice: formatting into a string does not fail.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let room = self.room.load(Ordering::Relaxed);
        let page = match format {
            Format::Classic => {
                let mut page = Classic::with_capacity(room);
                text::encode(&mut page, &self.registry)?;
                page.into_page()
            }
            Format::OpenMetrics => {
                let mut page = String::with_capacity(room);
                text::encode(&mut page, &self.registry)?;
                page
            }
        };
        self.room.store((page.len() + page.len() / 16).max(ROOM_MIN), Ordering::Relaxed);
        Ok(page)
    }
}

#[derive(Debug)]
struct Everything {
    snapshot: Arc<ArcSwap<Snapshot>>,
    vitals: Arc<Vitals>,
    limits: Limits,
}

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.snapshot.load_full();
        let mut page = Page::new(encoder);
        let endpoints = deployments::sorted(&snapshot);
        let names = deployments::names(&endpoints);
        Deployments::of(&endpoints, &names).write(&mut page, &self.vitals)?;
        router::write(&mut page, &snapshot, &self.vitals, &self.limits)?;
        tls::write(&mut page, &self.vitals, &self.limits)?;
        tokens::write(&mut page, &self.vitals)?;
        tokens::write_subjects(&mut page, &endpoints, &self.vitals, &self.limits)?;
        auth::write(&mut page, &self.vitals, &self.limits)?;
        limits::write(&mut page, &self.vitals, &self.limits)?;
        limits::write_shares(&mut page, &endpoints)?;
        limits::write_memory(&mut page, &self.vitals.memory)?;
        process::write(&mut page)
    }
}

#[cfg(test)]
mod tests;
