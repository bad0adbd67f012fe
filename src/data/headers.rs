//! Header rules, both ways. Pure: header maps in, and a map or a text out; of answers, lines in and out as well.
//!
//! Towards the replica: hop-by-hop headers go, ids and forwarding are set by the router, credentials stay behind.
//! Towards the client: hop-by-hop headers go, ids and the deployment's name are added.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Version};
use uuid::Uuid;

#[cfg(test)]
pub(crate) use self::census::tests::names;
pub(crate) use self::census::{Census, Kind};
use self::trace::TRACEPARENT;
pub(crate) use self::trace::join as join_trace;
use super::tls::Secured;
use super::upstream::{RequestHead, Text};
use crate::core::dice::Dice;
use crate::core::limits::Limits;
use crate::core::outcome::Outcome;
use crate::core::record::{Record, id_value};

mod census;
mod forwarded;
mod trace;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
pub(crate) const X_MS_CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
pub(crate) const MODEL_DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What the router calls a request that could not be read in exactly one way.
pub(crate) type Fault = (Outcome, &'static str);

/// Refuses heads that are over a limit, or that a replica could read differently.
pub(crate) fn check(parts: &Parts, census: Census, limits: &Limits) -> Result<(), Fault> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target + census.bytes > limits.head_bytes_max {
        return Err((Outcome::HeadTooLarge, "request line and headers are over max-head-bytes"));
    }
    if parts.headers.len() > limits.headers_max {
        return Err((Outcome::HeadTooLarge, "more request headers than max-headers"));
    }
    if census.has_several(Kind::Host) {
        return Err((Outcome::Malformed, "more than one Host header"));
    }
    if !census.has(Kind::Host) && parts.version == Version::HTTP_11 {
        return Err((Outcome::Malformed, "no Host header"));
    }
    if census.has(Kind::TransferEncoding) && census.has(Kind::ContentLength) {
        return Err((Outcome::Malformed, "both Transfer-Encoding and Content-Length"));
    }
    if parts.method == Method::CONNECT {
        return Err((Outcome::Malformed, "CONNECT is for proxies, and this is none"));
    }
    if !is_plainly_chunked(&parts.headers, census) {
        return Err((Outcome::Malformed, "a Transfer-Encoding other than chunked"));
    }
    if census.has(Kind::TransferEncoding) && parts.version != Version::HTTP_11 {
        return Err((Outcome::Malformed, "Transfer-Encoding outside HTTP/1.1"));
    }
    Ok(())
}

/// Whether there is no transfer coding, or just `chunked`: others would be taken off by nobody.
pub(crate) fn is_plainly_chunked(headers: &HeaderMap, census: Census) -> bool {
    if !census.has(Kind::TransferEncoding) {
        return true;
    }
    let coding = headers.get(TRANSFER_ENCODING);
    let is_chunked = coding.is_none_or(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    is_chunked && !census.has_several(Kind::TransferEncoding)
}

/// The size that the client announced for its body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Who sent the request, and on whose word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    pub(crate) address: SocketAddr,
    /// Its IP address as a header value.
    pub(crate) ip: &'a HeaderValue,
    /// Whether what it says about the client is believed.
    pub(crate) trusted: bool,
    /// What its TLS handshake came to, where there was one.
    pub(crate) tls: Option<&'a Secured>,
    pub(crate) limits: &'a Limits,
}

impl Peer<'_> {
    /// The client's address: the peer's, or the last untrusted one that trusted proxies report.
    pub(crate) fn client_ip(&self, headers: &HeaderMap) -> IpAddr {
        let mut client = self.address.ip().to_canonical();
        if !self.trusted {
            return client;
        }
        let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(ip) = read_ip(hop) else { break };
            client = ip;
            if !self.limits.trusts(ip) {
                break;
            }
        }
        client
    }

    /// The request's id: the trusted proxy's, else a fresh one.
    pub(crate) fn request_id(&self, headers: &HeaderMap, dice: &mut Dice) -> HeaderValue {
        let kept = if self.trusted { headers.get(X_REQUEST_ID).filter(|id| is_plain_id(id)) } else { None };
        kept.cloned().unwrap_or_else(|| id_value(make_id(dice)))
    }
}

/// An address with or without port and brackets, as proxies write it.
fn read_ip(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let ip = hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).map(|ip: IpAddr| ip.to_canonical())
}

fn is_plain_id(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A random (version 4) UUID.
pub(crate) fn make_id(dice: &mut Dice) -> Uuid {
    let (high, low) = (dice.throw().to_be_bytes(), dice.throw().to_be_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high);
    bytes[8..].copy_from_slice(&low);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The client's own id: letters, digits, `_` and `-`, at most 40 of them.
pub(crate) fn clean_client_id(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let value = headers.get(name)?;
    let is_clean = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if value.len() <= 40 && value.as_bytes().iter().all(is_clean) {
        return (!value.is_empty()).then(|| value.clone());
    }
    let clean: Vec<u8> = value.as_bytes().iter().copied().filter(|byte| is_clean(byte)).take(40).collect();
    HeaderValue::from_bytes(&clean).ok().filter(|value| !value.is_empty())
}

/// One answer, one length: none beside chunks, and one number where it was repeated.
pub(crate) fn settle_length(headers: &mut HeaderMap, census: Census) {
    if census.has(Kind::TransferEncoding) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let Some(length) = headers.get(CONTENT_LENGTH) else { return };
    // hyper has seen to it that all of them are equal.
    let first = length.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if first.len() != length.len() || census.has_several(Kind::ContentLength) {
        let one = HeaderValue::from_bytes(first);
        headers.remove(CONTENT_LENGTH);
        if let Ok(one) = one {
            headers.insert(CONTENT_LENGTH, one);
        }
    }
}

/// What stays on one hop, in either direction (RFC 9110 §7.6.1), and what `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, census: Census) {
    if census.has(Kind::Connection) {
        let several = census.has_several(Kind::Connection);
        let others: Vec<HeaderValue> =
            if several { headers.get_all(CONNECTION).iter().skip(1).cloned().collect() } else { Vec::new() };
        for value in headers.remove(CONNECTION).iter().chain(&others) {
            remove_named(headers, value, census);
        }
    }
    for (kind, name) in [
        (Kind::KeepAlive, KEEP_ALIVE),
        (Kind::ProxyConnection, PROXY_CONNECTION),
        (Kind::Te, TE),
        (Kind::TransferEncoding, TRANSFER_ENCODING),
        (Kind::Upgrade, UPGRADE),
        (Kind::Http2Settings, HTTP2_SETTINGS),
    ] {
        if census.has(kind) {
            headers.remove(name);
        }
    }
}

/// What one line of `Connection` names.
fn remove_named(headers: &mut HeaderMap, connection: &HeaderValue, census: Census) {
    // These two say how long the connection lives, and hardly ever there is a header of that name.
    let is_option = |name: &[u8]| {
        (name.eq_ignore_ascii_case(b"keep-alive") && !census.has(Kind::KeepAlive))
            || (name.eq_ignore_ascii_case(b"close") && !census.has(Kind::Close))
    };
    if is_option(connection.as_bytes()) {
        return;
    }
    for name in connection.to_str().unwrap_or_default().split(',').map(str::trim) {
        // The framing of the message is not for the peer to take away.
        let is_framing = name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("host");
        if !is_option(name.as_bytes()) && !is_framing {
            headers.remove(name);
        }
    }
}

/// Whether the client says that it sends no other request.
pub(crate) fn wants_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The protocol that the client wants to change to, where it may.
pub(crate) fn wanted_upgrade(parts: &Parts, census: Census) -> Option<HeaderValue> {
    if !census.has(Kind::Upgrade) {
        return None;
    }
    let wants = parts
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")));
    let mut protocols = parts.headers.get_all(UPGRADE).iter();
    let protocol = protocols.next()?;
    // One protocol, so that it is clear what was agreed to; and not HTTP/2, with which requests would go past the router.
    let is_one = protocols.next().is_none() && protocol.as_bytes().iter().all(|byte| !matches!(byte, b',' | b' '));
    let allowed = is_one && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (wants && allowed && parts.version == Version::HTTP_11 && parts.method != Method::CONNECT).then(|| protocol.clone())
}

/// Writes the headers of the request to the replica: those of the client that are left, then the router's own, which do not
/// go through the map. Says to which trace it belongs.
pub(crate) fn to_replica(
    (parts, census): (&mut Parts, Census),
    peer: Peer<'_>,
    record: &Record,
    has_body: bool,
    upgrade: Option<&HeaderValue>,
    dice: &mut Dice,
    head: &mut RequestHead,
) -> [u8; 32] {
    let accepts_trailers = census.has(Kind::Te)
        && parts
            .headers
            .get(TE)
            .is_some_and(|te| te.as_bytes().windows(8).any(|w| w.eq_ignore_ascii_case(b"trailers")));
    // First of all: what the router sets below, no `Connection` of a client takes away.
    remove_hop_by_hop(&mut parts.headers, census);
    let headers = &mut parts.headers;
    if census.has(Kind::Lookalike) {
        remove_lookalikes(headers);
    }
    if census.has(Kind::Expect) {
        headers.remove(EXPECT);
    }
    if census.has(Kind::Authorization) && !peer.limits.pass_authorization {
        headers.remove(AUTHORIZATION);
    }
    let mut has_host = census.has(Kind::Host);
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
        if let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            headers.insert(HOST, host);
            has_host = true;
        }
    }
    if !has_host && let Some(endpoint) = &record.endpoint {
        // HTTP/1.1 must have one.
        headers.insert(HOST, endpoint.name.header().clone());
    }
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if has_body && !census.has(Kind::ContentLength) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    forwarded::join(headers, census, peer);
    // Also where nothing takes their place: the stock server refuses long ones, so only what was cleaned is passed on.
    for (kind, name) in [
        (Kind::RequestId, X_REQUEST_ID),
        (Kind::MsClientRequestId, X_MS_CLIENT_REQUEST_ID),
        (Kind::MsRequestId, X_MS_REQUEST_ID),
    ] {
        if census.has(kind) {
            headers.remove(name);
        }
    }
    let trace = join_trace(headers, census, dice);
    head.reserve(census.bytes);
    head.add_all(headers);
    forwarded::add(headers, peer, head);
    head.add(&X_REQUEST_ID, record.request_id.as_bytes());
    if let Some(id) = &record.client_request_id {
        head.add(&X_MS_CLIENT_REQUEST_ID, id.as_bytes());
    }
    if let Some(id) = &record.ms_request_id {
        head.add(&X_MS_REQUEST_ID, id.as_bytes());
    }
    if let Some(parent) = &trace.parent {
        head.add(&TRACEPARENT, parent);
    }
    trace.id
}

/// Removes what servers may take for a header of the router's though it is spelled otherwise.
fn remove_lookalikes(headers: &mut HeaderMap) {
    while let Some(strange) = headers.keys().find(|name| census::is_lookalike(name.as_str())).cloned() {
        headers.remove(strange);
    }
}

/// `was_there`: whether there may be something to remove.
fn set_or_remove(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>, was_there: bool) {
    match value {
        Some(value) => drop(headers.insert(name, value.clone())),
        None if was_there => drop(headers.remove(name)),
        None => {}
    }
}

/// HTTP/2 may split the cookies over several fields; HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Puts the ids of a request on its answer, whoever made it.
pub(crate) fn identify(headers: &mut HeaderMap, census: Census, record: &Record) {
    headers.insert(X_MS_REQUEST_ID, ms_id(record).clone());
    headers.insert(X_REQUEST_ID, record.request_id.clone());
    let client_id = record.client_request_id.as_ref();
    set_or_remove(headers, X_MS_CLIENT_REQUEST_ID, client_id, census.has(Kind::MsClientRequestId));
    if let Some(deployment) = &record.deployment {
        headers.insert(MODEL_DEPLOYMENT, deployment.name.header().clone());
    }
}

/// The same where the answer's headers are lines, and none of these.
pub(crate) fn identify_lines(lines: &mut Text, record: &Record) {
    lines.add(&X_MS_REQUEST_ID, ms_id(record).as_bytes());
    lines.add(&X_REQUEST_ID, record.request_id.as_bytes());
    if let Some(id) = &record.client_request_id {
        lines.add(&X_MS_CLIENT_REQUEST_ID, id.as_bytes());
    }
    if let Some(deployment) = &record.deployment {
        lines.add(&MODEL_DEPLOYMENT, deployment.name.header().as_bytes());
    }
}

/// What clients of the extension know a request by.
fn ms_id(record: &Record) -> &HeaderValue {
    record.ms_request_id.as_ref().or(record.client_request_id.as_ref()).unwrap_or(&record.request_id)
}

#[cfg(test)]
#[path = "headers/tests.rs"]
mod tests;
