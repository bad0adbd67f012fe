//! The metrics of endpoints and deployments, in the order of their names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

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

/// All endpoints of one snapshot, sorted, with their deployments.
pub(super) struct Deployments {
    endpoints: Vec<Arc<Endpoint>>,
}

impl Deployments {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut endpoints: Vec<_> = snapshot.endpoints().cloned().collect();
        endpoints.sort_by(|a, b| (a.form, &a.name).cmp(&(b.form, &b.name)));
        Self { endpoints }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
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

    /// Calls `row` for each deployment with the labels of most metrics.
    fn each(&self, mut row: impl FnMut(&[&str; 3], &Deployment) -> fmt::Result) -> fmt::Result {
        for endpoint in &self.endpoints {
            for deployment in &endpoint.deployments {
                row(&[endpoint.form.word(), endpoint.name.as_str(), deployment.name.as_str()], deployment)?;
            }
        }
        Ok(())
    }

    fn write_requests(&self, series: &mut Series<'_>, vitals: &Vitals) -> fmt::Result {
        self.each(|&[form, endpoint, name], deployment| {
            let state = &deployment.state;
            for (status, count) in by_status(state.shards(), |shard| &shard.served) {
                let labels = [form, endpoint, name, &status_label(status), Outcome::Served.label()];
                series.count(&labels, count)?;
            }
            for &outcome in Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Served) {
                let count = state.total(|shard| shard.outcomes.get(outcome.index()).map_or(0, |cell| cell.read()));
                write_outcome(series, [form, endpoint, name], outcome, count)?;
            }
            Ok(())
        })?;
        for endpoint in &self.endpoints {
            write_refusals(series, [endpoint.form.word(), endpoint.name.as_str()], &endpoint.refusals)?;
        }
        write_refusals(series, ["", ""], &vitals.refusals)
    }

    fn write_queues(&self, page: &mut Page<'_>) -> fmt::Result {
        self.levels(page, table::IN_FLIGHT, |deployment| {
            let (taken, abandoned) = taken_and_abandoned(deployment);
            Some(taken.saturating_sub(abandoned))
        })?;
        self.levels(page, table::QUEUED, |deployment| Some(deployment.state.gate.waiting() as u64))?;
        self.levels(page, table::QUEUE_LIMIT, |deployment| Some(u64::from(deployment.settings.queue_length_max)))?;
        self.totals(page, table::QUEUE_PUSHED, |deployment| deployment.state.gate.totals().0)?;
        self.totals(page, table::QUEUE_POPPED, |deployment| deployment.state.gate.totals().1)?;
        page.metric(table::QUEUE_RATE, |series| {
            self.each(|labels, deployment| match queue_rate(deployment) {
                Some(rate) => series.level(labels, rate),
                None => Ok(()),
            })
        })?;
        self.levels(page, table::SLOTS, slots)?;
        self.levels(page, table::ABANDONED_SLOTS, |deployment| Some(taken_and_abandoned(deployment).1))
    }

    fn write_replicas(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::REPLICAS, |series| {
            self.each(|&[form, endpoint, name], deployment| {
                let left_out = deployment.replicas.iter().filter(|replica| replica.state.is_left_out()).count();
                let ready = deployment.replicas.len() - left_out;
                let finishing = deployment.finishing.len();
                for (state, count) in [("ready", ready), ("left_out", left_out), ("finishing", finishing)] {
                    series.level(&[form, endpoint, name, state], whole(count as u64))?;
                }
                Ok(())
            })
        })
    }

    /// Like outcomes, those that never happened have no series.
    fn write_refused_answers(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::ANSWERS_REFUSED, |series| {
            self.each(|&[form, endpoint, name], deployment| {
                for flaw in AnswerFlaw::ALL {
                    let count = deployment.state.total(|shard| shard.refused_answers[flaw as usize].read());
                    if count > 0 {
                        series.count(&[form, endpoint, name, flaw.label()], count)?;
                    }
                }
                Ok(())
            })
        })
    }

    /// Only of deployments that are, or were, the target of copies: most are not.
    fn write_mirrors(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(table::MIRRORED, |series| {
            self.each_target(|&[form, endpoint, name], deployment| {
                let state = &deployment.state;
                for (status, count) in by_status(state.shards(), |shard| &shard.mirror.answered) {
                    series.count(&[form, endpoint, name, &status_label(status), "answered"], count)?;
                }
                let failed = state.total(|shard| shard.mirror.failed.read());
                series.count(&[form, endpoint, name, "", "failed"], failed)?;
                let skipped = state.total(|shard| shard.mirror.skipped.read());
                series.count(&[form, endpoint, name, "", "skipped"], skipped)
            })
        })?;
        page.metric(table::MIRROR_DURATION, |series| {
            self.each_target(|labels, deployment| {
                let tally = tally(Tally::of_times(), deployment.state.shards(), |shard| &shard.mirror.duration);
                series.histogram(labels, &tally, MICROS_PER_SECOND)
            })
        })?;
        page.metric(table::MIRROR_COMPARISONS, |series| {
            self.each_target(|&[form, endpoint, name], deployment| {
                let agreed = deployment.state.total(|shard| shard.mirror.agreed.read());
                series.count(&[form, endpoint, name, "agreed"], agreed)?;
                let differed = deployment.state.total(|shard| shard.mirror.differed.read());
                series.count(&[form, endpoint, name, "differed"], differed)
            })
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

    fn each_target(&self, mut row: impl FnMut(&[&str; 3], &Deployment) -> fmt::Result) -> fmt::Result {
        for endpoint in &self.endpoints {
            let target = endpoint.mirror.as_ref().map(|mirror| &mirror.deployment.name);
            for deployment in &endpoint.deployments {
                if target == Some(&deployment.name) || was_target(deployment) {
                    row(&[endpoint.form.word(), endpoint.name.as_str(), deployment.name.as_str()], deployment)?;
                }
            }
        }
        Ok(())
    }

    fn times(
        &self,
        page: &mut Page<'_>,
        metric: &'static Metric,
        of: fn(&DeploymentShard) -> &Histogram,
    ) -> fmt::Result {
        page.metric(metric, |series| {
            self.each(|labels, deployment| {
                let tally = tally(Tally::of_times(), deployment.state.shards(), of);
                series.histogram(labels, &tally, MICROS_PER_SECOND)
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
            self.each(|labels, deployment| {
                let tally = tally(Tally::of_sizes(), deployment.state.shards(), of);
                series.histogram(labels, &tally, 1.0)
            })
        })
    }

    fn counts(&self, page: &mut Page<'_>, metric: &'static Metric, of: fn(&DeploymentShard) -> u64) -> fmt::Result {
        self.totals(page, metric, |deployment| deployment.state.total(of))
    }

    fn totals(&self, page: &mut Page<'_>, metric: &'static Metric, of: impl Fn(&Deployment) -> u64) -> fmt::Result {
        page.metric(metric, |series| self.each(|labels, deployment| series.count(labels, of(deployment))))
    }

    fn levels(
        &self,
        page: &mut Page<'_>,
        metric: &'static Metric,
        of: impl Fn(&Deployment) -> Option<u64>,
    ) -> fmt::Result {
        page.metric(metric, |series| {
            self.each(|labels, deployment| match of(deployment) {
                Some(value) => series.level(labels, whole(value)),
                None => Ok(()),
            })
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

/// Counts of all workers by status; 0 stands for those without a cell of their own. 200 is there even before the
/// first one, so that a rate sees the first step.
fn by_status(
    shards: &[DeploymentShard],
    of: impl Fn(&DeploymentShard) -> &StatusCounts,
) -> impl Iterator<Item = (u16, u64)> {
    let mut counts = BTreeMap::from([(200, 0)]);
    for shard in shards {
        for (status, count) in of(shard).read() {
            *counts.entry(status).or_insert(0) += count;
        }
    }
    counts.into_iter()
}

fn status_label(status: u16) -> String {
    if status == 0 { "other".to_owned() } else { status.to_string() }
}

fn tally(mut tally: Tally, shards: &[DeploymentShard], of: impl Fn(&DeploymentShard) -> &Histogram) -> Tally {
    for shard in shards {
        of(shard).read_into(&mut tally);
    }
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

fn was_target(deployment: &Deployment) -> bool {
    let copies = |shard: &DeploymentShard| {
        let mirror = &shard.mirror;
        mirror.failed.read() + mirror.skipped.read() + mirror.answered.read().map(|(_, count)| count).sum::<u64>()
    };
    deployment.state.total(copies) > 0
}
