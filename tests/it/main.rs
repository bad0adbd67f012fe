//! The whole router in-process, over real sockets, with scripted replicas and raw clients.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod abandon;
mod auth_failures;
mod changes;
mod cors;
mod downgrade;
mod drain;
mod early;
mod full_backlog;
mod h2_floods;
mod heads;
mod hostile;
mod limits;
#[cfg(target_os = "linux")]
mod long_answers;
mod memory;
mod mirror;
mod protocol;
mod proxy_protocol;
mod queueing;
mod rates;
mod regressions;
mod relay;
mod replica_tls;
mod requests_per_connection;
mod rest;
mod retry;
mod routing;
mod shares;
mod slow_clients;
mod slow_readers;
mod smuggling;
mod streaming;
mod tls;
mod tokens;
