//! One record as one line of JSON.
//!
//! The field names are those of Azure's `AmlOnlineEndpointTrafficLog`, so that existing queries work, and ours after
//! them. A field that has nothing to say is left out. Every text has a limit, so a line has one too
//! (`spool::LINE_MAX`, even if every byte had to be escaped).

use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::core::outcome::Outcome;
use crate::core::record::Record;

use super::escape::escape;
use super::number::{write_integer, write_ip, write_millis, write_time};

/// The limits of texts, in bytes.
const METHOD_MAX: usize = 32;
const PATH_MAX: usize = 1024;
const USER_AGENT_MAX: usize = 70;
const NAME_MAX: usize = 128;
const ID_MAX: usize = 128;
const DETAIL_MAX: usize = 256;
const CERTIFICATE_MAX: usize = 256;

/// What goes before a value: the comma and the name, and before a text its quotation mark.
struct Field {
    number: &'static [u8],
    text: &'static [u8],
}

macro_rules! fields {
    ($($(#[doc = $meaning:literal])* $constant:ident = $name:literal;)*) => {
        $(const $constant: Field = Field {
            number: concat!(",\"", $name, "\":").as_bytes(),
            text: concat!(",\"", $name, "\":\"").as_bytes(),
        };)*

        /// Every field of the access log in order, with its meaning.
        pub const FIELDS: &[(&str, &str)] = &[$(($name, concat!($($meaning),*)),)*];
    };
}

fields! {
    /// When the request head was complete; RFC 3339 with microseconds, UTC.
    START_TIME = "StartTime";
    /// Method of the request.
    METHOD = "Method";
    /// Path of the request, cut at 1024 bytes. The query is left out: it may hold secrets.
    PATH = "Path";
    /// Protocol of the client's connection.
    PROTOCOL = "Protocol";
    /// The client's `User-Agent`, cut at 70 bytes.
    USER_AGENT = "UserAgent";
    /// Address of the client: the peer, or what a trusted proxy says.
    CLIENT_IP = "ClientIp";
    /// The endpoint (or v1 service), once found.
    ENDPOINT_NAME = "EndpointName";
    /// The deployment, once chosen.
    DEPLOYMENT_NAME = "DeploymentName";
    /// The replica of the last attempt: its pod, or its address where no pod is known.
    REPLICA = "Replica";
    /// The status that the client got; 499 where it had gone before the answer began.
    RESPONSE_CODE = "ResponseCode";
    /// Why: the reason phrase of the status where the replica's answer was passed on, else the `code` of the error body.
    RESPONSE_CODE_REASON = "ResponseCodeReason";
    /// How it ended: the same word as in the label `outcome` of the metrics.
    OUTCOME = "Outcome";
    /// What exactly happened, where the outcome does not say it all.
    ERROR_DETAIL = "ErrorDetail";
    /// The replica's own status.
    MODEL_STATUS_CODE = "ModelStatusCode";
    /// The reason phrase of the replica's own status.
    MODEL_STATUS_REASON = "ModelStatusReason";
    /// Bytes of the request body that arrived.
    REQUEST_PAYLOAD_SIZE = "RequestPayloadSize";
    /// Bytes of the answer body that were sent.
    RESPONSE_PAYLOAD_SIZE = "ResponsePayloadSize";
    /// The request id.
    REQUEST_ID = "XRequestId";
    /// The client's own id of the request, if it sent one.
    CLIENT_REQUEST_ID = "XMSClientRequestId";
    /// The id of the distributed trace.
    TRACE_ID = "TraceId";
    /// How the client proved who it is: `key`, `token` or `none`.
    AUTH_TYPE = "AuthType";
    /// Who the client is by its certificate, where it showed one: the first URI in it, else host name, else e-mail address, else the subject; cut at 256 bytes.
    CLIENT_CERTIFICATE = "ClientCertificate";
    /// Start to the last byte sent, or to the client gone; milliseconds.
    TOTAL_DURATION = "TotalDurationMs";
    /// Start to the last byte of the request; milliseconds.
    REQUEST_DURATION = "RequestDurationMs";
    /// Start to the first byte of the answer from the replica; milliseconds.
    RESPONSE_DURATION = "ResponseDurationMs";
    /// Waiting for a slot of a replica; milliseconds.
    QUEUE_DURATION = "QueueDurationMs";
    /// Slot taken to the last byte from the replica; milliseconds.
    UPSTREAM_DURATION = "UpstreamDurationMs";
    /// What the router itself added: all time that was neither queueing nor the replica's; milliseconds.
    OVERHEAD_DURATION = "OverheadDurationMs";
    /// How many requests waited in front of it at arrival; only where it waited.
    QUEUE_POSITION = "QueuePosition";
    /// Attempts made; 0 where no replica was asked.
    ATTEMPTS = "Attempts";
    /// The deployment that got a copy.
    MIRRORED = "Mirrored";
}

/// Appends the line of an exchange that was over at `end`.
pub(super) fn write(out: &mut Vec<u8>, record: &Record, end: Instant) {
    out.push(b'{');
    // Without a comma, because it is the first.
    out.extend_from_slice(START_TIME.text.strip_prefix(b",").unwrap_or_default());
    write_time(out, record.started_at);
    out.push(b'"');
    write_request(out, record);
    write_route(out, record);
    write_answer(out, record);
    write_ids(out, record);
    write_times(out, record, end);
    if let Some(ahead) = record.queue_position {
        integer(out, QUEUE_POSITION, u64::from(ahead));
    }
    integer(out, ATTEMPTS, u64::from(record.attempts));
    if let Some(target) = &record.mirrored {
        text(out, MIRRORED, target.name.as_str().as_bytes(), NAME_MAX);
    }
    out.extend_from_slice(b"}\n");
}

fn write_request(out: &mut Vec<u8>, record: &Record) {
    if let Some(method) = record.method.as_ref().map(Method::as_str) {
        text(out, METHOD, method.as_bytes(), METHOD_MAX);
    }
    if let Some(uri) = &record.uri {
        text(out, PATH, uri.path().as_bytes(), PATH_MAX);
        plain(out, PROTOCOL, protocol(record.version));
    }
    if let Some(agent) = &record.user_agent {
        text(out, USER_AGENT, agent.as_bytes(), USER_AGENT_MAX);
    }
    out.extend_from_slice(CLIENT_IP.text);
    write_ip(out, record.client_ip);
    out.push(b'"');
}

fn write_route(out: &mut Vec<u8>, record: &Record) {
    if let Some(endpoint) = &record.endpoint {
        text(out, ENDPOINT_NAME, endpoint.name.as_str().as_bytes(), NAME_MAX);
    }
    if let Some(deployment) = &record.deployment {
        text(out, DEPLOYMENT_NAME, deployment.name.as_str().as_bytes(), NAME_MAX);
    }
    if let Some(replica) = &record.replica {
        text(out, REPLICA, replica.name.as_bytes(), NAME_MAX);
    }
}

fn write_answer(out: &mut Vec<u8>, record: &Record) {
    let status = record.status.unwrap_or_else(|| record.outcome.status());
    integer(out, RESPONSE_CODE, u64::from(status.as_u16()));
    let reason = match record.outcome {
        Outcome::Served => reason_phrase(status),
        other => other.code(),
    };
    plain(out, RESPONSE_CODE_REASON, reason);
    plain(out, OUTCOME, record.outcome.label());
    if let Some(detail) = &record.detail {
        text(out, ERROR_DETAIL, detail.as_bytes(), DETAIL_MAX);
    }
    if let Some(status) = record.model_status {
        integer(out, MODEL_STATUS_CODE, u64::from(status.as_u16()));
        plain(out, MODEL_STATUS_REASON, reason_phrase(status));
    }
    integer(out, REQUEST_PAYLOAD_SIZE, record.request_bytes);
    integer(out, RESPONSE_PAYLOAD_SIZE, record.answer_bytes);
}

fn write_ids(out: &mut Vec<u8>, record: &Record) {
    text(out, REQUEST_ID, record.request_id.as_bytes(), ID_MAX);
    if let Some(id) = record.client_request_id.as_ref().map(HeaderValue::as_bytes) {
        text(out, CLIENT_REQUEST_ID, id, ID_MAX);
    }
    if let Some(trace) = &record.trace_id {
        text(out, TRACE_ID, trace, trace.len());
    }
    plain(out, AUTH_TYPE, record.auth.label());
    if let Some(identity) = &record.client_certificate {
        text(out, CLIENT_CERTIFICATE, identity.as_bytes(), CERTIFICATE_MAX);
    }
}

fn write_times(out: &mut Vec<u8>, record: &Record, end: Instant) {
    let since_start = |at: Instant| at.saturating_duration_since(record.started);
    millis(out, TOTAL_DURATION, Some(since_start(end)));
    millis(out, REQUEST_DURATION, record.received.map(since_start));
    millis(out, RESPONSE_DURATION, record.answered.map(since_start));
    millis(out, QUEUE_DURATION, record.queued);
    millis(out, UPSTREAM_DURATION, record.upstream(end));
    millis(out, OVERHEAD_DURATION, record.overhead(end));
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn reason_phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Unregistered")
}

// The names are known where they are written, and always inlined so that they are stored from registers: a call to copy
// one takes longer than that.

/// A text that needs no escaping.
#[inline(always)]
fn plain(out: &mut Vec<u8>, field: Field, value: &str) {
    out.extend_from_slice(field.text);
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

#[inline(always)]
fn text(out: &mut Vec<u8>, field: Field, value: &[u8], bytes_max: usize) {
    out.extend_from_slice(field.text);
    escape(out, value, bytes_max);
    out.push(b'"');
}

#[inline(always)]
fn integer(out: &mut Vec<u8>, field: Field, value: u64) {
    out.extend_from_slice(field.number);
    write_integer(out, value);
}

#[inline(always)]
fn millis(out: &mut Vec<u8>, field: Field, value: Option<Duration>) {
    if let Some(value) = value {
        out.extend_from_slice(field.number);
        write_millis(out, value);
    }
}
