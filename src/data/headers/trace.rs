//! The trace that a request belongs to: the client's, or a new one (W3C Trace Context).

use http::header::{HeaderMap, HeaderName};

use super::census::{Census, Kind};
use crate::core::dice::Dice;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
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

/// The trace that a request belongs to.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Its 32 digits.
    pub(crate) id: [u8; 32],
    /// The `traceparent` to be sent, where it is a new one; the headers have it otherwise.
    pub(crate) parent: Option<[u8; 55]>,
}

/// Sees to it that the request belongs to one trace, and says to which.
pub(crate) fn join(headers: &mut HeaderMap, census: Census, dice: &mut Dice) -> Trace {
    if census.has(Kind::Traceparent) {
        if let Some(id) = trace_id(headers) {
            return Trace { id, parent: None };
        }
        headers.remove(TRACEPARENT);
    }
    if census.has(Kind::Tracestate) {
        headers.remove(TRACESTATE);
    }
    // Neither may be zero.
    let (id, span) = ([hex(dice.throw()), hex(dice.throw() | 1)], hex(dice.throw() | 1));
    let mut text = *b"00-________________________________-________________-01";
    text[3..19].copy_from_slice(&id[0]);
    text[19..35].copy_from_slice(&id[1]);
    text[36..52].copy_from_slice(&span);
    let mut trace = [0; 32];
    trace.copy_from_slice(id.as_flattened());
    Trace { id: trace, parent: Some(text) }
}

fn hex(word: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(word.to_be_bytes()) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
    text
}
