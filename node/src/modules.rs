//! Published modules on this node: which digest a name means, and the compiled components, fetched from the store and compiled
//! once: ahead of their use (`ahead`, `task`), or by it.
//!
//! It does not decide which version a match runs: a match is pinned to its digest. A name's newest digest is remembered for
//! [`HEAD_FOR`], and forgotten at once when any node announces a publication.
//!
//! Invariant: what is compiled has the digest that was asked for, and where keys are set a signature by one of them; both are
//! checked here, on the bytes that came, whoever stored them and whatever the store says of them.

pub mod ahead;
pub mod signature;
pub mod task;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_protocol::Digest;
use rookery_protocol::error::{ErrorCode, Refusal};
use tokio::sync::{Notify, OnceCell};

use self::signature::{KeyId, Keys, NotASignature, Signature, Untrusted};
use crate::metrics::{Metrics, ModuleFault, ModuleWork, Publishing};
use crate::store::{ModuleLimits, ModulePut, ModuleRemoval, ModuleRow, NewModule, NewSignature, Store, StoreError};
use crate::wasm::module::digest_of;
use crate::wasm::{Engine, Manifest, Module};

/// How long a name's newest digest is believed, should an announcement be lost.
const HEAD_FOR: Duration = Duration::from_secs(2);

/// How long a component that may not run is not fetched again to see whether it may now. A match that waits for its module's
/// signature asks every second.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Names remembered, and refusals. More are looked up each time.
const HEADS_MAX: usize = 4_096;

/// Compiled components kept. Past this, all are dropped that are not being compiled.
const COMPILED_MAX: usize = 256;

/// What every refusal of a component says; its reason says more.
const UNUSABLE: &str = "the component cannot be used";

/// A module as a creator of matches needs it.
#[derive(Debug, Clone)]
pub struct Published {
    pub row: ModuleRow,
    pub manifest: Manifest,
}

/// What an operator hands in.
#[derive(Debug, Clone)]
pub struct Publication {
    pub component: Bytes,
    /// As the request has it: base64.
    pub signature: Option<String>,
}

/// What a module is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    NewMatch,
    /// One that began when its module could run. It goes on with what this node has compiled before, signed or not.
    RunningMatch,
}

/// What an operator has decided about modules.
#[derive(Debug, Clone)]
pub struct Rules {
    pub keys: Keys,
    pub bytes_max: u64,
    pub limits: ModuleLimits,
    /// What components may take together that are compiled ahead of their use.
    pub ahead_bytes_max: u64,
}

type Cell = Arc<OnceCell<Module>>;

/// What may not run, for what it was wanted, why, and since when that is known.
type Refused = HashMap<(Digest, Purpose), (ModuleFault, Refusal, Instant)>;

/// The node's modules. Cheap to clone.
#[derive(Clone)]
pub struct Modules {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    store: Store,
    rules: Rules,
    metrics: Arc<Metrics>,
    compiled: Mutex<HashMap<Digest, Cell>>,
    heads: Mutex<HashMap<String, (Published, Instant)>>,
    refused: Mutex<Refused>,
    /// Rings when something was published or removed.
    announced: Notify,
}

/// Why a component did not become a module.
enum Unusable {
    Refused(Refusal),
    /// Its bytes are those of its digest, but nobody answers for them.
    Untrusted {
        component: Bytes,
        why: Untrusted,
    },
    /// What the store holds is not what it says: somebody has written into it, or it has lost bits.
    Damaged(&'static str),
}

impl From<Refusal> for Unusable {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Modules {
    pub fn new(engine: Engine, store: Store, rules: Rules, metrics: Arc<Metrics>) -> Self {
        let inner = Inner {
            engine,
            store,
            rules,
            metrics,
            compiled: Mutex::default(),
            heads: Mutex::default(),
            refused: Mutex::default(),
            announced: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The module that `name` or `name@digest` means now.
    ///
    /// # Errors
    /// `module.not_found`, `module.unsigned` (new matches of it may not begin), or `unavailable` when the store is away and the
    /// name is not remembered.
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
        if let Err(untrusted) = self.trust(&row) {
            self.inner.metrics.module_fault(ModuleFault::Unsigned);
            return Err(untrusted.into());
        }
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
    /// `module.not_found`, `module.invalid` (it does not compile here, or the store holds other bytes), `module.unsigned`, or
    /// `unavailable`.
    pub async fn load(&self, digest: Digest, purpose: Purpose) -> Result<Module, Refusal> {
        let loaded = self.load_for(digest, purpose, ModuleWork::Use).await;
        loaded.map_err(|(_, refusal)| refusal)
    }

    /// The same, for a use or ahead of one. Says what was wrong.
    async fn load_for(
        &self,
        digest: Digest,
        purpose: Purpose,
        work: ModuleWork,
    ) -> Result<Module, (ModuleFault, Refusal)> {
        let cell = {
            let mut compiled = self.compiled();
            if compiled.len() >= COMPILED_MAX {
                // Matches hold their own handles; a module that is needed again comes from the cache on disk.
                compiled.retain(|_, cell| !cell.initialized());
            }
            Arc::clone(compiled.entry(digest).or_default())
        };
        if let Some(module) = cell.get() {
            return Ok(module.clone());
        }
        if let Some((fault, refusal, since)) = self.refused().get(&(digest, purpose))
            && since.elapsed() < REFUSED_FOR
        {
            return Err((*fault, refusal.clone()));
        }
        let asked = Instant::now();
        let took = || self.inner.metrics.module_compiled(work, asked.elapsed());
        let (fault, refusal) = match cell.get_or_try_init(|| self.fetch(digest)).await {
            Ok(module) => {
                took();
                return Ok(module.clone());
            }
            Err(Unusable::Untrusted { component, why }) => {
                if purpose == Purpose::RunningMatch && self.inner.engine.has_compiled(digest) {
                    tracing::warn!(%digest, why = %why, "a match goes on with a module that new ones may not begin with");
                    let compiled = self.compile(component).await;
                    took();
                    return compiled.map_err(|refusal| (ModuleFault::Invalid, refusal));
                }
                tracing::warn!(%digest, why = %why, "a module may not run");
                (ModuleFault::Unsigned, why.into())
            }
            Err(Unusable::Damaged(why)) => {
                tracing::error!(%digest, why, "a stored module is not what it should be");
                let message = "the stored module cannot be used";
                let refusal = Refusal::new(ErrorCode::ModuleInvalid, message).with("reason", why);
                (ModuleFault::Damaged, refusal)
            }
            Err(Unusable::Refused(refusal)) if refusal.code == ErrorCode::ModuleInvalid => {
                (ModuleFault::Invalid, refusal)
            }
            Err(Unusable::Refused(refusal)) => (ModuleFault::Unavailable, refusal),
        };
        self.inner.metrics.module_fault(fault);
        if fault != ModuleFault::Unavailable {
            let mut refused = self.refused();
            if refused.len() >= HEADS_MAX {
                refused.clear();
            }
            refused.insert((digest, purpose), (fault, refusal.clone(), Instant::now()));
        }
        Err((fault, refusal))
    }

    /// Reads a component from the store and compiles it, if it is what it is said to be.
    async fn fetch(&self, digest: Digest) -> Result<Module, Unusable> {
        let stored = self.inner.store.get_module(&digest).await;
        let Some(stored) = stored.map_err(|error| unavailable(&error))? else {
            let message = format!("no module with digest {digest} is published");
            return Err(Refusal::new(ErrorCode::ModuleNotFound, message).into());
        };
        let component = stored.component;
        if hash(component.clone()).await? != digest {
            return Err(Unusable::Damaged("the stored bytes are not those of their digest"));
        }
        if let Err(why) = self.trust(&stored.module) {
            return Err(Unusable::Untrusted { component, why });
        }
        let module = self.compile(component).await?;
        if module.manifest().name != stored.module.name {
            return Err(Unusable::Damaged(
                "the component is stored under a name that is not its own",
            ));
        }
        Ok(module)
    }

    /// Whether new matches of a stored module may begin here. Returns the key that it is signed by; none where no keys are set.
    ///
    /// # Errors
    /// Why not.
    pub fn trust(&self, row: &ModuleRow) -> Result<Option<KeyId>, Untrusted> {
        let signatures: Vec<Signature> = row
            .signatures
            .iter()
            .filter_map(|signature| signature.text.parse().ok())
            .collect();
        self.inner.rules.keys.check(&row.digest, &signatures)
    }

    async fn compile(&self, component: Bytes) -> Result<Module, Refusal> {
        let engine = self.inner.engine.clone();
        blocking(move || engine.compile(&component))
            .await?
            .map_err(|error| Refusal::new(ErrorCode::ModuleInvalid, UNUSABLE).with("reason", error.to_string()))
    }

    /// Checks, compiles and stores a component; from then on every node can create matches of it.
    ///
    /// # Errors
    /// `too_large`, `module.unsigned`, `module.invalid` with the reason, `module.too_many`, or `unavailable`. Nothing was stored,
    /// unless the store did not answer. Publishing the same bytes again is no error.
    pub async fn publish(&self, publication: Publication) -> Result<Module, Refusal> {
        let published = self.take_in(publication).await;
        let outcome = match &published {
            Ok(_) => Publishing::Taken,
            Err(refusal) => match refusal.code {
                ErrorCode::TooLarge => Publishing::TooLarge,
                ErrorCode::ModuleUnsigned => Publishing::Unsigned,
                ErrorCode::ModuleInvalid => Publishing::Invalid,
                ErrorCode::ModuleTooMany => Publishing::TooMany,
                _ => Publishing::Failed,
            },
        };
        self.inner.metrics.publishing(outcome);
        published
    }

    async fn take_in(&self, publication: Publication) -> Result<Module, Refusal> {
        let Publication { component, signature } = publication;
        let Rules {
            keys,
            bytes_max,
            limits,
            ..
        } = &self.inner.rules;
        if component.len() as u64 > *bytes_max {
            let message = format!(
                "the component has {} bytes, and the most is {bytes_max} (limits.module): build it for release and \
                 without debug information, or raise the limit on every node",
                component.len()
            );
            return Err(Refusal::new(ErrorCode::TooLarge, message).with("limit", *bytes_max));
        }
        let signature = self.read_signature(signature)?;
        let digest = hash(component.clone()).await?;
        // Before anything else is done with the bytes: what nobody answers for is not compiled either.
        let key = keys.check(&digest, &signature).map_err(|untrusted| {
            tracing::warn!(%digest, why = %untrusted, "a publication was refused");
            Refusal::from(untrusted)
        })?;
        let asked = Instant::now();
        let module = self.compile(component.clone()).await?;
        self.inner
            .metrics
            .module_compiled(ModuleWork::Publication, asked.elapsed());
        if let Some(reason) = module.lacks_images() {
            return Err(Refusal::new(ErrorCode::ModuleInvalid, UNUSABLE).with("reason", reason.remedy()));
        }
        let manifest = module.manifest();
        let new = NewModule {
            digest,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            manifest: serde_json::to_string(manifest).expect("a manifest is plain values"),
            component,
            signature: signature.map(|signature| NewSignature {
                text: signature.to_string(),
                key_id: key.map(|key| key.to_string()),
            }),
        };
        let put = self.inner.store.put_module(&new, *limits).await;
        let too_many = |what: &str, key: &str, limit: u32| {
            let message = format!(
                "there are {limit} {what} already, the most (limits.{key}): remove one that no match uses with \
                 `rookery module remove NAME@DIGEST`, or raise the limit"
            );
            Err(Refusal::new(ErrorCode::ModuleTooMany, message).with("limit", limit))
        };
        match put.map_err(|error| unavailable(&error))? {
            ModulePut::New | ModulePut::Again => {}
            ModulePut::TooManyNames => return too_many("modules", "modules", limits.names_max),
            ModulePut::TooManyVersions => {
                let what = format!("versions of {}", manifest.name);
                return too_many(&what, "module_versions", limits.versions_max);
            }
        }
        self.compiled()
            .entry(digest)
            .or_insert_with(|| Arc::new(OnceCell::new_with(Some(module.clone()))));
        self.forget(&manifest.name);
        Ok(module)
    }

    fn read_signature(&self, text: Option<String>) -> Result<Option<Signature>, Refusal> {
        let Some(text) = text else { return Ok(None) };
        match text.parse() {
            Ok(signature) => Ok(Some(signature)),
            Err(NotASignature) if self.inner.rules.keys.are_set() => Err(Untrusted::Malformed.into()),
            Err(NotASignature) => Err(Refusal::new(ErrorCode::BadMessage, NotASignature.to_string())),
        }
    }

    /// Removes a version of a module that no live match uses: `name@digest`. Returns its name.
    ///
    /// # Errors
    /// `bad_message` (it does not say which version), `module.not_found`, `module.in_use`, `unavailable`.
    pub async fn remove(&self, reference: &str) -> Result<String, Refusal> {
        let parts = reference.split_once('@');
        let Some((name, digest)) = parts.and_then(|(name, digest)| Some((name, digest.parse::<Digest>().ok()?))) else {
            let message = "say which version: name@digest, as `rookery module list` prints them";
            return Err(Refusal::new(ErrorCode::BadMessage, message));
        };
        let removed = self.inner.store.remove_module(name, &digest).await;
        match removed.map_err(|error| unavailable(&error))? {
            ModuleRemoval::Removed => {}
            ModuleRemoval::NotFound => {
                let message = format!("no module {reference} is published");
                return Err(Refusal::new(ErrorCode::ModuleNotFound, message));
            }
            ModuleRemoval::Used { matches } => {
                let message = "live matches use it: end them (`rookery match list`), or wait until they are over";
                return Err(Refusal::new(ErrorCode::ModuleInUse, message).with("matches", matches));
            }
            ModuleRemoval::Newest => {
                let message = format!(
                    "it is what {name} means while other versions are there: publish one of them again first, or remove \
                     them before it"
                );
                return Err(Refusal::new(ErrorCode::ModuleInUse, message));
            }
        }
        self.compiled().remove(&digest);
        self.forget(name);
        Ok(name.to_owned())
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

    /// Something was published under this name, or removed, somewhere: what is known of it is looked up again.
    pub fn forget(&self, name: &str) {
        // Also under `name@digest`: a signature may have come, or the version may be gone.
        self.heads()
            .retain(|reference, (published, _)| reference != name && published.row.name != name);
        self.refused().clear();
        self.inner.announced.notify_one();
    }

    /// What is compiled here, in memory.
    pub fn compiled_digests(&self) -> Vec<Digest> {
        let compiled = self.compiled();
        let ready = compiled.iter().filter(|(_, cell)| cell.initialized());
        ready.map(|(digest, _)| *digest).collect()
    }

    fn is_compiled(&self, digest: &Digest) -> bool {
        self.compiled().get(digest).is_some_and(|cell| cell.initialized())
    }

    /// Drops what is compiled and neither kept nor used by a match here. It comes back from the cache on disk when it is needed.
    fn let_go(&self, is_kept: impl Fn(&Digest) -> bool) {
        self.compiled().retain(|digest, cell| match cell.get() {
            Some(module) => is_kept(digest) || module.is_shared(),
            // It is being compiled, or it failed and nobody waits for it.
            None => Arc::strong_count(cell) > 1,
        });
    }

    fn heads(&self) -> MutexGuard<'_, HashMap<String, (Published, Instant)>> {
        self.inner.heads.lock().expect("no thread panics holding it")
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<Digest, Cell>> {
        self.inner.compiled.lock().expect("no thread panics holding it")
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.inner.refused.lock().expect("no thread panics holding it")
    }
}

/// Runs what would hold up a thread of sockets.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refusal::new(ErrorCode::Internal, "working on the component was cut short"))
}

async fn hash(component: Bytes) -> Result<Digest, Refusal> {
    blocking(move || digest_of(&component)).await
}

/// What a client hears when the store does not answer.
pub fn unavailable(error: &StoreError) -> Refusal {
    if !error.is_unavailable() {
        tracing::warn!(error = error as &dyn std::error::Error, "the store refused");
    }
    Refusal::new(ErrorCode::Unavailable, "the store does not answer")
}
