//! From HTTP to HTTPS, where `redirect-to-https` says so.

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::Authority;

use super::headers::{Peer, X_FORWARDED_PROTO};
use super::respond::Refused;
use crate::core::outcome::Outcome;

/// The port that clients need not name.
const HTTPS_PORT: u16 = 443;

/// Refuses a request that came without TLS, and says where it should have gone. What a trusted proxy received with TLS
/// is as good.
pub(crate) fn secured(peer: &Peer<'_>, parts: &Parts) -> Result<(), Refused> {
    let Some(port) = peer.limits.https_port.filter(|_| peer.tls.is_none()) else { return Ok(()) };
    let said = parts.headers.get(X_FORWARDED_PROTO);
    if peer.trusted && said.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https")) {
        return Ok(());
    }
    let location = location(parts, port)
        .ok_or_else(|| Refused::new(Outcome::Malformed, "The request is not valid: no usable Host header."))?;
    let message = "Requests are taken with TLS only: send this one to the address in the Location header. What was \
                   sent here, its key included, went over the network in the open.";
    Err(Refused::new(Outcome::Redirected, message).elsewhere(location))
}

fn location(parts: &Parts, port: u16) -> Option<HeaderValue> {
    let named = parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = parts.uri.authority().or(named.as_ref())?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let host = Some(authority.host()).filter(|host| !host.is_empty())?;
    let text = match port {
        HTTPS_PORT => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(uri: &str, host: Option<&str>, port: u16) -> Option<String> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        location(&parts, port).map(|location| location.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_location_has_the_host_without_its_port_and_the_whole_target() {
        let score = "/api/v1/endpoint/iris/score?a=1&b=%20";
        assert_eq!(of(score, Some("models.test:8080"), 443).unwrap(), format!("https://models.test{score}"));
        assert_eq!(of(score, Some("models.test"), 8443).unwrap(), format!("https://models.test:8443{score}"));
        assert_eq!(of("/", Some("[::1]:80"), 443).unwrap(), "https://[::1]/");
        assert_eq!(of("http://a.test:1/x", Some("b.test"), 443).unwrap(), "https://a.test/x");
        assert_eq!(of("//evil.test/..", Some("a.test"), 443).unwrap(), "https://a.test//evil.test/..");
    }

    #[test]
    fn a_host_that_is_none_leads_nowhere() {
        for host in [None, Some(""), Some("a b"), Some("a.test/evil"), Some("user@")] {
            assert_eq!(of("/score", host, 443), None, "{host:?}");
        }
        assert_eq!(of("/score", Some("user:password@a.test"), 443).unwrap(), "https://a.test/score");
    }
}
