//! Mirrors of one store: announcements are lost, reads are late or fail, deletions are forgotten, the database is put back to an
//! earlier day. When all is well again every copy is equal to the store.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::store::ContentHead;

/// The store's content, as `store::content` keeps it.
#[derive(Debug, Clone, Default)]
struct Rows {
    rows: BTreeMap<(String, String), ContentRow>,
    last: u64,
    swept: u64,
}

impl Rows {
    fn write(&mut self, key: u8, value: Option<u8>) -> Option<u64> {
        let name = (format!("c{}", key % 3), format!("k{key}"));
        let stands = self.rows.get(&name).is_some_and(|row| row.value.is_some());
        if value.is_none() && !stands {
            return None;
        }
        self.last += 1;
        let row = ContentRow {
            collection: name.0.clone(),
            key: name.1.clone(),
            content_type: "application/json".into(),
            value: value.map(|value| Bytes::from(vec![value; 3])),
            version: self.last,
            updated_at_ms: 0,
        };
        self.rows.insert(name, row);
        Some(self.last)
    }

    fn sweep(&mut self) {
        let dead = |row: &ContentRow| row.value.is_none();
        let swept = self.rows.values().filter(|row| dead(row)).map(|row| row.version).max();
        self.swept = self.swept.max(swept.unwrap_or(0));
        self.rows.retain(|_, row| !dead(row));
    }

    fn page(&self, after: u64) -> ContentPage {
        let mut rows: Vec<_> = self.rows.values().filter(|row| row.version > after).cloned().collect();
        rows.sort_by_key(|row| row.version);
        rows.truncate(PAGE_LEN as usize);
        ContentPage {
            head: ContentHead {
                last: self.last,
                swept: self.swept,
                bytes: 0,
            },
            rows,
        }
    }

    /// A copy that was read in one go.
    fn whole(&self) -> Copy {
        let mut copy = Copy::default();
        for row in self.rows.values() {
            copy.apply(row.clone());
        }
        copy.version = self.last;
        copy
    }
}

/// One node: its mirror, and the reads that are under way.
#[derive(Default)]
struct Node {
    mirror: Mirror,
    answers: VecDeque<(u64, Option<ContentPage>)>,
    changed: Vec<(String, String)>,
}

impl Node {
    fn step(&mut self, now_ms: u64, input: Input, rows: &Rows, takes_ms: Option<u64>) {
        let before = self.mirror.copy().clone();
        let mut out = Vec::new();
        self.mirror.step(now_ms, input, &mut out);
        let mut noted = Vec::new();
        for effect in out {
            match effect {
                Effect::Read { after } => {
                    assert!(self.answers.is_empty(), "one read at a time");
                    // What the store says is of the moment of the question or later; the answer takes its time.
                    let page = takes_ms.map(|_| rows.page(after));
                    self.answers.push_back((now_ms + takes_ms.unwrap_or(50), page));
                }
                Effect::Changed { collection, key } => noted.push((collection, key)),
            }
        }
        let now = self.mirror.copy();
        for (collection, key) in &noted {
            assert_ne!(
                before.get(collection, key),
                now.get(collection, key),
                "a change was told that was none"
            );
        }
        if before.version() > 0 {
            let mut really = before.differences(now);
            really.sort();
            noted.sort();
            noted.dedup();
            assert_eq!(really, noted, "every change is told");
        }
        self.changed.extend(noted);
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Write {
        key: u8,
        value: Option<u8>,
        heard: [bool; 3],
    },
    Sweep,
    Pass {
        ms: u64,
    },
    /// The store answers this late from now on, or not at all.
    Slow {
        ms: u64,
    },
    Down,
    /// The database is put back to what it was at the last one of these.
    Keep,
    Restore,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let write = (
        0..90_u8,
        proptest::option::weighted(0.7, any::<u8>()),
        any::<[bool; 3]>(),
    );
    let deed = prop_oneof![
        12 => write.prop_map(|(key, value, heard)| Deed::Write { key, value, heard }),
        1 => Just(Deed::Sweep),
        6 => (1..3_000_u64).prop_map(|ms| Deed::Pass { ms }),
        1 => (1..800_u64).prop_map(|ms| Deed::Slow { ms }),
        1 => Just(Deed::Down),
        1 => Just(Deed::Keep),
    ];
    proptest::collection::vec(deed, 1..400)
}

struct World {
    now_ms: u64,
    rows: Rows,
    kept: Rows,
    takes_ms: Option<u64>,
    nodes: [Node; 3],
}

impl World {
    fn new() -> Self {
        Self {
            now_ms: 1_000,
            rows: Rows::default(),
            kept: Rows::default(),
            takes_ms: Some(5),
            nodes: Default::default(),
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        let mut wakes = 0;
        loop {
            let due = |node: &Node| {
                let answer = node.answers.front().map(|(at, _)| *at);
                answer
                    .or(node.mirror.next_wake_ms())
                    .expect("a mirror always waits for something")
            };
            let (no, at) = (0..3)
                .map(|no| (no, due(&self.nodes[no])))
                .min_by_key(|(_, at)| *at)
                .unwrap();
            if at > until {
                break;
            }
            wakes += 1;
            assert!(wakes < 10_000, "a mirror reads without end");
            self.now_ms = self.now_ms.max(at);
            let node = &mut self.nodes[no];
            let input = match node.answers.pop_front() {
                Some((_, Some(page))) => Input::Page(page),
                Some((_, None)) => Input::Failed,
                None => Input::Wake,
            };
            node.step(self.now_ms, input, &self.rows, self.takes_ms);
        }
        self.now_ms = until;
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Write { key, value, heard } => {
                // A store that is away takes no writes.
                if let Some(version) = self.takes_ms.and_then(|_| self.rows.write(key, value)) {
                    for (node, _) in self.nodes.iter_mut().zip(heard).filter(|(_, heard)| *heard) {
                        node.step(self.now_ms, Input::Heard { version }, &self.rows, self.takes_ms);
                    }
                }
            }
            Deed::Sweep => self.rows.sweep(),
            Deed::Pass { ms } => self.pass(ms),
            Deed::Slow { ms } => self.takes_ms = Some(ms),
            Deed::Down => self.takes_ms = None,
            Deed::Keep => self.kept = self.rows.clone(),
            Deed::Restore => self.rows = self.kept.clone(),
        }
    }

    fn heals(&mut self) {
        self.takes_ms = Some(5);
        self.pass(AGAIN_MS + COMPARE_EVERY_MS + 1_000);
        let whole = self.rows.whole();
        for node in &self.nodes {
            let copy = node.mirror.copy();
            assert_eq!(copy.collections, whole.collections);
            assert_eq!((copy.version, copy.size()), (whole.version, whole.size()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_copy_is_equal_within_ten_seconds_of_healing(deeds in deeds()) {
        let mut world = World::new();
        deeds.into_iter().for_each(|deed| world.perform(deed));
        world.heals();
    }
}

#[test]
fn a_database_that_was_put_back_is_read_again() {
    let mut world = World::new();
    for key in 0..80 {
        world.perform(Deed::Write {
            key,
            value: Some(1),
            heard: [true; 3],
        });
    }
    world.perform(Deed::Keep);
    for key in 0..40 {
        world.perform(Deed::Write {
            key,
            value: Some(2),
            heard: [false; 3],
        });
    }
    world.pass(20_000);
    world.perform(Deed::Restore);
    world.heals();
}

#[test]
fn a_node_that_slept_through_forgotten_deletions_reads_everything_again() {
    let mut world = World::new();
    for key in 0..80 {
        world.perform(Deed::Write {
            key,
            value: Some(1),
            heard: [true; 3],
        });
    }
    world.pass(10_000);
    world.nodes.iter_mut().for_each(|node| node.changed.clear());
    world.perform(Deed::Write {
        key: 7,
        value: None,
        heard: [false; 3],
    });
    world.perform(Deed::Sweep);
    world.perform(Deed::Write {
        key: 8,
        value: Some(3),
        heard: [false; 3],
    });
    world.heals();
    let told: Vec<_> = world.nodes[0].changed.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(told, ["k7", "k8"], "what changed is told, and nothing else");
}

#[test]
fn an_announcement_is_read_at_once_and_a_missed_one_within_the_comparison() {
    let mut world = World::new();
    world.pass(1_000);
    world.perform(Deed::Write {
        key: 1,
        value: Some(1),
        heard: [true, false, false],
    });
    world.pass(5);
    assert_eq!(world.nodes[0].mirror.copy().version(), 1);
    assert_eq!(world.nodes[1].mirror.copy().version(), 0);
    world.pass(COMPARE_EVERY_MS);
    assert_eq!(world.nodes[1].mirror.copy().version(), 1);
}

#[test]
fn a_scan_goes_by_prefix_and_on_after_a_key() {
    let mut rows = Rows::default();
    for key in 0..9 {
        rows.write(key, Some(key));
    }
    let copy = rows.whole();
    let keys = |prefix, after| copy.scan("c1", prefix, after).map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys("", None), ["k1", "k4", "k7"]);
    assert_eq!(keys("k", Some("k1")), ["k4", "k7"]);
    assert_eq!(keys("k4", Some("k1")), ["k4"]);
    assert_eq!(keys("x", None), [""; 0]);
    assert_eq!(
        copy.collections()
            .map(|(name, size)| (name, size.items))
            .collect::<Vec<_>>(),
        [("c0", 3), ("c1", 3), ("c2", 3)]
    );
}
