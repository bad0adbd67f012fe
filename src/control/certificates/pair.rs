//! From two texts in PEM to a certificate that can be shown, or to the reason why not. No message repeats anything of
//! what was read.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::core::x509::Certificate;

/// The longest chain that is shown; clients refuse longer ones.
const CHAIN_MAX: usize = 16;

/// A certificate with its chain and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certificate: Certificate,
    pub(super) fingerprint: String,
    pub(super) key: Arc<CertifiedKey>,
}

/// Without the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads a chain, the router's own certificate first, and the key that belongs to that.
    pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = read_chain(chain)?;
        let own = chain.first().ok_or("the certificate file holds no certificate: PEM is expected")?;
        let certificate = Certificate::read(own).ok_or("the first certificate cannot be read")?;
        let fingerprint = fingerprint(own);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(
            |_| "the key file holds no private key: PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted) is expected",
        )?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the first certificate",
            rustls::Error::InvalidCertificate(_) => "the first certificate cannot be used",
            _ => "the key cannot be used: RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519 is expected",
        })?;
        Ok(Self { certificate, fingerprint, key: Arc::new(key) })
    }
}

/// All certificates of a text in PEM.
pub(super) fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(CHAIN_MAX + 1).collect();
    let chain = chain.map_err(|_| "the certificate file cannot be read: PEM is expected")?;
    if chain.len() > CHAIN_MAX {
        return Err(format!("the certificate file holds more than {CHAIN_MAX} certificates"));
    }
    Ok(chain)
}

/// The SHA-256 digest in hexadecimal digits.
pub(super) fn fingerprint(der: &[u8]) -> String {
    digest::digest(&digest::SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
