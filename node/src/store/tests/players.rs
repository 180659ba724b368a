//! Accounts, names and tokens of players.

use super::*;

suite! {
    a_device_is_one_player,
    a_registered_name_is_taken_once,
    a_refresh_token_counts_once,
}

fn account(kind: CredentialKind, key: &str, name: &str) -> NewAccount {
    NewAccount {
        player: player_id(),
        name: name.into(),
        rename: false,
        credential: Some(NewCredential {
            kind,
            key: key.into(),
            secret: Some("hash".into()),
        }),
        on_existing: OnExisting::Adopt,
        family: None,
    }
}

fn opened(outcome: AccountOutcome) -> Account {
    match outcome {
        AccountOutcome::Opened(account) => account,
        AccountOutcome::Taken => panic!("taken"),
    }
}

async fn a_device_is_one_player(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let opens = (0..40).map(|no: usize| {
        let store = stores[no % 2].clone();
        async move {
            opened(
                store
                    .open_account(account(CredentialKind::Device, "device", "guest"))
                    .await
                    .unwrap(),
            )
        }
    });
    let accounts = all(opens).await;
    let players: BTreeSet<PlayerId> = accounts.iter().map(|account| account.player.id).collect();
    assert_eq!(players.len(), 1);
    assert_eq!(accounts.iter().filter(|account| account.is_new).count(), 1);
    let id = *players.first().unwrap();
    assert_eq!(stores[0].read_player(id).await.unwrap().unwrap().name, "guest");

    let renamed = NewAccount {
        rename: true,
        ..account(CredentialKind::Device, "device", "Ana")
    };
    let renamed = opened(stores[0].open_account(renamed).await.unwrap());
    assert_eq!(
        (renamed.player.id, renamed.player.name.as_str(), renamed.is_new),
        (id, "Ana", false)
    );
    assert_eq!(stores[1].read_player(id).await.unwrap().unwrap().name, "Ana");

    // Without a credential everybody is somebody else; the same key of another kind too.
    let nobody = NewAccount {
        credential: None,
        ..account(CredentialKind::Device, "", "x")
    };
    assert!(opened(stores[0].open_account(nobody).await.unwrap()).is_new);
    assert!(
        opened(
            stores[0]
                .open_account(account(CredentialKind::External, "device", "x"))
                .await
                .unwrap()
        )
        .is_new
    );
}

async fn a_registered_name_is_taken_once(place: &Place) {
    let store = place.open().await;
    let registration = || NewAccount {
        on_existing: OnExisting::Refuse,
        ..account(CredentialKind::Password, "ana", "Ana")
    };
    let tries = (0..10).map(|_| {
        let (store, registration) = (store.clone(), registration());
        async move { (registration.player, store.open_account(registration).await.unwrap()) }
    });
    let mut winners = all(tries)
        .await
        .into_iter()
        .filter(|(_, outcome)| *outcome != AccountOutcome::Taken);
    let (winner, _) = winners.next().unwrap();
    assert!(winners.next().is_none());
    let found = store
        .find_credential(CredentialKind::Password, "ana")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.player.id, found.secret.as_deref()), (winner, Some("hash")));
    // The answer was lost, the same request comes again.
    let again = NewAccount {
        player: winner,
        ..registration()
    };
    assert_eq!(opened(store.open_account(again).await.unwrap()).player.id, winner);
    assert_eq!(
        store.find_credential(CredentialKind::Password, "bob").await.unwrap(),
        None
    );
}

async fn a_refresh_token_counts_once(place: &Place) {
    let store = place.open().await;
    let family = |family: &str, hash: &str| NewFamily {
        family: family.into(),
        hash: hash.into(),
        expires_in_ms: 60_000,
    };
    let new = NewAccount {
        family: Some(family("f", "h1")),
        ..account(CredentialKind::Device, "d", "guest")
    };
    let player = opened(store.open_account(new).await.unwrap()).player;
    let shown = |hash: &'static str, repeat_within_ms: u64| ShownToken {
        family: "f",
        hash,
        other_successor: None,
        repeat_within_ms,
    };
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown("h2", 9_000), &family("f", "h3")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    // A repeat that comes to a node which signs with the next secret is told the successor that counts, and not taken for a copy.
    let elsewhere = ShownToken {
        other_successor: Some("h3"),
        ..shown("h2", 9_000)
    };
    assert_eq!(
        store
            .rotate(&elsewhere, &family("f", "h3 of the next secret"))
            .await
            .unwrap(),
        Rotation::DoneByOther(player.clone())
    );
    assert_eq!(store.revocations_since(0).await.unwrap().families, Vec::<String>::new());

    // Two steps back is a copy: the family ends.
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Reused
    );
    assert_eq!(
        store.rotate(&shown("h3", 9_000), &family("f", "h4")).await.unwrap(),
        Rotation::Unknown
    );
    let revoked = store.revocations_since(0).await.unwrap();
    assert_eq!(revoked.families, ["f"]);
    assert_eq!(
        store.revocations_since(revoked.as_of_ms + 1).await.unwrap().families,
        Vec::<String>::new()
    );

    // So is a repeat that comes too late.
    store.start_family(player.id, &family("g", "h1")).await.unwrap();
    let shown_g = |repeat_within_ms| ShownToken {
        family: "g",
        hash: "h1",
        other_successor: None,
        repeat_within_ms,
    };
    assert_eq!(
        store.rotate(&shown_g(0), &family("g", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown_g(0), &family("g", "h2")).await.unwrap(),
        Rotation::Reused
    );

    // An expired token is nobody's, and is swept with revocations that are old enough.
    let expired = NewFamily {
        expires_in_ms: 0,
        ..family("e", "h1")
    };
    store.start_family(player.id, &expired).await.unwrap();
    let shown_e = ShownToken {
        family: "e",
        ..shown("h1", 9_000)
    };
    assert_eq!(
        store.rotate(&shown_e, &family("e", "h2")).await.unwrap(),
        Rotation::Unknown
    );
    store.revoke_family("e").await.unwrap();
    store.revoke_family("e").await.unwrap();
    assert_eq!(store.revocations_since(0).await.unwrap().families.len(), 3);
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.sweep_tokens(0).await.unwrap();
    assert_eq!(store.revocations_since(0).await.unwrap().families.len(), 0);
}
