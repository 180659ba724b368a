//! From a core WebAssembly module, as a compiler makes it, to the component that a node runs. It neither checks what the
//! component asks for nor runs it: that is `wasm`. The same bytes in give the same bytes out.

use wit_component::ComponentEncoder;

/// Why no component was made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("this is not WebAssembly")]
    NotWasm,
    #[error("this is a component already")]
    AlreadyComponent,
    /// The bindings leave a custom section with the types of the contract; without it nothing says what the exports mean.
    #[error("the module does not speak the match contract: is `rookery_sdk::export!(..)` missing?")]
    NoContract,
    #[error("the module cannot become a component: {reason}")]
    Refused { reason: String },
}

/// The first eight bytes of a core module: magic number, version 1, layer 0.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// The custom sections in which `wit-bindgen` leaves the contract; a name may go on with the world's.
const CONTRACT_SECTION: &[u8] = b"component-type";

/// Wraps a core module that was built with the SDK into a component.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    if !core_module.starts_with(b"\0asm") {
        return Err(ComponentError::NotWasm);
    }
    if !core_module.starts_with(CORE_MODULE) {
        return Err(ComponentError::AlreadyComponent);
    }
    if !core_module
        .windows(CONTRACT_SECTION.len())
        .any(|window| window == CONTRACT_SECTION)
    {
        return Err(ComponentError::NoContract);
    }
    let refused = |error: &dyn std::fmt::Display| ComponentError::Refused {
        reason: format!("{error:#}"),
    };
    ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .map_err(|error| refused(&error))?
        .encode()
        .map_err(|error| refused(&error))
}

// The path is given because scripts/componentize includes this file from elsewhere.
#[cfg(test)]
#[path = "component/tests.rs"]
mod tests;
