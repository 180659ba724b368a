//! The Rookery server as a library: everything that the `rookery` binary composes. ARCHITECTURE.md is the map.

pub mod auth;
pub mod cli;
pub mod component;
pub mod config;
pub mod demo;
pub mod examples;
pub mod gateway;
pub mod load;
pub mod log;
pub mod matches;
pub mod metrics;
pub mod modules;
pub mod node;
pub mod operations;
pub mod ops;
pub mod owner;
pub mod pages;
pub mod peer;
pub mod placement;
pub mod session;
pub mod store;
pub mod wasm;
