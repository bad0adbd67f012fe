//! Replicas of a soak: they answer what the path asks for, come and go, and some die in the middle of an answer.
//!
//! All of them live on one thread. A replica notes which requests have reached it, so that a client that wants to leave
//! while a request is served knows when it is.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::account;

/// Request header: how long to serve, in ms.
pub const SERVE_HEADER: &str = "x-soak-ms";

/// Request header: how long the answer is to be, in bytes.
pub const LENGTH_HEADER: &str = "x-soak-bytes";

/// The most that a request may ask for.
const SERVE_MAX: Duration = Duration::from_secs(20);
const LENGTH_MAX: usize = 64 << 20;

/// Events of a stream, and the time between two.
const EVENTS: u32 = 12;
const EVENT_GAP: Duration = Duration::from_millis(40);

/// The requests that have reached a replica and whose clients wait for that.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<HashSet<u64>>>);

impl Arrivals {
    fn note(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Whether it has arrived; forgets it.
    pub fn take(&self, number: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

/// Where replicas run. They end with the process.
#[derive(Clone)]
pub struct Host {
    runtime: Handle,
    /// See [`Arrivals`].
    pub arrivals: Arrivals,
}

/// A running replica. Dropping it kills it: its connections break wherever they are.
pub struct Replica {
    /// Where it listens.
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    /// A thread for replicas.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let host = Self { runtime: runtime.handle().clone(), arrivals: Arrivals::default() };
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(host)
    }

    /// A new replica.
    pub fn replica(&self) -> anyhow::Result<Replica> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for a replica")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _inside = self.runtime.enter();
        let task = self.runtime.spawn(serve(TcpListener::from_std(listener)?, self.arrivals.clone()));
        Ok(Replica { address, task: task.abort_handle() })
    }
}

async fn serve(listener: TcpListener, arrivals: Arrivals) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Only the speed of the answers depends on it.
                drop(stream.set_nodelay(true));
                let arrivals = arrivals.clone();
                let service = service_fn(move |request| answer(arrivals.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                connections.spawn(async move { drop(connection.await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(arrivals: Arrivals, mut request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    if let Some(number) = number(request.headers(), "x-ms-client-request-id", account::number) {
        arrivals.note(number);
    }
    if request.headers().contains_key(UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(echo(upgraded));
        let mut answer = Response::new(Full::default().boxed_unsync());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("upgrade"));
        answer.headers_mut().insert(UPGRADE, hyper::header::HeaderValue::from_static("websocket"));
        return Ok(answer);
    }
    let (head, mut body) = request.into_parts();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let parse = |text: &str| text.parse::<u64>().ok();
    let serve = number(&head.headers, SERVE_HEADER, parse).map_or(Duration::ZERO, Duration::from_millis);
    sleep(serve.min(SERVE_MAX)).await;
    let length = number(&head.headers, LENGTH_HEADER, parse).and_then(|length| usize::try_from(length).ok());
    let mut answer = match head.uri.path() {
        "/events" => Response::new(Events::default().boxed_unsync()),
        "/fail" => {
            let mut answer = Response::new(Full::from(r#"{"message":"the script raised"}"#).boxed_unsync());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
        _ => Response::new(Full::from(vec![b'1'; length.unwrap_or(19).min(LENGTH_MAX)]).boxed_unsync()),
    };
    let kind = if head.uri.path() == "/events" { "text/event-stream" } else { "application/json" };
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(answer)
}

fn number<T>(headers: &HeaderMap, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(headers.get(name)?.to_str().ok()?)
}

/// Sends back what comes, until the other side ends it.
async fn echo(upgraded: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgraded.await else { return };
    let (mut stream, mut chunk) = (TokioIo::new(upgraded), [0; 1024]);
    while let Ok(read) = stream.read(&mut chunk).await
        && read > 0
    {
        if stream.write_all(chunk.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

/// A stream of events, with time between them.
#[derive(Default)]
struct Events {
    sent: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.sent == EVENTS {
            return Poll::Ready(None);
        }
        let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(EVENT_GAP)));
        std::task::ready!(pause.as_mut().poll(cx));
        *pause = Box::pin(sleep_until(Instant::now() + EVENT_GAP));
        this.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("data: {}\n\n", this.sent))))))
    }
}
