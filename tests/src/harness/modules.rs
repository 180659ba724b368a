//! The committed components that tests publish.

use rookery::examples::BUNDLED;

/// Returns the component of an example module: `duel`, `arena`, `echo` or `ticker`.
pub fn bundled(name: &str) -> &'static [u8] {
    let module = BUNDLED.iter().find(|(bundled, _)| *bundled == name);
    module.unwrap_or_else(|| panic!("no example module is called {name}")).1
}

/// Returns the component that misbehaves on request; tests/guests/hostile says how to ask.
pub fn hostile() -> &'static [u8] {
    include_bytes!("../../guests/hostile/hostile.wasm")
}

/// Returns the component of a `stored` match that counts its own ticks aloud; tests/guests/counter says how.
pub fn counter() -> &'static [u8] {
    include_bytes!("../../guests/counter/counter.wasm")
}

/// Returns the component of a match that `match.quick` finds by its label; tests/guests/lobby says how.
pub fn lobby() -> &'static [u8] {
    include_bytes!("../../guests/lobby/lobby.wasm")
}

/// Returns the component of a `stored` match that counts what happens to it; tests/guests/ledger says how.
pub fn ledger() -> &'static [u8] {
    include_bytes!("../../guests/ledger/ledger.wasm")
}

/// Returns the component that writes to other matches and sends players there; tests/guests/courier says how.
pub fn courier() -> &'static [u8] {
    include_bytes!("../../guests/courier/courier.wasm")
}
