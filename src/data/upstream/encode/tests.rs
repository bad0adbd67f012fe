//! One framing, and what is written of it.

use http::HeaderValue;

use super::*;
use crate::data::upstream::text::OWN_BYTES;

fn head(method: Method, headers: &[(&str, &str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let mut head = RequestHead::new(&method, &Uri::from_static("/score?a=b"));
    head.add_all(&map);
    head
}

fn written(head: &RequestHead, length: Option<u64>) -> (String, Sent) {
    let mut out = Vec::new();
    let sent = head.write(length, &mut out);
    (String::from_utf8(out).unwrap(), sent)
}

#[test]
fn the_framing_that_is_announced_is_the_one_that_is_used_and_there_is_one() {
    for (headers, length, framing, sent) in [
        (&[("content-length", "5")][..], Some(5), "content-length: 5\r\n", Sent::Length(5)),
        (&[("content-length", "5"), ("content-length", "5")], Some(5), "content-length: 5\r\n", Sent::Length(5)),
        (&[("content-length", "0")], Some(0), "content-length: 0\r\n", Sent::Length(0)),
        (&[], Some(0), "", Sent::Length(0)),
        (&[], Some(5), "content-length: 5\r\n", Sent::Length(5)),
        (&[], None, "transfer-encoding: chunked\r\n", Sent::Chunked(vec![])),
        (&[("content-length", "5")], None, "transfer-encoding: chunked\r\n", Sent::Chunked(vec![])),
        (&[("transfer-encoding", "chunked")], Some(5), "transfer-encoding: chunked\r\n", Sent::Chunked(vec![])),
        (
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
            Some(5),
            "transfer-encoding: chunked\r\n",
            Sent::Chunked(vec![]),
        ),
    ] {
        let head = head(Method::POST, headers);
        let text = format!("POST /score?a=b HTTP/1.1\r\n{framing}\r\n");
        assert_eq!(written(&head, length), (text, sent), "{headers:?} {length:?}");
    }
}

#[test]
fn headers_go_out_as_they_are_and_trailers_only_where_they_were_named() {
    let head =
        head(Method::GET, &[("x", "a"), ("trailer", "X-Sum, Host"), ("x", "b"), ("transfer-encoding", "chunked")]);
    let (text, sent) = written(&head, None);
    let lines = "x: a\r\nx: b\r\ntrailer: X-Sum, Host\r\ntransfer-encoding: chunked\r\n";
    assert_eq!(text, format!("GET /score?a=b HTTP/1.1\r\n{lines}\r\n"));
    let Sent::Chunked(named) = sent else { panic!("{sent:?}") };
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "x-other", "host"] {
        trailers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
    }
    let mut out = Vec::new();
    write_end(&trailers, &named, &mut out);
    assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn sizes_are_hexadecimal_without_leading_zeros() {
    for size in [0, 1, 9, 10, 15, 16, 255, 256, 4095, 65536, usize::MAX] {
        let mut out = Vec::new();
        write_size(size, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{size:x}\r\n"));
    }
}

#[test]
fn a_long_head_takes_no_more_memory_than_it_needs() {
    Text::forget_spares();
    let long = "a".repeat(60 << 10);
    let mut map = HeaderMap::new();
    for name in ["x-a", "x-b"] {
        map.insert(name, HeaderValue::from_str(&long).unwrap());
    }
    let mut head = RequestHead::new(&Method::POST, &Uri::from_static("/score"));
    head.reserve(2 * (long.len() + 7));
    head.add_all(&map);
    head.add(&HeaderName::from_static("x-request-id"), &[b'a'; 36]);
    let (length, capacity) = (head.text.bytes().len(), head.text.capacity());
    assert!(capacity <= length + OWN_BYTES, "{length} of {capacity}");
}
