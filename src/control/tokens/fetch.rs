//! One fetch of a key set over HTTP/1.1, from the look-up of the name to the last byte.
//!
//! Holds:
//! - all of it has one deadline, however slowly it goes on; head, body and addresses have limits;
//! - over TLS the server proves who it is; without, nobody but this machine is asked ([`JwksUrl`] sees to that);
//! - no redirect is followed, wherever to: the configuration alone says who has the keys;
//! - no proxy and no credentials; nothing of an answer's content is in a message.

use std::fmt::Display;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::control::config::{JwksUrl, Tokens};

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest mark of a version that is sent back.
const ETAG_BYTES_MAX: usize = 256;
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Largest file of authorities: bundles of all public ones have some 250 KB.
const CA_BYTES_MAX: u64 = 4 << 20;
/// The longest text of an error that is passed on.
const TEXT_MAX: usize = 300;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Fetcher {
    url: JwksUrl,
    ca: Option<PathBuf>,
    timeout: Duration,
}

/// What the server has.
#[derive(Debug, Default)]
pub(super) struct Got {
    /// The text; `None` where it is that of the mark that was sent.
    pub(super) text: Option<Bytes>,
    /// What it calls this version.
    pub(super) etag: Option<HeaderValue>,
    /// How long it says that the answer holds.
    pub(super) max_age: Option<Duration>,
}

impl Fetcher {
    pub(super) fn new(url: JwksUrl, tokens: &Tokens) -> Self {
        Self { url, ca: tokens.ca.clone(), timeout: tokens.timeout }
    }

    /// Fetches; with the mark of a version, only what is newer.
    ///
    /// # Errors
    /// With what went wrong, as the end of a sentence that begins with the URL.
    pub(super) async fn fetch(&self, etag: Option<&HeaderValue>) -> Result<Got, String> {
        // On the heap: what speaks TLS and HTTP is large.
        match timeout(self.timeout, Box::pin(self.within_time(etag))).await {
            Ok(got) => got,
            Err(_) => Err(format!(
                "gave no whole answer within {} ms; see to the network, or raise token-jwks-timeout-ms",
                self.timeout.as_millis()
            )),
        }
    }

    async fn within_time(&self, etag: Option<&HeaderValue>) -> Result<Got, String> {
        if !self.url.has_tls() {
            return self.ask(self.connect().await?, etag).await;
        }
        let name = ServerName::try_from(self.url.host().to_owned()).map_err(|_| "has no name that TLS knows")?;
        let ca = self.ca.clone();
        // Reads files, and perhaps many.
        let config = tokio::task::spawn_blocking(move || client_config(ca.as_deref()));
        let config = config.await.map_err(|_| "cannot be asked: reading the authorities crashed")??;
        let connector = TlsConnector::from(Arc::new(config));
        let shaken = connector.connect(name, self.connect().await?).await;
        self.ask(shaken.map_err(|error| told("did not get through the TLS handshake", &error))?, etag).await
    }

    /// Tries the addresses of the server one after the other; none may take all of the time.
    async fn connect(&self) -> Result<TcpStream, String> {
        let found = lookup_host((self.url.host(), self.url.port())).await;
        let addresses = found.map_err(|error| told("is at a name that cannot be looked up", &error))?;
        let mut problem = "is at a name without an address".to_owned();
        for address in addresses.take(ADDRESSES_MAX) {
            problem = match timeout(self.timeout / 3, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => told(&format!("cannot be reached at {address}"), &error),
                Err(_) => format!("cannot be reached at {address}: no connection in time"),
            };
        }
        Err(problem)
    }

    /// One request and its answer; the connection ends with it.
    async fn ask<S>(&self, stream: S, etag: Option<&HeaderValue>) -> Result<Got, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let request = self.request(etag).map_err(|error| told("cannot be asked", &error))?;
        let speaking = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = speaking.map_err(|error| told("cannot be asked", &error))?;
        let exchange = pin!(async {
            let answer = sender.send_request(request).await;
            read(answer.map_err(|error| told("gave no answer", &error))?, etag.is_some()).await
        });
        match select(exchange, pin!(connection)).await {
            Either::Left((got, _)) => got,
            // All bytes were read; what they say is with the exchange.
            Either::Right((_, exchange)) => exchange.await,
        }
    }

    fn request(&self, etag: Option<&HeaderValue>) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(self.url.path())
            .header(HOST, self.url.authority())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("scorefront/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        request.body(Empty::new())
    }
}

async fn read(answer: Response<Incoming>, is_conditional: bool) -> Result<Got, String> {
    let max_age = max_age(answer.headers());
    let etag = answer.headers().get(ETAG).filter(|etag| etag.len() <= ETAG_BYTES_MAX).cloned();
    match answer.status().as_u16() {
        200 => {}
        304 if is_conditional => return Ok(Got { text: None, etag, max_age }),
        status @ 300..=399 => {
            return Err(format!(
                "answers with a redirect (status {status}), which is not followed; set token-jwks-url to where it leads"
            ));
        }
        status => return Err(format!("answers with status {status}")),
    }
    let too_long = || format!("answers with more than {BODY_BYTES_MAX} bytes, which is no key set");
    if answer.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    match Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(Got { text: Some(body.to_bytes()), etag, max_age }),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(error) => Err(told("broke off its answer", &error)),
    }
}

/// `max-age` of `Cache-Control`.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| seconds.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}

fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let certificates = match ca {
        Some(path) => read_authorities(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        let place = ca.map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
        return Err(format!("cannot be trusted: {place} has no authorities; give a PEM file as token-jwks-ca"));
    }
    let builder = ClientConfig::builder_with_provider(default_provider().into()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| told("cannot be asked", &error))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot = |why: &dyn Display| format!("cannot be trusted: token-jwks-ca {}: {why}", path.display());
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| cannot(&error))?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > CA_BYTES_MAX {
        return Err(cannot(&format!("has more than {CA_BYTES_MAX} bytes")));
    }
    let certificates: Result<_, _> = CertificateDer::pem_slice_iter(&text).collect();
    certificates.map_err(|_| cannot(&"cannot be read: PEM is expected"))
}

/// What happened, and why as far as it is known.
fn told(what: &str, error: &dyn Display) -> String {
    let why: String = error.to_string().chars().take(TEXT_MAX).collect();
    format!("{what}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_found_among_other_directives_and_nonsense_is_none() {
        for (values, expected) in [
            (&["public, Max-Age=3600"][..], Some(3600)),
            (&["no-cache", "s-maxage=5, max-age=\"60\""], Some(60)),
            (&["max-age=0"], Some(0)),
            (&["max-age"], None),
            (&["max-age=-1"], None),
            (&["max-age=99999999999999999999"], None),
            (&[], None),
        ] {
            let values = values.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_static(value)));
            assert_eq!(max_age(&values.collect()), expected.map(Duration::from_secs));
        }
    }

    #[test]
    fn a_file_without_authorities_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let problem = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            client_config(Some(&path)).unwrap_err()
        };
        assert!(problem(b"").contains("ca.crt has no authorities; give a PEM file as token-jwks-ca"));
        assert!(problem(b"-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n").contains("PEM is expected"));
        assert!(problem(&vec![b'\n'; 1 + CA_BYTES_MAX as usize]).contains("more than 4194304 bytes"));
        fs::remove_file(&path).unwrap();
        assert!(client_config(Some(&path)).unwrap_err().contains("ca.crt: No such file"));
    }
}
