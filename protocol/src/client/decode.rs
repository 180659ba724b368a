//! Reading a client's frame. One pass finds the known fields, whatever their order, without reading them; then the type says
//! which of them must be there and as what. Payloads stay slices of the frame. Unknown fields are ignored, repeated ones are not.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::value::{Fault, Value};
use super::{Encoding, Envelope, JoinRole, Payload, PayloadCodec, Request, Resume, SessionOpen};
use crate::error::{ErrorCode, Refusal};

mod services;

/// A frame that is not a request. Nothing was done; the connection may go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct BadFrame {
    /// The frame's number, if it could be read in spite of the rest.
    pub id: Option<i64>,
    /// `bad_message`, or `unknown_type` for a well-formed frame of a type that the contract does not name.
    pub code: ErrorCode,
    pub message: String,
}

impl BadFrame {
    /// Returns the answer to the frame; its `id` goes beside it.
    pub fn into_refusal(self) -> Refusal {
        Refusal::new(self.code, self.message)
    }

    fn bad(id: Option<i64>, fault: Fault) -> Self {
        Self {
            id,
            code: ErrorCode::BadMessage,
            message: fault.into_message(),
        }
    }
}

/// Reads one frame. The caller has bounded its size; nothing in it makes this allocate more than a few times that.
pub fn decode(encoding: Encoding, frame: &Bytes) -> Result<Envelope, BadFrame> {
    let mut fields = Fields { values: [None; FIELDS] };
    let read = Value::of_frame(encoding, frame)
        .and_then(|map| map.entries("the message", |key, value| fields.put(&key, value)));
    let (id, id_read) = match fields.get(Field::Id).map(|id| id.signed("id")).transpose() {
        Ok(id) => (id, Ok(())),
        Err(fault) => (None, Err(fault)),
    };
    read.and(id_read).map_err(|fault| BadFrame::bad(id, fault))?;
    let kind = fields.text(Field::Type).map_err(|fault| BadFrame::bad(id, fault))?;
    match fields.request(&kind, frame).map_err(|fault| BadFrame::bad(id, fault))? {
        Some(request) => Ok(Envelope { id, request }),
        None => {
            let message = format!("no message is called `{}`", kind.chars().take(64).collect::<String>());
            Err(BadFrame {
                id,
                code: ErrorCode::UnknownType,
                message,
            })
        }
    }
}

macro_rules! fields {
    ($($name:ident = $text:literal,)*) => {
        /// The fields that some request has.
        #[derive(Debug, Clone, Copy)]
        enum Field {
            $($name,)*
        }

        const FIELDS: usize = [$($text),*].len();

        impl Field {
            fn of(key: &str) -> Option<Self> {
                match key {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

fields! {
    Type = "type",
    Id = "id",
    Match = "match",
    Data = "data",
    N = "n",
    Token = "token",
    Resume = "resume",
    T = "t",
    Module = "module",
    Params = "params",
    Private = "private",
    Name = "name",
    Label = "label",
    Ctx = "ctx",
    Limit = "limit",
    Cursor = "cursor",
    Role = "role",
    Since = "since",
    Queue = "queue",
    Properties = "properties",
    Query = "query",
    Party = "party",
    Ticket = "ticket",
    Code = "code",
    Player = "player",
    Players = "players",
    Channel = "channel",
    Text = "text",
    Before = "before",
    Status = "status",
    Collection = "collection",
    Key = "key",
    Value = "value",
    Version = "version",
    World = "world",
    Zone = "zone",
}

/// What a frame has of the known fields, unread.
#[derive(Debug)]
struct Fields<'a> {
    values: [Option<Value<'a>>; FIELDS],
}

impl<'a> Fields<'a> {
    fn put(&mut self, key: &str, value: Value<'a>) -> Result<(), Fault> {
        let Some(field) = Field::of(key) else { return Ok(()) };
        match self.values[field as usize].replace(value) {
            None => Ok(()),
            Some(_) => Err(Fault::new(format!("`{key}` is there twice"))),
        }
    }

    /// The field, if it is there and not null: clients whose languages write null for what is not there mean that.
    fn get(&self, field: Field) -> Option<Value<'a>> {
        self.values[field as usize].filter(|value| !value.is_null())
    }

    fn need(&self, field: Field) -> Result<Value<'a>, Fault> {
        self.get(field)
            .ok_or_else(|| Fault::new(format!("`{}` is missing", field.name())))
    }

    fn text(&self, field: Field) -> Result<String, Fault> {
        Ok(self.need(field)?.text(field.name())?.into_owned())
    }

    fn maybe_text(&self, field: Field) -> Result<Option<String>, Fault> {
        self.get(field)
            .map(|value| value.text(field.name()).map(Into::into))
            .transpose()
    }

    fn maybe_unsigned(&self, field: Field) -> Result<Option<u64>, Fault> {
        self.get(field).map(|value| value.unsigned(field.name())).transpose()
    }

    /// What a match is asked with: one that need not be there, so that null means that it is not.
    fn maybe_payload(&self, field: Field, frame: &Bytes) -> Result<Payload, Fault> {
        match self.get(field) {
            Some(value) => value.payload(field.name(), frame),
            None => Ok(Payload::Absent),
        }
    }

    /// Payloads that must be there keep their nulls: in a JSON frame null is a value like any other.
    fn payload(&self, field: Field, frame: &Bytes) -> Result<Payload, Fault> {
        match self.values[field as usize] {
            Some(value) => value.payload(field.name(), frame),
            None => Ok(Payload::Absent),
        }
    }

    fn label(&self) -> Result<Vec<(String, String)>, Fault> {
        let mut label: Vec<(String, String)> = Vec::new();
        let Some(map) = self.get(Field::Label) else {
            return Ok(label);
        };
        map.entries("label", |key, value| {
            let value = value.text("label")?;
            label.push((key.into_owned(), value.into_owned()));
            Ok(())
        })?;
        refuse_repeats("label", &label)?;
        Ok(label)
    }

    /// The request of this type; none when the contract knows no such type.
    fn request(&self, kind: &str, frame: &Bytes) -> Result<Option<Request>, Fault> {
        Ok(Some(match kind {
            "match.send" => self.match_send(frame)?,
            "match.join" => Request::MatchJoin {
                target: self.text(Field::Match)?,
                ctx: self.maybe_payload(Field::Ctx, frame)?,
                role: self.role()?,
                since: self.maybe_unsigned(Field::Since)?,
            },
            "match.leave" => Request::MatchLeave {
                target: self.text(Field::Match)?,
            },
            "match.create" => Request::MatchCreate {
                module: self.text(Field::Module)?,
                params: self.maybe_payload(Field::Params, frame)?,
                private: self
                    .get(Field::Private)
                    .map_or(Ok(false), |value| value.boolean("private"))?,
                name: self.maybe_text(Field::Name)?,
            },
            "match.quick" => Request::MatchQuick {
                module: self.text(Field::Module)?,
                label: self.label()?,
                params: self.maybe_payload(Field::Params, frame)?,
                ctx: self.maybe_payload(Field::Ctx, frame)?,
            },
            "match.list" => Request::MatchList {
                module: self.maybe_text(Field::Module)?,
                label: self.label()?,
                limit: self.limit()?,
                cursor: self.maybe_text(Field::Cursor)?,
            },
            "session.open" => Request::SessionOpen(self.session_open()?),
            "session.ping" => Request::SessionPing {
                t: self.get(Field::T).map(|value| value.number("t")).transpose()?,
            },
            "session.close" => Request::SessionClose,
            _ => return self.service_request(kind, frame),
        }))
    }

    fn match_send(&self, frame: &Bytes) -> Result<Request, Fault> {
        let target = self.text(Field::Match)?;
        let data = self.payload(Field::Data, frame)?;
        if data == Payload::Absent {
            return Err(Fault::fixed("`data` is missing"));
        }
        let n = self.maybe_unsigned(Field::N)?;
        if n == Some(0) {
            return Err(Fault::fixed("`n` starts at 1"));
        }
        Ok(Request::MatchSend { target, data, n })
    }

    fn role(&self) -> Result<JoinRole, Fault> {
        match self
            .get(Field::Role)
            .map(|value| value.text("role"))
            .transpose()?
            .as_deref()
        {
            None | Some("player") => Ok(JoinRole::Player),
            Some("spectator") => Ok(JoinRole::Spectator),
            Some(_) => Err(Fault::fixed("`role` must be `player` or `spectator`")),
        }
    }

    fn limit(&self) -> Result<Option<u32>, Fault> {
        let limit = self.maybe_unsigned(Field::Limit)?;
        // More than anybody's limit is as good as the highest.
        Ok(limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    fn session_open(&self) -> Result<SessionOpen, Fault> {
        let resume = self.get(Field::Resume).map(resume).transpose()?;
        Ok(SessionOpen {
            token: self.maybe_text(Field::Token)?,
            resume,
        })
    }
}

fn resume(map: Value<'_>) -> Result<Resume, Fault> {
    let mut token = None;
    let mut matches = Vec::new();
    let mut channels = Vec::new();
    map.entries("resume", |key, value| {
        if value.is_null() {
            return Ok(());
        }
        match &*key {
            "token" => token = Some(value.text("resume.token")?.into_owned()),
            "matches" => matches = positions("resume.matches", value)?,
            "channels" => channels = positions("resume.channels", value)?,
            _ => {}
        }
        Ok(())
    })?;
    let token = token.ok_or(Fault::fixed("`resume.token` is missing"))?;
    Ok(Resume {
        token,
        matches,
        channels,
    })
}

fn positions(field: &'static str, map: Value<'_>) -> Result<Vec<(String, u64)>, Fault> {
    let mut positions = Vec::new();
    map.entries(field, |key, value| {
        positions.push((key.into_owned(), value.unsigned(field)?));
        Ok(())
    })?;
    refuse_repeats(field, &positions)?;
    Ok(positions)
}

/// Sorted rather than compared pairwise: a frame has room for thousands of keys.
fn refuse_repeats<V>(field: &str, pairs: &[(String, V)]) -> Result<(), Fault> {
    let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Fault::new(format!("`{}` is twice in `{field}`", pair[0]))),
        None => Ok(()),
    }
}

/// A payload that cannot be what its module's codec says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// The module's codec is `binary` and the JSON frame had something else than a string of base64.
    #[error("the payload of a binary module must be one base64 string")]
    NotBase64,
    /// The module's codec is `json` and the bytes of the MessagePack frame are not one JSON text.
    #[error("the payload of a json module must be one JSON text")]
    NotJson,
}

/// Clients write base64 with and without padding; both mean the same bytes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Payload {
    /// Returns the bytes that a module with this codec gets; none at all for a payload that was not there.
    pub fn into_bytes(self, codec: PayloadCodec) -> Result<Bytes, BadPayload> {
        match (self, codec) {
            (Self::Absent, _) => Ok(Bytes::new()),
            (Self::Json(text), PayloadCodec::Json) => Ok(text),
            (Self::Json(text), PayloadCodec::Binary) => {
                let text: std::borrow::Cow<'_, str> = std::str::from_utf8(&text)
                    .map_err(|_| BadPayload::NotBase64)
                    .and_then(|text| Value::Json(text).text("data").map_err(|_| BadPayload::NotBase64))?;
                BASE64
                    .decode(text.as_bytes())
                    .map(Bytes::from)
                    .map_err(|_| BadPayload::NotBase64)
            }
            (Self::Raw(bytes), PayloadCodec::Json) => match is_json_text(&bytes) {
                true => Ok(bytes),
                false => Err(BadPayload::NotJson),
            },
            (Self::Raw(bytes), PayloadCodec::Binary) => Ok(bytes),
        }
    }
}

/// Returns whether the bytes are exactly one JSON text, spaces around it allowed. Takes no stack for nesting.
pub fn is_json_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests;
