//! One client connection: HTTP/1.1 or HTTP/2, its deadlines, and its end when the router drains.
//!
//! With TLS the handshake says which. Without, it starts as HTTP/1. A client that opens with the HTTP/2 preface makes
//! hyper's parser say so, and the connection goes on as HTTP/2 with what was read so far put back: nothing is sniffed on
//! the way of everybody else.
//!
//! Deadlines of a connection (those of an exchange are its own): time to the whole head, time between requests, and
//! time that a client may leave bytes unread. One alarm serves them all; it is set to the earliest moment at which one
//! could have passed, and looks again then. An exchange does not touch it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Sleep, sleep_until};

use super::exchange::{exchange, open, record_unreadable};
use super::link::{Doing, Link};
use super::paced::{StreamExecutor, pace};
use super::socket::Socket;
use super::stream::AnswerBody;
use super::tls::{Tls, Transport};
use super::worker::{Phase, Worker};
use super::{headers, listen, proxied, respond};
use crate::core::limits::Limits;
use crate::core::outcome::Outcome;

/// Counts one connection for as long as it lives.
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

/// Serves a socket, on the worker's own thread; `place` is given back at its end.
pub(crate) fn spawn(
    worker: &Arc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    place: Option<OwnedSemaphorePermit>,
) {
    let guard = Guard::new(worker.clone());
    tokio::spawn(async move {
        serve(&guard.0, socket, peer, tls).await;
        drop((guard, place));
    });
}

async fn serve(worker: &Arc<Worker>, mut socket: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>) {
    // Without it small answers would wait for acknowledgements; where it cannot be set, the connection is dying.
    let _ = socket.set_nodelay(true);
    let Some(peer) = proxied::client(worker, &mut socket, peer).await else { return };
    let Some(place) = worker.shared.place(&worker.shared.addresses, peer.ip()) else {
        return turn_away(worker, socket, tls.is_some()).await;
    };
    let (transport, secured) = match tls {
        None => (Transport::Plain(socket), None),
        // In a box, so that connections without TLS do not carry the size of a handshake.
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
    let (socket, mut watch) = (Socket::new(transport, link.clone()), Watch::new(link.clone()));
    if is_http2 {
        return serve_http2(&link, socket, &mut watch).await;
    }
    let answering = link.clone();
    let service = service_fn(move |request| answer(&answering, request));
    let mut connection = http1_builder(worker).serve_connection(socket, service).with_upgrades();
    match watch.over(Pin::new(&mut connection), Phase::Finishing, |c| c.graceful_shutdown()).await {
        End::Over(Err(error)) if error.is_parse_version_h2() => {
            let Some(parts) = connection.into_parts() else { return };
            serve_http2(&link, parts.io.push_back(parts.read_buf), &mut watch).await;
        }
        End::Over(end) => {
            if let Err(error) = &end {
                report(&link, error);
            }
            let Some(parts) = connection.into_parts() else { return };
            if link.is_broken() {
                parts.io.reset_on_close();
            } else if link.is_unread() {
                parts.io.linger().await;
            }
        }
        End::Overdue(doing) => {
            let Some(parts) = connection.into_parts() else { return };
            cut_off(&link, doing, parts.io).await;
        }
        End::Forced => {}
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

async fn serve_http2(link: &Arc<Link>, socket: Socket, watch: &mut Watch) {
    link.set_http2();
    let answering = link.clone();
    let service = service_fn(move |request| {
        answering.allow(FRAMES_PER_REQUEST);
        pace(answering.clone(), answer(&answering, request))
    });
    let connection = http2_builder(&link.worker).serve_connection(socket.expect_frames(), service);
    let mut connection = std::pin::pin!(connection);
    // What goes wrong goes wrong inside an exchange, which records it, or before there is one.
    let end = watch.over(connection.as_mut(), Phase::Discouraging, |c| c.graceful_shutdown()).await;
    if matches!(end, End::Overdue(Doing::Idle)) {
        // The client is told before the connection goes, so that no request falls between.
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(link.worker.limits().goodbye_timeout, connection).await;
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

fn http1_builder(worker: &Worker) -> http1::Builder {
    let limits = worker.limits();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The watch below keeps time, with one alarm for a connection instead of one for a head.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_MIN) + BUFFER_MIN);
    builder
}

/// hyper wants at least this much room for a head and what follows it.
const BUFFER_MIN: usize = 8 << 10;

fn http2_builder(worker: &Worker) -> http2::Builder<StreamExecutor> {
    let limits = worker.limits();
    let mut builder = http2::Builder::new(StreamExecutor { tempo: limits.answer_tempo() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(limits.reset_streams_max)
        .max_header_list_size(header_list_max(limits))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.idle_timeout / 2)
        .keep_alive_timeout(limits.head_timeout);
    builder
}

/// HTTP/2 counts 32 bytes more for each header. With room for those to spare, it is the exchange that refuses a head that
/// is too large, with the setting in the message.
fn header_list_max(limits: &Limits) -> u32 {
    u32::try_from(limits.head_bytes_max.saturating_add(64 * limits.headers_max)).unwrap_or(u32::MAX)
}

/// Bytes that a client may send on one HTTP/2 stream before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Frames that move nothing, such as window updates and a reset, that a client may send for a request.
const FRAMES_PER_REQUEST: u32 = 16;
/// Bytes of an answer that are buffered for one HTTP/2 stream.
const SEND_BUFFER: usize = 64 << 10;

type Answered = Result<Response<AnswerBody>, std::convert::Infallible>;

/// One request, counted by the connection itself: so it knows at once that no other should follow.
fn answer(link: &Arc<Link>, request: Request<Incoming>) -> impl Future<Output = Answered> + Send + use<> {
    let is_last = link.count_request();
    handle(link.clone(), request, is_last)
}

/// One request. A panic ends the exchange, not the connection's neighbours.
async fn handle(link: Arc<Link>, request: Request<Incoming>, is_last: bool) -> Answered {
    let version = request.version();
    let worker = link.worker.clone();
    let ledger = open(&link, &request);
    let id = ledger.record.request_id.clone();
    let exchange = AssertUnwindSafe(exchange(link, request, ledger)).catch_unwind();
    let mut response = exchange.await.unwrap_or_else(|_| respond::panicked(id));
    if version != Version::HTTP_2 {
        *response.version_mut() = Version::HTTP_11;
        // Closing gives back what the connection holds.
        let leaves = is_last || worker.is_discouraging() || worker.shared.vitals.memory.is_short();
        if leaves && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
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

/// How the watch over a connection ended.
#[derive(Debug)]
enum End {
    /// By itself.
    Over(hyper::Result<()>),
    /// Cut off: it was in this state for too long, or could not be written to.
    Overdue(Doing),
    /// Cut off: the router stops.
    Forced,
}

/// Keeps the deadlines of a connection and ends it when the router drains.
struct Watch {
    link: Arc<Link>,
    alarm: Pin<Box<Sleep>>,
    phase: watch::Receiver<Phase>,
}

impl Watch {
    fn new(link: Arc<Link>) -> Self {
        let first = Instant::now() + link.worker.limits().head_timeout;
        let phase = link.worker.shared.phase.clone();
        Self { alarm: Box::pin(sleep_until(first.into())), phase, link }
    }

    /// Drives a connection to its end; asks it to shut down when the router reaches `leave_at`.
    async fn over<C>(&mut self, mut connection: Pin<&mut C>, leave_at: Phase, leave: impl Fn(Pin<&mut C>)) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut left = false;
        loop {
            let now = *self.phase.borrow_and_update();
            if now == Phase::Forced {
                return End::Forced;
            }
            if !left && (now >= leave_at || self.link.must_leave()) {
                left = true;
                leave(connection.as_mut());
                self.link.note_goodbye(Instant::now());
            }
            // The connection itself counts requests, so only then can it have had its last one.
            let over_or_used_up = poll_fn(|context| match connection.as_mut().poll(context) {
                Poll::Ready(end) => Poll::Ready(Some(end)),
                Poll::Pending if !left && self.link.must_leave() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                // The connection first: what it has to say may be that it is done.
                biased;
                end = over_or_used_up => if let Some(end) = end { return End::Over(end) },
                doing = ring(&self.link, &mut self.alarm) => return End::Overdue(doing),
                changed = self.phase.changed() => {
                    if changed.is_err() {
                        return End::Forced;
                    }
                    // Deadlines are others now.
                    self.alarm.as_mut().reset(Instant::now().into());
                }
            }
        }
    }
}

/// While memory is short, this part of that: idle connections give theirs back, those just used a moment later.
const IDLE_PART: u32 = 20;

/// How long a connection may be without an exchange. While memory is short that is not long. One with HTTP/2 that was
/// asked to leave stays only for the last bytes of answers whose exchanges are over: at most the frame that did not fit
/// into the client's window.
fn idle_max(link: &Link) -> Duration {
    let limits = link.worker.limits();
    let leaves = link.is_http2() && (link.is_used_up() || link.worker.is_discouraging());
    let is_short = link.worker.shared.vitals.memory.is_short();
    let idle_max = if is_short { limits.idle_timeout / IDLE_PART } else { limits.idle_timeout };
    if leaves { idle_max.min(limits.body_timeout) } else { idle_max }
}

/// Until when an idle connection with HTTP/2 may stay whose client was told to leave and does not even answer the PING
/// that goes with it: while listeners are closed, not longer than a goodbye takes. One that answers has read what came
/// before, and ends by itself when it has the rest.
fn goodbye_end(link: &Link, idle_since_us: u64) -> Option<Instant> {
    let unanswered_us = link.unanswered_since().filter(|_| link.worker.is_finishing())?;
    let since = Duration::from_micros(unanswered_us.max(idle_since_us));
    Some(link.worker.shared.vitals.born + since + link.worker.limits().goodbye_timeout)
}

/// Ends when a deadline has passed, and says what the connection was doing.
async fn ring(link: &Link, alarm: &mut Pin<Box<Sleep>>) -> Doing {
    let limits = link.worker.limits();
    // Deadlines that begin between two looks are noticed late, by this much at most.
    let look = limits.head_timeout / 4;
    loop {
        alarm.as_mut().await;
        let now = Instant::now();
        let at = |since_us: u64, max: Duration| link.worker.shared.vitals.born + Duration::from_micros(since_us) + max;
        let (doing, since) = link.doing();
        let by_state = match doing {
            Doing::Fresh | Doing::Head => Some(at(since, limits.head_timeout)),
            Doing::Idle => [Some(at(since, idle_max(link))), goodbye_end(link, since)].into_iter().flatten().min(),
            Doing::Exchange => None,
        };
        let by_writing = link.waits_until().map(|until| at(until, Duration::ZERO));
        if by_writing.is_some_and(|until| until <= now) {
            link.set_untaken();
        }
        let next = by_state.into_iter().chain(by_writing).min();
        if next.is_some_and(|next| next <= now) {
            return doing;
        }
        let soon = now + look;
        alarm.as_mut().reset(next.map_or(soon, |next| next.min(soon)).into());
    }
}
