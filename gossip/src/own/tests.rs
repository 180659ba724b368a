//! What this node states: the checks of keys, values and names, the budgets, and that nothing that passes can break gossip.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: Time = Time::ZERO;

fn own(keys_soft: usize, keys_hard: usize) -> Own {
    let limits = Limits {
        keys_soft,
        keys_hard,
        groups_max: 50,
        ..Limits::default()
    };
    Own::new("host:1".into(), limits)
}

#[test]
fn facts_are_checked() {
    let mut own = own(10, 10);
    let longest = "k".repeat(126);
    assert_eq!(own.set_fact(NOW, &longest, &"v".repeat(1_000)), Ok(()));
    assert!(own.keys().keys().all(|key| key.len() <= KEY_LEN_MAX));
    let too_long = "k".repeat(127);
    for key in ["", "ä", "a b", "a\n", "\0", "a\u{7f}", "\u{feff}a", too_long.as_str()] {
        assert_eq!(own.set_fact(NOW, key, "v"), Err(FactError::Key { max: 126 }), "{key:?}");
    }
    assert_eq!(
        own.set_fact(NOW, "k", &"v".repeat(1_001)),
        Err(FactError::Value { len: 1_001, max: 1_000 })
    );
    own.remove_fact(NOW, &longest);
    assert!(own.facts().is_empty());
}

#[test]
fn facts_and_groups_share_the_budget_and_a_group_beyond_it_goes_to_the_directory() {
    let mut own = own(3, 4);
    own.set_fact(NOW, "a", "1").unwrap();
    for name in ["one", "two", "three"] {
        own.join(NOW, name).unwrap();
    }
    assert_eq!((own.key_count(), own.group_counts()), (3, (2, 1, 0)));
    own.set_fact(NOW, "b", "1").unwrap();
    assert_eq!(own.set_fact(NOW, "c", "1"), Err(FactError::Budget { max: 4 }));
    own.set_fact(NOW, "a", "2").unwrap();
    own.join(NOW, "two").unwrap();
    assert_eq!(
        (own.key_count(), own.members_of("two"), own.members_of("three")),
        (4, 2, 1)
    );
    assert!(own.keys().contains_key(SPILL_KEY));
}

#[test]
fn more_groups_than_the_limit_are_refused_and_counted() {
    let mut own = own(1, 1);
    (0..50).for_each(|index| own.join(NOW, &format!("g{index}")).unwrap());
    assert_eq!(own.join(NOW, "one more"), Err(GroupError::TooMany { max: 50 }));
    own.join(NOW, "g7").unwrap();
    assert_eq!(own.group_counts(), (1, 49, 1));
}

#[test]
fn facts_that_come_and_go_under_new_names_are_refused_before_their_deleted_keys_pile_up() {
    let mut own = own(10, 10);
    for index in 0..10 {
        own.set_fact(NOW, &index.to_string(), "v").unwrap();
        own.remove_fact(NOW, &index.to_string());
    }
    assert_eq!(own.set_fact(NOW, "new", "v"), Err(FactError::Budget { max: 10 }));
    own.set_fact(NOW, "3", "again").unwrap();
    own.set_fact(TOMBSTONE_FOR, "new", "v").unwrap();
}

#[test]
fn only_what_changes_something_in_gossip_is_a_change() {
    let mut own = own(1, 10);
    assert!(own.take_changed());
    own.set_fact(NOW, "a", "1").unwrap();
    assert!(own.take_changed());
    own.set_fact(NOW, "a", "1").unwrap();
    own.set_state(MemberState::Joining);
    own.remove_fact(NOW, "never set");
    assert!(!own.take_changed());
    own.join(NOW, "first").unwrap();
    assert!(own.take_changed(), "there is a group in the directory now");
    own.join(NOW, "second").unwrap();
    own.leave(NOW, "second");
    assert!(!own.take_changed() && own.has_unsaid());
}

#[test]
fn group_names_may_be_any_text_that_is_short_enough() {
    let mut own = own(10, 10);
    own.join(NOW, "room:räuber/höhle").unwrap();
    assert!(own.keys().keys().all(|key| key.is_ascii()));
    assert_eq!(own.join(NOW, ""), Err(GroupError::Name { max: 126 }));
    assert_eq!(own.join(NOW, &"ä".repeat(22)), Err(GroupError::Name { max: 126 }));
}

#[derive(Debug, Clone)]
enum Say {
    Fact(String, String),
    TakeBack(String),
    Join(String),
    Leave(String),
    Later(u64),
}

fn any_say() -> impl Strategy<Value = Say> {
    // Any text, the empty one and control characters among it, short names that come again, and some that are too long.
    let text = prop_oneof![4 => any::<String>(), 4 => "[a-d]{1,2}", 1 => "[ä\0-~]{100,140}"];
    let value = prop_oneof![any::<String>(), "[v]{990,1010}"];
    prop_oneof![
        (text.clone(), value).prop_map(|(key, value)| Say::Fact(key, value)),
        text.clone().prop_map(Say::TakeBack),
        text.clone().prop_map(Say::Join),
        text.prop_map(Say::Leave),
        (0u64..100).prop_map(Say::Later),
    ]
}

proptest! {
    /// Nothing that this node can be made to say breaks gossip: every key begins with a letter of ours and is printable ASCII, keys
    /// and values are short, and there are no more than the budgets allow.
    #[test]
    fn nothing_that_is_stated_can_break_gossip(says in prop::collection::vec(any_say(), 1..120)) {
        let mut own = own(8, 16);
        let mut now = NOW;
        for say in says {
            match say {
                Say::Fact(key, value) => drop(own.set_fact(now, &key, &value)),
                Say::TakeBack(key) => own.remove_fact(now, &key),
                Say::Join(name) => drop(own.join(now, &name)),
                Say::Leave(name) => own.leave(now, &name),
                Say::Later(seconds) => now += Duration::from_secs(seconds),
            }
            own.sweep(now);
            let keys = own.keys();
            for (key, value) in &keys {
                prop_assert!(key.as_bytes()[0].is_ascii_lowercase(), "{key:?}");
                prop_assert!(key.bytes().all(|byte| byte.is_ascii_graphic()) && key.len() <= KEY_LEN_MAX, "{key:?}");
                prop_assert!(value.len() <= VALUE_LEN_MAX, "{} bytes", value.len());
            }
            // Beside the budget stand the state, the address, the version and the hint.
            prop_assert!(keys.len() <= 16 + 4);
            prop_assert!(own.group_counts().0 <= 8);
        }
    }
}
