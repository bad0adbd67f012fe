//! The part of one request body that is kept for another attempt.
//!
//! Owner: the upload.
//! Holds: not more than `replay-bytes` of one request, nor than `max-replay-bytes-total` of all, by one chunk for each
//!        worker at most; what is dropped is given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::worker::Worker;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: BytesMut,
    worker: Arc<Worker>,
}

impl Kept {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self { bytes: BytesMut::new(), worker }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether more may be read only to be kept.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.worker.limits().replay_bytes_max && self.total_has_room(1)
    }

    /// What follows the first `at` bytes, if anything.
    pub(crate) fn after(&self, at: usize) -> Option<Bytes> {
        self.bytes.get(at..).filter(|rest| !rest.is_empty()).map(Bytes::copy_from_slice)
    }

    /// Keeps a chunk where there is room for it. Says whether there was.
    pub(crate) fn try_push(&mut self, chunk: &[u8]) -> bool {
        if self.len() + chunk.len() > self.worker.limits().replay_bytes_max {
            return false;
        }
        let has_room = self.total_has_room(chunk.len());
        if has_room {
            self.push(chunk);
        } else {
            self.worker.shared.vitals.replay.went_without.bump();
        }
        has_room
    }

    /// Keeps a chunk that was read to be kept.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.worker.shared.vitals.replay.bytes.fetch_add(chunk.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(chunk);
    }

    /// Keeps nothing any more.
    pub(crate) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.worker.shared.vitals.replay.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }

    fn total_has_room(&self, more: usize) -> bool {
        let total = self.worker.shared.vitals.replay.bytes.load(Ordering::Relaxed);
        total.saturating_add(more) <= self.worker.limits().replay_bytes_total_max
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}
