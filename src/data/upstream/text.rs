//! Lines of a head, as they are written.

use std::cell::RefCell;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// What the router adds to a head is less, as a rule.
pub(super) const OWN_BYTES: usize = 512;
/// A text that grew larger is not kept for another head.
const SPARE_BYTES_MAX: usize = 4 << 10;
/// So many texts a thread keeps. There are as many as requests under way, and as heads that are on their way back.
const SPARES_MAX: usize = 64;

thread_local! {
    /// Memory for texts. What was given back last is used first: it is still in the caches.
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// See the head of the file. Its memory is the thread's, and is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text(Vec<u8>);

impl Text {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self(SPARES.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// Makes room for so many bytes of headers, and for the few that the router adds: a long text that grew by doubling would
    /// hold twice what it needs.
    pub(super) fn reserve_for(&mut self, bytes: usize) {
        self.0.reserve(bytes + OWN_BYTES);
    }

    pub(super) fn push(&mut self, part: &[u8]) {
        self.0.extend_from_slice(part);
    }

    /// Adds the line of a header.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &[u8]) {
        write_line(name, value, &mut self.0);
    }

    /// Begins the line of a header whose name is that of another's. Says where.
    pub(super) fn begin(&mut self, name: &[u8]) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(name);
        if let Some(name) = self.0.get_mut(at..) {
            // As hyper writes those that it knows.
            name.make_ascii_lowercase();
        }
        at
    }

    /// What has been written since then.
    pub(super) fn since(&self, at: usize) -> &[u8] {
        self.0.get(at..).unwrap_or_default()
    }

    /// Ends a line that has begun.
    pub(super) fn end(&mut self, value: &[u8]) {
        write_value(value, &mut self.0);
    }

    /// Takes back what has been written since then.
    pub(super) fn cut(&mut self, at: usize) {
        self.0.truncate(at);
    }

    /// Puts the headers whose lines are in it into a map, those that are there as well.
    pub(crate) fn read_into(&self, map: &mut HeaderMap) {
        for line in self.0.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b": ").and_then(|value| value.strip_suffix(b"\r")).unwrap_or_default();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
    }

    /// What is in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if (1..=SPARE_BYTES_MAX).contains(&self.0.capacity()) {
            let mut text = std::mem::take(&mut self.0);
            text.clear();
            // Not where the thread is on its way out.
            let _ = SPARES.try_with(|spares| {
                let mut spares = spares.borrow_mut();
                if spares.len() < SPARES_MAX {
                    spares.push(text);
                }
            });
        }
    }
}

/// Writes the line of a header.
pub(super) fn write_line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    write_value(value, out);
}

fn write_value(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;
