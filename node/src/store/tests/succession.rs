//! Who runs a match next, and what of a match is kept for them.

use super::*;

suite! {
    of_two_swaps_from_one_epoch_one_wins,
    a_dead_nodes_matches_are_lost_once_and_only_without_backup,
    what_is_leased_is_not_lost_with_its_node,
    a_match_is_taken_over_once_and_only_after_its_owners_lease,
    a_named_match_that_nothing_saves_is_lost_after_its_owners_lease,
    a_node_that_stops_or_is_forgotten_has_no_lease,
    a_match_that_its_owner_does_not_run_is_begun_anew_once,
    the_newest_state_of_a_match_is_kept_and_an_older_epoch_is_refused,
    a_state_goes_with_its_match,
    matches_that_never_began_go_to_another_owner,
}

async fn of_two_swaps_from_one_epoch_one_wins(place: &Place) {
    let store = place.open().await;
    let new = NewMatch {
        backup: Some(node("b", 1)),
        ..new_match()
    };
    let id = store.create_match(new).await.unwrap().id;
    let from = row(&store, id).await.configuration;
    let to = |owner: &str, backup: Option<&str>| Configuration {
        epoch: 2,
        owner: node(owner, 1),
        backup: backup.map(|backup| node(backup, 1)),
    };
    let swap = |to: Configuration| Swap {
        id,
        from: from.clone(),
        to,
        new_incarnation: true,
    };
    let swaps = [swap(to("b", None)), swap(to("a", Some("c")))];
    let tries = swaps.clone().map(|swap| {
        let store = store.clone();
        async move { store.swap_owner(&swap).await.unwrap() }
    });
    let answers = all(tries).await;
    let winner = answers.iter().position(|answer| *answer == Cas::Done).unwrap();
    let now = row(&store, id).await;
    assert_eq!(now.configuration, swaps[winner].to);
    assert_eq!(now.incarnation, 1);
    assert_eq!(answers[1 - winner], Cas::Superseded(Some(Box::new(now.clone()))));
    // Once more: done already, and not twice.
    assert_eq!(store.swap_owner(&swaps[winner]).await.unwrap(), Cas::Done);
    assert_eq!(row(&store, id).await, now);
    // Every part of the old configuration counts.
    for from in [
        Configuration {
            epoch: 1,
            ..now.configuration.clone()
        },
        Configuration {
            owner: node("z", 1),
            ..now.configuration.clone()
        },
        Configuration {
            owner: node(now.configuration.owner.name.as_str(), 9),
            ..now.configuration.clone()
        },
        Configuration {
            backup: Some(node("z", 1)),
            ..now.configuration.clone()
        },
    ] {
        let swap = Swap {
            id,
            from,
            to: Configuration {
                epoch: 3,
                owner: node("z", 3),
                backup: None,
            },
            new_incarnation: false,
        };
        assert!(matches!(
            store.swap_owner(&swap).await.unwrap(),
            Cas::Superseded(Some(_))
        ));
    }
    // What ran under the old epoch can neither start nor end it.
    assert!(matches!(
        store.finish_match(end_of(id, 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
}

async fn a_dead_nodes_matches_are_lost_once_and_only_without_backup(place: &Place) {
    let store = place.open().await;
    let mut create = Vec::new();
    for (owner, backup, runs) in [
        (node("a", 1), None, true),
        (node("a", 2), None, true),
        (node("a", 3), None, true),
        (node("a", 1), Some(node("b", 1)), true),
        (node("a", 1), None, false),
        (node("b", 1), None, true),
    ] {
        let new = NewMatch {
            owner: owner.clone(),
            backup,
            quick_key: Some(format!("m{}", create.len())),
            ..new_match()
        };
        let id = store.create_match(new).await.unwrap().id;
        if runs {
            assert_eq!(store.set_running(id, 1, &owner).await.unwrap(), Cas::Done);
        }
        create.push(id);
    }
    let asks = (0..4).map(|_| {
        let store = store.clone();
        async move { store.lose_matches_of(&name("a"), 2).await.unwrap() }
    });
    let mut lost: Vec<MatchId> = all(asks).await.concat();
    lost.sort();
    let mut expected = vec![create[0], create[1]];
    expected.sort();
    assert_eq!(lost, expected, "each is returned to exactly one of those who asked");
    assert_eq!(row(&store, create[0]).await.status, MatchStatus::Lost);
    assert_eq!(row(&store, create[0]).await.reason.as_deref(), Some("node_died"));
    assert_eq!(store.list_live_matches(None, 10).await.unwrap().len(), 4);
    let again = NewMatch {
        quick_key: Some("m0".into()),
        ..new_match()
    };
    store.create_match(again).await.unwrap();
}

fn zone(name: &str, owner: &NodeLife) -> NewMatch {
    NewMatch {
        kind: MatchKind::Zone,
        owner: owner.clone(),
        ..named(name)
    }
}

/// Creates a match and says that it runs.
async fn run(store: &Store, new: NewMatch) -> MatchId {
    let owner = new.owner.clone();
    let id = store.create_match(new).await.unwrap().id;
    assert_eq!(store.set_running(id, 1, &owner).await.unwrap(), Cas::Done);
    id
}

async fn life(store: &Store, node_name: &str) -> NodeLife {
    node(node_name, register(store, node_name).await)
}

/// A lease that nobody's is longer than, and one that is over as soon as the clock has moved.
const LONG_MS: u64 = 600_000;

const NO_TIME_MS: u64 = 0;

async fn what_is_leased_is_not_lost_with_its_node(place: &Place) {
    let store = place.open().await;
    let owner = life(&store, "a").await;
    let stored = NewMatch {
        durability: Durability::Stored,
        owner: owner.clone(),
        ..new_match()
    };
    let named = NewMatch {
        owner: owner.clone(),
        ..named("hall")
    };
    for new in [zone("w/square", &owner), stored, named] {
        run(&store, new).await;
    }
    let memory = run(
        &store,
        NewMatch {
            owner: owner.clone(),
            ..new_match()
        },
    )
    .await;
    let lost = store.lose_matches_of(&owner.name, owner.generation).await.unwrap();
    assert_eq!(lost, [memory]);
    assert_eq!(store.leased_by(&owner).await.unwrap().len(), 3);
}

async fn a_match_is_taken_over_once_and_only_after_its_owners_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let mut zones = BTreeSet::new();
    for number in 0..10 {
        zones.insert(run(&store, zone(&format!("w/{number}"), &a)).await);
    }
    let begun = store.create_match(zone("w/starting", &a)).await.unwrap().id;
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 0);
    assert!(store.take_over_unleased(&b, LONG_MS, 100).await.unwrap().is_empty());

    // A later life of the owner is registered: its leases are over at once.
    let later = life(&store, "a").await;
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 11);
    let takers = [b.clone(), later.clone(), b.clone(), later.clone()];
    let takes = takers.map(|taker| {
        let store = store.clone();
        async move {
            let mut all = Vec::new();
            loop {
                let taken = store.take_over_unleased(&taker, LONG_MS, 3).await.unwrap();
                if taken.is_empty() {
                    return all;
                }
                assert!(taken.iter().all(|row| row.configuration.owner == taker));
                all.extend(taken);
            }
        }
    });
    let taken: Vec<MatchRow> = all(takes).await.concat();
    assert_eq!(taken.len(), 11, "each is taken by exactly one of those who asked");
    for row in taken {
        assert_eq!((row.configuration.epoch, row.status), (2, MatchStatus::Starting));
        let expected = u64::from(row.id != begun);
        assert_eq!(row.incarnation, expected, "only what had spoken is a new incarnation");
        assert!(row.id == begun || zones.contains(&row.id));
        // The old owner's word counts no more, and the new one's does.
        assert!(matches!(
            store.set_running(row.id, 1, &a).await.unwrap(),
            Cas::Superseded(_)
        ));
        let owner = row.configuration.owner.clone();
        assert_eq!(store.set_running(row.id, 2, &owner).await.unwrap(), Cas::Done);
    }
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 0);
}

async fn a_named_match_that_nothing_saves_is_lost_after_its_owners_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let hall = run(
        &store,
        NewMatch {
            owner: a.clone(),
            ..named("hall")
        },
    )
    .await;
    store.claim_name("throne", hall, 1).await.unwrap();
    assert!(store.lose_unleased(LONG_MS).await.unwrap().is_empty());
    store.release_node(&a).await.unwrap();
    assert!(store.take_over_unleased(&b, LONG_MS, 10).await.unwrap().is_empty());
    assert_eq!(store.lose_unleased(LONG_MS).await.unwrap(), [hall]);
    assert!(store.lose_unleased(LONG_MS).await.unwrap().is_empty());
    assert_eq!(row(&store, hall).await.status, MatchStatus::Lost);
    store.create_match(named("throne")).await.unwrap();
}

async fn a_node_that_stops_or_is_forgotten_has_no_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    run(&store, zone("w/1", &a)).await;
    run(&store, zone("w/2", &b)).await;
    store.release_node(&a).await.unwrap();
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 1);
    assert!(
        !store.renew_node(&a).await.unwrap(),
        "a renewal that was under way changes nothing"
    );
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 1);

    assert_eq!(store.forget_node(&b.name).await.unwrap(), Some(b.generation));
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 2);
    assert!(
        !store.renew_node(&b).await.unwrap(),
        "it lives after all, and is told so"
    );
    assert_eq!(store.forget_node(&name("nobody")).await.unwrap(), None);
    assert!(life(&store, "b").await.generation > b.generation + 1);

    // A lease that is over by the database's clock is over, though its node never said so.
    let c = life(&store, "c").await;
    run(&store, zone("w/3", &c)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.count_unleased(NO_TIME_MS).await.unwrap(), 3);
}

async fn a_match_that_its_owner_does_not_run_is_begun_anew_once(place: &Place) {
    let store = place.open().await;
    let a = life(&store, "a").await;
    let id = run(&store, zone("w/1", &a)).await;
    let row = store.retake_match(id, 1, &a).await.unwrap().unwrap();
    assert_eq!((row.configuration.epoch, row.incarnation), (2, 1));
    assert_eq!(row.status, MatchStatus::Starting);
    assert!(store.retake_match(id, 1, &a).await.unwrap().is_none());
}

fn save(id: MatchId, epoch: u64, event: u64) -> Save {
    Save {
        id,
        epoch,
        incarnation: epoch - 1,
        event,
        saved_by: "1.0.0".into(),
        state: Bytes::from(format!("state {epoch} {event}")),
        part: Bytes::from_static(&[0, 255, 7]),
    }
}

async fn the_newest_state_of_a_match_is_kept_and_an_older_epoch_is_refused(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let (one, other) = (run(&store, zone("w/1", &a)).await, run(&store, zone("w/2", &a)).await);
    let none = store.save_matches(&[save(one, 1, 5), save(other, 1, 9)]).await.unwrap();
    assert!(none.is_empty());
    // Older than what is there; and in the same group one that is newer.
    let refused = store
        .save_matches(&[save(one, 1, 4), save(other, 1, 10)])
        .await
        .unwrap();
    assert_eq!(refused, BTreeSet::from([one]));
    let kept = store.read_save(one).await.unwrap().unwrap();
    assert_eq!((kept.event, &*kept.state), (5, b"state 1 5".as_slice()));
    assert_eq!((kept.saved_by.as_str(), &*kept.part), ("1.0.0", [0, 255, 7].as_slice()));
    assert_eq!(store.read_save(other).await.unwrap().unwrap().event, 10);

    store.release_node(&a).await.unwrap();
    assert_eq!(store.take_over_unleased(&b, LONG_MS, 10).await.unwrap().len(), 2);
    let refused = store.save_matches(&[save(one, 1, 99)]).await.unwrap();
    assert_eq!(refused, BTreeSet::from([one]), "the old owner's past");
    // The new owner's count may be lower than what the old one had reached.
    assert!(store.save_matches(&[save(one, 2, 3)]).await.unwrap().is_empty());
    let kept = store.read_save(one).await.unwrap().unwrap();
    assert_eq!((kept.epoch, kept.incarnation, kept.event), (2, 1, 3));
    assert!(store.read_save(match_id()).await.unwrap().is_none());
    assert!(store.save_matches(&[save(match_id(), 1, 1)]).await.unwrap().len() == 1);
}

async fn a_state_goes_with_its_match(place: &Place) {
    let store = place.open().await;
    let a = life(&store, "a").await;
    let id = run(&store, zone("w/1", &a)).await;
    store.save_matches(&[save(id, 1, 1)]).await.unwrap();
    store.finish_match(end_of(id, 1)).await.unwrap();
    assert!(
        store.save_matches(&[save(id, 1, 2)]).await.unwrap().is_empty(),
        "the last state of a record"
    );
    assert!(store.read_save(id).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.sweep_matches(0, 10).await.unwrap();
    assert!(store.read_save(id).await.unwrap().is_none());
}

async fn matches_that_never_began_go_to_another_owner(place: &Place) {
    let store = place.open().await;
    let mut starting = BTreeSet::new();
    for _ in 0..10 {
        starting.insert(store.create_match(new_match()).await.unwrap().id);
    }
    let running = store.create_match(new_match()).await.unwrap().id;
    store.set_running(running, 1, &node("a", 1)).await.unwrap();
    let asks = ["b", "c", "d"].map(|to| {
        let store = store.clone();
        async move { store.reassign_starting(&name("a"), 1, &node(to, 1), 4).await.unwrap() }
    });
    let given = all(asks).await.concat();
    let ids: BTreeSet<MatchId> = given.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), given.len(), "no match was given to two owners");
    assert!(ids.is_subset(&starting));
    assert!(
        given
            .iter()
            .all(|row| row.configuration.epoch == 2 && row.configuration.owner.name != name("a"))
    );
    // The old owner comes too late.
    let first = given[0].clone();
    assert!(matches!(
        store.set_running(first.id, 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    assert_eq!(
        store
            .set_running(first.id, 2, &first.configuration.owner)
            .await
            .unwrap(),
        Cas::Done
    );
    assert_eq!(row(&store, running).await.configuration.owner, node("a", 1));
}
