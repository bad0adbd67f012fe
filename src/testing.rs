//! What tests share: scripted peers, builders, the router in-process. Behind the feature `testing`, never in the
//! shipped binary.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must stop")]

use std::time::{Duration, Instant};

pub mod client;
pub mod fake_api;
pub mod fuzz;
pub mod lone;
pub mod objects;
pub mod replica;
pub mod router;
pub mod steps;
pub mod world;

/// How long a test waits for something that should happen at once. Never decides whether something was fast enough.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
