//! Any bytes into the inside of a JSON string.
//!
//! Header values and paths are the client's: quotes, control bytes and bytes that are no UTF-8 must neither break
//! the line nor reach the terminal of whoever reads it.

/// Appends at most `bytes_max` of these bytes, escaped. What is no UTF-8 becomes U+FFFD; a character that is cut in
/// two at the limit is left out. Each byte becomes six at most.
pub(crate) fn escape(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let cut = bytes.len() > bytes_max;
    if !cut && is_all_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut rest = bytes.get(..bytes_max).unwrap_or(bytes);
    while !rest.is_empty() {
        let plain = rest.iter().position(|&byte| !is_plain(byte)).unwrap_or(rest.len());
        let (clean, odd) = rest.split_at(plain);
        out.extend_from_slice(clean);
        rest = escape_odd(out, odd, cut);
    }
}

/// Bytes that go through as they are.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// The same of all bytes, eight at a time: nearly every text is like that.
fn is_all_plain(bytes: &[u8]) -> bool {
    let chunks = bytes.chunks_exact(8);
    let mut last = [b' '; 8];
    for (to, from) in last.iter_mut().zip(chunks.remainder()) {
        *to = *from;
    }
    let mut odd = odd_bytes(last);
    for chunk in chunks {
        odd |= chunk.try_into().map_or(u64::MAX, odd_bytes);
    }
    odd == 0
}

/// Not zero where one of the bytes is not plain.
fn odd_bytes(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(bytes);
    // The high bit of a byte that is below `limit`; also of some above one that is, which does not matter here.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (word & HIGH) | below(word, 0x20) | equal(0x7f) | equal(b'"') | equal(b'\\')
}

/// Appends the first character of `odd`, which is not plain, and returns what follows it.
fn escape_odd<'a>(out: &mut Vec<u8>, odd: &'a [u8], cut: bool) -> &'a [u8] {
    let run = odd.iter().position(|&byte| is_plain(byte)).unwrap_or(odd.len());
    let chunk = odd.get(..run).unwrap_or(odd);
    let (text, broken) = match std::str::from_utf8(chunk) {
        Ok(text) => (text, None),
        Err(error) => {
            let valid = chunk.get(..error.valid_up_to()).unwrap_or_default();
            (std::str::from_utf8(valid).unwrap_or_default(), Some(error.error_len()))
        }
    };
    for character in text.chars() {
        escape_char(out, character);
    }
    let skipped = match broken {
        None => 0,
        Some(Some(length)) => {
            out.extend_from_slice("\u{fffd}".as_bytes());
            length
        }
        Some(None) => {
            let at_the_cut = cut && run == odd.len();
            if !at_the_cut {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
            chunk.len() - text.len()
        }
    };
    odd.get(text.len() + skipped..).unwrap_or_default()
}

fn escape_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // Control characters, those of 8-bit terminals included, and the two that end a line in JavaScript.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => escape_code(out, character as u32),
        _ => {
            let mut utf8 = [0; 4];
            out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        }
    }
}

fn escape_code(out: &mut Vec<u8>, code: u32) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let digit = (code >> shift & 0xf) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8], bytes_max: usize) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes, bytes_max);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    #[test]
    fn what_json_and_terminals_would_misread_is_escaped() {
        assert_eq!(escaped(b"a\"b\\c\nd\re\tf\x00\x1b\x7f", 99), r#"a\"b\\c\nd\re\tf\u0000\u001b\u007f"#);
        assert_eq!(escaped("\u{9b}31m \u{2028}é€😀".as_bytes(), 99), r"\u009b31m \u2028é€😀");
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_replaced() {
        assert_eq!(escaped(b"a\xffb\xc3", 99), "a\u{fffd}b\u{fffd}");
        assert_eq!(escaped(b"\xe2\x82x\xf0\x9f\x98", 99), "\u{fffd}x\u{fffd}");
    }

    #[test]
    fn a_character_cut_in_two_is_left_out() {
        assert_eq!(escaped("ab€".as_bytes(), 4), "ab");
        assert_eq!(escaped("ab€".as_bytes(), 5), "ab€");
        assert_eq!(escaped(b"abc", 2), "ab");
    }

    #[test]
    fn eight_bytes_are_plain_if_each_of_them_is() {
        for byte in 0..=u8::MAX {
            for at in 0..11 {
                let mut bytes = *b"plain bytes";
                bytes[at] = byte;
                assert_eq!(is_all_plain(&bytes), is_plain(byte), "{byte:#x} at {at}");
            }
        }
        assert!(is_all_plain(b""));
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_json_string_of_the_lossy_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = escaped(&bytes, bytes.len());
            prop_assert!(text.len() <= bytes.len() * 6);
            let parsed: String = serde_json::from_str(&format!("\"{text}\"")).expect("a JSON string");
            prop_assert_eq!(parsed, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
