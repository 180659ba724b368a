//! The one wasmtime engine of a process and how it is set up. The set-up is fixed, not configuration: every node of a cluster must
//! compile the same component to the same behaviour, or a replay on another node would differ.

use std::path::PathBuf;
use std::sync::Arc;

use rookery_protocol::Digest;

use super::cache::Cache;
use super::check::{self, Report};
use super::module::{Module, ModuleError};
use super::ticker::{Running, Ticker};

/// Stack of a guest. An executor thread needs this much and some 256 KiB for the host's own frames.
pub const WASM_STACK_BYTES: usize = 512 << 10;

/// Address space set aside for each linear memory; it costs no memory. With 4 GiB, compiled code needs no bounds checks and a memory
/// never moves; 47 bits of address space hold 32,000 such matches, more than the kernel's default of 65,530 mappings a process does.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// What may differ between two processes.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// Where compiled code is kept between starts; without it every start compiles.
    pub cache_dir: Option<PathBuf>,
}

/// Compiles modules. Cheap to clone; the ticker's thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wasmtime: WasmtimeEngine,
    ticker: Arc<Ticker>,
    cache: Option<Cache>,
}

/// wasmtime's engine has no `Debug`.
struct WasmtimeEngine(wasmtime::Engine);

impl std::fmt::Debug for WasmtimeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wasmtime::Engine")
    }
}

/// The engine could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the WebAssembly engine cannot run on this machine: {0}")]
    Unsupported(String),
    #[error("the WebAssembly engine's timer thread did not start")]
    Thread(#[source] std::io::Error),
}

impl Engine {
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let wasmtime =
            wasmtime::Engine::new(&settings()).map_err(|error| EngineError::Unsupported(format!("{error:#}")))?;
        let ticker = Ticker::start(wasmtime.weak()).map_err(EngineError::Thread)?;
        let cache = config.cache_dir.map(|dir| Cache::new(dir, &wasmtime));
        Ok(Engine {
            shared: Arc::new(Shared {
                wasmtime: WasmtimeEngine(wasmtime),
                ticker,
                cache,
            }),
        })
    }

    /// Compiles a component, or loads what an earlier start compiled, and asks it once for its manifest. Blocks, for tens of
    /// milliseconds up to many seconds: not for an IO thread.
    pub fn compile(&self, component: &[u8]) -> Result<Module, ModuleError> {
        Module::compile(self, component)
    }

    /// Compiles a component and plays a short match with it: what `rookery module check` prints.
    pub fn check(&self, component: &[u8]) -> Report {
        check::check(self, component)
    }

    /// Whether the component with this digest was compiled by this process or an earlier one that kept its code in the same
    /// directory.
    pub fn has_compiled(&self, digest: Digest) -> bool {
        self.cache().is_some_and(|cache| cache.has(digest))
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime.0
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        self.shared.cache.as_ref()
    }

    pub(super) fn running(&self) -> Running<'_> {
        self.shared.ticker.running()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ticker.end();
    }
}

fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.wasm_component_model(true);
    // Determinism: NaN bits are the one thing in which two processors differ, and relaxed SIMD is allowed to.
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false);
    config.relaxed_simd_deterministic(true);
    // Threads are not even compiled in; neither is async: synchronous calls cost half of those on fibers.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK_BYTES);
    // On-demand allocation: pooling gained nothing measurable in creation and cost 4 KiB more per idle match.
    config.allocation_strategy(wasmtime::InstanceAllocationStrategy::OnDemand);
    config.memory_init_cow(true);
    config.memory_reservation(MEMORY_RESERVATION_BYTES);
    config.cranelift_opt_level(wasmtime::OptLevel::Speed);
    config
}
