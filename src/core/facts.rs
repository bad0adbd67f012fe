//! What discovery found out, parsed and validated, before it becomes a snapshot.
//!
//! Owner: `control` makes facts out of Kubernetes objects; [`super::assemble`] makes snapshots out of facts.
//! Holds: every value is within its documented range; nothing here can fail later.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::cors;
use super::limiter::Rates;
use super::replica_tls::{Asked, Ca};

/// Which of the two public URL forms a deployment answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// `/api/v1/endpoint/<endpoint>/…`: online endpoints with one or more deployments.
    Endpoint,
    /// `/api/v1/service/<service>/…`: v1 services, one deployment of the same name.
    Service,
}

impl Form {
    /// The path segment, and the word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Service => "service",
        }
    }
}

/// A name that compares without regard to case and is shown as it was written.
#[derive(Clone)]
pub struct Name {
    shown: Arc<str>,
    key: Arc<str>,
    header: HeaderValue,
}

impl Name {
    /// Any text; whether it is a *valid* name is for the parser to say.
    pub fn new(text: &str) -> Self {
        let shown: Arc<str> = Arc::from(text);
        let key = if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Arc::from(text.to_ascii_lowercase())
        } else {
            shown.clone()
        };
        // A valid name is always a valid value; others are never served.
        let header = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { shown, key, header }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// As the value of a header.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// In lower case: what maps are keyed by.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.shown)
    }
}

/// Namespace and name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What happens to a slot whose request was given up (timed out, or the client left) before the replica answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAbandon {
    /// The slot stays taken until the replica answers, closes, or ten times the request time-out has passed.
    Wait,
    /// The connection is closed and the slot is free at once.
    Close,
}

/// Who may score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// A valid key of the endpoint's Secret.
    Key,
    /// A valid token. Takes effect only when no deployment of the endpoint asks for keys.
    Token,
    /// Everybody. Takes effect only when every deployment of the endpoint says so.
    None,
}

/// Which port of a slice takes scoring requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringPort {
    /// The port named `http`, else the only port, else 5001.
    Default,
    /// The port of this name.
    Named(Arc<str>),
    /// This port, whatever the slice says.
    Number(u16),
}

/// The settings of a deployment, all of them in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Longest wait for the first byte of an answer, and longest silence within one. 1-300,000 ms.
    pub request_timeout: Duration,
    /// Slots of one replica; 0 is unlimited.
    pub slots_per_replica: u32,
    /// Longest wait for a slot; zero never queues.
    pub queue_wait_max: Duration,
    /// Most requests that may wait at a time.
    pub queue_length_max: u32,
    /// Where `/score` goes in the container.
    pub scoring_path: PathAndQuery,
    /// Which port of the slices is used.
    pub scoring_port: ScoringPort,
    /// Who may score.
    pub auth: AuthMode,
    /// What becomes of slots of abandoned requests.
    pub on_abandon: OnAbandon,
    /// Whether a request may be sent again after a reused connection died before the first answer byte.
    pub retry_reused: bool,
    /// Longest request body, in bytes; that of the router counts where it is smaller.
    pub body_bytes_max: Option<u64>,
    /// Pages of which origins may score at the endpoint.
    pub cors: cors::Rules,
    /// How much may be asked of the endpoint.
    pub rates: Rates,
    /// How replicas are to be spoken to.
    pub replica_tls: Asked,
}

impl Settings {
    /// The value of `max_concurrent_requests_per_instance` that stands for "no limit".
    pub const UNLIMITED: u32 = 0;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_millis(5000),
            slots_per_replica: 1,
            queue_wait_max: Duration::from_millis(500),
            queue_length_max: 1000,
            scoring_path: PathAndQuery::from_static("/score"),
            scoring_port: ScoringPort::Default,
            auth: AuthMode::Key,
            on_abandon: OnAbandon::Wait,
            retry_reused: true,
            body_bytes_max: None,
            cors: cors::Rules::default(),
            rates: Rates::default(),
            replica_tls: Asked::default(),
        }
    }
}

/// One online deployment: a Service that carries the labels.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentFacts {
    /// The Service.
    pub object: ObjectRef,
    /// `metadata.uid`; empty where a manifest has none.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp` in seconds since 1970; a manifest without one counts as oldest (0).
    pub created: i64,
    /// Which URL form it answers to.
    pub form: Form,
    /// The endpoint (for a v1 service its name).
    pub endpoint: Name,
    /// The deployment (for a v1 service its name again).
    pub deployment: Name,
    /// Its settings.
    pub settings: Settings,
    /// `traffic-percent`, 0-100, where given.
    pub traffic_percent: Option<u8>,
    /// `mirror-percent`, 0-50; 0 where not given.
    pub mirror_percent: u8,
}

/// One address of an EndpointSlice, its conditions with the defaults of Kubernetes filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFacts {
    /// The address.
    pub ip: IpAddr,
    /// UID of the pod behind it, where the slice names one.
    pub pod_uid: Option<Arc<str>>,
    /// Name of the pod, or of whatever the slice refers to; for logs.
    pub pod_name: Option<Arc<str>>,
    /// Takes new requests.
    pub ready: bool,
    /// Would answer if it were asked.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    /// The EndpointSlice.
    pub object: ObjectRef,
    /// The Service it belongs to (label `kubernetes.io/service-name`), in the same namespace.
    pub service: Arc<str>,
    /// Name and number of its ports.
    pub ports: Vec<(Option<Arc<str>>, u16)>,
    /// Its addresses.
    pub addresses: Vec<AddressFacts>,
}

/// What is kept of one valid key of an endpoint. Keys themselves are forgotten as soon as they were read; how one is
/// recognised is in [`super::keys`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyDigest {
    /// SHA-256 of the key; never leaves the process.
    Plain([u8; 32]),
    /// HMAC-SHA-256 of that, as it was written down and read again.
    Sealed {
        /// What was written down.
        tag: [u8; 32],
        /// Under what.
        seal: Seal,
    },
}

/// A secret under which digests are written down where others might read them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seal(pub [u8; 32]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

/// The keys of one endpoint, and whom its replicas' certificates may be from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFacts {
    /// The Secret.
    pub object: ObjectRef,
    /// The endpoint (or v1 service) whose keys these are, in the same namespace.
    pub endpoint: Name,
    /// Digests of the primary and the secondary key, those that are present.
    pub keys: Vec<KeyDigest>,
    /// Its authorities, for every deployment of the namespace that names this Secret.
    pub ca: Ca,
}

/// Something in an object that was not taken as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// `Service`, `EndpointSlice`, `Secret`; `File` for a manifest that does not parse, `Source` for a watch that fails.
    pub kind: &'static str,
    /// The object; for a file or a source, an empty namespace and the file's path or the source's name.
    pub object: ObjectRef,
    /// The field or annotation.
    pub field: String,
    /// What is wrong, the value included (never a secret one), and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object.namespace.is_empty() {
            write!(f, "{} {}: {}: {}", self.kind, self.object.name, self.field, self.message)
        } else {
            write!(f, "{} {}: {}: {}", self.kind, self.object, self.field, self.message)
        }
    }
}
