//! Doors to this crate's decoders for the fuzz targets in `fuzz/`; no part of the interface. Each function takes bytes as a peer might
//! send them and panics when a promise of the decoder is broken; each `…_seeds` returns inputs as an honest peer sends them.

mod written;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig, Serializable,
    spawn_chitchat,
};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::control::{decode_suspect, encode_suspect};
use crate::directory::{Directory, Key, Message};
use crate::discovery::Target;
use crate::frame::{Decoder, Encoder};
use crate::group;
use crate::guard::lives::Lives;
use crate::guard::{self, Refusal};
use crate::inbound::BoxFuture;
use crate::link::{read_broadcast, write_broadcast};
use crate::member::{Member, MemberState, Members};
use crate::own;
use crate::peer::{Identity, Life, NodeId, Peer};
use crate::quic::hello::Hello;
use crate::quic::{name, tls};
use crate::view::{self, Report, View};

pub(crate) use self::written::Written;

/// The first byte says how the rest is cut into chunks: however it is, the same messages come out of it.
pub fn frames(input: &[u8]) {
    const LEN_MAX: usize = 1_000;
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let read = |chunk_len: usize| {
        let mut decoder = Decoder::new(LEN_MAX);
        let mut messages = Vec::new();
        for chunk in stream.chunks(chunk_len.max(1)) {
            decoder.feed(Bytes::copy_from_slice(chunk));
            loop {
                match decoder.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(_) => return (messages, true),
                }
            }
        }
        (messages, false)
    };
    let whole = read(stream.len());
    assert_eq!(whole, read(usize::from(cut)), "cutting changes what is read");
    let mut encoder = Encoder::default();
    for message in &whole.0 {
        assert!(message.len() <= LEN_MAX);
        encoder.push(message.clone());
    }
    assert!(
        stream.starts_with(&encoder.take().concat()),
        "what was read is not what was written"
    );
}

/// Messages with headers of four bytes.
pub fn frames_seeds() -> Vec<Vec<u8>> {
    let long = [7; 300];
    let streams: [&[&[u8]]; 3] = [&[b"one", b"", b"three"], &[b"four", &long], &[]];
    let write = |messages: &&[&[u8]]| {
        let mut encoder = Encoder::default();
        messages
            .iter()
            .for_each(|message| encoder.push(Bytes::copy_from_slice(message)));
        [&[5][..], &encoder.take().concat()].concat()
    };
    streams.iter().map(write).collect()
}

/// A broadcast on a link.
pub fn broadcast(input: &[u8]) {
    if let Some((group, message)) = read_broadcast(Bytes::copy_from_slice(input)) {
        assert_eq!(write_broadcast(&group, &message), input);
    }
}

/// Broadcasts as they are sent.
pub fn broadcast_seeds() -> Vec<Vec<u8>> {
    [("content", &b"\x81\xa7version\x07"[..]), ("räume", b""), ("", b"x")]
        .map(|(group, message)| write_broadcast(group, message).to_vec())
        .into()
}

/// A request to probe another node.
pub fn probe_for(input: &[u8]) {
    if let Some((life, addr)) = decode_suspect(input) {
        assert_eq!(decode_suspect(&encode_suspect(&life, addr)), Some((life, addr)));
    }
}

/// Requests as they are sent.
pub fn probe_for_seeds() -> Vec<Vec<u8>> {
    ["127.0.0.1:7701", "[::1]:7701", "[fe80::1%3]:65535"]
        .iter()
        .filter_map(|addr| addr.parse().ok())
        .map(|addr| encode_suspect(&life("n-1", u64::MAX), addr))
        .collect()
}

/// A certificate, before anything about it is proved.
pub fn certificate(input: &[u8]) {
    let names = name::read(input);
    if let Some((identity, _)) = tls::identify(input) {
        let names = names.expect("whoever is identified has names");
        assert!(
            names
                .subject
                .common_name
                .is_some_and(|name| name.starts_with(identity.peer.node.as_str()))
        );
    }
}

/// A certificate as a node shows it.
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    let leaf = |common_name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "rookery");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).ok()?;
        Some(params.self_signed(&key).ok()?.der().to_vec())
    };
    ["n1|7|127.0.0.1:7701|host:7701", "rookery mesh 00112233"]
        .into_iter()
        .filter_map(leaf)
        .collect()
}

/// What a peer with an operator's certificate says about itself, and the server name that a stranger asks for.
pub fn hello(input: &[u8]) {
    if let Some(hello) = Hello::read(input) {
        assert!(!hello.cluster.contains(char::is_control), "it goes into the log");
        assert!(hello.secrets.iter().all(|secret| tls::is_fingerprint(secret)));
        let again = Hello::read(&hello.write()).expect("what was read can be read again");
        assert_eq!(again, hello);
        assert_eq!(again.identity(), hello.identity());
    }
    if let Some((_, fingerprint)) = std::str::from_utf8(input).ok().and_then(tls::authority_in) {
        assert!(tls::is_fingerprint(fingerprint));
    }
}

/// A hello as a node says it, and a server name as a node asks for it.
pub fn hello_seeds() -> Vec<Vec<u8>> {
    let local = "n1".parse().ok().map(|node| Identity {
        peer: Peer {
            node,
            generation: 7,
            addr: "host:7701".into(),
        },
        gossip_addr: SocketAddr::from(([127, 0, 0, 1], 7701)),
    });
    let fingerprint = "0123456789abcdef".to_owned();
    let hello = local.map(|local| Hello::new(&local, "rookery", vec![fingerprint.clone()]).write());
    let name = format!("{fingerprint}.pki.rookery.internal");
    hello.into_iter().chain([name.into_bytes()]).collect()
}

/// A name as an operator, or the console, gives it: of a seed, of a group, of a node.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(target) = Target::parse(text) {
        let again = match &target {
            Target::Address(addr) => addr.to_string(),
            Target::Host { host, port } => format!("{host}:{port}"),
            Target::Service(name) => name.clone(),
        };
        assert_eq!(Target::parse(&again), Some(target));
    }
    if let Some(name) = group::decode(text) {
        assert_eq!(group::decode(&group::encode(&name)), Some(name));
    }
    assert_eq!(group::decode(&group::encode(text)).as_deref(), Some(text));
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.as_str(), text);
    }
}

/// Names as they are given.
pub fn names_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "127.0.0.1:7701",
        "[::1]:7701",
        "seed.example:7701",
        "_rookery._udp.example.",
        "room:r%c3%a4uber/h%C3%B6hle",
        "n-1",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// What a node states in gossip: lines of `key=value`.
pub fn statement(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let stated: Vec<(String, String)> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut view = View::new(life("here", 1), 1_000);
    let mut effects = Vec::new();
    let there = Identity {
        peer: Peer {
            node: node("there"),
            generation: 1,
            addr: "there:1".into(),
        },
        gossip_addr: SocketAddr::from(([127, 0, 0, 1], 1)),
    };
    view.step(Duration::ZERO, view::Input::Connected(there.clone()), &mut effects);
    let report = Report {
        life: there.peer.life(),
        gossip_addr: there.gossip_addr,
        live: true,
        heard: true,
        stated: Some(stated),
    };
    view.step(Duration::from_secs(1), view::Input::Gossip(vec![report]), &mut effects);
    let own = member("here", 1, MemberState::Ready);
    let members = view.members(own);
    let shown = members.get(&node("there")).expect("it is connected and live");
    assert!(
        !matches!(shown.state, MemberState::Suspect | MemberState::Dead),
        "nobody calls itself dead"
    );
    view.groups();
}

/// Statements as nodes make them.
pub fn statement_seeds() -> Vec<Vec<u8>> {
    let state = format!("{}=ready\n{}=host:7701", own::STATE_KEY, own::ADDR_KEY);
    let facts = format!(
        "{0}version=1.0\n{0}load=12\n{1}room%3aa=10\n{1}empty=0",
        own::FACT_PREFIX,
        own::GROUP_PREFIX
    );
    vec![
        state.clone().into(),
        facts.clone().into(),
        format!("{state}\n{facts}").into(),
    ]
}

/// A message of another node's directory, to one that holds, keeps and watches something.
pub fn directory(input: &[u8]) {
    let Ok(message) = Message::decode(input) else { return };
    let encoded = message.encode();
    assert_eq!(Message::decode(&encoded).expect("it was just written"), message);
    let now = Duration::from_secs(100);
    let mut directory = Directory::new(life("here", 7), 100);
    let lives = [("here", 7), ("there", 5), ("yonder", 3)];
    let by_node = lives.map(|(name, generation)| (node(name), member(name, generation, MemberState::Ready)));
    directory.members(
        now,
        &Members {
            by_node: by_node.into(),
        },
    );
    for name in 0..4u8 {
        directory.hold(now, Key::new(1, &[name]), 1, Bytes::from_static(b"x"));
        directory.watch(now, Key::new(1, &[name + 2]));
    }
    let mut now = now;
    for (name, generation) in [
        ("there", 5),
        ("there", 4),
        ("yonder", 3),
        ("stranger", u64::MAX),
        ("here", 7),
    ] {
        directory.message(now, &life(name, generation), message.clone());
        now += Duration::from_secs(9);
        directory.wake(now);
        // What it has to say comes to an end, and can be read.
        for _ in 0..1_000 {
            for (_, mail) in directory.mail(now) {
                assert_eq!(Message::decode(&mail.encode()).expect("it was just written"), mail);
            }
        }
        assert!(!directory.has_mail(), "a thousand messages were not enough");
    }
    for key in (0..6).map(|name| Key::new(1, &[name])) {
        directory.seen(key);
        directory.kept(now, key);
    }
    assert!(directory.stats().kept <= 100);
}

/// Messages as directories send them.
pub fn directory_seeds() -> Vec<Vec<u8>> {
    let now = Duration::from_secs(1);
    let lives = [("here", 7), ("there", 5)];
    let members = Members {
        by_node: lives
            .map(|(name, generation)| (node(name), member(name, generation, MemberState::Ready)))
            .into(),
    };
    let [mut here, mut there] = lives.map(|(name, generation)| Directory::new(life(name, generation), 100));
    here.members(now, &members);
    there.members(now, &members);
    for name in 0..3u8 {
        here.hold(now, Key::new(1, &[name]), 1, Bytes::from_static(b"where"));
        here.watch(now, Key::new(1, &[name]));
        there.hold(now, Key::new(1, &[name]), 2, Bytes::new());
    }
    let mut seeds = Vec::new();
    for round in 0..40 {
        let now = now + Duration::from_secs(round);
        if round == 20 {
            here.release(now, Key::new(1, &[0]));
            here.unwatch(now, Key::new(1, &[1]));
        }
        here.wake(now);
        there.wake(now);
        for (from, to, life) in [(&mut here, &mut there, life("here", 7))] {
            for (_, message) in from.mail(now) {
                seeds.push(message.encode().to_vec());
                to.message(now, &life, message);
            }
        }
        for (_, message) in there.mail(now) {
            seeds.push(message.encode().to_vec());
            here.message(now, &life("there", 5), message);
        }
    }
    let distinct: BTreeSet<Vec<u8>> = seeds.into_iter().collect();
    distinct.into_iter().collect()
}

/// A gossip message, up to where the library takes it.
pub fn letter(input: &[u8]) -> &'static str {
    match Ear::new("here", 7).read(input) {
        Ok(ChitchatMessage::Syn { .. }) => "syn",
        Ok(ChitchatMessage::SynAck { .. }) => "syn-ack",
        Ok(ChitchatMessage::Ack { .. }) => "ack",
        Ok(ChitchatMessage::BadCluster) => "bad cluster",
        Err(why) => why,
    }
}

/// Gossip messages as the library sends them.
pub fn letter_seeds() -> Vec<Vec<u8>> {
    conversation()
}

/// A conversation that the bytes describe (`Script`), and the library that hears it: it lives on, and this node can still say what it
/// wants. Returns how many messages the library heard and how many it sent.
pub fn talk(input: &[u8]) -> (usize, usize) {
    let letters = Script(input).letters();
    static FIRST: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| conversation().into_iter().next());
    let first = FIRST.clone().expect("who meets somebody says something");
    block_on(async {
        let (post, handle) = gossiping("here", 7, letters).await;
        post.until_idle(&handle).await;
        {
            let gossip = handle.chitchat();
            let mut gossip = gossip.lock().await;
            gossip.self_node_state().set("st", "draining");
            assert_eq!(gossip.self_node_state().get("st"), Some("draining"));
            let states = gossip.node_states().iter();
            states.for_each(|(_, state)| assert!(state.num_key_values() < 100_000));
        }
        // Somebody who knows nothing yet gets to hear everything.
        post.push(Bytes::from(first));
        post.until_idle(&handle).await;
        let counts = post.counts();
        assert!(handle.shutdown().await.is_ok(), "gossip has ended");
        counts
    })
}

/// Conversations to begin with.
pub fn talk_seeds() -> Vec<Vec<u8>> {
    let raw = |letter: Vec<u8>| {
        let len = u16::try_from(letter.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&[Script::RAW][..], &len, &letter].concat()
    };
    let mut seeds: Vec<Vec<u8>> = conversation().into_iter().map(raw).collect();
    // A digest that names three lives, then what one of them states, in order and out of order.
    seeds.push(vec![0, 3, 1, 1, 1, 0, 2, 2, 2, 1, 0, 3, 4, 3, 2, 0, 1]);
    seeds.push(vec![
        0, 1, 1, 1, 1, 0, 0, 2, 4, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 2, 0, 2, 4,
    ]);
    seeds.push(vec![1, 1, 1, 1, 1, 0, 0, 3, 0, 1, 1, 0, 0, 1, 2, 0, 3, 1, 2, 2]);
    seeds
}

/// Turns bytes into gossip messages: nearly every byte is a choice among values that are honest, or at a border.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    const NODES: [&'static str; 6] = ["here", "there", "yonder", "crash-loop", "a b", ""];
    const GENERATIONS: [u64; 6] = [7, 5, 3, 1, 0, u64::MAX];
    const NUMBERS: [u64; 10] = [0, 1, 2, 3, 4, 9, 1_000, 1 << 62, u64::MAX - 1, u64::MAX];
    const KEYS: [&'static str; 8] = ["st", "addr", "f/version", "g/room", "", "ä", "f/ä", "\u{7f}"];
    /// Messages that one script says at most.
    const LETTERS_MAX: usize = 64;
    /// What follows is a message of its own, after two bytes of length.
    const RAW: u8 = 4;

    fn letters(mut self) -> Vec<Bytes> {
        let mut letters = Vec::new();
        while !self.0.is_empty() && letters.len() < Self::LETTERS_MAX {
            letters.push(self.letter().into());
        }
        letters
    }

    fn letter(&mut self) -> Vec<u8> {
        let head = |kind| Written::head(kind);
        match self.byte() % 6 {
            0 => self.digest(head(written::SYN)).text("rookery").0,
            1 => {
                let digest = self.digest(head(written::SYN_ACK));
                self.blocks(digest).0
            }
            2 => self.blocks(head(written::ACK)).0,
            3 => head(written::BAD_CLUSTER).0,
            Self::RAW => {
                let len = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
                let (raw, rest) = self.0.split_at(len.min(self.0.len()));
                self.0 = rest;
                raw.to_vec()
            }
            _ => {
                // A node that starts again and again.
                let lives: Vec<_> = (0..u64::from(self.byte()) * 4)
                    .map(|life| ("crash-loop", life, [1, 0, 1]))
                    .collect();
                head(written::SYN).digest(&lives).text("rookery").0
            }
        }
    }

    fn digest(&mut self, out: Written) -> Written {
        let count = self.byte() % 8;
        let lives: Vec<_> = (0..count)
            .map(|_| {
                (
                    self.of(&Self::NODES),
                    self.of(&Self::GENERATIONS),
                    [self.number(), self.number(), self.number()],
                )
            })
            .collect();
        out.digest(&lives)
    }

    fn blocks(&mut self, out: Written) -> Written {
        let mut ops = Written::default();
        for _ in 0..self.byte() % 12 {
            ops = match self.byte() % 4 {
                0 => ops.node(
                    self.of(&Self::NODES),
                    self.of(&Self::GENERATIONS),
                    [self.number(), self.number()],
                ),
                1 | 2 => {
                    let (key, value) = (self.text(), self.text());
                    ops.key_value(&key, &value, self.number(), self.byte() % 4)
                }
                _ => ops.max_version(self.number()),
            };
        }
        out.blocks(&ops, self.byte() % 2 == 1)
    }

    fn text(&mut self) -> String {
        match self.byte() {
            long @ 240.. => "v".repeat(usize::from(long - 239) * 4_000),
            other => Self::KEYS[usize::from(other) % Self::KEYS.len()].to_owned(),
        }
    }

    fn number(&mut self) -> u64 {
        self.of(&Self::NUMBERS)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[usize::from(self.byte()) % values.len()]
    }

    /// The next byte; 0 after the last one.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }
}

/// What two nodes say to each other who meet.
fn conversation() -> Vec<Vec<u8>> {
    block_on(async {
        let (a, gossip_a) = gossiping("there", 5, Vec::new()).await;
        let (b, gossip_b) = gossiping("yonder", 3, Vec::new()).await;
        let mut letters = Vec::new();
        // An error would mean that gossip has ended, which the next line finds.
        let _ = gossip_a.gossip(SocketAddr::from(([127, 0, 0, 1], 3)));
        for _ in 0..3 {
            a.until_idle(&gossip_a).await;
            for letter in a.take_sent() {
                b.push(letter.clone().into());
                letters.push(letter);
            }
            b.until_idle(&gossip_b).await;
            for letter in b.take_sent() {
                a.push(letter.clone().into());
                letters.push(letter);
            }
        }
        letters
    })
}

fn block_on<T>(run: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without IO needs nothing").block_on(run)
}

fn node(name: &str) -> NodeId {
    name.parse().expect("a name of ours")
}

fn life(name: &str, generation: u64) -> Life {
    Life {
        node: node(name),
        generation,
    }
}

fn member(name: &str, generation: u64, state: MemberState) -> Member {
    let peer = Peer {
        node: node(name),
        generation,
        addr: format!("{name}:1"),
    };
    Member {
        peer,
        state,
        facts: Arc::default(),
        departed: false,
        mesh_version: 1,
        rtt: None,
    }
}

/// The library in the middle of nowhere, with what it is to hear.
async fn gossiping(name: &str, generation: u64, letters: Vec<Bytes>) -> (Arc<Post>, ChitchatHandle) {
    let port = u16::try_from(generation).unwrap_or(1);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let interval = Duration::from_secs(3_600);
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(name, generation, addr),
        cluster_id: "rookery".into(),
        gossip_interval: interval,
        listen_addr: addr,
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::new(8.0, 10, interval, interval, interval),
        marked_for_deletion_grace_period: interval,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let post = Arc::new(Post {
        ear: Mutex::new(Ear::new(name, generation)),
        inbox: Mutex::new(letters.into()),
        sent: Mutex::default(),
        heard: Mutex::new(0),
        wake: Notify::new(),
        idle: Notify::new(),
    });
    let keys = [
        ("st", "ready"),
        ("addr", "host:7701"),
        ("f/version", "1.0"),
        ("g/room", "10"),
    ];
    let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let handle = spawn_chitchat(config, keys, &Office(post.clone())).await;
    (post, handle.expect("the transport opens"))
}

struct Post {
    ear: Mutex<Ear>,
    inbox: Mutex<VecDeque<Bytes>>,
    sent: Mutex<Vec<Vec<u8>>>,
    heard: Mutex<usize>,
    wake: Notify,
    idle: Notify,
}

impl Post {
    fn push(&self, letter: Bytes) {
        self.inbox
            .lock()
            .expect("nothing panics under this lock")
            .push_back(letter);
        self.wake.notify_one();
    }

    fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.sent.lock().expect("nothing panics under this lock"))
    }

    fn counts(&self) -> (usize, usize) {
        let heard = *self.heard.lock().expect("nothing panics under this lock");
        (heard, self.sent.lock().expect("nothing panics under this lock").len())
    }

    /// Waits until the library has heard everything.
    async fn until_idle(&self, handle: &ChitchatHandle) {
        let ended = handle.termination_watcher();
        tokio::select! {
            () = self.idle.notified() => {}
            why = ended => panic!("gossip has ended: {why:?}"),
        }
    }
}

struct Office(Arc<Post>);

impl Transport for Office {
    fn open<'life, 'future>(&'life self, _: SocketAddr) -> BoxFuture<'future, anyhow::Result<Box<dyn Socket>>>
    where
        'life: 'future,
        Self: 'future,
    {
        let socket: Box<dyn Socket> = Box::new(Counter(self.0.clone()));
        Box::pin(std::future::ready(Ok(socket)))
    }
}

struct Counter(Arc<Post>);

impl Socket for Counter {
    fn send<'life, 'future>(
        &'life mut self,
        _: SocketAddr,
        message: ChitchatMessage,
    ) -> BoxFuture<'future, anyhow::Result<()>>
    where
        'life: 'future,
        Self: 'future,
    {
        let bytes = message.serialize_to_vec();
        self.0.sent.lock().expect("nothing panics under this lock").push(bytes);
        Box::pin(std::future::ready(Ok(())))
    }

    fn recv<'life, 'future>(&'life mut self) -> BoxFuture<'future, anyhow::Result<(SocketAddr, ChitchatMessage)>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async {
            loop {
                let letter = self.0.inbox.lock().expect("nothing panics under this lock").pop_front();
                let Some(letter) = letter else {
                    self.0.idle.notify_one();
                    self.0.wake.notified().await;
                    continue;
                };
                let mut ear = self.0.ear.lock().expect("nothing panics under this lock");
                if let Ok(message) = ear.read(&letter) {
                    *self.0.heard.lock().expect("nothing panics under this lock") += 1;
                    return Ok((SocketAddr::from(([127, 0, 0, 1], 3)), message));
                }
            }
        })
    }
}

/// What a message passes before the library has it, as in `transport.rs`.
struct Ear {
    local: Life,
    lives: Lives,
}

impl Ear {
    fn new(name: &str, generation: u64) -> Self {
        Self {
            local: life(name, generation),
            lives: Lives::default(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<ChitchatMessage, &'static str> {
        guard::check(&self.local, bytes).map_err(|refusal| match refusal {
            Refusal::Malformed => "malformed",
            Refusal::NodeName { .. } => "node name",
            Refusal::TooMuch { .. } => "too much",
            Refusal::Key { .. } => "key",
            Refusal::Value { .. } => "value",
            Refusal::Version { .. } => "version",
            Refusal::Ourselves => "ourselves",
        })?;
        self.lives.admit(Duration::ZERO, bytes).map_err(|_| "too many lives")?;
        ChitchatMessage::deserialize(&mut &bytes[..]).map_err(|_| "unread")
    }
}
