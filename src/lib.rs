//! Scorefront: an open front-end router for model inference on Kubernetes.
//!
//! The planes, in the order in which a change of the world and then a request meets them:
//! - [`control`] watches Kubernetes objects or manifests, makes facts of them and publishes a snapshot;
//! - [`core`] decides: facts become a snapshot; a request becomes a route, a slot, an outcome. No I/O in it;
//! - [`data`] is the path of a request: accept, connection, exchange, admit, forward, respond;
//! - [`ops`] is what operators see: access log, metrics, trace log, admin port;
//! - [`app`] puts them together, [`quickstart`] puts sample replicas behind them.
//!
//! `core` imports none of the others, `data` and `control` do not know each other; they meet at one
//! `Arc<ArcSwap<Snapshot>>`. `tests/architecture.rs` holds them to it.

pub mod app;
pub mod control;
pub mod core;
pub mod data;
pub mod ops;
pub mod quickstart;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
