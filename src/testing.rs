//! What tests share: scripted peers and builders. Behind the feature `testing`, never in the shipped binary.

#![allow(clippy::expect_used, clippy::panic, reason = "what supports tests fails by panicking, as tests do")]

pub mod eventually;
pub mod fake_api;
pub mod objects;
