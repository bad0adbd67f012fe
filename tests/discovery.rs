//! Discovery as a whole: a scripted API server or files on one side, the published snapshot on the other.

#![allow(clippy::expect_used, reason = "a test that cannot go on must stop")]

#[path = "discovery/cluster.rs"]
mod cluster;
#[path = "discovery/files.rs"]
mod files;
#[path = "discovery/harness.rs"]
mod harness;
#[path = "discovery/replica_tls.rs"]
mod replica_tls;
#[path = "discovery/restart.rs"]
mod restart;
#[path = "discovery/state.rs"]
mod state;
