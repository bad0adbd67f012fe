//! `/debug/tokens`: which keys tokens are checked against, where they come from, and what is wrong there. All of it is
//! public: no half of a key that signs is ever kept.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::core::token::Report;
use crate::core::vitals::Vitals;

#[derive(Debug, Serialize)]
pub(super) struct View {
    /// The setting and its value; `None` where none is set.
    source: Option<String>,
    keys: Vec<Key>,
    /// Since they could last be read.
    age_seconds: Option<u64>,
    /// Beyond that no token is accepted.
    age_limit_seconds: Option<u64>,
    /// Why what is there now is not in use.
    problem: Option<String>,
    renewals: u64,
}

#[derive(Debug, Serialize)]
struct Key {
    alg: &'static str,
    kid: Option<String>,
}

pub(super) fn of(vitals: &Vitals) -> View {
    let tokens = &vitals.tokens;
    let Report { source, stale_max, problem } = tokens.report.lock().clone();
    let in_use = tokens.in_use(vitals.micros(Instant::now()));
    let name = |(alg, kid): (&'static str, Option<&str>)| Key { alg, kid: kid.map(str::to_owned) };
    View {
        source: Some(source).filter(|source| !source.is_empty()),
        keys: tokens.keys().iter().flat_map(|keys| keys.names().map(name).collect::<Vec<_>>()).collect(),
        age_seconds: in_use.map(|(_, age)| age.as_secs()),
        age_limit_seconds: stale_max.as_ref().map(Duration::as_secs),
        problem,
        renewals: tokens.renewals.read(),
    }
}
