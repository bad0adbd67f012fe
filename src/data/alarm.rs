//! An alarm that is asked again and again whether it rang: asking costs little while it knows whom to wake.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
    /// Whom it wakes.
    sleeper: Option<Waker>,
}

impl Alarm {
    pub(crate) fn new(due: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(due)), due, sleeper: None }
    }

    /// Whether it will wake whoever asks, `now` being the time: then nothing has to be asked of the timer, which is seldom
    /// at hand.
    pub(crate) fn is_set(&self, now: Instant, cx: &Context<'_>) -> bool {
        now < self.due && self.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(cx.waker()))
    }

    /// The moment that it rang for, when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if !self.sleep.is_elapsed() && self.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // A task that has done much in its turn would not be heard, and never ask again.
        match pin!(unconstrained(self.sleep.as_mut())).poll(cx) {
            Poll::Ready(()) => {
                self.sleeper = None;
                Poll::Ready(self.due)
            }
            Poll::Pending => {
                self.sleeper = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Sets it anew.
    pub(crate) fn reset(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        (self.due, self.sleeper) = (due, None);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::testing::PATIENCE;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test]
    async fn it_wakes_a_task_that_asked_when_it_had_done_much_in_its_turn() {
        let due = Instant::now() + Duration::from_millis(20);
        let mut alarm = Alarm::new(due);
        let rang = poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                let _ = pin!(tokio::task::consume_budget()).poll(cx);
            }
            alarm.poll(cx)
        });
        assert_eq!(timeout(PATIENCE, rang).await, Ok(due));
    }

    #[tokio::test]
    async fn it_is_set_for_whoever_asked_until_its_time_has_come() {
        let (start, nobody) = (Instant::now(), Waker::from(Arc::new(Nobody)));
        let due = start + Duration::from_secs(1);
        let mut alarm = Alarm::new(due);
        poll_fn(|cx| {
            assert!(!alarm.is_set(start, cx), "nobody asked");
            assert!(alarm.poll(cx).is_pending());
            assert!(alarm.is_set(start, cx) && !alarm.is_set(due, cx));
            assert!(!alarm.is_set(start, &Context::from_waker(&nobody)));
            alarm.reset(due + Duration::from_secs(1));
            assert!(!alarm.is_set(start, cx), "nobody asked again");
            assert!(alarm.poll(cx).is_pending());
            assert!(alarm.is_set(due, cx));
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn it_wakes_whoever_asked_last_and_rings_again_when_it_is_set_anew() {
        let mut alarm = Alarm::new(Instant::now() + Duration::from_millis(20));
        let nobody = Waker::from(Arc::new(Nobody));
        for _ in 0..3 {
            assert!(alarm.poll(&mut Context::from_waker(&nobody)).is_pending());
            timeout(PATIENCE, poll_fn(|cx| alarm.poll(cx))).await.unwrap();
            alarm.reset(Instant::now() + Duration::from_millis(20));
        }
    }
}
