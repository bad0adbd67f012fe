//! What reads bytes of strangers, as functions of bytes alone: each panics where something that must hold does not.
//!
//! A target joins with one line in [`TARGETS`] and a folder of inputs in `fuzz/corpus`. `tests/fuzz.rs` replays the
//! inputs and makes up others; the package `fuzz` has libFuzzer do that; `examples/fuzz.rs` does it blindly.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};

use crate::control::config::{self, Stop};
use crate::control::facts::{Parsed, Said, parse_secret, parse_service, parse_slice};
use crate::control::manifests;
use crate::control::objects::Object;
use crate::control::state_file;
use crate::core::dice::Dice;
use crate::core::limits::Limits;
use crate::core::proxy_protocol::{self, Reading};
use crate::core::route::{PublicPath, Wanted, parse_path};
use crate::core::token::{self, KeySet, Rules};
use crate::core::x509::Certificate;
use crate::data::headers::{self, Census};

mod answer;
mod forged;
mod message;
mod stack;
mod talk;

/// One parser, or more, with what must hold.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Tries it on some bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "path", run: path },
    Target { name: "head", run: head },
    Target { name: "facts", run: facts },
    Target { name: "config", run: config },
    Target { name: "x509", run: x509 },
    Target { name: "proxy", run: proxy },
    Target { name: "token", run: token },
    Target { name: "state", run: state_file::stands },
    Target { name: "forged", run: forged::forged },
    Target { name: "arrival", run: talk::arrival },
    Target { name: "errors", run: talk::errors },
    Target { name: "answer", run: answer::answer },
];

/// A path that is taken means the same to whoever decodes it: no way out of its endpoint, no hidden separator.
fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(PublicPath::Scoring { name, wanted, form }) = parse_path(text) else { return };
    let rest = match wanted {
        Wanted::Score => "/score",
        Wanted::Path(rest) => rest,
    };
    assert_eq!(text, format!("/api/v1/{}/{name}{rest}", form.word()), "nothing of it is lost or changed");
    assert!(!name.is_empty() && !name.contains('/') && rest.starts_with('/'), "{text:?}");
    let decoded = decode(rest.as_bytes());
    let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    assert_eq!(count(&decoded), count(rest.as_bytes()), "an encoded slash: {text:?}");
    assert!(!decoded.contains(&b'\\') && !decoded.starts_with(b"//"), "{text:?}");
    for segment in decoded.split(|byte| *byte == b'/') {
        let bare = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(bare != b"." && bare != b"..", "a dot segment: {text:?}");
    }
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

/// A head that is taken has one host and one framing, and nothing of one hop is left for the next.
fn head(bytes: &[u8]) {
    let Some(mut parts) = read_head(bytes) else { return };
    let census = Census::of(&parts.headers);
    if headers::check(&parts, census, &Limits::default()).is_err() {
        return;
    }
    let count = |parts: &Parts, name| parts.headers.get_all(name).iter().count();
    assert_eq!(count(&parts, HOST), 1, "{:?}", parts.headers);
    assert!(count(&parts, TRANSFER_ENCODING) <= 1, "{:?}", parts.headers);
    assert!(count(&parts, TRANSFER_ENCODING) == 0 || count(&parts, CONTENT_LENGTH) == 0, "{:?}", parts.headers);
    let id = headers::clean_client_id(&parts.headers, &HeaderName::from_static("x-ms-client-request-id"));
    assert!(id.is_none_or(|id| (1..=40).contains(&id.len()) && id.to_str().is_ok()), "{:?}", parts.headers);
    let trace = headers::join_trace(&mut parts.headers, census, &mut Dice::new(7));
    let kept = parts.headers.get("traceparent").map(HeaderValue::as_bytes);
    assert!(kept.is_none() || trace.parent.is_none(), "{:?}", parts.headers);
    let traced = trace.parent.as_ref().map(|parent| &parent[..]).or(kept).unwrap_or_default();
    assert_eq!(traced.get(3..35), Some(&trace.id[..]), "{:?}", parts.headers);
    let upgrade = headers::wanted_upgrade(&parts, census);
    assert!(upgrade.is_none_or(|protocol| !protocol.as_bytes().contains(&b',')), "{:?}", parts.headers);
    headers::remove_hop_by_hop(&mut parts.headers, census);
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        assert_eq!(count(&parts, name), 0, "{:?}", parts.headers);
    }
}

/// The lines of a head that have passed hyper's own parser: a method and target, then names and values.
fn read_head(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut first = std::str::from_utf8(lines.next()?).ok()?.split_ascii_whitespace();
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines.take(200) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        request = request.header(name, HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What an object says is within its ranges, the same when it is read again, and its problems are few and of one line.
fn facts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(objects) = manifests::parse(text, text.starts_with(['{', '['])) else { return };
    for object in &objects {
        let parsed = match object {
            Object::Service(service) => {
                let parsed = parse_service(service, None);
                check_service(&parsed, |last| parse_service(service, Some(last)));
                parsed
            }
            Object::EndpointSlice(slice) => parse_slice(slice, false),
            Object::Secret(secret) => parse_secret(secret),
        };
        assert!(parsed.problems.len() <= 17, "{} problems of one object", parsed.problems.len());
        match parsed.said {
            Said::Slice(Some(slice)) => {
                assert!(
                    slice.addresses.len() <= 1000 && slice.addresses.iter().all(|a| is_elsewhere(a.ip)),
                    "{slice:?}"
                );
            }
            Said::Secret(Some(secret)) => assert!(secret.keys.len() <= 2, "{} keys", secret.keys.len()),
            _ => {}
        }
    }
}

fn is_elsewhere(ip: IpAddr) -> bool {
    !ip.to_canonical().is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

fn check_service(parsed: &Parsed, again: impl Fn(&crate::control::facts::Deployment) -> Parsed) {
    let Said::Deployment(Some(deployment)) = &parsed.said else { return };
    let facts = &deployment.facts;
    for name in [&facts.endpoint, &facts.deployment] {
        assert!(name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
    }
    assert!(facts.traffic_percent.is_none_or(|percent| percent <= 100) && facts.mirror_percent <= 50, "{facts:?}");
    if parsed.problems.is_empty()
        && let Said::Deployment(second) = again(deployment).said
    {
        assert_eq!(second.map(|second| second.facts), Some(facts.clone()), "what was good stays as it is");
    }
}

/// A command line (an input that begins with `--`) or a file: taken, or refused with at least one line that says why.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A command line may name any file of this machine, so those that name one to read are left out.
    if text.starts_with("--") && !text.contains("--c") {
        return read_config(&text.split_ascii_whitespace().collect::<Vec<_>>());
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file for the input");
    file.write_all(bytes).expect("the input is written");
    let path = file.path().display().to_string();
    read_config(&["--config", &path]);
}

fn read_config(words: &[&str]) {
    match config::parse(["scorefront", "serve"].iter().chain(words), |_| None) {
        Ok(_) => {}
        Err(Stop::Invalid(lines)) => assert!(!lines.is_empty() && lines.iter().all(|line| !line.trim().is_empty())),
        Err(stop @ Stop::Shown(_)) => assert!(matches!(stop.exit_code(), 0 | 2)),
    }
}

/// A certificate that is read says the same again, and its name is safe to log.
fn x509(bytes: &[u8]) {
    let Some(read) = Certificate::read(bytes) else { return };
    assert_eq!(Certificate::read(bytes).as_ref(), Some(&read));
    assert!(read.identity().bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{read:?}");
}

/// The header of a proxy ends where it says, whatever follows and however its bytes arrive.
fn proxy(bytes: &[u8]) {
    let whole = proxy_protocol::read(bytes);
    match whole {
        Reading::Whole { length, .. } => {
            assert!((1..=proxy_protocol::LENGTH_MAX.min(bytes.len())).contains(&length), "{length}");
            for end in 0..length {
                assert_eq!(proxy_protocol::read(bytes.get(..end).unwrap_or_default()), Reading::More, "at {end}");
            }
            assert_eq!(proxy_protocol::read(bytes.get(..length).unwrap_or_default()), whole);
        }
        Reading::More => assert!(bytes.len() < proxy_protocol::LENGTH_MAX, "{} bytes and no end", bytes.len()),
        Reading::Wrong(why) => assert!(!why.is_empty()),
    }
}

/// The two halves of an input, apart at its first empty line: a key set, and a token. Nobody here has a private key, so no
/// token is right.
fn token(bytes: &[u8]) {
    let at = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let (set, token) = bytes.split_at_checked(at).unwrap_or_default();
    let keys = match KeySet::read(set) {
        Ok(keys) => keys,
        Err(why) => return assert!(!why.is_empty() && !why.contains('\n'), "{why:?}"),
    };
    assert!((1..=128).contains(&keys.usable()));
    let rules = Rules { issuer: "i".to_owned(), audiences: vec!["a".to_owned()], ..Rules::default() };
    let verdict = token::verify(token.trim_ascii(), &keys, &rules, "iris", SystemTime::UNIX_EPOCH);
    assert!(verdict.is_err(), "{}", bytes.escape_ascii());
}
