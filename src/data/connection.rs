//! One client connection: HTTP/1.1 or HTTP/2, its deadlines, and its end when the router drains.
//!
//! With TLS the handshake says which. Without, it starts as HTTP/1. A client that opens with the HTTP/2 preface makes
//! hyper's parser say so, and the connection goes on as HTTP/2 with what was read so far put back: nothing is sniffed on
//! the way of everybody else.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::exchange::{exchange, open, record_unreadable};
use super::gather::PACKET;
use super::headers::{self, Census, Kind};
use super::link::{Doing, Link};
use super::socket::Socket;
use super::stream::AnswerBody;
use super::tls::{Tls, Transport};
use super::worker::{Phase, Worker};
use super::{listen, proxied, respond};
use crate::core::outcome::Outcome;

use self::watch::{End, Watch};

mod http2;
mod turn;
mod watch;

/// Counts one connection of a worker for as long as it lives.
#[derive(Debug)]
pub(crate) struct Guard(Arc<Worker>);

impl Guard {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        worker.shared.vitals.connections.open.fetch_add(1, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.shared.vitals.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a socket, on the thread of the worker that `guard` counts it for; `place` is given back at its end.
pub(crate) fn spawn(
    guard: Guard,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    place: Option<OwnedSemaphorePermit>,
) {
    // In a box: a task of this size would be copied several times on its way, and aligned to 128 bytes, for which the
    // allocator goes a longer way.
    tokio::spawn(Box::pin(async move {
        serve(&guard.0, socket, peer, tls).await;
        drop((guard, place));
    }));
}

async fn serve(worker: &Arc<Worker>, mut socket: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>) {
    let Some(peer) = proxied::client(worker, &mut socket, peer).await else { return };
    let Some(place) = worker.shared.place(&worker.shared.addresses, peer.ip()) else {
        return Box::pin(turn_away(worker, socket, tls.is_some())).await;
    };
    // What few connections come to is in a box, here and below, so that the others do not carry the size of it.
    let (transport, secured) = match tls {
        None => (Transport::Plain(socket), None),
        Some(tls) => match Box::pin(tls.open(worker, socket, peer.ip())).await {
            Some((transport, secured)) => (transport, Some(secured)),
            None => return,
        },
    };
    let is_http2 = secured.as_ref().is_some_and(|secured| secured.is_http2);
    let mut link = Link::new(worker.clone(), peer);
    link.tls = secured;
    link.place = place;
    let link = Arc::new(link);
    let _last = Last(link.clone());
    let (mut socket, mut watch) = (Socket::new(transport, link.clone()), Watch::new(link.clone()));
    // In boxes, so that a connection at rest does not carry the size of one that works.
    if is_http2 {
        return Box::pin(http2::serve(&link, socket, &mut watch)).await;
    }
    loop {
        let answering = link.clone();
        let service = service_fn(move |request| answer(&answering, request));
        let mut connection = Box::new(http1_builder(&link).serve_connection(socket, service).with_upgrades());
        let end = watch.over(Pin::new(&mut *connection), Phase::Finishing, |c| c.graceful_shutdown()).await;
        let Some(parts) = connection.into_parts() else { return };
        match end {
            End::Resting => {
                socket = parts.io.push_back(parts.read_buf);
                if !watch.rest(&socket).await {
                    return;
                }
            }
            // Not behind an answer that is not out.
            End::Over(Err(error)) if error.is_parse_version_h2() && link.insert.is_clean() => {
                let socket = parts.io.push_back(parts.read_buf);
                return Box::pin(http2::serve(&link, socket, &mut watch)).await;
            }
            End::Over(end) => {
                if let Err(error) = &end {
                    report(&link, error);
                }
                if link.is_broken() {
                    parts.io.reset_on_close();
                } else if parts.io.is_unread() {
                    Box::pin(parts.io.linger()).await;
                }
                return;
            }
            End::Overdue(doing) => return Box::pin(cut_off(&link, doing, parts.io)).await,
            End::Forced | End::Deaf => return,
        }
    }
}

/// Ends a connection of an address that has too many, and says why as far as that costs little.
async fn turn_away(worker: &Worker, socket: TcpStream, is_tls: bool) {
    worker.shared.vitals.connections.crowded.bump();
    worker.shared.vitals.refusals.bump(worker.index, Outcome::Overloaded);
    // With TLS it would take a handshake to say so.
    if !is_tls && let Ok(_told) = worker.shared.turned_away.try_acquire() {
        let answer = respond::crowded(headers::make_id(&mut worker.dice()));
        listen::turn_away(socket, answer, worker.limits().goodbye_timeout).await;
    }
}

/// Settles what is owed when the connection is over, however it ends.
struct Last(Arc<Link>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.settle_unsent();
    }
}

/// Ends a connection whose client took too long. One that was in the middle of a head is told so.
async fn cut_off(link: &Arc<Link>, doing: Doing, mut socket: Socket) {
    if doing != Doing::Head || !socket.is_between_answers() {
        // What the client did not read by now it will not; it must not take what it has for the whole.
        if doing != Doing::Fresh && doing != Doing::Idle {
            socket.reset_on_close();
        }
        return;
    }
    record_unreadable(link, Outcome::RequestTooSlow, "the request head did not arrive in time".to_owned());
    if let Some(answer) = respond::unreadable(408, link.fault_id, link.worker.limits()) {
        // A client that reads as slowly as it writes is not waited for long.
        let _ = tokio::time::timeout(link.worker.limits().goodbye_timeout, socket.send(&answer)).await;
    }
}

fn http1_builder(link: &Link) -> http1::Builder {
    let limits = link.worker.limits();
    let mut builder = http1::Builder::new();
    builder
        // The watch below keeps time, with one alarm for a connection instead of one for a head.
        .header_read_timeout(None)
        // Without TLS, the socket looks by itself whether a client that waits is still there.
        .half_close(link.tls.is_none())
        .max_header_size(limits.head_bytes_max)
        .max_buf_size((limits.head_bytes_max.max(BUFFER_MIN) + BUFFER_MIN).max(BODY_READ_MAX));
    // Asked for by itself, hyper's own number costs two allocations of some kilobytes for each head. Below it, the
    // exchange refuses what is over the limit.
    if limits.headers_max > HEADERS_WITHOUT_ALLOCATION {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// So many headers hyper reads into an array on the stack, and refuses more, unless it is told otherwise.
const HEADERS_WITHOUT_ALLOCATION: usize = 100;

/// hyper wants at least this much room for a head and what follows it.
const BUFFER_MIN: usize = 8 << 10;
/// So much hyper may read at a time where more of a body is there.
const BODY_READ_MAX: usize = 2 * PACKET;

type Answered = Result<Response<AnswerBody>, std::convert::Infallible>;

/// One request, counted by the connection itself: so it knows at once that no other should follow.
fn answer(link: &Arc<Link>, request: Request<Incoming>) -> impl Future<Output = Answered> + Send + use<> {
    let is_last = link.count_request();
    handle(link.clone(), request, is_last)
}

/// One request. A panic ends the exchange, not the connection's neighbours.
async fn handle(link: Arc<Link>, request: Request<Incoming>, is_last: bool) -> Answered {
    let (mut parts, body) = request.into_parts();
    let (version, worker) = (parts.version, &link.worker);
    let census = Census::of(&parts.headers);
    let mut leaves = is_last || (census.has(Kind::Connection) && headers::wants_close(&parts.headers));
    let ledger = open(&link, &parts, census);
    let id = ledger.record.request_id.clone();
    let exchange = AssertUnwindSafe(exchange(&link, &mut parts, body, census, ledger)).catch_unwind();
    let mut response = exchange.await.unwrap_or_else(|_| {
        link.insert.take_back();
        respond::panicked(id)
    });
    if version != Version::HTTP_2 {
        *response.version_mut() = Version::HTTP_11;
        // Closing gives back what the connection holds.
        leaves |= worker.is_discouraging() || worker.shared.vitals.memory.is_short();
        if leaves && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            link.set_last();
        }
    }
    Ok(response)
}

/// Writes the log line of a request that hyper could not read, and that therefore never became an exchange.
fn report(link: &Arc<Link>, error: &hyper::Error) {
    if error.is_parse_too_large() {
        record_unreadable(link, Outcome::HeadTooLarge, error.to_string());
    } else if error.is_parse() {
        record_unreadable(link, Outcome::Malformed, error.to_string());
    }
}
