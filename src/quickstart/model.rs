//! A sample replica that behaves like the stock Azure ML model server: one request at a time, the connection closed
//! after each answer, `/score`, `/swagger.json` and a health page. Its model tells irises apart.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How long the model "thinks" about one request: enough to see requests queue.
const THINKING: Duration = Duration::from_millis(50);
/// The longest request that is read.
const BODY_MAX: usize = 1 << 20;
/// The longest time for one request.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// The mean flower of each species: sepal length and width, petal length and width, in cm.
const SPECIES: [(&str, [f64; 4]); 3] = [
    ("setosa", [5.006, 3.428, 1.462, 0.246]),
    ("versicolor", [5.936, 2.770, 4.260, 1.326]),
    ("virginica", [6.588, 2.974, 5.552, 2.026]),
];

/// A sample replica that is bound but does not serve yet.
#[derive(Debug)]
pub(super) struct Model {
    listener: TcpListener,
    version: &'static str,
}

impl Model {
    /// Binds to a free port of loopback.
    pub(super) async fn bind(version: &'static str) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(("127.0.0.1", 0)).await?, version })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves one connection after the other, as the stock server's single worker does.
    pub(super) async fn serve(self) {
        loop {
            let Ok((socket, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let version = self.version;
            let service = service_fn(move |request| answer(version, request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).keep_alive(false).header_read_timeout(CONNECTION_MAX);
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            // A client that went away is nothing to speak of.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        }
    }
}

async fn answer(version: &'static str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let (status, body) = match (parts.method, parts.uri.path()) {
        (Method::POST, "/score") => match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => score(version, &body.to_bytes()).await,
            Err(error) => (StatusCode::BAD_REQUEST, json!({ "message": error.to_string() })),
        },
        (_, "/score") => (
            StatusCode::METHOD_NOT_ALLOWED,
            json!({ "message": "POST flowers here: {\"data\": [[5.1, 3.5, 1.4, 0.2]]}" }),
        ),
        (_, "/swagger.json") => (StatusCode::OK, swagger()),
        (_, "/") => (StatusCode::OK, json!("Healthy")),
        _ => (StatusCode::NOT_FOUND, json!({ "message": "no such path" })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(id) = parts.headers.get("x-request-id") {
        headers.insert("x-request-id", id.clone());
    }
    if !status.is_success() {
        headers.insert("x-ms-run-function-failed", HeaderValue::from_static("True"));
    }
    Ok(response)
}

async fn score(version: &str, body: &[u8]) -> (StatusCode, Value) {
    tokio::time::sleep(THINKING).await;
    let flowers = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| serde_json::from_value::<Vec<[f64; 4]>>(body.get("data")?.clone()).ok());
    match flowers {
        Some(flowers) => {
            let species: Vec<&str> = flowers.iter().map(nearest).collect();
            (StatusCode::OK, json!({ "species": species, "model": version }))
        }
        None => {
            let message = "expected {\"data\": [[sepal length, sepal width, petal length, petal width], …]}";
            (StatusCode::BAD_REQUEST, json!({ "message": message }))
        }
    }
}

fn nearest(flower: &[f64; 4]) -> &'static str {
    let distance = |mean: &[f64; 4]| flower.iter().zip(mean).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let nearest = SPECIES.iter().min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b)));
    nearest.map_or("unknown", |(name, _)| name)
}

fn swagger() -> Value {
    json!({
        "swagger": "2.0",
        "info": { "title": "iris", "version": "1" },
        "paths": { "/score": { "post": { "consumes": ["application/json"], "produces": ["application/json"] } } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_irises_apart() {
        assert_eq!(nearest(&[5.1, 3.5, 1.4, 0.2]), "setosa");
        assert_eq!(nearest(&[5.7, 2.8, 4.1, 1.3]), "versicolor");
        assert_eq!(nearest(&[6.3, 3.3, 6.0, 2.5]), "virginica");
    }

    #[tokio::test]
    async fn nonsense_is_refused_with_what_is_expected() {
        let (status, body) = score("blue", b"{\"data\": 7}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body["message"].as_str().unwrap().contains("sepal length"));
    }
}
