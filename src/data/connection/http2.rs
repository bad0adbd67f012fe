//! A client connection once it speaks HTTP/2: what of the protocol is limited, which streams are refused, and why it
//! ended.
//!
//! Holds: of a connection that had as many requests as it may have, no further one is begun. The client is told to leave
//!        and may have sent some before it heard that: they are refused with the code that says that nothing was done.
//!        One that sends more of them than it may have streams did not listen, and is cut off.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use h2::Reason;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;

use super::super::paced::{PacedBody, StreamExecutor, pace};
use super::super::socket::Socket;
use super::super::worker::{Phase, Worker};
use super::{End, Link, Watch, answer};
use crate::core::limits::Limits;
use crate::core::vitals::Http2End;
use crate::data::link::Doing;

/// Bytes that a client may send on one stream before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Frames that move nothing, such as window updates and a reset, that a client may send for a request.
const FRAMES_PER_REQUEST: u32 = 16;
/// Bytes of an answer that are buffered for one stream.
const SEND_BUFFER: usize = 64 << 10;

pub(super) async fn serve(link: &Arc<Link>, socket: Socket, watch: &mut Watch) {
    link.set_http2();
    let answering = link.clone();
    let service = service_fn(move |request| respond(&answering, request));
    let connection = builder(&link.worker).serve_connection(socket.expect_frames(), service);
    let mut connection = pin!(connection);
    // What goes wrong goes wrong inside an exchange, which records it, or before there is one.
    let end = watch.over(connection.as_mut(), Phase::Discouraging, |c| c.graceful_shutdown()).await;
    link.worker.shared.vitals.connections.http2_ended.bump(reason(link, &end));
    if matches!(end, End::Overdue(Doing::Idle)) {
        // The client is told before the connection goes, so that no request falls between.
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(link.worker.limits().goodbye_timeout, connection).await;
    }
}

/// One request, or its refusal.
fn respond(
    link: &Arc<Link>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<PacedBody>, h2::Error>> + Send + use<> {
    if link.is_used_up() {
        link.refuse_stream();
        return Either::Left(ready(Err(Reason::REFUSED_STREAM.into())));
    }
    link.allow(FRAMES_PER_REQUEST);
    Either::Right(pace(link.clone(), answer(link, request)).map_err(|never| match never {}))
}

/// Why a connection ended.
fn reason(link: &Link, end: &End) -> Http2End {
    let error = match end {
        End::Over(Ok(())) => return Http2End::InOrder,
        End::Over(Err(_)) if link.is_flooded() => return Http2End::IdleFrames,
        End::Over(Err(error)) => error,
        End::Overdue(Doing::Idle) => return Http2End::Idle,
        End::Overdue(_) => return Http2End::Slow,
        End::Deaf => return Http2End::TooManyRequests,
        // With HTTP/2 nobody rests.
        End::Forced | End::Resting => return Http2End::Forced,
    };
    if error.is_timeout() {
        return Http2End::Silent;
    }
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    match cause {
        Some(cause) if cause.is_go_away() && cause.is_remote() => Http2End::ClientError,
        Some(cause) if cause.reason() == Some(Reason::ENHANCE_YOUR_CALM) => Http2End::Flood,
        Some(cause) if cause.is_go_away() => Http2End::ProtocolError,
        _ => Http2End::Lost,
    }
}

fn builder(worker: &Worker) -> http2::Builder<StreamExecutor> {
    let limits = worker.limits();
    let mut builder = http2::Builder::new(StreamExecutor { tempo: limits.answer_tempo() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(limits.reset_streams_max)
        .max_local_error_reset_streams(limits.faulty_streams_max)
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
