//! Where the keys of tokens come from: the cluster secret, so that every node can check every token, or for a node alone a file
//! of its own.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::KeyError;

const KEY_LEN: usize = 32;

/// Key material, and the material that is about to replace it. Both check; only the first signs.
pub struct TokenKeys {
    pub(super) current: [u8; KEY_LEN],
    pub(super) next: Option<[u8; KEY_LEN]>,
}

impl TokenKeys {
    /// Keys that all nodes of a cluster share. `next` is the secret that is being rolled out.
    pub fn of_cluster(secret: &[u8], next: Option<&[u8]>) -> Self {
        Self {
            current: extract(secret),
            next: next.map(extract),
        }
    }

    /// The key of a node alone: `auth.key` in its data directory, made on first use and readable only by its owner.
    pub fn of_node(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join("auth.key");
        let fault = |cause| KeyError::File {
            path: path.clone(),
            cause,
        };
        if !path.try_exists().map_err(fault)? {
            std::fs::create_dir_all(data_dir).map_err(fault)?;
            let key = random::<KEY_LEN>()?;
            // Written beside and renamed, so that a crash leaves no half of a key, and never over another process's key.
            let mut file = tempfile::Builder::new()
                .permissions(std::fs::Permissions::from_mode(0o600))
                .tempfile_in(data_dir)
                .map_err(fault)?;
            file.write_all(&key).map_err(fault)?;
            file.as_file().sync_all().map_err(fault)?;
            match file.persist_noclobber(&path) {
                Ok(_) => {}
                Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fault(error.error)),
            }
        }
        let key = std::fs::read(&path).map_err(fault)?;
        if key.len() != KEY_LEN {
            return Err(KeyError::Damaged { path });
        }
        Ok(Self {
            current: extract(&key),
            next: None,
        })
    }
}

fn extract(secret: &[u8]) -> [u8; KEY_LEN] {
    derive(secret, b"rookery tokens 1")
}

/// A key for one purpose: the same secret never signs two kinds of things.
pub(super) fn derive(secret: &[u8], purpose: &[u8]) -> [u8; KEY_LEN] {
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, b"rookery").extract(secret);
    let mut key = [0; KEY_LEN];
    pseudo_random
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("one block of output is always allowed");
    key
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
    Ok(bytes)
}
