//! Headers that are right, headers that are wrong, and what must hold for any bytes.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::{LENGTH_MAX, Reading, read};

fn whole(bytes: &[u8], client: Option<&str>) {
    let client = client.map(|client| client.parse().unwrap());
    assert_eq!(read(bytes), Reading::Whole { length: bytes.len(), client }, "{:?}", bytes.escape_ascii().to_string());
}

fn wrong(bytes: &[u8]) {
    assert!(matches!(read(bytes), Reading::Wrong(_)), "{:?} is {:?}", bytes.escape_ascii().to_string(), read(bytes));
}

fn line(client: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} 443\r\n", client.ip(), client.ip(), client.port()).into_bytes()
}

fn binary(version: u8, family: u8, fields: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([version, family]);
    header.extend(u16::try_from(fields.len()).unwrap().to_be_bytes());
    header.extend(fields);
    header
}

fn pair(client: SocketAddr) -> Vec<u8> {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [&ip[..], &ip[..], &client.port().to_be_bytes(), &443_u16.to_be_bytes()].concat()
}

#[test]
fn lines_of_version_1_are_read() {
    whole(b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n", Some("192.0.2.7:51000"));
    whole(b"PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", Some("[2001:db8::7]:0"));
    whole(b"PROXY UNKNOWN\r\n", None);
    whole(b"PROXY UNKNOWN ffff::1 anything at all\r\n", None);
}

#[test]
fn lines_that_can_be_read_in_two_ways_are_wrong() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 example 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY UNKNOWN\n",
        "proxy UNKNOWN\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\r\nPROXY UNKNOWN\r\n",
    ] {
        wrong(line.as_bytes());
    }
}

#[test]
fn a_line_has_at_most_107_bytes() {
    let long = |n: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(n - 16));
    whole(long(107).as_bytes(), None);
    wrong(long(108).as_bytes());
    assert_eq!(read(&long(108).as_bytes()[..106]), Reading::More);
}

#[test]
fn headers_of_version_2_are_read() {
    let (four, six): (SocketAddr, SocketAddr) =
        ("192.0.2.7:51000".parse().unwrap(), "[2001:db8::7]:9".parse().unwrap());
    whole(&binary(0x21, 0x11, &pair(four)), Some("192.0.2.7:51000"));
    whole(&binary(0x21, 0x21, &pair(six)), Some("[2001:db8::7]:9"));
    let with_fields = [pair(four), vec![0xEA; 300]].concat();
    whole(&binary(0x21, 0x11, &with_fields), Some("192.0.2.7:51000"));
    whole(&binary(0x20, 0x11, &pair(four)), None);
    whole(&binary(0x20, 0x00, &[]), None);
    whole(&binary(0x21, 0x00, b"whatever"), None);
    whole(&binary(0x21, 0x31, &[0; 216]), None);
    whole(&binary(0x20, 0x00, &[0; 4096]), None);
}

#[test]
fn headers_of_version_2_that_are_wrong_are_refused() {
    wrong(&binary(0x11, 0x11, &[0; 12]));
    wrong(&binary(0x22, 0x11, &[0; 12]));
    wrong(&binary(0x21, 0x11, &[0; 11]));
    wrong(&binary(0x21, 0x21, &[0; 35]));
    wrong(&binary(0x21, 0x41, &[0; 35]));
    wrong(&binary(0x21, 0x13, &[0; 35]));
    // As soon as the length is known.
    wrong(&binary(0x21, 0x11, &[0; 4097])[..16]);
    wrong(b"\r\n\r\n\0\r\nQUIX");
}

fn clients() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_back_whatever_follows(
        client in clients(),
        rest in prop::collection::vec(any::<u8>(), 0..40),
        is_line in any::<bool>(),
    ) {
        let family = if client.is_ipv4() { 0x11 } else { 0x21 };
        let header = if is_line { line(client) } else { binary(0x21, family, &pair(client)) };
        let all = [&header[..], &rest].concat();
        prop_assert_eq!(read(&all), Reading::Whole { length: header.len(), client: Some(client) });
        for end in 0..header.len() {
            prop_assert_eq!(read(&header[..end]), Reading::More);
        }
    }

    #[test]
    fn no_bytes_do_harm_and_more_bytes_change_no_verdict(
        start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21"]),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [start, &tail].concat();
        let mut verdict = Reading::More;
        for end in 0..=bytes.len() {
            let next = read(&bytes[..end]);
            match verdict {
                Reading::More => verdict = next,
                Reading::Whole { .. } => prop_assert_eq!(next, verdict),
                Reading::Wrong(_) => prop_assert!(matches!(next, Reading::Wrong(_))),
            }
            if let Reading::Whole { length, .. } = next {
                prop_assert!(length <= end && length <= LENGTH_MAX);
            }
        }
    }
}
