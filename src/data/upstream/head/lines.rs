//! Headers of an answer as lines, to be written to the client as they are.
//!
//! Most answers have none that anybody would look up: what frames the body is read here, what is not for the client is
//! left out, and the rest is copied once. Into a map each of them would go with a hash and a probe, to be looked at again by
//! the rules, by hyper's encoder, and when it is dropped.
//!
//! Holds: a client is told the same from here as by way of the map, though perhaps in another order. Where that takes more than
//! leaving out what has one name, it is left to the map.

use bytes::Bytes;
use http::StatusCode;
use http::header::{DATE, HeaderValue};

use super::{Framed, Headers};
use crate::data::upstream::text::Text;

/// A longer name is none to the map.
const NAME_MAX: usize = u16::MAX as usize;

/// What becomes of a header, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It says how the body is framed, and hyper will say it anew.
    Length,
    Coding,
    /// It may name others.
    Connection,
    /// hyper would put its own beside it.
    Date,
    /// Not for the client, or the router says it itself.
    LeftOut,
    /// There is more to it.
    Odd,
    PassedOn,
}

fn fate(name: &[u8]) -> Fate {
    match name {
        b"content-length" => Fate::Length,
        b"transfer-encoding" => Fate::Coding,
        b"connection" => Fate::Connection,
        b"date" => Fate::Date,
        b"keep-alive"
        | b"proxy-connection"
        | b"x-request-id"
        | b"x-ms-request-id"
        | b"x-ms-client-request-id"
        | b"azureml-model-deployment" => Fate::LeftOut,
        b"close" | b"http2-settings" | b"te" | b"trailer" | b"upgrade" => Fate::Odd,
        _ => Fate::PassedOn,
    }
}

/// Writes them, which are parts of the block, as is the whole head of this length. `None` where that will not do.
pub(super) fn write(
    block: &Bytes,
    length: usize,
    status: StatusCode,
    lines: &[httparse::Header<'_>],
    headers: &mut Headers,
) -> Option<Framed> {
    // Those that have no body, whatever their headers say of one, and the one that becomes another.
    if status.is_informational() || matches!(status.as_u16(), 204 | 304 | 500) {
        return None;
    }
    let (mut framed, mut text) = (Framed::default(), Text::new());
    text.reserve_for(length);
    for line in lines {
        if line.name.len() > NAME_MAX {
            return None;
        }
        let at = text.begin(line.name.as_bytes());
        let fate = fate(text.since(at));
        if fate == Fate::PassedOn {
            text.end(line.value);
            continue;
        }
        text.cut(at);
        match fate {
            Fate::Length => framed.note_length(line.value).ok()?,
            Fate::Coding => framed.note_coding(line.value),
            Fate::Connection => {
                let is_option = [&b"close"[..], b"keep-alive"].iter().any(|word| line.value.eq_ignore_ascii_case(word));
                if !is_option {
                    return None;
                }
                framed.note_connection(line.value);
            }
            Fate::Date => {
                let value = HeaderValue::from_maybe_shared(block.slice_ref(line.value)).ok()?;
                headers.map.append(DATE, value);
            }
            Fate::Odd => return None,
            Fate::LeftOut | Fate::PassedOn => {}
        }
    }
    headers.lines = Some(text);
    Some(framed)
}
