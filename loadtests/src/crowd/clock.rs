//! Rings at any moment, to some tens of microseconds. The runtime's timer rings on full milliseconds: a crowd that goes by
//! it sends what is due within each of them at once.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;

/// A thread that ends when nobody has it any more, and so nobody waits. One moment for each who waits is all it keeps.
#[derive(Clone)]
pub struct Clock(Sender<(Instant, oneshot::Sender<()>)>);

impl Clock {
    /// Starts it, with the priority of the thread that asks.
    pub fn start() -> Self {
        let (asking, asked) = mpsc::channel();
        thread::spawn(move || ring(&asked));
        Self(asking)
    }

    /// Waits until then.
    pub async fn wait_until(&self, at: Instant) {
        let (bell, rung) = oneshot::channel();
        if self.0.send((at, bell)).is_ok() {
            // An error would be a clock that is gone, which nobody should wait for.
            let _ = rung.await;
        }
    }
}

fn ring(asked: &Receiver<(Instant, oneshot::Sender<()>)>) {
    // Two may wait for the same moment.
    let mut due: BTreeMap<(Instant, u64), oneshot::Sender<()>> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = match due.first_key_value() {
            Some(((at, _), _)) => asked.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok((at, bell)) => {
                number += 1;
                due.insert((at, number), bell);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, bell)) = due.pop_first() {
                    // Whoever left does not need to be told.
                    let _ = bell.send(());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_rung_for_in_order_and_not_before_time() {
        let (clock, start) = (Clock::start(), Instant::now());
        let mut waiting = JoinSet::new();
        for millis in [30, 10, 20, 10] {
            let clock = clock.clone();
            waiting.spawn(async move {
                let at = start + Duration::from_millis(millis);
                clock.wait_until(at).await;
                (millis, Instant::now() >= at)
            });
        }
        let mut order = Vec::new();
        while let Some(joined) = waiting.join_next().await {
            let (millis, in_time) = joined.unwrap();
            assert!(in_time);
            order.push(millis);
        }
        assert_eq!(order, [10, 10, 20, 30]);
    }
}
