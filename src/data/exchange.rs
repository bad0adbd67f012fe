//! One request and its answer, from the head to the last byte: route, admit, forward, respond.
//!
//! The request loads the snapshot once and keeps only what it chose from it. One deadline runs from the complete head
//! to the first byte of the answer. One ledger goes along; wherever the exchange ends, dropping the ledger records it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::forward::{self, Answer, forward};
use super::headers::{self, Census, Kind, Peer};
use super::ledger::Ledger;
use super::link::Link;
use super::outgoing::Outgoing;
use super::respond::{self, Refused};
use super::stream::{AnswerBody, Passing};
use super::upload::{Upload, discard};
use super::upstream::{Answered, RequestHead};
use super::{admit, auth, cors, entry, late, meter, mirror, redirect, tunnel};
use crate::core::cors::Preflight;
use crate::core::facts::Form;
use crate::core::outcome::Outcome;
use crate::core::record::Record;
use crate::core::route::{self, PathError, PublicPath, Wanted};
use crate::core::snapshot::Deployment;

/// The public path of a request, once it is known to be one.
struct Target<'a> {
    form: Form,
    name: &'a str,
    wanted: Wanted<'a>,
}

/// What routing decides.
pub(crate) struct Route {
    pub(crate) deployment: Arc<Deployment>,
    /// Whether the client named the deployment.
    named: bool,
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// A refused request with a body up to this size is read whole first, and its connection goes on.
const SMALL_BODY_MAX: u64 = 16 << 10;

/// Handles one request.
pub(crate) async fn exchange(
    link: &Arc<Link>,
    parts: &mut Parts,
    body: Incoming,
    census: Census,
    mut ledger: Ledger,
) -> Response<AnswerBody> {
    let server_timing = link.worker.limits().server_timing;
    let path = match route::parse_path(parts.uri.path()) {
        Ok(PublicPath::Health) => {
            let goes_on = end_body(link, &parts.headers, body).await;
            let mut response = health(link, ledger);
            if !goes_on {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return response;
        }
        Ok(PublicPath::Scoring { form, name, wanted }) => Ok(Target { form, name, wanted }),
        Err(error) => Err(unroutable(error)),
    };
    let checked = headers::check(parts, census, link.worker.limits())
        .map_err(|(outcome, detail)| unacceptable(outcome, detail, link));
    let checked = checked.and_then(|()| redirect::secured(&peer(link), parts));
    if checked.is_ok()
        && body.is_end_stream()
        && let Ok(target) = &path
        && let Some(allowed) = preflight(link, parts, target, &mut ledger)
    {
        return respond::preflight(allowed, ledger);
    }
    let routed = match (checked, path) {
        (Ok(()), Ok(target)) => choose(link, &parts.headers, census, &target, &mut ledger)
            .and_then(|route| Ok((origin_form(&route.deployment, &target, parts.uri.query())?, route))),
        (Err(refused), _) | (_, Err(refused)) => Err(refused),
    };
    let (target, mut route) = match routed {
        Ok(routed) => routed,
        Err(mut refused) => {
            refused.close |= !end_body(link, &parts.headers, body).await;
            if let Some(late) = refused.late.take() {
                let held = late.delay().as_millis();
                ledger.record.detail = Some(format!("{} Answered {held} ms late.", refused.message).into());
                // Also where the client does not wait for it.
                ledger.conclude(refused.outcome);
                // In a box, so that nobody else carries the size of an alarm.
                Box::pin(late.pass()).await;
            }
            return respond::refuse(refused, ledger, server_timing);
        }
    };
    route.upgrade = headers::wanted_upgrade(parts, census);
    match score(link, (parts, census), body, target, &route, &mut ledger).await {
        Ok(answer) => pass_on(link, parts, answer, &route, ledger),
        Err(refused) => respond::refuse(refused, ledger, server_timing),
    }
}

/// Ends the body of a request that goes nowhere. Says whether the connection can go on: it depends on what the client says,
/// and not on how much of it has come already.
async fn end_body(link: &Arc<Link>, headers: &HeaderMap, body: Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if link.is_http2() {
        discard(link.clone(), body);
        return true;
    }
    let is_over = read_small_body(link, headers, body).await;
    if !is_over {
        // What is left of it cannot be told from a next request's head.
        link.set_unread();
    }
    is_over
}

/// Reads the body of a request that is refused, if it is small and comes soon. Says whether it is over. A client that
/// waits to be told to go on is not told.
async fn read_small_body(link: &Link, headers: &HeaderMap, mut body: Incoming) -> bool {
    let is_small = headers::content_length(headers).is_some_and(|length| length <= SMALL_BODY_MAX);
    if !is_small || headers.contains_key(EXPECT) {
        return false;
    }
    let rest = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(link.worker.limits().goodbye_timeout, rest).await.unwrap_or(false)
}

/// Opens the ledger with what the head tells.
pub(crate) fn open(link: &Arc<Link>, request: &Parts, census: Census) -> Ledger {
    let headers = &request.headers;
    let mut dice = link.worker.dice();
    let peer = peer(link);
    let id = peer.request_id(headers, &mut dice);
    let mut record = Box::new(Record::new(Instant::now(), SystemTime::now(), peer.client_ip(headers), id));
    record.method = Some(request.method.clone());
    record.uri = Some(request.uri.clone());
    record.version = request.version;
    record.user_agent = headers.get(http::header::USER_AGENT).cloned();
    record.client_certificate = peer.tls.and_then(|tls| Some(tls.client.as_ref()?.identity.clone()));
    if census.has(Kind::MsRequestId) {
        record.ms_request_id = headers::clean_client_id(headers, &headers::X_MS_REQUEST_ID);
        record.client_request_id = record.ms_request_id.clone();
    }
    if census.has(Kind::MsClientRequestId)
        && let Some(id) = headers::clean_client_id(headers, &headers::X_MS_CLIENT_REQUEST_ID)
    {
        record.client_request_id = Some(id);
    }
    Ledger::new(record, link.clone())
}

fn peer(link: &Link) -> Peer<'_> {
    Peer {
        address: link.peer,
        ip: &link.ip,
        trusted: link.trusted,
        tls: link.tls.as_ref(),
        limits: link.worker.limits(),
    }
}

/// `/`: healthy, so that load balancers send traffic, unless they should send it elsewhere.
fn health(link: &Link, ledger: Ledger) -> Response<AnswerBody> {
    let shared = &link.worker.shared;
    let refused = if link.worker.is_discouraging() {
        Refused::new(Outcome::Draining, "The router is shutting down. Send requests to another one.")
    } else if shared.snapshot.load().version == 0 {
        starting()
    } else {
        return respond::healthy(ledger);
    };
    respond::refuse(refused, ledger, false)
}

fn starting() -> Refused {
    Refused::new(Outcome::Starting, "The router has just started and does not know the deployments yet.")
}

fn unroutable(error: PathError) -> Refused {
    match error {
        PathError::Unknown => Refused::new(
            Outcome::UnknownPath,
            "No such path. Score at /api/v1/endpoint/<endpoint>/score or /api/v1/service/<service>/score.",
        ),
        PathError::Ambiguous(what) => Refused::new(
            Outcome::Malformed,
            format!("The path contains {what}, which routers and servers read in different ways."),
        ),
    }
}

fn unacceptable(outcome: Outcome, detail: &'static str, link: &Link) -> Refused {
    let message = match outcome {
        Outcome::HeadTooLarge => respond::fault_message(outcome, link.worker.limits()),
        _ => format!("The request is not valid: {detail}."),
    };
    Refused::new(outcome, message).closing()
}

/// What a preflight is answered with, where this is one and the router is to answer it. It comes without credentials.
fn preflight(link: &Link, parts: &Parts, target: &Target<'_>, ledger: &mut Ledger) -> Option<HeaderMap> {
    let asked = Preflight::of(&parts.method, &parts.headers)?;
    let snapshot = link.worker.shared.snapshot.load();
    let endpoint = route::find(&snapshot, target.form, target.name)?;
    let rules = endpoint.cors.as_ref()?;
    ledger.record.endpoint = Some(endpoint.clone());
    Some(cors::answer(rules, asked, &parts.headers, &mut ledger.record))
}

/// From names and credentials to a deployment.
fn choose(
    link: &Link,
    headers: &HeaderMap,
    census: Census,
    target: &Target<'_>,
    ledger: &mut Ledger,
) -> Result<Route, Refused> {
    let worker = &link.worker;
    let snapshot = worker.shared.snapshot.load();
    let word = target.form.word();
    let endpoint = route::find(&snapshot, target.form, target.name).ok_or_else(|| {
        if snapshot.version == 0 {
            return starting();
        }
        let name = shorten(target.name);
        Refused::new(Outcome::UnknownEndpoint, format!("No {word} named {name}. Check the name in the URL."))
    })?;
    ledger.record.endpoint = Some(endpoint.clone());
    ledger.cors = endpoint.cors.as_ref().map(|rules| Box::new(cors::Marks::of(rules, headers)));
    let now = (ledger.record.started_at, worker.micros(ledger.record.started));
    let (tokens, rules) = (&worker.shared.vitals.tokens, &worker.shared.limits.tokens);
    let mut subject = None;
    let verify = |token: &[u8]| {
        let verified = tokens.verify(token, rules, endpoint.name.key(), now)?;
        subject = endpoint.limiter.asks_for_caller().then(|| verified.subject());
        Ok(())
    };
    ledger.record.auth = auth::check(&endpoint.access, headers, verify).map_err(|refusal| {
        ledger.record.detail = refusal.detail().map(Into::into);
        late::judge(worker, ledger.record.client_ip, refusal, ledger.record.started)
    })?;
    entry::enter(worker, endpoint, ledger.record.started)?;
    ledger.counts = true;
    if endpoint.limiter.is_set() {
        ledger.passed = Some(meter::pass(link, endpoint, headers, subject, ledger.record.started)?);
    }
    let named = if census.has(Kind::ModelDeployment) { headers.get(headers::MODEL_DEPLOYMENT) } else { None };
    let name = named.map(|name| name.to_str().unwrap_or("?"));
    let deployment = route::choose(endpoint, name, &mut worker.dice()).map_err(|outcome| {
        let message = match outcome {
            Outcome::UnknownDeployment => format!(
                "Endpoint {} has no deployment named {}. Correct or leave out the azureml-model-deployment header.",
                endpoint.name,
                shorten(name.unwrap_or_default())
            ),
            _ => format!(
                "No ready replicas for service {}. No deployment of it gets traffic: set scorefront.dev/traffic-percent.",
                endpoint.name
            ),
        };
        Refused::new(outcome, message)
    })?;
    ledger.record.deployment = Some(deployment.clone());
    forward::check_wire(deployment)?;
    Ok(Route { deployment: deployment.clone(), named: named.is_some(), upgrade: None })
}

/// A name for a message: whatever a client wrote, cut to a sensible length.
fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The target of the request to the replica: path of the container, query of the client.
fn origin_form(deployment: &Deployment, target: &Target<'_>, query: Option<&str>) -> Result<Uri, Refused> {
    let scoring_path = &deployment.settings.scoring_path;
    let path = match (target.wanted, query) {
        (Wanted::Score, None) => return Ok(Uri::from(scoring_path.clone())),
        (Wanted::Score, Some(query)) => {
            let separator = if scoring_path.query().is_some() { '&' } else { '?' };
            format!("{scoring_path}{separator}{query}")
        }
        (Wanted::Path(path), None) => path.to_owned(),
        (Wanted::Path(path), Some(query)) => format!("{path}?{query}"),
    };
    let path = PathAndQuery::from_maybe_shared(path)
        .map_err(|_| Refused::new(Outcome::Malformed, "The path or query is not a valid URI."))?;
    Ok(Uri::from(path))
}

/// From a deployment to the head of its answer.
async fn score(
    link: &Arc<Link>,
    (parts, census): (&mut Parts, Census),
    body: Incoming,
    target: Uri,
    route: &Route,
    ledger: &mut Ledger,
) -> Result<Answer, Refused> {
    let worker = &link.worker;
    let limits = worker.limits();
    let deployment = &route.deployment;
    let own_max = deployment.settings.body_bytes_max.unwrap_or(u64::MAX);
    let bytes_max = own_max.min(limits.body_bytes_max);
    let announced = if census.has(Kind::ContentLength) { headers::content_length(&parts.headers) } else { None };
    if announced.is_some_and(|length| length > bytes_max) {
        if link.is_http2() {
            discard(link.clone(), body);
        } else {
            link.set_unread();
        }
        let whose = if own_max < limits.body_bytes_max { "scorefront.dev/max-body-bytes" } else { "max-body-bytes" };
        let message = format!("The request body is over {whose} ({bytes_max}).");
        return Err(Refused::new(Outcome::BodyTooLarge, message).closing());
    }
    let deadline = ledger.record.started + deployment.settings.request_timeout;
    if let Some(endpoint) = &ledger.record.endpoint {
        ledger.upload = Upload::new(body, link, &endpoint.shares, bytes_max);
    }
    if ledger.upload.is_none() {
        ledger.record.received = Some(ledger.record.started);
    }
    let (has_body, upgrade) = (ledger.upload.is_some(), route.upgrade.as_ref());
    let mut head = RequestHead::new(&parts.method, &target);
    // Not where the router has something to say of what is in them.
    if respond::takes_lines(parts, census) && route.upgrade.is_none() && ledger.cors.is_none() {
        head.take_lines();
    }
    let (message, dice) = ((&mut *parts, census), &mut worker.dice());
    let trace = headers::to_replica(message, peer(link), &ledger.record, has_body, upgrade, dice, &mut head);
    ledger.record.trace_id = Some(trace);
    let mut outgoing = Outgoing::new(head, std::mem::take(&mut parts.headers), ledger.upload.clone());
    if !route.named && route.upgrade.is_none() {
        mirror::start(worker, &outgoing, ledger);
    }
    let lease = admit::admit(worker, deployment, ledger, deadline).await?;
    forward(worker, deployment, &mut outgoing, lease, ledger, deadline).await
}

/// Turns the replica's answer into the client's.
fn pass_on(
    link: &Arc<Link>,
    parts: &mut Parts,
    answer: Answer,
    route: &Route,
    mut ledger: Ledger,
) -> Response<AnswerBody> {
    let Answer { answered, busy } = answer;
    ledger.record.model_status = Some(answered.status);
    if answered.status == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel::open(link, parts, answered, busy, route, ledger);
    }
    let Answered { status, headers, body } = answered;
    let server_timing = link.worker.limits().server_timing;
    let mut head = respond::pass_on(status, headers, link.insert.is_clean(), &mut ledger.record, server_timing);
    ledger.record.status = Some(head.status);
    if let Some(marks) = &ledger.cors {
        marks.put(&mut head.headers);
    }
    // With TLS and HTTP/2 what the client's socket takes is more than the answer's bytes.
    let takes_chunks = parts.version == Version::HTTP_11 && link.passage().is_some();
    let passing = Passing::new(body, busy, ledger, route.deployment.settings.request_timeout, takes_chunks);
    let mut response = Response::new(AnswerBody::passing(passing));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    // Last: from here on it is hyper that writes.
    head.lines.into_iter().for_each(|lines| link.insert.put(lines));
    response
}

/// The record of a request that could not be read.
pub(crate) fn record_unreadable(link: &Arc<Link>, outcome: Outcome, detail: String) {
    let id = crate::core::record::id_value(link.fault_id);
    let client: IpAddr = link.peer.ip().to_canonical();
    let record = Record::new(Instant::now(), SystemTime::now(), client, id);
    let mut ledger = Ledger::new(Box::new(record), link.clone());
    ledger.record.detail = Some(detail.into());
    ledger.conclude(outcome);
}
