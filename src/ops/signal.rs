//! The signals that the process listens to, as a stream of requests.
//!
//! SIGTERM and SIGINT: drain, and the second one of either: end at once. SIGHUP: open the log files anew.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Drain, then end.
    Drain,
    /// End now.
    Quit,
    /// Open the log files anew.
    Reopen,
}

/// See the head of the file. From its creation on, the signals no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    asked_to_end: bool,
}

impl Signals {
    /// Starts to listen; must be called within a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            asked_to_end: false,
        })
    }

    /// The next request. Cancel-safe. Several signals of one kind that come at once may count as one.
    pub async fn next(&mut self) -> Request {
        let end = tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        };
        match (end, self.asked_to_end) {
            (false, _) => Request::Reopen,
            (true, true) => Request::Quit,
            (true, false) => {
                self.asked_to_end = true;
                Request::Drain
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};
    use std::time::Duration;

    use super::*;

    fn raise(name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", id())]).status();
        assert!(status.expect("sh runs").success());
    }

    async fn next(signals: &mut Signals) -> Request {
        tokio::time::timeout(Duration::from_secs(10), signals.next()).await.expect("the signal arrives")
    }

    #[tokio::test]
    async fn the_first_end_drains_the_second_quits_and_hangup_reopens() {
        let mut signals = Signals::listen().expect("signals");
        raise("HUP");
        assert_eq!(next(&mut signals).await, Request::Reopen);
        raise("TERM");
        assert_eq!(next(&mut signals).await, Request::Drain);
        raise("HUP");
        assert_eq!(next(&mut signals).await, Request::Reopen);
        raise("INT");
        assert_eq!(next(&mut signals).await, Request::Quit);
    }
}
