//! The directory alone, and a small cluster of directories whose post delays, loses, and breaks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::member::Member;
use crate::peer::Peer;

const CLASS: u8 = 1;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn life(name: &str, generation: u64) -> Life {
    Life {
        node: node(name),
        generation,
    }
}

fn member(name: &str, generation: u64, state: MemberState) -> Member {
    member_of(name, generation, state, 2)
}

fn member_of(name: &str, generation: u64, state: MemberState, mesh_version: u32) -> Member {
    Member {
        peer: Peer {
            node: node(name),
            generation,
            addr: "10.0.0.1:1".into(),
        },
        state,
        facts: Arc::default(),
        departed: state == MemberState::Dead,
        mesh_version,
        rtt: None,
    }
}

fn members(list: &[(&str, u64, MemberState)]) -> Members {
    let by_node = list
        .iter()
        .map(|(name, generation, state)| (node(name), member(name, *generation, *state)))
        .collect();
    Members { by_node }
}

fn ready(names: &[&str]) -> Members {
    members(
        &names
            .iter()
            .map(|name| (*name, 1, MemberState::Ready))
            .collect::<Vec<_>>(),
    )
}

fn key(name: &str) -> Key {
    Key::new(CLASS, name.as_bytes())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn values(entries: &[Entry]) -> Vec<(&str, &[u8])> {
    entries
        .iter()
        .map(|entry| (entry.holder.node.as_str(), &entry.value[..]))
        .collect()
}

#[test]
fn a_node_alone_is_every_home() {
    let mut alone = Directory::new(life("a", 1), 100);
    let now = Time::ZERO;
    alone.hold(now, key("x"), 1, bytes("one"));
    alone.members(now, &ready(&["a"]));
    alone.watch(now, key("x"));
    assert_eq!(alone.unanswered(key("x")), 0);
    assert_eq!(values(&alone.seen(key("x"))), [("a", &b"one"[..])]);
    assert_eq!(alone.take_changed(), BTreeSet::from([key("x")]));
    alone.hold(now, key("x"), 1, bytes("one"));
    assert!(alone.take_changed().is_empty(), "the same again is no change");
    alone.hold(now, key("x"), 2, bytes("two"));
    assert_eq!(values(&alone.kept(now, key("x"))), [("a", &b"two"[..])]);
    assert_eq!(alone.count(CLASS), 1);
    alone.release(now, key("x"));
    assert_eq!(alone.take_changed(), BTreeSet::from([key("x")]));
    assert!(alone.seen(key("x")).is_empty());
    assert_eq!(alone.count(CLASS), 0);
    assert!(!alone.has_mail());
}

#[test]
fn every_node_finds_the_same_two_homes_and_a_new_node_moves_few() {
    let names = ["a", "b", "c", "d"];
    let directory = |local: &str, nodes: &[&str]| {
        let mut directory = Directory::new(life(local, 1), 100);
        directory.members(Time::ZERO, &ready(nodes));
        directory
    };
    let (at_a, at_d, before) = (
        directory("a", &names),
        directory("d", &names),
        directory("a", &names[..3]),
    );
    let mut kept: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut moved = 0;
    for index in 0..4_000 {
        let key = key(&index.to_string());
        let homes = at_a.homes(key);
        assert_eq!(homes, at_d.homes(key));
        assert_eq!(homes.len(), 2);
        assert_ne!(homes[0], homes[1]);
        let former = before.homes(key);
        assert!(homes.iter().all(|home| former.contains(home) || *home == node("d")));
        moved += usize::from(homes != former);
        homes.into_iter().for_each(|home| *kept.entry(home).or_default() += 1);
    }
    // Each of four nodes keeps half of all keys: 2,000, give or take five standard deviations.
    assert!(kept.values().all(|count| (1_800..2_200).contains(count)), "{kept:?}");
    assert!(
        (1_700..2_300).contains(&moved),
        "{moved} of 4,000 keys moved to the fourth node"
    );
}

#[test]
fn a_full_home_refuses_and_says_so() {
    let mut home = Directory::new(life("a", 1), 2);
    home.members(Time::ZERO, &ready(&["a"]));
    for name in ["x", "y", "z"] {
        home.hold(Time::ZERO, key(name), 1, bytes(name));
    }
    let DirectoryStats {
        kept, refused_total, ..
    } = home.stats();
    assert_eq!((kept, refused_total), (2, 1));
}

#[test]
fn a_suspect_home_stays_one() {
    let mut directory = Directory::new(life("a", 1), 100);
    directory.members(Time::ZERO, &ready(&["a", "b"]));
    let states = [("a", 1, MemberState::Ready), ("b", 1, MemberState::Suspect)];
    directory.members(Time::ZERO, &members(&states));
    assert_eq!(directory.homes(key("x")).len(), 2);
    let states = [("a", 1, MemberState::Ready), ("b", 1, MemberState::Dead)];
    directory.members(Time::ZERO, &members(&states));
    assert_eq!(directory.homes(key("x")), [node("a")]);
}

#[test]
fn messages_of_any_other_kind_are_refused() {
    assert!(Message::decode(b"").is_err());
    assert!(Message::decode(&[0x81, 0xa3, b'N', b'e', b'w', 0x90]).is_err());
    let message = Message::Put(vec![Put {
        key: key("x"),
        epoch: 3,
        version: 9,
        value: bytes("v"),
    }]);
    assert_eq!(Message::decode(&message.encode()).unwrap(), message);
}

/// A message of an earlier version still reads: the golden bytes of one state, whose fields may grow in number.
#[test]
fn the_bytes_of_a_state_stay_what_they_are() {
    let state = Message::Changed(vec![State {
        key: Key::first_of(7),
        entries: vec![Entry {
            holder: life("a", 1),
            epoch: 2,
            version: 3,
            value: bytes("v"),
        }],
        withdrawn: Vec::new(),
    }]);
    let mut golden = b"\x81\xa7Changed\x91\x83\xa1k\xdc\x00\x10\x07".to_vec();
    golden.extend([0; 15]);
    golden.extend(b"\xa1e\x91\x84\xa1h\x82\xa1n\xa1a\xa1g\x01\xa1e\x02\xa1n\x03\xa1v\xc4\x01v\xa1w\x90");
    assert_eq!(state.encode(), golden);
    assert_eq!(Message::decode(&golden).unwrap(), state);
}

/// What a node of this version says and one of the version before does not know, byte for byte.
#[test]
fn the_bytes_of_repairs_and_forwards_stay_what_they_are() {
    let first = Key::first_of(7);
    let golden_key = [&b"\xdc\x00\x10\x07"[..], &[0; 15]].concat();
    let cases: [(Message, Vec<u8>); 6] = [
        (
            Message::Digest(Digest { count: 2, hash: 300 }),
            b"\x81\xa6Digest\x82\xa1c\x02\xa1s\xcd\x01\x2c".to_vec(),
        ),
        (
            Message::Differs(vec![(1, 5), (0, 0)]),
            b"\x81\xa7Differs\x92\x92\x01\x05\x92\x00\x00".to_vec(),
        ),
        (
            Message::Same(Same { buckets: 3 }),
            b"\x81\xa4Same\x81\xa1b\x03".to_vec(),
        ),
        (
            Message::Stand(vec![Stand {
                bucket: 1,
                version: 9,
                entries: vec![(first, 4)],
            }]),
            [
                &b"\x81\xa5Stand\x91\x83\xa1b\x01\xa1n\x09\xa1k\x91\x92"[..],
                &golden_key,
                b"\x04",
            ]
            .concat(),
        ),
        (
            Message::Forward(vec![State {
                key: first,
                entries: Vec::new(),
                withdrawn: vec![(life("a", 1), 6)],
            }]),
            [
                &b"\x81\xa7Forward\x91\x83\xa1k"[..],
                &golden_key,
                b"\xa1e\x90\xa1w\x91\x92\x82\xa1n\xa1a\xa1g\x01\x06",
            ]
            .concat(),
        ),
        (
            Message::ForwardWatch(vec![(first, node("a"))]),
            [&b"\x81\xacForwardWatch\x91\x92"[..], &golden_key, b"\xa1a"].concat(),
        ),
    ];
    for (message, golden) in cases {
        assert_eq!(message.encode(), golden, "{message:?}");
        assert_eq!(Message::decode(&golden).unwrap(), message);
    }
}

/// Says everything that waits at once, without loss.
fn exchange(now: Time, directories: &mut BTreeMap<NodeId, Directory>) {
    loop {
        let mut mail = Vec::new();
        for (name, directory) in directories.iter_mut() {
            mail.extend(
                directory
                    .mail(now)
                    .into_iter()
                    .map(|(to, message)| (name.clone(), to, message)),
            );
        }
        if mail.is_empty() {
            return;
        }
        for (from, to, message) in mail {
            if let Some(directory) = directories.get_mut(&to) {
                directory.message(now, &life(from.as_str(), 1), message);
            }
        }
    }
}

fn trio() -> BTreeMap<NodeId, Directory> {
    let names = ["a", "b", "c"];
    let with = |name: &&str| {
        let mut directory = Directory::new(life(name, 1), 1_000);
        directory.members(Time::ZERO, &ready(&names));
        (node(name), directory)
    };
    names.iter().map(with).collect()
}

#[test]
fn a_watcher_hears_the_new_version_once_and_the_withdrawal_beats_a_home_that_missed_it() {
    let mut nodes = trio();
    let x = (0..).map(|index| key(&index.to_string()));
    // A key that the holder is no home of.
    let x = x
        .into_iter()
        .find(|x| !nodes[&node("a")].homes(*x).contains(&node("a")))
        .unwrap();
    nodes.get_mut(&node("a")).unwrap().hold(Time::ZERO, x, 1, bytes("in"));
    nodes.get_mut(&node("b")).unwrap().watch(Time::ZERO, x);
    exchange(Time::ZERO, &mut nodes);
    let b = nodes.get_mut(&node("b")).unwrap();
    assert_eq!(values(&b.seen(x)), [("a", &b"in"[..])]);
    assert_eq!(b.take_changed(), BTreeSet::from([x]));
    // The withdrawal reaches one home only.
    let a = nodes.get_mut(&node("a")).unwrap();
    a.release(Time::ZERO, x);
    let mail = a.mail(Time::ZERO);
    assert_eq!(mail.len(), 2, "{mail:?}");
    for (to, message) in mail.into_iter().filter(|(to, _)| *to == node("c")) {
        nodes.get_mut(&to).unwrap().message(Time::ZERO, &life("a", 1), message);
    }
    exchange(Time::ZERO, &mut nodes);
    let b = nodes.get_mut(&node("b")).unwrap();
    assert_eq!(
        values(&b.kept(Time::ZERO, x)),
        [("a", &b"in"[..])],
        "the other home does not know"
    );
    assert!(b.seen(x).is_empty());
}

#[test]
fn nobody_seems_gone_when_both_homes_change() {
    let everybody = ["a", "b", "c", "d", "e", "f"];
    let mut nodes: BTreeMap<NodeId, Directory> = everybody
        .iter()
        .map(|name| (node(name), Directory::new(life(name, 1), 1_000)))
        .collect();
    let all = |nodes: &mut BTreeMap<NodeId, Directory>, now, shown: &Members| {
        nodes.values_mut().for_each(|directory| directory.members(now, shown));
    };
    all(&mut nodes, Time::ZERO, &ready(&["a", "b"]));
    let keys: Vec<Key> = (0..50).map(|index| key(&index.to_string())).collect();
    for x in &keys {
        nodes.get_mut(&node("a")).unwrap().hold(Time::ZERO, *x, 1, bytes("in"));
        nodes.get_mut(&node("b")).unwrap().watch(Time::ZERO, *x);
    }
    exchange(Time::ZERO, &mut nodes);
    let second = Duration::from_secs(1);
    all(&mut nodes, second, &ready(&everybody));
    let check = |nodes: &BTreeMap<NodeId, Directory>| {
        for x in &keys {
            assert_eq!(nodes[&node("b")].seen(*x).len(), 1, "{x:?} seems gone");
        }
    };
    check(&nodes);
    // The watcher is heard first, then the holder.
    let asked = nodes.get_mut(&node("b")).unwrap().mail(second);
    for (to, message) in asked {
        nodes.get_mut(&to).unwrap().message(second, &life("b", 1), message);
    }
    check(&nodes);
    exchange(second, &mut nodes);
    check(&nodes);
    let later = second + FORMER_HOME_FOR + second;
    nodes.values_mut().for_each(|directory| directory.wake(later));
    exchange(later, &mut nodes);
    check(&nodes);
}

#[test]
fn who_holds_a_key_beside_others_hears_of_them_unasked() {
    let mut nodes = trio();
    let x = key("player");
    nodes
        .get_mut(&node("a"))
        .unwrap()
        .hold(Time::ZERO, x, 1, bytes("first"));
    exchange(Time::ZERO, &mut nodes);
    assert!(nodes[&node("a")].seen(x).is_empty());
    nodes
        .get_mut(&node("b"))
        .unwrap()
        .hold(Time::ZERO, x, 2, bytes("second"));
    exchange(Time::ZERO, &mut nodes);
    for holder in ["a", "b"] {
        let seen = nodes[&node(holder)].seen(x);
        assert_eq!(
            values(&seen),
            [("a", &b"first"[..]), ("b", &b"second"[..])],
            "at {holder}"
        );
    }
    nodes.get_mut(&node("a")).unwrap().release(Time::ZERO, x);
    exchange(Time::ZERO, &mut nodes);
    assert_eq!(values(&nodes[&node("b")].seen(x)), [("b", &b"second"[..])]);
}

#[test]
fn what_a_node_held_that_said_goodbye_stands_for_three_seconds_and_that_of_a_dead_one_not_at_all() {
    for (state, stands) in [(MemberState::Leaving, true), (MemberState::Dead, false)] {
        let mut nodes = trio();
        nodes
            .get_mut(&node("a"))
            .unwrap()
            .hold(Time::ZERO, key("x"), 1, bytes("in"));
        nodes.get_mut(&node("b")).unwrap().watch(Time::ZERO, key("x"));
        exchange(Time::ZERO, &mut nodes);
        nodes.remove(&node("a"));
        let others = [
            ("a", 1, state),
            ("b", 1, MemberState::Ready),
            ("c", 1, MemberState::Ready),
        ];
        let shown = members(&others);
        nodes
            .values_mut()
            .for_each(|directory| directory.members(Time::ZERO, &shown));
        exchange(Time::ZERO, &mut nodes);
        assert_eq!(!nodes[&node("b")].seen(key("x")).is_empty(), stands, "{state}");
        nodes.values_mut().for_each(|directory| directory.wake(PARTING_FOR));
        exchange(PARTING_FOR, &mut nodes);
        assert!(nodes[&node("b")].seen(key("x")).is_empty(), "{state}");
        assert!(nodes.values().all(|directory| directory.stats().kept == 0), "{state}");
    }
}

/// Two nodes of which the second is a home of everything that the first one holds: it is the only other one.
fn pair(mesh_version: u32) -> (Directory, Directory) {
    let shown = [("a", 2), ("b", mesh_version)].map(|(name, version)| member_of(name, 1, MemberState::Ready, version));
    let by_node = shown.map(|member| (member.peer.node.clone(), member)).into();
    let shown = Members { by_node };
    let with = |name| {
        let mut directory = Directory::new(life(name, 1), 100_000);
        directory.members(Time::ZERO, &shown);
        directory
    };
    (with("a"), with("b"))
}

/// Carries everything between two nodes, and returns the messages that the first one said and how many bytes both said.
fn carry(now: Time, a: &mut Directory, b: &mut Directory) -> (Vec<Message>, usize) {
    let (mut said, mut bytes) = (Vec::new(), 0);
    while a.has_mail() || b.has_mail() {
        for (to, message) in a.mail(now) {
            assert_eq!(to, node("b"));
            bytes += message.encode().len();
            b.message(now, &life("a", 1), message.clone());
            said.push(message);
        }
        for (to, message) in b.mail(now) {
            assert_eq!(to, node("a"));
            bytes += message.encode().len();
            a.message(now, &life("b", 1), message);
        }
    }
    (said, bytes)
}

/// Lets time pass, and returns how many bytes were said meanwhile, and the longest message of the first.
fn pass(from: Time, until: Time, a: &mut Directory, b: &mut Directory) -> usize {
    let (mut now, mut total) = (from, 0);
    while now < until {
        now += WAKE_EVERY;
        a.wake(now);
        b.wake(now);
        total += carry(now, a, b).1;
    }
    total
}

#[test]
fn entries_that_nobody_touches_stand_while_the_digests_agree() {
    const ENTRIES: usize = 10_000;
    let mut bytes_a_round = Vec::new();
    for mesh_version in [1, 2] {
        let (mut a, mut b) = pair(mesh_version);
        for index in 0..ENTRIES {
            a.hold(Time::ZERO, key(&index.to_string()), 1, bytes("0123456789abcdef"));
        }
        carry(Time::ZERO, &mut a, &mut b);
        let minute = Duration::from_secs(64);
        let total = pass(Time::ZERO, minute, &mut a, &mut b);
        let stats = b.stats();
        assert_eq!(
            (stats.kept, stats.expired_total, stats.repaired_total),
            (ENTRIES as u64, 0, 0)
        );
        assert_eq!(b.kept(minute, key("17")).len(), 1);
        bytes_a_round.push(total / 8);
    }
    println!(
        "bytes a refresh of {ENTRIES} entries at one home: touched {}, in sum {}",
        bytes_a_round[0], bytes_a_round[1]
    );
    assert!(
        bytes_a_round[0] > 100_000 && bytes_a_round[1] < 100,
        "{bytes_a_round:?}"
    );
}

#[test]
fn a_lost_put_and_a_lost_withdrawal_are_repaired_by_naming_their_buckets_only() {
    let (mut a, mut b) = pair(2);
    for index in 0..1_000 {
        a.hold(Time::ZERO, key(&index.to_string()), 1, bytes("v"));
    }
    carry(Time::ZERO, &mut a, &mut b);
    a.hold(Time::ZERO, key("new"), 1, bytes("v"));
    a.release(Time::ZERO, key("17"));
    // Both are lost on the way.
    assert_eq!(a.mail(Time::ZERO).len(), 2);
    assert_eq!(
        (
            b.kept(Time::ZERO, key("new")).len(),
            b.kept(Time::ZERO, key("17")).len()
        ),
        (0, 1)
    );
    let said = pass(Time::ZERO, REFRESH + WAKE_EVERY, &mut a, &mut b);
    let now = REFRESH + WAKE_EVERY;
    assert_eq!(b.kept(now, key("new")).len(), 1, "it was asked for again");
    assert_eq!(b.stats().repaired_total, 2, "of 64 buckets two were gone through");
    // Sums of 64 buckets, and the names of some 32 entries.
    assert!(said < 4_000, "{said} bytes");
    let later = now + FORMER_HOME_FOR + WAKE_EVERY;
    pass(now, later, &mut a, &mut b);
    assert!(b.kept(later, key("17")).is_empty(), "it was named no longer");
    let stats = b.stats();
    assert_eq!((stats.kept, stats.expired_total), (1_000, 0));
    // And then both agree again.
    let next = later + REFRESH * 2;
    pass(later, next, &mut a, &mut b);
    assert_eq!(b.stats().repaired_total, 2);
}

#[test]
fn a_holder_that_says_no_digest_any_more_loses_its_entries_after_the_time() {
    let (mut a, mut b) = pair(2);
    a.hold(Time::ZERO, key("x"), 1, bytes("v"));
    pass(Time::ZERO, REFRESH * 4, &mut a, &mut b);
    let last = REFRESH * 4;
    assert_eq!(b.stats().kept, 1);
    let mut now = last;
    while now < last + ENTRY_TTL + WAKE_EVERY {
        now += WAKE_EVERY;
        b.wake(now);
        b.mail(now);
    }
    assert_eq!((b.stats().kept, b.stats().expired_total), (0, 1));
}

/// A home takes a holder for dead that never noticed, and hears nothing of it: both are well again as soon as it sees it alive.
#[test]
fn a_holder_that_was_taken_for_dead_says_again_what_it_has_without_waiting_for_its_turn() {
    for wait in [Duration::ZERO, REFRESH * 2] {
        let (mut a, mut b) = pair(2);
        for index in 0..100 {
            a.hold(Time::ZERO, key(&index.to_string()), 1, bytes("v"));
        }
        carry(Time::ZERO, &mut a, &mut b);
        pass(Time::ZERO, wait, &mut a, &mut b);
        b.members(
            wait,
            &members(&[("a", 1, MemberState::Dead), ("b", 1, MemberState::Ready)]),
        );
        assert_eq!(b.stats().kept, 0);
        b.members(wait, &ready(&["a", "b"]));
        carry(wait, &mut a, &mut b);
        assert_eq!(b.stats().kept, 100);
    }
}

/// The holder takes a and b for the only nodes; everybody else knows of four more.
#[test]
fn what_a_node_is_told_or_asked_by_mistake_goes_on_once_to_those_whose_it_is() {
    let everybody = ["a", "b", "c", "d", "e", "f"];
    let views = |name: &str| -> &[&str] { if name == "a" { &["a", "b"] } else { &everybody } };
    let mut nodes: BTreeMap<NodeId, Directory> = everybody
        .iter()
        .map(|name| {
            let mut directory = Directory::new(life(name, 1), 1_000);
            directory.members(Time::ZERO, &ready(views(name)));
            (node(name), directory)
        })
        .collect();
    let strange = |x: &Key| {
        let homes = nodes[&node("c")].homes(*x);
        !homes.contains(&node("a")) && !homes.contains(&node("b"))
    };
    let x = (0..).map(|index| key(&index.to_string())).find(strange).unwrap();
    let homes = nodes[&node("c")].homes(x);
    let reader = everybody
        .iter()
        .map(|name| node(name))
        .find(|name| name.as_str() > "b" && !homes.contains(name));
    let reader = reader.unwrap();
    nodes.get_mut(&reader).unwrap().watch(Time::ZERO, x);
    exchange(Time::ZERO, &mut nodes);
    nodes.get_mut(&node("a")).unwrap().hold(Time::ZERO, x, 1, bytes("in"));
    exchange(Time::ZERO, &mut nodes);
    for home in &homes {
        assert_eq!(
            values(&nodes[home].kept(Time::ZERO, x)),
            [("a", &b"in"[..])],
            "at {home}"
        );
        assert_eq!(
            nodes[home].stats().forwarded_total,
            0,
            "what was passed on goes no further"
        );
    }
    assert_eq!(values(&nodes[&reader].seen(x)), [("a", &b"in"[..])]);
    assert_eq!(nodes[&node("b")].stats().forwarded_total, 2);
    // What is taken back goes the same way.
    nodes.get_mut(&node("a")).unwrap().release(Time::ZERO, x);
    exchange(Time::ZERO, &mut nodes);
    assert!(nodes[&reader].seen(x).is_empty());
    // And who asks the wrong ones is answered by the right ones.
    let now = Duration::from_secs(1);
    nodes.get_mut(&reader).unwrap().hold(now, x, 2, bytes("here"));
    exchange(now, &mut nodes);
    nodes.get_mut(&node("a")).unwrap().watch(now, x);
    exchange(now, &mut nodes);
    assert_eq!(values(&nodes[&node("a")].seen(x)), [(reader.as_str(), &b"here"[..])]);
    // What was passed on does not stay for long.
    nodes.get_mut(&node("a")).unwrap().hold(now, x, 1, bytes("again"));
    exchange(now, &mut nodes);
    let later = now + FORWARDED_FOR + WAKE_EVERY;
    let home = nodes.get_mut(&homes[0]).unwrap();
    home.wake(later);
    assert_eq!(values(&home.kept(later, x)), [(reader.as_str(), &b"here"[..])]);
}

/// A generator of numbers whose whole state is the seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// It says of itself that it is of the version before, and so it must get nothing that one would not understand.
const ELDER: &str = "e";
const KEYS: usize = 12;
const STEP: Duration = Duration::from_millis(50);

/// One process, as the world knows it.
struct Process {
    generation: u64,
    state: MemberState,
    died: Option<Time>,
    directory: Directory,
    /// What it holds and watches, by the world's own books.
    holds: BTreeMap<Key, (u64, Bytes)>,
    watches: BTreeSet<Key>,
    /// The members as it sees them.
    sees: BTreeMap<NodeId, (u64, MemberState)>,
}

/// What is under way: when it arrives, of which life of the sender, and what.
type Pipe = VecDeque<(Time, u64, Bytes)>;

/// A cluster of directories. Between two nodes messages keep their order, as in a stream; they come late, and a break loses those under
/// way and is told to both ends.
struct World {
    now: Time,
    chance: Chance,
    keys: Vec<Key>,
    processes: BTreeMap<NodeId, Process>,
    pipes: BTreeMap<(NodeId, NodeId), Pipe>,
    /// Pairs between which nothing goes, in the order of their names.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Lives that are over, and since when.
    dead: BTreeMap<Life, Time>,
    epoch: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            keys: (0..KEYS).map(|index| key(&index.to_string())).collect(),
            processes: BTreeMap::new(),
            pipes: BTreeMap::new(),
            cut: BTreeSet::new(),
            dead: BTreeMap::new(),
            epoch: 0,
        };
        for name in NODES {
            world.boot(&node(name), 1);
        }
        world
    }

    fn boot(&mut self, name: &NodeId, generation: u64) {
        let local = Life {
            node: name.clone(),
            generation,
        };
        let process = Process {
            generation,
            state: MemberState::Ready,
            died: None,
            directory: Directory::new(local, 10_000),
            holds: BTreeMap::new(),
            watches: BTreeSet::new(),
            sees: BTreeMap::new(),
        };
        self.processes.insert(name.clone(), process);
    }

    fn any_node(&mut self) -> NodeId {
        node(NODES[self.chance.next(NODES.len() as u64) as usize])
    }

    fn any_key(&mut self) -> Key {
        self.keys[self.chance.next(KEYS as u64) as usize]
    }

    fn is_cut(&self, a: &NodeId, b: &NodeId) -> bool {
        self.cut.contains(&(a.min(b).clone(), a.max(b).clone()))
    }

    /// What is under way between two nodes is lost, and both hear of a new connection.
    fn break_link(&mut self, a: &NodeId, b: &NodeId) {
        self.pipes.remove(&(a.clone(), b.clone()));
        self.pipes.remove(&(b.clone(), a.clone()));
        for (one, other) in [(a, b), (b, a)] {
            if let Some(process) = self.processes.get_mut(one).filter(|process| process.died.is_none()) {
                process.directory.say_again(self.now, other);
            }
        }
    }

    fn disturb(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        match self.chance.next(40) {
            0..=11 => {
                let key = self.any_key();
                self.epoch += 1;
                let (epoch, value) = (self.epoch, bytes(&self.epoch.to_string()));
                let now = self.now;
                let process = self.processes.get_mut(&one).unwrap();
                if process.died.is_none() {
                    process.holds.insert(key, (epoch, value.clone()));
                    process.directory.hold(now, key, epoch, value);
                }
            }
            12..=18 => {
                let (key, now) = (self.any_key(), self.now);
                let process = self.processes.get_mut(&one).unwrap();
                process.holds.remove(&key);
                process.directory.release(now, key);
            }
            19..=24 => {
                let (key, now) = (self.any_key(), self.now);
                let process = self.processes.get_mut(&one).unwrap();
                process.watches.insert(key);
                process.directory.watch(now, key);
            }
            25..=27 => {
                let (key, now) = (self.any_key(), self.now);
                let process = self.processes.get_mut(&one).unwrap();
                process.watches.remove(&key);
                process.directory.unwatch(now, key);
            }
            28..=30 if one != other => self.break_link(&one, &other),
            31 if one != other => {
                self.cut.insert((one.clone().min(other.clone()), one.max(other)));
            }
            32..=33 => {
                if let Some(pair) = self.cut.pop_first() {
                    self.break_link(&pair.0, &pair.1);
                }
            }
            34 => {
                let alive = self.processes.values().filter(|process| process.died.is_none()).count();
                let now = self.now;
                let process = self.processes.get_mut(&one).unwrap();
                if alive > 2 && process.died.is_none() {
                    process.died = Some(now);
                    self.dead.insert(life(one.as_str(), process.generation), now);
                }
            }
            35..=36 => {
                let process = &self.processes[&one];
                if process.died.is_some() {
                    let generation = process.generation + 1;
                    self.boot(&one, generation);
                    for other in NODES {
                        if node(other) != one {
                            self.break_link(&one, &node(other));
                        }
                    }
                }
            }
            37 => {
                let process = self.processes.get_mut(&one).unwrap();
                process.state = match process.state {
                    MemberState::Ready => MemberState::Draining,
                    _ => MemberState::Ready,
                };
            }
            _ => {}
        }
    }

    /// Each node sees each other one now and then: as it is, or as dead after four seconds of silence or behind a cut.
    fn look_around(&mut self) {
        let facts: Vec<_> = self
            .processes
            .iter()
            .map(|(name, process)| (name.clone(), process.generation, process.state, process.died))
            .collect();
        let names: Vec<NodeId> = self.processes.keys().cloned().collect();
        for name in names {
            for (other, generation, state, died) in &facts {
                let late = self.chance.next(10) == 0;
                let silent = died.is_some_and(|died| self.now > died + Duration::from_secs(4));
                let cut = self.is_cut(&name, other);
                let process = self.processes.get_mut(&name).unwrap();
                let known = process.sees.get(other).copied();
                let seen = if name == *other {
                    (*generation, *state)
                } else if cut && known.is_none() {
                    continue;
                } else if silent || cut {
                    (
                        known.map_or(*generation, |(generation, _)| generation),
                        MemberState::Dead,
                    )
                } else if died.is_some() {
                    (*generation, MemberState::Suspect)
                } else {
                    (*generation, *state)
                };
                if late && known != Some(seen) {
                    process.sees.insert(other.clone(), seen);
                }
            }
            let process = self.processes.get_mut(&name).unwrap();
            if process.died.is_none() {
                let by_node = process
                    .sees
                    .iter()
                    .map(|(node, (generation, state))| {
                        let version = if node.as_str() == ELDER { 1 } else { 2 };
                        (node.clone(), member_of(node.as_str(), *generation, *state, version))
                    })
                    .collect();
                process.directory.members(self.now, &Members { by_node });
            }
        }
    }

    fn carry(&mut self) {
        let names: Vec<NodeId> = self.processes.keys().cloned().collect();
        for name in &names {
            let process = self.processes.get_mut(name).unwrap();
            if process.died.is_some() {
                continue;
            }
            process.directory.wake(self.now);
            let generation = process.generation;
            for (to, message) in process.directory.mail(self.now) {
                let understood = match &message {
                    Message::Put(_) | Message::Withdraw(_) | Message::Touch(_) | Message::Missing(_) => true,
                    Message::Watch(_) | Message::Unwatch(_) | Message::Changed(_) => true,
                    Message::Digest(_) | Message::Same(_) | Message::Stand(_) => to.as_str() != ELDER,
                    Message::Forward(_) | Message::ForwardWatch(_) => to.as_str() != ELDER,
                    // An answer to a digest, which a node of the version before does not say: but this one does.
                    Message::Differs(_) => true,
                };
                assert!(understood, "{to} does not know {message:?}");
                // A full queue: it is said later.
                if self.chance.next(12) == 0 {
                    process.directory.put_back(&to, &message);
                    continue;
                }
                let (a, b) = (name.min(&to).clone(), name.max(&to).clone());
                if self.cut.contains(&(a, b)) {
                    continue;
                }
                let pipe = self.pipes.entry((name.clone(), to)).or_default();
                let earliest = pipe.back().map_or(self.now, |(due, ..)| *due);
                let due = earliest.max(self.now + Duration::from_millis(self.chance.next(300)));
                pipe.push_back((due, generation, message.encode()));
            }
        }
        let pairs: Vec<_> = self.pipes.keys().cloned().collect();
        for (from, to) in pairs {
            let pipe = self.pipes.get_mut(&(from.clone(), to.clone())).unwrap();
            while pipe.front().is_some_and(|(due, ..)| *due <= self.now) {
                let (_, generation, bytes) = pipe.pop_front().unwrap();
                let sender = Life {
                    node: from.clone(),
                    generation,
                };
                let process = self.processes.get_mut(&to).unwrap();
                if process.died.is_none() {
                    process
                        .directory
                        .message(self.now, &sender, Message::decode(&bytes).unwrap());
                }
            }
        }
    }

    fn no_entry_outlives_its_holder_by_more_than_the_ttl(&self) {
        for (name, process) in self.processes.iter().filter(|(_, process)| process.died.is_none()) {
            for key in &self.keys {
                for entry in process.directory.kept(self.now, *key) {
                    if let Some(died) = self.dead.get(&entry.holder) {
                        // What was under way when it died may come up to 300 ms later.
                        let last = *died + ENTRY_TTL + Duration::from_millis(400);
                        assert!(self.now <= last, "{name} keeps {entry:?}, dead since {died:?}");
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.look_around();
        self.carry();
        self.no_entry_outlives_its_holder_by_more_than_the_ttl();
    }

    fn heal(&mut self) {
        while let Some((a, b)) = self.cut.pop_first() {
            self.break_link(&a, &b);
        }
        // Nobody comes back: what the dead held must go by itself.
        let until = self.now + ENTRY_TTL + WATCH_REFRESH + Duration::from_secs(10);
        while self.now < until {
            self.step();
        }
    }

    fn check(&self) {
        let alive = || self.processes.iter().filter(|(_, process)| process.died.is_none());
        for key in &self.keys {
            let held: Vec<(NodeId, u64, Bytes)> = alive()
                .filter_map(|(name, process)| {
                    let (epoch, value) = process.holds.get(key)?;
                    Some((name.clone(), *epoch, value.clone()))
                })
                .collect();
            let shown = |entries: Vec<Entry>| -> Vec<(NodeId, u64, Bytes)> {
                let mut shown: Vec<_> = entries
                    .into_iter()
                    .map(|entry| (entry.holder.node, entry.epoch, entry.value))
                    .collect();
                shown.sort();
                shown
            };
            for (name, process) in alive() {
                if process.directory.homes(*key).contains(name) {
                    assert_eq!(
                        shown(process.directory.kept(self.now, *key)),
                        held,
                        "kept by {name} of {key:?}"
                    );
                }
                if process.watches.contains(key) {
                    assert_eq!(process.directory.unanswered(*key), 0);
                    assert_eq!(shown(process.directory.seen(*key)), held, "seen by {name} of {key:?}");
                }
            }
        }
        let kept: u64 = alive().map(|(_, process)| process.directory.count(CLASS)).sum();
        let held = self
            .keys
            .iter()
            .filter(|key| alive().any(|(_, process)| process.holds.contains_key(key)))
            .count();
        assert_eq!(kept, held as u64, "each key is counted once");
    }
}

/// The seeds to run: one when it is named, so that a failure can be seen again.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("ROOKERY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..count + 1,
    }
}

#[test]
fn after_healing_every_home_and_every_watcher_shows_exactly_what_is_held() {
    for seed in seeds(40) {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..600 {
                world.disturb();
                world.step();
            }
            world.heal();
            world.check();
        });
        assert!(run.is_ok(), "ROOKERY_SEED={seed} shows it again");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes);
    }

    /// Whatever is put, taken back and said twice: what waits for a node stays bounded by what there is.
    #[test]
    fn what_waits_is_bounded_by_the_keys(operations in prop::collection::vec((0usize..4, 0usize..6), 1..200)) {
        let mut directory = Directory::new(life("a", 1), 100);
        directory.members(Time::ZERO, &ready(&["b", "c"]));
        for (operation, index) in operations {
            let key = key(&index.to_string());
            match operation {
                0 => directory.hold(Time::ZERO, key, 1, bytes("v")),
                1 => directory.release(Time::ZERO, key),
                2 => directory.watch(Time::ZERO, key),
                _ => directory.unwatch(Time::ZERO, key),
            }
        }
        let mail = directory.mail(Time::ZERO);
        prop_assert!(!directory.has_mail());
        let said: usize = mail.iter().map(|(_, message)| match message {
            Message::Put(puts) => puts.len(),
            Message::Withdraw(keys) | Message::Touch(keys) => keys.len(),
            Message::Missing(keys) | Message::Watch(keys) | Message::Unwatch(keys) => keys.len(),
            Message::Changed(states) | Message::Forward(states) => states.len(),
            Message::ForwardWatch(watches) => watches.len(),
            Message::Digest(_) | Message::Differs(_) | Message::Same(_) | Message::Stand(_) => 1,
        }).sum();
        // Two homes, six keys, of each at most: taken back, put, watched or not.
        prop_assert!(said <= 2 * 6 * 3, "{said}");
    }
}
