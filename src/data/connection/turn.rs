//! When a connection is polled, and when the watch over it.
//!
//! A connection that wakes itself is polled again at once, and not when all others had their turn: hyper hands on the body
//! of a request in a poll after the one in which somebody asks for it, and by then what a connection consists of would
//! have left the caches, to come back for little. The watch has a waker of its own, and is left alone until that is called.
//!
//! Holds: no wake-up is lost: a connection is polled again while it is polled, and its task is woken otherwise. It cannot
//! keep others from their turn: after [`AGAIN_MAX`] polls more they have it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::core::turn::Turn;

/// As often as a connection is polled again in one turn: for a body, and for the end of one that comes in chunks.
const AGAIN_MAX: usize = 2;

/// What wakes a connection.
#[derive(Debug)]
struct Task {
    turn: Turn,
    /// Whether the watch was woken.
    has_rung: AtomicBool,
    waker: Waker,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.turn.wake() {
            self.waker.wake_by_ref();
        }
    }
}

/// What wakes the watch.
struct Bell(Arc<Task>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.has_rung.store(true, Ordering::Release);
        self.0.waker.wake_by_ref();
    }
}

/// The turns of one task.
#[derive(Debug)]
pub(super) struct Turns {
    task: Arc<Task>,
    connection: Waker,
    watch: Waker,
}

impl Turns {
    /// Those of the task that has this waker, for as long as it lives.
    pub(super) fn new(task: &Waker) -> Self {
        let task = Arc::new(Task { turn: Turn::new(), has_rung: AtomicBool::new(true), waker: task.clone() });
        Self { connection: Waker::from(task.clone()), watch: Waker::from(Arc::new(Bell(task.clone()))), task }
    }

    /// Whether they are of the task that has this waker.
    pub(super) fn are_of(&self, task: &Waker) -> bool {
        self.task.waker.will_wake(task)
    }

    /// Polls the connection, and again if it has woken itself.
    pub(super) fn poll<F: Future>(&self, mut connection: Pin<&mut F>) -> Poll<F::Output> {
        let turn = &self.task.turn;
        for _ in 0..=AGAIN_MAX {
            turn.begin();
            let polled = connection.as_mut().poll(&mut Context::from_waker(&self.connection));
            if !turn.end() || polled.is_ready() {
                return polled;
            }
        }
        self.task.waker.wake_by_ref();
        Poll::Pending
    }

    /// Polls the watch, if it was woken or is a new one.
    pub(super) fn poll_watch<F: Future>(&self, watch: Pin<&mut F>) -> Poll<F::Output> {
        let has_rung = &self.task.has_rung;
        if has_rung.load(Ordering::Acquire) && has_rung.swap(false, Ordering::AcqRel) {
            return watch.poll(&mut Context::from_waker(&self.watch));
        }
        Poll::Pending
    }

    /// What is polled next is a new one.
    pub(super) fn renew_watch(&self) {
        self.task.has_rung.store(true, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "turn/tests.rs"]
mod tests;
