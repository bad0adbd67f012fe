//! Readiness: a list of what the router still waits for.
//!
//! Whoever must be in place before the router may serve takes a [`Block`] and drops it when it is. Ready is when
//! nothing blocks and the router is not draining; there is no flag that could be forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::core::vitals::Vitals;

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Ready {
    blocks: Arc<Mutex<Blocks>>,
    vitals: Arc<Vitals>,
}

#[derive(Debug, Default)]
struct Blocks {
    next: u64,
    pending: BTreeMap<u64, String>,
}

impl Ready {
    /// Nothing blocks yet. Looks at `vitals` to know whether the router is draining.
    pub fn new(vitals: Arc<Vitals>) -> Self {
        Self { blocks: Arc::default(), vitals }
    }

    /// Not ready until the block is dropped. `what` completes the sentence "waiting for …".
    pub fn block(&self, what: &str) -> Block {
        let mut blocks = self.blocks.lock();
        let serial = blocks.next;
        blocks.next += 1;
        blocks.pending.insert(serial, what.to_owned());
        Block { blocks: self.blocks.clone(), serial }
    }

    /// What is waited for, in the order in which it was announced; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        let mut pending: Vec<_> = self.blocks.lock().pending.values().cloned().collect();
        if self.vitals.is_draining() {
            pending.push("the end of the drain: the router is shutting down".to_owned());
        }
        pending
    }

    /// What whoever asks whether it is ready should know beside that.
    pub fn remark(&self) -> Option<String> {
        let as_of = (*self.vitals.discovery.restored.lock())?;
        let age_s = as_of.age_at(Instant::now()).as_secs();
        Some(format!("serving a restored world, {age_s} s old: the sources have not all answered since the start"))
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        !self.vitals.is_draining() && self.blocks.lock().pending.is_empty()
    }
}

/// Keeps the router from being ready for as long as it lives.
#[derive(Debug)]
#[must_use = "readiness is blocked only as long as this lives"]
pub struct Block {
    blocks: Arc<Mutex<Blocks>>,
    serial: u64,
}

impl Drop for Block {
    fn drop(&mut self) {
        let (done, pending) = {
            let mut blocks = self.blocks.lock();
            let done = blocks.pending.remove(&self.serial).unwrap_or_default();
            (done, blocks.pending.values().cloned().collect::<Vec<_>>())
        };
        if pending.is_empty() {
            tracing::info!(done, "ready");
        } else {
            tracing::info!(done, pending = pending.join(", "), "not ready yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::vitals::Stamp;

    fn ready() -> (Ready, Arc<Vitals>) {
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        (Ready::new(vitals.clone()), vitals)
    }

    #[test]
    fn it_is_ready_when_the_last_block_is_dropped() {
        let (ready, _) = ready();
        assert!(ready.is_ready());
        let services = ready.block("the list of Services");
        let secrets = ready.block("the list of Secrets");
        assert_eq!(ready.pending(), ["the list of Services", "the list of Secrets"]);
        drop(services);
        assert!(!ready.is_ready());
        assert_eq!(ready.pending(), ["the list of Secrets"]);
        drop(secrets);
        assert!(ready.is_ready() && ready.pending().is_empty());
    }

    #[test]
    fn a_router_that_serves_a_restored_world_is_ready_and_says_how_old_that_is() {
        let (ready, vitals) = ready();
        assert_eq!(ready.remark(), None);
        let at = Instant::now();
        *vitals.discovery.restored.lock() = Some(Stamp { age: Duration::from_secs(90), at });
        assert!(ready.is_ready());
        let remark = ready.remark().unwrap_or_default();
        assert!(remark.contains("restored world, 9") && remark.contains(" s old"), "{remark}");
    }

    #[test]
    fn a_draining_router_is_not_ready_and_says_so() {
        let (ready, vitals) = ready();
        vitals.set_draining();
        assert!(!ready.is_ready());
        assert_eq!(ready.pending().len(), 1);
        assert!(ready.pending()[0].contains("shutting down"));
    }
}
