//! The lease alone, and then a small world: nodes that stand still, whose clocks run apart, a store that is away at times, and
//! third parties that take over what has no owner. At no moment do two of them speak for one match.

use super::*;

fn step(lease: &mut Lease, now_ms: u64, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    lease.step(now_ms, input, &mut out);
    out
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for() {
    let mut lease = Lease::new(1_000);
    assert_eq!(lease.until_ms(), 1_000 + LEASE_MS - MARGIN_MS);
    assert_eq!(lease.next_wake_ms(), Some(1_000 + RENEW_EVERY_MS));
    assert_eq!(step(&mut lease, 2_000, Input::Wake), []);
    assert_eq!(
        step(&mut lease, 3_500, Input::Wake),
        [Effect::Renew { asked_ms: 3_500 }]
    );
    assert_eq!(lease.next_wake_ms(), None);
    let until_ms = 3_500 + LEASE_MS - MARGIN_MS;
    assert_eq!(
        step(&mut lease, 6_000, Input::Renewed { asked_ms: 3_500 }),
        [Effect::Open { until_ms }]
    );
}

#[test]
fn an_answer_that_comes_after_the_lease_is_not_believed_before_the_rows_were_read() {
    let mut lease = Lease::new(0);
    step(&mut lease, 2_500, Input::Wake);
    let late_ms = LEASE_MS + 5_000;
    assert_eq!(
        step(&mut lease, late_ms, Input::Renewed { asked_ms: 2_500 }),
        [Effect::Check { asked_ms: 2_500 }]
    );
    // Even checked, that renewal is over by now: the next one is asked for at once.
    assert_eq!(step(&mut lease, late_ms, Input::Checked { asked_ms: 2_500 }), []);
    assert_eq!(
        step(&mut lease, late_ms, Input::Wake),
        [Effect::Renew { asked_ms: late_ms }]
    );
    assert_eq!(
        step(&mut lease, late_ms, Input::Renewed { asked_ms: late_ms }),
        [Effect::Check { asked_ms: late_ms }]
    );
    let until_ms = late_ms + LEASE_MS - MARGIN_MS;
    assert_eq!(
        step(&mut lease, late_ms, Input::Checked { asked_ms: late_ms }),
        [Effect::Open { until_ms }, Effect::Lift]
    );
}

#[test]
fn a_store_that_does_not_answer_is_asked_again_soon() {
    let mut lease = Lease::new(0);
    step(&mut lease, 2_500, Input::Wake);
    assert_eq!(step(&mut lease, 2_600, Input::Failed), []);
    assert!(lease.next_wake_ms().is_some_and(|wake_ms| wake_ms <= 3_100));
}
