//! The admin port: what operators, Prometheus and the kubelet ask the router.
//!
//! This file says what is answered; `server` accepts and serves. All of it runs on the control runtime, so the
//! admin port answers however busy the workers are. It has no authentication: it shows no secrets and belongs on an
//! address that only operators reach.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use tower::BoxError;

use crate::core::snapshot::Snapshot;
use crate::core::vitals::Vitals;

use super::logging::Levels;
use super::metrics::{Format, Metrics};
use super::ready::Ready;

mod certificates;
mod dump;
mod server;
mod tokens;

pub use self::server::{Admin, bind};

/// The longest body that is read.
const BODY_MAX: usize = 4 << 10;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The pages, as the index and the 404 list them.
const PAGES: &[(&str, &str)] = &[
    ("/metrics", "metrics for Prometheus, as text or OpenMetrics"),
    ("/healthz", "200 as long as the process works"),
    (
        "/readyz",
        "200 when requests should be sent here, else 503 and what is waited for; says if the world is a restored one",
    ),
    ("/debug/snapshot", "endpoints, deployments and replicas with live counters, problems found in objects (JSON)"),
    (
        "/debug/certificates",
        "certificates that clients are shown, how long they are valid, and what is wrong with new ones (JSON)",
    ),
    ("/debug/tokens", "keys that tokens are checked against, where they come from, and what is wrong there (JSON)"),
    ("/debug/config", "the configuration in force (JSON)"),
    (
        "/log-level",
        "GET shows the filter of the trace log; PUT changes it (body: info, or info,scorefront::discovery=warn)",
    ),
];

/// What the answers are made of.
#[derive(Debug)]
pub struct State {
    /// The world as it is routed.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The counters of the router.
    pub vitals: Arc<Vitals>,
    /// What is waited for.
    pub ready: Ready,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/log-level`.
    pub levels: Levels,
    /// For `/debug/config`; must hold no secrets.
    pub config: serde_json::Value,
}

type Answer = Response<Full<Bytes>>;

/// What the kubelet asks is answered before any layer: however busy the port is, it must not look dead.
fn probe<B>(state: &State, request: &Request<B>) -> Option<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    match request.uri().path() {
        "/healthz" => Some(text(StatusCode::OK, "ok\n".to_owned())),
        "/readyz" => Some(readiness(&state.ready)),
        _ => None,
    }
}

/// The answer to every other request. Never fails; the error type is what the layers around it need.
async fn answer<B>(state: Arc<State>, request: Request<B>) -> Result<Answer, BoxError>
where
    B: http_body::Body<Error: Into<BoxError>, Data: Send> + Send,
{
    let path = request.uri().path();
    let known = PAGES.iter().any(|(page, _)| *page == path);
    if !known && path != "/" {
        return Ok(text(StatusCode::NOT_FOUND, format!("no page {path:?} here; there are:\n{}", index())));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if path == "/log-level" && request.method() == Method::PUT {
        return Ok(change_level(&state, request).await);
    }
    if !reads {
        let allowed = if path == "/log-level" { "GET, HEAD, PUT" } else { "GET, HEAD" };
        let refusal = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {allowed}\n"));
        return Ok(with(refusal, header::ALLOW, HeaderValue::from_static(allowed)));
    }
    Ok(match path {
        "/metrics" => metrics(&state, request.headers()),
        "/debug/snapshot" => json(&dump::of(&state.snapshot.load_full(), &state.vitals)),
        "/debug/certificates" => json(&certificates::of(&state.vitals)),
        "/debug/tokens" => json(&tokens::of(&state.vitals)),
        "/debug/config" => json(&state.config),
        "/log-level" => text(StatusCode::OK, state.levels.current() + "\n"),
        _ => text(StatusCode::OK, index()),
    })
}

fn metrics(state: &State, headers: &http::HeaderMap) -> Answer {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accepts.collect::<Vec<_>>().join(","));
    match state.metrics.encode(format) {
        Ok(page) => respond(StatusCode::OK, format.content_type(), page),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n")),
    }
}

fn readiness(ready: &Ready) -> Answer {
    let pending = ready.pending();
    let remark = ready.remark().map(|remark| remark + "\n").unwrap_or_default();
    if pending.is_empty() {
        return text(StatusCode::OK, format!("ready\n{remark}"));
    }
    let lines = pending.iter().map(|what| format!("waiting for {what}\n")).collect::<String>();
    text(StatusCode::SERVICE_UNAVAILABLE, lines + &remark)
}

async fn change_level<B>(state: &State, request: Request<B>) -> Answer
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    let body = match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return text(StatusCode::BAD_REQUEST, format!("body cannot be read ({BODY_MAX} bytes at most): {error}\n"));
        }
    };
    let wanted = String::from_utf8_lossy(&body);
    match state.levels.change(&wanted) {
        Ok(()) => {
            let filter = state.levels.current();
            tracing::info!(filter, "log level changed");
            text(StatusCode::OK, filter + "\n")
        }
        Err(error) => text(
            StatusCode::BAD_REQUEST,
            format!(
                "no valid filter: {error}; send a level (error, warn, info, debug, trace, off) or levels by module, such as info,scorefront::discovery=warn\n"
            ),
        ),
    }
}

fn index() -> String {
    PAGES.iter().map(|(page, meaning)| format!("{page:<20} {meaning}\n")).collect()
}

/// What a layer in front of [`answer`] refused: too many requests at a time, or too slow.
fn refusal(error: &BoxError) -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("the admin port is busy: {error}\n"))
}

fn text(status: StatusCode, body: String) -> Answer {
    respond(status, PLAIN, body)
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(body) => respond(StatusCode::OK, JSON, body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be written as JSON: {error}\n")),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    with(answer, header::CONTENT_TYPE, HeaderValue::from_static(content_type))
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

#[cfg(test)]
mod tests;
