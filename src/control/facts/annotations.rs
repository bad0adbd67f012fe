//! The settings of a deployment as annotations of its Service: one table of what there is.
//!
//! The parser, the messages about wrong values and the reference page all come from [`ANNOTATIONS`].
//! Holds: a wrong value changes nothing: the last good one of the same Service stays, else the default. The
//! exceptions are `auth-mode`, which falls back to `key`, and those about TLS towards replicas, which close the deployment:
//! a slip of the pen must not leave a door open that somebody meant to close.

mod cors;
mod rates;
mod replica_tls;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::names::is_port_name;
use super::{Reporter, shown};
use crate::control::nearest::nearest;
use crate::core::facts::{AuthMode, OnAbandon, ScoringPort, Settings};

mod limits;

/// What all our annotations begin with.
pub const PREFIX: &str = "scorefront.dev/";

/// One annotation.
pub struct Annotation {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// The values that it may have.
    pub range: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// Takes a value over, if it is one.
    read: fn(&str, &mut Draft) -> Option<()>,
    /// Takes over what another draft has.
    keep: fn(&Draft, &mut Draft),
}

/// What the annotations of one Service say, before defaults that depend on one another are filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    settings: Settings,
    on_abandon: Option<OnAbandon>,
    /// `traffic-percent`.
    pub traffic_percent: Option<u8>,
    /// `mirror-percent`.
    pub mirror_percent: u8,
}

impl Draft {
    /// The settings with all defaults.
    pub fn settings(&self) -> Settings {
        let unlimited = self.settings.slots_per_replica == Settings::UNLIMITED;
        let usual = if unlimited { OnAbandon::Close } else { OnAbandon::Wait };
        Settings { on_abandon: self.on_abandon.unwrap_or(usual), ..self.settings.clone() }
    }
}

/// All annotations there are.
pub const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: "traffic-percent",
        range: "0 to 100",
        default: "100 for a deployment alone, else 0",
        meaning: "Share of the requests that name no deployment. The deployments of an endpoint must sum up to 100, or to 0.",
        read: |text, draft| set(&mut draft.traffic_percent, percent(text, 100).map(Some)),
        keep: |last, draft| draft.traffic_percent = last.traffic_percent,
    },
    Annotation {
        name: "mirror-percent",
        range: "0 to 50",
        default: "0",
        meaning: "Share of the requests of which this deployment gets a copy; its answers are thrown away.",
        read: |text, draft| set(&mut draft.mirror_percent, percent(text, 50)),
        keep: |last, draft| draft.mirror_percent = last.mirror_percent,
    },
    Annotation {
        name: "request-timeout-ms",
        range: "1 to 300000",
        default: "5000",
        meaning: "Longest time to the first byte of an answer, waiting for a slot included, and longest silence within one.",
        read: |text, draft| set(&mut draft.settings.request_timeout, millis(text, 1, 300_000)),
        keep: |last, draft| draft.settings.request_timeout = last.settings.request_timeout,
    },
    Annotation {
        name: "max-concurrent-requests-per-instance",
        range: "0 to 1000000, 0 for no limit",
        default: "1",
        meaning: "Requests that one replica serves at a time.",
        read: |text, draft| set(&mut draft.settings.slots_per_replica, number(text, 0, 1_000_000)),
        keep: |last, draft| draft.settings.slots_per_replica = last.settings.slots_per_replica,
    },
    Annotation {
        name: "max-queue-wait-ms",
        range: "0 to 300000, 0 to never queue",
        default: "500",
        meaning: "Longest wait for a replica to be free.",
        read: |text, draft| set(&mut draft.settings.queue_wait_max, millis(text, 0, 300_000)),
        keep: |last, draft| draft.settings.queue_wait_max = last.settings.queue_wait_max,
    },
    Annotation {
        name: "max-queue-length",
        range: "0 to 100000, 0 to never queue",
        default: "1000",
        meaning: "Requests that may wait at a time.",
        read: |text, draft| set(&mut draft.settings.queue_length_max, number(text, 0, 100_000)),
        keep: |last, draft| draft.settings.queue_length_max = last.settings.queue_length_max,
    },
    Annotation {
        name: "scoring-path",
        range: "an absolute path without query, fragment, dot segments and empty segments, up to 1024 characters",
        default: "/score",
        meaning: "Where requests to .../score go in the container.",
        read: |text, draft| set(&mut draft.settings.scoring_path, path(text)),
        keep: |last, draft| draft.settings.scoring_path = last.settings.scoring_path.clone(),
    },
    Annotation {
        name: "scoring-port",
        range: "1 to 65535, or the name of a port of the Service",
        default: "the port named http, else the only port, else 5001",
        meaning: "The port of the container that takes requests.",
        read: |text, draft| set(&mut draft.settings.scoring_port, port(text)),
        keep: |last, draft| draft.settings.scoring_port = last.settings.scoring_port.clone(),
    },
    Annotation {
        name: "auth-mode",
        range: "key, aml_token, none",
        default: "key",
        meaning: "Who may score: holders of a key of the endpoint's Secret, holders of a token that the router trusts, \
                  or everybody. The strictest of all deployments of the endpoint counts, in this order; a wrong value \
                  counts as \"key\".",
        read: |text, draft| {
            let words = [("key", AuthMode::Key), ("aml_token", AuthMode::Token), ("none", AuthMode::None)];
            set(&mut draft.settings.auth, word(text, &words))
        },
        keep: |_, draft| draft.settings.auth = AuthMode::Key,
    },
    Annotation {
        name: "on-abandon",
        range: "wait, close",
        default: "wait; close where max-concurrent-requests-per-instance is 0",
        meaning: "What becomes of a replica whose request timed out or whose client left: it counts as busy until it \
                  answers, or the connection is closed and it counts as free at once.",
        read: |text, draft| {
            set(&mut draft.on_abandon, word(text, &[("wait", OnAbandon::Wait), ("close", OnAbandon::Close)]).map(Some))
        },
        keep: |last, draft| draft.on_abandon = last.on_abandon,
    },
    Annotation {
        name: "retry-reused",
        range: "true, false",
        default: "true",
        meaning: "Whether a request is sent again when a kept connection died before the first byte of the answer. \
                  Say false if scoring twice does harm.",
        read: |text, draft| set(&mut draft.settings.retry_reused, word(text, &[("true", true), ("false", false)])),
        keep: |last, draft| draft.settings.retry_reused = last.settings.retry_reused,
    },
    limits::BODY,
    cors::ORIGINS,
    cors::METHODS,
    cors::HEADERS,
    cors::MAX_AGE,
    rates::PER_SECOND,
    rates::BURST,
    rates::CONCURRENT,
    rates::KEY_PER_SECOND,
    rates::KEY_BURST,
    rates::KEY_CONCURRENT,
    replica_tls::CA_SECRET,
    replica_tls::SERVER_NAME,
];

/// The table of the reference page.
pub fn markdown() -> String {
    let mut text = "| annotation | allowed | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for Annotation { name, range, default, meaning, .. } in ANNOTATIONS {
        text.push_str(&format!("| `{name}` | {range} | {default} | {meaning} |\n"));
    }
    text
}

/// Reads all annotations of a Service. `last` is what the version before it came to.
pub(super) fn read(annotations: &BTreeMap<String, String>, last: Option<&Draft>, reporter: &mut Reporter<'_>) -> Draft {
    let defaults = Draft::default();
    let last = last.unwrap_or(&defaults);
    let mut draft = Draft::default();
    for (full, value) in annotations {
        let Some(name) = full.strip_prefix(PREFIX) else { continue };
        match ANNOTATIONS.iter().find(|known| known.name == name) {
            Some(known) if (known.read)(value, &mut draft).is_some() => {}
            Some(known) => {
                (known.keep)(last, &mut draft);
                reporter.report(full, format!("{} is not allowed: {}", shown(value), known.range));
            }
            None => {
                let hint = match nearest(name, ANNOTATIONS.iter().map(|known| known.name)) {
                    Some(meant) => format!("did you mean {PREFIX}{meant}?"),
                    None => {
                        let names: Vec<_> = ANNOTATIONS.iter().map(|known| known.name).collect();
                        format!("there are {}", names.join(", "))
                    }
                };
                reporter.report(full, format!("there is no such annotation; {hint}"));
            }
        }
    }
    draft
}

fn set<T>(field: &mut T, value: Option<T>) -> Option<()> {
    *field = value?;
    Some(())
}

fn percent(text: &str, max: u8) -> Option<u8> {
    number(text, 0, max.into()).and_then(|percent| u8::try_from(percent).ok())
}

fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    digits(text).filter(|value| (min..=max).contains(value))
}

/// The standard parser takes a sign, which no reader of the value expects.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn millis(text: &str, min: u32, max: u32) -> Option<Duration> {
    number(text, min, max).map(|ms| Duration::from_millis(ms.into()))
}

fn word<T: Copy>(text: &str, known: &[(&str, T)]) -> Option<T> {
    known.iter().find(|(word, _)| *word == text).map(|&(_, value)| value)
}

fn port(text: &str) -> Option<ScoringPort> {
    if is_port_name(text) {
        return Some(ScoringPort::Named(text.into()));
    }
    number(text, 1, 65535).and_then(|port| u16::try_from(port).ok()).map(ScoringPort::Number)
}

fn path(text: &str) -> Option<PathAndQuery> {
    let plain = text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\%".contains(&b));
    let inner = text.strip_prefix('/')?;
    let segments: Vec<_> = inner.strip_suffix('/').unwrap_or(inner).split('/').collect();
    let tidy =
        inner.is_empty() || segments.iter().all(|segment| !segment.is_empty() && *segment != "." && *segment != "..");
    (plain && tidy).then(|| PathAndQuery::from_str(text).ok()).flatten()
}

#[cfg(test)]
#[path = "annotations/tests.rs"]
mod tests;
