//! A component's file, and when there is another version in it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

/// What the file system says of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    changed: Option<SystemTime>,
    len: u64,
}

/// A file that is looked at again and again.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// As it was when it was read last; what was read.
    read: Option<(Stamp, Vec<u8>)>,
    /// As it was at the last look.
    seen: Option<Stamp>,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: None,
            seen: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The version that is there now.
    pub(super) fn read(&mut self) -> anyhow::Result<Vec<u8>> {
        let missing = || format!("cannot read {}", self.path.display());
        let stamp = self.stamp().with_context(missing)?;
        let bytes = std::fs::read(&self.path).with_context(missing)?;
        self.read = Some((stamp, bytes.clone()));
        Ok(bytes)
    }

    /// Another version than the one that was read last, once two looks agree on it: a file may be written bit by bit, and may be gone
    /// for a moment.
    pub(super) fn look(&mut self) -> Option<Vec<u8>> {
        let stamp = self.stamp().ok();
        let was = std::mem::replace(&mut self.seen, stamp);
        let stamp = stamp.filter(|stamp| was == Some(*stamp))?;
        let (read, before) = self.read.as_ref()?;
        if *read == stamp {
            return None;
        }
        let bytes = std::fs::read(&self.path).ok()?;
        // Built again from the same sources it is the same version.
        let is_new = bytes != *before;
        self.read = Some((stamp, bytes.clone()));
        is_new.then_some(bytes)
    }

    fn stamp(&self) -> std::io::Result<Stamp> {
        let metadata = std::fs::metadata(&self.path)?;
        Ok(Stamp {
            changed: metadata.modified().ok(),
            len: metadata.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> (tempfile::TempDir, Watched) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("game.wasm");
        std::fs::write(&path, b"one").unwrap();
        let mut watched = Watched::new(path);
        assert_eq!(watched.read().unwrap(), b"one");
        (dir, watched)
    }

    #[test]
    fn a_file_that_does_not_change_says_nothing() {
        let (_dir, mut watched) = watched();
        assert_eq!((watched.look(), watched.look()), (None, None));
    }

    #[test]
    fn a_new_version_is_read_when_two_looks_agree_and_only_once() {
        let (_dir, mut watched) = watched();
        assert_eq!(watched.look(), None);
        std::fs::write(&watched.path, b"the se").unwrap();
        assert_eq!(watched.look(), None);
        std::fs::write(&watched.path, b"the second").unwrap();
        assert_eq!(watched.look(), None, "it may still be growing");
        assert_eq!(watched.look().as_deref(), Some(&b"the second"[..]));
        assert_eq!((watched.look(), watched.look()), (None, None));
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_is_waited_for() {
        let (_dir, mut watched) = watched();
        watched.look();
        std::fs::remove_file(&watched.path).unwrap();
        assert_eq!((watched.look(), watched.look()), (None, None));
        std::fs::write(&watched.path, b"another").unwrap();
        assert_eq!(watched.look(), None);
        assert_eq!(watched.look().as_deref(), Some(&b"another"[..]));
    }

    #[test]
    fn the_same_bytes_are_no_new_version() {
        let (_dir, mut watched) = watched();
        let later = SystemTime::now() + std::time::Duration::from_secs(10);
        let file = std::fs::File::options().write(true).open(&watched.path).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!((watched.look(), watched.look()), (None, None));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Watched::new("/no/such/game.wasm".into()).read().unwrap_err();
        assert!(error.to_string().contains("/no/such/game.wasm"), "{error}");
    }
}
