//! The accessor: a small core module that the node appends to every component, so that the host can read and write all that changes
//! while a match runs: linear memories and mutable globals. wasmtime shows neither to the host of a component, so the component has
//! to show them itself.
//!
//! [`append`] is a function of bytes to bytes. Every core module gets exports of what it defines, under reserved names; the accessor
//! imports them from all core instances. The host reads a memory in place: the accessor calls the import `take` with a list that is
//! the memory. It writes through `put`, whose list arrives where `seek` said, for the accessor itself is the allocator that is asked
//! where the list is to lie.
//!
//! Invariants: the author's bytes stay what they are (the digest is theirs; these are never stored), nothing that the component does
//! is changed, and whatever can change is either reached or the component refused.

use wasm_encoder::{
    Alias, BlockType, CanonicalFunctionSection, CanonicalOption, CodeSection, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentImportSection, ComponentInstanceSection, ComponentSection,
    ComponentTypeRef, ComponentTypeSection, ComponentValType, ConstExpr, Encode, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstanceSection, InstanceType, MemoryType,
    Module, ModuleArg, ModuleSection, PrimitiveValType, TypeSection, ValType,
};
use wasmparser::BinaryReader;

mod survey;

use survey::{CoreModule, Piece, Spaces, Survey, Word, survey};

/// Rises with every change of what [`append`] makes of a component; compiled code of another version is not used.
pub(super) const VERSION: u32 = 1;

/// How the names begin that authors may not use.
const RESERVED: &str = "rookery:accessor/";

/// The interface that the host implements, and its only function.
pub(super) const HOST: &str = "rookery:accessor/host";
pub(super) const TAKE: &str = "take";

/// The interface that the host calls.
pub(super) const IMAGE: &str = "rookery:accessor/image";

/// A component that shows its state.
pub(super) struct Accessor {
    pub(super) component: Vec<u8>,
    pub(super) layout: Layout,
}

/// What there is to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) memories: u32,
    /// Mutable globals, in units of 64 bits: a vector has two, everything else one.
    pub(super) words: u32,
}

/// Why the node cannot capture what a component's matches have in memory. The text is for the component's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCapturable {
    #[error("it cannot be read: {0}")]
    Malformed(String),
    #[error("it uses the name `{0}`; names that begin with `{RESERVED}` belong to the node")]
    ReservedName(String),
    #[error(
        "function {function} of a core module changes a table (`{instruction}`) while a match runs; tables may be filled only \
         while the module is instantiated"
    )]
    Table { function: u32, instruction: &'static str },
    #[error("function {function} of a core module drops a data segment (`data.drop`) while a match runs")]
    DroppedData { function: u32 },
    #[error("a mutable global holds a reference; mutable globals must be numbers")]
    ReferenceGlobal,
    #[error("a memory is shared, of 64 bits or of unusual pages; memories must be unshared, with 32-bit addresses")]
    Memory,
    #[error("it makes or holds resources; match logic must not keep handles of the host")]
    Resources,
    #[error("it uses asynchronous functions or threads of the component model")]
    Asynchronous,
    #[error(
        "a component inside it instantiates core modules of its own; all core modules must be instantiated at the top"
    )]
    NestedInstances,
    #[error("it instantiates a core module whose code is not at its top")]
    ForeignModule,
    #[error("its core instances have more than {STATE_MAX} memories and mutable globals")]
    TooMuch,
    #[error("it calls the host while it is instantiated; what depends on the match belongs into `start`")]
    CallsWhileInstantiated,
    #[error("its manifest says (`extra`: image = none) that it is not to be captured")]
    Declined,
}

impl NotCapturable {
    /// What the author of a component reads that does not say that it does without images: what is wrong, and what can be done.
    pub fn remedy(&self) -> String {
        format!(
            "the node cannot take an image of a match: {self}; a manifest whose `extra` has (\"image\", \"none\") does without, and \
             leaves its matches to save and load"
        )
    }
}

impl From<wasmparser::BinaryReaderError> for NotCapturable {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The names under which the host finds the functions of one memory.
pub(super) struct MemoryNames {
    pub(super) size: String,
    pub(super) grow: String,
    pub(super) show: String,
    pub(super) put: String,
}

impl MemoryNames {
    pub(super) fn of(memory: u32) -> MemoryNames {
        MemoryNames {
            size: format!("size{memory}"),
            grow: format!("grow{memory}"),
            show: format!("show{memory}"),
            put: format!("put{memory}"),
        }
    }
}

/// The names of the functions that are there once.
pub(super) const SEEK: &str = "seek";
pub(super) const READ: &str = "read";
pub(super) const WRITE: &str = "write";

/// More than any language makes: Python's interpreter, linked of libraries, has some thousand.
const STATE_MAX: usize = 50_000;

/// Makes a component show its state.
pub(super) fn append(component: &[u8]) -> Result<Accessor, NotCapturable> {
    let survey = survey(component)?;
    let mut bytes = Vec::with_capacity(component.len() + 4_096);
    let mut modules = survey.modules.iter();
    for piece in &survey.pieces {
        match piece {
            Piece::Raw(raw) => bytes.extend_from_slice(raw),
            Piece::Module(module) => {
                let defined = modules.next().expect("a module was surveyed for each of these pieces");
                let shown = show(module, defined)?;
                bytes.push(1);
                shown.as_slice().encode(&mut bytes);
            }
        }
    }
    let state = State::of(&survey)?;
    Appendix::new(&survey.spaces, &state).write(&mut bytes);
    Ok(Accessor {
        component: bytes,
        layout: Layout {
            memories: state.memories.len() as u32,
            words: state.words(),
        },
    })
}

fn memory_export(memory: u32) -> String {
    format!("{RESERVED}memory{memory}")
}

fn global_export(global: u32) -> String {
    format!("{RESERVED}global{global}")
}

/// Sections that stand behind the export section: start, elements, code, data, and the number of data segments.
const BEHIND_EXPORTS: [u8; 5] = [8, 9, 10, 11, 12];
const EXPORTS: u8 = 7;

/// A core module with exports of what it defines.
fn show(module: &[u8], defined: &CoreModule) -> Result<Vec<u8>, NotCapturable> {
    let count = (defined.memories.len() + defined.globals.len()) as u32;
    if count == 0 {
        return Ok(module.to_vec());
    }
    let mut exports = Vec::new();
    for memory in &defined.memories {
        memory_export(*memory).as_str().encode(&mut exports);
        exports.push(2);
        memory.encode(&mut exports);
    }
    for (global, _) in &defined.globals {
        global_export(*global).as_str().encode(&mut exports);
        exports.push(3);
        global.encode(&mut exports);
    }
    let export_section = |bytes: &mut Vec<u8>, count: u32, before: &[u8]| {
        let mut section = Vec::new();
        count.encode(&mut section);
        section.extend_from_slice(before);
        section.extend_from_slice(&exports);
        bytes.push(EXPORTS);
        section.as_slice().encode(bytes);
    };
    let mut bytes = Vec::with_capacity(module.len() + exports.len() + 16);
    let mut reader = BinaryReader::new(module, 0);
    bytes.extend_from_slice(reader.read_bytes(8)?);
    let mut done = false;
    while !reader.eof() {
        let id = reader.read_u8()?;
        let len = reader.read_var_u32()?;
        let section = reader.read_bytes(len as usize)?;
        if id == EXPORTS {
            let mut exported = BinaryReader::new(section, 0);
            let already = exported.read_var_u32()?;
            let rest = exported.read_bytes(exported.bytes_remaining())?;
            export_section(&mut bytes, already + count, rest);
            done = true;
            continue;
        }
        if !done && BEHIND_EXPORTS.contains(&id) {
            export_section(&mut bytes, count, &[]);
            done = true;
        }
        bytes.push(id);
        section.encode(&mut bytes);
    }
    if !done {
        export_section(&mut bytes, count, &[]);
    }
    Ok(bytes)
}

/// All that changes, over all core instances: where each memory and each global is to be had.
struct State {
    memories: Vec<(u32, String)>,
    globals: Vec<(u32, String, Word)>,
}

impl State {
    /// A module that is instantiated twice has its state twice.
    fn of(survey: &Survey<'_>) -> Result<State, NotCapturable> {
        let mut state = State {
            memories: Vec::new(),
            globals: Vec::new(),
        };
        for (instance, module) in &survey.instances {
            let module = &survey.modules[*module];
            let memories = module.memories.iter().map(|memory| (*instance, memory_export(*memory)));
            state.memories.extend(memories);
            let globals = module.globals.iter();
            state
                .globals
                .extend(globals.map(|(global, word)| (*instance, global_export(*global), *word)));
            if state.memories.len() + state.globals.len() > STATE_MAX {
                return Err(NotCapturable::TooMuch);
            }
        }
        Ok(state)
    }

    fn words(&self) -> u32 {
        self.globals.iter().map(|(.., word)| word.lanes()).sum()
    }
}

impl Word {
    fn lanes(self) -> u32 {
        match self {
            Self::I32 | Self::I64 | Self::F32 | Self::F64 => 1,
            Self::V128 => 2,
        }
    }

    fn core_type(self) -> ValType {
        match self {
            Self::I32 => ValType::I32,
            Self::I64 => ValType::I64,
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
            Self::V128 => ValType::V128,
        }
    }
}

/// What is written behind the author's component.
struct Appendix<'a> {
    spaces: &'a Spaces,
    state: &'a State,
}

/// One function of the interface that the host calls.
struct Exported {
    name: String,
    /// Counted from the first type of the appendix.
    ty: u32,
    options: Vec<CanonicalOption>,
}

/// The appendix's own types, in their order.
const TYPE_BYTES: u32 = 0;
const TYPE_HOST: u32 = 1;
const TYPE_SIZE: u32 = 2;
const TYPE_GROW: u32 = 3;
const TYPE_SHOW: u32 = 4;
const TYPE_PUT: u32 = 5;
const TYPE_SEEK: u32 = 6;
const TYPE_READ: u32 = 7;
const TYPE_WRITE: u32 = 8;

const REALLOC: &str = "realloc";

impl<'a> Appendix<'a> {
    fn new(spaces: &'a Spaces, state: &'a State) -> Appendix<'a> {
        Appendix { spaces, state }
    }

    fn memories(&self) -> u32 {
        self.state.memories.len() as u32
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let spaces = self.spaces;
        self.types().append_to_component(bytes);

        let mut imports = ComponentImportSection::new();
        imports.import(HOST, ComponentTypeRef::Instance(spaces.types + TYPE_HOST));
        imports.append_to_component(bytes);
        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::InstanceExport {
            instance: spaces.instances,
            kind: ComponentExportKind::Func,
            name: TAKE,
        });
        for (instance, name) in &self.state.memories {
            aliases.alias(Alias::CoreInstanceExport {
                instance: *instance,
                kind: ExportKind::Memory,
                name,
            });
        }
        for (instance, name, _) in &self.state.globals {
            aliases.alias(Alias::CoreInstanceExport {
                instance: *instance,
                kind: ExportKind::Global,
                name,
            });
        }
        aliases.append_to_component(bytes);

        // `take`, once for each memory: which one a list lies in is said when the function is lowered.
        let mut lowered = CanonicalFunctionSection::new();
        for memory in 0..self.memories() {
            lowered.lower(
                spaces.functions,
                [CanonicalOption::Memory(spaces.core_memories + memory)],
            );
        }
        lowered.append_to_component(bytes);
        ModuleSection(&self.core_module()).append_to_component(bytes);
        self.instances().append_to_component(bytes);

        let exported = self.exported();
        let accessor = spaces.core_instances + 1;
        let mut aliases = ComponentAliasSection::new();
        let alias = |name| Alias::CoreInstanceExport {
            instance: accessor,
            kind: ExportKind::Func,
            name,
        };
        aliases.alias(alias(REALLOC));
        for function in &exported {
            aliases.alias(alias(&function.name));
        }
        aliases.append_to_component(bytes);
        let mut lifted = CanonicalFunctionSection::new();
        for (core, function) in (self.realloc() + 1..).zip(&exported) {
            lifted.lift(core, spaces.types + function.ty, function.options.iter().copied());
        }
        lifted.append_to_component(bytes);
        let mut instances = ComponentInstanceSection::new();
        let items = exported.iter().zip(spaces.functions + 1..);
        let items: Vec<_> = items
            .map(|(function, index)| (function.name.as_str(), ComponentExportKind::Func, index))
            .collect();
        instances.export_items(items);
        instances.append_to_component(bytes);
        let mut exports = ComponentExportSection::new();
        exports.export(IMAGE, ComponentExportKind::Instance, spaces.instances + 1, None);
        exports.append_to_component(bytes);
    }

    /// The allocator's index among the component's core functions.
    fn realloc(&self) -> u32 {
        self.spaces.core_functions + self.memories()
    }

    fn exported(&self) -> Vec<Exported> {
        let simple = |name: &str, ty| Exported {
            name: name.into(),
            ty,
            options: Vec::new(),
        };
        let mut exported = vec![
            simple(SEEK, TYPE_SEEK),
            simple(READ, TYPE_READ),
            simple(WRITE, TYPE_WRITE),
        ];
        for memory in 0..self.memories() {
            let names = MemoryNames::of(memory);
            exported.push(simple(&names.size, TYPE_SIZE));
            exported.push(simple(&names.grow, TYPE_GROW));
            exported.push(simple(&names.show, TYPE_SHOW));
            exported.push(Exported {
                name: names.put,
                ty: TYPE_PUT,
                options: vec![
                    CanonicalOption::Memory(self.spaces.core_memories + memory),
                    CanonicalOption::Realloc(self.realloc()),
                ],
            });
        }
        exported
    }

    fn types(&self) -> ComponentTypeSection {
        let u32 = ComponentValType::Primitive(PrimitiveValType::U32);
        let u64 = ComponentValType::Primitive(PrimitiveValType::U64);
        let none: [(&str, ComponentValType); 0] = [];
        let mut types = ComponentTypeSection::new();
        types.defined_type().list(PrimitiveValType::U8);
        let mut host = InstanceType::new();
        host.ty().defined_type().list(PrimitiveValType::U8);
        host.ty()
            .function()
            .params([("data", ComponentValType::Type(0))])
            .result(None);
        host.export(TAKE, ComponentTypeRef::Func(1));
        types.instance(&host);
        types.function().params(none).result(Some(u32));
        types.function().params([("pages", u32)]).result(Some(u32));
        types.function().params([("at", u32), ("len", u32)]).result(None);
        let bytes = ComponentValType::Type(self.spaces.types + TYPE_BYTES);
        types.function().params([("data", bytes)]).result(None);
        types.function().params([("at", u32)]).result(None);
        types.function().params([("word", u32)]).result(Some(u64));
        types.function().params([("word", u32), ("value", u64)]).result(None);
        types
    }

    /// An instance with everything that the accessor imports, and the accessor's.
    fn instances(&self) -> InstanceSection {
        let spaces = self.spaces;
        let mut items = Vec::new();
        for memory in 0..self.memories() {
            let (name, index) = (format!("memory{memory}"), spaces.core_memories + memory);
            items.push((name, ExportKind::Memory, index));
        }
        for global in 0..self.state.globals.len() as u32 {
            let (name, index) = (format!("global{global}"), spaces.core_globals + global);
            items.push((name, ExportKind::Global, index));
        }
        for memory in 0..self.memories() {
            let (name, index) = (format!("{TAKE}{memory}"), spaces.core_functions + memory);
            items.push((name, ExportKind::Func, index));
        }
        let mut instances = InstanceSection::new();
        instances.export_items(items);
        instances.instantiate(spaces.modules, [("", ModuleArg::Instance(spaces.core_instances))]);
        instances
    }

    fn core_module(&self) -> Module {
        let mut types = TypeSection::new();
        // In the order of TYPE_SIZE and its followers; a list is an address and a length.
        let (i32, i64) = (ValType::I32, ValType::I64);
        types.ty().function([], [i32]);
        types.ty().function([i32], [i32]);
        types.ty().function([i32, i32], []);
        types.ty().function([i32, i32], []);
        types.ty().function([i32], []);
        types.ty().function([i32], [i64]);
        types.ty().function([i32, i64], []);
        types.ty().function([i32, i32, i32, i32], [i32]);
        let core_type = |ty: u32| ty - TYPE_SIZE;
        let realloc_type = core_type(TYPE_WRITE) + 1;

        let mut imports = ImportSection::new();
        for memory in 0..self.memories() {
            let ty = MemoryType {
                minimum: 0,
                maximum: None,
                memory64: false,
                shared: false,
                page_size_log2: None,
            };
            imports.import("", &format!("memory{memory}"), ty);
        }
        for (index, (.., word)) in self.state.globals.iter().enumerate() {
            let ty = GlobalType {
                val_type: word.core_type(),
                mutable: true,
                shared: false,
            };
            imports.import("", &format!("global{index}"), ty);
        }
        for memory in 0..self.memories() {
            let ty = EntityType::Function(core_type(TYPE_SHOW));
            imports.import("", &format!("{TAKE}{memory}"), ty);
        }

        // Where the next list is to lie.
        let at = self.state.globals.len() as u32;
        let mut globals = GlobalSection::new();
        let ty = GlobalType {
            val_type: i32,
            mutable: true,
            shared: false,
        };
        globals.global(ty, &ConstExpr::i32_const(0));

        let (mut functions, mut exports, mut code) = (FunctionSection::new(), ExportSection::new(), CodeSection::new());
        let mut add = |name: &str, ty: u32, body: &dyn Fn(&mut Function)| {
            let index = self.memories() + functions.len();
            functions.function(ty);
            exports.export(name, ExportKind::Func, index);
            let mut function = Function::new([]);
            body(&mut function);
            function.instructions().end();
            code.function(&function);
        };
        add(REALLOC, realloc_type, &|body| {
            body.instructions().global_get(at);
        });
        add(SEEK, core_type(TYPE_SEEK), &|body| {
            body.instructions().local_get(0).global_set(at);
        });
        add(READ, core_type(TYPE_READ), &|body| self.read(body));
        add(WRITE, core_type(TYPE_WRITE), &|body| self.write_word(body));
        for memory in 0..self.memories() {
            let names = MemoryNames::of(memory);
            add(&names.size, core_type(TYPE_SIZE), &|body| {
                body.instructions().memory_size(memory);
            });
            add(&names.grow, core_type(TYPE_GROW), &|body| {
                body.instructions().local_get(0).memory_grow(memory);
            });
            add(&names.show, core_type(TYPE_SHOW), &|body| {
                body.instructions().local_get(0).local_get(1).call(memory);
            });
            // The list is where it belongs before this is called.
            add(&names.put, core_type(TYPE_PUT), &|_| {});
        }

        let mut module = Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&functions)
            .section(&globals)
            .section(&exports)
            .section(&code);
        module
    }

    /// Every word: its global, the global's type and which half of it.
    fn lanes(&self) -> Vec<(u32, Word, u8)> {
        let globals = self.state.globals.iter().enumerate();
        globals
            .flat_map(|(index, (.., word))| (0..word.lanes()).map(move |lane| (index as u32, *word, lane as u8)))
            .collect()
    }

    /// The word whose number is the first parameter.
    fn read(&self, body: &mut Function) {
        self.switch(body, |body, global, word, lane| {
            let mut body = body.instructions();
            body.global_get(global);
            match word {
                Word::I32 => body.i64_extend_i32_u(),
                Word::I64 => &mut body,
                Word::F32 => body.i32_reinterpret_f32().i64_extend_i32_u(),
                Word::F64 => body.i64_reinterpret_f64(),
                Word::V128 => body.i64x2_extract_lane(lane),
            };
        });
        body.instructions().i64_const(0);
    }

    /// Sets it to the second.
    fn write_word(&self, body: &mut Function) {
        self.switch(body, |body, global, word, lane| {
            let mut body = body.instructions();
            match word {
                Word::I32 => body.local_get(1).i32_wrap_i64(),
                Word::I64 => body.local_get(1),
                Word::F32 => body.local_get(1).i32_wrap_i64().f32_reinterpret_i32(),
                Word::F64 => body.local_get(1).f64_reinterpret_i64(),
                Word::V128 => body.global_get(global).local_get(1).i64x2_replace_lane(lane),
            };
            body.global_set(global);
        });
    }

    /// Does one thing for each word, chosen by the first parameter; what is behind it is for a number that no word has.
    fn switch(&self, body: &mut Function, each: impl Fn(&mut Function, u32, Word, u8)) {
        let lanes = self.lanes();
        let count = lanes.len() as u32;
        for _ in 0..=count {
            body.instructions().block(BlockType::Empty);
        }
        body.instructions().local_get(0).br_table(0..count, count);
        for (global, word, lane) in lanes {
            body.instructions().end();
            each(body, global, word, lane);
            body.instructions().return_();
        }
        body.instructions().end();
    }
}

#[cfg(test)]
mod tests;
