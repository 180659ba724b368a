//! The server as a library of its own tests: a harness that starts real nodes and breaks them.

pub mod harness;
