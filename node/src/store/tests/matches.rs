//! Rows of matches: creating them, names and quick keys, the group commit, beginning and ending.

use super::*;

suite! {
    a_match_reads_back_as_it_was_created,
    a_name_is_unique_among_live_matches,
    of_many_quick_creators_one_wins,
    creating_again_with_the_same_id_is_answered_by_the_row,
    a_creator_is_held_to_a_number_of_live_matches,
    a_miss_fails_one_caller_and_not_the_group,
    a_member_that_the_database_refuses_fails_alone,
    what_waits_shares_a_transaction,
    running_needs_the_epoch_and_the_life_of_the_row,
    a_running_match_is_pinned_to_another_version_by_its_owner_alone,
    a_match_ends_once_and_frees_its_name,
    claims_and_names_are_one_name_space,
    ended_matches_are_forgotten_in_time,
}

async fn a_match_reads_back_as_it_was_created(place: &Place) {
    let store = place.open().await;
    let creator = player_id();
    let new = NewMatch {
        kind: MatchKind::Zone,
        name: Some("village/square".into()),
        durability: Durability::Stored,
        params: Bytes::from_static(b"\0\xff 'quoted' \x7f"),
        seed: u64::MAX - 1,
        limits: r#"{"memory_bytes":67108864}"#.into(),
        invited: r#"[{"player":"Zoë 🦀"}]"#.into(),
        creator: Some(creator),
        private: true,
        backup: Some(node("b", 5)),
        quick_key: Some("key".into()),
        creator_alive_max: Some(200),
        ..new_match()
    };
    let created = store.create_match(new.clone()).await.unwrap();
    assert_eq!((created.id, created.epoch), (new.id, 1));

    let expected = MatchRow {
        id: new.id,
        kind: new.kind,
        name: new.name,
        module: new.module,
        digest: new.digest,
        durability: new.durability,
        params: new.params,
        seed: new.seed,
        limits: new.limits,
        invited: new.invited,
        creator: Some(creator),
        private: true,
        configuration: Configuration {
            epoch: 1,
            owner: new.owner,
            backup: new.backup,
        },
        incarnation: 0,
        status: MatchStatus::Starting,
        outcome: None,
        reason: None,
        quick_key: new.quick_key,
        created_at_ms: created.created_at_ms,
        started_at_ms: None,
        ended_at_ms: None,
    };
    assert_eq!(row(&store, new.id).await, expected);
    assert_eq!(store.get_match("village/square").await.unwrap(), Some(expected.clone()));
    assert_eq!(
        store.get_match(&new.id.to_string()).await.unwrap(),
        Some(expected.clone())
    );
    assert_eq!(store.get_match("village").await.unwrap(), None);
    let only = [expected];
    assert_eq!(store.starting_of(&node("a", 1), 10).await.unwrap(), only);
    assert_eq!(store.starting_of(&node("a", 2), 10).await.unwrap(), []);
    assert_eq!(store.list_live_matches(None, 10).await.unwrap(), only);
    assert_eq!(store.list_live_matches(Some(new.id), 10).await.unwrap(), []);
    assert_eq!(store.count_alive_created_by(creator).await.unwrap(), 1);

    // A name that looks like an id is still found.
    let looks = named("01arz3ndektsv4rrffq69g5fav");
    store.create_match(looks.clone()).await.unwrap();
    assert_eq!(
        store.get_match("01arz3ndektsv4rrffq69g5fav").await.unwrap().unwrap().id,
        looks.id
    );
}

async fn a_name_is_unique_among_live_matches(place: &Place) {
    let store = place.open().await;
    let first = named("hall");
    store.create_match(first.clone()).await.unwrap();
    match store.create_match(named("hall")).await {
        Err(CreateMatchError::NameTaken { existing }) => assert_eq!(existing, first.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.finish_match(end_of(first.id, 1)).await.unwrap(), Cas::Done);
    let second = named("hall");
    store.create_match(second.clone()).await.unwrap();
    assert_eq!(store.get_match("hall").await.unwrap().unwrap().id, second.id);
}

async fn of_many_quick_creators_one_wins(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let attempts = (0..60).map(|no: usize| {
        let store = stores[no % 2].clone();
        let new = NewMatch {
            quick_key: Some("duel ranked".into()),
            ..new_match()
        };
        async move { store.create_match(new).await }
    });
    let mut winners = BTreeSet::new();
    let mut pointed_at = BTreeSet::new();
    for answer in all(attempts).await {
        match answer {
            Ok(created) => assert!(winners.insert(created.id)),
            Err(CreateMatchError::QuickTaken { existing }) => {
                pointed_at.insert(existing);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(pointed_at, winners);

    // A match that is full gives the key up, and lives on.
    let full = *winners.first().unwrap();
    stores[0].clear_quick_key(full).await.unwrap();
    let next = NewMatch {
        quick_key: Some("duel ranked".into()),
        ..new_match()
    };
    stores[1].create_match(next).await.unwrap();
    assert!(row(&stores[0], full).await.status.is_live());
}

async fn creating_again_with_the_same_id_is_answered_by_the_row(place: &Place) {
    let store = place.open().await;
    let new = NewMatch {
        quick_key: Some("key".into()),
        creator: Some(player_id()),
        creator_alive_max: Some(1),
        ..named("hall")
    };
    let first = store.create_match(new.clone()).await.unwrap();
    assert_eq!(store.create_match(new).await.unwrap(), first);
}

async fn a_creator_is_held_to_a_number_of_live_matches(place: &Place) {
    let store = place.open().await;
    let creator = player_id();
    let new = move || NewMatch {
        creator: Some(creator),
        creator_alive_max: Some(5),
        ..new_match()
    };
    let mut made = Vec::new();
    for answer in all((0..20).map(|_| {
        let store = store.clone();
        async move { store.create_match(new()).await }
    }))
    .await
    {
        match answer {
            Ok(created) => made.push(created.id),
            Err(CreateMatchError::TooMany { alive }) => assert!(alive >= 5),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(made.len(), 5);
    assert_eq!(store.count_alive_created_by(creator).await.unwrap(), 5);
    // Others are not held up, and an ended match makes room.
    store.create_match(new_match()).await.unwrap();
    store.finish_match(end_of(made[0], 1)).await.unwrap();
    store.create_match(new()).await.unwrap();
}

async fn a_miss_fails_one_caller_and_not_the_group(place: &Place) {
    let store = place.open().await;
    store.create_match(named("taken")).await.unwrap();
    let answers = all((0..100).map(|no| {
        let store = store.clone();
        async move {
            let new = if no % 10 == 0 { named("taken") } else { new_match() };
            (no, store.create_match(new).await)
        }
    }))
    .await;
    for (no, answer) in answers {
        let is_taken = matches!(answer, Err(CreateMatchError::NameTaken { .. }));
        assert_eq!(is_taken, no % 10 == 0, "{no}: {answer:?}");
        assert_eq!(answer.is_ok(), no % 10 != 0);
    }
}

async fn a_member_that_the_database_refuses_fails_alone(place: &Place) {
    let store = place.open().await;
    let refused = NewAccount {
        player: player_id(),
        name: "nul \0 in a text".into(),
        rename: false,
        credential: None,
        on_existing: OnExisting::Adopt,
        family: None,
    };
    let is_postgres = place.url.starts_with("postgres");
    let answers = all((0..50).map(|no| {
        let store = store.clone();
        let refused = refused.clone();
        async move {
            if no == 25 {
                store.open_account(refused).await.is_ok()
            } else {
                store.create_match(new_match()).await.is_ok()
            }
        }
    }))
    .await;
    for (no, is_ok) in answers.into_iter().enumerate() {
        // PostgreSQL has no NUL in texts; SQLite does not mind.
        assert_eq!(is_ok, no != 25 || !is_postgres, "{no}");
    }
}

async fn what_waits_shares_a_transaction(place: &Place) {
    let groups = Arc::new(AtomicUsize::new(0));
    let counted = groups.clone();
    let options = StoreOptions {
        observe: Some(Arc::new(move |operation, _| {
            if operation == "batch" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })),
        ..StoreOptions::default()
    };
    let store = Store::open(&place.url, options).await.unwrap();
    let answers = all((0..1000).map(|_| {
        let store = store.clone();
        async move {
            let id = store.create_match(new_match()).await.unwrap().id;
            store.set_running(id, 1, &node("a", 1)).await
        }
    }))
    .await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == Cas::Done));
    let groups = groups.load(Ordering::Relaxed);
    assert!(groups < 500, "2,000 writes took {groups} transactions");
}

async fn running_needs_the_epoch_and_the_life_of_the_row(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    for (epoch, life) in [(2, node("a", 1)), (1, node("a", 2)), (1, node("b", 1))] {
        match store.set_running(id, epoch, &life).await.unwrap() {
            Cas::Superseded(Some(row)) => assert_eq!(row.status, MatchStatus::Starting),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.set_running(id, 1, &node("a", 1)).await.unwrap(), Cas::Done);
    let started = row(&store, id).await;
    assert_eq!(started.status, MatchStatus::Running);
    assert!(started.started_at_ms.unwrap() >= started.created_at_ms);
    // The answer was lost, the caller asks again.
    assert_eq!(store.set_running(id, 1, &node("a", 1)).await.unwrap(), Cas::Done);
    assert_eq!(
        store.set_running(match_id(), 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(None)
    );
}

async fn a_running_match_is_pinned_to_another_version_by_its_owner_alone(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    let (from, to) = (row(&store, id).await.digest, Digest([9; 32]));
    let pin = |epoch: u64, from: Digest| Pin { id, epoch, from, to };
    let is_refused = |cas: Cas| matches!(cas, Cas::Superseded(Some(_)));
    assert!(
        is_refused(store.pin_match(&pin(1, from)).await.unwrap()),
        "it has not begun"
    );
    store.set_running(id, 1, &node("a", 1)).await.unwrap();
    assert!(is_refused(store.pin_match(&pin(2, from)).await.unwrap()));
    assert!(is_refused(store.pin_match(&pin(1, Digest([8; 32]))).await.unwrap()));
    assert_eq!(row(&store, id).await.digest, from);
    assert_eq!(store.pin_match(&pin(1, from)).await.unwrap(), Cas::Done);
    assert_eq!(
        store.pin_match(&pin(1, from)).await.unwrap(),
        Cas::Done,
        "the answer was lost"
    );
    assert_eq!(row(&store, id).await.digest, to);
    store.finish_match(end_of(id, 1)).await.unwrap();
    assert!(is_refused(store.pin_match(&pin(1, from)).await.unwrap()));
}

async fn a_match_ends_once_and_frees_its_name(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(named("hall")).await.unwrap().id;
    store.claim_name("smith", id, 1).await.unwrap();
    assert!(matches!(
        store.finish_match(end_of(id, 2)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    assert_eq!(store.finish_match(end_of(id, 1)).await.unwrap(), Cas::Done);
    assert_eq!(store.finish_match(end_of(id, 1)).await.unwrap(), Cas::Done);
    let lost = Finish {
        status: FinalStatus::Lost,
        ..end_of(id, 1)
    };
    assert!(matches!(
        store.finish_match(lost).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    let ended = row(&store, id).await;
    assert_eq!(ended.status, MatchStatus::Ended);
    assert_eq!(ended.outcome.as_deref(), Some(&b"won\0"[..]));
    assert!(ended.ended_at_ms.unwrap() >= ended.created_at_ms);
    assert_eq!(store.get_match("hall").await.unwrap(), None);
    assert_eq!(store.get_match("smith").await.unwrap(), None);
    assert_eq!(store.list_live_matches(None, 10).await.unwrap(), []);
    assert!(matches!(
        store.set_running(id, 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
}

async fn claims_and_names_are_one_name_space(place: &Place) {
    let store = place.open().await;
    let hall = store.create_match(named("hall")).await.unwrap().id;
    let other = store.create_match(new_match()).await.unwrap().id;
    store.claim_name("smith", hall, 1).await.unwrap();
    store.claim_name("smith", hall, 1).await.unwrap();
    assert_eq!(store.get_match("smith").await.unwrap().unwrap().id, hall);

    let is_taken =
        |answer: Result<(), ClaimError>| matches!(answer, Err(ClaimError::Taken { existing }) if existing == hall);
    assert!(is_taken(store.claim_name("smith", other, 1).await));
    assert!(is_taken(store.claim_name("hall", other, 1).await));
    match store.create_match(named("smith")).await {
        Err(CreateMatchError::NameTaken { existing }) => assert_eq!(existing, hall),
        answer => panic!("{answer:?}"),
    }
    assert!(matches!(
        store.claim_name("baker", hall, 2).await,
        Err(ClaimError::Fenced)
    ));

    // Only the holder gives up, and then the name is free.
    store.release_name("smith", other).await.unwrap();
    assert!(is_taken(store.claim_name("smith", other, 1).await));
    store.release_name("smith", hall).await.unwrap();
    store.claim_name("smith", other, 1).await.unwrap();

    // The end of a match frees what it claimed.
    store.finish_match(end_of(other, 1)).await.unwrap();
    assert!(matches!(
        store.claim_name("miller", other, 1).await,
        Err(ClaimError::Fenced)
    ));
    store.claim_name("smith", hall, 1).await.unwrap();

    // Of many who want one name at once, by both ways, one gets it.
    let wants = (0..20).map(|no| {
        let store = store.clone();
        async move {
            if no % 2 == 0 {
                store.create_match(named("inn")).await.is_ok()
            } else {
                let id = store.create_match(new_match()).await.unwrap().id;
                store.claim_name("inn", id, 1).await.is_ok()
            }
        }
    });
    assert_eq!(all(wants).await.into_iter().filter(|got| *got).count(), 1);
}

async fn ended_matches_are_forgotten_in_time(place: &Place) {
    let store = place.open().await;
    let live = store.create_match(new_match()).await.unwrap().id;
    let over = store.create_match(new_match()).await.unwrap().id;
    store.finish_match(end_of(over, 1)).await.unwrap();
    assert_eq!(store.sweep_matches(60_000, 10).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.sweep_matches(0, 10).await.unwrap(), 1);
    assert_eq!(store.read_match(over).await.unwrap(), None);
    assert!(store.read_match(live).await.unwrap().is_some());
}
