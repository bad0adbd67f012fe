//! `Server-Timing`: how long a request waited for a slot, and how long the replica took to begin its answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::upstream;
use crate::core::count::micros;
use crate::core::record::Record;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the header, where there is something to tell.
pub(crate) fn tell(headers: &mut HeaderMap, record: &Record) {
    if let Some(Ok(value)) = text(record).map(Text::into_value) {
        headers.append(SERVER_TIMING, value);
    }
}

/// The same where they are lines.
pub(crate) fn tell_line(lines: &mut upstream::Text, record: &Record) {
    if let Some(text) = text(record) {
        lines.add(&SERVER_TIMING, text.bytes());
    }
}

fn text(record: &Record) -> Option<Text> {
    let queued = record.queued?;
    let mut text = Text::default();
    text.push(b"queue;dur=");
    text.push_millis(queued);
    if let (Some(admitted), Some(answered)) = (record.admitted, record.answered) {
        text.push(b", upstream;dur=");
        text.push_millis(answered.saturating_duration_since(admitted));
    }
    Some(text)
}

/// A text on the stack, so that the only allocation is that of the value. What does not fit is left out.
struct Text {
    bytes: [u8; 80],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 80], length: 0 }
    }
}

impl Text {
    fn push(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + part.len()) {
            room.copy_from_slice(part);
            self.length += part.len();
        }
    }

    /// With three decimals.
    fn push_millis(&mut self, duration: Duration) {
        let micros = micros(duration);
        self.push(itoa::Buffer::new().format(micros / 1000).as_bytes());
        let rest = micros % 1000;
        self.push(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn into_value(self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let mut bytes = Bytes::from_owner(self.bytes);
        bytes.truncate(self.length);
        HeaderValue::from_maybe_shared(bytes)
    }
}

/// The last digit.
fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;

    #[test]
    fn durations_are_milliseconds_with_three_decimals_and_the_longest_fit() {
        let started = Instant::now();
        let id = HeaderValue::from_static("id");
        let mut record = Record::new(started, SystemTime::UNIX_EPOCH, [127, 0, 0, 1].into(), id);
        let told = |record: &Record| {
            let mut headers = HeaderMap::new();
            tell(&mut headers, record);
            headers.get("server-timing").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(&record), None);
        record.queued = Some(Duration::from_micros(1_234_005));
        assert_eq!(told(&record).unwrap(), "queue;dur=1234.005");
        record.admitted = Some(started);
        record.answered = Some(started + Duration::from_nanos(52_879_999));
        assert_eq!(told(&record).unwrap(), "queue;dur=1234.005, upstream;dur=52.879");
        record.queued = Some(Duration::MAX);
        assert_eq!(told(&record).unwrap(), "queue;dur=18446744073709551.615, upstream;dur=52.879");
    }
}
