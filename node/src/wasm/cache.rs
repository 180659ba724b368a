//! Compiled code on disk, so that a restart does not compile again. A cache and nothing more: what is missing, damaged, foreign
//! or made by another build is compiled again and replaced.
//!
//! Invariant: only bytes whose checksum says that they are whole are given to wasmtime. Whoever can write into the data directory
//! can replace the configuration and the database too; the checksum is against accidents, not against them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rookery_protocol::Digest;
use tracing::{debug, warn};
use wasmtime::component::Component;

use super::accessor;

/// A directory of `.cwasm` files.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// Engine version, settings, processor and accessor: code compiled under another build has another name.
    build: u64,
}

impl Cache {
    pub(super) fn new(dir: PathBuf, engine: &wasmtime::Engine) -> Cache {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        accessor::VERSION.hash(&mut hasher);
        Cache {
            dir,
            build: hasher.finish(),
        }
    }

    /// The compiled component, if it is here and whole.
    pub(super) fn load(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<Component> {
        let path = self.path(digest);
        let bytes = std::fs::read(&path).ok()?;
        let Some(code) = verified(&bytes) else {
            warn!(path = %path.display(), "compiled module is damaged, compiling it again");
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                debug!(path = %path.display(), error = %error, "compiled module is of another build, compiling it again");
                None
            }
        }
    }

    /// Whether there is code of this component, whole or not.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps compiled code. A failure costs the next start a compilation, so it is only logged.
    pub(super) fn store(&self, digest: Digest, component: &Component) {
        let path = self.path(digest);
        let written = component
            .serialize()
            .map_err(std::io::Error::other)
            .and_then(|code| self.write(&path, &code));
        if let Err(error) = written {
            warn!(path = %path.display(), error = %error, "compiled module not kept");
        }
    }

    /// Several processes may share the directory: whoever renames last wins, and both wrote the same.
    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(digest(&SHA256, code).as_ref())?;
        file.write_all(code)?;
        file.persist(path)?;
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{digest}-{:016x}.cwasm", self.build))
    }
}

/// The code in a cache file, if its checksum holds.
fn verified(bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, code) = bytes.split_at_checked(SHA256_OUTPUT_LEN)?;
    (digest(&SHA256, code).as_ref() == checksum).then_some(code)
}

#[allow(unsafe_code)]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes came out of `Component::serialize` of this product and are whole (the caller checked); wasmtime itself
    // refuses those of another version, processor or configuration.
    unsafe { Component::deserialize(engine, code) }
}
