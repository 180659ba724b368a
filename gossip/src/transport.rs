//! The seam between the gossip library and our connections: the library's messages as bytes, and nothing else of it. `send` only puts
//! a message into a queue: the library's one task awaits it between receiving and ticking, and dialling in there held up the failure
//! detector for seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::warn;

use crate::control::Control;
use crate::guard;
use crate::guard::lives::Lives;
use crate::inbound::BoxFuture;
use crate::peer::Life;
use crate::pulse::Pulse;
use crate::stats::Counters;

/// Gossip that came and that the library has not taken yet; further messages are dropped, gossip repairs itself.
pub(crate) const INBOX_LEN_MAX: usize = 256;

/// From when on a tick counts as late: more than this is more than the network and the scheduler of a machine with room to spare take.
const LATE_AFTER: Duration = Duration::from_millis(20);

/// Refused messages are logged at most once in this time: a peer that sends one sends many.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A gossip message as it came, and its place among those of its sender that may wait.
pub(crate) type Letter = (SocketAddr, Bytes, OwnedSemaphorePermit);

/// Hands the library its socket, once.
pub(crate) struct Carrier {
    local: Life,
    control: Arc<Control>,
    inbox: Mutex<Option<mpsc::Receiver<Letter>>>,
    counters: Arc<Counters>,
    interval: Duration,
}

impl Carrier {
    /// `interval` is how often the library ticks.
    pub(crate) fn new(
        local: Life,
        control: Arc<Control>,
        inbox: mpsc::Receiver<Letter>,
        counters: Arc<Counters>,
        interval: Duration,
    ) -> Self {
        Self {
            local,
            control,
            inbox: Mutex::new(Some(inbox)),
            counters,
            interval,
        }
    }
}

impl Transport for Carrier {
    fn open<'life, 'future>(&'life self, _: SocketAddr) -> BoxFuture<'future, anyhow::Result<Box<dyn Socket>>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async {
            let inbox = self.inbox.lock().expect("nothing panics under this lock").take();
            let inbox = inbox.ok_or_else(|| anyhow::anyhow!("the mesh has one socket"))?;
            let socket: Box<dyn Socket> = Box::new(Post {
                local: self.local.clone(),
                lives: Lives::default(),
                warned_at: None,
                control: self.control.clone(),
                inbox,
                counters: self.counters.clone(),
                interval: self.interval,
                pulse: Pulse::new(self.interval),
                opened_at: Instant::now(),
            });
            Ok(socket)
        })
    }
}

struct Post {
    local: Life,
    lives: Lives,
    warned_at: Option<Instant>,
    control: Arc<Control>,
    inbox: mpsc::Receiver<Letter>,
    counters: Arc<Counters>,
    interval: Duration,
    pulse: Pulse,
    opened_at: Instant,
}

impl Post {
    /// Reads a message, if it can be handed on.
    fn read(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<ChitchatMessage> {
        let checked = guard::check(&self.local, bytes)
            .and_then(|()| self.lives.admit(self.opened_at.elapsed(), bytes))
            .map_err(anyhow::Error::from);
        match checked.and_then(|()| ChitchatMessage::deserialize(&mut &bytes[..])) {
            Ok(message) => Some(message),
            Err(error) => {
                self.counters.gossip_refused.add(1);
                if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    self.warned_at = Some(Instant::now());
                    warn!(peer_addr = %from, %error, "a gossip message is refused");
                }
                None
            }
        }
    }

    /// The library's loop begins a turn.
    fn turn(&mut self) {
        let Some(late) = self.pulse.turn(self.opened_at.elapsed()) else {
            return;
        };
        let counters = &self.counters;
        counters.gossip_ticks.add(1);
        counters.gossip_ticks_late_20ms.add(u64::from(late > LATE_AFTER));
        counters.gossip_ticks_late_interval.add(u64::from(late > self.interval));
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        counters.gossip_tick_late_max_us.raise_to(late_us);
    }
}

impl Socket for Post {
    fn send<'life, 'future>(
        &'life mut self,
        to: SocketAddr,
        message: ChitchatMessage,
    ) -> BoxFuture<'future, anyhow::Result<()>>
    where
        'life: 'future,
        Self: 'future,
    {
        self.control.gossip(to, message.serialize_to_vec().into());
        Box::pin(std::future::ready(Ok(())))
    }

    fn recv<'life, 'future>(&'life mut self) -> BoxFuture<'future, anyhow::Result<(SocketAddr, ChitchatMessage)>>
    where
        'life: 'future,
        Self: 'future,
    {
        self.turn();
        Box::pin(async {
            loop {
                let (from, bytes, _place) = self
                    .inbox
                    .recv()
                    .await
                    .ok_or_else(|| anyhow::anyhow!("the mesh has stopped"))?;
                if let Some(message) = self.read(from, &bytes) {
                    return Ok((from, message));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version is pinned because later ones hide this; the test fails to compile when the pin is lifted by mistake.
    #[test]
    fn gossip_messages_survive_the_wire() {
        let message = ChitchatMessage::BadCluster;
        let bytes = message.serialize_to_vec();
        assert_eq!(ChitchatMessage::deserialize(&mut &bytes[..]).unwrap(), message);
    }
}
