//! What the tests of TLS share: an authority, certificates of its making in files, and clients that check them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType,
    SignatureAlgorithm,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use scorefront::control::config::Config;
use scorefront::testing::PATIENCE;
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const ECDSA: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
pub(crate) const RSA: &SignatureAlgorithm = &rcgen::PKCS_RSA_SHA256;

/// An authority that exists for one test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: rustls::pki_types::CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Issued {
    /// What a server shows this certificate with.
    pub(crate) fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key_der.clone()).unwrap();
        let builder = ServerConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![self.der.clone()], key).unwrap())
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: tempfile::tempdir().unwrap() }
    }

    /// A certificate for these host names.
    pub(crate) fn issue(&self, names: &[&str], algorithm: &'static SignatureAlgorithm) -> Issued {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(CertificateParams::new(names).unwrap(), algorithm)
    }

    /// A certificate for a client with this subject and these URIs.
    pub(crate) fn issue_client(&self, subject: &str, uris: &[&str]) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        self.sign(params, ECDSA)
    }

    pub(crate) fn sign(&self, params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Issued {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    /// Writes a certificate and its key.
    pub(crate) fn write(&self, name: &str, issued: &Issued) -> [PathBuf; 2] {
        let paths = [".crt", ".key"].map(|end| self.path(&format!("{name}{end}")));
        std::fs::write(&paths[0], &issued.chain).unwrap();
        std::fs::write(&paths[1], &issued.key).unwrap();
        paths
    }

    /// The authority's own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The same in a file.
    pub(crate) fn write_root(&self) -> PathBuf {
        let path = self.path("ca.crt");
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a client trusts and speaks; with a certificate of its own where it is given one.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        own: Option<&Issued>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key_der.clone()).unwrap();
                builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// What a client of this authority trusts.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// One that speaks HTTP/1.1 over any version.
    pub(crate) fn plain_client(&self) -> ClientConfig {
        self.client(rustls::ALL_VERSIONS, &["http/1.1"], None)
    }
}

/// A handshake with the router, for this name.
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(address, name, Arc::new(config)).await
}

/// The same with a configuration that remembers its sessions.
pub(crate) async fn connect_as(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    shake_hands_as(TcpStream::connect(address).await?, name, config).await
}

/// A handshake on a connection that is there already.
pub(crate) async fn shake_hands(
    socket: TcpStream,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    shake_hands_as(socket, name, Arc::new(config)).await
}

pub(crate) async fn shake_hands_as(
    socket: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(PATIENCE, TlsConnector::from(config).connect(name, socket)).await.expect("the handshake ends in time")
}

/// The certificate that the router showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> &[u8] {
    stream.get_ref().1.peer_certificates().unwrap()[0].as_ref()
}

/// A router that listens with TLS too, with these certificates.
pub(crate) async fn start(world: &World, pairs: &[[PathBuf; 2]], change: impl FnOnce(&mut Config)) -> Router {
    Router::start_with(world, |config| {
        config.tls.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls.certificates = pairs.iter().map(|[certificate, _]| certificate.clone()).collect();
        config.tls.keys = pairs.iter().map(|[_, key]| key.clone()).collect();
        change(config);
    })
    .await
}

/// Replaces files as the kubelet does: a link changes from one folder to the next.
pub(crate) fn swap(link: &Path, folder: &str) {
    let draft = link.with_file_name("..tmp");
    std::os::unix::fs::symlink(folder, &draft).unwrap();
    std::fs::rename(draft, link).unwrap();
}
