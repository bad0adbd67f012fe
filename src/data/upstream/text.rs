//! Lines of a head, as they are written.

use std::cell::RefCell;

use http::header::HeaderName;

/// A text that grew larger is not kept for another head.
const SPARE_BYTES_MAX: usize = 4 << 10;
/// So many texts a thread keeps. There are as many as requests under way.
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

    /// Makes room for so many bytes more: a long text that grew by doubling would hold twice what it needs.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.0.reserve(bytes);
    }

    pub(super) fn push(&mut self, part: &[u8]) {
        self.0.extend_from_slice(part);
    }

    /// Adds the line of a header.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &[u8]) {
        write_line(name, value, &mut self.0);
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
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;
