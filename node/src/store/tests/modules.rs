//! Published modules: which digest a name means, whose signatures they have, how many there may be, and when one may go.

use std::collections::BTreeMap;

use super::*;

suite! {
    a_module_is_stored_once_and_the_last_published_is_its_names_newest,
    signatures_gather_and_the_oldest_goes_when_there_are_too_many,
    what_does_not_fit_is_not_stored_and_what_is_there_may_come_again,
    a_version_goes_when_no_live_match_uses_it_and_its_name_means_another,
}

const ROOM: ModuleLimits = ModuleLimits {
    names_max: 100,
    versions_max: 100,
};

fn module(name: &str, fill: u8) -> NewModule {
    NewModule {
        digest: Digest([fill; 32]),
        name: name.into(),
        version: format!("1.{fill}.0"),
        manifest: r#"{"tick_hz":0}"#.into(),
        component: vec![fill; 300_000].into(),
        signature: None,
    }
}

async fn put(store: &Store, module: &NewModule) -> ModulePut {
    store.put_module(module, ROOM).await.unwrap()
}

async fn found(store: &Store, reference: &str) -> Option<ModuleRow> {
    store.find_module(reference).await.unwrap()
}

async fn a_module_is_stored_once_and_the_last_published_is_its_names_newest(place: &Place) {
    let store = place.open().await;
    let (old, new) = (module("duel", 1), module("duel", 2));
    assert_eq!(put(&store, &old).await, ModulePut::New);
    assert_eq!(put(&store, &old).await, ModulePut::Again);
    assert_eq!(put(&store, &new).await, ModulePut::New);
    assert_eq!(found(&store, "duel").await.unwrap().digest, new.digest);
    assert_eq!(found(&store, "arena").await, None);
    let by_digest = found(&store, &format!("duel@{}", old.digest)).await.unwrap();
    assert_eq!((by_digest.version.as_str(), by_digest.is_head), ("1.1.0", false));
    assert_eq!((by_digest.bytes, by_digest.signatures), (300_000, Vec::new()));
    assert_eq!(found(&store, &format!("arena@{}", old.digest)).await, None);
    assert_eq!(found(&store, "duel@beef").await, None);
    let stored = store.get_module(&new.digest).await.unwrap().unwrap();
    assert_eq!(
        (stored.component, stored.module.manifest),
        (new.component, new.manifest)
    );
    assert!(store.get_module(&Digest([9; 32])).await.unwrap().is_none());

    let heads = store.list_module_heads().await.unwrap();
    assert_eq!(heads.iter().map(|head| head.digest).collect::<Vec<_>>(), [new.digest]);
    let newest = store.newest_publication().await.unwrap();
    assert_eq!(newest.0, 1);

    // Going back is publishing the old one again.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(put(&store, &old).await, ModulePut::Again);
    let listed = store.list_modules().await.unwrap();
    assert!(store.newest_publication().await.unwrap().1 > newest.1);
    let heads: Vec<_> = listed.into_iter().map(|m| (m.digest, m.is_head)).collect();
    assert_eq!(heads.len(), 2);
    assert!(heads.contains(&(old.digest, true)) && heads.contains(&(new.digest, false)));
}

fn signed(module: NewModule, text: &str, key_id: Option<&str>) -> NewModule {
    NewModule {
        signature: Some(NewSignature {
            text: text.into(),
            key_id: key_id.map(str::to_owned),
        }),
        ..module
    }
}

async fn signatures_gather_and_the_oldest_goes_when_there_are_too_many(place: &Place) {
    let store = place.open().await;
    let signatures = async || {
        let row = found(&store, "duel").await.unwrap();
        let mut signatures: Vec<_> = row.signatures.into_iter().map(|s| (s.text, s.key_id)).collect();
        signatures.sort();
        signatures
    };
    let said = |text: &str, key_id: Option<&str>| (text.to_owned(), key_id.map(str::to_owned));
    put(&store, &signed(module("duel", 1), "AAAA+/==", None)).await;
    put(&store, &signed(module("duel", 1), "BBBB", Some("0123456789abcdef"))).await;
    put(&store, &module("duel", 1)).await;
    let both = [said("AAAA+/==", None), said("BBBB", Some("0123456789abcdef"))];
    assert_eq!(signatures().await, both);
    // Said again: a key that is known is not forgotten, and one that was not is.
    put(&store, &signed(module("duel", 1), "BBBB", None)).await;
    put(&store, &signed(module("duel", 1), "AAAA+/==", Some("ff"))).await;
    let both = [said("AAAA+/==", Some("ff")), said("BBBB", Some("0123456789abcdef"))];
    assert_eq!(signatures().await, both);
    // Another module's are its own.
    put(&store, &signed(module("arena", 2), "CCCC", None)).await;
    for no in 0..40 {
        put(&store, &signed(module("duel", 1), &format!("many{no:02}"), None)).await;
    }
    let kept = signatures().await;
    assert_eq!(kept.len(), 16);
    assert!(kept.contains(&said("many39", None)), "{kept:?}");
    let others = found(&store, "arena").await.unwrap().signatures;
    assert_eq!(others.len(), 1);
}

async fn what_does_not_fit_is_not_stored_and_what_is_there_may_come_again(place: &Place) {
    let store = place.open().await;
    let limits = ModuleLimits {
        names_max: 2,
        versions_max: 2,
    };
    let put = async |name, fill| store.put_module(&module(name, fill), limits).await.unwrap();
    assert_eq!(put("duel", 1).await, ModulePut::New);
    assert_eq!(put("duel", 2).await, ModulePut::New);
    assert_eq!(put("duel", 3).await, ModulePut::TooManyVersions);
    assert_eq!(put("arena", 4).await, ModulePut::New);
    assert_eq!(put("echo", 5).await, ModulePut::TooManyNames);
    assert_eq!(put("arena", 6).await, ModulePut::New);
    assert_eq!(put("duel", 1).await, ModulePut::Again);
    assert_eq!(store.list_modules().await.unwrap().len(), 4);
    assert_eq!(found(&store, "echo").await, None);
    assert_eq!(found(&store, "duel").await.unwrap().digest, Digest([1; 32]));
}

async fn a_version_goes_when_no_live_match_uses_it_and_its_name_means_another(place: &Place) {
    let store = place.open().await;
    let (old, new) = (signed(module("duel", 7), "AAAA", None), module("duel", 8));
    put(&store, &old).await;
    put(&store, &new).await;
    let remove = async |name, digest| store.remove_module(name, &digest).await.unwrap();
    assert_eq!(remove("arena", old.digest).await, ModuleRemoval::NotFound);
    assert_eq!(remove("duel", Digest([9; 32])).await, ModuleRemoval::NotFound);
    assert_eq!(remove("duel", new.digest).await, ModuleRemoval::Newest);
    assert_eq!(store.module_matches().await.unwrap(), BTreeMap::new());
    let created = store.create_match(new_match()).await.unwrap();
    assert_eq!(store.module_matches().await.unwrap(), BTreeMap::from([(old.digest, 1)]));
    assert_eq!(remove("duel", old.digest).await, ModuleRemoval::Used { matches: 1 });
    store.finish_match(end_of(created.id, created.epoch)).await.unwrap();
    assert_eq!(remove("duel", old.digest).await, ModuleRemoval::Removed);
    assert_eq!(remove("duel", old.digest).await, ModuleRemoval::NotFound);
    assert!(store.get_module(&old.digest).await.unwrap().is_none());
    // The last one takes the name with it.
    assert_eq!(remove("duel", new.digest).await, ModuleRemoval::Removed);
    assert_eq!(found(&store, "duel").await, None);
    assert_eq!(put(&store, &old).await, ModulePut::New);
    assert_eq!(found(&store, "duel").await.unwrap().signatures.len(), 1);
}
