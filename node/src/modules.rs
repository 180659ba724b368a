//! Published modules on this node: which digest a name means, and the compiled components, fetched from the store and compiled
//! on first use.
//!
//! It does not decide which version a match runs: a match is pinned to its digest. A name's newest digest is remembered for
//! [`HEAD_FOR`], and forgotten at once when any node announces a publication.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_protocol::Digest;
use rookery_protocol::error::{ErrorCode, Refusal};
use tokio::sync::OnceCell;

use crate::store::{ModuleRow, NewModule, Store, StoreError};
use crate::wasm::{Engine, Manifest, Module};

/// How long a name's newest digest is believed, should an announcement be lost.
const HEAD_FOR: Duration = Duration::from_secs(2);

/// Names remembered. More are looked up each time.
const HEADS_MAX: usize = 4_096;

/// Compiled components kept. Past this, all are dropped that are not being compiled.
const COMPILED_MAX: usize = 256;

/// A module as a creator of matches needs it.
#[derive(Debug, Clone)]
pub struct Published {
    pub row: ModuleRow,
    pub manifest: Manifest,
}

type Cell = Arc<OnceCell<Module>>;

/// The node's modules. Cheap to clone.
#[derive(Clone)]
pub struct Modules {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    store: Store,
    compiled: Mutex<HashMap<Digest, Cell>>,
    heads: Mutex<HashMap<String, (Published, Instant)>>,
}

impl Modules {
    pub fn new(engine: Engine, store: Store) -> Self {
        let inner = Inner {
            engine,
            store,
            compiled: Mutex::default(),
            heads: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The module that `name` or `name@digest` means now.
    ///
    /// # Errors
    /// `module.not_found`, or `unavailable` when the store is away and the name is not remembered.
    pub async fn resolve(&self, reference: &str) -> Result<Published, Refusal> {
        if let Some((published, since)) = self.heads().get(reference)
            && since.elapsed() < HEAD_FOR
        {
            return Ok(published.clone());
        }
        let found = self
            .inner
            .store
            .find_module(reference)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = found else {
            let message = format!("no module {reference} is published");
            return Err(Refusal::new(ErrorCode::ModuleNotFound, message));
        };
        let manifest = serde_json::from_str(&row.manifest).map_err(|error| {
            tracing::error!(module = reference, %error, "a stored manifest cannot be read");
            Refusal::new(
                ErrorCode::ModuleInvalid,
                "the module's manifest cannot be read by this version",
            )
        })?;
        let published = Published { row, manifest };
        let mut heads = self.heads();
        if heads.len() >= HEADS_MAX {
            heads.clear();
        }
        heads.insert(reference.to_owned(), (published.clone(), Instant::now()));
        Ok(published)
    }

    /// The compiled component; fetched and compiled once, however many ask.
    ///
    /// # Errors
    /// `module.not_found`, `module.invalid` (it does not compile here), or `unavailable`.
    pub async fn load(&self, digest: Digest) -> Result<Module, Refusal> {
        let cell = {
            let mut compiled = self.compiled();
            if compiled.len() >= COMPILED_MAX {
                // Matches hold their own handles; a module that is needed again comes from the cache on disk.
                compiled.retain(|_, cell| !cell.initialized());
            }
            Arc::clone(compiled.entry(digest).or_default())
        };
        let module = cell
            .get_or_try_init(|| async {
                let stored = self
                    .inner
                    .store
                    .get_module(&digest)
                    .await
                    .map_err(|error| unavailable(&error))?;
                let Some(stored) = stored else {
                    let message = format!("no module with digest {digest} is published");
                    return Err(Refusal::new(ErrorCode::ModuleNotFound, message));
                };
                self.compile(stored.component).await
            })
            .await?;
        Ok(module.clone())
    }

    async fn compile(&self, component: Bytes) -> Result<Module, Refusal> {
        let engine = self.inner.engine.clone();
        let compiled = tokio::task::spawn_blocking(move || engine.compile(&component)).await;
        compiled
            .map_err(|_| Refusal::new(ErrorCode::Internal, "compiling the component was cut short"))?
            .map_err(|error| {
                Refusal::new(ErrorCode::ModuleInvalid, "the component cannot be used").with("reason", error.to_string())
            })
    }

    /// Checks, compiles and stores a component; from then on every node can create matches of it.
    ///
    /// # Errors
    /// `module.invalid` with the reason, or `unavailable`. Publishing the same bytes again is no error.
    pub async fn publish(&self, component: Bytes) -> Result<Module, Refusal> {
        let module = self.compile(component.clone()).await?;
        let manifest = module.manifest();
        let new = NewModule {
            digest: module.digest(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            manifest: serde_json::to_string(manifest).expect("a manifest is plain values"),
            component,
        };
        self.inner
            .store
            .put_module(&new)
            .await
            .map_err(|error| unavailable(&error))?;
        self.compiled()
            .entry(module.digest())
            .or_insert_with(|| Arc::new(OnceCell::new_with(Some(module.clone()))));
        self.forget(&manifest.name);
        Ok(module)
    }

    /// Everything that is published.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(&self) -> Result<Vec<ModuleRow>, Refusal> {
        self.inner
            .store
            .list_modules()
            .await
            .map_err(|error| unavailable(&error))
    }

    /// A module of this name was published somewhere: the newest digest is looked up again.
    pub fn forget(&self, name: &str) {
        self.heads().remove(name);
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Published, Instant)>> {
        self.inner.heads.lock().expect("no thread panics holding it")
    }

    fn compiled(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Cell>> {
        self.inner.compiled.lock().expect("no thread panics holding it")
    }
}

/// What a client hears when the store does not answer.
pub fn unavailable(error: &StoreError) -> Refusal {
    if !error.is_unavailable() {
        tracing::warn!(error = error as &dyn std::error::Error, "the store refused");
    }
    Refusal::new(ErrorCode::Unavailable, "the store does not answer")
}
