//! Recordings of matches on this node and on their way from it: taken of live ones when an operator asks, kept on disk of those that
//! failed for good. What is in one is `matches::recording`.
//!
//! Invariants: what is kept on disk is bounded in number and bytes, the oldest goes first; a recording that nobody fetches is
//! forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{PeerAnswer, PeerRequest};
use rookery_protocol::{MatchId, NodeName};

use crate::matches::recording::{Recording, Taken};
use crate::modules::unavailable;
use crate::session::hub::Hub;

/// One piece of a recording on its way: these go over the connection that gossip uses too.
const PIECE_BYTES: usize = 256 << 10;

/// Recordings that wait to be fetched, and for how long after the last piece.
const WAITING_MAX: usize = 4;
const WAITS: Duration = Duration::from_secs(30);

/// The most that a recording without its component may be: a guest's memory is bounded, and it is compressed.
const BYTES_MAX: u64 = 256 << 20;

/// Recordings of failed matches that are kept, and their bytes together.
const KEPT_MAX: usize = 32;
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// How long one question of a fetch may take.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// What this node has of recordings.
#[derive(Debug)]
pub struct Recordings {
    dir: PathBuf,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    by_ticket: BTreeMap<u64, (Bytes, Instant)>,
}

impl Recordings {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("recordings"),
            waiting: Mutex::default(),
        }
    }

    fn path(&self, target: MatchId) -> PathBuf {
        self.dir.join(format!("{target}.recording"))
    }

    /// Has a recording wait to be fetched, and says under which ticket.
    fn offer(&self, file: Bytes) -> Result<u64, Refusal> {
        let mut waiting = self.waiting.lock().expect("no thread panics holding it");
        waiting.by_ticket.retain(|_, (_, since)| since.elapsed() < WAITS);
        if waiting.by_ticket.len() >= WAITING_MAX {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "too many recordings are being fetched",
            ));
        }
        waiting.last += 1;
        let ticket = waiting.last;
        waiting.by_ticket.insert(ticket, (file, Instant::now()));
        Ok(ticket)
    }

    /// One piece of it; none when it is not there. With the last one it is forgotten.
    pub fn piece(&self, ticket: u64, piece: u32) -> Option<Bytes> {
        let mut waiting = self.waiting.lock().expect("no thread panics holding it");
        let (file, since) = waiting.by_ticket.get_mut(&ticket)?;
        *since = Instant::now();
        let from = (piece as usize)
            .checked_mul(PIECE_BYTES)
            .filter(|from| *from < file.len())?;
        let to = file.len().min(from + PIECE_BYTES);
        let (bytes, is_last) = (file.slice(from..to), to == file.len());
        if is_last {
            waiting.by_ticket.remove(&ticket);
        }
        Some(bytes)
    }

    /// Writes the recording of a match that failed, and makes room for it.
    fn keep(&self, target: MatchId, file: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            kept.push((meta.modified()?, meta.len(), entry.path()));
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, len, _)| len).sum::<u64>() + file.len() as u64;
        let mut count = kept.len() + 1;
        for (_, len, path) in kept {
            if count <= KEPT_MAX && bytes <= KEPT_BYTES_MAX {
                break;
            }
            std::fs::remove_file(path)?;
            (count, bytes) = (count - 1, bytes - len);
        }
        let (part, whole) = (self.dir.join(format!("{target}.part")), self.path(target));
        std::fs::write(&part, file)?;
        std::fs::rename(part, whole)
    }
}

/// Keeps the recording of a match that failed for good.
pub async fn keep(hub: &Hub, target: MatchId, taken: Taken) {
    let recordings = Arc::clone(hub.recordings());
    let written = tokio::task::spawn_blocking(move || recordings.keep(target, &taken.record().encode())).await;
    match written {
        Ok(Ok(())) => tracing::info!(%target, "the recording of a failed match is kept: rookery match export"),
        Ok(Err(error)) => tracing::warn!(%target, %error, "the recording of a failed match could not be kept"),
        Err(error) => tracing::warn!(%target, %error, "the recording of a failed match was not written"),
    }
}

/// Another node, or an operator through this one, wants the recording of a match that is or was here.
pub async fn offer(hub: &Arc<Hub>, target: MatchId) -> PeerAnswer {
    match recording_here(hub, target).await {
        Ok(None) => PeerAnswer::NotHere,
        Ok(Some(file)) => {
            let bytes = file.len() as u64;
            match hub.recordings().offer(file) {
                Ok(ticket) => PeerAnswer::Recorded { ticket, bytes },
                Err(refusal) => PeerAnswer::Refused(refusal),
            }
        }
        Err(refusal) => PeerAnswer::Refused(refusal),
    }
}

async fn recording_here(hub: &Arc<Hub>, target: MatchId) -> Result<Option<Bytes>, Refusal> {
    let cut_short = |_| Refusal::new(ErrorCode::Internal, "the recording was cut short");
    match hub.executor().take_down(target).await {
        Some(Ok(taken)) => {
            let encoded = tokio::task::spawn_blocking(move || taken.record().encode()).await;
            encoded.map(Some).map_err(cut_short)
        }
        Some(Err(why)) => {
            let message = "nothing is kept of this match that could be played again";
            Err(Refusal::new(ErrorCode::MatchClosed, message).with("reason", &*why))
        }
        None => {
            let path = hub.recordings().path(target);
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            Ok(read.map_err(cut_short)?.ok().map(Bytes::from))
        }
    }
}

/// The recording of a match, live or failed, from the node that has or had it; its component comes from the store.
///
/// # Errors
/// `match.not_found` when nobody has one, `match.closed` when the match cannot be recorded, `unavailable`.
pub async fn fetch(hub: &Arc<Hub>, owner: &NodeName, target: MatchId) -> Result<Bytes, Refusal> {
    let lost = || Refusal::new(ErrorCode::Unavailable, "the recording did not come whole; try again");
    let (ticket, bytes) = match hub.ask(owner, &PeerRequest::Record { target }, ASK_WITHIN).await? {
        PeerAnswer::Recorded { ticket, bytes } if bytes <= BYTES_MAX => (ticket, bytes as usize),
        PeerAnswer::Recorded { .. } => {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "the recording is too large to be fetched",
            ));
        }
        PeerAnswer::Refused(refusal) => return Err(refusal),
        _ => {
            let message = format!("{owner} has no recording of match {target}");
            return Err(Refusal::new(ErrorCode::MatchNotFound, message));
        }
    };
    let mut file = Vec::new();
    for piece in 0.. {
        if file.len() >= bytes {
            break;
        }
        match hub
            .ask(owner, &PeerRequest::RecordPiece { ticket, piece }, ASK_WITHIN)
            .await?
        {
            PeerAnswer::Piece(part) if !part.is_empty() && part.len() <= bytes - file.len() => {
                file.extend_from_slice(&part);
            }
            _ => return Err(lost()),
        }
    }
    let unreadable = |error: &dyn std::error::Error| {
        let message = "the recording cannot be read by this version";
        Refusal::new(ErrorCode::Internal, message).with("reason", error.to_string())
    };
    let mut recording = Recording::decode(&file.into()).map_err(|error| unreadable(&error))?;
    let digest = recording.digest().map_err(|error| unreadable(&error))?;
    let stored = hub.store().get_module(&digest).await;
    let stored = stored.map_err(|error| unavailable(&error))?;
    let message = "the match's module is not stored any more";
    let stored = stored.ok_or_else(|| Refusal::new(ErrorCode::ModuleNotFound, message))?;
    recording.component = stored.component;
    let whole = tokio::task::spawn_blocking(move || recording.encode()).await;
    whole.map_err(|_| lost())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::new(dir.path());
        let ids: Vec<MatchId> = (1..=KEPT_MAX as u128 + 3).map(MatchId::from_u128).collect();
        for id in &ids {
            recordings.keep(*id, b"recording").unwrap();
            // Files of one moment have no order.
            std::thread::sleep(Duration::from_millis(10));
        }
        let is_kept = |id: &MatchId| recordings.path(*id).exists();
        assert!(!ids[..3].iter().any(is_kept));
        assert!(ids[3..].iter().all(is_kept));
    }

    #[test]
    fn a_recording_is_fetched_piece_by_piece_and_then_forgotten() {
        let recordings = Recordings::new(Path::new("nowhere"));
        let file = Bytes::from(vec![7; PIECE_BYTES + 1]);
        let ticket = recordings.offer(file.clone()).unwrap();
        assert_eq!(recordings.piece(ticket, 2), None);
        assert_eq!(recordings.piece(ticket, 0), Some(file.slice(..PIECE_BYTES)));
        assert_eq!(recordings.piece(ticket, 1), Some(file.slice(PIECE_BYTES..)));
        assert_eq!(recordings.piece(ticket, 0), None);
        for _ in 0..WAITING_MAX {
            recordings.offer(file.clone()).unwrap();
        }
        assert!(recordings.offer(file).is_err());
    }
}
