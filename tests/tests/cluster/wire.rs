//! A socket on which a test says whatever it likes, and hears every message in the order in which it came: what `Client` of the
//! harness is too well-mannered for.

use bytes::Bytes;
use rookery_protocol::client::Tree;
use rookery_tests::harness::{Account, Closing, Encoding, Frame, NodeProcess, Socket};
use serde_json::{Value, json};

pub(super) const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

/// Fields that are `bin` in MessagePack: the JSON text, for modules whose codec is JSON.
const PAYLOADS: [&str; 3] = ["data", "ctx", "params"];

pub(super) struct Wire {
    pub(super) socket: Socket,
}

impl Wire {
    /// A socket without a session.
    pub(super) async fn connect(node: &NodeProcess, encoding: Encoding) -> Self {
        Self {
            socket: Socket::connect(node.client_address(), encoding).await,
        }
    }

    /// A socket with a session of the account.
    pub(super) async fn open(node: &NodeProcess, encoding: Encoding, account: &Account) -> Self {
        let mut wire = Self::connect(node, encoding).await;
        let opened = wire
            .ask(json!({"type": "session.open", "id": 1, "token": account.access_token}))
            .await;
        assert_eq!(opened["type"], "session.opened", "{opened}");
        wire
    }

    /// A message as bytes of the socket's encoding.
    pub(super) fn bytes(&self, message: &Value) -> Bytes {
        let encoding = self.socket.encoding();
        let mut tree: Tree = serde_json::from_value(message.clone()).expect("JSON is a tree");
        if let (Encoding::MsgPack, Tree::Map(entries)) = (encoding, &mut tree) {
            for (_, payload) in entries.iter_mut().filter(|(key, _)| PAYLOADS.contains(&key.as_str())) {
                *payload = Tree::Bytes(payload.write(Encoding::Json));
            }
        }
        tree.write(encoding)
    }

    pub(super) async fn say(&mut self, message: Value) {
        let frame = self.bytes(&message);
        self.socket.send(frame).await.expect("the socket is open");
    }

    /// The next message.
    pub(super) async fn hear(&mut self) -> Value {
        match self.socket.next().await {
            Frame::Text(frame) | Frame::Binary(frame) => {
                value_of(Tree::read(self.socket.encoding(), &frame).expect("a node sends well-formed frames"))
            }
            Frame::Closed(how) => panic!("the node closed the socket: {how:?}"),
        }
    }

    /// The next message that fits; those before it are dropped.
    pub(super) async fn hear_where(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.hear().await;
            if fits(&message) {
                return message;
            }
        }
    }

    /// Says something that has an `id`, and waits for the answer to it.
    pub(super) async fn ask(&mut self, message: Value) -> Value {
        let id = message["id"].clone();
        self.say(message).await;
        self.hear_where(|answer| answer["id"] == id).await
    }

    /// Reads until the node closes the socket. Returns how, and the last message before.
    pub(super) async fn closed(&mut self) -> (Closing, Option<Value>) {
        let mut last = None;
        loop {
            match self.socket.next().await {
                Frame::Text(frame) | Frame::Binary(frame) => last = Some(frame),
                Frame::Closed(how) => {
                    let read = |frame: Bytes| Tree::read(self.socket.encoding(), &frame).expect("well-formed frames");
                    return (how, last.map(|frame| value_of(read(frame))));
                }
            }
        }
    }

    /// The connection is served: a ping is answered.
    pub(super) async fn is_served(&mut self, what: &str) {
        let pong = self.ask(json!({"type": "session.ping", "id": 9_999, "t": 4.5})).await;
        assert_eq!(
            (&pong["type"], &pong["t"]),
            (&json!("session.pong"), &json!(4.5)),
            "{what}: {pong}"
        );
    }
}

pub(super) fn value_of(tree: Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(value) => value.into(),
        Tree::Int(value) => value.into(),
        Tree::Float(value) => value.into(),
        Tree::Text(text) => text.into(),
        Tree::Bytes(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Tree::List(items) => items.into_iter().map(value_of).collect(),
        Tree::Map(entries) => Value::Object(entries.into_iter().map(|(key, value)| (key, value_of(value))).collect()),
    }
}

/// Someone else's echo on this node goes there and back: whatever the test did, others do not feel it.
pub(super) async fn others_are_served(node: &NodeProcess) {
    for encoding in BOTH {
        let other = node.guest(encoding).await;
        let game_match = other.create("echo").await;
        other.join(&game_match).await.expect("an echo has room");
        other.send(&game_match, 1, json!({"still": "here"})).await;
        assert_eq!(other.push_of("match.data").await["data"], json!({"still": "here"}));
    }
}
