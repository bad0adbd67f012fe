//! What tests share: scripted peers and builders. Behind the feature `testing`, never in the shipped binary.
