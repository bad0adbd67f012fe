//! What operators see: access log, metrics, trace log, admin port, readiness.

pub mod access_log;
pub mod admin;
pub mod descriptors;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod priority;
pub mod ready;
pub mod signal;
mod spool;
