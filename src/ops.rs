//! What operators see: access log, metrics, trace log, admin port, readiness.
