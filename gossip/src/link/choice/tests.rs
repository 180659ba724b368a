//! Two ends, any number of connections between them, and a network that delays, reorders connections against each other, and breaks.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Dial,
    Welcome,
    Message(u64),
    Close,
}

#[derive(Debug)]
struct Connection {
    /// What is on its way to each end. One connection keeps its order; nothing else does.
    pipes: [VecDeque<Item>; 2],
    /// The number under which each end uses it.
    used_as: [Option<u64>; 2],
    closed: [bool; 2],
}

#[derive(Debug)]
struct End {
    choice: Choice,
    using: Option<usize>,
    dialling: Option<usize>,
    sent: u64,
    got: Vec<u64>,
}

#[derive(Debug)]
struct World {
    now: Time,
    ends: [End; 2],
    connections: Vec<Connection>,
}

impl World {
    fn new() -> Self {
        let end = |has_last_word| End {
            choice: Choice::new(has_last_word),
            using: None,
            dialling: None,
            sent: 0,
            got: Vec::new(),
        };
        Self {
            now: Duration::ZERO,
            ends: [end(true), end(false)],
            connections: Vec::new(),
        }
    }

    fn dial(&mut self, end: usize) {
        if self.ends[end].dialling.is_some() || !self.ends[end].choice.begin_attempt() {
            return;
        }
        let mut connection = Connection {
            pipes: Default::default(),
            used_as: [None; 2],
            closed: [false; 2],
        };
        connection.pipes[1 - end].push_back(Item::Dial);
        self.connections.push(connection);
        self.ends[end].dialling = Some(self.connections.len() - 1);
    }

    fn send(&mut self, end: usize) {
        if let Some(index) = self.ends[end].using {
            self.ends[end].sent += 1;
            let message = Item::Message(self.ends[end].sent);
            self.connections[index].pipes[1 - end].push_back(message);
        }
    }

    /// One end closes, or finds that the network has broken the connection.
    fn close(&mut self, end: usize, index: usize) {
        let connection = &mut self.connections[index];
        if std::mem::replace(&mut connection.closed[end], true) {
            return;
        }
        connection.pipes[1 - end].push_back(Item::Close);
        if self.ends[end].dialling == Some(index) {
            self.ends[end].dialling = None;
            self.ends[end].choice.attempt_failed();
        }
        if self.ends[end].using == Some(index) {
            let number = self.connections[index].used_as[end].unwrap();
            assert!(self.ends[end].choice.lost(number));
            self.ends[end].using = None;
        }
    }

    /// The network loses the newest of what is on its way and breaks the connection at both ends.
    fn cut(&mut self, index: usize, lost: usize) {
        for end in 0..2 {
            let pipe = &mut self.connections[index].pipes[end];
            let left = pipe.len().saturating_sub(lost);
            pipe.truncate(left);
            pipe.push_back(Item::Close);
        }
    }

    fn take(&mut self, end: usize, index: usize, begun: Begun) {
        let before = self.ends[end].using;
        let number = self.ends[end].choice.take(self.now, begun);
        self.connections[index].used_as[end] = Some(number);
        self.ends[end].using = Some(index);
        if let Some(before) = before {
            self.close(end, before);
        }
    }

    fn arrive(&mut self, end: usize, index: usize) {
        let Some(item) = self.connections[index].pipes[end].pop_front() else {
            return;
        };
        match item {
            Item::Close => self.close(end, index),
            _ if self.connections[index].closed[end] && !matches!(item, Item::Message(_)) => {}
            Item::Dial => {
                if self.ends[end].choice.admits(self.now, Begun::ByThem) {
                    self.take(end, index, Begun::ByThem);
                    self.connections[index].pipes[1 - end].push_back(Item::Welcome);
                } else {
                    self.close(end, index);
                }
            }
            Item::Welcome => {
                if self.ends[end].dialling == Some(index) && self.ends[end].choice.admits(self.now, Begun::ByUs) {
                    self.ends[end].dialling = None;
                    self.take(end, index, Begun::ByUs);
                } else {
                    self.close(end, index);
                }
            }
            // Even what is closed may still be read from, for as long as nothing newer is used.
            Item::Message(number) => {
                let used_as = self.connections[index].used_as[end];
                if used_as == Some(self.ends[end].choice.number()) {
                    self.ends[end].got.push(number);
                }
            }
        }
    }

    fn settle(&mut self) {
        while self
            .connections
            .iter()
            .any(|connection| connection.pipes.iter().any(|pipe| !pipe.is_empty()))
        {
            for index in 0..self.connections.len() {
                for end in 0..2 {
                    self.arrive(end, index);
                }
            }
        }
    }

    fn check(&self) {
        for end in &self.ends {
            assert!(
                end.got.is_sorted_by(|a, b| a < b),
                "out of order or doubled: {:?}",
                end.got
            );
        }
    }
}

#[test]
fn a_dial_that_was_welcomed_before_the_other_end_began_a_newer_connection_is_thrown_away() {
    let mut world = World::new();
    world.dial(1);
    world.arrive(0, 0);
    world.send(0);
    // The first end has welcomed the dial and written to it, and then loses it before the second end has heard of that.
    world.cut(0, 0);
    world.arrive(0, 0);
    world.dial(0);
    world.arrive(1, 1);
    world.arrive(0, 1);
    world.send(0);
    world.arrive(1, 1);
    assert_eq!(world.ends[1].got, [2]);
    world.settle();
    world.check();
    assert_eq!(world.ends[1].using, Some(1));
}

#[derive(Debug, Clone)]
enum Happening {
    Dial(usize),
    /// A dial takes too long.
    GiveUp(usize),
    Send(usize),
    Arrive {
        end: usize,
        connection: usize,
    },
    Cut {
        connection: usize,
        lost: usize,
    },
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    // Few and recent connections, so that things meet.
    prop_oneof![
        3 => (0..2usize).prop_map(Happening::Dial),
        1 => (0..2usize).prop_map(Happening::GiveUp),
        4 => (0..2usize).prop_map(Happening::Send),
        8 => (0..2usize, 0..4usize).prop_map(|(end, connection)| Happening::Arrive { end, connection }),
        1 => (0..4usize, 0..4usize).prop_map(|(connection, lost)| Happening::Cut { connection, lost }),
        1 => (0..1_500u64).prop_map(Happening::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn messages_keep_their_order_over_any_history_of_connections(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut world = World::new();
        for happening in happenings {
            let recent = |connection: usize, world: &World| world.connections.len().checked_sub(connection + 1);
            match happening {
                Happening::Dial(end) => world.dial(end),
                Happening::GiveUp(end) => {
                    if let Some(index) = world.ends[end].dialling {
                        world.close(end, index);
                    }
                }
                Happening::Send(end) => world.send(end),
                Happening::Arrive { end, connection } => {
                    if let Some(index) = recent(connection, &world) {
                        world.arrive(end, index);
                    }
                }
                Happening::Cut { connection, lost } => {
                    if let Some(index) = recent(connection, &world) {
                        world.cut(index, lost);
                    }
                }
                Happening::Pass(ms) => {
                    world.now += Duration::from_millis(ms);
                    // A dial is over after two seconds; here each pass of time is shorter and ends those that are under way.
                    for end in 0..2 {
                        if let Some(index) = world.ends[end].dialling {
                            world.close(end, index);
                        }
                    }
                }
            }
            world.check();
        }
        // When the network has healed, a few dials lead to one connection that both use.
        for _ in 0..4 {
            world.settle();
            world.now += SETTLED_AFTER;
            for end in 0..2 {
                world.dial(end);
            }
        }
        world.settle();
        world.check();
        prop_assert!(world.ends[0].using.is_some());
        prop_assert_eq!(world.ends[0].using, world.ends[1].using);
        for end in 0..2 {
            world.send(end);
        }
        world.settle();
        world.check();
        for end in 0..2 {
            let last = world.ends[1 - end].got.last().copied();
            prop_assert_eq!(last, Some(world.ends[end].sent));
        }
    }
}
