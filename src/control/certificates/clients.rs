//! The authorities that certificates of clients are checked against, replaced while the router runs.
//!
//! Clients are not told their names: a list of authorities would have to live as long as the handshakes that borrow it,
//! and clients have one certificate anyway.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::control::config::ClientAuth;
use crate::core::x509::Certificate;

use super::pair::{fingerprint, read_chain};

type Verifier = Arc<dyn ClientCertVerifier>;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Clients {
    auth: ClientAuth,
    verifier: ArcSwap<Verifier>,
}

/// Authorities that were read.
#[derive(Debug)]
pub(super) struct Authorities {
    verifier: Verifier,
    /// The one that expires first, and its digest.
    pub(super) first: (Certificate, String),
}

impl Authorities {
    /// Reads certificates in PEM.
    pub(super) fn read(text: &[u8], auth: ClientAuth) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let mut read = Vec::new();
        for der in read_chain(text)? {
            let certificate = Certificate::read(&der).ok_or("a certificate of the file cannot be read")?;
            read.push((certificate, fingerprint(&der)));
            roots.add(der).map_err(|_| "a certificate of the file cannot be used as an authority")?;
        }
        let first = read.into_iter().min_by_key(|(certificate, _)| certificate.not_after);
        let first = first.ok_or("the file holds no certificate: PEM is expected")?;
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into());
        let builder = match auth {
            ClientAuth::Required => builder,
            ClientAuth::Accepted => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|_| "the certificates of the file cannot be used as authorities")?;
        Ok(Self { verifier, first })
    }
}

impl Clients {
    pub(super) fn new(authorities: &Authorities, auth: ClientAuth) -> Self {
        Self { auth, verifier: ArcSwap::from_pointee(authorities.verifier.clone()) }
    }

    /// Checks against these from now on.
    pub(super) fn replace(&self, authorities: &Authorities) {
        self.verifier.store(Arc::new(authorities.verifier.clone()));
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.load().verify_client_cert(own, chain, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}
