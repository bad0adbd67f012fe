//! What answers say about CORS, where an endpoint has rules about it ([`crate::core::cors`]).
//!
//! Holds: with rules, no word of the replica about CORS reaches the client; without, nothing here runs.

use http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY};

use crate::core::cors::{Cors, Preflight};
use crate::core::record::Record;

/// What scripts may read of an answer besides what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "azureml-model-deployment, ms-azureml-model-error-reason, ms-azureml-model-error-statuscode, retry-after, \
     server-timing, x-ms-client-request-id, x-ms-request-id, x-ms-run-function-failed, x-request-id, \
     x-scorefront-limit",
);

/// What a replica could say about CORS.
const REPLICAS: [HeaderName; 8] = [
    http::header::ACCESS_CONTROL_ALLOW_ORIGIN,
    http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    http::header::ACCESS_CONTROL_ALLOW_HEADERS,
    http::header::ACCESS_CONTROL_ALLOW_METHODS,
    http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
    http::header::ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
    HeaderName::from_static("timing-allow-origin"),
];

/// Put on the answer to one request.
#[derive(Debug)]
pub(crate) struct Marks {
    /// The origin that may read it; `None` where none asked, or one that may not.
    origin: Option<HeaderValue>,
    varies: bool,
}

impl Marks {
    pub(crate) fn of(rules: &Cors, request: &HeaderMap) -> Self {
        let origin = request.get(ORIGIN).and_then(|origin| rules.allowed(origin));
        Self { origin, varies: rules.varies() }
    }

    /// In place of whatever the replica says.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        for name in REPLICAS {
            headers.remove(name);
        }
        if self.varies {
            vary(headers);
        }
        if let Some(origin) = &self.origin {
            headers.insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(http::header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// The headers of the answer to a preflight: none about CORS where something is not allowed, which browsers take for a
/// no. The log says what it was.
pub(crate) fn answer(rules: &Cors, asked: Preflight<'_>, request: &HeaderMap, record: &mut Record) -> HeaderMap {
    let mut headers = rules.answer(asked, request).unwrap_or_else(|forbidden| {
        record.detail = Some(forbidden.reason().into());
        HeaderMap::new()
    });
    if rules.varies() {
        vary(&mut headers);
    }
    headers
}

/// For caches: the answer is another one for another origin.
fn vary(headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("origin"));
}
