//! The metrics of endpoints and deployments, in the order of their names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::core::count::{Histogram, StatusCounts, Tally};
use crate::core::limiter::Which;
use crate::core::outcome::Outcome;
use crate::core::slots::UNLIMITED;
use crate::core::snapshot::{Deployment, Endpoint, Snapshot};
use crate::core::state::{AnswerFlaw, DeploymentShard, RefusalState};
use crate::core::vitals::Vitals;

use super::page::{Page, Series, whole};
use super::table::{self, Metric};

const MICROS_PER_SECOND: f64 = 1e6;

/// All endpoints of one snapshot, sorted.
pub(super) fn sorted(snapshot: &Snapshot) -> Vec<Arc<Endpoint>> {
    let mut endpoints: Vec<_> = snapshot.endpoints().cloned().collect();
    endpoints.sort_by(|a, b| (a.form, &a.name).cmp(&(b.form, &b.name)));
    endpoints
}

/// The names of all endpoints and their deployments, one after the other: they stand in every line, line after line in this
/// order, and those in the snapshot lie wherever they were made.
pub(super) fn names(endpoints: &[Arc<Endpoint>]) -> String {
    let all = endpoints.iter().flat_map(|endpoint| {
        let deployments = endpoint.deployments.iter().map(|deployment| deployment.name.as_str());
        std::iter::once(endpoint.name.as_str()).chain(deployments)
    });
    all.collect()
}

/// Takes the next name, which is `own`.
fn next<'n>(names: &mut &'n str, own: &'n str) -> &'n str {
    let Some((name, rest)) = names.split_at_checked(own.len()) else { return own };
    *names = rest;
    name
}

/// Endpoints with their deployments, as they are at one moment.
pub(super) struct Deployments<'a> {
    endpoints: &'a [Arc<Endpoint>],
    rows: Vec<Row<'a>>,
}

/// What the page says of one deployment in most of its metrics. Looked up once: the page goes over all deployments for each
/// metric, and what hangs on thousands of them is in no cache.
struct Row<'a> {
    labels: [&'a str; 3],
    deployment: &'a Deployment,
    /// Whether it gets copies now.
    is_target: bool,
    /// Whether no worker has counted anything.
    is_idle: bool,
    /// Slots taken by requests that somebody waits for.
    in_flight: u64,
    abandoned_slots: u64,
    slots: Option<u64>,
    queued: u64,
    queue_pushed: u64,
    queue_popped: u64,
    queue_rate: Option<f64>,
    ready: usize,
    left_out: usize,
}

impl<'a> Row<'a> {
    fn of(endpoint: &'a Endpoint, deployment: &'a Deployment, names: [&'a str; 2]) -> Self {
        let [endpoint_name, name] = names;
        let (taken, abandoned) = taken_and_abandoned(deployment);
        let (queue_pushed, queue_popped) = deployment.state.gate.totals();
        let left_out = deployment.replicas.iter().filter(|replica| replica.state.is_left_out()).count();
        Self {
            labels: [endpoint.form.word(), endpoint_name, name],
            deployment,
            is_target: endpoint.mirror.as_ref().is_some_and(|mirror| mirror.deployment.name == deployment.name),
            is_idle: deployment.state.shards().next().is_none(),
            in_flight: taken.saturating_sub(abandoned),
            abandoned_slots: abandoned,
            slots: slots(deployment),
            queued: deployment.state.gate.waiting() as u64,
            queue_pushed,
            queue_popped,
            queue_rate: queue_rate(deployment),
            ready: deployment.replicas.len() - left_out,
            left_out,
        }
    }

    /// A total over all workers.
    fn total(&self, of: impl Fn(&DeploymentShard) -> u64) -> u64 {
        if self.is_idle { 0 } else { self.deployment.state.total(of) }
    }
}

impl<'a> Deployments<'a> {
    /// With the [`names`] of the same endpoints.
    pub(super) fn of(endpoints: &'a [Arc<Endpoint>], mut names: &'a str) -> Self {
        let mut rows = Vec::with_capacity(endpoints.iter().map(|endpoint| endpoint.deployments.len()).sum());
        for endpoint in endpoints {
            let endpoint_name = next(&mut names, endpoint.name.as_str());
            for deployment in &endpoint.deployments {
                let name = next(&mut names, deployment.name.as_str());
                rows.push(Row::of(endpoint, deployment, [endpoint_name, name]));
            }
        }
        Self { endpoints, rows }
    }

    pub(super) fn write(&self, page: &mut Page<'_>, vitals: &Vitals) -> fmt::Result {
        page.metric(table::REQUESTS, |series| self.write_requests(series, vitals))?;
        self.times(page, table::REQUEST_DURATION, |shard| &shard.total)?;
        self.times(page, table::QUEUE_DURATION, |shard| &shard.queue)?;
        self.times(page, table::UPSTREAM_DURATION, |shard| &shard.upstream)?;
        self.times(page, table::OVERHEAD_DURATION, |shard| &shard.overhead)?;
        self.sizes(page, table::REQUEST_SIZE, |shard| &shard.request_size)?;
        self.sizes(page, table::ANSWER_SIZE, |shard| &shard.answer_size)?;
        self.write_queues(page)?;
        self.write_replicas(page)?;
        self.counts(page, table::RETRIES, |shard| shard.retries.read())?;
        self.counts(page, table::RETRIES_DENIED, |shard| shard.retries_denied.read())?;
        self.counts(page, table::EJECTIONS, |shard| shard.ejections.read())?;
        self.counts(page, table::ABANDONED, |shard| shard.abandoned.read())?;
        self.write_refused_answers(page)?;
        self.write_mirrors(page)?;
        self.write_rate_limits(page)
    }

    /// The rows of deployments with something counted.
    fn busy(&self) -> impl Iterator<Item = &Row<'a>> {
        self.rows.iter().filter(|row| !row.is_idle)
    }

    fn write_requests(&self, series: &mut Series<'_>, vitals: &Vitals) -> fmt::Result {
        for row in &self.rows {
            let [form, endpoint, name] = row.labels;
            for (status, count) in by_status(row, |shard| &shard.served) {
                let labels = [form, endpoint, name, status_label(&status), Outcome::Served.label()];
                series.count(&labels, count)?;
            }
            for &outcome in Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Served) {
                let count = row.total(|shard| shard.outcomes.get(outcome.index()).map_or(0, |cell| cell.read()));
                write_outcome(series, row.labels, outcome, count)?;
            }
        }
        for endpoint in self.endpoints {
            write_refusals(series, [endpoint.form.word(), endpoint.name.as_str()], &endpoint.refusals)?;
        }
        write_refusals(series, ["", ""], &vitals.refusals)
    }

    fn write_queues(&self, page: &mut Page<'_>) -> fmt::Result {
        self.levels(page, table::IN_FLIGHT, |row| Some(row.in_flight))?;
        self.levels(page, table::QUEUED, |row| Some(row.queued))?;
        self.levels(page, table::QUEUE_LIMIT, |row| Some(u64::from(row.deployment.settings.queue_length_max)))?;
        self.totals(page, table::QUEUE_PUSHED, |row| row.queue_pushed)?;
        self.totals(page, table::QUEUE_POPPED, |row| row.queue_popped)?;
        page.metric(table::QUEUE_RATE, |series| {
            let mut known = self.rows.iter().filter_map(|row| Some((row, row.queue_rate?)));
            known.try_for_each(|(row, rate)| series.level(&row.labels, rate))
        })?;
        self.levels(page, table::SLOTS, |row| row.slots)?;
        self.levels(page, table::ABANDONED_SLOTS, |row| Some(row.abandoned_slots))
    }

    fn write_replicas(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::REPLICAS, |series| {
            for row in &self.rows {
                let [form, endpoint, name] = row.labels;
                let finishing = row.deployment.finishing.len();
                for (state, count) in [("ready", row.ready), ("left_out", row.left_out), ("finishing", finishing)] {
                    series.level(&[form, endpoint, name, state], whole(count as u64))?;
                }
            }
            Ok(())
        })
    }

    /// Like outcomes, those that never happened have no series.
    fn write_refused_answers(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::ANSWERS_REFUSED, |series| {
            for row in self.busy() {
                let [form, endpoint, name] = row.labels;
                for flaw in AnswerFlaw::ALL {
                    let count = row.total(|shard| shard.refused_answers[flaw as usize].read());
                    if count > 0 {
                        series.count(&[form, endpoint, name, flaw.label()], count)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Only of deployments that are, or were, the target of copies: most are not.
    fn write_mirrors(&self, page: &mut Page<'_>) -> fmt::Result {
        let targets = self.targets();
        page.metric(table::MIRRORED, |series| {
            for row in &targets {
                let [form, endpoint, name] = row.labels;
                for (status, count) in by_status(row, |shard| &shard.mirror.answered) {
                    series.count(&[form, endpoint, name, status_label(&status), "answered"], count)?;
                }
                let failed = row.total(|shard| shard.mirror.failed.read());
                series.count(&[form, endpoint, name, "", "failed"], failed)?;
                let skipped = row.total(|shard| shard.mirror.skipped.read());
                series.count(&[form, endpoint, name, "", "skipped"], skipped)?;
            }
            Ok(())
        })?;
        page.metric(table::MIRROR_DURATION, |series| {
            targets.iter().try_for_each(|row| {
                let tally = tally(Tally::of_times(), row, |shard| &shard.mirror.duration);
                series.histogram(&row.labels, &tally, MICROS_PER_SECOND)
            })
        })?;
        page.metric(table::MIRROR_COMPARISONS, |series| {
            for row in &targets {
                let [form, endpoint, name] = row.labels;
                let agreed = row.total(|shard| shard.mirror.agreed.read());
                series.count(&[form, endpoint, name, "agreed"], agreed)?;
                let differed = row.total(|shard| shard.mirror.differed.read());
                series.count(&[form, endpoint, name, "differed"], differed)?;
            }
            Ok(())
        })
    }

    fn write_rate_limits(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::RATE_LIMITED, |series| {
            for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.limiter.is_set()) {
                for which in Which::ALL {
                    let labels = [endpoint.form.word(), endpoint.name.as_str(), which.label()];
                    series.count(&labels, endpoint.limiter.meters.refused(which))?;
                }
            }
            Ok(())
        })
    }

    fn targets(&self) -> Vec<&Row<'a>> {
        self.rows.iter().filter(|row| row.is_target || was_target(row)).collect()
    }

    fn times(
        &self,
        page: &mut Page<'_>,
        metric: &'static Metric,
        of: fn(&DeploymentShard) -> &Histogram,
    ) -> fmt::Result {
        page.metric(metric, |series| {
            self.busy().try_for_each(|row| {
                series.histogram(&row.labels, &tally(Tally::of_times(), row, of), MICROS_PER_SECOND)
            })
        })
    }

    fn sizes(
        &self,
        page: &mut Page<'_>,
        metric: &'static Metric,
        of: fn(&DeploymentShard) -> &Histogram,
    ) -> fmt::Result {
        page.metric(metric, |series| {
            self.busy().try_for_each(|row| series.histogram(&row.labels, &tally(Tally::of_sizes(), row, of), 1.0))
        })
    }

    fn counts(&self, page: &mut Page<'_>, metric: &'static Metric, of: fn(&DeploymentShard) -> u64) -> fmt::Result {
        self.totals(page, metric, |row| row.total(of))
    }

    fn totals(&self, page: &mut Page<'_>, metric: &'static Metric, of: impl Fn(&Row<'_>) -> u64) -> fmt::Result {
        page.metric(metric, |series| self.rows.iter().try_for_each(|row| series.count(&row.labels, of(row))))
    }

    fn levels(
        &self,
        page: &mut Page<'_>,
        metric: &'static Metric,
        of: impl Fn(&Row<'_>) -> Option<u64>,
    ) -> fmt::Result {
        page.metric(metric, |series| {
            let mut known = self.rows.iter().filter_map(|row| Some((row, of(row)?)));
            known.try_for_each(|(row, value)| series.level(&row.labels, whole(value)))
        })
    }
}

/// Refusals of an endpoint, or of the router: deployment unknown.
fn write_refusals(series: &mut Series<'_>, [form, endpoint]: [&str; 2], refusals: &RefusalState) -> fmt::Result {
    for &outcome in Outcome::ALL {
        write_outcome(series, [form, endpoint, ""], outcome, refusals.read(outcome))?;
    }
    Ok(())
}

/// Outcomes that never happened have no series: there are many of them.
fn write_outcome(series: &mut Series<'_>, of: [&str; 3], outcome: Outcome, count: u64) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    let [form, endpoint, deployment] = of;
    series.count(&[form, endpoint, deployment, outcome.status().as_str(), outcome.label()], count)
}

/// Counts of all workers by status; `None` stands for those without a cell of their own. 200 is there even before the
/// first one, so that a rate sees the first step.
fn by_status(
    row: &Row<'_>,
    of: impl Fn(&DeploymentShard) -> &StatusCounts,
) -> impl Iterator<Item = (Option<StatusCode>, u64)> {
    const FIRST: u16 = 200;
    let mut counts = BTreeMap::new();
    if !row.is_idle {
        for (status, count) in row.deployment.state.shards().flat_map(|shard| of(shard).read()) {
            *counts.entry(status).or_insert(0) += count;
        }
    }
    let none_yet = (!counts.contains_key(&FIRST)).then_some((FIRST, 0));
    none_yet.into_iter().chain(counts).map(|(status, count)| (StatusCode::from_u16(status).ok(), count))
}

fn status_label(status: &Option<StatusCode>) -> &str {
    status.as_ref().map_or("other", StatusCode::as_str)
}

fn tally(mut tally: Tally, row: &Row<'_>, of: impl Fn(&DeploymentShard) -> &Histogram) -> Tally {
    row.deployment.state.shards().for_each(|shard| of(shard).read_into(&mut tally));
    tally
}

/// Slots taken, and those of them whose request was given up; replicas that only finish are counted too.
fn taken_and_abandoned(deployment: &Deployment) -> (u64, u64) {
    let replicas = deployment.replicas.iter().chain(&deployment.finishing);
    replicas.fold((0, 0), |(taken, abandoned), replica| {
        (taken + u64::from(replica.state.level().taken), abandoned + replica.state.abandoned() as u64)
    })
}

fn slots(deployment: &Deployment) -> Option<u64> {
    let limits = deployment.replicas.iter().map(|replica| replica.state.level().limit);
    limits.map(|limit| (limit != UNLIMITED).then_some(u64::from(limit))).sum()
}

/// A scrape is as good an occasion to look as a refusal.
fn queue_rate(deployment: &Deployment) -> Option<f64> {
    let completed = deployment.state.total(|shard| shard.completed.read());
    let mut pace = deployment.state.pace.lock();
    pace.observe(completed, Instant::now());
    pace.drain_rate()
}

fn was_target(row: &Row<'_>) -> bool {
    let copies = |shard: &DeploymentShard| {
        let mirror = &shard.mirror;
        mirror.failed.read() + mirror.skipped.read() + mirror.answered.read().map(|(_, count)| count).sum::<u64>()
    };
    row.total(copies) > 0
}
