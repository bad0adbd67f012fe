//! The head of an answer: bytes in, and out how the body is framed, or what is wrong.
//!
//! Holds: a head is taken only if there is one way to read it. Each line ends with CR LF and with nothing else; there is
//!        one length, or chunks, never both; the result does not depend on the pieces in which the bytes came.
//! Does not: read, write, or know of connections.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use httparse::{ParserConfig, Status};

use super::text::Text;

mod lines;

/// As many headers as an answer, or its trailers, may have.
pub(super) const HEADERS_MAX: usize = 100;

/// As many interim answers (100, 103) as may come before the one that counts.
const INTERIM_MAX: usize = 16;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, or what follows is no HTTP.
    Nothing,
    /// By its length.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFlaw {
    /// It is over the limit, or has too many headers.
    TooLarge,
    /// It is no HTTP, or can be read in more than one way.
    Malformed(&'static str),
    /// It has a transfer coding that nobody would take off.
    TransferCoding,
}

/// A head, without its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) framing: Framing,
    /// Whether the connection can have another request.
    pub(crate) keeps_alive: bool,
    /// Bytes of it.
    length: usize,
}

/// What the reader of heads must be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Whether the request was a HEAD: its answer has no body, whatever it says.
    pub(crate) is_bodiless: bool,
    pub(crate) bytes_max: usize,
    /// Whether the headers are wanted as lines, where that will do.
    pub(crate) as_lines: bool,
}

/// Where the headers of an answer are.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    /// All of them; beside lines, only what hyper has to know.
    pub(crate) map: HeaderMap,
    /// The others, without what is not for the client.
    pub(crate) lines: Option<Text>,
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        Self { map, lines: None }
    }
}

/// Puts a head together from the pieces in which it comes.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// A head that is not whole yet; usually there is none.
    partial: BytesMut,
    interim: usize,
}

impl HeadReader {
    /// The next piece. Once the head is whole: it, and what came of the body; the headers are put where they are to be.
    pub(crate) fn push(
        &mut self,
        mut block: Bytes,
        expected: Expected,
        headers: &mut Headers,
    ) -> Result<Option<(Head, Bytes)>, HeadFlaw> {
        if !self.partial.is_empty() {
            let Some(joined) = self.join(&block, expected.bytes_max)? else { return Ok(None) };
            block = joined;
        }
        while !block.is_empty() {
            let Some(head) = parse(&block, expected, headers)? else {
                check_partial(&block, expected.bytes_max)?;
                self.partial = BytesMut::from(block);
                return Ok(None);
            };
            block.advance(head.length);
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some((head, block)));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(HeadFlaw::Malformed("too many interim answers"));
            }
        }
        Ok(None)
    }

    /// All bytes so far, once they can be a head: so that none is looked at again for each that comes.
    fn join(&mut self, block: &[u8], bytes_max: usize) -> Result<Option<Bytes>, HeadFlaw> {
        let before = self.partial.len();
        self.partial.extend_from_slice(block);
        let news = self.partial.get(before.saturating_sub(3)..).unwrap_or_default();
        if !news.windows(4).any(|end| end == b"\r\n\r\n") {
            check_partial(news, usize::MAX)?;
            return if self.partial.len() > bytes_max { Err(HeadFlaw::TooLarge) } else { Ok(None) };
        }
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }
}

/// A head that has no end yet may go on, as far as one can see.
fn check_partial(bytes: &[u8], bytes_max: usize) -> Result<(), HeadFlaw> {
    if bytes.windows(2).any(|pair| matches!(pair, [before, b'\n'] if *before != b'\r')) {
        return Err(BARE);
    }
    if bytes.len() > bytes_max { Err(HeadFlaw::TooLarge) } else { Ok(()) }
}

const BARE: HeadFlaw = HeadFlaw::Malformed("a line ends otherwise than with CR LF");
const STRANGE: HeadFlaw = HeadFlaw::Malformed("a header that cannot be");
const LENGTH: HeadFlaw = HeadFlaw::Malformed("a Content-Length that is none, or several");

/// The head that these bytes begin with, if they have its end.
fn parse(block: &Bytes, expected: Expected, headers: &mut Headers) -> Result<Option<Head>, HeadFlaw> {
    // The parser would skip empty lines.
    if block.first() != Some(&b'H') {
        return Err(HeadFlaw::Malformed("no status line"));
    }
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let length = match ParserConfig::default().parse_response_with_uninit_headers(&mut answer, block, &mut slots) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadFlaw::TooLarge),
        Err(error) => return Err(HeadFlaw::Malformed(word(error))),
    };
    if length > expected.bytes_max {
        return Err(HeadFlaw::TooLarge);
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(HeadFlaw::Malformed("no status"))?;
    let is_new = answer.version == Some(1);
    let lines = &*answer.headers;
    if lines.iter().any(|line| !follows_line_end(block, line.name))
        || block.get(length.saturating_sub(4)..length) != Some(b"\r\n\r\n")
    {
        return Err(BARE);
    }
    headers.map.clear();
    headers.lines = None;
    let plain = if expected.as_lines { lines::write(block, length, status, lines, headers) } else { None };
    let framed = plain.map_or_else(|| fill(block, lines, &mut headers.map), Ok)?;
    let framing = framed.judge(status, is_new, expected)?;
    let keeps_alive = is_new && !framed.closes && framing != Framing::UntilClose;
    Ok(Some(Head { status, framing, keeps_alive, length }))
}

/// Puts all of them into the map.
fn fill(block: &Bytes, lines: &[httparse::Header<'_>], map: &mut HeaderMap) -> Result<Framed, HeadFlaw> {
    map.clear();
    map.reserve(lines.len());
    let mut framed = Framed::default();
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| STRANGE)?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(line.value)).map_err(|_| STRANGE)?;
        match name {
            CONTENT_LENGTH => framed.note_length(line.value)?,
            TRANSFER_ENCODING => framed.note_coding(line.value),
            CONNECTION => framed.note_connection(line.value),
            _ => {}
        }
        map.append(name, value);
    }
    Ok(framed)
}

/// Whether the line before the one that begins with this name, which is a part of the block, ends with CR LF.
fn follows_line_end(block: &[u8], name: &str) -> bool {
    let at = (name.as_ptr() as usize).wrapping_sub(block.as_ptr() as usize);
    block.get(at.wrapping_sub(2)..at) == Some(b"\r\n")
}

fn word(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::Version => "no status line of HTTP/1",
        httparse::Error::Status => "no status",
        httparse::Error::HeaderName => "a header name that is none",
        httparse::Error::HeaderValue => "a header value that is none",
        httparse::Error::NewLine => "a line that does not end",
        _ => "no head",
    }
}

/// What the headers say of the framing.
#[derive(Debug, Default)]
struct Framed {
    length: Option<u64>,
    chunked: bool,
    other_coding: bool,
    closes: bool,
}

impl Framed {
    fn note_length(&mut self, value: &[u8]) -> Result<(), HeadFlaw> {
        // A list of equal ones is one (RFC 9110, section 8.6).
        for length in value.split(|byte| *byte == b',') {
            let length = number(length.trim_ascii()).ok_or(LENGTH)?;
            if self.length.replace(length).is_some_and(|other| other != length) {
                return Err(LENGTH);
            }
        }
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) {
        let is_chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        self.other_coding |= !is_chunked || self.chunked;
        self.chunked = true;
    }

    fn note_connection(&mut self, value: &[u8]) {
        self.closes |= asks_to_close(value);
    }

    fn judge(&self, status: StatusCode, is_new: bool, expected: Expected) -> Result<Framing, HeadFlaw> {
        if self.other_coding {
            return Err(HeadFlaw::TransferCoding);
        }
        if self.chunked && !is_new {
            return Err(HeadFlaw::Malformed("a Transfer-Encoding in HTTP/1.0"));
        }
        if self.chunked && self.length.is_some() {
            return Err(HeadFlaw::Malformed("a Content-Length beside a Transfer-Encoding"));
        }
        let is_bodiless = expected.is_bodiless || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        Ok(match self.length {
            _ if is_bodiless => Framing::Nothing,
            Some(0) => Framing::Nothing,
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::UntilClose,
        })
    }
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Whether the replica closes the connection after this answer.
fn asks_to_close(connection: &[u8]) -> bool {
    match connection {
        b"close" => true,
        b"keep-alive" => false,
        others => others.windows(5).any(|word| word.eq_ignore_ascii_case(b"close")),
    }
}

#[cfg(test)]
#[path = "head/tests.rs"]
mod tests;
