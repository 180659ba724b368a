//! Reading requests to the cluster's services: queues and parties, channels, presence, storage, worlds.

use bytes::Bytes;

use super::super::value::Fault;
use super::super::{
    ChannelRequest, PartyRequest, Payload, PresenceRequest, QueueRequest, Request, StorageRequest, WorldRequest,
};
use super::{Field, Fields};

impl Fields<'_> {
    /// The request of this type; none when the contract knows no such type.
    pub(super) fn service_request(&self, kind: &str, frame: &Bytes) -> Result<Option<Request>, Fault> {
        Ok(Some(match kind {
            "queue.join" => Request::Queue(QueueRequest::Join {
                queue: self.text(Field::Queue)?,
                properties: self.object(Field::Properties)?,
                query: self.object(Field::Query)?,
                party: self.maybe_text(Field::Party)?,
            }),
            "queue.leave" => Request::Queue(QueueRequest::Leave {
                ticket: self.text(Field::Ticket)?,
            }),
            "queue.status" => Request::Queue(QueueRequest::Status {
                ticket: self.text(Field::Ticket)?,
            }),
            "party.create" => Request::Party(PartyRequest::Create),
            "party.join" => Request::Party(PartyRequest::Join {
                code: self.text(Field::Code)?,
            }),
            "party.leave" => Request::Party(PartyRequest::Leave),
            "party.kick" => Request::Party(PartyRequest::Kick {
                player: self.text(Field::Player)?,
            }),
            "channel.join" => Request::Channel(ChannelRequest::Join {
                channel: self.text(Field::Channel)?,
                since: self.maybe_unsigned(Field::Since)?,
            }),
            "channel.send" => Request::Channel(ChannelRequest::Send {
                channel: self.text(Field::Channel)?,
                text: self.text(Field::Text)?,
            }),
            "channel.history" => Request::Channel(ChannelRequest::History {
                channel: self.text(Field::Channel)?,
                before: self.maybe_unsigned(Field::Before)?,
                limit: self.limit()?,
            }),
            "channel.leave" => Request::Channel(ChannelRequest::Leave {
                channel: self.text(Field::Channel)?,
            }),
            "presence.set" => Request::Presence(PresenceRequest::Set {
                status: self.maybe_text(Field::Status)?,
            }),
            "presence.watch" => Request::Presence(PresenceRequest::Watch {
                players: self.need(Field::Players)?.texts("players")?,
            }),
            "presence.unwatch" => Request::Presence(PresenceRequest::Unwatch {
                players: self
                    .get(Field::Players)
                    .map_or(Ok(Vec::new()), |players| players.texts("players"))?,
            }),
            "storage.get" => Request::Storage(StorageRequest::Get {
                collection: self.text(Field::Collection)?,
                key: self.text(Field::Key)?,
                module: self.maybe_text(Field::Module)?,
            }),
            "storage.put" => Request::Storage(StorageRequest::Put {
                collection: self.text(Field::Collection)?,
                key: self.text(Field::Key)?,
                value: match self.payload(Field::Value, frame)? {
                    Payload::Absent => return Err(Fault::fixed("`value` is missing")),
                    value => value,
                },
                version: self.maybe_text(Field::Version)?,
                module: self.maybe_text(Field::Module)?,
            }),
            "storage.delete" => Request::Storage(StorageRequest::Delete {
                collection: self.text(Field::Collection)?,
                key: self.text(Field::Key)?,
                version: self.maybe_text(Field::Version)?,
                module: self.maybe_text(Field::Module)?,
            }),
            "storage.list" => Request::Storage(StorageRequest::List {
                collection: self.text(Field::Collection)?,
                key: self.maybe_text(Field::Key)?,
                limit: self.limit()?,
                cursor: self.maybe_text(Field::Cursor)?,
                module: self.maybe_text(Field::Module)?,
            }),
            "world.list" => Request::World(WorldRequest::List),
            "world.enter" => Request::World(WorldRequest::Enter {
                world: self.text(Field::World)?,
                zone: self.maybe_text(Field::Zone)?,
                ctx: self.maybe_payload(Field::Ctx, frame)?,
            }),
            _ => return Ok(None),
        }))
    }

    /// A JSON object as text, whatever the frame's encoding; `{}` for one that is not there.
    fn object(&self, field: Field) -> Result<String, Fault> {
        match self.get(field) {
            None => Ok("{}".into()),
            Some(value) => value.object(field.name()),
        }
    }
}
