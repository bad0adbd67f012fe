//! Looks at the memory of the process some times a second, and says in the log when it becomes short and when it is
//! enough again. Sees to it that what was freed goes back to the kernel.
//!
//! Owner: the control runtime. Ends with it.
//! Holds: neither costs the data path anything; without a figure nothing changes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::metrics::resident_bytes;
use crate::core::memory::Turn;
use crate::core::vitals::Vitals;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks for ever, with the limit that `vitals` has; at once if there is none.
pub async fn watch(vitals: Arc<Vitals>) {
    follow(vitals, resident_bytes, PAUSE).await;
}

/// Between two nudges: as long as mimalloc keeps what was freed, in case it is needed again.
const NUDGE: Duration = Duration::from_secs(1);

/// More than mimalloc keeps of any size (512 KiB), so that it has to look through what was freed.
const NUDGE_BYTES: usize = 1 << 20;

/// Lets the allocator give back what was freed, for ever.
///
/// mimalloc has no thread of its own: it hands freed memory to the kernel a second later, but only when something happens
/// to it then. Ten thousand connections that come to rest together, or close, free all they had within a moment; if
/// nothing follows, it stays resident until something does. A block that is never written to costs a few microseconds and
/// no memory.
pub async fn give_back() {
    let mut ticks = tokio::time::interval(NUDGE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(NUDGE_BYTES)));
    }
}

async fn follow(vitals: Arc<Vitals>, figure: impl Fn() -> Option<u64>, pause: Duration) {
    let memory = &vitals.memory;
    if memory.limit() == 0 {
        return;
    }
    if figure().is_none() {
        tracing::warn!(target: "scorefront::memory", "max-memory-bytes has no effect: /proc/self/status does not say VmRSS");
        return;
    }
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(resident_bytes) = figure() else { continue };
        let limit_bytes = memory.limit();
        match memory.observe(resident_bytes) {
            Some(Turn::Short) => tracing::warn!(
                target: "scorefront::memory",
                resident_bytes, limit_bytes,
                "memory is over max-memory-bytes: new requests are turned away until it falls to nine tenths of it"
            ),
            Some(Turn::Enough) => tracing::info!(
                target: "scorefront::memory",
                resident_bytes, limit_bytes,
                refused_requests = memory.refused_requests.read(),
                "memory is enough again: requests are taken"
            ),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::testing::eventually;

    #[tokio::test]
    async fn what_the_figure_says_is_followed() {
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        vitals.memory.set_limit(1000);
        let figure = Arc::new(AtomicU64::new(1));
        let said = figure.clone();
        let pause = Duration::from_millis(1);
        let task =
            tokio::spawn(follow(vitals.clone(), move || Some(said.load(Ordering::SeqCst)).filter(|&n| n != 7), pause));
        for (says, is_short) in [(1001, true), (7, true), (800, false), (7, false), (2000, true)] {
            figure.store(says, Ordering::SeqCst);
            let memory = &vitals.memory;
            eventually("it is seen", async || {
                memory.is_short() == is_short && (says == 7 || memory.resident() == says)
            })
            .await;
        }
        task.abort();
    }

    #[tokio::test]
    async fn without_a_limit_or_a_figure_there_is_nothing_to_follow() {
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        follow(vitals.clone(), || Some(1), PAUSE).await;
        vitals.memory.set_limit(1);
        follow(vitals.clone(), || None, PAUSE).await;
        assert!(!vitals.memory.is_short());
    }

    #[test]
    fn the_process_of_this_test_has_some_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
