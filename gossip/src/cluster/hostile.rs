//! A peer that holds the secret but is no build of ours, and what a node makes of what it says in gossip: nothing ends, what breaks a
//! rule is counted and not taken, and the rest of what it says is.

use std::net::UdpSocket;

use chitchat::{ChitchatId, Serializable};

use super::*;
use crate::config::{Limits, Profile};
use crate::inbound::{BoxFuture, LinkEvent};
use crate::quic::Trust;
use crate::secret::Secret;

struct Nobody;

impl Inbound for Nobody {
    fn message(&self, _: &Peer, _: Channel, _: Bytes) {}

    fn request(&self, _: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(bytes))
    }

    fn link(&self, _: &Peer, _: LinkEvent) {}

    fn broadcast(&self, _: &Peer, _: &str, _: Bytes) {}
}

const FOE: &str = "foe";

fn foe_id(addr: SocketAddr) -> Vec<u8> {
    ChitchatId::new(FOE, 1, addr).serialize_to_vec()
}

/// Says that the foe lives, and up to which version it has something to say.
fn syn(foe: SocketAddr, heartbeat: u64) -> Vec<u8> {
    let mut message = vec![2];
    message.extend(45_139u16.to_le_bytes());
    message.extend([0, 0]);
    1u16.serialize(&mut message);
    message.extend(foe_id(foe));
    for number in [heartbeat, 0, 0] {
        number.serialize(&mut message);
    }
    "hostile".serialize(&mut message);
    message
}

/// Says what the foe states, in one plain block.
fn ack(foe: SocketAddr, keys: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut block = vec![0];
    block.extend(foe_id(foe));
    0u64.serialize(&mut block);
    0u64.serialize(&mut block);
    for (key, value, version) in keys {
        block.push(1);
        key.serialize(&mut block);
        value.serialize(&mut block);
        version.serialize(&mut block);
        block.push(0);
    }
    let mut message = vec![2];
    message.extend(45_139u16.to_le_bytes());
    message.extend([0, 2, 2]);
    (block.len() as u16).serialize(&mut message);
    message.extend(block);
    message.push(0);
    message
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(15), "not so within 15 s");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_foreign_build_states_ends_a_node_or_reaches_its_owner() {
    let secret = || Secret::new([9; 32]).unwrap();
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (ours, theirs) = (bind(), bind());
    let (our_addr, foe_addr) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
    let config = Config {
        node: "node".parse().unwrap(),
        generation: 1,
        cluster_name: "hostile".into(),
        secret: secret(),
        secret_next: None,
        certificates: None,
        listen: ours.into(),
        advertise: our_addr.to_string(),
        seeds: Vec::new(),
        dns: Vec::new(),
        poll_interval: Duration::from_secs(10),
        profile: Profile::Lan,
        dns_server: None,
        limits: Limits::default(),
    };
    let stop = CancellationToken::new();
    let node = Cluster::start(config, Arc::new(Nobody), stop.clone()).await.unwrap();
    let identity = Identity {
        peer: Peer {
            node: FOE.parse().unwrap(),
            generation: 1,
            addr: foe_addr.to_string(),
        },
        gossip_addr: foe_addr,
    };
    let trust = Trust {
        secret: &secret(),
        secret_next: None,
        certificates: None,
    };
    let refusals = Refusals::new(Arc::default());
    let foe = Quic::new(theirs.into(), trust, "hostile", identity, refusals).unwrap();
    let connection = foe.dial(our_addr, Kind::Control).await.unwrap().connection;
    let say = async |message: Vec<u8>| {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&message).await.unwrap();
        stream.finish().unwrap();
    };
    say(syn(foe_addr, 1)).await;
    eventually(|| node.members().borrow().len() == 2).await;
    let (long_key, long_value) = ("k".repeat(257), "v".repeat(5_000));
    let hostile: [&[(&str, &str, u64)]; 8] = [
        // The library slices the first byte off a key.
        &[("ä", "1", 1)],
        &[("\u{10ffff}", "1", 1)],
        &[("", "1", 1)],
        &[("f/\n", "1", 1)],
        &[(&long_key, "1", 1)],
        &[("f/k", &long_value, 1)],
        &[("f/a", "1", u64::MAX)],
        &[("f/a", "1", 2), ("f/b", "1", 1)],
    ];
    for (index, keys) in hostile.into_iter().enumerate() {
        say(ack(foe_addr, keys)).await;
        eventually(|| node.stats().gossip_refused_total == index as u64 + 1).await;
    }
    say(b"\x02no gossip at all".to_vec()).await;
    // It is taken at its word where that does no harm: unknown keys are ignored, and one group is one, however it is spelled.
    let address = format!("nowhere{}", "!".repeat(1_000));
    let strange = [
        ("addr", address.as_str(), 3),
        ("f/load", "7", 4),
        ("g/%61", "1", 5),
        ("g/%zz", "1", 6),
        ("g/%ff", "1", 7),
        ("g/a", "1", 8),
        ("mv", "many", 9),
        ("st", "conquering", 10),
        ("zz/of-a-later-version", "1", 11),
    ];
    say(ack(foe_addr, &strange)).await;
    let foe_name: NodeId = FOE.parse().unwrap();
    eventually(|| {
        let members = node.members().borrow().clone();
        members.get(&foe_name).is_some_and(|member| member.facts.len() == 1)
    })
    .await;
    let members = node.members().borrow().clone();
    let member = members.get(&foe_name).unwrap();
    assert_eq!((member.state, member.mesh_version), (MemberState::Joining, 1));
    assert_eq!(
        member.peer.addr,
        foe_addr.to_string(),
        "an address that cannot be one is ignored"
    );
    assert_eq!(node.nodes("a"), [foe_name]);
    eventually(|| node.stats().gossip_refused_total == 9).await;
    assert!(!stop.is_cancelled() && timeout(Duration::from_millis(50), node.closed()).await.is_err());
    node.leave().await;
}
