//! How long a client is still waited for that sends, or takes, too little at a time.
//!
//! At first it has the whole grace. Time in which the router waits for it uses that up; each byte gives some back, what it
//! may take at the slowest rate, but never more than the grace. So a client that keeps the rate up on average is waited
//! for without end, one that is silent for the grace is not, and one at a tenth of the rate only a little longer.
//!
//! Owner: whoever waits: the upload of a request, the link of a connection, the alarm of an HTTP/2 stream.
//! Holds: time in which somebody else is waited for (the replica, the model between two events) does not count; it is
//!        never measured.

use std::time::Duration;

/// What is asked of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// The longest silence.
    pub grace: Duration,
    /// The slowest rate; 0: any, as long as it is not silent.
    pub bytes_per_second: u64,
}

impl Tempo {
    /// What is left of the patience with a client that had `left`, was then waited for so long, and then moved so many
    /// bytes.
    pub fn after(self, left: Duration, waited: Duration, bytes: u64) -> Duration {
        left.saturating_sub(waited).saturating_add(self.earned(bytes)).min(self.grace)
    }

    /// What so many bytes earn.
    pub fn earned(self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000;
        match micros.checked_div(u128::from(self.bytes_per_second)) {
            Some(micros) => Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(self.grace),
            None => self.grace,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEMPO: Tempo = Tempo { grace: Duration::from_secs(30), bytes_per_second: 500 };

    /// How long a client is waited for that moves so many bytes after each pause, if it is not for ever.
    fn patience_with(tempo: Tempo, pause: Duration, bytes: u64) -> Option<Duration> {
        let (mut left, mut waited) = (tempo.grace, Duration::ZERO);
        for _ in 0..10_000 {
            if pause >= left {
                return Some(waited + left);
            }
            waited += pause;
            left = tempo.after(left, pause, bytes);
        }
        None
    }

    #[test]
    fn a_client_that_drips_is_waited_for_little_longer_than_a_silent_one() {
        let second = Duration::from_secs(1);
        assert_eq!(patience_with(TEMPO, Duration::MAX, 1), Some(TEMPO.grace));
        let drips = patience_with(TEMPO, second, 1).unwrap();
        assert!(drips >= TEMPO.grace && drips < TEMPO.grace + second, "{drips:?}");
        let half = patience_with(TEMPO, second, 250).unwrap();
        assert!(half >= TEMPO.grace * 2 - second && half <= TEMPO.grace * 2, "{half:?}");
    }

    #[test]
    fn at_the_rate_it_is_waited_for_without_end() {
        assert_eq!(patience_with(TEMPO, Duration::from_millis(2), 1), None);
        assert_eq!(patience_with(TEMPO, Duration::from_secs(20), 10_000), None);
    }

    #[test]
    fn without_a_rate_any_byte_gives_all_back() {
        let tempo = Tempo { bytes_per_second: 0, ..TEMPO };
        assert_eq!(patience_with(tempo, Duration::from_secs(29), 1), None);
        assert_eq!(patience_with(tempo, Duration::from_secs(30), 1), Some(tempo.grace));
    }

    #[test]
    fn what_came_fast_earns_no_more_than_the_grace() {
        assert_eq!(TEMPO.after(Duration::ZERO, Duration::ZERO, u64::MAX), TEMPO.grace);
        assert_eq!(TEMPO.after(Duration::from_secs(1), Duration::from_secs(2), 500), Duration::from_secs(1));
    }

    proptest! {
        /// Nobody who keeps up the rate over each pause is cut off, whatever the pauses are.
        #[test]
        fn whoever_keeps_up_is_never_out(pauses in prop::collection::vec(1_u64..30_000, 1..200), rate in 1_u64..1_000_000) {
            let tempo = Tempo { bytes_per_second: rate, ..TEMPO };
            let mut left = tempo.grace;
            for pause in pauses.into_iter().map(Duration::from_millis) {
                prop_assert!(pause < left + Duration::from_micros(1));
                let bytes = (pause.as_micros() * u128::from(rate)).div_ceil(1_000_000);
                left = tempo.after(left, pause, u64::try_from(bytes).unwrap());
                prop_assert!(left == tempo.grace);
            }
        }
    }
}
