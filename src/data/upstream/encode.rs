//! What a replica is sent, as bytes: the head of a request, the framing of its body, trailers.
//!
//! Does not: read, write, or know of connections.

use http::header::{self, CONTENT_LENGTH, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{Method, Uri};

/// A request without its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
}

/// How the body of a request is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So much is still to be sent.
    Length(u64),
    /// In chunks, with these trailers if they come.
    Chunked(Vec<HeaderName>),
}

impl RequestHead {
    /// Writes it. `length` is that of the body, where it is known. What the headers say of the framing is not taken at
    /// their word: it is written from what will be done, once.
    pub(super) fn write(&self, length: Option<u64>, out: &mut Vec<u8>) -> Sent {
        let target = self.target.path_and_query().map_or("/", |target| target.as_str());
        for part in [self.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let (mut has_length, mut has_coding, mut names) = (false, false, Vec::new());
        for (name, value) in &self.headers {
            if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
                has_length |= *name == CONTENT_LENGTH;
                has_coding |= *name == TRANSFER_ENCODING;
                continue;
            }
            if *name == TRAILER {
                let listed = value.to_str().unwrap_or_default().split(',');
                names.extend(listed.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()));
            }
            write_line(name, value.as_bytes(), out);
        }
        let sent = match length {
            Some(length) if !has_coding => {
                if has_length || length > 0 {
                    write_line(&CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes(), out);
                }
                Sent::Length(length)
            }
            _ => {
                write_line(&TRANSFER_ENCODING, b"chunked", out);
                Sent::Chunked(names)
            }
        };
        out.extend_from_slice(b"\r\n");
        sent
    }
}

fn write_line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What stands before the data of a chunk.
pub(super) fn write_size(size: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().filter_map(|at| b"0123456789abcdef".get((size >> (4 * at)) & 15)));
    out.extend_from_slice(b"\r\n");
}

/// What ends a chunked body, with those of the trailers that the head has named and that do not change the message.
pub(super) fn write_end(trailers: &HeaderMap, named: &[HeaderName], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if named.contains(name) && !changes_message(name) {
            write_line(name, value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What must not come behind a body (RFC 9110, section 6.5.1).
fn changes_message(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::EXPECT
            | header::HOST
            | header::MAX_FORWARDS
            | header::PROXY_AUTHORIZATION
            | header::SET_COOKIE
            | header::TE
            | TRAILER
            | TRANSFER_ENCODING
            | header::UPGRADE
    )
}

#[cfg(test)]
#[path = "encode/tests.rs"]
mod tests;
