//! Whether a task is being polled, for whoever wakes it: the one who polls it then does so again, at once.
//!
//! Holds: a wake-up is told to the one who polls, at the end of the poll, or to the one who wakes, who wakes the task then.

use super::sync::{AtomicUsize, Ordering};

/// It is being polled.
const POLLED: usize = 1;
/// It was woken since the poll began. Once that is over, this is looked at no more.
const WOKEN: usize = 2;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Turn(AtomicUsize);

impl Turn {
    /// Nobody polls it.
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// A poll begins. Who woke the task before has done so.
    pub(crate) fn begin(&self) {
        self.0.store(POLLED, Ordering::Release);
    }

    /// The poll is over. Says whether there was a wake-up meanwhile, so that there should be another.
    pub(crate) fn end(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) & WOKEN != 0
    }

    /// Says whether the task has to be woken.
    #[must_use]
    pub(crate) fn wake(&self) -> bool {
        // Written also where it is set: what this thread did before has to be seen by the next poll.
        self.0.fetch_or(WOKEN, Ordering::AcqRel) & POLLED == 0
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let turn = Arc::new(Turn::new());
            let (news, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let teller = loom::thread::spawn({
                let (turn, news, told) = (turn.clone(), news.clone(), told.clone());
                move || {
                    for number in 1..=2 {
                        news.store(number, Ordering::Relaxed);
                        if turn.wake() {
                            told.store(number, Ordering::Relaxed);
                        }
                    }
                }
            });
            let mut seen;
            loop {
                turn.begin();
                seen = news.load(Ordering::Relaxed);
                if !turn.end() {
                    break;
                }
            }
            teller.join().unwrap();
            let told = told.load(Ordering::Relaxed);
            assert!(seen == 2 || told == 2, "{seen} seen, the task was woken for {told}");
        });
    }
}
