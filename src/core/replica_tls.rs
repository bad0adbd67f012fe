//! TLS towards the replicas of a deployment: what its Service asks for, and what comes of it.
//!
//! Owner: [`super::assemble`] decides, the data path connects as decided.
//! Holds: a deployment that asks for TLS is never spoken to without it. What cannot be had (no authority, a wrong
//! annotation) closes it.
//! Does not: know a TLS library. What the data path makes of the rules is kept beside them, so that it lives as long as
//! they do ([`ReplicaTls::made`]).

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// The longest host name, without a dot at the end.
const NAME_MAX: usize = 253;
/// The longest part of one between dots.
const LABEL_MAX: usize = 63;

/// What the annotations of a Service say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The Secret in the same namespace whose `ca.crt` replicas are checked against.
    pub ca_secret: Option<Arc<str>>,
    /// The name that certificates of replicas must be for.
    pub server_name: Option<Arc<str>>,
    /// Whether one of the two has a value that it may not have.
    pub is_wrong: bool,
}

/// Certificates of authorities, in DER. Each was read once and can be used as one.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots(Arc<[Box<[u8]>]>);

impl Roots {
    /// Of these certificates.
    pub fn new(certificates: Vec<Box<[u8]>>) -> Self {
        Self(certificates.into())
    }

    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(|der| &**der)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

/// The entry `ca.crt` of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ca {
    /// There is none.
    #[default]
    Absent,
    /// It cannot be used; the Secret's own problem says why.
    Broken,
    /// What it holds.
    Read(Roots),
}

/// How the replicas of a deployment are spoken to.
#[derive(Clone, Debug)]
pub enum Wire {
    /// Without TLS: nothing else was asked for.
    Plain,
    /// With TLS.
    Tls(Arc<ReplicaTls>),
    /// Not at all, and why: TLS was asked for and cannot be had.
    Closed(Arc<str>),
}

impl Wire {
    /// The rules of TLS, where there is some.
    pub fn tls(&self) -> Option<&Arc<ReplicaTls>> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Plain | Self::Closed(_) => None,
        }
    }

    /// Whether connections made for one of them will do for the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) => true,
            (Self::Tls(a), Self::Tls(b)) => Arc::ptr_eq(a, b),
            (Self::Closed(a), Self::Closed(b)) => a == b,
            _ => false,
        }
    }
}

/// Whom to believe and who to ask for.
#[derive(Debug)]
pub struct ReplicaTls {
    /// The authorities that count.
    pub roots: Roots,
    /// The name that certificates must be for.
    pub server_name: Arc<str>,
    made: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl ReplicaTls {
    /// With nothing made of it yet.
    pub fn new(roots: Roots, server_name: Arc<str>) -> Self {
        Self { roots, server_name, made: OnceLock::new() }
    }

    /// What was made of these rules: by `make`, the first time. `None` where that was something else than a `T`.
    pub fn made<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.made.get_or_init(|| Box::new(make())).downcast_ref()
    }
}

/// Whether a certificate can be for this name: a host name without wildcard and dot at the end, or an IP address.
pub fn is_server_name(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        let edges = [label.bytes().next(), label.bytes().next_back()];
        label.len() <= LABEL_MAX
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && edges.iter().all(|edge| edge.is_some_and(|byte| byte != b'-'))
    };
    // A last part that begins with a digit is a number to some.
    let last = text.rsplit('.').next().and_then(|label| label.bytes().next());
    text.len() <= NAME_MAX && text.split('.').all(is_label) && last.is_some_and(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn host_names_and_addresses_are_server_names_and_nothing_else_is() {
        let label = "a".repeat(LABEL_MAX);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        for name in ["iris-blue.models.svc", "A.example", "x", "1.2.example", "10.0.0.1", "fd00::1", &longest] {
            assert!(is_server_name(name), "{name}");
        }
        let too_long = format!("{longest}a");
        for name in ["", ".", "a.", ".a", "a..b", "*.a", "a b", "-a", "a-", "a_b", "a.1", "a.0x1", "10.0.0", "[::1]"] {
            assert!(!is_server_name(name), "{name}");
        }
        assert!(!is_server_name(&too_long) && !is_server_name(&format!("{label}a")));
    }

    #[test]
    fn what_was_made_is_made_once_and_kept() {
        let tls = ReplicaTls::new(Roots::new(Vec::new()), "a".into());
        assert_eq!(tls.made(|| 1_u8), Some(&1));
        assert_eq!(tls.made(|| 2_u8), Some(&1));
        assert_eq!(tls.made(|| "x"), None);
    }

    #[test]
    fn only_the_same_rules_make_the_same_wire() {
        let tls = |name: &str| Wire::Tls(Arc::new(ReplicaTls::new(Roots::new(Vec::new()), name.into())));
        let (a, again) = (tls("a"), tls("a"));
        assert!(a.is_same(&a.clone()) && !a.is_same(&again) && !a.is_same(&Wire::Plain));
        assert!(Wire::Plain.is_same(&Wire::Plain));
        assert!(Wire::Closed("x".into()).is_same(&Wire::Closed("x".into())));
        assert!(!Wire::Closed("x".into()).is_same(&Wire::Closed("y".into())));
        assert!(!Wire::Closed("x".into()).is_same(&Wire::Plain));
    }
}
