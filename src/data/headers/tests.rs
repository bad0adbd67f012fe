use super::trace::{Trace, trace_id};
use super::*;
use crate::data::tls::client::ClientCertificate;
use http::Request;

/// The headers that a replica gets.
fn to_replica(mut parts: Parts, peer: Peer<'_>, upgrade: Option<&HeaderValue>) -> HeaderMap {
    let (census, length) = (Census::of(&parts.headers), content_length(&parts.headers));
    let mut head = RequestHead::new(&parts.method, &parts.uri);
    super::to_replica((&mut parts, census), peer, &record(), false, upgrade, &mut Dice::new(1), &mut head);
    head.read(length.unwrap_or_default()).unwrap()
}

fn check(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    super::check(parts, Census::of(&parts.headers), limits)
}

fn wanted_upgrade(parts: &Parts) -> Option<HeaderValue> {
    super::wanted_upgrade(parts, Census::of(&parts.headers))
}

fn trace(headers: &mut HeaderMap, dice: &mut Dice) -> Trace {
    let census = Census::of(headers);
    join_trace(headers, census, dice)
}

fn identify(headers: &mut HeaderMap, record: &Record) {
    let census = Census::of(headers);
    super::identify(headers, census, record);
}

fn parts(version: Version, lines: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method("POST").uri("/api/v1/endpoint/iris/score").version(version);
    for (name, value) in lines {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn h1(lines: &[(&str, &str)]) -> Parts {
    parts(Version::HTTP_11, lines)
}

/// What replicas hear of a client's certificate.
fn certificate_sent(lines: &[(&str, &str)], trusted: bool, own: Option<&'static str>) -> Vec<String> {
    let limits = Limits::default();
    let value = own.map(HeaderValue::from_static);
    let client = value.map(|value| ClientCertificate { identity: value.clone(), forwarded: value });
    let secured = Secured { is_http2: false, client };
    let peer = Peer { tls: Some(&secured), ..peer(&limits, trusted) };
    let headers = to_replica(h1(lines), peer, None);
    assert_eq!(text(&headers, "x-forwarded-proto"), ["https"]);
    let alike = headers.iter().filter(|(name, _)| name.as_str().replace('_', "-") == "x-forwarded-client-cert");
    alike.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn a_certificate_is_the_clients_own_or_what_a_trusted_proxy_says() {
    let (name, forged) =
        ("x-forwarded-client-cert", [("x-forwarded-client-cert", "Hash=1"), ("x_forwarded-client_cert", "Hash=2")]);
    let none: [String; 0] = [];
    assert_eq!(certificate_sent(&forged, false, None), none);
    assert_eq!(certificate_sent(&forged, false, Some("Hash=own")), [format!("{name}: Hash=own")]);
    assert_eq!(certificate_sent(&[(name, "1"), (name, "2")], false, Some("Hash=own")), [format!("{name}: Hash=own")]);
    assert_eq!(certificate_sent(&forged, true, Some("Hash=own")), [format!("{name}: Hash=1")]);
    assert_eq!(certificate_sent(&[], true, Some("Hash=own")), [format!("{name}: Hash=own")]);
}

#[test]
fn what_the_router_says_is_not_said_by_a_client_in_another_spelling() {
    let forged = [
        ("x_forwarded_for", "10.9.9.9"),
        ("x_forwarded-host", "evil"),
        ("x-forwarded_proto", "https"),
        ("x.real.ip", "10.9.9.9"),
        ("x_request_id", "forged"),
        ("x_ms_request_id", "forged"),
        ("x-ms-client_request-id", "forged"),
        ("x_own", "kept"),
    ];
    for trusted in [false, true] {
        let headers = sent(h1(&[&[("host", "h")], &forged[..]].concat()), trusted);
        let strange: Vec<&str> =
            headers.keys().map(HeaderName::as_str).filter(|name| name.contains(['_', '.'])).collect();
        assert_eq!(strange, ["x_own"], "{headers:?}");
    }
}

#[test]
fn a_client_that_names_the_trace_as_of_one_hop_is_given_another() {
    let old = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for lines in [
        &[("host", "h"), ("connection", "traceparent, tracestate")][..],
        &[("host", "h"), ("connection", "TraceParent"), ("traceparent", old), ("tracestate", "a=1")],
    ] {
        let headers = sent(h1(lines), false);
        let [trace] = text(&headers, "traceparent")[..] else { panic!("one trace: {headers:?}") };
        assert!(trace.len() == 55 && trace != old, "{trace}");
        assert!(!headers.contains_key("tracestate"), "{headers:?}");
    }
}

fn record() -> Record {
    let id = id_value(Uuid::from_u128(1));
    Record::new(std::time::Instant::now(), std::time::SystemTime::UNIX_EPOCH, IpAddr::from([10, 0, 0, 1]), id)
}

fn peer(limits: &Limits, trusted: bool) -> Peer<'_> {
    static IP: HeaderValue = HeaderValue::from_static("10.0.0.1");
    Peer { address: SocketAddr::from(([10, 0, 0, 1], 999)), ip: &IP, trusted, tls: None, limits }
}

/// The headers that a replica gets, by name.
fn sent(parts: Parts, trusted: bool) -> HeaderMap {
    to_replica(parts, peer(&Limits::default(), trusted), None)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn hop_by_hop_headers_and_those_that_connection_names_stay_behind() {
    let headers = sent(
        h1(&[
            ("host", "h"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("expect", "100-continue"),
            ("x-kept", "3"),
        ]),
        false,
    );
    for name in ["connection", "x-secret", "x-other", "keep-alive", "proxy-connection", "upgrade", "te", "expect"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(text(&headers, "x-kept"), ["3"]);
}

#[test]
fn connection_cannot_take_the_framing_away() {
    let headers = sent(h1(&[("host", "h"), ("content-length", "4"), ("connection", "content-length, host")]), false);
    assert_eq!(text(&headers, "content-length"), ["4"]);
    assert_eq!(text(&headers, "host"), ["h"]);
}

#[test]
fn a_header_with_the_name_of_a_connection_option_stays_behind_too() {
    for (option, name) in [("Close", "close"), ("keep-alive", "keep-alive"), (" close , x-own", "close")] {
        let headers = sent(h1(&[("host", "h"), ("connection", option), (name, "1"), ("x-own", "2")]), false);
        assert!(!headers.contains_key(name) && !headers.contains_key("connection"), "{option}");
        assert_eq!(headers.contains_key("x-own"), !option.contains("x-own"), "{option}");
    }
}

#[test]
fn credentials_stay_behind_unless_they_are_asked_for() {
    let lines = [("host", "h"), ("authorization", "Bearer key")];
    assert!(!sent(h1(&lines), false).contains_key("authorization"));
    let limits = Limits { pass_authorization: true, ..Limits::default() };
    let headers = to_replica(h1(&lines), peer(&limits, false), None);
    assert_eq!(text(&headers, "authorization"), ["Bearer key"]);
}

#[test]
fn only_a_trusted_peer_is_believed_about_the_client() {
    let lines = [
        ("host", "h"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public"),
        ("x-real-ip", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1"),
    ];
    let headers = sent(h1(&lines), true);
    assert_eq!(text(&headers, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 10.0.0.1"]);
    assert_eq!(text(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(text(&headers, "x-forwarded-host"), ["public"]);
    assert_eq!(text(&headers, "x-real-ip"), ["1.1.1.1"]);
    assert_eq!(text(&headers, "forwarded"), ["for=1.1.1.1, for=10.0.0.1;proto=http"]);
    let headers = sent(h1(&lines), false);
    assert_eq!(text(&headers, "x-forwarded-for"), ["10.0.0.1"]);
    assert_eq!(text(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(text(&headers, "x-forwarded-host"), ["h"]);
    assert_eq!(text(&headers, "x-real-ip"), ["10.0.0.1"]);
    assert_eq!(text(&headers, "forwarded"), ["for=10.0.0.1;proto=http"]);
}

#[test]
fn the_client_is_the_last_untrusted_hop() {
    let limits = Limits { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Limits::default() };
    let client = |trusted, lines: &[(&str, &str)]| peer(&limits, trusted).client_ip(&h1(lines).headers).to_string();
    assert_eq!(client(true, &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.9.9.9")]), "1.2.3.4");
    assert_eq!(client(true, &[("x-forwarded-for", "[2001:db8::1]:443")]), "2001:db8::1");
    assert_eq!(client(true, &[("x-forwarded-for", "1.2.3.4, nonsense")]), "10.0.0.1");
    assert_eq!(client(true, &[]), "10.0.0.1");
    assert_eq!(client(false, &[("x-forwarded-for", "1.2.3.4")]), "10.0.0.1");
}

#[test]
fn request_ids_are_fresh_unless_a_trusted_peer_has_one() {
    let limits = Limits::default();
    let headers = h1(&[("x-request-id", "from-ingress")]).headers;
    let mut dice = Dice::new(1);
    assert_eq!(peer(&limits, true).request_id(&headers, &mut dice), "from-ingress");
    let mut fresh = || {
        let id = peer(&limits, false).request_id(&headers, &mut dice);
        id.to_str().unwrap().parse::<Uuid>().unwrap()
    };
    let (a, b) = (fresh(), fresh());
    assert_ne!(a, b);
    assert_eq!(a.get_version_num(), 4);
    let odd = h1(&[("x-request-id", "two words")]).headers;
    assert_ne!(peer(&limits, true).request_id(&odd, &mut Dice::new(2)), "two words");
}

#[test]
fn client_ids_are_cleaned_and_cut() {
    let clean = |id: &str| {
        let headers = h1(&[("x-ms-client-request-id", id)]).headers;
        clean_client_id(&headers, &X_MS_CLIENT_REQUEST_ID).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(clean("abc_DEF-123").as_deref(), Some("abc_DEF-123"));
    assert_eq!(clean("a b\tc<script>").as_deref(), Some("abcscript"));
    assert_eq!(clean(&"x".repeat(200)), Some("x".repeat(40)));
    assert_eq!(clean("!!"), None);
    assert_eq!(clean(""), None);
}

#[test]
fn a_trace_is_passed_on_if_valid_and_started_if_not() {
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = h1(&[("traceparent", valid), ("tracestate", "a=1")]).headers;
    let passed_on = trace(&mut headers, &mut Dice::new(1));
    assert_eq!((&passed_on.id, passed_on.parent), (b"0af7651916cd43dd8448eb211c80319c", None));
    assert_eq!(text(&headers, "traceparent"), [valid]);
    assert_eq!(text(&headers, "tracestate"), ["a=1"]);
    for invalid in [
        "",
        "garbage",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ] {
        let mut headers = h1(&[("traceparent", invalid), ("tracestate", "a=1")]).headers;
        let started = trace(&mut headers, &mut Dice::new(1));
        assert!(headers.is_empty(), "{invalid}: {headers:?}");
        let parent = started.parent.map(|parent| HeaderValue::from_bytes(&parent).unwrap());
        headers.extend(parent.map(|parent| (TRACEPARENT, parent)));
        assert_eq!(trace_id(&headers), Some(started.id), "{invalid}");
    }
}

#[test]
fn heads_that_two_servers_could_read_differently_are_refused() {
    let limits = Limits::default();
    let fault = |parts: &Parts| check(parts, &limits).unwrap_err().0;
    assert!(check(&h1(&[("host", "h")]), &limits).is_ok());
    assert_eq!(fault(&h1(&[])), Outcome::Malformed);
    assert!(check(&parts(Version::HTTP_10, &[]), &limits).is_ok());
    assert_eq!(fault(&h1(&[("host", "a"), ("host", "b")])), Outcome::Malformed);
    let both = [("host", "h"), ("transfer-encoding", "chunked"), ("content-length", "3")];
    assert_eq!(fault(&h1(&both)), Outcome::Malformed);
    assert_eq!(fault(&parts(Version::HTTP_10, &[("transfer-encoding", "chunked")])), Outcome::Malformed);
    let long = "x".repeat(limits.head_bytes_max);
    assert_eq!(fault(&h1(&[("host", "h"), ("x-long", &long)])), Outcome::HeadTooLarge);
    let many: Vec<(String, &str)> = (0..=limits.headers_max).map(|i| (format!("x-{i}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(fault(&h1(&many)), Outcome::HeadTooLarge);
}

#[test]
fn an_http2_request_becomes_a_proper_http1_request() {
    let mut parts = parts(Version::HTTP_2, &[("cookie", "a=1"), ("cookie", "b=2")]);
    parts.uri = "http://models.example/api/v1/endpoint/iris/score".parse().unwrap();
    let headers = sent(parts, false);
    assert_eq!(text(&headers, "cookie"), ["a=1; b=2"]);
    assert_eq!(text(&headers, "host"), ["models.example"]);
}

#[test]
fn an_upgrade_is_asked_for_with_both_headers_or_not_at_all() {
    let asks = h1(&[("host", "h"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    let protocol = wanted_upgrade(&asks).unwrap();
    let headers = to_replica(asks, peer(&Limits::default(), false), Some(&protocol));
    assert_eq!(text(&headers, "connection"), ["upgrade"]);
    assert_eq!(text(&headers, "upgrade"), ["websocket"]);
    assert!(wanted_upgrade(&h1(&[("upgrade", "websocket")])).is_none());
    assert!(wanted_upgrade(&h1(&[("connection", "upgrade")])).is_none());
    assert!(wanted_upgrade(&h1(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")])).is_none());
}

#[test]
fn an_answer_says_whose_it_is() {
    let mut record = record();
    let mut headers = h1(&[("x-request-id", "container"), ("x-ms-client-request-id", "container")]).headers;
    identify(&mut headers, &record);
    assert_eq!(text(&headers, "x-request-id"), ["00000000-0000-0000-0000-000000000001"]);
    assert_eq!(text(&headers, "x-ms-request-id"), ["00000000-0000-0000-0000-000000000001"]);
    assert!(!headers.contains_key("x-ms-client-request-id"));
    record.client_request_id = Some(HeaderValue::from_static("mine"));
    identify(&mut headers, &record);
    assert_eq!(text(&headers, "x-ms-request-id"), ["mine"]);
    assert_eq!(text(&headers, "x-ms-client-request-id"), ["mine"]);
}
