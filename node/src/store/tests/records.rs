//! Matches that are over, by player and module, in pages.

use super::*;

suite! {
    records_are_found_by_player_and_module_newest_first,
    a_players_note_goes_with_its_match,
}

async fn over(store: &Store, module: &str, players: &[PlayerId]) -> MatchId {
    let new = NewMatch {
        module: module.into(),
        ..new_match()
    };
    let id = new.id;
    store.create_match(new).await.unwrap();
    let seated: Vec<_> = players.iter().map(|player| (id, *player)).collect();
    store.note_players(&seated).await.unwrap();
    // Again changes nothing.
    store.note_players(&seated).await.unwrap();
    let finish = Finish {
        id,
        epoch: 1,
        status: FinalStatus::Ended,
        outcome: Some("{}".into()),
        reason: None,
    };
    assert_eq!(store.finish_match(finish).await.unwrap(), Cas::Done);
    id
}

async fn records_are_found_by_player_and_module_newest_first(place: &Place) {
    let store = place.open().await;
    let (ana, ben) = (player_id(), player_id());
    let mut both = vec![ana, ben];
    both.sort();
    let live = new_match();
    store.create_match(live.clone()).await.unwrap();
    store.note_players(&[(live.id, ana)]).await.unwrap();
    let mut made = Vec::new();
    for no in 0..6 {
        let module = if no % 2 == 0 { "duel" } else { "arena" };
        made.push(over(&store, module, if no % 3 == 0 { &both } else { &both[..1] }).await);
    }
    let found = async |query: RecordQuery| -> Vec<MatchId> {
        let records = store.list_records(&query).await.unwrap();
        records.iter().map(|record| record.row.id).collect()
    };
    let all = RecordQuery {
        limit: 100,
        ..RecordQuery::default()
    };
    let every = store.list_records(&all).await.unwrap();
    let mut ids: Vec<_> = every.iter().map(|record| record.row.id).collect();
    let ends: Vec<_> = every
        .iter()
        .map(|record| (record.row.ended_at_ms.unwrap(), record.row.id))
        .collect();
    assert!(ends.is_sorted_by(|a, b| a > b), "{ends:?}");
    let first = every.iter().find(|record| record.row.id == made[0]).unwrap();
    assert_eq!(first.players, both);

    // Page by page, nothing twice and nothing left out.
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let query = RecordQuery {
            before,
            limit: 2,
            ..all.clone()
        };
        let page = store.list_records(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        before = last.row.ended_at_ms.map(|at| (at, last.row.id));
        paged.extend(page.into_iter().map(|record| record.row.id));
    }
    assert_eq!(paged, ids);

    ids.sort();
    let mut expected = made.clone();
    expected.sort();
    assert_eq!(ids, expected, "the live one is no record");
    let of = |player: Option<PlayerId>, module: Option<&str>| RecordQuery {
        player,
        module: module.map(str::to_owned),
        ..all.clone()
    };
    assert_eq!(found(of(Some(both[1]), None)).await.len(), 2);
    assert_eq!(found(of(Some(both[0]), None)).await.len(), 6);
    assert_eq!(found(of(Some(both[0]), Some("duel"))).await.len(), 3);
    assert_eq!(found(of(Some(both[1]), Some("arena"))).await, [made[3]]);
    assert_eq!(found(of(Some(player_id()), None)).await, []);
    assert_eq!(found(of(None, Some("nobody"))).await, []);
}

async fn a_players_note_goes_with_its_match(place: &Place) {
    let store = place.open().await;
    let ana = player_id();
    let id = over(&store, "duel", &[ana]).await;
    assert_eq!(store.players_of(&[id]).await.unwrap()[&id], [ana]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.sweep_matches(5, 10).await.unwrap(), 1);
    assert!(store.players_of(&[id]).await.unwrap().is_empty());
    // One that is forgotten already does not keep the others from being noted.
    let other = new_match();
    store.create_match(other.clone()).await.unwrap();
    store.note_players(&[(id, ana), (other.id, ana)]).await.unwrap();
    assert_eq!(store.players_of(&[id, other.id]).await.unwrap().len(), 1);
}
