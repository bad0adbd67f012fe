//! How clients may speak TLS: the part of the configuration that says so, and what its settings must be together.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::core::facts::ObjectRef;

use super::{Config, Source};

/// See the head of the file. Time-outs, limits and versions are in [`crate::core::limits::Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Addresses for clients with TLS.
    pub listen: Vec<SocketAddr>,
    /// Files with certificate chains.
    pub certificates: Vec<PathBuf>,
    /// Files with their private keys, in the same order.
    pub keys: Vec<PathBuf>,
    /// Secrets with certificate chain and private key.
    pub secrets: Vec<ObjectRef>,
    /// File with the authorities that client certificates are checked against.
    pub client_ca: Option<PathBuf>,
    /// Whether clients need a certificate.
    pub client_auth: ClientAuth,
}

/// Whether clients need a certificate, where they can be checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No handshake without one.
    #[default]
    Required,
    /// A client may have none; one that it has must be valid.
    Accepted,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Accepted => "accepted",
        })
    }
}

impl FromStr for ClientAuth {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "required" => Ok(Self::Required),
            "accepted" => Ok(Self::Accepted),
            _ => Err(()),
        }
    }
}

impl Tls {
    /// The files of each certificate with its key.
    pub fn pairs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.certificates.iter().map(PathBuf::as_path).zip(self.keys.iter().map(PathBuf::as_path))
    }

    /// Whether there is anything to show to clients.
    fn has_certificates(&self) -> bool {
        !(self.certificates.is_empty() && self.secrets.is_empty())
    }
}

/// What each setting may be, but not all of them together.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let tls = &config.tls;
    let (certificates, keys) = (tls.certificates.len(), tls.keys.len());
    let mut problems = Vec::new();
    if config.limits.proxy_protocol && config.limits.trusted_proxies.is_empty() {
        problems.push("proxy-protocol: is required of nobody; give trusted-proxies".to_owned());
    }
    if certificates != keys {
        problems.push(format!(
            "tls-cert, tls-key: {certificates} and {keys} files; give one tls-key for each tls-cert, in the same order"
        ));
    }
    if !tls.listen.is_empty() && !tls.has_certificates() {
        problems.push("listen-tls: there is no certificate; give tls-cert with tls-key, or tls-secret".to_owned());
    }
    if tls.listen.is_empty() && tls.has_certificates() {
        problems.push("tls-cert, tls-secret: nobody listens with TLS; give listen-tls".to_owned());
    }
    if tls.listen.is_empty() && tls.client_ca.is_some() {
        problems.push("client-ca: nobody listens with TLS; give listen-tls".to_owned());
    }
    if tls.listen.is_empty() && config.listen.is_empty() {
        problems.push("listen: is off; give at least one listen or listen-tls".to_owned());
    }
    if !tls.secrets.is_empty() && !config.sources.contains(&Source::Kubernetes) {
        problems.push("tls-secret: is read with source kubernetes only; give tls-cert with tls-key instead".to_owned());
    }
    problems
}
