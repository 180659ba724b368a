//! A player: an account, and a session that speaks the contract in either encoding. Tests write and read JSON, whatever the
//! encoding: payload fields travel as the module's JSON text in MessagePack, and come back as the value they are.
//!
//! A task of its own reads the socket, so that a test may send thousands of messages before it looks at what came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use rookery_protocol::client::{Encoding, Tree};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::socket::{Closing, Frame, Sender, Socket};
use super::{Ops, PATIENCE};

/// Pushes that wait to be looked at. Past this the client reads no more, as a slow one would.
const PUSHES_MAX: usize = 1 << 17;

/// Fields that carry a module's bytes.
const PAYLOAD_FIELDS: [&str; 5] = ["data", "ctx", "params", "result", "value"];

/// A player's account, good on every node of the cluster.
#[derive(Debug, Clone)]
pub struct Account {
    pub player: String,
    pub access_token: String,
    pub refresh_token: String,
}

impl Account {
    /// A new guest.
    pub async fn guest(client_address: SocketAddr) -> Self {
        // The client listener's HTTP is as plain as the operators'.
        let (status, answer) = Ops::new(client_address).post("/v1/auth/guest", json!({})).await;
        assert_eq!(status, 200, "no guest account: {answer}");
        let text = |field: &str| answer[field].as_str().expect("the field is text").to_owned();
        Self {
            player: text("player"),
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    }
}

/// A request that was answered with `error`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub code: String,
    pub message: String,
    pub details: Value,
}

/// What came instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    Refused(Refused),
    /// The connection closed, or there was none.
    Gone,
}

/// An open session. Dropping it drops the socket without a close frame.
#[derive(Debug)]
pub struct Client {
    encoding: Encoding,
    player: String,
    opened: Value,
    next_id: AtomicI64,
    sender: tokio::sync::Mutex<Sender>,
    waiting: Arc<Mutex<HashMap<i64, oneshot::Sender<Value>>>>,
    pushes: tokio::sync::Mutex<mpsc::Receiver<Value>>,
    closed: watch::Receiver<Option<Closing>>,
    reader: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Connects to a node and opens a session for the account.
    pub async fn open(address: SocketAddr, encoding: Encoding, account: &Account) -> Self {
        Self::open_with(address, encoding, json!({"token": account.access_token})).await
    }

    /// Connects to a node and opens a session with these fields of `session.open`.
    pub async fn open_with(address: SocketAddr, encoding: Encoding, fields: Value) -> Self {
        let opened = Self::try_open_with(address, encoding, fields).await;
        opened.unwrap_or_else(|trouble| panic!("the session does not open: {trouble:?}"))
    }

    /// As [`Client::open_with`], where the node may be gone or going.
    ///
    /// # Errors
    /// The node is not there, goes away, or refuses.
    pub async fn try_open_with(address: SocketAddr, encoding: Encoding, fields: Value) -> Result<Self, Trouble> {
        let protocol = match encoding {
            Encoding::Json => "rookery.v1.json",
            Encoding::MsgPack => "rookery.v1.msgpack",
        };
        let socket = Socket::try_connect(address, encoding, Some(protocol), &[]).await;
        let (sender, mut receiver) = socket.map_err(|_| Trouble::Gone)?.split();
        let (pushing, pushes) = mpsc::channel(PUSHES_MAX);
        let (closing, closed) = watch::channel(None);
        let waiting: Arc<Mutex<HashMap<i64, oneshot::Sender<Value>>>> = Arc::default();
        let answering = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            loop {
                let frame = match receiver.next().await {
                    Frame::Text(frame) | Frame::Binary(frame) => frame,
                    Frame::Closed(how) => {
                        // Whoever waits for an answer hears that none comes.
                        answering.lock().expect("no thread panics holding it").clear();
                        closing.send_replace(Some(how));
                        return;
                    }
                };
                let tree = Tree::read(encoding, &frame).expect("a node sends well-formed frames");
                let message = value_of(tree);
                let id = message.get("id").and_then(Value::as_i64);
                let asker = id.and_then(|id| answering.lock().expect("no thread panics holding it").remove(&id));
                match asker {
                    // The asker may have given up.
                    Some(asker) => drop(asker.send(message)),
                    None if pushing.send(message).await.is_err() => return,
                    None => {}
                }
            }
        });
        let mut client = Self {
            encoding,
            player: String::new(),
            opened: Value::Null,
            next_id: AtomicI64::new(1),
            sender: tokio::sync::Mutex::new(sender),
            waiting,
            pushes: tokio::sync::Mutex::new(pushes),
            closed,
            reader,
        };
        let opened = client.attempt("session.open", fields).await?;
        client.player = opened["player"].as_str().expect("a session has a player").into();
        client.opened = opened;
        Ok(client)
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn player(&self) -> &str {
        &self.player
    }

    /// The answer to `session.open`.
    pub fn opened(&self) -> &Value {
        &self.opened
    }

    /// Sends a request and waits for its one answer.
    ///
    /// # Errors
    /// The answer is an `error`.
    ///
    /// # Panics
    /// When no answer comes, or the connection closes instead.
    pub async fn ask(&self, kind: &str, fields: Value) -> Result<Value, Refused> {
        match self.attempt(kind, fields).await {
            Ok(answer) => Ok(answer),
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(Trouble::Gone) => panic!(
                "the connection closed ({:?}) instead of an answer to {kind}",
                self.closed.borrow()
            ),
        }
    }

    /// As [`Client::ask`], where the connection may close.
    ///
    /// # Errors
    /// The answer is an `error`, or none comes any more.
    ///
    /// # Panics
    /// When no answer comes on a connection that stays open.
    pub async fn attempt(&self, kind: &str, fields: Value) -> Result<Value, Trouble> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting
            .lock()
            .expect("no thread panics holding it")
            .insert(id, answer);
        self.write(kind, Some(id), fields).await;
        let mut closed = self.closed.clone();
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(PATIENCE, answered) => answer,
            _ = closed.wait_for(Option::is_some) => return Err(Trouble::Gone),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(Trouble::Gone),
            Err(_) => panic!("no answer to {kind}"),
        };
        if answer["type"] != "error" {
            return Ok(answer);
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Err(Trouble::Refused(Refused {
            code: text("code"),
            message: text("message"),
            details: answer["details"].clone(),
        }))
    }

    /// Sends a request that has no number and so no answer.
    pub async fn tell(&self, kind: &str, fields: Value) {
        self.write(kind, None, fields).await;
    }

    async fn write(&self, kind: &str, id: Option<i64>, fields: Value) {
        let Value::Object(mut fields) = fields else {
            panic!("fields are an object, not {fields}")
        };
        fields.insert("type".into(), kind.into());
        if let Some(id) = id {
            fields.insert("id".into(), id.into());
        }
        let mut tree: Tree = serde_json::from_value(Value::Object(fields)).expect("JSON is a tree");
        if let (Encoding::MsgPack, Tree::Map(entries)) = (self.encoding, &mut tree) {
            for (_, payload) in entries
                .iter_mut()
                .filter(|(key, _)| PAYLOAD_FIELDS.contains(&key.as_str()))
            {
                *payload = Tree::Bytes(payload.write(Encoding::Json));
            }
        }
        // A closed connection shows in what is read.
        let _ = self.sender.lock().await.send(tree.write(self.encoding)).await;
    }

    /// The next push; none if the connection closed.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn next_push(&self) -> Option<Value> {
        self.next_push_within(PATIENCE)
            .await
            .expect("the node pushes something or closes")
    }

    /// As [`Client::next_push`]; `Err` when nothing comes in time.
    ///
    /// # Errors
    /// The time is over.
    pub async fn next_push_within(&self, within: Duration) -> Result<Option<Value>, tokio::time::error::Elapsed> {
        let mut pushes = self.pushes.lock().await;
        tokio::time::timeout(within, pushes.recv()).await
    }

    /// The next push.
    ///
    /// # Panics
    /// When nothing comes, or with how the connection closed.
    pub async fn expect_push(&self) -> Value {
        let push = self.next_push().await;
        push.unwrap_or_else(|| panic!("the connection closed: {:?}", self.closed.borrow()))
    }

    /// The next push of this type; those before it are dropped.
    ///
    /// # Panics
    /// When none comes, or the connection closes.
    pub async fn push_of(&self, kind: &str) -> Value {
        self.push_where(kind, |push| push["type"] == kind).await
    }

    /// The next push that fits; those before it are dropped.
    ///
    /// # Panics
    /// When none comes, or the connection closes.
    pub async fn push_where(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                match self.next_push().await {
                    Some(push) if fits(&push) => return push,
                    Some(_) => {}
                    None => panic!("the connection closed ({:?}) before {what} came", self.closed.borrow()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no push: {what}"))
    }

    /// Whether the connection is open, as far as is known.
    pub fn is_open(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// Whether the connection is closed. What came before may still wait to be read.
    pub fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Waits until the node closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(&self) -> Closing {
        let mut closed = self.closed.clone();
        let how = tokio::time::timeout(PATIENCE, closed.wait_for(Option::is_some)).await;
        let how = how.expect("the connection closes").expect("the reader says how");
        how.clone().expect("waited for")
    }

    /// Creates a match and returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn create(&self, module: &str) -> String {
        self.create_with(json!({"module": module}))
            .await
            .expect("the match is created")
    }

    /// Creates a match with these fields of `match.create`, and returns its id.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_with(&self, fields: Value) -> Result<String, Refused> {
        let created = self.ask("match.create", fields).await?;
        Ok(created["match"].as_str().expect("a match has an id").to_owned())
    }

    /// Joins a match by id or name.
    ///
    /// # Errors
    /// It is refused.
    pub async fn join(&self, target: &str) -> Result<Value, Refused> {
        self.ask("match.join", json!({"match": target})).await
    }

    /// Sends numbered input `n` to a match, and does not wait.
    pub async fn send(&self, target: &str, n: u64, data: Value) {
        self.tell("match.send", json!({"match": target, "n": n, "data": data}))
            .await;
    }

    /// Sends an input without a number, and does not wait.
    pub async fn send_unnumbered(&self, target: &str, data: Value) {
        self.tell("match.send", json!({"match": target, "data": data})).await;
    }
}

/// A frame as JSON. Payload bytes become the JSON value that they are the text of, or base64 if they are not.
fn value_of(tree: Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(value) => value.into(),
        Tree::Int(value) => value.into(),
        Tree::Float(value) => value.into(),
        Tree::Text(text) => text.into(),
        Tree::Bytes(bytes) => value_of_bytes(&bytes),
        Tree::List(items) => items.into_iter().map(value_of).collect(),
        Tree::Map(entries) => Value::Object(entries.into_iter().map(|(key, value)| (key, value_of(value))).collect()),
    }
}

fn value_of_bytes(bytes: &Bytes) -> Value {
    let base64 = || base64::engine::general_purpose::STANDARD.encode(bytes).into();
    serde_json::from_slice(bytes).unwrap_or_else(|_| base64())
}
