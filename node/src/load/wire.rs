//! The client protocol as the generator speaks it: requests built once and patched, and of the server's messages only the fields that
//! a check needs. It keeps its own reading of the contract on purpose; sharing the server's codec would hide the server's mistakes.

use std::borrow::Cow;

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::websocket::Opcode;

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wire {
    Json,
    Msgpack,
}

impl Wire {
    /// The WebSocket subprotocol to ask for.
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Wire::Json => "rookery.v1.json",
            Wire::Msgpack => "rookery.v1.msgpack",
        }
    }

    /// The kind of frame that carries it.
    pub(crate) fn opcode(self) -> Opcode {
        match self {
            Wire::Json => Opcode::Text,
            Wire::Msgpack => Opcode::Binary,
        }
    }

    /// Writes one request.
    pub(crate) fn request(self, request: &Request<'_>) -> Vec<u8> {
        match self {
            Wire::Json => serde_json::to_vec(request).expect("strings and numbers always encode"),
            Wire::Msgpack => rmp_serde::to_vec_named(request).expect("strings and numbers always encode"),
        }
    }

    /// Reads what a check needs of one message.
    pub(crate) fn read(self, payload: &[u8]) -> anyhow::Result<Message<'_, &[u8]>> {
        let message = match self {
            Wire::Json => serde_json::from_slice::<Message<'_, &RawValue>>(payload)
                .map(|json| json.map_data(|data| data.get().as_bytes()))
                .map_err(anyhow::Error::from),
            Wire::Msgpack => rmp_serde::from_slice::<Message<'_, &[u8]>>(payload).map_err(anyhow::Error::from),
        };
        message.with_context(|| format!("not a message of the protocol: {}", String::from_utf8_lossy(payload)))
    }
}

/// One message from the server. `D` is how the encoding hands out `data`.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(crate) struct Message<'a, D> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(default)]
    pub(crate) id: Option<u64>,
    #[serde(rename = "match", default)]
    pub(crate) target: Option<&'a str>,
    #[serde(default)]
    pub(crate) seq: Option<u64>,
    #[serde(default)]
    pub(crate) n: Option<u64>,
    #[serde(default = "nothing")]
    pub(crate) data: Option<D>,
    #[serde(default)]
    pub(crate) code: Option<&'a str>,
    #[serde(default)]
    pub(crate) message: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) reason: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) details: Details,
}

/// `Default` for an option whose content has none.
fn nothing<D>() -> Option<D> {
    None
}

/// What the generator reads of a refusal's details.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Details {
    #[serde(default)]
    pub(crate) retry_ms: Option<u64>,
}

impl<'a, D> Message<'a, D> {
    fn map_data<E>(self, map: impl FnOnce(D) -> E) -> Message<'a, E> {
        Message {
            kind: self.kind,
            id: self.id,
            target: self.target,
            seq: self.seq,
            n: self.n,
            data: self.data.map(map),
            code: self.code,
            message: self.message,
            reason: self.reason,
            details: self.details,
        }
    }

    /// The message as a person would want to read it in a complaint.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.kind.to_owned();
        for part in [self.code, self.message.as_deref(), self.reason.as_deref()]
            .into_iter()
            .flatten()
        {
            text.push_str(": ");
            text.push_str(part);
        }
        text
    }
}

/// Any request that the generator makes, but `match.send`.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Request<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<&'a str>,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<&'a str>,
}

/// `match.send` for one match: everything but the payload is written once.
#[derive(Debug)]
pub(crate) struct SendTemplate {
    wire: Wire,
    before: Vec<u8>,
}

impl SendTemplate {
    pub(crate) fn new(wire: Wire, target: &str) -> Self {
        let before = match wire {
            Wire::Json => format!(r#"{{"type":"match.send","match":"{target}""#).into_bytes(),
            Wire::Msgpack => {
                let mut before = vec![MAP_OF_0 | 3];
                for text in ["type", "match.send", "match", target] {
                    write_str(&mut before, text);
                }
                before
            }
        };
        Self { wire, before }
    }

    /// Writes the message into `out`, which is cleared first.
    pub(crate) fn write(&self, out: &mut Vec<u8>, n: Option<u64>, data: &[u8]) {
        use std::io::Write as _;
        out.clear();
        out.extend_from_slice(&self.before);
        match self.wire {
            Wire::Json => {
                if let Some(n) = n {
                    write!(out, r#","n":{n}"#).expect("memory takes any text");
                }
                out.extend_from_slice(br#","data":"#);
                out.extend_from_slice(data);
                out.push(b'}');
            }
            Wire::Msgpack => {
                if let Some(n) = n {
                    out[0] = MAP_OF_0 | 4;
                    write_str(out, "n");
                    out.push(U64);
                    out.extend_from_slice(&n.to_be_bytes());
                }
                write_str(out, "data");
                out.push(BIN_32);
                out.extend_from_slice(
                    &u32::try_from(data.len())
                        .expect("payloads are below 64 KiB")
                        .to_be_bytes(),
                );
                out.extend_from_slice(data);
            }
        }
    }
}

// The few MessagePack markers that `match.send` needs.
const MAP_OF_0: u8 = 0x80;
const STR_OF_0: u8 = 0xa0;
const BIN_32: u8 = 0xc6;
const U64: u8 = 0xcf;

/// Texts here are our own words and match ids, all shorter than 32 bytes.
fn write_str(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 32, "{text} needs another marker");
    out.push(STR_OF_0 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01jcxkzd3v7t5m9q2w8r4y6n0a";

    #[test]
    fn a_send_reads_as_the_contract_says_in_both_encodings() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Send<'a> {
            r#type: &'a str,
            r#match: &'a str,
            n: Option<u64>,
        }
        for n in [None, Some(1), Some(1 << 40)] {
            let mut out = b"left over".to_vec();
            SendTemplate::new(Wire::Json, ID).write(&mut out, n, br#""hello""#);
            let wanted = Send {
                r#type: "match.send",
                r#match: ID,
                n,
            };
            assert_eq!(serde_json::from_slice::<Send<'_>>(&out).unwrap(), wanted);
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(&out).unwrap()["data"],
                "hello"
            );
            SendTemplate::new(Wire::Msgpack, ID).write(&mut out, n, br#""hello""#);
            assert_eq!(rmp_serde::from_slice::<Send<'_>>(&out).unwrap(), wanted);
            let message = rmp_serde::from_slice::<Message<'_, &[u8]>>(&out).unwrap();
            assert_eq!((message.data, message.n), (Some(&br#""hello""#[..]), n));
        }
    }

    #[test]
    fn messages_are_read_in_both_encodings() {
        let json = br#"{"type":"match.data","match":"m","seq":7,"at":3,"data":{"a": 1},"new":[{}]}"#;
        let message = Wire::Json.read(json).unwrap();
        assert_eq!(
            (message.kind, message.seq, message.data),
            ("match.data", Some(7), Some(&br#"{"a": 1}"#[..]))
        );
        let refusal =
            br#"{"type":"error","id":3,"code":"rate_limited","message":"too \"fast\"","details":{"retry_ms":20}}"#;
        let message = Wire::Json.read(refusal).unwrap();
        assert_eq!((message.id, message.details.retry_ms), (Some(3), Some(20)));
        assert_eq!(message.describe(), r#"error: rate_limited: too "fast""#);
        let refusal: serde_json::Value = serde_json::from_slice(refusal).unwrap();
        let refusal = rmp_serde::to_vec_named(&refusal).unwrap();
        assert_eq!(Wire::Msgpack.read(&refusal).unwrap().details.retry_ms, Some(20));
        assert!(Wire::Json.read(b"hello").unwrap_err().to_string().contains("hello"));
    }

    #[test]
    fn a_request_carries_only_what_it_says() {
        let request = Request {
            kind: "match.join",
            id: 2,
            target: Some(ID),
            ..Request::default()
        };
        let json = String::from_utf8(Wire::Json.request(&request)).unwrap();
        assert_eq!(json, format!(r#"{{"type":"match.join","id":2,"match":"{ID}"}}"#));
        let back: serde_json::Value = rmp_serde::from_slice(&Wire::Msgpack.request(&request)).unwrap();
        assert_eq!(back, serde_json::from_str::<serde_json::Value>(&json).unwrap());
    }
}
