//! What a component consists of, as far as its state is concerned: which core modules it has, which of them it instantiates, and what
//! each defines that can change while a match runs. Whatever can change and cannot be captured is refused here, for everything that
//! the accessor does not see would be missing from every image.

use std::collections::BTreeSet;
use std::ops::Range;

use wasmparser::{
    BinaryReaderError, CanonicalFunction, Chunk, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind,
    ElementItems, Encoding, ExternalKind, FunctionBody, Instance, Operator, Parser, Payload, TypeRef, ValType,
};

use super::{NotCapturable, RESERVED};

/// A component, in pieces.
pub(super) struct Survey<'a> {
    /// All of it in order; only core modules are looked into.
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) modules: Vec<CoreModule>,
    /// Core instances that were made of a module: their index, and that of the module in `modules`.
    pub(super) instances: Vec<(u32, usize)>,
    pub(super) spaces: Spaces,
}

pub(super) enum Piece<'a> {
    Raw(&'a [u8]),
    /// The bytes of the next of the modules.
    Module(&'a [u8]),
}

/// What a core module defines that a call may change, by the module's own indices.
#[derive(Default)]
pub(super) struct CoreModule {
    pub(super) memories: Vec<u32>,
    pub(super) globals: Vec<(u32, Word)>,
}

/// The types of mutable globals that are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    I32,
    I64,
    F32,
    F64,
    V128,
}

/// How many of each sort a component has at its end, which is the index of the next one.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    pub(super) core_functions: u32,
    pub(super) core_memories: u32,
    pub(super) core_globals: u32,
    pub(super) core_instances: u32,
    pub(super) modules: u32,
    pub(super) functions: u32,
    pub(super) types: u32,
    pub(super) instances: u32,
}

impl Spaces {
    fn add(&mut self, kind: ComponentExternalKind) {
        match kind {
            ComponentExternalKind::Module => self.modules += 1,
            ComponentExternalKind::Func => self.functions += 1,
            ComponentExternalKind::Type => self.types += 1,
            ComponentExternalKind::Instance => self.instances += 1,
            ComponentExternalKind::Component | ComponentExternalKind::Value => {}
        }
    }
}

/// Takes a component apart.
pub(super) fn survey(component: &[u8]) -> Result<Survey<'_>, NotCapturable> {
    let mut survey = Survey {
        pieces: Vec::new(),
        modules: Vec::new(),
        instances: Vec::new(),
        spaces: Spaces::default(),
    };
    // Where the bytes of each core module are to be found: only those that stand in the component itself can be changed.
    let mut defined: Vec<Option<usize>> = Vec::new();
    let mut parser = Parser::new(0);
    let mut at = 0;
    loop {
        let (consumed, payload) = match parser.parse(&component[at..], true)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            Chunk::NeedMoreData(_) => return Err(NotCapturable::Malformed("it ends too early".into())),
        };
        let mut next = at + consumed;
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                let bytes = inside(component, unchecked_range)?;
                next += bytes.len();
                defined.push(Some(survey.modules.len()));
                survey.spaces.modules += 1;
                survey.modules.push(core_module(bytes)?);
                survey.pieces.push(Piece::Module(bytes));
                at = next;
                continue;
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                let bytes = inside(component, unchecked_range)?;
                next += bytes.len();
                check_nested(bytes)?;
            }
            Payload::End(_) => {
                survey.pieces.push(Piece::Raw(&component[at..next]));
                return Ok(survey);
            }
            payload => {
                survey.section(payload, &defined)?;
                defined.resize(survey.spaces.modules as usize, None);
            }
        }
        survey.pieces.push(Piece::Raw(&component[at..next]));
        at = next;
    }
}

impl Survey<'_> {
    fn section(&mut self, payload: Payload<'_>, defined: &[Option<usize>]) -> Result<(), NotCapturable> {
        let spaces = &mut self.spaces;
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => return Err(NotCapturable::Malformed("it is a core module".into())),
            Payload::InstanceSection(section) => {
                for instance in section {
                    match instance? {
                        Instance::Instantiate { module_index, .. } => {
                            let module = defined.get(module_index as usize).copied().flatten();
                            let module = module.ok_or(NotCapturable::ForeignModule)?;
                            self.instances.push((spaces.core_instances, module));
                        }
                        Instance::FromExports(_) => {}
                    }
                    spaces.core_instances += 1;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => spaces.add(kind),
                        ComponentAlias::CoreInstanceExport { kind, .. } => match kind {
                            ExternalKind::Func | ExternalKind::FuncExact => spaces.core_functions += 1,
                            ExternalKind::Memory => spaces.core_memories += 1,
                            ExternalKind::Global => spaces.core_globals += 1,
                            ExternalKind::Table | ExternalKind::Tag => {}
                        },
                        ComponentAlias::Outer { kind, .. } => match kind {
                            ComponentOuterAliasKind::CoreModule => spaces.modules += 1,
                            ComponentOuterAliasKind::Type => spaces.types += 1,
                            ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Component => {}
                        },
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    match canonical(&function?)? {
                        Canonical::Lift => spaces.functions += 1,
                        Canonical::Lower => spaces.core_functions += 1,
                    }
                }
            }
            // Counted one by one: how many there are is the author's word.
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    ty?;
                    spaces.types += 1;
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    instance?;
                    spaces.instances += 1;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    check_name(import.name.name)?;
                    spaces.add(import.ty.kind());
                }
            }
            // An export is a new item of its sort.
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    check_name(export.name.name)?;
                    spaces.add(export.kind);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

enum Canonical {
    Lift,
    Lower,
}

fn canonical(function: &CanonicalFunction) -> Result<Canonical, NotCapturable> {
    match function {
        CanonicalFunction::Lift { .. } => Ok(Canonical::Lift),
        CanonicalFunction::Lower { .. } => Ok(Canonical::Lower),
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => Err(NotCapturable::Resources),
        // Tasks, streams, threads, error contexts: all of them live in the host.
        _ => Err(NotCapturable::Asynchronous),
    }
}

/// A component inside may pass functions on, as adapters of types do; state of its own would be out of the accessor's reach.
fn check_nested(component: &[u8]) -> Result<(), NotCapturable> {
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let Instance::Instantiate { .. } = instance? {
                        return Err(NotCapturable::NestedInstances);
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    canonical(&function?)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn core_module(bytes: &[u8]) -> Result<CoreModule, NotCapturable> {
    let mut module = CoreModule::default();
    let (mut functions, mut memories, mut globals) = (0, 0, 0);
    let mut refused = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => functions += 1,
                        TypeRef::Memory(_) => memories += 1,
                        TypeRef::Global(_) => globals += 1,
                        TypeRef::Table(_) | TypeRef::Tag(_) => {}
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    if memory.shared || memory.memory64 || memory.page_size_log2.is_some() {
                        return Err(NotCapturable::Memory);
                    }
                    module.memories.push(memories);
                    memories += 1;
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let ty = global?.ty;
                    if ty.mutable {
                        module.globals.push((globals, word(ty.content_type)?));
                    }
                    globals += 1;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    check_name(export?.name)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                if let Some(refusal) = refusal(&body)? {
                    refused.push((functions, refusal));
                }
                functions += 1;
            }
            _ => {}
        }
    }
    if !refused.is_empty() {
        let running = functions_that_run(bytes)?;
        if let Some((function, refusal)) = refused.into_iter().find(|(function, _)| running.contains(function)) {
            return Err(refusal.of(function));
        }
    }
    Ok(module)
}

fn word(ty: ValType) -> Result<Word, NotCapturable> {
    match ty {
        ValType::I32 => Ok(Word::I32),
        ValType::I64 => Ok(Word::I64),
        ValType::F32 => Ok(Word::F32),
        ValType::F64 => Ok(Word::F64),
        ValType::V128 => Ok(Word::V128),
        ValType::Ref(_) => Err(NotCapturable::ReferenceGlobal),
    }
}

/// What a function does that no image could hold.
enum Refusal {
    Table(&'static str),
    Data,
}

impl Refusal {
    fn of(self, function: u32) -> NotCapturable {
        match self {
            Self::Table(instruction) => NotCapturable::Table { function, instruction },
            Self::Data => NotCapturable::DroppedData { function },
        }
    }
}

/// The first such instruction. `memory.init` is not one: what it writes is in the memory, and what it reads never changes unless it is
/// dropped.
fn refusal(body: &FunctionBody<'_>) -> Result<Option<Refusal>, BinaryReaderError> {
    for operator in body.get_operators_reader()? {
        let refusal = match operator? {
            Operator::TableSet { .. } => Refusal::Table("table.set"),
            Operator::TableGrow { .. } => Refusal::Table("table.grow"),
            Operator::TableFill { .. } => Refusal::Table("table.fill"),
            Operator::TableCopy { .. } => Refusal::Table("table.copy"),
            Operator::TableInit { .. } => Refusal::Table("table.init"),
            Operator::ElemDrop { .. } => Refusal::Table("elem.drop"),
            Operator::DataDrop { .. } => Refusal::Data,
            _ => continue,
        };
        return Ok(Some(refusal));
    }
    Ok(None)
}

/// The functions that may run after the module has been instantiated: whatever is exported or referred to, and what those call.
/// What only the start function reaches has run once in every instance, so what it did to tables is the same in all of them.
fn functions_that_run(module: &[u8]) -> Result<BTreeSet<u32>, NotCapturable> {
    let mut imported = 0;
    let mut calls: Vec<Vec<u32>> = Vec::new();
    let mut running = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let TypeRef::Func(_) | TypeRef::FuncExact(_) = import?.ty {
                        imported += 1;
                    }
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    refer(global?.init_expr.get_operators_reader().into_iter(), &mut running)?;
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    if let wasmparser::TableInit::Expr(expr) = table?.init {
                        refer(expr.get_operators_reader().into_iter(), &mut running)?;
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if let ExternalKind::Func | ExternalKind::FuncExact = export.kind {
                        running.insert(export.index);
                    }
                }
            }
            Payload::ElementSection(section) => {
                for element in section {
                    match element?.items {
                        ElementItems::Functions(functions) => {
                            for function in functions {
                                running.insert(function?);
                            }
                        }
                        ElementItems::Expressions(_, expressions) => {
                            for expr in expressions {
                                refer(expr?.get_operators_reader().into_iter(), &mut running)?;
                            }
                        }
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut called = Vec::new();
                for operator in body.get_operators_reader()? {
                    match operator? {
                        Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                            called.push(function_index);
                        }
                        Operator::RefFunc { function_index } => {
                            running.insert(function_index);
                        }
                        _ => {}
                    }
                }
                calls.push(called);
            }
            _ => {}
        }
    }
    let mut to_visit: Vec<u32> = running.iter().copied().collect();
    while let Some(function) = to_visit.pop() {
        let body = function
            .checked_sub(imported)
            .and_then(|index| calls.get(index as usize));
        for called in body.into_iter().flatten() {
            if running.insert(*called) {
                to_visit.push(*called);
            }
        }
    }
    Ok(running)
}

/// Notes the functions that a constant expression refers to.
fn refer<'a>(
    operators: impl Iterator<Item = Result<Operator<'a>, BinaryReaderError>>,
    running: &mut BTreeSet<u32>,
) -> Result<(), BinaryReaderError> {
    for operator in operators {
        if let Operator::RefFunc { function_index } = operator? {
            running.insert(function_index);
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), NotCapturable> {
    match name.starts_with(RESERVED) {
        true => Err(NotCapturable::ReservedName(name.to_owned())),
        false => Ok(()),
    }
}

fn inside(component: &[u8], range: Range<usize>) -> Result<&[u8], NotCapturable> {
    component
        .get(range)
        .ok_or_else(|| NotCapturable::Malformed("a section is longer than the file".into()))
}
