//! TLS towards replicas: the handshake, what is remembered for the next one, and why one failed, in words.
//!
//! Owner: the rules of the deployment ([`ReplicaTls`]): what is made of them here lives as long as they do, for all
//! workers. So other authorities or another name mean other sessions too, and nothing of the old ones counts.
//! Holds: no byte of a request goes to a replica before its certificate was found to be for the right name and from
//! one of the authorities, and is valid now: that of a resumed session is checked again. Sessions are remembered by
//! address, because replicas do not know each other's, for so many addresses at most.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error, HandshakeKind, InvalidMessage, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::core::replica_tls::ReplicaTls;
use crate::core::vitals::ReplicaHandshakeCounts;

pub(crate) use self::socket::ReplicaSocket;

mod socket;

const HTTP11: &[u8] = b"http/1.1";

/// Addresses whose sessions are remembered; all are forgotten when there are more.
const ADDRESSES_MAX: usize = 4096;

/// What is made of the rules of one deployment.
struct Client {
    config: ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    /// The same, each with sessions of its own.
    by_address: Mutex<HashMap<SocketAddr, Arc<ClientConfig>>>,
}

impl Client {
    fn new(tls: &ReplicaTls) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for der in tls.roots.iter() {
            roots.add(CertificateDer::from(der).into_owned()).map_err(|error| error.to_string())?;
        }
        let name = ServerName::try_from(tls.server_name.to_string()).map_err(|error| error.to_string())?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(|error| error.to_string())?;
        let mut config = builder.with_webpki_verifier(verifier.clone()).with_no_client_auth();
        config.alpn_protocols = vec![HTTP11.to_vec()];
        Ok(Self { config, verifier, name, by_address: Mutex::default() })
    }

    fn config_for(&self, address: SocketAddr) -> Arc<ClientConfig> {
        let mut known = self.by_address.lock();
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&address) {
            known.clear();
        }
        let fresh = || {
            let mut config = self.config.clone();
            config.resumption = Resumption::in_memory_sessions(1);
            Arc::new(config)
        };
        known.entry(address).or_insert_with(fresh).clone()
    }

    /// A resumed session brings back a certificate that was valid when it began: it must still be at `now`. Otherwise
    /// what is remembered of the address is forgotten, so that the next handshake is a whole one.
    fn check_again(&self, session: &ClientConnection, address: SocketAddr, now: UnixTime) -> Result<(), Error> {
        if session.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let chain = session.peer_certificates().and_then(<[_]>::split_first);
        let (own, others) = chain.ok_or(Error::NoCertificatesPresented)?;
        let checked = self.verifier.verify_server_cert(own, others, &self.name, &[], now);
        if checked.is_err() {
            self.by_address.lock().remove(&address);
        }
        checked.map(drop)
    }
}

/// Does the handshake on a new connection.
pub(super) async fn shake_hands(
    tls: &ReplicaTls,
    socket: TcpStream,
    address: SocketAddr,
    counts: &ReplicaHandshakeCounts,
) -> io::Result<TlsStream<TcpStream>> {
    let under_way = UnderWay { counts, result: None };
    let client = match tls.made(|| Client::new(tls)) {
        Some(Ok(client)) => client,
        Some(Err(error)) => return under_way.failed(error.clone()),
        None => return under_way.failed("its rules of TLS belong to something else".to_owned()),
    };
    let connector = TlsConnector::from(client.config_for(address));
    match connector.connect(client.name.clone(), socket).await {
        Ok(stream) => match client.check_again(stream.get_ref().1, address, UnixTime::now()) {
            Ok(()) => {
                under_way.done(stream.get_ref().1.handshake_kind());
                Ok(stream)
            }
            Err(error) => under_way.failed(describe(&error, tls)),
        },
        Err(error) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            let gone = error.kind() == io::ErrorKind::UnexpectedEof;
            under_way.failed(match cause {
                Some(cause) => describe(cause, tls),
                None if gone => "it closed the connection during the handshake".to_owned(),
                None => error.to_string(),
            })
        }
    }
}

/// Counts a handshake however it ends; one that nobody waited for any more counts as given up.
struct UnderWay<'a> {
    counts: &'a ReplicaHandshakeCounts,
    result: Option<Result<Option<HandshakeKind>, ()>>,
}

impl UnderWay<'_> {
    fn done(mut self, kind: Option<HandshakeKind>) {
        self.result = Some(Ok(kind));
    }

    fn failed<T>(mut self, why: String) -> io::Result<T> {
        self.result = Some(Err(()));
        Err(io::Error::other(format!("TLS: {why}")))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        match self.result {
            Some(Ok(Some(HandshakeKind::Resumed))) => self.counts.resumed.bump(),
            Some(Ok(_)) => self.counts.full.bump(),
            Some(Err(())) => self.counts.failed.bump(),
            None => self.counts.given_up.bump(),
        }
    }
}

/// What went wrong, and where to look.
fn describe(error: &Error, tls: &ReplicaTls) -> String {
    let name = &tls.server_name;
    match error {
        // A bad signature: another authority of the same name.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not from an authority in the ca.crt that replica-tls-ca-secret names".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!("its certificate is not for {name}: correct it, or replica-tls-server-name")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        // rustls has no kind for it; it is the first mistake of everybody who makes certificates by hand. Should the name
        // change, the message is a plainer one.
        Error::InvalidCertificate(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority (CA:TRUE), which no server may show".to_owned()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS on this port: see scoring-port".to_owned()
        }
        Error::AlertReceived(alert) => format!("it refused the handshake ({alert:?})"),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "replica_tls/tests.rs"]
mod tests;
