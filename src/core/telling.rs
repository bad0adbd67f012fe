//! When to say in the log that something fails and that it works again: at once, and then not for a while, however
//! often it goes to and fro.

use std::time::{Duration, Instant};

/// Between two lines that something fails.
const QUIET: Duration = Duration::from_secs(5);

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Telling {
    told_at: Option<Instant>,
    /// Whether the log has it that it fails.
    is_open: bool,
}

impl Telling {
    /// It fails. Says whether to say so.
    pub fn fails(&mut self, now: Instant) -> bool {
        let due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        if due {
            (self.told_at, self.is_open) = (Some(now), true);
        }
        due
    }

    /// It works. Says whether to say so: where the log has it that it fails.
    pub fn works(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_and_works_over_and_over_is_told_once_in_a_while() {
        let (start, mut telling) = (Instant::now(), Telling::default());
        assert!(!telling.works(), "nobody was told that it fails");
        assert!(telling.fails(start) && telling.works());
        for millis in 1..5000 {
            assert!(!telling.fails(start + Duration::from_millis(millis)));
            assert!(!telling.works());
        }
        assert!(telling.fails(start + QUIET));
        assert!(telling.works() && !telling.works());
    }

    #[test]
    fn what_goes_on_failing_is_told_again() {
        let (start, mut telling) = (Instant::now(), Telling::default());
        let told = (0..60).filter(|&seconds| telling.fails(start + Duration::from_secs(seconds))).count();
        assert_eq!(told, 12);
    }
}
