//! Values of players and matches: compare-and-set, scans, effects once.

use super::*;

suite! {
    values_are_written_only_where_expected,
    scans_go_by_prefix_in_key_order,
    an_effect_is_applied_once_and_under_its_epoch_only,
}

fn value_key(key: &str) -> ValueKey {
    ValueKey {
        module: Some("duel".into()),
        owner: None,
        collection: "c".into(),
        key: key.into(),
    }
}

fn put(key: &str, value: &'static [u8], expect: Expect) -> ValueWrite {
    ValueWrite {
        key: value_key(key),
        value: Some(Bytes::from_static(value)),
        expect,
        effect: None,
        owned_max: None,
    }
}

fn delete(key: &str, expect: Expect) -> ValueWrite {
    ValueWrite {
        value: None,
        ..put(key, b"", expect)
    }
}

async fn write(store: &Store, write: ValueWrite) -> WriteOutcome {
    store.write_value(write).await.unwrap().unwrap()
}

async fn stored(store: &Store, write: ValueWrite) -> String {
    match self::write(store, write).await {
        WriteOutcome::Stored { version } => version,
        other => panic!("{other:?}"),
    }
}

async fn values_are_written_only_where_expected(place: &Place) {
    let store = place.open().await;
    assert_eq!(
        write(&store, put("k", b"x", Expect::Version("0".into()))).await,
        WriteOutcome::Conflict
    );
    assert_eq!(
        write(&store, delete("k", Expect::Anything)).await,
        WriteOutcome::NotFound
    );
    assert_eq!(write(&store, delete("k", Expect::Absent)).await, WriteOutcome::NotFound);
    let first = stored(&store, put("k", b"1\0", Expect::Absent)).await;
    assert_eq!(
        write(&store, put("k", b"2", Expect::Absent)).await,
        WriteOutcome::Conflict
    );
    let read = store.read_value(&value_key("k")).await.unwrap().unwrap();
    assert_eq!((read.value.as_ref(), &read.version), (&b"1\0"[..], &first));
    let second = stored(&store, put("k", b"2", Expect::Version(first.clone()))).await;
    assert_ne!(first, second);
    assert_eq!(
        write(&store, put("k", b"3", Expect::Version(first.clone()))).await,
        WriteOutcome::Conflict
    );
    let third = stored(&store, put("k", b"", Expect::Anything)).await;
    assert_eq!(
        store.read_value(&value_key("k")).await.unwrap().unwrap().value,
        Bytes::new()
    );
    assert_eq!(
        write(&store, delete("k", Expect::Version(second))).await,
        WriteOutcome::Conflict
    );
    assert_eq!(write(&store, delete("k", Expect::Absent)).await, WriteOutcome::Conflict);
    assert_eq!(
        write(&store, delete("k", Expect::Version(third))).await,
        WriteOutcome::Deleted
    );
    assert_eq!(store.read_value(&value_key("k")).await.unwrap(), None);

    // Of many who expect the same version one wins, within a group and across processes.
    let version = stored(&store, put("race", b"0", Expect::Anything)).await;
    let other = place.open().await;
    let tries = (0..40).map(|no| {
        let store = if no % 2 == 0 { store.clone() } else { other.clone() };
        let write = put("race", b"1", Expect::Version(version.clone()));
        async move { store.write_value(write).await.unwrap().unwrap() }
    });
    let won = all(tries)
        .await
        .into_iter()
        .filter(|outcome| *outcome != WriteOutcome::Conflict)
        .count();
    assert_eq!(won, 1);
}

async fn scans_go_by_prefix_in_key_order(place: &Place) {
    let store = place.open().await;
    let owner = player_id();
    for key in ["a", "a/2", "a/10", "a/Z", "a/ü", "a/a", "b", "a%", "a_"] {
        stored(&store, put(key, b"v", Expect::Anything)).await;
        let mut of_player = put(key, b"v", Expect::Anything);
        of_player.key.owner = Some(owner);
        stored(&store, of_player).await;
    }
    let scan = async |prefix: &str, after: Option<&str>, limit: u32| {
        let scan = Scan {
            module: Some("duel"),
            owner: Some(owner),
            collection: "c",
            prefix,
            after,
            limit,
        };
        let rows = store.scan_values(&scan).await.unwrap();
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    assert_eq!(scan("a/", None, 10).await, ["a/10", "a/2", "a/Z", "a/a", "a/ü"]);
    assert_eq!(scan("a/", Some("a/2"), 2).await, ["a/Z", "a/a"]);
    assert_eq!(scan("a%", None, 10).await, ["a%"]);
    assert_eq!(scan("", None, 100).await.len(), 9);
    assert_eq!(scan("c", None, 10).await, Vec::<String>::new());
}

async fn an_effect_is_applied_once_and_under_its_epoch_only(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    let effect = |event: u64, epoch: u64, write: ValueWrite| ValueWrite {
        effect: Some((
            EffectId {
                match_id: id,
                incarnation: 0,
                event,
                index: 0,
            },
            epoch,
        )),
        ..write
    };
    let first = store
        .write_value(effect(1, 1, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    let version = stored(&store, put("k", b"changed since", Expect::Anything)).await;
    // The repeat says what the first said and touches nothing.
    let again = store
        .write_value(effect(1, 1, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        store.read_value(&value_key("k")).await.unwrap().unwrap().version,
        version
    );
    // A refusal is an answer, too.
    let refused = store
        .write_value(effect(2, 1, put("k", b"2", Expect::Absent)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, WriteOutcome::Conflict);
    write(&store, delete("k", Expect::Anything)).await;
    let refused = store
        .write_value(effect(2, 1, put("k", b"2", Expect::Absent)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, WriteOutcome::Conflict);

    // Another epoch is another owner's business.
    assert_eq!(
        store
            .write_value(effect(3, 2, put("k", b"3", Expect::Anything)))
            .await
            .unwrap(),
        Err(Fenced)
    );
    assert_eq!(store.read_value(&value_key("k")).await.unwrap(), None);
    let from = row(&store, id).await.configuration;
    let swap = Swap {
        id,
        to: Configuration {
            epoch: 2,
            ..from.clone()
        },
        from,
        new_incarnation: false,
    };
    assert_eq!(store.swap_owner(&swap).await.unwrap(), Cas::Done);
    assert_eq!(
        store
            .write_value(effect(3, 1, put("k", b"3", Expect::Anything)))
            .await
            .unwrap(),
        Err(Fenced)
    );
    // The new owner sends what the old one may have sent already.
    let again = store
        .write_value(effect(1, 2, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again, first);
}
