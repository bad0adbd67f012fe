//! What a replica is told of who the client is, by those headers that proxies use for it.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};

use super::census::{Census, Kind};
use super::{Peer, X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::data::upstream::RequestHead;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Appends to what a trusted proxy said, and takes out what anybody else said: in the place of that, the router speaks.
pub(super) fn join(headers: &mut HeaderMap, census: Census, peer: Peer<'_>) {
    let (ip, scheme) = (peer.address.ip().to_canonical(), scheme(peer));
    forward_certificate(headers, census, peer);
    if !peer.trusted {
        if census.has(Kind::Forwarded) && headers.contains_key(FORWARDED) {
            headers.insert(FORWARDED, forwarded_element(ip, scheme));
        }
        for (kind, name) in [
            (Kind::ForwardedFor, X_FORWARDED_FOR),
            (Kind::RealIp, X_REAL_IP),
            (Kind::ForwardedProto, X_FORWARDED_PROTO),
            (Kind::ForwardedHost, X_FORWARDED_HOST),
        ] {
            if census.has(kind) {
                headers.remove(name);
            }
        }
        return;
    }
    let (ip_value, host) = (peer.ip.clone(), headers.get(HOST).cloned());
    append_to_list(headers, &X_FORWARDED_FOR, ip_value.clone());
    if headers.contains_key(FORWARDED) {
        append_to_list(headers, &FORWARDED, forwarded_element(ip, scheme));
    }
    headers.entry(X_REAL_IP).or_insert(ip_value);
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Writes what the router says, where the peer is not believed.
pub(super) fn add(headers: &HeaderMap, peer: Peer<'_>, head: &mut RequestHead) {
    if peer.trusted {
        return;
    }
    head.add(&X_FORWARDED_FOR, peer.ip.as_bytes());
    head.add(&X_REAL_IP, peer.ip.as_bytes());
    head.add(&X_FORWARDED_PROTO, scheme(peer).as_bytes());
    if let Some(host) = headers.get(HOST) {
        head.add(&X_FORWARDED_HOST, host.as_bytes());
    }
}

/// As `X-Forwarded-Proto` calls it.
fn scheme(peer: Peer<'_>) -> &'static str {
    if peer.tls.is_some() { "https" } else { "http" }
}

/// Says who the client is by its certificate, unless a trusted proxy already did. What anybody else says goes.
fn forward_certificate(headers: &mut HeaderMap, census: Census, peer: Peer<'_>) {
    if census.has(Kind::ForwardedClientCert) && !peer.trusted {
        headers.remove(X_FORWARDED_CLIENT_CERT);
    }
    if let Some(client) = peer.tls.and_then(|tls| tls.client.as_ref()) {
        headers.entry(X_FORWARDED_CLIENT_CERT).or_insert_with(|| client.forwarded.clone());
    }
}

fn forwarded_element(ip: IpAddr, scheme: &str) -> HeaderValue {
    let element = match ip {
        IpAddr::V4(ip) => format!("for={ip};proto={scheme}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={scheme}"),
    };
    HeaderValue::from_str(&element).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// Adds to a comma-separated list, in one line.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let mut list: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    list.push(value.as_bytes());
    if let Ok(joined) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        headers.insert(name, joined);
    }
}
