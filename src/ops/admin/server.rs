//! Accepts and serves on the admin port.
//!
//! Holds: nothing a client does ends the port or piles up. Connections, requests at a time, the time to a request
//! head, the time to an answer and the life of a connection are limited; no failed accept ends the loop, running out
//! of file descriptors included.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt};

use super::{Answer, State, answer, probe, refusal};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Requests at a time; more are refused.
const REQUESTS_MAX: usize = 16;
/// To the head of a request, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// From the head of a request to its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one connection: a client that never reads its answer is gone after that.
const CONNECTION_LIFE: Duration = Duration::from_secs(900);
/// For running requests after shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
/// Pauses after an accept that failed for lack of something: the first, and the longest.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Takes the address; fails at once where it cannot be had. Connections wait until [`Admin::serve`].
pub fn bind(address: SocketAddr) -> io::Result<Admin> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("admin address {address}: {error}")))?;
    listener.set_nonblocking(true)?;
    Ok(Admin { address: listener.local_addr()?, listener })
}

/// The admin port, bound.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    listener: TcpListener,
}

impl Admin {
    /// The address with the port that the system chose, if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes and running requests had a moment to end.
    ///
    /// # Errors
    /// When the runtime does not take the listener.
    pub async fn serve(self, state: Arc<State>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let (stop, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::select! {
            () = shutdown => {}
            never = accept(&listener, layered(state), &stopped, &mut connections) => match never {},
        }
        drop((listener, stop));
        let all_done = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, all_done).await;
        Ok(())
    }
}

/// Answers probes at once and everything else through the layers, which all connections share.
fn layered(
    state: Arc<State>,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send {
    let layers = {
        let state = state.clone();
        ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(REQUESTS_MAX)
            .timeout(ANSWER_TIMEOUT)
            .service_fn(move |request| answer(state.clone(), request))
    };
    service_fn(move |request| {
        let probed = probe(&state, &request);
        let layers = layers.clone();
        async move {
            match probed {
                Some(answer) => Ok(answer),
                None => Ok(layers.oneshot(request).await.unwrap_or_else(|error| refusal(&error))),
            }
        }
    })
}

async fn accept<S>(
    listener: &tokio::net::TcpListener,
    service: S,
    stopped: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) -> Infallible
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut pause = Duration::ZERO;
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                pause = Duration::ZERO;
                let connection = serve_connection(stream, service.clone(), stopped.clone());
                connections.spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if pause.is_zero() {
                    tracing::warn!(%error, "admin port cannot accept; trying again");
                }
                pause = (pause * 2).clamp(ACCEPT_PAUSE.0, ACCEPT_PAUSE.1);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The peer was gone before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn serve_connection<S>(stream: TcpStream, service: S, mut stopped: watch::Receiver<()>)
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Errors here are the client's: it went away, or sent no HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        // The sender is dropped at shutdown and never sends.
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
