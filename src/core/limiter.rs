//! The rate limits of an endpoint: as a whole, and for each of its keys or of the subjects of its tokens.
//!
//! Owner: [`super::assemble`] makes a [`Limiter`] for each snapshot of an endpoint; its [`Meters`] are live state and
//! outlive it. `data` asks it after the credentials were checked.
//! Holds: a key over its limit takes nothing from the others: keys are asked first, and what one took of its own is put
//!        back when the endpoint as a whole is over its limit.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

use super::count::Counter;
use super::facts::KeyDigest;
use super::rate::{Limit, Meter, Over, Permit};
use super::subjects::{self, Subject, Subjects};

/// What the annotations of a Service say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// For all requests of the endpoint together.
    pub endpoint: Limit,
    /// For those with one key, or with tokens of one subject.
    pub key: Limit,
}

/// A limit that can be in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `rate-limit-per-second`.
    EndpointRate,
    /// `rate-limit-concurrent`.
    EndpointConcurrency,
    /// `key-rate-limit-per-second`.
    KeyRate,
    /// `key-rate-limit-concurrent`.
    KeyConcurrency,
}

impl Which {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::EndpointRate, Self::EndpointConcurrency, Self::KeyRate, Self::KeyConcurrency];

    /// The word for metrics and for clients.
    pub fn label(self) -> &'static str {
        match self {
            Self::EndpointRate => "endpoint-rate",
            Self::EndpointConcurrency => "endpoint-concurrency",
            Self::KeyRate => "key-rate",
            Self::KeyConcurrency => "key-concurrency",
        }
    }

    /// The annotation that sets it.
    pub fn annotation(self) -> &'static str {
        match self {
            Self::EndpointRate => "rate-limit-per-second",
            Self::EndpointConcurrency => "rate-limit-concurrent",
            Self::KeyRate => "key-rate-limit-per-second",
            Self::KeyConcurrency => "key-rate-limit-concurrent",
        }
    }
}

/// The live state behind the limits of one endpoint.
#[derive(Debug, Default)]
pub struct Meters {
    endpoint: Arc<Meter>,
    /// Of the keys that are valid now.
    keys: Mutex<Vec<(KeyDigest, Arc<Meter>)>>,
    /// Of whoever comes with tokens.
    pub subjects: Arc<Subjects>,
    refused: [Counter; Which::ALL.len()],
}

impl Meters {
    /// One meter for each of these keys, in their order: the one that it had before, if it was valid then.
    pub fn of_keys(&self, keys: &[KeyDigest]) -> Arc<[Arc<Meter>]> {
        let mut known = self.keys.lock();
        let meters: Arc<[Arc<Meter>]> = keys
            .iter()
            .map(|key| {
                let same = known.iter().find(|(other, _)| key.is_of_same_key(other) || other.is_of_same_key(key));
                same.map(|(_, meter)| meter.clone()).unwrap_or_default()
            })
            .collect();
        *known = keys.iter().copied().zip(meters.iter().cloned()).collect();
        meters
    }

    /// Requests of all keys together that count as under way.
    pub fn under_way(&self) -> u32 {
        self.endpoint.under_way()
    }

    /// Requests refused because of this limit.
    pub fn refused(&self, which: Which) -> u64 {
        self.refused.get(which as usize).map_or(0, Counter::read)
    }
}

/// See the head of the file. The default limits nothing.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The limits.
    pub rates: Rates,
    /// What outlives it.
    pub meters: Arc<Meters>,
    /// Of the keys, in the order in which the endpoint has them.
    pub keys: Arc<[Arc<Meter>]>,
}

/// Whose limits besides the endpoint's a request comes under.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// Nobody's: there are none, or no credentials.
    Anybody,
    /// Of the key with this number, in the order in which the endpoint has them.
    Key(usize),
    /// Of this subject of a token.
    Subject {
        /// Who it is.
        subject: Subject,
        /// How many subjects are remembered.
        places: usize,
    },
}

/// What a request under way holds of the limits.
#[derive(Debug)]
pub struct Passed {
    _caller: Option<CallerPermit>,
    _endpoint: Option<Permit>,
}

#[derive(Debug)]
enum CallerPermit {
    Key(Permit),
    /// In a box, so that requests without do not carry its size.
    Subject(Box<subjects::Permit>),
}

impl CallerPermit {
    fn unused(self, limit: &Limit) {
        match self {
            Self::Key(permit) => permit.unused(limit),
            Self::Subject(permit) => permit.unused(limit),
        }
    }
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit in the way.
    pub which: Which,
    /// When to ask again.
    pub retry_after_seconds: u32,
    /// Whether it is that of a subject of tokens, and not of a key.
    pub is_of_subject: bool,
}

impl Limiter {
    /// Whether it makes a difference with which key or token a request comes.
    pub fn asks_for_caller(&self) -> bool {
        self.rates.key.is_set()
    }

    /// Whether there is any limit.
    pub fn is_set(&self) -> bool {
        self.rates.endpoint.is_set() || self.asks_for_caller()
    }

    /// Lets a request of this caller pass, at `now` in nanoseconds.
    ///
    /// # Errors
    /// The limit that it is over; it is counted.
    pub fn admit(&self, caller: Caller, now: u64) -> Result<Passed, Exceeded> {
        let permit = self.admit_caller(caller, now).map_err(|over| {
            let is_of_subject = matches!(caller, Caller::Subject { .. });
            Exceeded { is_of_subject, ..self.refuse(over, Which::KeyRate, Which::KeyConcurrency) }
        })?;
        if !self.rates.endpoint.is_set() {
            return Ok(Passed { _caller: permit, _endpoint: None });
        }
        match self.meters.endpoint.admit(&self.rates.endpoint, now) {
            Ok(endpoint) => Ok(Passed { _caller: permit, _endpoint: Some(endpoint) }),
            Err(over) => {
                if let Some(permit) = permit {
                    permit.unused(&self.rates.key);
                }
                Err(self.refuse(over, Which::EndpointRate, Which::EndpointConcurrency))
            }
        }
    }

    fn admit_caller(&self, caller: Caller, now: u64) -> Result<Option<CallerPermit>, Over> {
        let limit = &self.rates.key;
        if !limit.is_set() {
            return Ok(None);
        }
        match caller {
            Caller::Anybody => Ok(None),
            Caller::Key(index) => {
                let meter = self.keys.get(index);
                meter.map(|meter| meter.admit(limit, now).map(CallerPermit::Key)).transpose()
            }
            Caller::Subject { subject, places } => {
                let permit = self.meters.subjects.admit(limit, subject, places, now)?;
                Ok(Some(CallerPermit::Subject(Box::new(permit))))
            }
        }
    }

    fn refuse(&self, over: Over, rate: Which, concurrency: Which) -> Exceeded {
        let which = if over == Over::Concurrency { concurrency } else { rate };
        if let Some(counter) = self.meters.refused.get(which as usize) {
            counter.bump();
        }
        Exceeded { which, retry_after_seconds: over.retry_after_seconds(), is_of_subject: false }
    }

    /// For the client: which limit it was, and what it is set to.
    pub fn explain(&self, exceeded: Exceeded) -> String {
        let which = exceeded.which;
        let (limit, whose) = match which {
            Which::EndpointRate | Which::EndpointConcurrency => (&self.rates.endpoint, "all its clients together"),
            Which::KeyRate | Which::KeyConcurrency if exceeded.is_of_subject => {
                (&self.rates.key, "clients with tokens of this subject")
            }
            Which::KeyRate | Which::KeyConcurrency => (&self.rates.key, "clients with this key"),
        };
        let mut text = format!("{whose} are over {}", which.annotation());
        let value = match which {
            Which::EndpointRate | Which::KeyRate => limit.per_second,
            Which::EndpointConcurrency | Which::KeyConcurrency => limit.concurrent,
        };
        // Writing to a string cannot fail.
        let _ = write!(text, " ({}).", value.unwrap_or_default());
        text
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn limiter(meters: &Arc<Meters>, rates: Rates, keys: &[&[u8]]) -> Limiter {
        let digests: Vec<_> = keys.iter().map(|key| KeyDigest::of(key)).collect();
        Limiter { rates, meters: meters.clone(), keys: meters.of_keys(&digests) }
    }

    fn rate(per_second: u32) -> Limit {
        Limit { per_second: Some(per_second), ..Limit::default() }
    }

    fn refused(limiter: &Limiter, key: usize) -> Option<Which> {
        limiter.admit(Caller::Key(key), 0).err().map(|exceeded| exceeded.which)
    }

    #[test]
    fn a_key_over_its_limit_takes_nothing_from_another() {
        let rates = Rates { endpoint: rate(4), key: rate(2) };
        let limiter = limiter(&Arc::default(), rates, &[b"one", b"two"]);
        assert_eq!((refused(&limiter, 0), refused(&limiter, 0)), (None, None));
        for _ in 0..100 {
            assert_eq!(refused(&limiter, 0), Some(Which::KeyRate));
        }
        assert_eq!((refused(&limiter, 1), refused(&limiter, 1)), (None, None));
        assert_eq!(limiter.meters.refused(Which::KeyRate), 100);
    }

    #[test]
    fn an_endpoint_over_its_limit_takes_nothing_of_a_key() {
        let key = Limit { concurrent: Some(1), ..rate(2) };
        let limiter = limiter(&Arc::default(), Rates { endpoint: rate(1), key }, &[b"one"]);
        assert_eq!(refused(&limiter, 0), None);
        for _ in 0..10 {
            assert_eq!(refused(&limiter, 0), Some(Which::EndpointRate));
        }
        let later = limiter.admit(Caller::Key(0), 1_000_000_000);
        assert!(later.is_ok(), "{later:?}");
        assert_eq!(limiter.admit(Caller::Key(0), 1_000_000_000).unwrap_err().which, Which::KeyConcurrency);
    }

    #[test]
    fn a_subject_over_its_limit_takes_nothing_from_another_or_from_the_endpoint() {
        let limiter = limiter(&Arc::default(), Rates { endpoint: rate(3), key: rate(2) }, &[]);
        let ask = |name| {
            let caller = Caller::Subject { subject: Subject([name; 16]), places: 64 };
            limiter.admit(caller, 0).err().map(|exceeded| (exceeded.which, exceeded.is_of_subject))
        };
        assert_eq!(
            [ask(1), ask(1), ask(1), ask(1)],
            [None, None, Some((Which::KeyRate, true)), Some((Which::KeyRate, true))]
        );
        assert_eq!([ask(2), ask(2)], [None, Some((Which::EndpointRate, false))]);
        assert_eq!(limiter.meters.refused(Which::KeyRate), 2);
    }

    #[test]
    fn a_key_that_stays_valid_keeps_its_meter_and_another_gets_its_own() {
        let meters = Arc::default();
        let rates = Rates { key: rate(1), ..Rates::default() };
        let before = limiter(&meters, rates, &[b"one", b"two"]);
        assert_eq!((refused(&before, 0), refused(&before, 0)), (None, Some(Which::KeyRate)));
        let after = limiter(&meters, rates, &[b"new", b"one"]);
        assert_eq!((refused(&after, 0), refused(&after, 1)), (None, Some(Which::KeyRate)));
        assert_eq!(meters.keys.lock().len(), 2, "what is no longer valid is forgotten");
    }

    #[test]
    fn without_limits_nothing_is_metered_and_with_some_the_message_names_it() {
        let free = Limiter::default();
        assert!(!free.is_set() && (0..1000).all(|_| free.admit(Caller::Key(0), 0).is_ok()));
        let limiter = limiter(&Arc::default(), Rates { endpoint: rate(7), key: rate(3) }, &[]);
        let explain = |which, is_of_subject| limiter.explain(Exceeded { which, retry_after_seconds: 1, is_of_subject });
        assert_eq!(explain(Which::KeyRate, false), "clients with this key are over key-rate-limit-per-second (3).");
        let of_subject = "clients with tokens of this subject are over key-rate-limit-per-second (3).";
        assert_eq!(explain(Which::KeyRate, true), of_subject);
        assert!(explain(Which::EndpointRate, false).ends_with("rate-limit-per-second (7)."));
    }
}
