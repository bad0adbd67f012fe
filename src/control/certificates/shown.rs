//! Which certificate a client is shown.
//!
//! The first one that the client can verify, of those that have the name it asked for; then of those with a wildcard
//! for it; then of all, in the order of the configuration, so that the first is the default. So an ECDSA and an RSA
//! certificate for the same name stand side by side, and clients get what they understand.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, sign};

use crate::core::x509::Certificate;

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Shown(ArcSwap<Table>);

/// Changed as a whole.
#[derive(Debug, Default)]
struct Table {
    all: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Shown {
    /// Puts these in place of what was there, for handshakes from now on.
    pub(super) fn show<'a>(&self, certificates: impl Iterator<Item = (&'a Certificate, Arc<CertifiedKey>)>) {
        let mut table = Table::default();
        for (certificate, key) in certificates {
            for name in &certificate.dns_names {
                table.by_name.entry(name.clone()).or_default().push(key.clone());
            }
            table.all.push(key);
        }
        self.0.store(Arc::new(table));
    }
}

impl Table {
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let wildcard = name.as_deref().and_then(|name| Some(format!("*.{}", name.split_once('.')?.1)));
        let named = [name, wildcard].into_iter().flatten().filter_map(|name| self.by_name.get(&name)).flatten();
        let suits = |key: &&Arc<CertifiedKey>| sign::SigningKey::choose_scheme(&*key.key, schemes).is_some();
        // A client that none suits is shown the default all the same: it then learns that there is no cipher in common,
        // and not that it was denied access.
        named.chain(&self.all).find(suits).or_else(|| self.all.first()).cloned()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::certificates::pair::Pair;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Pair::read(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn the_name_decides_then_the_wildcard_then_the_order_among_what_the_client_understands() {
        let pairs = [
            certificate(&["default.example"], &rcgen::PKCS_ECDSA_P256_SHA256),
            certificate(&["a.example", "*.b.example"], &rcgen::PKCS_ECDSA_P384_SHA384),
            certificate(&["x.b.example", "a.example"], &rcgen::PKCS_RSA_SHA256),
        ];
        let shown = Shown::default();
        shown.show(pairs.iter().map(|pair| (&pair.certificate, pair.key.clone())));
        let table = shown.0.load();
        let all = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
        ];
        for (name, schemes, expected) in [
            (None, &all[..], Some(0)),
            (Some("unknown.example"), &all, Some(0)),
            (Some("A.Example"), &all, Some(1)),
            (Some("a.example"), &all[2..], Some(2)),
            (Some("y.b.example"), &all, Some(1)),
            (Some("z.y.b.example"), &all, Some(0)),
            (Some("x.b.example"), &all, Some(2)),
            (Some("x.b.example"), &all[..2], Some(1)),
            (None, &all[2..], Some(2)),
            (None, &[SignatureScheme::ED25519][..], Some(0)),
        ] {
            let chosen = table.choose(name, schemes);
            let place = chosen.map(|key| pairs.iter().position(|pair| Arc::ptr_eq(&pair.key, &key)).unwrap());
            assert_eq!(place, expected, "{name:?} {schemes:?}");
        }
    }
}
