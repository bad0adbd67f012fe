//! Rows of the table and numbers into a page of text.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::core::count::Tally;

use super::table::{Kind, Metric};

/// A page under way.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// Writes one metric; `fill` writes its series.
    pub(super) fn metric(
        &mut self,
        metric: &'static Metric,
        fill: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let encoder = self.0.encode_descriptor(metric.family(), metric.help, None, kind)?;
        fill(&mut Series { metric, encoder })
    }

    /// Writes a metric without labels.
    pub(super) fn single(&mut self, metric: &'static Metric, value: u64) -> fmt::Result {
        self.metric(metric, |series| match metric.kind {
            Kind::Counter => series.count(&[], value),
            _ => series.level(&[], whole(value)),
        })
    }
}

/// The series of one metric.
pub(super) struct Series<'a> {
    metric: &'static Metric,
    encoder: MetricEncoder<'a>,
}

impl Series<'_> {
    /// A counter.
    pub(super) fn count(&mut self, labels: &[&str], value: u64) -> fmt::Result {
        self.sample(labels, |encoder| encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None))
    }

    /// A counter of a quantity that is not whole.
    pub(super) fn quantity(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        self.sample(labels, |encoder| encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None))
    }

    /// A gauge.
    pub(super) fn level(&mut self, labels: &[&str], value: impl EncodeGaugeValue) -> fmt::Result {
        self.sample(labels, |encoder| encoder.encode_gauge(&value))
    }

    /// A histogram, once it holds anything; `per_unit` of what was counted make one of the unit in the name. Of thousands of
    /// deployments most idle, and their empty buckets would be most of the page.
    pub(super) fn histogram(&mut self, labels: &[&str], tally: &Tally, per_unit: f64) -> fmt::Result {
        if tally.count() == 0 {
            return Ok(());
        }
        let bounds = tally.bounds.iter().map(|&bound| bound as f64 / per_unit).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(tally.buckets.iter().copied()).collect();
        let sum = tally.sum as f64 / per_unit;
        self.sample(labels, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, tally.count(), &buckets, None))
    }

    /// An information.
    pub(super) fn info(&mut self, labels: &[&str]) -> fmt::Result {
        let labels = self.labels(labels);
        self.encoder.encode_info(&labels)
    }

    /// Without labels there are no braces either.
    fn sample(&mut self, values: &[&str], write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        let labels = self.labels(values);
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        write(&mut self.encoder.encode_family(&labels)?)
    }

    fn labels<'v>(&self, values: &'v [&'v str]) -> Labels<'v> {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        Labels { names: self.metric.labels, values }
    }
}

/// A number of things as a gauge.
pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct Labels<'v> {
    names: &'static [&'static str],
    values: &'v [&'v str],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for pair in self.names.iter().copied().zip(self.values.iter().copied()) {
            pair.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
