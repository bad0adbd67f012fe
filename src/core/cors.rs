//! Which pages of other origins may read the answers of an endpoint: CORS, as the Fetch standard has it.
//!
//! Owner: `control` reads [`Rules`] from annotations, [`super::assemble`] makes the [`Cors`] of an endpoint from them,
//! `data` asks it.
//! Holds: nothing is allowed that was not written down; origins are compared byte for byte, as browsers send them.
//!        Cookies are never allowed: keys come in a header, and scripts must have them to send them.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

/// The most entries of one list.
pub const ENTRIES_MAX: usize = 64;

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Pages of any origin.
    Any,
    /// Pages of these: `https://host[:port]`, in lower case.
    These(Vec<String>),
}

/// What the annotations of one Service say; what is not said has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who may ask. Nobody decides about CORS but the replicas where this is missing.
    pub origins: Option<Origins>,
    /// With which methods; `POST` where missing.
    pub methods: Option<Vec<Method>>,
    /// With which headers; those that clients of a model send where missing.
    pub headers: Option<Vec<HeaderName>>,
    /// For how many seconds browsers may remember that.
    pub max_age_s: Option<u32>,
}

/// The rules of one endpoint, with the values of the headers made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    allow_methods: HeaderValue,
    allow_headers: HeaderValue,
    max_age: HeaderValue,
}

/// A preflight: the question of a browser before the request itself.
#[derive(Clone, Copy, Debug)]
pub struct Preflight<'a> {
    /// The origin of the page.
    pub origin: &'a HeaderValue,
    /// The method that it wants to use.
    pub method: &'a HeaderValue,
}

/// What of a preflight is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The origin.
    Origin,
    /// The method.
    Method,
    /// A header.
    Header,
}

impl Forbidden {
    /// What the log says, with the annotation that decides.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Origin => "preflight: the origin is not one of cors-origins",
            Self::Method => "preflight: the method is not one of cors-methods",
            Self::Header => "preflight: a header is not one of cors-headers",
        }
    }
}

impl Rules {
    /// The seconds that hold where none are set.
    pub const MAX_AGE_S: u32 = 600;

    /// The headers that may be sent where none are named.
    pub fn usual_headers() -> Vec<HeaderName> {
        let ours = ["azureml-model-deployment", "x-ms-client-request-id", "x-ms-request-id", "x-request-id"];
        let traces = ["traceparent", "tracestate"];
        let named = ours.into_iter().chain(traces).map(HeaderName::from_static);
        [AUTHORIZATION, CONTENT_TYPE].into_iter().chain(named).collect()
    }

    /// With all defaults; `None` where no origin may ask.
    pub fn compile(&self) -> Option<Cors> {
        let origins = self.origins.clone()?;
        let methods = self.methods.clone().unwrap_or_else(|| vec![Method::POST]);
        let headers = self.headers.clone().unwrap_or_else(Self::usual_headers);
        Some(Cors {
            origins,
            allow_methods: list(methods.iter().map(Method::as_str)),
            allow_headers: list(headers.iter().map(HeaderName::as_str)),
            max_age: HeaderValue::from(self.max_age_s.unwrap_or(Self::MAX_AGE_S)),
            methods,
            headers,
        })
    }
}

/// Tokens are always a valid value.
fn list<'a>(words: impl Iterator<Item = &'a str>) -> HeaderValue {
    HeaderValue::try_from(words.collect::<Vec<_>>().join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl<'a> Preflight<'a> {
    /// The preflight that a request is, if it is one.
    pub fn of(method: &Method, headers: &'a HeaderMap) -> Option<Self> {
        if method != Method::OPTIONS {
            return None;
        }
        let (origin, method) = (headers.get("origin")?, headers.get("access-control-request-method")?);
        Some(Self { origin, method })
    }
}

impl Cors {
    /// Who may ask.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// With which methods.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// With which headers.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// For how many seconds browsers may remember that, as it is told them.
    pub fn max_age(&self) -> &str {
        self.max_age.to_str().unwrap_or_default()
    }

    /// The value of `Access-Control-Allow-Origin` for this origin, if it may ask.
    pub fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::These(known) => {
                known.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
        }
    }

    /// Whether answers differ by origin, which caches must know.
    pub fn varies(&self) -> bool {
        self.origins != Origins::Any
    }

    /// What a preflight is answered with, or what of it is not allowed.
    ///
    /// # Errors
    /// The first of origin, method and headers that is not allowed.
    pub fn answer(&self, asked: Preflight<'_>, headers: &HeaderMap) -> Result<HeaderMap, Forbidden> {
        let origin = self.allowed(asked.origin).ok_or(Forbidden::Origin)?;
        // Methods that any page may use without asking are never refused by browsers either.
        let simple = [Method::GET, Method::HEAD, Method::POST];
        let mut methods = self.methods.iter().chain(&simple);
        if !methods.any(|method| method.as_str().as_bytes() == asked.method.as_bytes()) {
            return Err(Forbidden::Method);
        }
        for line in headers.get_all("access-control-request-headers") {
            let names = line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            for name in names.filter(|name| !name.is_empty()) {
                if !self.headers.iter().any(|known| known.as_str().as_bytes().eq_ignore_ascii_case(name)) {
                    return Err(Forbidden::Header);
                }
            }
        }
        let mut answer = HeaderMap::with_capacity(12);
        answer.insert("access-control-allow-origin", origin);
        answer.insert("access-control-allow-methods", self.allow_methods.clone());
        answer.insert("access-control-allow-headers", self.allow_headers.clone());
        answer.insert("access-control-max-age", self.max_age.clone());
        Ok(answer)
    }
}

/// Reads an origin as browsers write it: scheme and host in lower case, a port only where it is not the usual one.
pub fn is_origin(text: &str) -> bool {
    let (rest, usual) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (None, Some(rest)) => (rest, 80),
        (None, None) => return false,
    };
    let after_bracket = rest.rfind(']').map_or(0, |end| end + 1);
    let tail = rest.get(after_bracket..).unwrap_or_default();
    let (host, port) = match tail.rsplit_once(':') {
        Some((_, port)) => (rest.strip_suffix(port).and_then(|rest| rest.strip_suffix(':')), Some(port)),
        None => (Some(rest), None),
    };
    let Some(host) = host else { return false };
    let is_port = |port: &str| {
        !port.starts_with('0')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != usual)
    };
    let is_host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']');
            inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.to_string() == inner))
        }
        None => {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
            (1..=253).contains(&host.len()) && host.bytes().all(allowed)
        }
    };
    is_host && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: Origins) -> Cors {
        Rules { origins: Some(origins), methods: Some(vec![Method::PUT]), ..Rules::default() }.compile().unwrap()
    }

    fn ask(cors: &Cors, origin: &str, method: &str, names: &[&str]) -> Result<HeaderMap, Forbidden> {
        let (origin, method) = (origin.parse().unwrap(), method.parse().unwrap());
        let name = HeaderName::from_static("access-control-request-headers");
        let headers = names.iter().map(|names| (name.clone(), names.parse().unwrap())).collect();
        cors.answer(Preflight { origin: &origin, method: &method }, &headers)
    }

    #[test]
    fn only_what_was_written_down_is_allowed() {
        let cors = cors(Origins::These(vec!["https://app.test".into(), "https://b.test:8443".into()]));
        let good = "https://app.test";
        for (origin, method, headers, expected) in [
            (good, "POST", &["authorization,content-type"][..], None),
            ("https://b.test:8443", "PUT", &["Authorization", "AzureML-Model-Deployment , x-request-id"], None),
            (good, "GET", &[], None),
            (good, "POST", &["", " , "], None),
            ("https://app.test:8443", "POST", &[], Some(Forbidden::Origin)),
            ("http://app.test", "POST", &[], Some(Forbidden::Origin)),
            ("https://app.test.evil.test", "POST", &[], Some(Forbidden::Origin)),
            ("https://APP.test", "POST", &[], Some(Forbidden::Origin)),
            ("null", "POST", &[], Some(Forbidden::Origin)),
            (good, "DELETE", &[], Some(Forbidden::Method)),
            (good, "put", &[], Some(Forbidden::Method)),
            (good, "POST", &["authorization, x-other"], Some(Forbidden::Header)),
            (good, "POST", &["authorization", "*"], Some(Forbidden::Header)),
        ] {
            assert_eq!(ask(&cors, origin, method, headers).err(), expected, "{origin} {method} {headers:?}");
        }
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed_and_for_how_long() {
        let some = cors(Origins::These(vec!["https://app.test".into()]));
        let answer = ask(&some, "https://app.test", "PUT", &[]).unwrap();
        assert_eq!(answer["access-control-allow-origin"], "https://app.test");
        assert_eq!(answer["access-control-allow-methods"], "PUT");
        assert_eq!(answer["access-control-max-age"], "600");
        let allowed = answer["access-control-allow-headers"].to_str().unwrap();
        assert!(allowed.starts_with("authorization, content-type, azureml-model-deployment"), "{allowed}");
        let any = cors(Origins::Any);
        assert_eq!(ask(&any, "null", "PUT", &[]).unwrap()["access-control-allow-origin"], "*");
        assert!(some.varies() && !any.varies());
        assert_eq!(Rules::default().compile(), None);
    }

    #[test]
    fn a_preflight_is_an_options_request_with_both_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static("https://app.test"));
        assert!(Preflight::of(&Method::OPTIONS, &headers).is_none());
        headers.insert("access-control-request-method", HeaderValue::from_static("POST"));
        assert!(Preflight::of(&Method::OPTIONS, &headers).is_some());
        assert!(Preflight::of(&Method::POST, &headers).is_none());
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in
            ["https://a.test", "http://localhost:3000", "https://a-b.test:8443", "http://[::1]:8080", "https://[::1]"]
        {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "a.test",
            "https://",
            "https://a.test/",
            "https://A.test",
            "https://a.test:443",
            "http://a:80",
            "https://a.test:0",
            "https://a.test:",
            "https://a.test:65536",
            "https://u@a.test",
            "https://*.test",
            "ftp://a.test",
            "https://[::1",
            "https://[::01]",
            "https://a.test:+1",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
