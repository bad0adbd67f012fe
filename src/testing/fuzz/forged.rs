//! Nobody but the router, and the proxies that it trusts, tells replicas who a client is.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::read_head;
use crate::core::dice::Dice;
use crate::core::limits::Limits;
use crate::core::record::Record;
use crate::data::headers::{self, Census, Peer};
use crate::data::tls::Secured;
use crate::data::tls::client::ClientCertificate;
use crate::data::upstream::RequestHead;

/// The headers by which the router tells replicas about a request.
const OWN: [&str; 10] = [
    "forwarded",
    "traceparent",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-ms-client-request-id",
    "x-ms-request-id",
    "x-real-ip",
    "x-request-id",
];

/// The first byte says by what connection the head that follows came: with TLS, and with a certificate.
pub(super) fn forged(bytes: &[u8]) {
    let Some((flags, head)) = bytes.split_first() else { return };
    let Some(mut parts) = read_head(head) else { return };
    let limits = Limits::default();
    let census = Census::of(&parts.headers);
    if headers::check(&parts, census, &limits).is_err() {
        return;
    }
    let ip = HeaderValue::from_static("192.0.2.9");
    let certificate = HeaderValue::from_static("Hash=0123");
    let shown = ClientCertificate { identity: certificate.clone(), forwarded: certificate.clone() };
    let secured = Secured { is_http2: false, client: (flags & 2 != 0).then_some(shown) };
    let tls = Some(&secured).filter(|_| flags & 1 != 0);
    let peer = Peer { address: ([192, 0, 2, 9], 4711).into(), ip: &ip, trusted: false, tls, limits: &limits };
    let (host, dice) = (parts.headers.get("host").cloned(), &mut Dice::new(7));
    let id = peer.request_id(&parts.headers, dice);
    let client_ip = peer.client_ip(&parts.headers);
    assert_eq!(client_ip, peer.address.ip());
    let mut record = Record::new(std::time::Instant::now(), std::time::SystemTime::UNIX_EPOCH, client_ip, id.clone());
    record.ms_request_id = headers::clean_client_id(&parts.headers, &headers::X_MS_REQUEST_ID);
    record.client_request_id = headers::clean_client_id(&parts.headers, &headers::X_MS_CLIENT_REQUEST_ID);
    let mut request = RequestHead::new(&parts.method, &parts.uri);
    let trace = headers::to_replica((&mut parts, census), peer, &record, false, None, dice, &mut request);
    let sent = request.read(0);
    assert!(sent.is_some(), "{request:?}");
    let sent = &sent.unwrap_or_default();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let scheme = HeaderValue::from_static(scheme);
    let own_certificate = Some(certificate).filter(|_| flags & 3 == 3);
    assert_eq!(only(sent, "x-forwarded-for"), Some(&ip));
    assert_eq!(only(sent, "x-real-ip"), Some(&ip));
    assert_eq!(only(sent, "x-forwarded-proto"), Some(&scheme));
    assert_eq!(only(sent, "x-forwarded-host"), host.as_ref());
    assert_eq!(only(sent, "x-forwarded-client-cert"), own_certificate.as_ref());
    assert_eq!(only(sent, "x-request-id"), Some(&id));
    assert_eq!(only(sent, "x-ms-request-id"), record.ms_request_id.as_ref());
    assert_eq!(only(sent, "x-ms-client-request-id"), record.client_request_id.as_ref());
    let traced = only(sent, "traceparent").map(HeaderValue::as_bytes).unwrap_or_default();
    assert_eq!(traced.get(3..35), Some(&trace[..]), "{sent:?}");
    let forwarded = only(sent, "forwarded").map(HeaderValue::as_bytes).unwrap_or(b"for=192.0.2.9");
    assert!(forwarded.starts_with(b"for=192.0.2.9"), "{sent:?}");
    assert!(!sent.contains_key("authorization") || limits.pass_authorization, "{sent:?}");
    for name in sent.keys() {
        let read = name.as_str().replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
        assert!(!OWN.contains(&&*read) || read == name.as_str(), "{name} is taken for {read}: {sent:?}");
    }
    assert_eq!(sent.get_all("host").iter().next(), host.as_ref(), "{sent:?}");
}

/// The value of a header that is there at most once.
fn only<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(HeaderName::from_static(name)).iter();
    let first = all.next();
    assert!(all.next().is_none(), "{name} more than once: {headers:?}");
    first
}
