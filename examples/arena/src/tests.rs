//! The arena played on the mock host, read back through the bytes that clients get.

use rookery_sdk::mock::Host;
use rookery_sdk::prelude::*;

use super::{Arena, Input, MOVERS_MIN};

/// A mover as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    seat: Seat,
    x: u16,
    y: u16,
    hue: u8,
    is_bot: bool,
    is_dashing: bool,
    score: u16,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_first_chunk::<N>().expect("the world is cut short");
        self.0 = tail;
        *head
    }

    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

/// Reads the published world as README.md describes it: movers and pellets.
fn world(host: &Host<Arena>) -> (Vec<Seen>, Vec<(u16, u16)>) {
    let mut bytes = Reader(host.published("w").expect("the world is published"));
    assert_eq!((bytes.u8(), bytes.u16(), bytes.u16()), (1, 1_000, 600));
    let movers = (0..bytes.u8())
        .map(|_| {
            let (seat, x, y, hue, flags) = (Seat(bytes.u32()), bytes.u16(), bytes.u16(), bytes.u8(), bytes.u8());
            let score = bytes.u16();
            Seen {
                seat,
                x,
                y,
                hue,
                is_bot: flags & 1 != 0,
                is_dashing: flags & 2 != 0,
                score,
            }
        })
        .collect();
    let pellets = (0..bytes.u8()).map(|_| (bytes.u16(), bytes.u16())).collect();
    assert!(bytes.0.is_empty(), "{} bytes too many", bytes.0.len());
    (movers, pellets)
}

fn mover(host: &Host<Arena>, seat: Seat) -> Seen {
    world(host)
        .0
        .into_iter()
        .find(|mover| mover.seat == seat)
        .expect("the mover is in the world")
}

fn arena() -> Host<Arena> {
    Host::start(Vec::new()).unwrap()
}

#[test]
fn steering_moves_the_own_mover_and_nobody_leaves_the_arena() {
    let mut host = arena();
    let ana = host.join("ana").unwrap();
    let before = mover(&host, ana);
    host.message(ana, [1, 127, 0]);
    host.tick();
    let after = mover(&host, ana);
    // 220 units a second for 50 ms, unless a wall or another mover is in the way.
    assert!(after.x > before.x && after.x - before.x <= 22, "{before:?} {after:?}");
    for direction in [[1, 127, 127], [1, 129, 129]] {
        host.message(ana, direction);
        host.advance(10_000);
        let at = mover(&host, ana);
        assert!((16..=984).contains(&at.x) && (16..=584).contains(&at.y), "{at:?}");
    }
}

#[test]
fn a_longer_direction_is_not_faster() {
    let (mut straight, mut diagonal) = (arena(), arena());
    let way = |host: &mut Host<Arena>, input: [u8; 3]| {
        let ana = host.join("ana").unwrap();
        let from = mover(host, ana);
        host.message(ana, input);
        host.tick();
        let to = mover(host, ana);
        f64::from(to.x.abs_diff(from.x)).hypot(f64::from(to.y.abs_diff(from.y)))
    };
    let difference = way(&mut straight, [1, 127, 0]) - way(&mut diagonal, [1, 127, 127]);
    assert!(difference.abs() < 2.0, "{difference}");
}

#[test]
fn a_dash_is_seen_ends_and_needs_a_rest() {
    let mut host = arena();
    let ana = host.join("ana").unwrap();
    let dashing = |host: &mut Host<Arena>| {
        host.message(ana, [2]);
        host.tick();
        mover(host, ana).is_dashing
    };
    assert!(dashing(&mut host));
    host.advance(300);
    assert!(!mover(&host, ana).is_dashing);
    assert!(!dashing(&mut host), "too early");
    host.advance(1_400);
    assert!(dashing(&mut host));
}

#[test]
fn bots_keep_a_lonely_player_company_and_make_room() {
    let mut host = arena();
    let bots = |host: &Host<Arena>| world(host).0.iter().filter(|mover| mover.is_bot).count();
    assert_eq!(bots(&host), MOVERS_MIN);
    let players: Vec<Seat> = (0..6)
        .map(|index| host.join(&format!("player {index}")).unwrap())
        .collect();
    assert_eq!((bots(&host), world(&host).0.len()), (0, 6));
    assert_eq!(host.seats().len(), 6, "bots that make room give their seats back");
    for seat in players {
        host.leave(seat, LeaveReason::Left);
    }
    assert_eq!(bots(&host), MOVERS_MIN);
    assert_eq!(host.seats().len(), MOVERS_MIN);
}

#[test]
fn a_spectator_is_not_in_the_world() {
    let mut host = arena();
    let ana = host.watch("ana").unwrap();
    assert!(world(&host).0.iter().all(|mover| mover.seat != ana));
    host.leave(ana, LeaveReason::Left);
    assert_eq!(world(&host).0.len(), MOVERS_MIN);
}

#[test]
fn bots_score_and_everyone_hears_of_it() {
    let mut host = arena();
    let ana = host.watch("ana").unwrap();
    host.advance(30_000);
    let (movers, pellets) = world(&host);
    let scores: u32 = movers.iter().map(|mover| u32::from(mover.score)).sum();
    let told = host.heard(ana).iter().filter(|event| event[0] == 1).count();
    assert!(scores > 10, "{movers:?}");
    assert_eq!(told, scores as usize);
    assert_eq!(pellets.len(), 12, "a pellet that is taken is laid elsewhere");
}

#[test]
fn two_that_stay_close_bump_at_most_twice_a_second() {
    let mut host = arena();
    let seats: Vec<Seat> = (0..8)
        .map(|index| host.join(&format!("player {index}")).unwrap())
        .collect();
    for seat in &seats {
        host.message(*seat, [1, 129, 129]);
    }
    host.advance(6_000);
    host.take_outputs();
    host.advance(2_000);
    let mut bumps = std::collections::BTreeMap::new();
    for event in host.heard(seats[0]).into_iter().filter(|event| event[0] == 2) {
        *bumps.entry(event.into_bytes()).or_insert(0) += 1;
    }
    assert!(!bumps.is_empty(), "all in one corner, and nobody bumped");
    assert!(bumps.values().all(|count| *count <= 4), "{bumps:?}");
}

#[test]
fn nothing_is_published_when_nothing_changed() {
    let mut host = arena();
    let seats: Vec<Seat> = (0..MOVERS_MIN)
        .map(|index| host.join(&format!("player {index}")).unwrap())
        .collect();
    host.advance(1_000);
    let before = host.publishes();
    host.advance(5_000);
    assert_eq!(host.publishes(), before, "all stand still");
    host.message(seats[0], [3, 200]);
    host.tick();
    assert_eq!(host.publishes(), before + 1);
    assert_eq!(mover(&host, seats[0]).hue, 200);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_world() {
    let play = |seed: u64| {
        let mut host = Host::<Arena>::builder().seed(seed).start().unwrap();
        let ana = host.join("ana").unwrap();
        for turn in 0..200u8 {
            host.message(ana, [1, turn, turn.wrapping_mul(7)]);
            host.tick();
        }
        host.published("w").cloned()
    };
    assert_eq!(play(7), play(7));
    assert_ne!(play(7), play(8));
}

#[test]
fn bytes_that_mean_nothing_change_nothing() {
    let mut host = arena();
    let ana = host.join("ana").unwrap();
    for bytes in [
        vec![],
        vec![0],
        vec![1],
        vec![1, 2],
        vec![1, 2, 3, 4],
        vec![2, 0],
        vec![3],
        vec![9; 60_000],
    ] {
        assert_eq!(Input::decode(&bytes), None);
        let before = mover(&host, ana);
        host.message(ana, bytes);
        assert_eq!(mover(&host, ana), before);
    }
}
