//! Certificates as others make them, and bytes that are none.

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn names_and_times_are_read() {
    let der = made(|params| {
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Models, Inc.");
        params.distinguished_name.push(DnType::CommonName, " scoring \u{e9}#");
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 3, 1);
        params.subject_alt_names = vec![
            SanType::DnsName("Models.Example".try_into().unwrap()),
            SanType::DnsName("*.models.example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::URI("spiffe://cluster/ns/a/sa/b".try_into().unwrap()),
            SanType::Rfc822Name("ops@models.example".try_into().unwrap()),
        ];
    });
    let read = Certificate::read(&der).expect("is read");
    assert_eq!(read.subject, "CN=\\ scoring \\C3\\A9#,O=Models\\, Inc.,C=DE");
    assert_eq!((seconds(read.not_before), seconds(read.not_after)), (1_709_164_800, 2_561_241_600));
    assert_eq!(read.dns_names, ["models.example", "*.models.example"]);
    assert_eq!((read.uris.len(), read.emails[0].as_str()), (1, "ops@models.example"));
    assert_eq!(read.identity(), "spiffe://cluster/ns/a/sa/b");
}

#[test]
fn the_identity_is_the_subject_where_there_are_no_other_names() {
    let der = made(|params| params.distinguished_name.push(DnType::CommonName, "client-7"));
    assert_eq!(Certificate::read(&der).expect("is read").identity(), "CN=client-7");
    let der = made(|params| params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())]);
    assert_eq!(Certificate::read(&der).expect("is read").identity(), "a.example");
}

#[test]
fn an_attribute_without_a_keyword_is_written_with_its_number() {
    let der = made(|params| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "42");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), "a@b");
    });
    let subject = Certificate::read(&der).expect("is read").subject;
    assert!(subject.contains("2.5.4.5=42") && subject.contains("1.2.840.113549.1.9.1=a@b"), "{subject}");
}

#[test]
fn a_truncated_certificate_is_none() {
    let der = made(|params| params.distinguished_name.push(DnType::CommonName, "a"));
    for length in 0..der.len() {
        assert_eq!(Certificate::read(&der[..length]), None, "{length} of {} bytes", der.len());
    }
}

#[test]
fn days_are_counted_as_the_calendar_has_them() {
    for (year, month, day, days) in [(1970, 1, 1, 0), (2000, 2, 29, 11_016), (2000, 3, 1, 11_017), (2100, 3, 1, 47_541)]
    {
        assert_eq!(days_since_1970(year, month, day), Some(days), "{year}-{month}-{day}");
    }
    assert_eq!(days_since_1970(1969, 12, 31), None);
    assert_eq!(days_since_1970(2000, 13, 1), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_fail_in_another_way_than_none(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let _ = Certificate::read(&bytes);
        thread_local!(static DER: Vec<u8> = made(|params| {
            params.distinguished_name.push(DnType::CommonName, "a");
            params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
        }));
        let mut der = DER.with(Clone::clone);
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Some(read) = Certificate::read(&der) {
            prop_assert!(read.identity().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{read:?}");
        }
    }
}
