//! Certificates of authorities that replicas are checked against: `ca.crt` of a Secret.
//!
//! Holds: what comes out of here can be used as an authority, and is bounded in number and size.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::core::replica_tls::Roots;

/// The longest text: some hundred certificates.
const BYTES_MAX: usize = 256 << 10;
/// The most certificates: authorities of a cluster, not all of the world.
const COUNT_MAX: usize = 64;

/// Reads certificates in PEM; whatever else is in the text is passed over.
pub(super) fn read(text: &[u8]) -> Result<Roots, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("has {} bytes, and at most {BYTES_MAX} are read", text.len()));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(COUNT_MAX + 1).collect();
    let found = found.map_err(|_| "cannot be read: certificates in PEM are expected")?;
    check(found.iter().map(|der| Box::from(&**der)).collect())
}

/// Whether all of these can be used.
pub(in crate::control) fn check(certificates: Vec<Box<[u8]>>) -> Result<Roots, String> {
    if certificates.is_empty() {
        return Err("holds no certificate: PEM is expected".to_owned());
    }
    if certificates.len() > COUNT_MAX {
        return Err(format!("holds more than {COUNT_MAX} certificates"));
    }
    for (number, der) in (1..).zip(&certificates) {
        let added = RootCertStore::empty().add(CertificateDer::from(&**der));
        added.map_err(|_| format!("certificate {number} of it cannot be used as an authority"))?;
    }
    Ok(Roots::new(certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap()
    }

    #[test]
    fn one_or_several_certificates_are_read_and_keys_beside_them_are_not() {
        let (a, b) = (certificate(), certificate());
        let text = format!("# both\n{}{}{}", a.cert.pem(), a.signing_key.serialize_pem(), b.cert.pem());
        let roots = read(text.as_bytes()).unwrap();
        assert_eq!(roots.iter().collect::<Vec<_>>(), [a.cert.der().as_ref(), b.cert.der().as_ref()]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let pem = certificate().cert.pem();
        let (head, body) = pem.split_once('\n').unwrap();
        let cut = format!("{head}\n{}", &body[4..]);
        for (text, why) in [
            (String::new(), "no certificate"),
            ("no PEM".to_owned(), "no certificate"),
            (pem.replace("-----END", "--"), "cannot be read"),
            (cut, "certificate 1 of it cannot be used"),
            (pem.repeat(COUNT_MAX + 1), "more than 64"),
            (" ".repeat(BYTES_MAX + 1), "at most"),
        ] {
            let problem = read(text.as_bytes()).unwrap_err();
            assert!(problem.contains(why), "{problem} instead of {why}");
        }
        assert_eq!(read(pem.repeat(COUNT_MAX).as_bytes()).unwrap().iter().len(), COUNT_MAX);
    }
}
