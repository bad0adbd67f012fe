//! Bodies as they should be, as they should not, and cut anywhere.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::data::upstream::tests::cut;

/// The bytes of a body, its trailers, and what of the input is not its own.
type Parts = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// What comes of a body that ends with the connection behind these pieces.
fn read(framing: Framing, pieces: &[&[u8]]) -> Result<Parts, BodyFlaw> {
    let (mut decoder, mut body, mut rest) = (Decoder::new(framing), Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(piece) = decoder.next(&mut input)? {
            assert!(!piece.is_empty());
            body.extend_from_slice(&piece);
        }
        assert!(input.is_empty() || decoder.is_over(), "what is not used up is not the body's");
        rest.extend_from_slice(&input);
    }
    decoder.end()?;
    assert!(decoder.is_over());
    Ok((body, decoder.take_trailers(), rest))
}

/// Whole and byte by byte, which is not decoded by the same code.
fn chunks(text: &str) -> Result<(String, usize), BodyFlaw> {
    let whole = read(Framing::Chunked, &[text.as_bytes()]);
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(read(Framing::Chunked, &bytes), whole, "{text:?}");
    let (body, trailers, rest) = whole?;
    assert!(rest.is_empty(), "{rest:?}");
    Ok((String::from_utf8(body).unwrap(), trailers.map_or(0, |trailers| trailers.len())))
}

#[test]
fn bodies_end_where_their_framing_says() {
    let all = |text: &str| (text.as_bytes().to_vec(), None, Vec::new());
    assert_eq!(read(Framing::Length(5), &[b"hello"]), Ok(all("hello")));
    assert_eq!(read(Framing::Length(5), &[b"hel", b"lo!", b"?"]), Ok((b"hello".to_vec(), None, b"!?".to_vec())));
    assert!(read(Framing::Length(6), &[b"hello"]).is_err());
    assert_eq!(read(Framing::UntilClose, &[b"hel", b"lo"]), Ok(all("hello")));
    assert_eq!(read(Framing::Nothing, &[b"!"]), Ok((Vec::new(), None, b"!".to_vec())));
    assert_eq!(read(Framing::Length(u64::MAX), &[b"x"]), Err("it ended before its body did"));
}

#[test]
fn chunks_have_sizes_and_ends_and_nothing_else() {
    for (text, body, trailers) in [
        ("0\r\n\r\n", "", 0),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
        ("a\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n", "0123456789x", 0),
        ("A \t\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", 0),
        ("3;name=value;other=\"q\"\r\nabc\r\n0\r\n\r\n", "abc", 0),
        ("3 ; a=b\r\nabc\r\n0\r\nX-Sum: 42\r\nY: z\r\n\r\n", "abc", 2),
        ("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc", 0),
        ("00000003\r\nabc\r\n000000003\r\nabc\r\n0\r\n\r\n", "abcabc", 0),
        ("B\r\n01234567890\r\n00c\r\n012345678901\r\n3 \r\nabc\r\n0\r\n\r\n", "01234567890012345678901abc", 0),
    ] {
        assert_eq!(chunks(text), Ok((body.to_owned(), trailers)), "{text:?}");
    }
    let extensions = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(usize::from(EXTENSIONS_MAX) + 1));
    let spaces = format!("1{}\r\nx\r\n0\r\n\r\n", " ".repeat(usize::from(BLANKS_MAX) + 1));
    let trailers = format!("0\r\nX: {}\r\n\r\n", "t".repeat(TRAILERS_MAX));
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    for text in [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\nx",
        "0x1\r\nx",
        " 1\r\nx",
        "1 1\r\nx",
        "1\nx",
        "1\rx",
        "1;a\nb\r\nx",
        "1;a\rb\r\nx",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\r0\r\n\r\n",
        "10000000000000000\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n",
        &extensions,
        &spaces,
        &trailers,
        &many,
    ] {
        assert!(chunks(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_end_is_seen_with_the_last_piece_where_it_came_with_it() {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut input = Bytes::from_static(b"5\r\nhello\r\n0\r\nX: y\r\n\r\nnext");
    assert_eq!(decoder.next(&mut input).unwrap().unwrap(), "hello");
    assert!(decoder.is_over() && decoder.has_trailers());
    assert_eq!((&input[..], decoder.left()), (&b"next"[..], None));
    assert_eq!(decoder.take_trailers().unwrap()["x"], "y");
    assert!(!decoder.has_trailers());
    let mut decoder = Decoder::new(Framing::Length(5));
    let mut input = Bytes::from_static(b"hello");
    assert_eq!(decoder.left(), Some(5));
    assert_eq!(decoder.next(&mut input).unwrap().unwrap(), "hello");
    assert!(decoder.is_over());
}

#[test]
fn a_body_of_no_length_is_over_before_anything_comes() {
    for framing in [Framing::Nothing, Framing::Length(0)] {
        let mut decoder = Decoder::new(framing);
        assert!(decoder.is_over() && decoder.end().is_ok(), "{framing:?}");
    }
}

#[test]
fn what_is_wrong_behind_a_piece_is_told_after_it() {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut input = Bytes::from_static(b"1\r\nx!");
    assert_eq!(decoder.next(&mut input).unwrap().unwrap(), "x");
    assert!(!decoder.is_over());
    for _ in 0..2 {
        assert!(decoder.next(&mut input).is_err());
    }
}

/// Chunks, some of them not quite right.
fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 1..40);
    let extension = prop::sample::select(vec!["", "", "", ";a=b", " ", " ;x"]);
    let ending = prop::sample::select(vec!["\r\n"; 20].into_iter().chain(["\n", "\r", ""]).collect::<Vec<_>>());
    let trailers = prop::sample::select(vec!["", "", "X-Sum: 1\r\n", "A: b\r\nC: d\r\n", "bad\r\n", "E: f\n"]);
    (prop::collection::vec((data, extension, ending), 0..5), trailers).prop_map(|(chunks, trailers)| {
        let mut text = Vec::new();
        for (data, extension, ending) in chunks {
            text.extend_from_slice(format!("{:x}{extension}{ending}", data.len()).as_bytes());
            text.extend_from_slice(&data);
            text.extend_from_slice(ending.as_bytes());
        }
        [&text, &b"0\r\n"[..], trailers.as_bytes(), b"\r\n"].concat()
    })
}

proptest! {
    #[test]
    fn the_pieces_in_which_a_body_comes_do_not_matter(
        bytes in prop_oneof![chunked(), any::<Vec<u8>>()],
        cuts in any::<Vec<Index>>(),
        length in 0_u64..60,
    ) {
        for framing in [Framing::Chunked, Framing::Length(length), Framing::UntilClose, Framing::Nothing] {
            let one = read(framing, &[&bytes]);
            let some = read(framing, &cut(&bytes, &cuts));
            let each: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&one, &some);
            prop_assert_eq!(&one, &read(framing, &each));
        }
    }
}
