//! Answers of replicas, as bytes: heads, and bodies out of their framing.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};

use crate::data::upstream::decode::Decoder;
use crate::data::upstream::head::{Expected, Framing, Head, HeadReader};

/// Bytes of a head.
const HEAD_MAX: usize = 1024;

/// An answer that was taken.
#[derive(Debug, PartialEq)]
struct Taken {
    head: Head,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// What came behind it.
    rest: Vec<u8>,
}

/// An answer means the same in whatever pieces it comes, has one framing, and nothing of it is lost.
pub(super) fn answer(bytes: &[u8]) {
    let Some((&[method, size], rest)) = bytes.split_first_chunk::<2>() else { return };
    let method = if method == b'H' { Method::HEAD } else { Method::POST };
    // In pieces, a head without an end would be waited for.
    let bytes = [rest, b"\r\n\r\n"].concat();
    let taken = read(&[&bytes], &method);
    for size in [1, usize::from(size).max(1)] {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(taken, read(&pieces, &method), "in pieces of {size}: {}", bytes.escape_ascii());
    }
    let Some(taken) = taken else { return };
    let count = |name| taken.headers.get_all(name).iter().count();
    assert!(count(TRANSFER_ENCODING) <= 1, "{taken:?}");
    assert!(count(TRANSFER_ENCODING) == 0 || count(CONTENT_LENGTH) == 0, "{taken:?}");
    match taken.head.framing {
        Framing::Nothing => assert!(taken.body.is_empty(), "{taken:?}"),
        Framing::Length(length) => assert_eq!(taken.body.len() as u64, length, "{taken:?}"),
        Framing::Chunked => assert_eq!(count(TRANSFER_ENCODING), 1, "{taken:?}"),
        Framing::UntilClose => assert!(taken.rest.is_empty() && !taken.head.keeps_alive, "{taken:?}"),
    }
    if taken.head.framing != Framing::Chunked {
        let end = [&taken.body[..], &taken.rest].concat();
        let head = bytes.strip_suffix(&end[..]).expect("body and rest are the end of what came");
        let lines = head.windows(2).filter(|pair| pair[1] == b'\n');
        assert!(lines.into_iter().all(|pair| pair[0] == b'\r') && head.ends_with(b"\r\n\r\n"), "{taken:?}");
    }
    let is_over = !taken.head.status.is_informational() || taken.head.status == StatusCode::SWITCHING_PROTOCOLS;
    assert!(is_over, "an interim answer is none: {taken:?}");
}

/// `None` where it is refused, or breaks off.
fn read(pieces: &[&[u8]], method: &Method) -> Option<Taken> {
    let expected = Expected { is_bodiless: *method == Method::HEAD, bytes_max: HEAD_MAX };
    let (mut reader, mut headers, mut pieces) = (HeadReader::default(), HeaderMap::new(), pieces.iter());
    let (head, mut input) = loop {
        let piece = Bytes::copy_from_slice(pieces.next()?);
        if let Some(whole) = reader.push(piece, expected, &mut headers).ok()? {
            break whole;
        }
    };
    let (mut decoder, mut body, mut rest) = (Decoder::new(head.framing), Vec::new(), Vec::new());
    loop {
        while let Some(piece) = decoder.next(&mut input).ok()? {
            body.extend_from_slice(&piece);
        }
        assert!(input.is_empty() || decoder.is_over());
        rest.extend_from_slice(&input);
        let Some(piece) = pieces.next() else { break };
        input = Bytes::copy_from_slice(piece);
    }
    decoder.end().ok()?;
    let trailers = decoder.take_trailers();
    Some(Taken { head, headers, body, trailers, rest })
}
