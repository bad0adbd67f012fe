//! Heads as they should be, as they should not, and cut anywhere.

use http::Method;
use http::header::SERVER;
use proptest::prelude::*;

use super::*;
use crate::data::upstream::tests::cut;

const MAX: usize = 4096;

fn expected(method: &Method) -> Expected {
    Expected { is_bodiless: *method == Method::HEAD, bytes_max: MAX, as_lines: false }
}

/// Reads these pieces. What comes of it: the head with its headers and what came behind it, nothing, or a flaw.
fn read(pieces: &[&[u8]], method: &Method) -> Result<Option<(Head, HeaderMap, Vec<u8>)>, HeadFlaw> {
    let read = read_as(pieces, expected(method))?;
    Ok(read.map(|(head, headers, rest)| {
        assert!(headers.lines.is_none());
        (head, headers.map, rest)
    }))
}

fn read_as(pieces: &[&[u8]], expected: Expected) -> Result<Option<(Head, Headers, Vec<u8>)>, HeadFlaw> {
    let (mut reader, mut headers) = (HeadReader::default(), Headers::default());
    // What is left of the request is not the answer's.
    headers.map.insert(SERVER, HeaderValue::from_static("of the request"));
    let mut pieces = pieces.iter();
    for piece in pieces.by_ref() {
        if let Some((head, rest)) = reader.push(Bytes::copy_from_slice(piece), expected, &mut headers)? {
            let rest = pieces.fold(rest.to_vec(), |rest, piece| [&rest, *piece].concat());
            return Ok(Some((head, headers, rest)));
        }
    }
    Ok(None)
}

/// The same as lines, where that will do.
fn read_as_lines(pieces: &[&[u8]]) -> Result<Option<(Head, Headers, Vec<u8>)>, HeadFlaw> {
    read_as(pieces, Expected { as_lines: true, ..expected(&Method::POST) })
}

fn read_one(text: &str) -> Result<Option<(Head, HeaderMap, Vec<u8>)>, HeadFlaw> {
    read(&[text.as_bytes()], &Method::POST)
}

#[test]
fn each_head_is_framed_in_one_way() {
    use Framing::*;
    for (method, text, framing, keeps_alive) in [
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), true),
        (Method::POST, "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\n", Length(5), true),
        (Method::POST, "HTTP/1.1 200 \r\ncontent-length:5\r\n\r\n", Length(5), true),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n", Length(5), true),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Nothing, true),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", Length(5), false),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n", Length(5), false),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Length(5), true),
        (Method::POST, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Length(5), false),
        (Method::POST, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Chunked, true),
        (Method::POST, "HTTP/1.1 200 OK\r\nTransfer-Encoding:  CHUNKED \r\n\r\n", Chunked, true),
        (Method::POST, "HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
        (Method::POST, "HTTP/1.1 204 No Content\r\n\r\n", Nothing, true),
        (Method::POST, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Nothing, true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Nothing, true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Nothing, true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\n\r\n", Nothing, true),
        (Method::GET, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Nothing, true),
    ] {
        let (head, headers, rest) = read(&[text.as_bytes()], &method).unwrap().unwrap();
        assert_eq!((head.framing, head.keeps_alive), (framing, keeps_alive), "{text:?}");
        assert!(!headers.contains_key(SERVER) && rest.is_empty(), "{text:?}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_no_head() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX + 1);
    for (what, text) in [
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("another version", "HTTP/2.0 200 OK\r\n\r\n"),
        ("an empty line before", "\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"),
        ("a status below all", "HTTP/1.1 099 OK\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n"),
        ("two in a list", "HTTP/1.1 200 OK\r\nContent-Length: 2, 5\r\n\r\n"),
        ("half a list", "HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\n"),
        ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n"),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n"),
        ("a length too long", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        ("a bad length without a body", "HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n"),
        ("a length beside chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("the same turned round", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
        ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a folded line", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n"),
        ("a zero byte", "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n"),
        ("a delete", "HTTP/1.1 200 OK\r\nA: b\x7f\r\n\r\n"),
        ("a bare CR in a value", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"),
        ("a bare LF behind the status", "HTTP/1.1 200 OK\nA: b\r\n\r\n"),
        ("a bare LF behind a status without a reason", "HTTP/1.1 200\nA: b\r\n\r\n"),
        ("a bare LF behind a value", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n"),
        ("a bare LF behind the last value", "HTTP/1.1 200 OK\r\nA: b\n\r\n"),
        ("a bare LF at the end", "HTTP/1.1 200 OK\r\nA: b\r\n\n"),
        ("bare LFs alone", "HTTP/1.1 200 OK\n\n"),
        ("a bad interim answer", "HTTP/1.1 100 Continue\r\nContent-Length: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("interim answers without end", &interim),
    ] {
        assert!(matches!(read_one(text), Err(HeadFlaw::Malformed(_))), "{what}: {:?}", read_one(text));
    }
    for text in [&many, &long] {
        assert_eq!(read_one(text), Err(HeadFlaw::TooLarge), "{text}");
    }
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked", "x\r\nA: b"] {
        for start in ["HTTP/1.1 200 OK", "HTTP/1.1 204 No Content"] {
            let text = format!("{start}\r\nTransfer-Encoding: {coding}\r\n\r\n");
            assert_eq!(read_one(&text), Err(HeadFlaw::TransferCoding), "{text}");
        }
    }
}

#[test]
fn a_head_without_an_end_is_given_up_at_the_limit_whatever_the_pieces() {
    let start = "HTTP/1.1 200 OK\r\nA: ";
    for size in [1, 7, 1000, MAX + 1] {
        let (mut reader, mut headers) = (HeadReader::default(), Headers::default());
        let mut push = |bytes: &[u8]| {
            reader.push(Bytes::copy_from_slice(bytes), expected(&Method::GET), &mut headers).map(|head| head.is_some())
        };
        assert_eq!(push(start.as_bytes()), Ok(false));
        let mut pushed = start.len();
        let end = loop {
            pushed += size;
            match push(&vec![b'b'; size]) {
                Ok(is_whole) => assert!(!is_whole),
                Err(flaw) => break flaw,
            }
        };
        assert_eq!(end, HeadFlaw::TooLarge);
        assert!(pushed > MAX && pushed <= MAX + size, "{pushed} by {size}");
    }
}

#[test]
fn interim_answers_are_passed_over_and_leave_nothing() {
    let text =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
    let (head, headers, rest) = read_one(text).unwrap().unwrap();
    assert_eq!((head.status.as_u16(), headers.len(), &headers["a"]), (200, 1, &HeaderValue::from_static("b")));
    assert_eq!(rest, b"body");
    assert_eq!(read_one("HTTP/1.1 100 Continue\r\n\r\n"), Ok(None));
}

#[test]
fn lines_are_what_is_for_the_client_and_the_date_is_for_hyper() {
    let text = "HTTP/1.1 200 OK\r\nServer: a\r\nDate: today\r\nContent-Length: 2\r\nX-Two:  b \r\nConnection: Keep-Alive\r\n\
                Keep-Alive: timeout=5\r\nX-Request-Id: theirs\r\nx-two: c:d\r\nX-Empty:\r\n\r\n";
    let (head, headers, _) = read_as_lines(&[text.as_bytes()]).unwrap().unwrap();
    assert_eq!((head.framing, head.keeps_alive), (Framing::Length(2), true));
    let lines = headers.lines.unwrap();
    assert_eq!(std::str::from_utf8(lines.bytes()).unwrap(), "server: a\r\nx-two: b\r\nx-two: c:d\r\nx-empty: \r\n");
    assert_eq!((headers.map.len(), &headers.map["date"]), (1, &HeaderValue::from_static("today")));
    let mut map = HeaderMap::new();
    lines.read_into(&mut map);
    let all: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(all, [("server", "a"), ("x-two", "b"), ("x-two", "c:d"), ("x-empty", "")]);
}

#[test]
fn what_the_rules_have_more_to_say_about_is_left_to_the_map() {
    for odd in [
        "500 Oh\r\nA: b",
        "204 No Content\r\nA: b",
        "304 Not Modified\r\nA: b",
        "101 Switching Protocols\r\nA: b",
        "200 OK\r\nConnection: close, X-Own\r\nX-Own: a",
        "200 OK\r\nConnection: X-Own\r\nX-Own: a",
        "200 OK\r\nConnection: close\r\nClose: a",
        "200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked",
        "200 OK\r\nUpgrade: h2c",
        "200 OK\r\nTE: trailers",
        "200 OK\r\nHTTP2-Settings: a",
    ] {
        let text = format!("HTTP/1.1 {odd}\r\nDate: today\r\n\r\n");
        let (head, headers, rest) = read_as_lines(&[text.as_bytes()]).unwrap().unwrap();
        assert!(headers.lines.is_none(), "{text}");
        assert_eq!((head, headers.map, rest), read_one(&text).unwrap().unwrap(), "{text}");
    }
}

#[test]
fn as_lines_the_same_bytes_are_taken_and_none_ends_a_line() {
    for byte in 0..=u8::MAX {
        for text in
            [[b"A", &[byte][..], b"a: b"].concat(), [b"A: b", &[byte][..], b"b"].concat(), vec![b'A', b':', byte]]
        {
            let text = [b"HTTP/1.1 200 OK\r\n", &*text, b"\r\nContent-Length: 0\r\n\r\n"].concat();
            let (map, lines) = (read(&[&text], &Method::POST), read_as_lines(&[&text]));
            match (map, lines) {
                (Ok(Some((_, map, _))), Ok(Some((_, headers, _)))) => {
                    let mut read = HeaderMap::new();
                    headers.lines.unwrap().read_into(&mut read);
                    read.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                    assert_eq!(map, read, "{}", text.escape_ascii());
                }
                (map, lines) => assert_eq!(map.unwrap_err(), lines.unwrap_err(), "{}", text.escape_ascii()),
            }
        }
    }
}

/// Lines as models write them, and as they should not.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "Content-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 6",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Connection: keep-alive, X-Model",
        "Keep-Alive: timeout=5",
        "Date: today",
        "Trailer: x-sum",
        "X-Request-Id: theirs",
        "azureml-model-deployment: theirs",
        "X-Model: iris",
        "X-Odd: \u{e4}\t",
        "X-Empty:",
        " folded",
        "no colon",
        "",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", ""]);
    let status = prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 204 No Content",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 20",
        "SSH-2.0",
    ]);
    let head = (status, end.clone(), prop::collection::vec((line, end), 0..6));
    prop::collection::vec(head, 1..4).prop_map(|heads| {
        let mut text = String::new();
        for (status, end, lines) in heads {
            text += status;
            text += end;
            lines.iter().for_each(|(line, end)| text = format!("{text}{line}{end}"));
            text += "\r\n";
        }
        text.into_bytes()
    })
}

proptest! {
    #[test]
    fn the_pieces_in_which_a_head_comes_do_not_matter(text in text(), cuts in any::<Vec<prop::sample::Index>>()) {
        // With an end, so that in pieces it is not waited for.
        let bytes = [&text, &b"\r\n\r\n"[..]].concat();
        let (one, some) = (read(&[&bytes], &Method::POST), read(&cut(&bytes, &cuts), &Method::POST));
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        let each = read(&each, &Method::POST);
        prop_assert_eq!(one.is_err(), some.is_err(), "{:?} {:?}", &one, &some);
        prop_assert_eq!(one.is_err(), each.is_err(), "{:?} {:?}", &one, &each);
        // As lines too, and then as well.
        let cut = cut(&bytes, &cuts);
        for (map, lines) in [(&one, read_as_lines(&[&bytes])), (&some, read_as_lines(&cut))] {
            match (map, lines) {
                (Ok(Some((head, map, rest))), Ok(Some((other, headers, other_rest)))) => {
                    prop_assert_eq!((head, rest), (&other, &other_rest));
                    let mut headers_read = headers.map;
                    let Some(lines) = headers.lines else {
                        prop_assert_eq!(map, &headers_read);
                        continue;
                    };
                    lines.read_into(&mut headers_read);
                    let mut passed = map.clone();
                    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
                        passed.remove(name);
                    }
                    for name in ["keep-alive", "x-request-id", "azureml-model-deployment"] {
                        passed.remove(name);
                    }
                    prop_assert_eq!(&passed, &headers_read);
                }
                (Err(flaw), Err(other)) => prop_assert_eq!(*flaw, other),
                (one, lines) => prop_assert!(matches!((one, &lines), (Ok(None), Ok(None))), "{:?} {:?}", one, lines),
            }
        }
        if let (Ok(one), Ok(some), Ok(each)) = (one, some, each) {
            prop_assert_eq!(&one, &some);
            prop_assert_eq!(&one, &each);
        }
    }

    #[test]
    fn any_bytes_are_a_head_or_none(bytes in any::<Vec<u8>>()) {
        let bytes = [b"HTTP/1.1 200 ", &bytes[..]].concat();
        let _ = read(&[&bytes], &Method::GET);
    }
}
