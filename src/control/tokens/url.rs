//! Keys from a URL, fetched again and again: when, and what becomes of what came.
//!
//! Holds: the next fetch is due after the interval, or sooner if the server says so; after failures, after pauses that
//! grow. A token with an unknown key makes it due at once, but never sooner than `interval_min` after the last one began,
//! so that no flood of tokens becomes a flood of fetches.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep_until};

use super::desk::{Desk, Taken};
use super::fetch::Fetcher;
use crate::control::backoff::Backoff;
use crate::control::config::Tokens;

/// The pause after a first failure, and the longest one; never longer than the interval.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Rounds {
    fetcher: Fetcher,
    desk: Desk,
    interval: Duration,
    interval_min: Duration,
    backoff: Backoff,
    /// What the server calls the version in use.
    etag: Option<HeaderValue>,
}

impl Rounds {
    pub(super) fn new(fetcher: Fetcher, tokens: &Tokens, desk: Desk) -> Self {
        let (interval, interval_min) = (tokens.interval, tokens.interval_min);
        let backoff = Backoff::new(PAUSE_FIRST.min(interval), PAUSE_LONGEST.min(interval));
        Self { fetcher, desk, interval, interval_min, backoff, etag: None }
    }

    /// Fetches for ever. `block` is dropped after the first time.
    pub(super) async fn follow<B>(mut self, block: B) {
        let mut begun = Instant::now();
        let mut pause = self.round().await;
        drop(block);
        loop {
            self.wait(begun, Instant::now() + pause).await;
            begun = Instant::now();
            pause = self.round().await;
        }
    }

    /// Fetches once. Says how long to pause.
    async fn round(&mut self) -> Duration {
        let tokens = &self.desk.vitals().tokens;
        let got = self.fetcher.fetch(self.etag.as_ref()).await;
        let taken = got.and_then(|got| match &got.text {
            Some(text) => Ok((self.desk.take(text)?, got)),
            None => {
                self.desk.confirm();
                Ok((Taken::Unchanged, got))
            }
        });
        let (taken, got) = match taken {
            Ok(taken) => taken,
            Err(problem) => {
                self.desk.complain(&problem);
                tokens.fetches.failed.bump();
                return self.backoff.pause();
            }
        };
        match taken {
            Taken::Changed => tokens.fetches.changed.bump(),
            Taken::Unchanged => tokens.fetches.unchanged.bump(),
        }
        tokens.satisfy();
        // A server that says nothing with a 304 means the mark that it was sent.
        if got.text.is_some() || got.etag.is_some() {
            self.etag = got.etag;
        }
        self.backoff.reset();
        self.pause_after(got.max_age)
    }

    /// How long what came is good, as the server and the settings say; never quite the same for two routers.
    fn pause_after(&mut self, max_age: Option<Duration>) -> Duration {
        let due = max_age.unwrap_or(self.interval).max(self.interval_min).min(self.interval);
        self.backoff.spread(due).max(self.interval_min)
    }

    /// Waits until the next fetch is due, or a token brings it about.
    async fn wait(&self, begun: Instant, due: Instant) {
        let tokens = &self.desk.vitals().tokens;
        tokio::select! {
            biased;
            () = sleep_until(due) => return,
            () = tokens.wanted() => {}
        }
        let earliest = begun + self.interval_min;
        if earliest < due {
            tokens.fetches.early.bump();
        }
        sleep_until(earliest.min(due)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::vitals::Vitals;

    #[test]
    fn the_server_may_shorten_the_interval_within_bounds() {
        let tokens = Tokens { url: Some("https://issuer/keys".parse().unwrap()), ..Tokens::default() };
        let vitals = Arc::new(Vitals::new(1, std::time::Instant::now()));
        let desk = Desk::new("token-jwks-url".to_owned(), Duration::from_secs(60), vitals);
        let fetcher = Fetcher::new("https://issuer/keys".parse().unwrap(), &tokens);
        let mut rounds = Rounds::new(fetcher, &tokens, desk);
        for (max_age, shortest, longest) in
            [(None, 150, 300), (Some(86_400), 150, 300), (Some(100), 50, 100), (Some(0), 30, 30)]
        {
            for _ in 0..50 {
                let pause = rounds.pause_after(max_age.map(Duration::from_secs));
                let bounds = Duration::from_secs(shortest)..=Duration::from_secs(longest);
                assert!(bounds.contains(&pause), "{pause:?} for {max_age:?}");
            }
        }
    }
}
