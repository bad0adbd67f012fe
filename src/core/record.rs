//! What is known about one exchange when it is over: the source of its access-log line and its metrics.
//!
//! Owner: `data::exchange`, which carries it through and hands it in exactly once, on whatever path.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version};

use super::outcome::Outcome;
use super::snapshot::{Deployment, Endpoint, Replica};

/// How the client proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// Not asked, or refused before it was looked at.
    None,
    /// By a key of the endpoint.
    Key,
    /// By a token.
    Token,
}

impl AuthType {
    /// The word in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Token => "token",
        }
    }
}

/// A UUID as the value of `x-request-id`.
pub fn id_value(id: uuid::Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    shared_value(text)
}

/// A value that will be cloned: it is shared from the start, where one that is copied takes an allocation more for that.
pub fn shared_value<const N: usize>(text: [u8; N]) -> HeaderValue {
    // Whoever calls it has text that is always a valid value.
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

/// See the head of the file. All instants are on one clock; durations that were never measured are `None`.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request head was complete.
    pub started: Instant,
    /// The same, on the wall.
    pub started_at: SystemTime,
    /// Method; `None` where no request could be read.
    pub method: Option<Method>,
    /// Target as the client sent it. Logged without its query, which may hold secrets.
    pub uri: Option<Uri>,
    /// Protocol.
    pub version: Version,
    /// `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The client: the peer, or what a trusted proxy says.
    pub client_ip: IpAddr,
    /// `x-request-id`: a fresh UUID, or what a trusted ingress sent.
    pub request_id: HeaderValue,
    /// `x-ms-client-request-id`, cleaned.
    pub client_request_id: Option<HeaderValue>,
    /// `x-ms-request-id` of the client, cleaned.
    pub ms_request_id: Option<HeaderValue>,
    /// The 32 hexadecimal digits of the trace.
    pub trace_id: Option<[u8; 32]>,
    /// How the client proved who it is.
    pub auth: AuthType,
    /// Who the client is by its certificate, where it showed one.
    pub client_certificate: Option<HeaderValue>,
    /// The endpoint, once found.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The deployment, once chosen.
    pub deployment: Option<Arc<Deployment>>,
    /// The replica of the last attempt.
    pub replica: Option<Arc<Replica>>,
    /// How many wait in front at arrival; `None` where the request did not queue.
    pub queue_position: Option<u32>,
    /// Time from arrival to a slot, or to giving up; `None` where no slot was asked for.
    pub queued: Option<Duration>,
    /// When the first slot was taken.
    pub admitted: Option<Instant>,
    /// Attempts made.
    pub attempts: u32,
    /// When the last byte of the request had arrived.
    pub received: Option<Instant>,
    /// When the first byte of the answer came from the replica.
    pub answered: Option<Instant>,
    /// When the last byte of the answer came from the replica, or it broke off.
    pub finished: Option<Instant>,
    /// The replica's own status.
    pub model_status: Option<StatusCode>,
    /// The status sent to the client.
    pub status: Option<StatusCode>,
    /// How it ended.
    pub outcome: Outcome,
    /// What exactly happened, where the outcome does not say it all.
    pub detail: Option<Cow<'static, str>>,
    /// Bytes of the request body that arrived.
    pub request_bytes: u64,
    /// Bytes of the answer body that were handed to the client's connection.
    pub answer_bytes: u64,
    /// The deployment that got a copy.
    pub mirrored: Option<Arc<Deployment>>,
}

impl Record {
    /// For an exchange that starts now. The outcome is "client gone" until somebody knows better: that is what it is
    /// when the exchange is dropped on the way.
    pub fn new(started: Instant, started_at: SystemTime, client_ip: IpAddr, request_id: HeaderValue) -> Self {
        Self {
            started,
            started_at,
            method: None,
            uri: None,
            version: Version::HTTP_11,
            user_agent: None,
            client_ip,
            request_id,
            client_request_id: None,
            ms_request_id: None,
            trace_id: None,
            auth: AuthType::None,
            client_certificate: None,
            endpoint: None,
            deployment: None,
            replica: None,
            queue_position: None,
            queued: None,
            admitted: None,
            attempts: 0,
            received: None,
            answered: None,
            finished: None,
            model_status: None,
            status: None,
            outcome: Outcome::ClientGone,
            detail: None,
            request_bytes: 0,
            answer_bytes: 0,
            mirrored: None,
        }
    }

    /// From taking the slot to the last byte from the replica (to `end` where that never came).
    pub fn upstream(&self, end: Instant) -> Option<Duration> {
        let admitted = self.admitted?;
        Some(self.finished.unwrap_or(end).saturating_duration_since(admitted))
    }

    /// What the router itself added: all time that was neither queueing nor the replica's.
    pub fn overhead(&self, end: Instant) -> Option<Duration> {
        let total = end.saturating_duration_since(self.started);
        let upstream = self.upstream(end)?;
        Some(total.saturating_sub(self.queued.unwrap_or_default()).saturating_sub(upstream))
    }
}
