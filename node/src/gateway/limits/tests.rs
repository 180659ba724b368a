#![allow(clippy::disallowed_methods)] // A test needs a first instant from somewhere.

use proptest::prelude::*;

use super::*;

fn limits(per_second: u32, burst: u32) -> Limits {
    Limits::new(
        Rate { per_second, burst },
        Rate {
            per_second: 1,
            burst: 1,
        },
        Rate {
            per_second: 1,
            burst: 1,
        },
    )
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let start = Instant::now();
    let mut limits = limits(10, 5);
    let admitted = (0..20).filter(|_| limits.admit(Class::Inputs, start).is_ok()).count();
    assert_eq!(admitted, 5);
    assert!(limits.admit(Class::Inputs, after(start, 99)).is_err());
    assert!(limits.admit(Class::Inputs, after(start, 100)).is_ok());
    assert!(limits.admit(Class::Inputs, after(start, 100)).is_err());
    // After a long pause the whole burst is there again, and no more.
    let admitted = (0..20)
        .filter(|_| limits.admit(Class::Inputs, after(start, 60_000)).is_ok())
        .count();
    assert_eq!(admitted, 5);
}

#[test]
fn classes_do_not_use_each_other_up() {
    let start = Instant::now();
    let mut limits = limits(1, 1);
    assert!(limits.admit(Class::Inputs, start).is_ok());
    assert!(limits.admit(Class::Inputs, start).is_err());
    assert!(limits.admit(Class::Control, start).is_ok());
    assert!(limits.admit(Class::Control, start).is_err());
}

#[test]
fn refusals_are_noticed_once_a_second() {
    let start = Instant::now();
    let mut limits = limits(1, 1);
    limits.admit(Class::Inputs, start).unwrap();
    let mut notice = |ms| limits.admit(Class::Inputs, after(start, ms)).unwrap_err().notice;
    assert!(notice(1));
    assert!(!notice(2));
    assert!(!notice(900));
    limits.admit(Class::Inputs, after(start, 1000)).unwrap();
    let mut notice = |ms| limits.admit(Class::Inputs, after(start, ms)).unwrap_err().notice;
    assert!(!notice(1000));
    assert!(notice(1001));
}

#[test]
fn the_twentieth_bad_frame_in_a_minute_is_one_too_many() {
    let start = Instant::now();
    let mut limits = limits(1, 1);
    for place in 0..19 {
        assert!(limits.bad_frame(after(start, place * 1000)), "{place}");
    }
    assert!(!limits.bad_frame(after(start, 59_999)));
    // The same number, but spread over more than a minute.
    let mut limits = self::limits(1, 1);
    for place in 0..200 {
        assert!(limits.bad_frame(after(start, place * 3_160)), "{place}");
    }
}

proptest! {
    /// In no stretch of time does more get through than the burst and what the rate adds; and who waits as told is admitted.
    #[test]
    fn no_stretch_admits_more_than_it_may(
        per_second in 1..500_u32,
        burst in 1..100_u32,
        steps in proptest::collection::vec(0..2_000_u64, 1..200),
    ) {
        let start = Instant::now();
        let mut limits = limits(per_second, burst);
        let mut now_ms = 0;
        let mut admitted_ms: Vec<u64> = Vec::new();
        for step in steps {
            now_ms += step;
            match limits.admit(Class::Inputs, after(start, now_ms)) {
                Ok(()) => admitted_ms.push(now_ms),
                Err(refused) => {
                    prop_assert!(refused.retry_ms >= 1);
                    now_ms += refused.retry_ms;
                    prop_assert!(limits.admit(Class::Inputs, after(start, now_ms)).is_ok());
                    admitted_ms.push(now_ms);
                }
            }
        }
        for (place, from) in admitted_ms.iter().enumerate() {
            for (count, to) in admitted_ms[place..].iter().enumerate() {
                let allowed = u64::from(burst) + ((to - from) * u64::from(per_second)).div_ceil(1000) + 1;
                prop_assert!((count as u64) < allowed);
            }
        }
    }
}
