//! Single steps of an exchange that are private to the data path, for the benches: the header rules.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};

use crate::core::dice::Dice;
use crate::core::limits::Limits;
use crate::core::record::{AuthType, Record};
use crate::core::snapshot::Access;
use crate::core::token::Fault;
use crate::data::headers::{self, Census, Peer};
use crate::data::upstream::head::{Expected, HeadReader};
use crate::data::upstream::{Headers, RequestHead};
use crate::data::{auth, respond};

/// The headers of a small request and of its answer, with what the rules ask for besides.
pub struct Heads {
    limits: Limits,
    ip: HeaderValue,
    dice: Dice,
    record: Record,
}

impl Heads {
    /// Of an exchange with this record.
    pub fn new(record: Record) -> Self {
        Self { limits: Limits::default(), ip: HeaderValue::from_static("192.0.2.7"), dice: Dice::new(1), record }
    }

    /// As Python's `requests` sends it.
    pub fn request() -> Parts {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/endpoint/iris/score")
            .header("host", "models.example.com")
            .header("user-agent", "python-requests/2.32.3")
            .header("accept-encoding", "gzip, deflate")
            .header("accept", "*/*")
            .header("connection", "keep-alive")
            .header("content-type", "application/json")
            .header(AUTHORIZATION, "Bearer secret-1")
            .header("content-length", "47");
        request.body(()).expect("a valid request").into_parts().0
    }

    /// As the stock model server sends it.
    pub fn answer() -> HeaderMap {
        let headers = [
            ("server", "gunicorn"),
            ("date", "Sat, 28 Nov 2026 08:00:00 GMT"),
            ("connection", "close"),
            ("content-type", "application/json"),
            ("content-length", "36"),
            ("x-ms-run-function-failed", "False"),
        ];
        let pair = |(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        headers.into_iter().map(pair).collect()
    }

    /// Whether the request is acceptable.
    pub fn check(&self, parts: &Parts) -> bool {
        headers::check(parts, Census::of(&parts.headers), &self.limits).is_ok()
    }

    /// Checks the credentials.
    pub fn authenticate(&self, access: &Access, parts: &Parts) -> Option<AuthType> {
        auth::check(access, &parts.headers, |_| Err(Fault::NoKeys)).ok()
    }

    /// Makes the request to the replica of the client's.
    pub fn to_replica(&mut self, parts: &mut Parts) {
        let census = Census::of(&parts.headers);
        let address = ([192, 0, 2, 7], 40_000).into();
        let peer = Peer { address, ip: &self.ip, trusted: false, tls: None, limits: &self.limits };
        let mut head = RequestHead::new(&parts.method, &parts.uri);
        headers::to_replica((parts, census), peer, &self.record, true, None, &mut self.dice, &mut head);
    }

    /// Makes the answer to the client of the replica's.
    pub fn pass_on(&mut self, headers: &mut HeaderMap) -> StatusCode {
        let theirs = Headers::from(std::mem::take(headers));
        let head = respond::pass_on(StatusCode::OK, theirs, true, &mut self.record, false);
        *headers = head.headers;
        head.status
    }

    /// Reads the head of an answer and makes the client's of it, as it mostly goes. Says how long that is.
    pub fn read_and_pass_on(&mut self, head: &Bytes) -> usize {
        let expected = Expected { is_bodiless: false, bytes_max: head.len(), as_lines: true };
        let mut headers = Headers::default();
        let Ok(Some((head, _))) = HeadReader::default().push(head.clone(), expected, &mut headers) else { return 0 };
        let head = respond::pass_on(head.status, headers, true, &mut self.record, false);
        head.lines.map_or(0, |lines| lines.bytes().len())
    }
}
