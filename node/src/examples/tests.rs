//! What every committed component must be, whatever its rules.

use super::BUNDLED;

/// A node compiles each module it meets; at about 1 ms a kilobyte this is a tenth of a second.
const SIZE_BYTES_MAX: usize = 150_000;

#[test]
fn each_is_a_small_component_that_asks_for_nothing_but_the_contract() {
    for (name, component) in BUNDLED {
        assert!(component.len() < SIZE_BYTES_MAX, "{name} has {} bytes", component.len());
        let mut depth = 0;
        for payload in wasmparser::Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                wasmparser::Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        let import = import.unwrap();
                        // The types that the exports use are imported too; they give a guest no power.
                        let is_type = matches!(import.ty, wasmparser::ComponentTypeRef::Type(_));
                        let name_of_import = import.name.name;
                        assert!(
                            is_type || name_of_import.starts_with("rookery:game/"),
                            "{name} imports {name_of_import}"
                        );
                    }
                }
                wasmparser::Payload::ModuleSection { .. } | wasmparser::Payload::ComponentSection { .. } => depth += 1,
                wasmparser::Payload::End(_) => depth -= 1,
                _ => {}
            }
        }
    }
}

#[test]
fn none_tells_whose_machine_built_it() {
    for (name, component) in BUNDLED {
        let text = String::from_utf8_lossy(component);
        for path in ["/home/", "/root/", "/Users/", "/tmp/", ".cargo/registry"] {
            assert!(!text.contains(path), "{name} contains {path}");
        }
    }
}
