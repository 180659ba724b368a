//! Shared content: versions in the order of commits, writes that expect something, the limit, forgotten deletions.

use super::*;

suite! {
    content_is_read_back_by_version_with_its_deletions,
    content_is_written_only_where_expected_and_within_the_limit,
    versions_are_in_the_order_of_commits,
    forgotten_deletions_are_said_so,
}

fn put(key: &str, value: &'static str) -> ContentWrite {
    ContentWrite {
        collection: "items".into(),
        key: key.into(),
        value: Some(("application/json".into(), Bytes::from_static(value.as_bytes()))),
        expect: None,
        bytes_max: 1 << 20,
    }
}

fn delete(key: &str) -> ContentWrite {
    ContentWrite {
        value: None,
        ..put(key, "")
    }
}

fn expecting(version: u64, write: ContentWrite) -> ContentWrite {
    ContentWrite {
        expect: Some(version),
        ..write
    }
}

fn written(version: u64) -> ContentOutcome {
    ContentOutcome::Written { version }
}

async fn content_is_read_back_by_version_with_its_deletions(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.read_content(0, 10).await.unwrap(), ContentPage::default());
    for (version, write) in [
        (1, put("sword", "{}")),
        (2, put("shield", "[1]")),
        (3, put("sword", "{\"damage\":3}")),
        (4, delete("shield")),
    ] {
        assert_eq!(store.write_content(&write).await.unwrap(), written(version));
    }
    let page = store.read_content(0, 10).await.unwrap();
    let rows: Vec<_> = page
        .rows
        .iter()
        .map(|row| (row.version, row.key.as_str(), row.value.as_deref()))
        .collect();
    assert_eq!(rows, [(3, "sword", Some(&b"{\"damage\":3}"[..])), (4, "shield", None)]);
    let bytes = content_cost("items", "sword", b"{\"damage\":3}");
    let head = ContentHead {
        last: 4,
        swept: 0,
        bytes,
    };
    assert_eq!(page.head, head);
    assert_eq!(page.rows[0].content_type, "application/json");
    assert!(page.rows[0].updated_at_ms > 1_700_000_000_000);
    assert_eq!(store.read_content(3, 10).await.unwrap().rows, page.rows[1..]);
    assert_eq!(store.read_content(0, 1).await.unwrap().rows, page.rows[..1]);
    let none = ContentPage { head, rows: Vec::new() };
    assert_eq!(store.read_content(4, 10).await.unwrap(), none);
}

async fn content_is_written_only_where_expected_and_within_the_limit(place: &Place) {
    let store = place.open().await;
    let write = async |write: ContentWrite| store.write_content(&write).await.unwrap();
    let conflict = |version| ContentOutcome::Conflict { version };
    assert_eq!(write(expecting(1, put("sword", "1"))).await, conflict(0));
    assert_eq!(write(delete("sword")).await, ContentOutcome::NotFound);
    assert_eq!(write(expecting(0, put("sword", "1"))).await, written(1));
    assert_eq!(write(expecting(0, put("sword", "2"))).await, conflict(1));
    assert_eq!(write(expecting(1, put("sword", "2"))).await, written(2));
    assert_eq!(write(expecting(1, delete("sword"))).await, conflict(2));
    assert_eq!(write(expecting(2, delete("sword"))).await, written(3));
    // Deleted is absent, whatever its tombstone says.
    assert_eq!(write(expecting(3, put("sword", "3"))).await, conflict(0));
    assert_eq!(write(expecting(0, put("sword", "3"))).await, written(4));

    let bytes_max = content_cost("items", "sword", b"3") + content_cost("items", "shield", b"3") - 1;
    let full = ContentWrite {
        bytes_max,
        ..put("shield", "3")
    };
    assert_eq!(write(full).await, ContentOutcome::Full { bytes: bytes_max + 1 });
    // The limit was lowered below what is there: what makes it less is taken all the same.
    let smaller = ContentWrite {
        bytes_max: 1,
        ..put("sword", "")
    };
    assert_eq!(write(smaller).await, written(5));
    assert_eq!(write(delete("sword")).await, written(6));
    assert_eq!(store.read_content(6, 1).await.unwrap().head.bytes, 0);
}

async fn versions_are_in_the_order_of_commits(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let mut writing = tokio::task::JoinSet::new();
    for no in 0..60 {
        let store = if no % 2 == 0 { store.clone() } else { other.clone() };
        writing.spawn(async move {
            let write = put(&format!("key-{}", no % 7), "1");
            store.write_content(&write).await
        });
    }
    let (mut seen, mut wrote) = (0, 0);
    let mut newest = std::collections::BTreeMap::new();
    while wrote < 60 {
        if let Some(done) = writing.try_join_next() {
            // A database that many write to may refuse one of them; it has not written then.
            wrote += 1;
            done.unwrap().unwrap();
        }
        let page = store.read_content(seen, 100).await.unwrap();
        for row in page.rows {
            assert!(row.version > seen, "{} came after {seen}", row.version);
            seen = row.version;
            newest.insert(row.key, row.version);
        }
        assert!(page.head.last >= seen);
    }
    let page = store.read_content(0, 100).await.unwrap();
    let rows: std::collections::BTreeMap<_, _> = page.rows.into_iter().map(|row| (row.key, row.version)).collect();
    let late = store.read_content(seen, 100).await.unwrap().rows;
    newest.extend(late.into_iter().map(|row| (row.key, row.version)));
    assert_eq!(
        (newest, page.head.last),
        (rows, 60),
        "who read on from what it had seen lacks nothing"
    );
}

async fn forgotten_deletions_are_said_so(place: &Place) {
    let store = place.open().await;
    for write in [put("a", "1"), put("b", "1"), delete("a"), put("c", "1")] {
        store.write_content(&write).await.unwrap();
    }
    assert_eq!(
        store.sweep_content(60_000, 10).await.unwrap(),
        0,
        "it is not old enough"
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.sweep_content(5, 10).await.unwrap(), 1);
    assert_eq!(store.sweep_content(5, 10).await.unwrap(), 0);
    let page = store.read_content(0, 10).await.unwrap();
    assert_eq!((page.head.last, page.head.swept), (4, 3));
    let keys: Vec<_> = page.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["b", "c"]);
}
