//! Waiting for what must come to pass, with a deadline instead of a guess at how long it takes.

use std::time::{Duration, Instant};

/// Long enough for the slowest machine; nothing takes this long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again and again until `look` sees something. Panics with `what` when it never does.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
