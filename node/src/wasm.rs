//! The sandbox: compiles match logic, holds it to its budgets, and gives it the imports of match.wit and nothing else. What the
//! events of a match mean is `matches`; when they happen is `owner`. Invariant: nothing that a component does can harm more than
//! the one match it belongs to, and nothing it can observe differs from one machine to the next.

mod accessor;
mod bounds;
pub mod cache;
pub mod check;
pub mod engine;
pub mod host;
pub mod image;
pub mod instance;
pub mod limits;
pub mod manifest;
pub mod module;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod ticker;
pub mod trap;

pub use accessor::NotCapturable;
pub use bounds::OutOfBounds;
pub use check::{Finding, Report, Severity};
pub use engine::{Engine, EngineConfig};
pub use image::{Image, ImageError};
pub use limits::Limits;
pub use manifest::{Durability, Manifest};
pub use module::{Module, ModuleError};
pub use trap::Failure;
