//! Answers that the router makes itself, and the heads of those that it passes on. The only place on the data path that
//! turns an outcome into a status.
//!
//! The body is always `{"error":{"code","message","requestId"}}`: clients of Azure ML crash on other shapes. The message
//! says which endpoint and which limit, and what to change.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use uuid::Uuid;

use super::headers::{self, Census, Kind};
use super::late::Late;
use super::ledger::Ledger;
use super::stream::AnswerBody;
use super::timing;
use super::upstream::{Headers, Text};
use crate::core::limits::Limits;
use crate::core::outcome::Outcome;
use crate::core::record::{Record, id_value};

const LIMIT: HeaderName = HeaderName::from_static("x-scorefront-limit");
const MODEL_ERROR_STATUS: HeaderName = HeaderName::from_static("ms-azureml-model-error-statuscode");
const MODEL_ERROR_REASON: HeaderName = HeaderName::from_static("ms-azureml-model-error-reason");

/// A request turned away, or failed, before there was an answer to pass on.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) outcome: Outcome,
    /// For the client.
    pub(crate) message: String,
    /// For `Retry-After`, where the outcome invites a retry.
    pub(crate) retry_after_seconds: u32,
    /// Whether the client's connection cannot go on.
    pub(crate) close: bool,
    /// Where the client should go instead.
    pub(crate) location: Option<HeaderValue>,
    /// The word for the limit that was in the way, where there are several.
    pub(crate) limit: Option<&'static str>,
    /// What holds the answer back.
    pub(crate) late: Option<Box<Late>>,
}

impl Refused {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
            retry_after_seconds: 1,
            close: false,
            location: None,
            limit: None,
            late: None,
        }
    }

    /// After so many seconds it may be worth another try.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = seconds;
        self
    }

    /// It is over this limit.
    pub(crate) fn over(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The answer is held back.
    pub(crate) fn late(mut self, late: Late) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// What is asked for is to be had elsewhere.
    pub(crate) fn elsewhere(mut self, location: HeaderValue) -> Self {
        self.location = Some(location);
        self
    }

    /// The rest of the request will not be read.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

/// The health page for load balancers.
pub(crate) fn healthy(mut ledger: Ledger) -> Response<AnswerBody> {
    ledger.conclude(Outcome::Served);
    ledger.record.status = Some(StatusCode::OK);
    let body = Bytes::from_static(b"Healthy\n");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    local(StatusCode::OK, headers, body, ledger)
}

/// The answer to a preflight; `headers` are what it allows.
pub(crate) fn preflight(headers: HeaderMap, mut ledger: Ledger) -> Response<AnswerBody> {
    ledger.conclude(Outcome::Preflight);
    let mut response = local(Outcome::Preflight.status(), headers, Bytes::new(), ledger);
    // RFC 9110, section 8.6: not with 204.
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// The answer to a refused request.
pub(crate) fn refuse(refused: Refused, mut ledger: Ledger, server_timing: bool) -> Response<AnswerBody> {
    let outcome = refused.outcome;
    ledger.conclude(outcome);
    ledger.record.status = Some(outcome.status());
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if outcome.invites_retry() {
        headers.insert(RETRY_AFTER, HeaderValue::from(refused.retry_after_seconds));
    }
    if let Some(location) = refused.location {
        headers.insert(http::header::LOCATION, location);
    }
    if let Some(limit) = refused.limit {
        headers.insert(LIMIT, HeaderValue::from_static(limit));
    }
    if outcome == Outcome::Unauthorized {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let is_whole = ledger.upload.as_ref().is_none_or(|upload| upload.progress().ended.is_some());
    if (refused.close || !is_whole) && ledger.record.version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if server_timing {
        timing::tell(&mut headers, &ledger.record);
    }
    let body = error_body(outcome.code(), &refused.message, &ledger.record.request_id);
    ledger.record.detail.get_or_insert_with(|| refused.message.into());
    local(outcome.status(), headers, body.into(), ledger)
}

fn local(status: StatusCode, mut headers: HeaderMap, body: Bytes, ledger: Ledger) -> Response<AnswerBody> {
    // Made here, it has none of those that would have to go.
    headers::identify(&mut headers, Census::default(), &ledger.record);
    if let Some(marks) = &ledger.cors {
        marks.put(&mut headers);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let is_head = ledger.record.method == Some(http::Method::HEAD);
    let body = if is_head { Bytes::new() } else { body };
    let mut response = Response::new(AnswerBody::local(body, ledger));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What the client gets when the router itself failed in the middle of an exchange; its record is written already.
pub(crate) fn panicked(id: HeaderValue) -> Response<AnswerBody> {
    let body = error_body(Outcome::Internal.code(), "The router failed to handle this request.", &id);
    let mut response = Response::new(AnswerBody::unrecorded(body.into()));
    *response.status_mut() = Outcome::Internal.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(headers::X_REQUEST_ID, id);
    response
}

/// The head of an answer for the client.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// What hyper is told of it.
    pub(crate) headers: HeaderMap,
    /// The others, where the socket is to write them.
    pub(crate) lines: Option<Text>,
}

/// Whether the client's socket can write most of the head of the answer: not with HTTP/2, and not where hyper may say
/// something before it.
pub(crate) fn takes_lines(request: &Parts, census: Census) -> bool {
    request.version < Version::HTTP_2 && !census.has(Kind::Expect)
}

/// Turns the head of a replica's answer into that of the client's: a 500 of the scoring script becomes 502. `is_clean` says
/// whether there is nothing left of an answer before it.
pub(crate) fn pass_on(
    status: StatusCode,
    headers: Headers,
    is_clean: bool,
    record: &mut Record,
    server_timing: bool,
) -> Head {
    let Headers { map: mut headers, lines } = headers;
    record.outcome = Outcome::Served;
    if let Some(mut lines) = lines {
        if is_clean {
            headers::identify_lines(&mut lines, record);
            if server_timing {
                timing::tell_line(&mut lines, record);
            }
            return Head { status, headers, lines: Some(lines) };
        }
        // They would go out in front of what is left.
        lines.read_into(&mut headers);
    }
    let census = Census::of(&headers);
    headers::settle_length(&mut headers, census);
    headers::remove_hop_by_hop(&mut headers, census);
    headers::identify(&mut headers, census, record);
    if server_timing {
        timing::tell(&mut headers, record);
    }
    if status != StatusCode::INTERNAL_SERVER_ERROR {
        return Head { status, headers, lines: None };
    }
    record.outcome = Outcome::ModelError;
    headers.insert(MODEL_ERROR_STATUS, HeaderValue::from_static("500"));
    headers.insert(MODEL_ERROR_REASON, HeaderValue::from_static("model_error"));
    Head { status: Outcome::ModelError.status(), headers, lines: None }
}

fn error_body(code: &str, message: &str, id: &HeaderValue) -> String {
    let id = id.to_str().unwrap_or_default();
    let mut body = String::with_capacity(96 + message.len());
    let _ = write!(body, "{{\"error\":{{\"code\":\"{code}\",\"message\":");
    write_json_string(&mut body, message);
    body.push_str(",\"requestId\":");
    write_json_string(&mut body, id);
    body.push_str("}}\n");
    body
}

fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What went wrong with a request that hyper could not read, by the status that it answers.
pub(crate) fn fault(status: u16) -> Outcome {
    match status {
        431 | 414 => Outcome::HeadTooLarge,
        408 => Outcome::RequestTooSlow,
        _ => Outcome::Malformed,
    }
}

/// The message for such a request.
pub(crate) fn fault_message(outcome: Outcome, limits: &Limits) -> String {
    if outcome == Outcome::HeadTooLarge {
        return format!(
            "The request line and headers are too large: at most {} bytes (max-head-bytes) and {} headers \
             (max-headers) are accepted.",
            limits.head_bytes_max, limits.headers_max
        );
    }
    if outcome == Outcome::RequestTooSlow {
        let millis = limits.head_timeout.as_millis();
        return format!("The request line and headers did not arrive within head-timeout-ms ({millis}).");
    }
    "The request could not be read: its request line, headers or framing are not valid HTTP.".to_owned()
}

/// A whole answer, head and body, to stand in for hyper's bare one. `None` for a status that hyper does not give.
pub(crate) fn unreadable(status: u16, id: Uuid, limits: &Limits) -> Option<Bytes> {
    if !matches!(status, 400 | 408 | 414 | 431) {
        return None;
    }
    let outcome = fault(status);
    Some(raw(outcome, &fault_message(outcome, limits), id))
}

/// A whole answer for a client that is over the limit of connections.
pub(crate) fn overloaded(id: Uuid) -> Bytes {
    raw(Outcome::Overloaded, "The router has as many client connections as max-connections allows.", id)
}

/// The same for one whose descriptor is kept for others.
pub(crate) fn short_of_descriptors(id: Uuid) -> Bytes {
    let message = "The router has as many client connections as its limit of open files allows. Ask again later.";
    raw(Outcome::Overloaded, message, id)
}

/// The same for one whose address is over its own.
pub(crate) fn crowded(id: Uuid) -> Bytes {
    let message = "This address has as many connections as max-connections-per-address allows. Use those it has.";
    raw(Outcome::Overloaded, message, id)
}

/// An answer as bytes, for a connection that ends with it.
fn raw(outcome: Outcome, message: &str, id: Uuid) -> Bytes {
    let id = id_value(id);
    let body = error_body(outcome.code(), message, &id);
    let (status, id) = (outcome.status(), id.to_str().unwrap_or_default());
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let _ = write!(text, "x-request-id: {id}\r\nx-ms-request-id: {id}\r\ncontent-type: application/json\r\n");
    if outcome.invites_retry() {
        text.push_str("retry-after: 1\r\n");
    }
    let _ = write!(text, "content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    text.into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::data::upstream::head::{Expected, HeadFlaw, HeadReader};

    #[test]
    fn the_error_body_is_json_whatever_the_message() {
        let id = id_value(Uuid::nil());
        let body = error_body("QueueFull", "a \"quoted\" \\ name\nwith \u{1} and é", &id);
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed["error"]["message"], "a \"quoted\" \\ name\nwith \u{1} and é");
        assert_eq!(parsed["error"]["code"], "QueueFull");
        assert_eq!(parsed["error"]["requestId"], Uuid::nil().to_string());
    }

    #[test]
    fn a_head_says_the_same_as_lines_and_by_way_of_the_map() {
        let text = Bytes::from_static(
            b"HTTP/1.1 203 Odd\r\nServer: a\r\nServer-Timing: db;dur=1\r\nX-Two: b\r\nX-Two: c\r\nX-Request-Id: theirs\r\n\
              X-Ms-Client-Request-Id: theirs\r\nDate: today\r\nKeep-Alive: a\r\nConnection: keep-alive\r\n\r\n",
        );
        let read = |as_lines| {
            let expected = Expected { is_bodiless: false, bytes_max: text.len(), as_lines };
            let mut headers = Headers::default();
            let (head, _) = HeadReader::default().push(text.clone(), expected, &mut headers).unwrap().unwrap();
            assert_eq!(headers.lines.is_some(), as_lines);
            (head.status, headers)
        };
        let mut record = Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id_value(Uuid::nil()));
        record.queued = Some(Duration::from_millis(1));
        for client_id in [None, Some(HeaderValue::from_static("the-clients"))] {
            record.client_request_id = client_id;
            let sorted = |(as_lines, is_clean): (bool, bool)| {
                let ((status, headers), mut record) = (read(as_lines), record.clone());
                let mut head = pass_on(status, headers, is_clean, &mut record, true);
                assert_eq!(head.lines.is_some(), as_lines && is_clean);
                assert_eq!((head.status.as_u16(), record.outcome), (203, Outcome::Served));
                head.lines.into_iter().for_each(|lines| lines.read_into(&mut head.headers));
                let mut headers: Vec<_> =
                    head.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
                headers.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
                headers
            };
            let [lines, late, map] = [(true, true), (true, false), (false, true)].map(sorted);
            assert_eq!((&lines, &late), (&map, &map));
            assert_eq!(
                map.iter().filter(|line| line.contains("request-id")).count(),
                2 + usize::from(record.client_request_id.is_some())
            );
        }
    }

    #[test]
    fn whatever_header_there_are_rules_about_the_client_gets_the_same_of_it_both_ways() {
        let record = Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id_value(Uuid::nil()));
        for (name, value) in
            headers::names().flat_map(|name| ["1", "close", "x-own", "chunked"].map(|value| (name, value)))
        {
            let text = Bytes::from(format!("HTTP/1.1 200 OK\r\n{name}: {value}\r\nx-own: a\r\n\r\n"));
            let told = |as_lines| {
                let expected = Expected { is_bodiless: false, bytes_max: text.len(), as_lines };
                let (mut headers, mut record) = (Headers::default(), record.clone());
                let (head, _) = HeadReader::default().push(text.clone(), expected, &mut headers)?.unwrap();
                let mut passed = pass_on(head.status, headers, true, &mut record, true);
                passed.lines.into_iter().for_each(|lines| lines.read_into(&mut passed.headers));
                // These hyper writes in either case, and the router, which knows the deployment of every answer.
                passed.headers.remove(CONTENT_LENGTH);
                passed.headers.remove(headers::MODEL_DEPLOYMENT);
                Ok::<_, HeadFlaw>((head, passed.headers))
            };
            assert_eq!(told(true), told(false), "{name}: {value}");
        }
    }

    #[test]
    fn the_stand_in_names_the_setting() {
        let text = unreadable(431, Uuid::nil(), &Limits::default()).unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        assert!(text.contains("max-head-bytes") && text.contains("max-headers"), "{text}");
        assert!(unreadable(404, Uuid::nil(), &Limits::default()).is_none());
    }
}
