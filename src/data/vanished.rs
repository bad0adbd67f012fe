//! Replicas that are gone without a word: a node without power, a firewall that drops.
//!
//! TCP waits for such a peer for a quarter of an hour, and for ever where nothing is on its way. So the kernel is told how
//! long what was sent to a replica may stay unacknowledged, and to ask whether it is still there while it is silent. Both
//! end the connection like any other error does. A model that works for minutes is no matter: its node acknowledges.
//!
//! The kernel means more by the first: it also ends a connection whose peer acknowledges and has no room, as one that is
//! slow to read a long body. That one is not gone. So while more is on its way than a peer takes unread, the limit is
//! lifted; the request time-out ends the wait, as for any slow replica.
//!
//! It takes five system calls to tell it, and most answers are there long before the first question would be asked. So
//! the kernel is told only when a connection has been silent for as long as that, or is put to rest; it counts from when
//! the replica was last heard of all the same.

use std::io::{self, ErrorKind};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::core::limits::Limits;

/// Whether the replica is still there is asked after this part of the time, and again after each further one: the last part
/// is for the answer to the last question.
const PARTS: u32 = 4;

/// The kernel counts these times in whole seconds.
const QUESTION_MIN: Duration = Duration::from_secs(1);

/// So many bytes a peer has room for although nobody reads them: half of what Linux begins with.
const ROOM: usize = 32 << 10;

/// The limit on one connection.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    /// Written since something was read.
    unheard: usize,
    is_lifted: bool,
    /// Whether the kernel knows.
    is_kept: bool,
}

impl Silence {
    /// Zero leaves everything to the kernel.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, unheard: 0, is_lifted: false, is_kept: false }
    }

    /// How long the connection may be silent before the kernel has to know; `None` where it knows, or need not.
    pub(super) fn unkept_for(&self) -> Option<Duration> {
        (!self.is_kept && !self.limit.is_zero()).then(|| self.limit / PARTS)
    }

    /// From now on the kernel keeps it.
    pub(super) fn keep(&mut self, socket: &TcpStream) {
        if self.unkept_for().is_none() {
            return;
        }
        self.is_kept = true;
        let every = (self.limit / PARTS).max(QUESTION_MIN);
        let questions = TcpKeepalive::new().with_time(every).with_interval(every).with_retries(PARTS - 1);
        // Sandboxes may not know these options. Then a replica that vanished costs what it does without them.
        let _ = SockRef::from(socket).set_tcp_keepalive(&questions);
        if !self.is_lifted {
            bound(socket, self.limit);
        }
    }

    pub(super) fn wrote(&mut self, socket: &TcpStream, bytes: usize) {
        self.unheard = self.unheard.saturating_add(bytes);
        self.set_lifted(socket, self.unheard > ROOM);
    }

    pub(super) fn heard(&mut self) {
        self.unheard = 0;
    }

    /// From now on only the questions end it.
    pub(super) fn lift(&mut self, socket: &TcpStream) {
        self.set_lifted(socket, true);
        self.keep(socket);
    }

    fn set_lifted(&mut self, socket: &TcpStream, lifts: bool) {
        if lifts != std::mem::replace(&mut self.is_lifted, lifts) && self.is_kept {
            bound(socket, if lifts { Duration::ZERO } else { self.limit });
        }
    }
}

#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "other kernels have no such limit"))]
fn bound(socket: &TcpStream, limit: Duration) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(socket).set_tcp_user_timeout(Some(limit));
}

/// Whether a connection ended for this reason.
pub(super) fn is_silence(error: &io::Error) -> bool {
    // With a number: the kernel's. In place of silence it tells what was said of the address meanwhile, if anything.
    let is_gone =
        matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable);
    is_gone && error.raw_os_error().is_some()
}

/// What to say of it.
pub(super) fn describe(error: &io::Error, limits: &Limits) -> String {
    let limit = limits.upstream_unacknowledged.as_millis();
    format!("what was sent to it stayed unacknowledged ({error}); upstream-unacknowledged-ms is {limit}")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn socket() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
    }

    fn limit_of(socket: &TcpStream) -> Duration {
        SockRef::from(socket).tcp_user_timeout().unwrap().unwrap_or_default()
    }

    fn kept(socket: &TcpStream, limit: Duration) -> Silence {
        let mut silence = Silence::new(limit);
        silence.keep(socket);
        silence
    }

    #[tokio::test]
    async fn questions_and_answers_fit_into_the_limit() {
        let seconds = Duration::from_secs;
        for (limit, every) in [(seconds(4), seconds(1)), (seconds(40), seconds(10)), (seconds(1), seconds(1))] {
            let socket = socket().await;
            kept(&socket, limit);
            let options = SockRef::from(&socket);
            assert!(options.keepalive().unwrap());
            assert_eq!(options.tcp_keepalive_time().unwrap(), every);
            assert_eq!(options.tcp_keepalive_interval().unwrap(), every);
            assert_eq!(options.tcp_keepalive_retries().unwrap(), 3);
            assert_eq!(limit_of(&socket), limit);
        }
    }

    #[tokio::test]
    async fn the_kernel_is_told_once_and_not_after_the_first_question_is_due() {
        let (socket, limit) = (socket().await, Duration::from_secs(4));
        let mut silence = Silence::new(limit);
        assert_eq!(silence.unkept_for(), Some(Duration::from_secs(1)));
        for bytes in [ROOM + 1, 1] {
            silence.wrote(&socket, bytes);
            assert_eq!((SockRef::from(&socket).keepalive().unwrap(), limit_of(&socket)), (false, Duration::ZERO));
        }
        silence.keep(&socket);
        // Still lifted.
        assert_eq!((SockRef::from(&socket).keepalive().unwrap(), limit_of(&socket)), (true, Duration::ZERO));
        assert_eq!(silence.unkept_for(), None);
        silence.heard();
        silence.wrote(&socket, 1);
        assert_eq!(limit_of(&socket), limit);
    }

    #[tokio::test]
    async fn a_replica_that_may_only_be_slow_to_read_has_no_limit_until_it_is_heard_of() {
        let (socket, limit) = (socket().await, Duration::from_secs(4));
        let mut silence = kept(&socket, limit);
        for (bytes, holds) in [(ROOM, true), (1, false), (1, false)] {
            silence.wrote(&socket, bytes);
            assert_eq!(limit_of(&socket), if holds { limit } else { Duration::ZERO });
        }
        silence.heard();
        silence.wrote(&socket, 1);
        assert_eq!(limit_of(&socket), limit);
    }

    #[tokio::test]
    async fn in_another_protocol_the_questions_alone_are_left() {
        let socket = socket().await;
        Silence::new(Duration::from_secs(4)).lift(&socket);
        assert_eq!((SockRef::from(&socket).keepalive().unwrap(), limit_of(&socket)), (true, Duration::ZERO));
    }

    #[tokio::test]
    async fn without_a_limit_the_kernel_decides() {
        let socket = socket().await;
        let mut silence = kept(&socket, Duration::ZERO);
        silence.wrote(&socket, ROOM + 1);
        silence.heard();
        silence.wrote(&socket, 1);
        silence.lift(&socket);
        assert!(!SockRef::from(&socket).keepalive().unwrap());
        assert_eq!(limit_of(&socket), Duration::ZERO);
    }

    #[test]
    fn only_silence_of_the_replica_is_one() {
        // ETIMEDOUT, ENETUNREACH, EHOSTUNREACH.
        for code in [110, 101, 113] {
            let error = io::Error::from_raw_os_error(code);
            assert!(is_silence(&error));
            let told = describe(&error, &Limits::default());
            assert!(told.contains("upstream-unacknowledged-ms is 4000"), "{told}");
        }
        // ECONNRESET, and a time-out of the router's own.
        assert!(!is_silence(&io::Error::from_raw_os_error(104)));
        assert!(!is_silence(&io::Error::from(ErrorKind::TimedOut)));
    }
}
