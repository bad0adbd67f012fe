//! An answer that waits until the client has taken what it was given.
//!
//! Owner: the client's connection, on one thread: its answer waits here, its socket ends the wait when everything is out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    is_on: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Pause {
    /// Whoever asks is woken by [`Self::end`].
    pub(crate) fn begin(&self, cx: &Context<'_>) {
        self.is_on.store(true, Ordering::Relaxed);
        let earlier = self.waker.lock().replace(cx.waker().clone());
        drop(earlier);
    }

    /// Wakes whoever waits.
    pub(crate) fn end(&self) {
        if self.is_on.load(Ordering::Relaxed) {
            self.is_on.store(false, Ordering::Relaxed);
            let waker = self.waker.lock().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once_and_only_the_last_one() {
        let [first, last] = [(); 2].map(|()| Arc::<Wakes>::default());
        let pause = Pause::default();
        pause.end();
        for wakes in [&first, &last, &last] {
            pause.begin(&Context::from_waker(&Waker::from(wakes.clone())));
        }
        pause.end();
        pause.end();
        assert_eq!((first.0.load(Ordering::Relaxed), last.0.load(Ordering::Relaxed)), (0, 1));
    }
}
