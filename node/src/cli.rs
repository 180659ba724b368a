//! Placeholder.

pub mod build;
