//! From a core WebAssembly module, as a compiler makes it, to the component that a node runs. It neither checks what the
//! component asks for nor runs it: that is `wasm`. The same bytes in give the same bytes out.

use std::borrow::Cow;

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// Why no component was made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("this is not WebAssembly")]
    NotWasm,
    #[error("this is a component already")]
    AlreadyComponent,
    /// It has neither the section in which bindings leave the contract nor the first of the contract's exports.
    #[error(
        "the module does not speak the match contract: in Rust, is `rookery_sdk::export!(..)` missing? In other languages, is \
         `{FIRST_EXPORT}` exported?"
    )]
    NoContract,
    #[error("the module cannot become a component: {reason}")]
    Refused { reason: String },
}

/// The first eight bytes of a core module: magic number, version 1, layer 0.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// The custom sections in which `wit-bindgen` leaves the contract; a name may go on with the world's.
const CONTRACT_SECTION: &str = "component-type";
/// What match logic exports under the canonical ABI's names says what it is, when no bindings were at work.
const FIRST_EXPORT: &str = "describe";
const CONTRACT: &str = include_str!("../../wasm-sdk/wit/match.wit");
const WORLD: &str = "match-logic";

/// Wraps a core module into a component. One that was built with the SDK brings the contract with it; one whose imports and exports
/// have the names of the canonical ABI, as modules in C and AssemblyScript do, is given it.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    if !core_module.starts_with(b"\0asm") {
        return Err(ComponentError::NotWasm);
    }
    if !core_module.starts_with(CORE_MODULE) {
        return Err(ComponentError::AlreadyComponent);
    }
    let refused = |error: &dyn std::fmt::Display| ComponentError::Refused {
        reason: format!("{error:#}"),
    };
    let mut core_module = Cow::Borrowed(core_module);
    match spoken(&core_module).map_err(|error| refused(&error))? {
        Spoken::WithContract => {}
        Spoken::ByName => embed_contract(core_module.to_mut()).map_err(|reason| ComponentError::Refused { reason })?,
        Spoken::Otherwise => return Err(ComponentError::NoContract),
    }
    ComponentEncoder::default()
        .validate(true)
        .module(&core_module)
        .map_err(|error| refused(&error))?
        .encode()
        .map_err(|error| refused(&error))
}

/// How a core module says that it is match logic.
enum Spoken {
    WithContract,
    ByName,
    Otherwise,
}

fn spoken(core_module: &[u8]) -> Result<Spoken, wasmparser::BinaryReaderError> {
    let mut spoken = Spoken::Otherwise;
    for payload in Parser::new(0).parse_all(core_module) {
        match payload? {
            Payload::CustomSection(section) if section.name().starts_with(CONTRACT_SECTION) => {
                return Ok(Spoken::WithContract);
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    if export?.name == FIRST_EXPORT {
                        spoken = Spoken::ByName;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(spoken)
}

fn embed_contract(core_module: &mut Vec<u8>) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("match.wit", CONTRACT)
        .map_err(|error| format!("{error:#}"))?;
    let world = resolve
        .select_world(&[package], Some(WORLD))
        .map_err(|error| format!("{error:#}"))?;
    wit_component::embed_component_metadata(core_module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| format!("{error:#}"))
}

// The path is given because scripts/componentize includes this file from elsewhere.
#[cfg(test)]
#[path = "component/tests.rs"]
mod tests;
