//! Who a client is by its certificate: for the access log, and for replicas in the header `x-forwarded-client-cert`,
//! whose form is that of Envoy.
//!
//! The certificate was verified before it comes here, but its names were chosen by whoever issued it: none of them can
//! add an element to the header.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderValue;

use crate::core::x509::Certificate;

/// The longest header, in bytes. Names that find no room are left out.
const HEADER_MAX: usize = 4096;

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate {
    /// Its first URI, else host name, else e-mail address, else its subject.
    pub(crate) identity: HeaderValue,
    /// The value of the header.
    pub(crate) forwarded: HeaderValue,
}

impl ClientCertificate {
    /// Reads a certificate in DER. `None` where it cannot be read, which a verified one always can.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::read(der)?;
        let identity = HeaderValue::from_str(certificate.identity()).ok()?;
        let mut forwarded = String::from("Hash=");
        for byte in digest::digest(&digest::SHA256, der).as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(forwarded, "{byte:02x}");
        }
        push(&mut forwarded, "Subject", &certificate.subject, true);
        certificate.uris.iter().for_each(|uri| push(&mut forwarded, "URI", uri, false));
        certificate.dns_names.iter().for_each(|name| push(&mut forwarded, "DNS", name, false));
        Some(Self { identity, forwarded: HeaderValue::from_str(&forwarded).ok()? })
    }
}

/// Adds an element, in quotes where it could be taken for more than one.
fn push(out: &mut String, name: &str, value: &str, quoted: bool) {
    if out.len() + name.len() + 2 * value.len() + 4 > HEADER_MAX {
        return;
    }
    let quoted = quoted || value.contains([',', ';', '=', '"', '\\']);
    let _ = match quoted {
        true => write!(out, ";{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        false => write!(out, ";{name}={value}"),
    };
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn read(subject: &str, names: Vec<SanType>) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(certificate.der()).unwrap()
    }

    fn after_hash(client: &ClientCertificate) -> String {
        let text = client.forwarded.to_str().unwrap();
        let (hash, rest) = text.split_at(5 + 64);
        assert!(hash.starts_with("Hash=") && hash[5..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        rest.to_owned()
    }

    #[test]
    fn the_header_has_all_names_and_the_log_the_best() {
        let uri = SanType::URI("spiffe://cluster/ns/a/sa/b".try_into().unwrap());
        let client = read("batch", vec![SanType::DnsName("batch.example".try_into().unwrap()), uri]);
        let expected = ";Subject=\"CN=batch\";URI=spiffe://cluster/ns/a/sa/b;DNS=batch.example";
        assert_eq!(
            (after_hash(&client).as_str(), client.identity.to_str().unwrap()),
            (expected, "spiffe://cluster/ns/a/sa/b")
        );
    }

    #[test]
    fn no_name_can_add_an_element() {
        let uri = SanType::URI("a:b;URI=spiffe://admin,Hash=0\"".try_into().unwrap());
        let client = read("x\";URI=\"spiffe://admin\\", vec![uri]);
        let expected = ";Subject=\"CN=x\\\\\\\"\\\\;URI=\\\\\\\"spiffe://admin\\\\\\\\\";\
                        URI=\"a:b;URI=spiffe://admin,Hash=0\\\"\"";
        assert_eq!(after_hash(&client), expected);
    }

    #[test]
    fn the_header_has_a_limit() {
        let names = (0..200).map(|n| SanType::DnsName(format!("{n}.{}.example", "a".repeat(50)).try_into().unwrap()));
        let client = read("x", names.collect());
        assert!(client.forwarded.len() <= HEADER_MAX && client.forwarded.len() > HEADER_MAX / 2);
    }
}
