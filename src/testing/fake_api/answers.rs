//! What the fake API server says, as bytes.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::Body;

pub(super) fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

pub(super) fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as the test wanted it", "reason": reason, "code": code
    })
}

pub(super) fn refusal(code: u16) -> Response<Body> {
    json_answer(code, &status(code, "Refused"))
}

pub(super) fn json_answer(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
