//! What a replica is sent, as bytes: the head of a request, the framing of its body, trailers.
//!
//! Does not: read, write, or know of connections.

use http::header::{self, CONTENT_LENGTH, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{Method, Uri};

use super::text::{Text, write_line};

/// A request without its body, as it is written to whichever replica it goes to, but for the framing of the body.
///
/// Text from the start: what the router adds is written once and never looked up, and the map of the client's headers is
/// free as soon as they are written, while it is still in the caches.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestHead {
    /// The first line and those of the headers.
    text: Text,
    /// Whether the headers announced a length of the body.
    has_length: bool,
    /// Whether they announced chunks.
    has_coding: bool,
    /// Whether there is no body in the answer, whatever that says.
    is_head: bool,
    /// Whether the head of the answer is wanted as lines, where that will do.
    takes_lines: bool,
    /// The trailers that they announced.
    trailers: Vec<HeaderName>,
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
    /// With its first line, and no headers yet.
    pub(crate) fn new(method: &Method, target: &Uri) -> Self {
        let mut text = Text::new();
        let target = target.path_and_query().map_or("/", |target| target.as_str());
        for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            text.push(part.as_bytes());
        }
        Self { text, is_head: *method == Method::HEAD, ..Self::default() }
    }

    /// Asks for the head of the answer as lines, where that will do.
    pub(crate) fn take_lines(&mut self) {
        // What is said of a body that does not come, hyper has to be told.
        self.takes_lines = !self.is_head;
    }

    /// Whether it is asked for so.
    pub(super) fn takes_lines(&self) -> bool {
        self.takes_lines
    }

    /// Whether there is no body in the answer, whatever that says.
    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Makes room for so many bytes of headers, and for the few that the router adds: a long text that grew by doubling would
    /// hold twice what it needs for as long as its request waits in line.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.text.reserve_for(bytes);
    }

    /// Adds a header that has nothing to do with the framing of the body.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &[u8]) {
        self.text.add(name, value);
    }

    /// Adds headers. What they say of the framing is not taken at their word: it is written from what will be done, once.
    pub(crate) fn add_all(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
                self.has_length |= *name == CONTENT_LENGTH;
                self.has_coding |= *name == TRANSFER_ENCODING;
                continue;
            }
            if *name == TRAILER {
                let listed = value.to_str().unwrap_or_default().split(',');
                self.trailers.extend(listed.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()));
            }
            self.add(name, value.as_bytes());
        }
    }

    /// Writes it. `length` is that of the body, where it is known.
    pub(super) fn write(&self, length: Option<u64>, out: &mut Vec<u8>) -> Sent {
        out.extend_from_slice(self.text.bytes());
        let sent = match length {
            Some(length) if !self.has_coding => {
                if self.has_length || length > 0 {
                    write_line(&CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes(), out);
                }
                Sent::Length(length)
            }
            _ => {
                write_line(&TRANSFER_ENCODING, b"chunked", out);
                Sent::Chunked(self.trailers.clone())
            }
        };
        out.extend_from_slice(b"\r\n");
        sent
    }

    /// The headers that a replica reads of it, where the body has this length; `None` where it cannot.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn read(&self, length: u64) -> Option<HeaderMap> {
        let mut text = Vec::new();
        self.write(Some(length), &mut text);
        let lines = text.split(|byte| *byte == b'\n').skip(1).filter_map(|line| line.strip_suffix(b"\r"));
        let header = |line: &[u8]| {
            let at = line.windows(2).position(|sign| sign == b": ")?;
            let name = HeaderName::from_bytes(line.get(..at)?).ok()?;
            Some((name, http::HeaderValue::from_bytes(line.get(at + 2..)?).ok()?))
        };
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = header(line)?;
            headers.append(name, value);
        }
        Some(headers)
    }
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
