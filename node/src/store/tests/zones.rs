//! The live rows of zones, by name.

use super::*;

suite! {
    zones_are_found_by_name_while_they_live,
}

async fn zones_are_found_by_name_while_they_live(place: &Place) {
    let store = place.open().await;
    let zone = |name: &str| NewMatch {
        kind: MatchKind::Zone,
        ..named(name)
    };
    let square = store.create_match(zone("village/square")).await.unwrap().id;
    let mill = store.create_match(zone("village/mill")).await.unwrap().id;
    // A match that only has such a name is none.
    store.create_match(named("village/inn")).await.unwrap();
    store.set_running(mill, 1, &node("a", 1)).await.unwrap();
    let names = ["village/square", "village/mill", "village/inn", "village/well"];
    let found = store.zones(&names).await.unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|row| (row.name.as_str(), row.id, row.status))
        .collect();
    assert_eq!(
        seen,
        [
            ("village/mill", mill, MatchStatus::Running),
            ("village/square", square, MatchStatus::Starting),
        ]
    );
    assert_eq!((found[0].owner.clone(), found[0].epoch), (node("a", 1), 1));

    // Two who place the same zone at once place one.
    let twice = store.create_match(zone("village/square")).await;
    assert!(matches!(twice, Err(CreateMatchError::NameTaken { existing }) if existing == square));

    store.finish_match(end_of(mill, 1)).await.unwrap();
    let found = store.zones(&names).await.unwrap();
    assert_eq!(found.len(), 1, "what is over is missing: {found:?}");
    assert_eq!(store.zones(&[]).await.unwrap(), []);
}
