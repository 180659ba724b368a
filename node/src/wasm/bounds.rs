//! What a component may be made of, so that compiling it comes to an end and an instance of it costs the host little. Read off its bytes
//! before anything is compiled: a compiler cannot be told to stop, and what it keeps for each instance of a module (a word for every
//! global, an entry for every function) is no linear memory, so no budget of a match counts it.
//!
//! Invariant: what passes compiles in a time that its size bounds. Each figure is some ten times what the largest components that we know
//! need, which are whole interpreters.

use wasmparser::{
    BinaryReaderError, BlockType, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, CompositeInnerType,
    Encoding, FunctionBody, Instance, Operator, Parser, Payload, TypeRef,
};

/// The code of one function. The greatest loop of Python's interpreter has 417 KiB.
const FUNCTION_BYTES_MAX: usize = 4 << 20;

/// Local variables of a function times its blocks: a compiler that builds SSA form may have to carry each through every one. Python's
/// interpreter has less than 830,000, JavaScript's less than 1,330,000.
const BLOCK_LOCALS_MAX: u64 = 16_000_000;

/// The same of all functions together.
const ALL_BLOCK_LOCALS_MAX: u64 = 256_000_000;

/// Results of a function or a block. A component's own functions have one at most, and compilers rarely make more of it.
const RESULTS_MAX: usize = 32;

/// What the host keeps of all core instances of one match beside their memories and tables. Python's 38 modules come to half a MiB.
const HOST_BYTES_MAX: u64 = 8 << 20;

/// Of a global and of a function that can be referred to. Which functions can is not looked into: all count.
const GLOBAL_BYTES: u64 = 16;
const FUNCTION_BYTES: u64 = 32;

/// How often a module inside of a nested component may be instantiated, at most (`Limits::instances`).
const NESTED_INSTANCES: u64 = 64;

/// Why a component is not compiled. The text is for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    #[error("it cannot be read: {0}")]
    Malformed(String),
    #[error("function {function} of a core module has {bytes} bytes of code, and the most is {FUNCTION_BYTES_MAX}")]
    Function { function: u32, bytes: usize },
    #[error(
        "function {function} of a core module has {locals} local variables and {blocks} blocks, and the most of one times the other \
         is {BLOCK_LOCALS_MAX}"
    )]
    Blocks { function: u32, locals: u64, blocks: u64 },
    #[error(
        "its functions have too many blocks for their local variables: of one times the other they may have {ALL_BLOCK_LOCALS_MAX} \
         together"
    )]
    AllBlocks,
    #[error("a function type has {results} results, and the most is {RESULTS_MAX}")]
    Results { results: usize },
    #[error(
        "each match of it would take {bytes} bytes of the host beside its memory (its core instances have {functions} functions and \
         {globals} globals), and the most is {HOST_BYTES_MAX}"
    )]
    HostBytes { bytes: u64, functions: u64, globals: u64 },
}

impl From<BinaryReaderError> for OutOfBounds {
    fn from(error: BinaryReaderError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Refuses what is out of all proportion.
pub(super) fn check(component: &[u8]) -> Result<(), OutOfBounds> {
    let mut sums = Sums::default();
    // Of each open component or module, from the outside in.
    let mut open: Vec<Open> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let is_at_top = open.len() == 1;
        match payload? {
            Payload::Version { encoding, .. } => open.push(match encoding {
                Encoding::Module => Open::Module(CoreModule::default()),
                Encoding::Component => Open::Component,
            }),
            Payload::End(_) => {
                if let Some(Open::Module(module)) = open.pop() {
                    // The component itself is below it.
                    sums.module(module, open.len() == 1);
                }
            }
            Payload::InstanceSection(section) if is_at_top => {
                for instance in section {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        sums.instantiated.push(module_index);
                    }
                }
            }
            payload => match open.last_mut() {
                Some(Open::Module(module)) => module.section(payload)?,
                Some(Open::Component) if is_at_top => sums.has_foreign |= brings_modules(payload)?,
                Some(Open::Component) | None => {}
            },
        }
    }
    sums.judge()
}

/// Whether core modules come from elsewhere than the component's own sections, which makes their numbers others than ours.
fn brings_modules(payload: Payload<'_>) -> Result<bool, BinaryReaderError> {
    match payload {
        Payload::ComponentAliasSection(section) => {
            for alias in section {
                match alias? {
                    ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Module,
                        ..
                    }
                    | ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::CoreModule,
                        ..
                    } => return Ok(true),
                    _ => {}
                }
            }
            Ok(false)
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                if import?.ty.kind() == ComponentExternalKind::Module {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

enum Open {
    Component,
    Module(CoreModule),
}

/// What is counted of one core module.
#[derive(Default)]
struct CoreModule {
    globals: u64,
    functions: u64,
    /// Of each type, how many parameters and results a function or block of it has; 0 for what is no function.
    arities: Vec<u64>,
    block_locals: u64,
    code: u32,
}

impl CoreModule {
    fn section(&mut self, payload: Payload<'_>) -> Result<(), OutOfBounds> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group?.into_types() {
                        self.arities.push(match &ty.composite_type.inner {
                            CompositeInnerType::Func(function) => {
                                let results = function.results().len();
                                if results > RESULTS_MAX {
                                    return Err(OutOfBounds::Results { results });
                                }
                                (function.params().len() + results) as u64
                            }
                            _ => 0,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.functions += 1,
                        TypeRef::Global(_) => self.globals += 1,
                        TypeRef::Memory(_) | TypeRef::Table(_) | TypeRef::Tag(_) => {}
                    }
                }
                self.code = self.functions as u32;
            }
            // The parser has not looked yet whether there are so many; each takes a byte at least, so the size of the component bounds it.
            Payload::FunctionSection(section) => self.functions += u64::from(section.count()),
            Payload::GlobalSection(section) => self.globals += u64::from(section.count()),
            Payload::CodeSectionEntry(body) => {
                self.block_locals += self.function(&body)?;
                self.code += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// The locals of one function times its blocks.
    fn function(&self, body: &FunctionBody<'_>) -> Result<u64, OutOfBounds> {
        let function = self.code;
        let bytes = body.as_bytes().len();
        if bytes > FUNCTION_BYTES_MAX {
            return Err(OutOfBounds::Function { function, bytes });
        }
        let mut locals = 0_u64;
        for local in body.get_locals_reader()? {
            locals += u64::from(local?.0);
        }
        let (mut blocks, mut widest) = (0_u64, 0_u64);
        for operator in body.get_operators_reader()? {
            let ty = match operator? {
                Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => blockty,
                Operator::TryTable { try_table } => try_table.ty,
                _ => continue,
            };
            blocks += 1;
            if let BlockType::FuncType(ty) = ty {
                widest = widest.max(self.arities.get(ty as usize).copied().unwrap_or_default());
            }
        }
        let locals = locals + widest;
        let both = locals.saturating_mul(blocks);
        if both > BLOCK_LOCALS_MAX {
            return Err(OutOfBounds::Blocks {
                function,
                locals,
                blocks,
            });
        }
        Ok(both)
    }
}

/// What is counted of the whole component.
#[derive(Default)]
struct Sums {
    /// Functions and globals of the modules that stand in the component itself, by their number.
    modules: Vec<(u64, u64)>,
    /// The numbers of those that it instantiates. Others come from elsewhere and are counted there.
    instantiated: Vec<u32>,
    /// The numbers may name other modules than those: each may be the largest.
    has_foreign: bool,
    nested_functions: u64,
    nested_globals: u64,
    block_locals: u64,
}

impl Sums {
    fn module(&mut self, module: CoreModule, is_at_top: bool) {
        self.block_locals = self.block_locals.saturating_add(module.block_locals);
        if is_at_top {
            self.modules.push((module.functions, module.globals));
        } else {
            let nested = |count: u64| count.saturating_mul(NESTED_INSTANCES);
            self.nested_functions = self.nested_functions.saturating_add(nested(module.functions));
            self.nested_globals = self.nested_globals.saturating_add(nested(module.globals));
        }
    }

    fn judge(&self) -> Result<(), OutOfBounds> {
        if self.block_locals > ALL_BLOCK_LOCALS_MAX {
            return Err(OutOfBounds::AllBlocks);
        }
        let (mut functions, mut globals) = (self.nested_functions, self.nested_globals);
        let bytes_of = |(functions, globals): (u64, u64)| {
            functions
                .saturating_mul(FUNCTION_BYTES)
                .saturating_add(globals.saturating_mul(GLOBAL_BYTES))
        };
        let largest = self.modules.iter().copied().max_by_key(|module| bytes_of(*module));
        for module in &self.instantiated {
            let own = match self.has_foreign {
                true => largest,
                false => self.modules.get(*module as usize).copied(),
            };
            let (more_functions, more_globals) = own.unwrap_or_default();
            functions = functions.saturating_add(more_functions);
            globals = globals.saturating_add(more_globals);
        }
        let bytes = bytes_of((functions, globals));
        match bytes > HOST_BYTES_MAX {
            true => Err(OutOfBounds::HostBytes {
                bytes,
                functions,
                globals,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{CodeSection, Component, Function, FunctionSection, Module, ModuleSection, TypeSection};

    use super::*;
    use crate::examples::BUNDLED;

    fn checked(wat: &str) -> Result<(), OutOfBounds> {
        check(&wat::parse_str(wat).unwrap())
    }

    fn component(module: &str, instances: usize) -> String {
        let instances = "(core instance (instantiate $m))".repeat(instances);
        format!("(component (core module $m {module}) {instances})")
    }

    #[test]
    fn the_modules_that_come_with_the_server_are_far_from_the_bounds() {
        for (name, module) in BUNDLED {
            assert_eq!(check(module), Ok(()), "{name}");
        }
    }

    #[test]
    fn globals_count_for_every_instance() {
        let many = "(global i32 (i32.const 0))".repeat(10_000);
        assert_eq!(checked(&component(&many, 50)), Ok(()));
        let refused = checked(&component(&many, 60)).unwrap_err();
        assert_eq!(
            refused,
            OutOfBounds::HostBytes {
                bytes: 9_600_000,
                functions: 0,
                globals: 600_000
            }
        );
        let nested = format!("(component (component (core module {})))", many);
        assert!(matches!(checked(&nested), Err(OutOfBounds::HostBytes { .. })));
    }

    #[test]
    fn functions_count_too() {
        let many = "(func)".repeat(10_000);
        assert_eq!(checked(&component(&many, 26)), Ok(()));
        let refused = checked(&component(&many, 27)).unwrap_err();
        assert!(
            refused.to_string().contains("270000 functions and 0 globals"),
            "{refused}"
        );
    }

    #[test]
    fn a_function_that_no_compiler_would_get_through_is_refused() {
        let locals = "(local i32)".repeat(10_000);
        let function = |blocks: usize| {
            let blocks = "(loop)".repeat(blocks);
            component(&format!("(func) (func {locals} {blocks})"), 1)
        };
        assert_eq!(checked(&function(1_600)), Ok(()));
        assert_eq!(
            checked(&function(1_601)),
            Err(OutOfBounds::Blocks {
                function: 1,
                locals: 10_000,
                blocks: 1_601
            })
        );
        // Many that would pass one by one.
        let one = format!("(func {locals} {})", "(loop)".repeat(1_600));
        assert_eq!(checked(&component(&one.repeat(17), 1)), Err(OutOfBounds::AllBlocks));
    }

    #[test]
    fn what_blocks_take_along_counts_as_locals() {
        let params = "i32 ".repeat(1_000);
        let wide = |blocks: usize| {
            let zeros = "(i32.const 0)".repeat(1_000);
            let blocks = "loop (type $wide) drop ".repeat(blocks) + &"end ".repeat(blocks);
            let body = format!("{zeros} {blocks}");
            component(&format!("(type $wide (func (param {params}))) (func {body})"), 1)
        };
        // It need not be valid: it is read before anybody validates it.
        assert_eq!(checked(&wide(100)), Ok(()));
        assert!(matches!(
            checked(&wide(16_001)),
            Err(OutOfBounds::Blocks { locals: 1_000, .. })
        ));
        let results = "i32 ".repeat(33);
        let many_results = component(&format!("(type (func (result {results})))"), 1);
        assert_eq!(checked(&many_results), Err(OutOfBounds::Results { results: 33 }));
    }

    #[test]
    fn the_code_of_a_function_has_a_size() {
        // As bytes: its text would take a while to read.
        let mut body = Function::new([]);
        body.raw(std::iter::repeat_n(0x01, FUNCTION_BYTES_MAX).chain([0x0b]));
        let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
        types.ty().function([], []);
        functions.function(0);
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&code);
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        let refused = check(&component.finish()).unwrap_err();
        assert!(
            matches!(refused, OutOfBounds::Function { function: 0, .. }),
            "{refused}"
        );
    }

    #[test]
    fn damage_is_no_panic() {
        let whole = BUNDLED[0].1;
        for cut in [0, 4, 8, whole.len() / 3, whole.len() - 1] {
            assert!(matches!(check(&whole[..cut]), Err(OutOfBounds::Malformed(_)) | Ok(())));
        }
    }
}
