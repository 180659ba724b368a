//! How many values a player may keep.

use super::*;

suite! {
    a_player_keeps_as_many_values_as_allowed_and_no_more,
}

async fn a_player_keeps_as_many_values_as_allowed_and_no_more(place: &Place) {
    let store = place.open().await;
    let owner = player_id();
    let put = |owner, key: &str, expect| ValueWrite {
        key: ValueKey {
            module: None,
            owner: Some(owner),
            collection: "deck".into(),
            key: key.into(),
        },
        value: Some("1".into()),
        expect,
        effect: None,
        owned_max: Some(3),
    };
    // All at once: they share transactions, and still no more than three are new.
    let mut writing = tokio::task::JoinSet::new();
    for no in 0..12 {
        let (store, write) = (store.clone(), put(owner, &format!("card-{no}"), Expect::Anything));
        writing.spawn(async move { store.write_value(write).await.unwrap().unwrap() });
    }
    let (mut stored, mut refused) = (0, 0);
    while let Some(outcome) = writing.join_next().await {
        match outcome.unwrap() {
            WriteOutcome::Stored { .. } => stored += 1,
            WriteOutcome::TooMany { owned: 3 } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((stored, refused), (3, 9));

    let scan = Scan {
        module: None,
        owner: Some(owner),
        collection: "deck",
        prefix: "",
        after: None,
        limit: 10,
    };
    let kept = store.scan_values(&scan).await.unwrap();
    assert_eq!(kept.len(), 3);
    let write = async |write| store.write_value(write).await.unwrap().unwrap();
    let stored = |outcome: &WriteOutcome| matches!(outcome, WriteOutcome::Stored { .. });
    // What is there may be written again, and somebody else is not concerned.
    assert!(stored(&write(put(owner, &kept[0].key, Expect::Anything)).await));
    assert!(stored(&write(put(player_id(), "card-x", Expect::Absent)).await));
    // What would be refused anyway is refused for its own reason.
    let version = Expect::Version("x".into());
    assert_eq!(write(put(owner, "card-x", version)).await, WriteOutcome::Conflict);
    assert_eq!(
        write(put(owner, &kept[0].key, Expect::Absent)).await,
        WriteOutcome::Conflict
    );
    // A module's values for the player count for nobody.
    let mut of_module = put(owner, "card-x", Expect::Anything);
    (of_module.key.module, of_module.owned_max) = (Some("duel".into()), None);
    assert!(stored(&write(of_module).await));
    let delete = ValueWrite {
        value: None,
        ..put(owner, &kept[1].key, Expect::Anything)
    };
    assert_eq!(write(delete).await, WriteOutcome::Deleted);
    assert!(stored(&write(put(owner, "card-x", Expect::Absent)).await));
}
