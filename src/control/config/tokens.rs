//! Where the keys for tokens come from, and what the settings of tokens must be together.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;

use crate::core::facts::ObjectRef;

use super::{Config, Source};

/// Longest URL.
const URL_BYTES_MAX: usize = 2048;

/// How often an API server lets a watched object be known as still there, at most: see `control::kube`.
const WATCH_AGE_MAX: Duration = Duration::from_secs(120);

/// See the head of the file. One source at most; with none no token is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// A file, or a folder.
    pub file: Option<PathBuf>,
    /// A URL to fetch from.
    pub url: Option<JwksUrl>,
    /// A Secret to watch.
    pub secret: Option<ObjectRef>,
    /// File with the authorities that the server of the URL is checked against; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Longest time between two fetches.
    pub interval: Duration,
    /// Shortest time from one fetch to one that a token or the server asks for.
    pub interval_min: Duration,
    /// Longest time that a fetch may take.
    pub timeout: Duration,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            file: None,
            url: None,
            secret: None,
            ca: None,
            interval: Duration::from_secs(300),
            interval_min: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Tokens {
    /// Whether there is any.
    pub fn has_source(&self) -> bool {
        self.file.is_some() || self.url.is_some() || self.secret.is_some()
    }
}

/// Where a key set may be fetched: over TLS, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl(Uri);

impl JwksUrl {
    /// Whether the server must show a certificate.
    pub fn has_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// The server, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        let usual = if self.has_tls() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(usual)
    }

    /// Server and port as the request names them.
    pub fn authority(&self) -> &str {
        self.0.authority().map(http::uri::Authority::as_str).unwrap_or_default()
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JwksUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > URL_BYTES_MAX {
            return Err("is longer than 2048 bytes");
        }
        if text.contains('#') {
            return Err("has a fragment, which servers never see");
        }
        let url = Self(text.parse().map_err(|_| "is no URL")?);
        if url.authority().contains('@') {
            return Err("has a user in it; the configuration holds no secrets");
        }
        let names_port = url.0.host().is_some_and(|host| host.len() < url.authority().len());
        if url.host().is_empty() || (names_port && url.0.port_u16().is_none_or(|port| port == 0)) {
            return Err("has no host, or no valid port");
        }
        // Whoever answers decides who gets in: off this machine only a server that proves who it is may.
        let is_here = url.host().parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if url.has_tls() || (url.0.scheme() == Some(&Scheme::HTTP) && is_here) {
            return Ok(url);
        }
        Err("is not https; http is for loopback addresses only")
    }
}

pub(super) fn problems(config: &Config) -> Vec<String> {
    let (tokens, rules) = (&config.tokens, &config.limits.tokens);
    let sources = [
        ("token-jwks", tokens.file.is_some()),
        ("token-jwks-url", tokens.url.is_some()),
        ("token-jwks-secret", tokens.secret.is_some()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect();
    let mut problems = Vec::new();
    match *given {
        [] if !rules.issuer.is_empty() || !rules.audiences.is_empty() || rules.endpoint_claim.is_some() => {
            problems.push(
                "token-issuer, token-audience, token-endpoint-claim: there are no keys to check tokens with; give token-jwks, token-jwks-url or token-jwks-secret"
                    .to_owned(),
            );
        }
        [] => {}
        [source] => {
            if rules.issuer.is_empty() {
                problems.push(format!("{source}: tokens of any issuer would do; give token-issuer"));
            }
            if rules.audiences.is_empty() {
                problems.push(format!("{source}: tokens for anything would do; give token-audience"));
            }
        }
        _ => problems.push(format!("{}: keys come from one source; keep one of these", given.join(", "))),
    }
    if tokens.ca.is_some() && !tokens.url.as_ref().is_some_and(JwksUrl::has_tls) {
        problems.push("token-jwks-ca: no server is checked; give token-jwks-url with https".to_owned());
    }
    if tokens.secret.is_some() && !config.sources.contains(&Source::Kubernetes) {
        problems.push("token-jwks-secret: is read with source kubernetes only; give token-jwks instead".to_owned());
    }
    if tokens.url.is_some() && tokens.interval_min > tokens.interval {
        problems.push("token-jwks-interval-min-ms: is longer than token-jwks-interval-ms".to_owned());
    }
    // What is as young as it can be must not count as too old.
    let age = if tokens.secret.is_some() { WATCH_AGE_MAX } else { tokens.interval + tokens.timeout };
    if (tokens.url.is_some() || tokens.secret.is_some()) && rules.stale_max < age {
        let age = age.as_millis();
        problems
            .push(format!("token-stale-max-ms: keys get {age} ms old before they are looked at; give at least that"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_rules() -> Config {
        let mut config = Config::default();
        config.limits.tokens.issuer = "https://issuer".to_owned();
        config.limits.tokens.audiences = vec!["scoring".to_owned()];
        config
    }

    #[test]
    fn keys_without_rules_and_rules_without_keys_are_refused() {
        let mut config = Config::default();
        assert_eq!(problems(&config), [""; 0]);
        config.tokens.file = Some("/jwks.json".into());
        let told = problems(&config);
        assert!(told.len() == 2 && told[0].contains("give token-issuer") && told[1].contains("give token-audience"));
        config.limits.tokens = with_rules().limits.tokens;
        assert_eq!(problems(&config), [""; 0]);
        config.tokens.file = None;
        assert!(problems(&config)[0].contains("give token-jwks, token-jwks-url or"));
    }

    #[test]
    fn keys_come_from_one_source() {
        let mut config = with_rules();
        config.tokens.url = Some("https://issuer/keys".parse().unwrap());
        assert_eq!(problems(&config), [""; 0]);
        config.tokens.file = Some("/jwks.json".into());
        assert_eq!(problems(&config), ["token-jwks, token-jwks-url: keys come from one source; keep one of these"]);
        config.tokens.secret = Some(ObjectRef::new("azureml", "keys"));
        assert!(problems(&config)[0].starts_with("token-jwks, token-jwks-url, token-jwks-secret: "));
    }

    #[test]
    fn settings_that_make_no_sense_beside_the_source_are_refused() {
        let mut config = with_rules();
        config.tokens.ca = Some("/ca.crt".into());
        config.tokens.url = Some("http://127.0.0.1/keys".parse().unwrap());
        assert!(problems(&config)[0].starts_with("token-jwks-ca: no server is checked"));
        config.tokens.url = Some("https://issuer/keys".parse().unwrap());
        assert_eq!(problems(&config), [""; 0]);
        config.limits.tokens.stale_max = Duration::from_secs(309);
        config.tokens.interval_min = Duration::from_secs(400);
        let told = problems(&config);
        assert!(
            told[0].contains("interval-min-ms: is longer") && told[1].contains("keys get 310000 ms old"),
            "{told:?}"
        );
        config.limits.tokens = with_rules().limits.tokens;
        config.tokens = Tokens { secret: Some(ObjectRef::new("azureml", "keys")), ..Tokens::default() };
        assert_eq!(problems(&config), [""; 0]);
        config.sources = vec![Source::Manifests("/m".into())];
        config.limits.tokens.stale_max = Duration::from_secs(60);
        let told = problems(&config);
        assert!(told[0].contains("source kubernetes only") && told[1].contains("120000 ms old"), "{told:?}");
    }

    #[test]
    fn a_url_is_https_or_on_loopback_and_holds_no_secret() {
        for (text, host, port, path) in [
            ("https://login.example.com/keys?v=2", "login.example.com", 443, "/keys?v=2"),
            ("https://[2001:db8::1]:8443", "2001:db8::1", 8443, "/"),
            ("http://127.0.0.1:8080/jwks", "127.0.0.1", 8080, "/jwks"),
            ("http://[::1]/jwks", "::1", 80, "/jwks"),
        ] {
            let url: JwksUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path));
        }
        let long = format!("https://issuer/{}", "x".repeat(URL_BYTES_MAX));
        for (text, why) in [
            ("http://login.example.com/keys", "is not https"),
            ("http://localhost/keys", "is not https"),
            ("http://10.0.0.1/keys", "is not https"),
            ("ftp://127.0.0.1/keys", "is not https"),
            ("/etc/jwks.json", "has no host"),
            ("https://issuer:0/keys", "no valid port"),
            ("https://issuer:65536/keys", "no valid port"),
            ("https://issuer:/keys", "no valid port"),
            ("https://user:secret@issuer/keys", "has a user"),
            ("https://issuer/keys#first", "has a fragment"),
            ("https://iss uer/keys", "is no URL"),
            (&long, "is longer"),
        ] {
            let told = text.parse::<JwksUrl>().unwrap_err();
            assert!(told.starts_with(why) || told.ends_with(why), "{text}: {told}");
        }
    }
}
