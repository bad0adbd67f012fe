//! Answers of replicas, as bytes: heads, and bodies out of their framing.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};

use crate::data::upstream::decode::Decoder;
use crate::data::upstream::head::{Expected, Framing, Head, HeadReader, Headers};

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
    let taken = read(&[&bytes], &method, false);
    assert_lines(taken.as_ref(), read(&[&bytes], &method, true));
    for size in [1, usize::from(size).max(1)] {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(taken, read(&pieces, &method, false), "in pieces of {size}: {}", bytes.escape_ascii());
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

/// Read as lines, an answer is the same, but for what is not for the client.
fn assert_lines(taken: Option<&Taken>, as_lines: Option<Taken>) {
    let (Some(taken), Some(as_lines)) = (taken, &as_lines) else {
        return assert!(taken.is_none() && as_lines.is_none(), "{taken:?} {as_lines:?}");
    };
    if as_lines.headers == taken.headers {
        return assert_eq!(taken, as_lines);
    }
    let mut map = taken.headers.clone();
    let own = ["x-request-id", "x-ms-request-id", "x-ms-client-request-id", "azureml-model-deployment"];
    let hop = ["keep-alive", "proxy-connection"];
    let left_out = own.into_iter().chain(hop).map(HeaderName::from_static);
    for name in left_out.chain([CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION]) {
        map.remove(&name);
    }
    assert_eq!(map, as_lines.headers);
    let (map, lines) = (taken, as_lines);
    assert_eq!(
        (map.head, &map.body, &map.trailers, &map.rest),
        (lines.head, &lines.body, &lines.trailers, &lines.rest)
    );
}

/// `None` where it is refused, or breaks off.
fn read(pieces: &[&[u8]], method: &Method, as_lines: bool) -> Option<Taken> {
    let expected = Expected { is_bodiless: *method == Method::HEAD, bytes_max: HEAD_MAX, as_lines };
    let (mut reader, mut headers, mut pieces) = (HeadReader::default(), Headers::default(), pieces.iter());
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
    let Headers { map: mut headers, lines } = headers;
    lines.into_iter().for_each(|lines| lines.read_into(&mut headers));
    Some(Taken { head, headers, body, trailers, rest })
}
