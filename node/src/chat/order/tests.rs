use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn line(number: u64) -> ChatLine {
    ChatLine {
        message: number,
        from: Arc::from("someone"),
        text: Arc::from(format!("line {number}")),
        at: number,
    }
}

fn numbers(lines: &[ChatLine]) -> Vec<u64> {
    lines.iter().map(|line| line.message).collect()
}

fn opened(last: u64) -> Order {
    let mut order = Order::default();
    order.open(0, last, &mut Vec::new());
    order
}

#[test]
fn lines_that_come_while_the_channel_is_opened_are_not_lost() {
    let (mut order, mut out) = (Order::default(), Vec::new());
    for number in [5, 7, 6, 9] {
        order.hear(0, line(number), &mut out);
    }
    assert_eq!(out, []);
    assert_eq!(order.hole(1_000), None, "nobody knows yet where the channel stands");
    order.open(1_000, 5, &mut out);
    assert_eq!(numbers(&out), [6, 7]);
    assert_eq!(order.next_wake(), Some(1_000 + HOLE_MS));
}

#[test]
fn an_early_line_waits_a_moment_and_then_the_hole_is_read() {
    let (mut order, mut out) = (opened(6), Vec::new());
    order.hear(50, line(8), &mut out);
    assert_eq!((out.len(), order.next_wake()), (0, Some(150)));
    assert_eq!(order.hole(149), None);
    let hole = Hole { after: 6, through: 7 };
    assert_eq!(order.hole(150), Some(hole));
    assert_eq!(order.hole(151), None, "it is being read");
    order.unread(160);
    assert_eq!(order.hole(160 + AGAIN_MS), Some(hole));
    order.read(700, hole, vec![line(7)], &mut out);
    assert_eq!((numbers(&out), order.next_wake()), (vec![7, 8], None));
}

#[test]
fn a_line_that_comes_after_all_closes_its_hole() {
    let (mut order, mut out) = (opened(6), Vec::new());
    order.hear(0, line(8), &mut out);
    order.hear(10, line(7), &mut out);
    order.hear(20, line(7), &mut out);
    assert_eq!((numbers(&out), order.next_wake()), (vec![7, 8], None));
}

#[test]
fn swept_lines_are_passed_over() {
    let (mut order, mut out) = (opened(2), Vec::new());
    order.exists(0, 9);
    let hole = Hole { after: 2, through: 9 };
    assert_eq!(order.hole(HOLE_MS), Some(hole));
    order.read(HOLE_MS, hole, vec![line(8), line(9)], &mut out);
    assert_eq!((numbers(&out), order.delivered()), (vec![8, 9], Some(9)));
    assert!(
        order.recent_after(2).is_none(),
        "what was swept is not among the recent ones"
    );
    assert_eq!(order.recent_after(7).unwrap().count(), 2);
}

#[test]
fn a_joiner_is_served_from_the_recent_lines_or_told_to_look() {
    let (mut order, mut out) = (opened(10), Vec::new());
    assert_eq!(order.recent_after(10).unwrap().count(), 0);
    assert!(order.recent_after(9).is_none());
    for number in 11..=300 {
        order.hear(0, line(number), &mut out);
    }
    let kept = order.recent_after(290).unwrap().map(|line| line.message);
    assert!(kept.eq(291..=300));
    assert!(order.recent_after(100).is_none());
}

#[test]
fn a_read_for_an_earlier_opening_skips_no_line_of_a_later_one() {
    let (mut order, mut out) = (opened(289), Vec::new());
    let hole = Hole {
        after: 290,
        through: 300,
    };
    order.read(0, hole, (291..=300).map(line).collect(), &mut out);
    assert_eq!((out.len(), order.delivered()), (0, Some(289)));
}

#[test]
fn a_conversation_is_opened_by_one_until_it_is_open() {
    let mut order = Order::default();
    assert!(order.begin_opening());
    assert!(!order.begin_opening(), "somebody is at it");
    assert!(!opened(0).begin_opening());
}

/// What the store says to one who has the lines up to `since`.
fn view(since: u64, last: u64) -> ChannelView {
    ChannelView {
        last,
        lines: (since + 1..=last).map(line).collect(),
        at_ms: 0,
    }
}

fn entered(order: &Order, since: Option<u64>, last: u64) -> Option<(Vec<u64>, u64)> {
    let entry = order.enter(since, view(since.unwrap_or(last), last))?;
    Some((numbers(&entry.missed), entry.last))
}

#[test]
fn who_comes_back_hears_nothing_again_that_is_still_on_its_way_to_this_node() {
    let (mut order, mut out) = (opened(306), Vec::new());
    let heard_elsewhere = entered(&order, Some(307), 307);
    assert_eq!(heard_elsewhere, Some((vec![], 307)));
    assert_eq!(entered(&order, Some(304), 308), Some((vec![305, 306, 307, 308], 308)));
    assert_eq!(
        entered(&order, None, 308),
        Some((vec![], 306)),
        "it hears the rest live"
    );
    for number in [307, 308, 309, 310] {
        order.hear(0, line(number), &mut out);
    }
    let behind = entered(&order, Some(306), 308);
    assert_eq!(behind, Some((vec![307, 308, 309, 310], 310)));
    assert_eq!(entered(&order, Some(309), 308), Some((vec![310], 310)));
    assert_eq!(entered(&order, Some(999), 310), Some((vec![], 310)), "no such line");
}

#[test]
fn who_comes_in_reads_again_when_more_was_said_meanwhile_than_is_kept() {
    let (mut order, mut out) = (opened(10), Vec::new());
    for number in 11..=11 + RECENT_MAX as u64 {
        order.hear(0, line(number), &mut out);
    }
    assert_eq!(entered(&order, Some(5), 10), None);
    let last = 11 + RECENT_MAX as u64;
    assert_eq!(entered(&order, Some(5), 11), Some(((6..=last).collect(), last)));
    assert_eq!(order.kept_after(last - 2).count(), 2);
}

/// What happens to a line on its way to a node.
#[derive(Debug, Clone)]
enum Way {
    Arrives { delay_ms: u64 },
    Twice { delay_ms: u64 },
    Lost,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => (0..300_u64).prop_map(|delay_ms| Way::Arrives { delay_ms }),
        1 => (0..300_u64).prop_map(|delay_ms| Way::Twice { delay_ms }),
        2 => Just(Way::Lost),
    ]
}

proptest! {
    /// Lines are delayed, doubled and lost; reads of the store fail, are short and come late; the store is compared now and then.
    /// Somebody comes in from another node meanwhile, who may have heard more than this one.
    #[test]
    fn every_line_is_delivered_once_and_in_order(
        ways in prop::collection::vec(way(), 1..120),
        opened_after in 0..40_usize,
        page in 1..20_u64,
        failing in prop::collection::btree_set(0..50_usize, 0..10),
        read_ms in 0..80_u64,
        asked_ms in 0..1_500_u64,
        view_ms in 0..80_u64,
        behind in prop::option::of(0..50_u64),
    ) {
        let total = ways.len() as u64;
        let written_ms = |number: u64| number * 7;
        let mut arrivals: Vec<(u64, u64)> = Vec::new();
        for (way, number) in ways.iter().zip(1..) {
            match way {
                Way::Arrives { delay_ms } => arrivals.push((written_ms(number) + delay_ms, number)),
                Way::Twice { delay_ms } => {
                    arrivals.push((written_ms(number) + delay_ms, number));
                    arrivals.push((written_ms(number) + delay_ms + 40, number));
                }
                Way::Lost => {}
            }
        }
        arrivals.sort_unstable();
        let mut arrivals = arrivals.into_iter().peekable();
        let open_ms = written_ms(opened_after as u64) + 3;
        let last_at_open = (opened_after as u64).min(total);
        let (mut order, mut heard) = (Order::default(), Vec::new());
        let (mut reads, mut reading) = (0, None::<(u64, Hole)>);
        let written = |now_ms| (1..=total).filter(|number| written_ms(*number) <= now_ms).count() as u64;
        let asked_ms = asked_ms.max(open_ms);
        let since = behind.map(|behind| written(asked_ms).saturating_sub(behind));
        let (mut viewed, mut entry) = (None, None::<(Entry, usize)>);
        for now_ms in 0..30_000 {
            if now_ms == open_ms {
                order.open(now_ms, last_at_open, &mut heard);
            }
            while let Some((_, number)) = arrivals.next_if(|(at, _)| *at <= now_ms) {
                order.hear(now_ms, line(number), &mut heard);
            }
            if now_ms % 5_000 == 4_999 {
                order.exists(now_ms, written(now_ms));
            }
            if let Some((_, hole)) = reading.take_if(|(at, _)| *at <= now_ms) {
                reads += 1;
                if failing.contains(&reads) {
                    order.unread(now_ms);
                } else {
                    let through = hole.through.min(hole.after + page);
                    let lines = (hole.after + 1..=through).map(line).collect();
                    order.read(now_ms, Hole { through, ..hole }, lines, &mut heard);
                }
            }
            if let Some(hole) = order.hole(now_ms) {
                prop_assert!(reading.is_none());
                prop_assert!(hole.after < hole.through && hole.through <= total);
                reading = Some((now_ms + read_ms, hole));
            }
            if now_ms >= asked_ms && entry.is_none() {
                let last = written(now_ms);
                let (at_ms, seen) = viewed.get_or_insert_with(|| (now_ms, view(since.unwrap_or(last), last)));
                if now_ms == *at_ms + view_ms {
                    entry = order.enter(since, seen.clone()).map(|entry| (entry, heard.len()));
                    viewed = None;
                }
            }
        }
        let (entry, heard_before) = entry.expect("it came in");
        let live = heard[heard_before..].iter().filter(|line| line.message > entry.last);
        let story: Vec<u64> = entry.missed.iter().chain(live).map(|line| line.message).collect();
        prop_assert_eq!(story, (since.unwrap_or(entry.last) + 1..=total).collect::<Vec<_>>());
        prop_assert_eq!(numbers(&heard), (last_at_open + 1..=total).collect::<Vec<_>>());
        prop_assert_eq!(heard.iter().map(|line| line.message).collect::<BTreeSet<_>>().len(), heard.len());
        prop_assert_eq!(order.next_wake(), None);
    }
}
