//! The path of a request: accept, connection, exchange, admit, forward, respond.
//!
//! Every worker is one thread with one runtime and owns what it needs: idle connections, log buffer, counters. What
//! workers share is atomic and belongs to `core`. Files in the order in which a request meets them:
//! `listen` hands sockets to workers, `proxied` reads who the client is, `tls` does the handshake, `connection` speaks
//! HTTP on one, `exchange` carries one request through `auth`, `admit` and `forward`, which speaks to a replica by way of
//! `upstream`, and `respond` turns the end into an answer.

pub(crate) mod admit;
mod alarm;
pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod counted;
pub(crate) mod entry;
mod exchange;
pub(crate) mod forward;
pub(crate) mod gather;
pub(crate) mod headers;
mod health;
pub(crate) mod kept;
mod late;
pub(crate) mod ledger;
pub(crate) mod linger;
pub(crate) mod link;
pub mod listen;
pub(crate) mod meter;
pub(crate) mod mirror;
pub(crate) mod outgoing;
pub(crate) mod paced;
pub(crate) mod pause;
pub(crate) mod pending;
pub(crate) mod pool;
pub(crate) mod proxied;
pub(crate) mod reach;
pub(crate) mod redirect;
mod relay;
pub(crate) mod replica_tls;
pub(crate) mod respond;
pub(crate) mod socket;
pub(crate) mod splice;
pub(crate) mod stream;
pub(crate) mod timing;
pub mod tls;
pub(crate) mod tunnel;
pub(crate) mod upload;
pub(crate) mod upstream;
mod vanished;
pub(crate) mod watched;
pub mod worker;
