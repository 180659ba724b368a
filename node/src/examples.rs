//! The example modules that the binary carries, so that the demo and the load generator need no files beside it. They are built
//! from examples/ by scripts/build-modules and committed.

/// Name and component of each module.
pub const BUNDLED: &[(&str, &[u8])] = &[
    ("duel", include_bytes!("../../examples/duel/duel.wasm")),
    ("arena", include_bytes!("../../examples/arena/arena.wasm")),
    ("echo", include_bytes!("../../examples/echo/echo.wasm")),
    ("ticker", include_bytes!("../../examples/ticker/ticker.wasm")),
    ("village", include_bytes!("../../examples/village/village.wasm")),
];

/// The configuration of the demo's cluster beside what each node's environment says: the world of the village, and a queue.
pub const WORLD: &str = include_str!("../../examples/village/world.toml");

/// How the village's items look: an object of descriptions, for the shared content's collection `items`.
pub const ITEMS: &str = include_str!("../../examples/village/items.json");

#[cfg(test)]
mod tests;
