//! W3C Trace Context: every request belongs to a trace.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::core::dice::Dice;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The 32 digits of the trace, where `traceparent` is valid.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let bytes = values.next()?.as_bytes();
    if values.next().is_some() || bytes.len() < 55 || (bytes.starts_with(b"00") && bytes.len() != 55) {
        return None;
    }
    let is_hex = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
    let id: [u8; 32] = bytes.get(3..35)?.try_into().ok()?;
    let valid = dashes && is_hex(0..2) && is_hex(3..35) && is_hex(36..52) && is_hex(53..55);
    (valid && !bytes.starts_with(b"ff") && id.iter().any(|&b| b != b'0')).then_some(id)
}

/// Sees to it that the request belongs to a trace, and says to which.
pub(crate) fn trace(headers: &mut HeaderMap, dice: &mut Dice) -> [u8; 32] {
    if let Some(id) = trace_id(headers) {
        return id;
    }
    headers.remove(TRACESTATE);
    let (trace, span) = (make_hex([dice.throw(), dice.throw() | 1]), make_hex([dice.throw() | 1, 0]));
    let mut text = [0; 55];
    let parts: [&[u8]; 5] = [b"00-", &trace, b"-", &span[..16], b"-01"];
    text.iter_mut().zip(parts.into_iter().flatten()).for_each(|(byte, part)| *byte = *part);
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(TRACEPARENT, value);
    }
    trace
}

fn make_hex(words: [u64; 2]) -> [u8; 32] {
    let mut digits = [0; 32];
    let nibbles = words.iter().flat_map(|word| (0..16).rev().map(move |at| (word >> (at * 4)) as usize & 0xf));
    digits.iter_mut().zip(nibbles).for_each(|(digit, nibble)| *digit = b"0123456789abcdef"[nibble]);
    digits
}
