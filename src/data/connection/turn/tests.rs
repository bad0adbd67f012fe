use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;

use super::*;

/// Counts how often a task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn turns() -> (Turns, Arc<Woken>) {
    let task = Arc::new(Woken::default());
    (Turns::new(&Waker::from(task.clone())), task)
}

#[test]
fn a_connection_that_wakes_itself_is_polled_again_in_the_same_turn() {
    let (turns, task) = turns();
    let mut polls = 0;
    let mut connection = pin!(poll_fn(|cx: &mut Context<'_>| {
        polls += 1;
        match polls {
            1 | 2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready("done"),
        }
    }));
    assert_eq!(turns.poll(connection.as_mut()), Poll::Ready("done"));
    assert_eq!(polls, 3);
    assert_eq!(task.0.load(Ordering::Relaxed), 0);
}

#[test]
fn one_that_never_stops_lets_others_have_their_turn() {
    let (turns, task) = turns();
    let mut polls = 0;
    let mut connection = pin!(poll_fn(|cx: &mut Context<'_>| {
        polls += 1;
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    assert!(turns.poll(connection.as_mut()).is_pending());
    assert_eq!(task.0.load(Ordering::Relaxed), 1);
    assert!(turns.poll(connection.as_mut()).is_pending());
    assert_eq!(task.0.load(Ordering::Relaxed), 2);
    assert_eq!(polls, 2 * (1 + AGAIN_MAX));
}

#[test]
fn whoever_wakes_it_between_two_polls_wakes_its_task() {
    let (turns, task) = turns();
    let waker = RefCell::new(None);
    let mut connection = pin!(poll_fn(|cx: &mut Context<'_>| {
        *waker.borrow_mut() = Some(cx.waker().clone());
        Poll::<()>::Pending
    }));
    assert!(turns.poll(connection.as_mut()).is_pending());
    assert_eq!(task.0.load(Ordering::Relaxed), 0);
    waker.take().unwrap().wake();
    assert_eq!(task.0.load(Ordering::Relaxed), 1);
}

#[test]
fn the_watch_is_polled_when_it_is_new_or_was_woken() {
    let (turns, task) = turns();
    let (mut polls, waker) = (0, RefCell::new(None));
    let mut watch = pin!(poll_fn(|cx: &mut Context<'_>| {
        polls += 1;
        *waker.borrow_mut() = Some(cx.waker().clone());
        if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
    }));
    assert!(turns.poll_watch(watch.as_mut()).is_pending());
    assert!(turns.poll_watch(watch.as_mut()).is_pending());
    turns.renew_watch();
    assert!(turns.poll_watch(watch.as_mut()).is_pending());
    assert_eq!(task.0.load(Ordering::Relaxed), 0);
    waker.take().unwrap().wake();
    assert_eq!(task.0.load(Ordering::Relaxed), 1);
    assert_eq!(turns.poll_watch(watch.as_mut()), Poll::Ready(3));
}
