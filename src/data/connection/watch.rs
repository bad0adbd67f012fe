//! The deadlines of one client connection, its rest while nothing goes on, and its end when the router drains.
//!
//! Deadlines (those of an exchange are its own): time to the whole head, time between requests, and time that a client may
//! leave bytes unread. One alarm serves them all; it is set to the earliest moment at which one could have passed, and looks
//! again then. An exchange does not touch it.
//!
//! Holds: only a connection between two requests is put to rest, with nothing of either left to read or to write.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};

use super::super::link::{Doing, Link};
use super::super::socket::Socket;
use super::super::worker::Phase;
use super::turn::Turns;

/// How the watch over a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself.
    Over(hyper::Result<()>),
    /// Cut off: it was in this state for too long, or could not be written to.
    Overdue(Doing),
    /// Cut off: the client was told to leave, and went on.
    Deaf,
    /// Nothing has been going on for a while: see [`Watch::rest`].
    Resting,
    /// Cut off: the router stops.
    Forced,
}

/// Keeps the deadlines of a connection and ends it when the router drains.
pub(super) struct Watch {
    link: Arc<Link>,
    alarm: Pin<Box<Sleep>>,
    phase: watch::Receiver<Phase>,
}

impl Watch {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let first = Instant::now() + link.worker.limits().head_timeout / LOOKS;
        let phase = link.worker.shared.phase.clone();
        Self { alarm: Box::pin(sleep_until(first.into())), phase, link }
    }

    /// Drives a connection to its end; asks it to shut down when the router reaches `leave_at`.
    pub(super) async fn over<C>(
        &mut self,
        mut connection: Pin<&mut C>,
        leave_at: Phase,
        leave: impl Fn(Pin<&mut C>),
    ) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut left = false;
        let turns = poll_fn(|cx| Poll::Ready(Turns::new(cx.waker()))).await;
        loop {
            let now = *self.phase.borrow_and_update();
            if now == Phase::Forced {
                return End::Forced;
            }
            if !left && (now >= leave_at || self.link.must_leave()) {
                left = true;
                leave(connection.as_mut());
                self.link.note_goodbye(Instant::now());
            }
            let ended = {
                let mut watch = pin!(async {
                    tokio::select! {
                        biased;
                        end = ring(&self.link, &mut self.alarm) => Some(end),
                        changed = self.phase.changed() => changed.is_err().then_some(End::Forced),
                    }
                });
                turns.renew_watch();
                poll_fn(|cx| {
                    debug_assert!(turns.are_of(cx.waker()), "a connection has one task");
                    // The connection first: what it has to say may be that it is done.
                    if let Poll::Ready(end) = turns.poll(connection.as_mut()) {
                        return Poll::Ready(Some(End::Over(end)));
                    }
                    self.link.time_head();
                    if self.link.is_deaf() {
                        return Poll::Ready(Some(End::Deaf));
                    }
                    // The connection itself counts requests, so only now can it have had its last one.
                    if !left && self.link.must_leave() {
                        return Poll::Ready(None);
                    }
                    turns.poll_watch(watch.as_mut())
                })
                .await
            };
            if let Some(end) = ended {
                return end;
            }
            // Deadlines are others now.
            self.alarm.as_mut().reset(Instant::now().into());
        }
    }

    /// Waits for the client's next word with nothing but the socket: a parser with its buffers would be three quarters of
    /// what an idle connection costs. Says whether there is one; otherwise the connection is over.
    pub(super) async fn rest(&mut self, socket: &Socket) -> bool {
        let _counted = Resting::begin(self.link.clone());
        loop {
            if *self.phase.borrow_and_update() >= Phase::Finishing {
                return false;
            }
            let now = Instant::now();
            let over = idle_since(&self.link) + idle_max(&self.link);
            if over <= now {
                return false;
            }
            // Memory may become short meanwhile.
            let look = now + self.link.worker.limits().idle_timeout / IDLE_PART;
            self.alarm.as_mut().reset(over.min(look).into());
            tokio::select! {
                biased;
                () = socket.readable() => break,
                () = self.alarm.as_mut() => {}
                changed = self.phase.changed() => if changed.is_err() { return false },
            }
        }
        let look = Instant::now() + self.link.worker.limits().head_timeout / LOOKS;
        self.alarm.as_mut().reset(look.into());
        true
    }
}

/// Counts a connection at rest for as long as it lives.
struct Resting(Arc<Link>);

impl Resting {
    fn begin(link: Arc<Link>) -> Self {
        link.worker.shared.vitals.connections.resting.fetch_add(1, Ordering::Relaxed);
        Self(link)
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.0.worker.shared.vitals.connections.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While memory is short, this part of that: idle connections give theirs back, those just used a moment later.
const IDLE_PART: u32 = 20;

/// How long a connection may be without an exchange. While memory is short that is not long. One with HTTP/2 that was
/// asked to leave stays only for the last bytes of answers whose exchanges are over: at most the frame that did not fit
/// into the client's window.
fn idle_max(link: &Link) -> Duration {
    let limits = link.worker.limits();
    let leaves = link.is_http2() && (link.is_used_up() || link.worker.is_discouraging());
    let is_short = link.worker.shared.vitals.memory.is_short();
    let idle_max = if is_short { limits.idle_timeout / IDLE_PART } else { limits.idle_timeout };
    if leaves { idle_max.min(limits.body_timeout) } else { idle_max }
}

/// Until when an idle connection with HTTP/2 may stay whose client was told to leave and does not even answer the PING
/// that goes with it: while listeners are closed, not longer than a goodbye takes. One that answers has read what came
/// before, and ends by itself when it has the rest.
fn goodbye_end(link: &Link, idle_since_us: u64) -> Option<Instant> {
    let unanswered_us = link.unanswered_since().filter(|_| link.worker.is_finishing())?;
    let since = Duration::from_micros(unanswered_us.max(idle_since_us));
    Some(link.worker.shared.vitals.born + since + link.worker.limits().goodbye_timeout)
}

/// Looks in the time that a head may take. Deadlines that begin between two are noticed late, by one at most; a connection
/// that was idle for as long is put to rest.
const LOOKS: u32 = 4;

fn idle_since(link: &Link) -> Instant {
    link.worker.shared.vitals.born + Duration::from_micros(link.doing().1)
}

/// Ends when a deadline has passed, or when nothing has been going on for a while.
async fn ring(link: &Link, alarm: &mut Pin<Box<Sleep>>) -> End {
    let limits = link.worker.limits();
    let look = limits.head_timeout / LOOKS;
    loop {
        alarm.as_mut().await;
        let now = Instant::now();
        let at = |since_us: u64, max: Duration| link.worker.shared.vitals.born + Duration::from_micros(since_us) + max;
        let (doing, since) = link.doing();
        let by_state = match doing {
            Doing::Fresh | Doing::Head => Some(at(since, limits.head_timeout)),
            Doing::Idle => [Some(at(since, idle_max(link))), goodbye_end(link, since)].into_iter().flatten().min(),
            Doing::Exchange => None,
        };
        let by_writing = link.waits_until().map(|until| at(until, Duration::ZERO));
        if by_writing.is_some_and(|until| until <= now) {
            link.set_untaken();
        }
        let next = by_state.into_iter().chain(by_writing).min();
        if next.is_some_and(|next| next <= now) {
            return End::Overdue(doing);
        }
        // What is left of a body is for the parser that began to read it, never for a new one.
        let is_between = doing == Doing::Idle && by_writing.is_none() && !link.is_unread() && !link.is_broken();
        if is_between && !link.is_http2() && at(since, look) <= now {
            return End::Resting;
        }
        let soon = now + look;
        alarm.as_mut().reset(next.map_or(soon, |next| next.min(soon)).into());
    }
}
