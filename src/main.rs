//! Scorefront: an open front-end router for model inference on Kubernetes.

fn main() {}
