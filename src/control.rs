//! Everything that changes the world, off the data threads: configuration, discovery, publication.

mod backoff;
pub mod certificates;
pub mod check;
pub mod config;
mod courtesy;
pub mod discovery;
pub mod facts;
mod files;
pub mod index;
mod kube;
pub mod manifests;
mod nearest;
pub mod objects;
pub mod publish;
pub mod registry;
pub mod state_file;
pub mod tokens;
