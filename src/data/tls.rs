//! TLS of client connections: what is agreed in the handshake, and the way from a socket to a connection.
//!
//! Owner: the app. One for all listeners and workers, so a session that one worker began is resumed by every other;
//! the keys of session tickets change every six hours and are known to no other router.
//!
//! Holds: a handshake ends within `tls-handshake-timeout-ms`, and no more than `tls-handshakes-max` are under way; who
//! comes later waits, with nothing but a socket to its name. No client address has more than its part under way and
//! waiting. Nothing of a request is taken before the handshake is over (no early data: it could be replayed).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::worker::{Phase, Worker};
use crate::core::limits::{Limits, TlsVersion};

use self::client::ClientCertificate;
pub(crate) use self::transport::Transport;

pub(crate) mod client;
mod transport;

const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// See the head of the file.
pub struct Tls {
    acceptor: TlsAcceptor,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    places: Semaphore,
    timeout: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What a handshake came to.
#[derive(Debug)]
pub(crate) struct Secured {
    /// Whether the client chose HTTP/2.
    pub(crate) is_http2: bool,
    /// The certificate that it showed, verified.
    pub(crate) client: Option<ClientCertificate>,
}

impl Tls {
    /// With the certificates of the router, and a way to check those of clients where they are asked for one.
    ///
    /// # Errors
    /// Where there are no random numbers for the keys of tickets.
    pub fn new(
        limits: &Limits,
        certificates: Arc<dyn ResolvesServerCert>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Self, rustls::Error> {
        let versions = match limits.tls_version_min {
            TlsVersion::V12 => &[&TLS13, &TLS12][..],
            TlsVersion::V13 => &[&TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(default_provider().into()).with_protocol_versions(versions)?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP11.to_vec()];
        config.ticketer = Ticketer::new()?;
        // All that is kept of a session is the ticket that the client has.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let places = Semaphore::new(limits.tls_handshakes_max.min(Semaphore::MAX_PERMITS));
        Ok(Self { acceptor, clients, places, timeout: limits.tls_handshake_timeout })
    }

    /// Does the handshake; `None` where it failed, took too long, or the router takes nothing new any more.
    pub(crate) async fn open(
        &self,
        worker: &Worker,
        socket: TcpStream,
        client: IpAddr,
    ) -> Option<(Transport, Secured)> {
        let mut phase = worker.shared.phase.clone();
        tokio::select! {
            opened = self.shake_hands(worker, socket, client) => opened,
            _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => None,
        }
    }

    async fn shake_hands(&self, worker: &Worker, socket: TcpStream, client: IpAddr) -> Option<(Transport, Secured)> {
        let counts = &worker.shared.vitals.handshakes;
        // Before it waits for others: what one address has waiting counts too.
        let Some(own) = worker.shared.place(&worker.shared.handshakes, client) else {
            counts.crowded_address.bump();
            return None;
        };
        let deadline = Instant::now() + self.timeout;
        let Ok(place) = timeout_at(deadline, self.places.acquire()).await else {
            counts.crowded_out.bump();
            return None;
        };
        let under_way = UnderWay::new(&counts.open);
        let Ok(shaken) = timeout_at(deadline, self.acceptor.accept(socket)).await else {
            counts.timed_out.bump();
            return None;
        };
        drop((own, place, under_way));
        let stream = match shaken {
            Ok(stream) if self.still_trusts(stream.get_ref().1) => stream,
            // What the client did wrong is for it to find out: it was sent an alert.
            Ok(_) | Err(_) => {
                counts.failed.bump();
                return None;
            }
        };
        let session = stream.get_ref().1;
        match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => counts.resumed.bump(),
            _ => counts.full.bump(),
        }
        let is_http2 = session.alpn_protocol() == Some(HTTP2);
        let client = session.peer_certificates().and_then(<[_]>::first).and_then(|own| ClientCertificate::read(own));
        Some((Transport::Tls(Box::new(stream)), Secured { is_http2, client }))
    }

    /// A resumed session brings back a certificate that was valid when it began: it must still be.
    fn still_trusts(&self, session: &ServerConnection) -> bool {
        let (Some(verifier), Some(HandshakeKind::Resumed)) = (&self.clients, session.handshake_kind()) else {
            return true;
        };
        match session.peer_certificates().and_then(<[_]>::split_first) {
            Some((own, chain)) => verifier.verify_client_cert(own, chain, UnixTime::now()).is_ok(),
            None => !verifier.client_auth_mandatory(),
        }
    }
}

/// Counts a handshake for as long as it is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
