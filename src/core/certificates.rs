//! What is known of each certificate that clients are shown, for metrics and `/debug/certificates`. Nothing of a
//! private key is in here.

use std::time::SystemTime;

use super::x509::Certificate;

/// One place of the configuration that a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateState {
    /// The place: `file /etc/tls/tls.crt` or `secret azureml/scorefront-tls`.
    pub source: String,
    /// What clients are shown; `None` where there never was anything valid.
    pub in_use: Option<InUse>,
    /// Why what is there now is not in use; `None` where it is.
    pub problem: Option<String>,
    /// How often another certificate was taken up, the first one not counted.
    pub renewals: u64,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// What it says.
    pub certificate: Certificate,
    /// The SHA-256 digest of it, in hexadecimal digits.
    pub fingerprint: String,
    /// Since when it is in use.
    pub since: SystemTime,
}

impl CertificateState {
    /// A place of which nothing is known yet.
    pub fn new(source: String) -> Self {
        Self { source, in_use: None, problem: None, renewals: 0 }
    }
}

impl InUse {
    /// Days until it is no longer valid; negative when it no longer is.
    pub fn days_left(&self, now: SystemTime) -> f64 {
        let seconds = match self.certificate.not_after.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        };
        seconds / 86_400.0
    }
}
