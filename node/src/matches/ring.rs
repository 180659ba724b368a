//! The recent outputs of a match, for streams that missed some. Bounded; it knows what it no longer has. A published value that was
//! published anew is taken out: nobody needs the older one, and a match that publishes its world 20 times a second would fill
//! the whole ring with worlds. What a match says while nobody sits in it is not kept at all: who comes later is told what there is then.
//!
//! Invariant: if `since(seq)` answers, then every output above `seq` is in the answer, but for superseded published values and for what
//! there was nobody to hear.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::output::{Body, Output};

/// Outputs kept.
pub const OUTPUTS_MAX: usize = 4_096;

/// Their payloads and what the host needs around them, kept.
pub const BYTES_MAX: usize = 1 << 20;

/// What an output takes besides its payload, roughly.
const OUTPUT_OVERHEAD_BYTES: usize = 128;

/// How long outputs are kept when nobody is left: gateways are told again that a player was thrown out, and that the match is over.
const KEPT_FOR_NOBODY_MS: u64 = 60_000;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ring {
    outputs: VecDeque<Arc<Output>>,
    /// The highest number that was dropped for want of room, or from which the numbering began.
    dropped_to: u64,
    bytes: usize,
}

impl Ring {
    /// A ring for a match whose first output will have a number above `seq`.
    pub fn starting_after(seq: u64) -> Ring {
        Ring {
            dropped_to: seq,
            ..Ring::default()
        }
    }

    pub fn push(&mut self, output: Arc<Output>) {
        self.bytes += weight(&output);
        self.outputs.push_back(output);
        while self.outputs.len() > OUTPUTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.outputs.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.dropped_to = oldest.seq;
        }
        // A burst should not hold memory for the rest of the match.
        if self.outputs.capacity() > 64 && self.outputs.len() < self.outputs.capacity() / 4 {
            self.outputs.shrink_to(self.outputs.len() * 2);
        }
    }

    /// Nobody was there to hear what was said at this time. What was kept is kept for those who have just left, for a while.
    pub fn pass_over(&mut self, at_ms: u64) {
        let Some(last) = self.outputs.back() else { return };
        if at_ms.saturating_sub(last.at_ms) > KEPT_FOR_NOBODY_MS {
            *self = Self::starting_after(last.seq);
        }
    }

    /// Takes out a published value because a newer one follows.
    pub fn supersede(&mut self, seq: u64) {
        if let Ok(index) = self.outputs.binary_search_by_key(&seq, |output| output.seq)
            && let Some(output) = self.outputs.remove(index)
        {
            self.bytes -= weight(&output);
        }
    }

    /// The outputs above a number, oldest first; none if some of them are gone.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Output>>> {
        if seq < self.dropped_to {
            return None;
        }
        let start = self.outputs.partition_point(|output| output.seq <= seq);
        Some(self.outputs.range(start..))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Output>> {
        self.outputs.iter()
    }

    /// Whether the numbers ascend, on which looking for one relies.
    pub fn is_ordered(&self) -> bool {
        self.outputs.iter().is_sorted_by_key(|output| output.seq)
    }

    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

fn weight(output: &Output) -> usize {
    let payload = match &output.body {
        Body::Data { data } => data.len(),
        Body::Published { key, data } => key.len() + data.as_ref().map_or(0, |data| data.len()),
        Body::Players {
            joined,
            left,
            away,
            back,
        } => {
            joined
                .iter()
                .map(|player| 64 + player.name.len() + player.player.len())
                .sum::<usize>()
                + 8 * (left.len() + away.len() + back.len())
        }
        Body::Kicked { reason } => reason.len(),
        Body::Transferring => 0,
        // The values are shared with the published state; the players are not.
        Body::Joined(joined) => 256 + joined.players.len() * 128 + joined.values.len() * 64,
    };
    OUTPUT_OVERHEAD_BYTES + payload
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.dropped_to, &self.outputs).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ring {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (dropped_to, outputs): (u64, VecDeque<Arc<Output>>) = Deserialize::deserialize(deserializer)?;
        let bytes = outputs.iter().map(|output| weight(output)).sum();
        Ok(Self {
            outputs,
            dropped_to,
            bytes,
        })
    }
}
