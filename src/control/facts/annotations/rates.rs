//! Annotations about rate limits.

use super::{Annotation, number, set};

/// The highest of all of them.
const MOST: u32 = 1_000_000;
const RANGE: &str = "1 to 1000000";

pub(super) const PER_SECOND: Annotation = Annotation {
    name: "rate-limit-per-second",
    range: RANGE,
    default: "no limit",
    meaning: "Requests in a second to the endpoint, of all clients together. Of all deployments of the endpoint, the \
              oldest that says anything about rate limits decides. Each router counts for itself.",
    read: |text, draft| set(&mut draft.settings.rates.endpoint.per_second, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.endpoint.per_second = last.settings.rates.endpoint.per_second,
};

pub(super) const BURST: Annotation = Annotation {
    name: "rate-limit-burst",
    range: RANGE,
    default: "rate-limit-per-second",
    meaning: "Of these, requests that may come at once after a pause.",
    read: |text, draft| set(&mut draft.settings.rates.endpoint.burst, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.endpoint.burst = last.settings.rates.endpoint.burst,
};

pub(super) const CONCURRENT: Annotation = Annotation {
    name: "rate-limit-concurrent",
    range: RANGE,
    default: "no limit",
    meaning: "Requests to the endpoint under way at a time, those that wait for a replica included.",
    read: |text, draft| set(&mut draft.settings.rates.endpoint.concurrent, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.endpoint.concurrent = last.settings.rates.endpoint.concurrent,
};

pub(super) const KEY_PER_SECOND: Annotation = Annotation {
    name: "key-rate-limit-per-second",
    range: RANGE,
    default: "no limit",
    meaning: "The same for the requests with one key: the primary and the secondary key count apart. With tokens, for \
              those of one subject.",
    read: |text, draft| set(&mut draft.settings.rates.key.per_second, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.key.per_second = last.settings.rates.key.per_second,
};

pub(super) const KEY_BURST: Annotation = Annotation {
    name: "key-rate-limit-burst",
    range: RANGE,
    default: "key-rate-limit-per-second",
    meaning: "Of these, requests that may come at once after a pause.",
    read: |text, draft| set(&mut draft.settings.rates.key.burst, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.key.burst = last.settings.rates.key.burst,
};

pub(super) const KEY_CONCURRENT: Annotation = Annotation {
    name: "key-rate-limit-concurrent",
    range: RANGE,
    default: "no limit",
    meaning: "Requests with one key, or with tokens of one subject, under way at a time, those that wait for a replica \
              included.",
    read: |text, draft| set(&mut draft.settings.rates.key.concurrent, number(text, 1, MOST).map(Some)),
    keep: |last, draft| draft.settings.rates.key.concurrent = last.settings.rates.key.concurrent,
};
