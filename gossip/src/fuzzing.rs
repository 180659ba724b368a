//! Doors to this crate's decoders for the fuzz targets in `fuzz/`; no part of the interface. Each function takes bytes as a peer might
//! send them and panics when a promise of the decoder is broken; each `…_seeds` returns inputs as an honest peer sends them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::control::{decode_suspect, encode_suspect};
use crate::directory::{Directory, Key, Message};
use crate::discovery::Target;
use crate::frame::{Decoder, Encoder};
use crate::group;
use crate::link::{read_broadcast, write_broadcast};
use crate::member::{Member, MemberState, Members};
use crate::own;
use crate::peer::{Identity, Life, NodeId, Peer};
use crate::quic::hello::Hello;
use crate::quic::{name, tls};
use crate::view::{self, Report, View};

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
