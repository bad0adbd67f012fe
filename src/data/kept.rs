//! The part of one request body that is kept for another attempt.
//!
//! Owner: the upload.
//! Holds: not more than `replay-bytes` of one request, nor than `max-replay-bytes-total` of all or the endpoint's share of
//!        that, by one chunk for each worker at most; what is dropped is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use super::worker::Worker;
use crate::core::shares::{self, Limit, Over, Rule, Shares};

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: BytesMut,
    worker: Arc<Worker>,
    shares: Arc<Shares>,
}

impl Kept {
    /// Of a request to the endpoint that has these shares.
    pub(crate) fn new(worker: Arc<Worker>, shares: Arc<Shares>) -> Self {
        Self { bytes: BytesMut::new(), worker, shares }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether more may be read only to be kept.
    pub(crate) fn has_room(&self) -> bool {
        let (all, own) = (self.total().load(Ordering::Relaxed), self.shares.replay.load(Ordering::Relaxed));
        self.len() < self.worker.limits().replay_bytes_max && self.rule().judge(all, own, 1).is_ok()
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
        let taken = self.rule().take(self.total(), &self.shares.replay, chunk.len());
        match taken {
            Ok(()) => self.bytes.extend_from_slice(chunk),
            Err(over) => {
                self.worker.shared.vitals.replay.went_without.bump();
                self.shares.refuse(if over == Over::Share { Limit::ReplayShare } else { Limit::Replay });
            }
        }
        taken.is_ok()
    }

    /// Keeps a chunk that was read to be kept.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        shares::take_anyway(self.total(), &self.shares.replay, chunk.len());
        self.bytes.extend_from_slice(chunk);
    }

    /// Keeps nothing any more.
    pub(crate) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            shares::give_back(self.total(), &self.shares.replay, bytes.len());
        }
    }

    fn total(&self) -> &AtomicUsize {
        &self.worker.shared.vitals.replay.bytes
    }

    fn rule(&self) -> Rule {
        let limits = self.worker.limits();
        Rule { max: limits.replay_bytes_total_max, percent: limits.share_percent_max }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}
