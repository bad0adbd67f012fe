//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says first, of whom they come from.
//!
//! Pure: bytes in, what they are out. The data plane reads a header before anything else and only from peers whose word
//! counts. Holds: a header ends at one byte and no other, however its bytes arrive, and no header is longer than
//! [`LENGTH_MAX`]; what is longer, or no header, is known to be wrong as soon as it can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header: version 2 with the most additional fields that are accepted.
pub const LENGTH_MAX: usize = HEAD + FIELDS_MAX;

const FIELDS_MAX: usize = 4096;
const LINE_MAX: usize = 107;
const HEAD: usize = 16;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";

/// What some bytes are, as the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The beginning of a header.
    More,
    /// A header of `length` bytes.
    Whole {
        /// Where the client's own bytes begin.
        length: usize,
        /// Who the client is; `None` where it is the peer itself, or nobody knows.
        client: Option<SocketAddr>,
    },
    /// No header; says why.
    Wrong(&'static str),
}

/// Reads a header at the beginning of `bytes`.
pub fn read(bytes: &[u8]) -> Reading {
    if agree(bytes, SIGNATURE) {
        return read_binary(bytes);
    }
    if !agree(bytes, WORD) {
        return Reading::Wrong("it does not begin with a header");
    }
    let line = bytes.get(..LINE_MAX).unwrap_or(bytes);
    match line.iter().position(|&byte| byte == b'\n') {
        Some(end) => read_line(line.get(..end).unwrap_or_default(), end + 1),
        None if line.len() == LINE_MAX => Reading::Wrong("the line has no end within 107 bytes"),
        None => Reading::More,
    }
}

/// Whether one is the beginning of the other.
fn agree(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

/// Version 1: a line, here without its `\n`.
fn read_line(line: &[u8], length: usize) -> Reading {
    let line = line.strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line else { return Reading::Wrong("the line does not end with CR LF, or is no text") };
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Reading::Whole { length, client: None };
    }
    let words: Vec<&str> = words.take(5).collect();
    let &[source, target, source_port, target_port] = words.as_slice() else {
        return Reading::Wrong("the line does not have two addresses and two ports");
    };
    let ips = match family {
        Some("TCP4") => source.parse().ok().zip(target.parse().ok()).map(|(s, _): (Ipv4Addr, Ipv4Addr)| s.into()),
        Some("TCP6") => source.parse().ok().zip(target.parse().ok()).map(|(s, _): (Ipv6Addr, Ipv6Addr)| s.into()),
        _ => return Reading::Wrong("the protocol is none of TCP4, TCP6 and UNKNOWN"),
    };
    let ports = read_port(source_port).zip(read_port(target_port));
    match (ips, ports) {
        (Some(ip), Some((port, _))) => Reading::Whole { length, client: Some(SocketAddr::new(ip, port)) },
        (None, _) => Reading::Wrong("an address is none of its protocol"),
        (_, None) => Reading::Wrong("a port is no number from 0 to 65535"),
    }
}

/// As the protocol has it: digits only, and no zero before others.
fn read_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Version 2: signature, version and command, family, length, addresses, and fields that do not matter here.
fn read_binary(bytes: &[u8]) -> Reading {
    let version = bytes.get(12).copied();
    if version.is_some_and(|version| version >> 4 != 2) {
        return Reading::Wrong("the version is not 2");
    }
    if version.is_some_and(|version| version & 0xf > 1) {
        return Reading::Wrong("the command is neither LOCAL nor PROXY");
    }
    let (Some(version), Some(&family), Some(&[high, low])) = (version, bytes.get(13), bytes.get(14..16)) else {
        return Reading::More;
    };
    let fields = usize::from(u16::from_be_bytes([high, low]));
    if fields > FIELDS_MAX {
        return Reading::Wrong("the header is longer than 4096 bytes");
    }
    let length = HEAD + fields;
    let Some(fields) = bytes.get(HEAD..length) else { return Reading::More };
    if version & 0xf == 0 {
        return Reading::Whole { length, client: None };
    }
    let client = match family {
        0x11 => read_pair::<4>(fields).map(Some),
        0x21 => read_pair::<16>(fields).map(Some),
        // Unspecified, or a way that has no IP address or port of a stream.
        _ if family >> 4 <= 3 && family & 0xf <= 2 => Some(None),
        _ => return Reading::Wrong("the address family is not known"),
    };
    match client {
        Some(client) => Reading::Whole { length, client },
        None => Reading::Wrong("the header is too short for its addresses"),
    }
}

/// The first of two addresses of `N` bytes, with the first of the two ports behind them.
fn read_pair<const N: usize>(fields: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let source: [u8; N] = fields.get(..N)?.try_into().ok()?;
    let ports: [u8; 4] = fields.get(2 * N..2 * N + 4)?.try_into().ok()?;
    let [high, low, ..] = ports;
    Some(SocketAddr::new(source.into(), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests;
