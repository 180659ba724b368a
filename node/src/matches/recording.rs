//! A match as a file: its component, the base that its journal goes on from, the journal, and what it came to. Whoever has the file can
//! play the match again, without a node, and see whether it comes to the same.
//!
//! Invariant: what is read is what was written, byte for byte; a file with one flipped bit is refused, not played.

#![deny(clippy::disallowed_methods)]

use bytes::Bytes;
use ring::digest::{Context, SHA256, digest};
use rookery_protocol::Digest;

use super::journal::{JournalError, Records};
use super::machine::{Applied, Diverged, Divergence, Match};
use super::part::{DecodeError, HostPart};
use crate::wasm::{Engine, Failure, Image, ImageError, ModuleError};

/// What a recording begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"rookrec\x01";

/// The sections, in the order in which they are written.
const SECTIONS: usize = 6;

/// A match that was taken off its thread, to be written down.
#[derive(Debug)]
pub struct Taken {
    pub(super) image: Option<Image>,
    pub(super) base: HostPart,
    pub(super) journal: Vec<u8>,
    pub(super) last: HostPart,
    pub(super) hash: Option<Digest>,
}

impl Taken {
    /// All of it but the component, which the cluster has under its digest.
    pub fn record(&self) -> Recording {
        Recording {
            component: Bytes::new(),
            image: self.image.as_ref().map_or(Bytes::new(), |image| image.encode().into()),
            base: self.base.encode().into(),
            journal: self.journal.clone().into(),
            last: self.last.encode().into(),
            hash: self.hash,
        }
    }
}

/// What is in a recording, not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Empty in one that is on its way between nodes.
    pub component: Bytes,
    /// The guest of the base; empty for a fresh instance.
    image: Bytes,
    /// The host's part of the base.
    base: Bytes,
    journal: Bytes,
    /// The host's part at the end, with its ring.
    last: Bytes,
    /// The state hash at the end; none of a match that failed and could not be put back.
    pub hash: Option<Digest>,
}

/// A file that is no recording, or not a whole one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordingError {
    #[error("it is not a recording of a match")]
    NotOne,
    #[error("it is a recording of version {0}, which this build does not read")]
    Version(u8),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl Recording {
    /// The file. The SHA-256 of all that is before it stands at its end.
    pub fn encode(&self) -> Bytes {
        let hash = self.hash.map_or(Vec::new(), |hash| hash.0.to_vec());
        let sections: [&[u8]; SECTIONS] = [
            &self.component,
            &self.image,
            &self.base,
            &self.journal,
            &self.last,
            &hash,
        ];
        let len: usize = sections.iter().map(|section| section.len() + 8).sum();
        let mut out = Vec::with_capacity(MAGIC.len() + len + 32);
        out.extend_from_slice(&MAGIC);
        for section in sections {
            out.extend_from_slice(&(section.len() as u64).to_le_bytes());
            out.extend_from_slice(section);
        }
        let sum = digest(&SHA256, &out);
        out.extend_from_slice(sum.as_ref());
        out.into()
    }

    /// Reads what [`Recording::encode`] wrote, without copying it.
    pub fn decode(file: &Bytes) -> Result<Recording, RecordingError> {
        let (name, version) = MAGIC.split_at(MAGIC.len() - 1);
        if !file.starts_with(name) {
            return Err(RecordingError::NotOne);
        }
        match file.get(name.len()) {
            Some(found) if *found == version[0] => {}
            Some(found) => return Err(RecordingError::Version(*found)),
            None => return Err(RecordingError::NotOne),
        }
        let body = file.len().checked_sub(32).filter(|body| *body >= MAGIC.len());
        let body = body.ok_or(RecordingError::Damaged("it is cut off"))?;
        let mut context = Context::new(&SHA256);
        context.update(&file[..body]);
        if context.finish().as_ref() != &file[body..] {
            return Err(RecordingError::Damaged("its checksum is not that of its content"));
        }
        Self::sections(&file.slice(MAGIC.len()..body))
    }

    fn sections(body: &Bytes) -> Result<Recording, RecordingError> {
        let mut at = 0;
        let mut section = || {
            let len = body
                .get(at..at + 8)
                .and_then(|len| len.try_into().ok())
                .map(u64::from_le_bytes);
            let len = len.and_then(|len| usize::try_from(len).ok());
            let len = len.filter(|len| *len <= body.len() - at - 8);
            let len = len.ok_or(RecordingError::Damaged("a section is cut off"))?;
            let section = body.slice(at + 8..at + 8 + len);
            at += 8 + len;
            Ok(section)
        };
        let recording = Recording {
            component: section()?,
            image: section()?,
            base: section()?,
            journal: section()?,
            last: section()?,
            hash: match section()? {
                hash if hash.is_empty() => None,
                hash => {
                    Some(Digest(hash.as_ref().try_into().map_err(|_| {
                        RecordingError::Damaged("its state hash has another length")
                    })?))
                }
            },
        };
        if at != body.len() {
            return Err(RecordingError::Damaged("something follows its end"));
        }
        Ok(recording)
    }

    /// The version of the module that plays in it.
    pub fn digest(&self) -> Result<Digest, UnplayableError> {
        let base = HostPart::decode(&self.base).map_err(UnplayableError::Part)?;
        Ok(base.start().digest)
    }

    /// Sets the match up as it was at the base.
    pub fn play(&self, engine: &Engine) -> Result<Player, UnplayableError> {
        let base = HostPart::decode(&self.base).map_err(UnplayableError::Part)?;
        let last = HostPart::decode(&self.last).map_err(UnplayableError::Part)?;
        let image = match self.image.is_empty() {
            true => None,
            false => Some(Image::decode(&self.image).map_err(UnplayableError::Image)?),
        };
        let module = engine.compile(&self.component).map_err(UnplayableError::Module)?;
        let digest = module.digest();
        if base.start().digest != digest || image.as_ref().is_some_and(|image| image.module() != digest) {
            return Err(UnplayableError::AnotherModule);
        }
        let records = Records::read(self.journal.clone()).map_err(UnplayableError::Journal)?;
        if records.after() != (base.event_no(), base.now_ms()) {
            return Err(UnplayableError::Gap);
        }
        let game = Match::at(&module, base, image.as_ref()).map_err(UnplayableError::Instance)?;
        Ok(Player {
            game,
            records,
            last,
            hash: self.hash,
        })
    }
}

/// A recording that is whole, and cannot be played all the same.
#[derive(Debug, thiserror::Error)]
pub enum UnplayableError {
    #[error("its state cannot be read")]
    Part(#[source] DecodeError),
    #[error("its image cannot be read")]
    Image(#[source] ImageError),
    #[error("its journal cannot be read")]
    Journal(#[source] JournalError),
    #[error("its component is no match logic for this build")]
    Module(#[source] ModuleError),
    #[error("its component is not that of the match")]
    AnotherModule,
    #[error("its journal does not begin where its base ends")]
    Gap,
    #[error("its match cannot be set up")]
    Instance(#[source] Failure),
}

/// A recording that is being played.
pub struct Player {
    game: Match,
    records: Records,
    last: HostPart,
    hash: Option<Digest>,
}

impl Player {
    /// Plays the next event. None when there are no more.
    pub fn next(&mut self, applied: &mut Applied) -> Option<Result<(), Diverged>> {
        let event = self.records.after().0 + 1;
        let recorded = match self.records.next()? {
            Ok(recorded) => recorded,
            Err(error) => {
                let how = Divergence::Record(error);
                return Some(Err(Diverged { event, how }));
            }
        };
        Some(self.game.replay(recorded, applied))
    }

    /// The match as far as it was played.
    pub fn game(&mut self) -> &mut Match {
        &mut self.game
    }

    /// The host's part as it was at the end of the recording.
    pub fn recorded(&self) -> &HostPart {
        &self.last
    }

    /// Whether the match came to what was recorded, now that all of it was played.
    ///
    /// # Errors
    /// It came to another state.
    pub fn finish(&mut self) -> Result<Option<Digest>, Diverged> {
        let hash = self.game.state_hash();
        let event = self.game.part().event_no();
        let is_same = event == self.last.event_no() && (self.hash.is_none() || self.hash == hash);
        match is_same {
            true => Ok(hash),
            false => Err(Diverged {
                event,
                how: Divergence::State,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
