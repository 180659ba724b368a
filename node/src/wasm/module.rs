//! A compiled version of match logic: everything about it that is the same for all of its matches. Compiling checks all that can be
//! checked without playing: that it is a component, imports nothing but ours, exports all that the world asks for, and describes
//! itself believably.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rookery_protocol::{Digest, MatchId};
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, Validator};
use wasmtime::component::{Component, HasSelf, Linker};

use super::accessor::{self, Layout, NotCapturable};
use super::bounds::{self, OutOfBounds};
use super::engine::Engine;
use super::host::HostState;
use super::host::bindings::{MatchLogic, MatchLogicIndices};
use super::image::Image;
use super::image::capture::{Access, Capture, add_to_linker};
use super::instance::{Instance, Template};
use super::manifest::Manifest;
use super::trap::Failure;
use crate::matches::part::{HostPart, StartRecord};

/// The package whose interfaces a component may import.
const PACKAGE: &str = "rookery:game/";

/// A compiled component, its digest and what it says of itself. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    inner: Arc<Inner>,
}

struct Inner {
    template: Template,
    digest: Digest,
    manifest: Manifest,
    capture: Result<Arc<Capture>, NotCapturable>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.inner.manifest.name)
            .field("digest", &self.inner.digest)
            .finish()
    }
}

/// Why a component cannot be match logic. The text is for its author.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    #[error(
        "the component imports `{import}`; match logic may import the interfaces of rookery:game and nothing else \
         (no WASI: build for wasm32-unknown-unknown)"
    )]
    ForeignImport { import: String },
    #[error("the component is not compiled: {0}")]
    OutOfBounds(#[source] OutOfBounds),
    #[error("the component does not compile: {0}")]
    Compile(String),
    #[error("the component does not fit the world rookery:game/match-logic: {0}")]
    World(String),
    #[error("describe failed: {0}")]
    Describe(#[source] Failure),
    #[error("the manifest is not valid: {}", .0.join("; "))]
    Manifest(Vec<String>),
}

impl Module {
    pub(super) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Module, ModuleError> {
        check_imports(bytes)?;
        let digest = digest_of(bytes);
        // What was compiled once was looked at then.
        if !engine.has_compiled(digest) {
            bounds::check(bytes).map_err(|error| match error {
                OutOfBounds::Malformed(why) => ModuleError::Compile(why),
                error => ModuleError::OutOfBounds(error),
            })?;
        }
        let accessor = accessor::append(bytes);
        let shown = accessor.as_ref().map_or(bytes, |accessor| &accessor.component);
        let component = load_or_compile(engine, shown, digest)?;
        let template = link(engine, &component).map_err(|error| ModuleError::World(format!("{error:#}")))?;
        // A throwaway instance. What it does besides answering goes nowhere.
        let start = StartRecord::of_manifest(MatchId::from_u128(0), &Manifest::unknown(), digest, 0, 0);
        let mut fresh = Instance::new(&template, None, HostPart::new(start)).map_err(ModuleError::Describe)?;
        let capture = match accessor {
            Ok(accessor) => capture(&component, digest, &accessor.layout, &mut fresh)?,
            Err(reason) => Err(reason),
        };
        let manifest: Manifest = fresh
            .call(|guest, store| guest.call_describe(store))
            .map_err(ModuleError::Describe)?
            .into();
        let capture = match manifest.declines_images() {
            true => capture.and(Err(NotCapturable::Declined)),
            false => capture,
        };
        let faults = manifest.faults();
        if !faults.is_empty() {
            return Err(ModuleError::Manifest(faults));
        }
        Ok(Module {
            inner: Arc::new(Inner {
                template,
                digest,
                manifest,
                capture,
            }),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// What keeps images of its matches from being taken, where its author has not said that they do without.
    pub fn lacks_images(&self) -> Option<&NotCapturable> {
        let reason = self.captures().err()?;
        (!self.manifest().declines_images()).then_some(reason)
    }

    /// Whether images of its matches can be taken, and why not.
    pub fn captures(&self) -> Result<(), &NotCapturable> {
        self.inner.capture.as_ref().map(|_| ())
    }

    /// Whether anybody else holds it, such as a match.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// A fresh instance.
    pub(crate) fn instantiate(&self, part: HostPart) -> Result<Instance, Failure> {
        let capture = self.inner.capture.as_ref().ok().cloned();
        Instance::new(&self.inner.template, capture, part)
    }

    /// An instance that has in memory what the image says, bit for bit.
    pub(crate) fn restore(&self, part: HostPart, image: &Image) -> Result<Instance, Failure> {
        let mut instance = self.instantiate(part)?;
        instance.restore(image)?;
        Ok(instance)
    }
}

/// The identity of a component.
pub fn digest_of(component: &[u8]) -> Digest {
    let bytes = digest(&SHA256, component);
    Digest(bytes.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Refuses what need not be compiled to be refused, by the names in the component's own import section.
pub(crate) fn check_imports(bytes: &[u8]) -> Result<(), ModuleError> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| ModuleError::NotAComponent(error.to_string()))? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(ModuleError::NotAComponent(
                    "it is a core module; `rookery build` makes a component of it".into(),
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let import = import.map_err(|error| ModuleError::NotAComponent(error.to_string()))?;
                    // The types that our exports mention are imported by name too; they bring nothing in.
                    if matches!(import.ty, ComponentTypeRef::Type(_)) {
                        continue;
                    }
                    let name = import.name.name;
                    if !name.starts_with(PACKAGE) {
                        return Err(ModuleError::ForeignImport {
                            import: name.to_owned(),
                        });
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// For the fuzzer: whether a valid component, shown to the host, is not valid.
pub(crate) fn is_spoilt_by_the_accessor(bytes: &[u8]) -> bool {
    let is_valid = |bytes: &[u8]| Validator::new().validate_all(bytes).is_ok();
    accessor::append(bytes).is_ok_and(|accessor| is_valid(bytes) && !is_valid(&accessor.component))
}

fn load_or_compile(engine: &Engine, bytes: &[u8], digest: Digest) -> Result<Component, ModuleError> {
    if let Some(component) = engine.cache().and_then(|cache| cache.load(engine.wasmtime(), digest)) {
        return Ok(component);
    }
    let component =
        Component::from_binary(engine.wasmtime(), bytes).map_err(|error| ModuleError::Compile(format!("{error:#}")))?;
    if let Some(cache) = engine.cache() {
        cache.store(digest, &component);
    }
    Ok(component)
}

fn link(engine: &Engine, component: &Component) -> wasmtime::Result<Template> {
    let mut linker = Linker::new(engine.wasmtime());
    MatchLogic::add_to_linker::<HostState, HasSelf<HostState>>(&mut linker, |state| state)?;
    add_to_linker(&mut linker)?;
    let pre = linker.instantiate_pre(component)?;
    let indices = MatchLogicIndices::new(&pre)?;
    Ok(Template {
        engine: engine.clone(),
        pre,
        indices,
    })
}

/// Takes a fresh instance for the base of all images, if it is the same as every other.
fn capture(
    component: &Component,
    digest: Digest,
    layout: &Layout,
    fresh: &mut Instance,
) -> Result<Result<Arc<Capture>, NotCapturable>, ModuleError> {
    if fresh.state().call.has_asked() {
        return Ok(Err(NotCapturable::CallsWhileInstantiated));
    }
    let access = Access::of(component, layout).map_err(|error| ModuleError::World(format!("{error:#}")))?;
    let capture = fresh.capture(digest, access).map_err(ModuleError::Describe)?;
    Ok(Ok(Arc::new(capture)))
}
