//! Writing the node's frames, straight into bytes: a broadcast is written once for each encoding and then shared. Field names
//! and `type` texts are CONTRACT section 3's; both encodings are written by the same code, so that they cannot drift apart.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value as Json;

use super::{
    Departure, Encoding, GoneMatch, ListedMatch, MatchJoined, PayloadCodec, PayloadOut, PlayerInfo, ResumedMatch,
    ServerMessage, WorldMessage, msgpack,
};
use crate::error::Refusal;
use crate::{MatchId, Seat};

mod services;

impl ServerMessage {
    /// Returns the frame that says this; `id` is the number of the request that it answers, none for a push.
    pub fn encode(&self, id: Option<i64>, encoding: Encoding) -> Bytes {
        let kind = self.kind();
        match self {
            Self::MatchData {
                target,
                seq,
                at,
                data,
                key,
                removed,
            } => encode_match_data(encoding, *target, *seq, *at, key.as_deref(), data.as_ref(), *removed),
            Self::MatchAck { target, n, seq } => encode_match_ack(encoding, *target, *n, *seq),
            Self::MatchApplied { target, n, data } => encode_match_applied(encoding, id, *target, *n, data.as_ref()),
            Self::Error(refusal) => message(encoding, 128, kind, id, |map| map.refusal(refusal)),
            Self::SessionOpened {
                session,
                player,
                node,
                nodes,
                resume_token,
                resumed,
                matches,
                gone,
                grace_ms,
                heartbeat_ms,
            } => message(encoding, 512, kind, id, |map| {
                map.display("session", session);
                map.display("player", player);
                map.text("node", node);
                map.list("nodes", nodes, |node, out| out.text(node));
                map.text("resume_token", resume_token);
                map.boolean("resumed", *resumed);
                map.list("matches", matches, |resumed, out| out.map(|map| map.resumed(resumed)));
                map.list("gone", gone, |gone, out| out.map(|map| map.gone(gone)));
                map.unsigned("grace_ms", *grace_ms);
                map.unsigned("heartbeat_ms", *heartbeat_ms);
            }),
            Self::SessionPong { t, now } => message(encoding, 64, kind, id, |map| {
                if let Some(t) = t {
                    map.field("t").number(*t);
                }
                map.unsigned("now", *now);
            }),
            Self::SessionClosed | Self::SessionReplaced => message(encoding, 48, kind, id, |_| {}),
            Self::SessionGoingAway {
                reason,
                within_ms,
                nodes,
            } => message(encoding, 256, kind, id, |map| {
                map.text("reason", reason);
                map.unsigned("within_ms", *within_ms);
                map.list("nodes", nodes, |node, out| out.text(node));
            }),
            Self::MatchCreated { target } | Self::MatchLeft { target } | Self::MatchLost { target } => {
                message(encoding, 96, kind, id, |map| map.display("match", target))
            }
            Self::MatchListed { matches, cursor } => message(encoding, 64 + 160 * matches.len(), kind, id, |map| {
                map.list("matches", matches, |listed, out| out.map(|map| map.listed(listed)));
                map.maybe_text("cursor", cursor.as_deref());
            }),
            Self::MatchJoined(joined) => message(encoding, 256 + 96 * joined.players.len(), kind, id, |map| {
                map.joined(joined)
            }),
            Self::MatchPlayers {
                target,
                seq,
                joined,
                left,
                away,
                back,
            } => message(encoding, 128 + 96 * joined.len(), kind, id, |map| {
                map.display("match", target);
                map.unsigned("seq", *seq);
                map.list("joined", joined, |player, out| out.map(|map| map.player(player)));
                map.list("left", left, |departure, out| out.map(|map| map.departure(departure)));
                map.seats("away", away);
                map.seats("back", back);
            }),
            Self::MatchKicked { target, seq, reason } => message(encoding, 128, kind, id, |map| {
                map.display("match", target);
                map.unsigned("seq", *seq);
                map.text("reason", reason);
            }),
            Self::MatchResend { target, n } => message(encoding, 96, kind, id, |map| {
                map.display("match", target);
                map.unsigned("n", *n);
            }),
            Self::MatchWaiting { target, why } => message(encoding, 128, kind, id, |map| {
                map.display("match", target);
                map.text("why", why);
            }),
            Self::MatchReset { target, seq, n } => message(encoding, 96, kind, id, |map| {
                map.display("match", target);
                map.unsigned("seq", *seq);
                map.unsigned("n", *n);
            }),
            Self::MatchMoved { from, joined } => message(encoding, 256 + 96 * joined.players.len(), kind, id, |map| {
                map.display("match", from);
                map.display("to", &joined.target);
                map.seated(joined);
            }),
            Self::Queue(said) => services::queue(said, encoding, kind, id),
            Self::Party(state) => services::party(state, encoding, kind, id),
            Self::Channel(said) => services::channel(said, encoding, kind, id),
            Self::Presence(said) => services::presence(said, encoding, kind, id),
            Self::Storage(said) => services::storage(said, encoding, kind, id),
            Self::World(said) => services::world(said, encoding, kind, id),
            Self::MatchEnded { target, result } => message(encoding, 96 + 2 * result.bytes.len(), kind, id, |map| {
                map.display("match", target);
                map.payload("result", result);
            }),
            Self::MatchFailed { target, reason } => message(encoding, 128, kind, id, |map| {
                map.display("match", target);
                map.text("reason", reason);
            }),
        }
    }

    /// Returns the `type` of the message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Error(_) => "error",
            Self::SessionOpened { .. } => "session.opened",
            Self::SessionPong { .. } => "session.pong",
            Self::SessionClosed => "session.closed",
            Self::SessionGoingAway { .. } => "session.going_away",
            Self::SessionReplaced => "session.replaced",
            Self::MatchCreated { .. } => "match.created",
            Self::MatchListed { .. } => "match.listed",
            Self::MatchJoined(_) => "match.joined",
            Self::MatchLeft { .. } => "match.left",
            Self::MatchApplied { .. } => "match.applied",
            Self::MatchData { .. } => "match.data",
            Self::MatchPlayers { .. } => "match.players",
            Self::MatchKicked { .. } => "match.kicked",
            Self::MatchResend { .. } => "match.resend",
            Self::MatchWaiting { .. } => "match.waiting",
            Self::MatchAck { .. } => "match.ack",
            Self::MatchReset { .. } => "match.reset",
            Self::MatchEnded { .. } => "match.ended",
            Self::MatchLost { .. } => "match.lost",
            Self::MatchFailed { .. } => "match.failed",
            Self::MatchMoved { .. } => "match.moved",
            Self::Queue(said) => services::queue_kind(said),
            Self::Party(_) => "party.state",
            Self::Channel(said) => services::channel_kind(said),
            Self::Presence(said) => services::presence_kind(said),
            Self::Storage(said) => services::storage_kind(said),
            Self::World(WorldMessage::Listed { .. }) => "world.listed",
        }
    }
}

/// Returns a `match.data` frame. `removed` is written only when it is true.
pub fn encode_match_data(
    encoding: Encoding,
    target: MatchId,
    seq: u64,
    at: u64,
    key: Option<&str>,
    data: Option<&PayloadOut>,
    removed: bool,
) -> Bytes {
    let room = 96 + key.map_or(0, str::len) + data.map_or(0, |data| room_for(encoding, data));
    message(encoding, room, "match.data", None, |map| {
        map.display("match", &target);
        map.unsigned("seq", seq);
        map.unsigned("at", at);
        if let Some(data) = data {
            map.payload("data", data);
        }
        map.maybe_text("key", key);
        if removed {
            map.boolean("removed", true);
        }
    })
}

/// Returns a `match.ack` frame.
pub fn encode_match_ack(encoding: Encoding, target: MatchId, n: u64, seq: u64) -> Bytes {
    message(encoding, 96, "match.ack", None, |map| {
        map.display("match", &target);
        map.unsigned("n", n);
        map.unsigned("seq", seq);
    })
}

/// Returns a `match.applied` frame, the answer to the input with this `id`.
pub fn encode_match_applied(
    encoding: Encoding,
    id: Option<i64>,
    target: MatchId,
    n: Option<u64>,
    data: Option<&PayloadOut>,
) -> Bytes {
    let room = 96 + data.map_or(0, |data| room_for(encoding, data));
    message(encoding, room, "match.applied", id, |map| {
        map.display("match", &target);
        if let Some(n) = n {
            map.unsigned("n", n);
        }
        if let Some(data) = data {
            map.payload("data", data);
        }
    })
}

fn room_for(encoding: Encoding, data: &PayloadOut) -> usize {
    match (encoding, data.codec) {
        (Encoding::Json, PayloadCodec::Binary) => data.bytes.len().div_ceil(3) * 4 + 2,
        (Encoding::Json, PayloadCodec::Json) | (Encoding::MsgPack, _) => data.bytes.len() + 5,
    }
}

fn message(
    encoding: Encoding,
    room: usize,
    kind: &'static str,
    id: Option<i64>,
    rest: impl FnOnce(&mut MapWriter<'_>),
) -> Bytes {
    let mut writer = Writer {
        encoding,
        out: Vec::with_capacity(room),
    };
    writer.map(|map| {
        map.field("type").plain(kind);
        if let Some(id) = id {
            map.field("id").signed(id);
        }
        rest(map);
    });
    Bytes::from(writer.out)
}

/// Where one value goes next.
struct Writer {
    encoding: Encoding,
    out: Vec<u8>,
}

impl Writer {
    fn text(&mut self, text: &str) {
        match self.encoding {
            Encoding::Json => {
                serde_json::to_writer(&mut self.out, text).expect("writing a string into memory cannot fail")
            }
            Encoding::MsgPack => msgpack::write_str(&mut self.out, text),
        }
    }

    /// Text without anything that JSON escapes.
    fn plain(&mut self, text: &str) {
        match self.encoding {
            Encoding::Json => {
                self.out.push(b'"');
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(b'"');
            }
            Encoding::MsgPack => msgpack::write_str(&mut self.out, text),
        }
    }

    fn digits(&mut self, number: impl std::fmt::Display) {
        use std::io::Write as _;
        write!(self.out, "{number}").expect("writing into memory cannot fail");
    }

    fn unsigned(&mut self, value: u64) {
        match self.encoding {
            Encoding::Json => self.digits(value),
            Encoding::MsgPack => msgpack::write_unsigned(&mut self.out, value),
        }
    }

    fn signed(&mut self, value: i64) {
        match self.encoding {
            Encoding::Json => self.digits(value),
            Encoding::MsgPack => msgpack::write_signed(&mut self.out, value),
        }
    }

    /// A number as the client wrote it: whole numbers come back whole. One that is not finite is null.
    fn number(&mut self, value: f64) {
        // Up to here a float names each whole number.
        const WHOLE_MAX: f64 = (1_u64 << 53) as f64;
        if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
            return self.signed(value as i64);
        }
        match self.encoding {
            Encoding::Json if value.is_finite() => {
                serde_json::to_writer(&mut self.out, &value).expect("writing a number into memory cannot fail")
            }
            Encoding::MsgPack if value.is_finite() => msgpack::write_float(&mut self.out, value),
            Encoding::Json | Encoding::MsgPack => self.null(),
        }
    }

    fn boolean(&mut self, value: bool) {
        match self.encoding {
            Encoding::Json => self.out.extend_from_slice(if value { b"true" } else { b"false" }),
            Encoding::MsgPack => msgpack::write_bool(&mut self.out, value),
        }
    }

    fn null(&mut self) {
        match self.encoding {
            Encoding::Json => self.out.extend_from_slice(b"null"),
            Encoding::MsgPack => msgpack::write_nil(&mut self.out),
        }
    }

    fn payload(&mut self, payload: &PayloadOut) {
        match (self.encoding, payload.codec) {
            // A module that says nothing in JSON says null; nothing at all would be no JSON, and break the frame around it.
            (Encoding::Json, PayloadCodec::Json) if payload.bytes.is_empty() => self.null(),
            (Encoding::MsgPack, PayloadCodec::Json) if payload.bytes.is_empty() => {
                msgpack::write_bin(&mut self.out, b"null");
            }
            (Encoding::MsgPack, _) => msgpack::write_bin(&mut self.out, &payload.bytes),
            (Encoding::Json, PayloadCodec::Json) => self.out.extend_from_slice(&payload.bytes),
            (Encoding::Json, PayloadCodec::Binary) => {
                self.out.push(b'"');
                let start = self.out.len();
                self.out.resize(start + payload.bytes.len().div_ceil(3) * 4, 0);
                STANDARD
                    .encode_slice(&payload.bytes, &mut self.out[start..])
                    .expect("the room was reckoned by base64's own rule");
                self.out.push(b'"');
            }
        }
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&T, &mut Writer)) {
        match self.encoding {
            Encoding::Json => {
                self.out.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        self.out.push(b',');
                    }
                    each(item, self);
                }
                self.out.push(b']');
            }
            Encoding::MsgPack => {
                msgpack::write_array(&mut self.out, items.len());
                for item in items {
                    each(item, self);
                }
            }
        }
    }

    /// A map of at most 15 fields, whose count is known only when they are written.
    fn map(&mut self, fields: impl FnOnce(&mut MapWriter<'_>)) {
        let head = self.out.len();
        self.out.push(match self.encoding {
            Encoding::Json => b'{',
            Encoding::MsgPack => msgpack::FIX_MAP,
        });
        let mut map = MapWriter { writer: self, pairs: 0 };
        fields(&mut map);
        let pairs = map.pairs;
        match self.encoding {
            Encoding::Json => self.out.push(b'}'),
            Encoding::MsgPack => {
                assert!(
                    pairs <= msgpack::FIX_MAP_MAX,
                    "no message of the contract has more fields than a fixmap"
                );
                self.out[head] |= pairs as u8;
            }
        }
    }

    /// A map of somebody else's keys.
    fn entries<'a, V: 'a>(
        &mut self,
        entries: impl ExactSizeIterator<Item = (&'a String, V)>,
        mut each: impl FnMut(V, &mut Writer),
    ) {
        if self.encoding == Encoding::MsgPack {
            msgpack::write_map(&mut self.out, entries.len());
        } else {
            self.out.push(b'{');
        }
        for (place, (key, value)) in entries.enumerate() {
            if self.encoding == Encoding::Json && place > 0 {
                self.out.push(b',');
            }
            self.text(key);
            if self.encoding == Encoding::Json {
                self.out.push(b':');
            }
            each(value, self);
        }
        if self.encoding == Encoding::Json {
            self.out.push(b'}');
        }
    }

    fn json(&mut self, value: &Json) {
        if self.encoding == Encoding::Json {
            return serde_json::to_writer(&mut self.out, value).expect("writing JSON into memory cannot fail");
        }
        match value {
            Json::Null => self.null(),
            Json::Bool(value) => self.boolean(*value),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => self.unsigned(value),
                (None, Some(value)) => self.signed(value),
                (None, None) => self.number(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => self.list(items, |item, out| out.json(item)),
            Json::Object(map) => self.entries(map.iter(), |value, out| out.json(value)),
        }
    }
}

/// The inside of one map.
struct MapWriter<'w> {
    writer: &'w mut Writer,
    pairs: usize,
}

impl MapWriter<'_> {
    /// Writes the field's name; its value must be written next.
    fn field(&mut self, name: &'static str) -> &mut Writer {
        if self.writer.encoding == Encoding::Json && self.pairs > 0 {
            self.writer.out.push(b',');
        }
        self.pairs += 1;
        self.writer.plain(name);
        if self.writer.encoding == Encoding::Json {
            self.writer.out.push(b':');
        }
        self.writer
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.field(name).text(text);
    }

    fn maybe_text(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An id: at most 32 characters, none of which JSON escapes.
    fn display(&mut self, name: &'static str, id: &impl std::fmt::Display) {
        let mut text = ShortText { bytes: [0; 32], len: 0 };
        write!(text, "{id}").expect("ids are 26 characters");
        let text = std::str::from_utf8(&text.bytes[..text.len]).expect("it was written as text");
        self.field(name).plain(text);
    }

    fn unsigned(&mut self, name: &'static str, value: u64) {
        self.field(name).unsigned(value);
    }

    fn boolean(&mut self, name: &'static str, value: bool) {
        self.field(name).boolean(value);
    }

    fn payload(&mut self, name: &'static str, payload: &PayloadOut) {
        self.field(name).payload(payload);
    }

    fn list<T>(&mut self, name: &'static str, items: &[T], each: impl FnMut(&T, &mut Writer)) {
        self.field(name).list(items, each);
    }

    fn seats(&mut self, name: &'static str, seats: &[Seat]) {
        self.list(name, seats, |seat, out| out.unsigned((*seat).into()));
    }

    fn codec(&mut self, codec: PayloadCodec) {
        let text = match codec {
            PayloadCodec::Json => "json",
            PayloadCodec::Binary => "binary",
        };
        self.field("codec").plain(text);
    }

    fn refusal(&mut self, refusal: &Refusal) {
        self.field("code").plain(refusal.code.as_str());
        self.text("message", &refusal.message);
        self.field("details")
            .entries(refusal.details.iter(), |value, out| out.json(value));
    }

    fn player(&mut self, player: &PlayerInfo) {
        self.unsigned("seat", player.seat.into());
        self.text("player", &player.player);
        self.text("name", &player.name);
        self.field("role").plain(player.role.as_str());
    }

    fn departure(&mut self, departure: &Departure) {
        self.unsigned("seat", departure.seat.into());
        self.field("reason").plain(departure.reason.as_str());
    }

    fn joined(&mut self, joined: &MatchJoined) {
        self.display("match", &joined.target);
        self.seated(joined);
    }

    /// What `match.joined` and `match.moved` have in common.
    fn seated(&mut self, joined: &MatchJoined) {
        self.text("module", &joined.module);
        self.unsigned("seat", joined.seat.into());
        self.unsigned("seq", joined.seq);
        self.unsigned("n", joined.n);
        self.unsigned("at", joined.at);
        self.list("players", &joined.players, |player, out| {
            out.map(|map| map.player(player))
        });
        self.codec(joined.codec);
        self.unsigned("tick_hz", joined.tick_hz.into());
    }

    fn resumed(&mut self, resumed: &ResumedMatch) {
        self.display("match", &resumed.target);
        self.unsigned("seat", resumed.seat.into());
        self.unsigned("seq", resumed.seq);
        self.unsigned("n", resumed.n);
        self.codec(resumed.codec);
    }

    fn gone(&mut self, gone: &GoneMatch) {
        self.text("match", &gone.target);
        self.text("why", &gone.why);
        if let Some(result) = &gone.result {
            self.payload("result", result);
        }
        if let Some(to) = &gone.to {
            self.display("to", to);
        }
    }

    fn listed(&mut self, listed: &ListedMatch) {
        self.display("match", &listed.target);
        self.text("module", &listed.module);
        self.unsigned("players", listed.players.into());
        self.unsigned("max_players", listed.max_players.into());
        self.field("label")
            .entries(listed.label.iter().map(|(key, value)| (key, value)), |value, out| {
                out.text(value)
            });
        self.boolean("joinable", listed.joinable);
        self.text("node", &listed.node);
    }
}

/// Room on the stack for an id's text.
struct ShortText {
    bytes: [u8; 32],
    len: usize,
}

impl std::fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
