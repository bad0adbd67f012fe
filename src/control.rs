//! Everything that changes the world, off the data threads: configuration, discovery, publication.

pub mod config;
