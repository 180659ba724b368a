//! Writing what the cluster's services say: queues and parties, channels, presence, storage, worlds.

use bytes::Bytes;

use super::super::{
    ChannelMessage, ChatLine, Encoding, PartyState, PlayerPresence, PresenceMessage, QueueMessage, StorageMessage,
    StoredValue, WorldMessage, WorldState, ZoneState,
};
use super::{MapWriter, message};

pub(super) fn queue_kind(said: &QueueMessage) -> &'static str {
    match said {
        QueueMessage::Joined { .. } => "queue.joined",
        QueueMessage::Left { .. } => "queue.left",
        QueueMessage::State { .. } => "queue.state",
        QueueMessage::Matched { .. } => "queue.matched",
        QueueMessage::Expired { .. } => "queue.expired",
    }
}

pub(super) fn channel_kind(said: &ChannelMessage) -> &'static str {
    match said {
        ChannelMessage::Joined { .. } => "channel.joined",
        ChannelMessage::Sent { .. } => "channel.sent",
        ChannelMessage::History { .. } => "channel.messages",
        ChannelMessage::Left { .. } => "channel.left",
        ChannelMessage::Line { .. } => "channel.message",
        ChannelMessage::Members { .. } => "channel.members",
    }
}

pub(super) fn presence_kind(said: &PresenceMessage) -> &'static str {
    match said {
        PresenceMessage::State { .. } => "presence.state",
        PresenceMessage::Changed { .. } => "presence.changed",
    }
}

pub(super) fn storage_kind(said: &StorageMessage) -> &'static str {
    match said {
        StorageMessage::Value { .. } => "storage.value",
        StorageMessage::Stored { .. } => "storage.stored",
        StorageMessage::Deleted => "storage.deleted",
        StorageMessage::Listed { .. } => "storage.listed",
    }
}

pub(super) fn queue(said: &QueueMessage, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    match said {
        QueueMessage::Joined { ticket } | QueueMessage::Left { ticket } | QueueMessage::Expired { ticket } => {
            message(encoding, 96, kind, id, |map| map.display("ticket", ticket))
        }
        QueueMessage::State {
            ticket,
            queue,
            state,
            waited_ms,
            estimate_ms,
        } => message(encoding, 192, kind, id, |map| {
            map.display("ticket", ticket);
            map.text("queue", queue);
            map.field("state").plain(state.as_str());
            map.unsigned("waited_ms", *waited_ms);
            if let Some(estimate_ms) = estimate_ms {
                map.unsigned("estimate_ms", *estimate_ms);
            }
        }),
        QueueMessage::Matched {
            ticket,
            target,
            team,
            players,
        } => message(encoding, 160 + 80 * players.len(), kind, id, |map| {
            map.display("ticket", ticket);
            map.display("match", target);
            map.unsigned("team", (*team).into());
            map.list("players", players, |player, out| {
                out.map(|map| {
                    map.display("player", &player.player);
                    map.text("name", &player.name);
                    map.unsigned("team", player.team.into());
                });
            });
        }),
    }
}

pub(super) fn party(state: &PartyState, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    message(encoding, 160 + 32 * state.members.len(), kind, id, |map| {
        map.display("party", &state.party);
        map.text("code", &state.code);
        map.display("leader", &state.leader);
        map.list("members", &state.members, |member, out| out.text(&member.to_string()));
    })
}

pub(super) fn channel(said: &ChannelMessage, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    match said {
        ChannelMessage::Joined {
            channel,
            last,
            members,
            truncated,
        } => message(encoding, 96 + 32 * members.len(), kind, id, |map| {
            map.text("channel", channel);
            map.unsigned("last", *last);
            map.texts("members", members);
            if *truncated {
                map.boolean("truncated", true);
            }
        }),
        ChannelMessage::Sent {
            channel,
            message: number,
            at,
        } => message(encoding, 96, kind, id, |map| {
            map.text("channel", channel);
            map.unsigned("message", *number);
            map.unsigned("at", *at);
        }),
        ChannelMessage::History { channel, messages } => {
            let room = 64 + messages.iter().map(|line| 96 + line.text.len()).sum::<usize>();
            message(encoding, room, kind, id, |map| {
                map.text("channel", channel);
                map.list("messages", messages, |line, out| out.map(|map| map.line(line)));
            })
        }
        ChannelMessage::Left { channel } => message(encoding, 64, kind, id, |map| map.text("channel", channel)),
        ChannelMessage::Line { channel, line } => message(encoding, 160 + line.text.len(), kind, id, |map| {
            map.text("channel", channel);
            map.line(line);
        }),
        ChannelMessage::Members { channel, joined, left } => {
            message(encoding, 96 + 32 * (joined.len() + left.len()), kind, id, |map| {
                map.text("channel", channel);
                map.texts("joined", joined);
                map.texts("left", left);
            })
        }
    }
}

pub(super) fn presence(said: &PresenceMessage, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    match said {
        PresenceMessage::State { players } => message(encoding, 64 + 96 * players.len(), kind, id, |map| {
            map.list("players", players, |player, out| out.map(|map| map.presence(player)));
        }),
        PresenceMessage::Changed { player, online, status } => message(encoding, 128, kind, id, |map| {
            map.display("player", player);
            map.boolean("online", *online);
            map.text_or_null("status", status.as_deref());
        }),
    }
}

pub(super) fn storage(said: &StorageMessage, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    match said {
        StorageMessage::Value { collection, entry } => {
            message(encoding, 160 + 2 * entry.value.bytes.len(), kind, id, |map| {
                map.text("collection", collection);
                map.value(entry);
            })
        }
        StorageMessage::Stored { version } => message(encoding, 96, kind, id, |map| map.text("version", version)),
        StorageMessage::Deleted => message(encoding, 48, kind, id, |_| {}),
        StorageMessage::Listed {
            collection,
            values,
            cursor,
        } => {
            let room = 96
                + values
                    .iter()
                    .map(|value| 128 + 2 * value.value.bytes.len())
                    .sum::<usize>();
            message(encoding, room, kind, id, |map| {
                map.text("collection", collection);
                map.list("values", values, |value, out| out.map(|map| map.value(value)));
                map.maybe_text("cursor", cursor.as_deref());
            })
        }
    }
}

pub(super) fn world(said: &WorldMessage, encoding: Encoding, kind: &'static str, id: Option<i64>) -> Bytes {
    match said {
        WorldMessage::Listed { worlds } => message(encoding, 512, kind, id, |map| {
            map.list("worlds", worlds, |world, out| out.map(|map| map.world(world)));
        }),
    }
}

impl MapWriter<'_> {
    fn texts(&mut self, name: &'static str, texts: &[String]) {
        self.list(name, texts, |text, out| out.text(text));
    }

    fn text_or_null(&mut self, name: &'static str, text: Option<&str>) {
        let out = self.field(name);
        match text {
            Some(text) => out.text(text),
            None => out.null(),
        }
    }

    fn line(&mut self, line: &ChatLine) {
        self.unsigned("message", line.message);
        self.text("from", &line.from);
        self.text("text", &line.text);
        self.unsigned("at", line.at);
    }

    fn presence(&mut self, player: &PlayerPresence) {
        self.display("player", &player.player);
        self.boolean("online", player.online);
        self.text_or_null("status", player.status.as_deref());
        if let Some(target) = &player.target {
            self.display("match", target);
        }
    }

    fn value(&mut self, value: &StoredValue) {
        self.text("key", &value.key);
        self.payload("value", &value.value);
        self.text("version", &value.version);
    }

    fn world(&mut self, world: &WorldState) {
        self.text("world", &world.world);
        self.boolean("online", world.online);
        self.maybe_text("why", world.why.as_deref());
        self.list("zones", &world.zones, |zone, out| out.map(|map| map.zone(zone)));
    }

    fn zone(&mut self, zone: &ZoneState) {
        self.text("zone", &zone.zone);
        if let Some(target) = &zone.target {
            self.display("match", target);
        }
        self.text("state", &zone.state);
        self.unsigned("players", zone.players.into());
        if !zone.neighbours.is_empty() {
            self.texts("neighbours", &zone.neighbours);
        }
    }
}
