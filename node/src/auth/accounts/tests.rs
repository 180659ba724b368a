use std::num::NonZeroU32;

use super::*;
use crate::store::StoreOptions;

/// Two nodes of one cluster on one database.
struct Cluster {
    nodes: Vec<Arc<Accounts>>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn start(policy: Policy) -> Self {
        let keys = || TokenKeys::of_cluster(&[3; 32], None);
        Self::start_with(policy, [keys(), keys()]).await
    }

    async fn start_with(policy: Policy, keys: [TokenKeys; 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/rookery.db", directory.path().display());
        let mut nodes = Vec::new();
        for keys in keys {
            let store = Store::open(&url, StoreOptions::default()).await.unwrap();
            let options = AuthOptions {
                keys,
                policy: policy.clone(),
                quota: Quota::per_second(NonZeroU32::new(20).unwrap()).allow_burst(NonZeroU32::new(5).unwrap()),
                rate_limited: prometheus::IntCounter::new("refused", "not exported").unwrap(),
            };
            nodes.push(Accounts::open(store, options).await.unwrap());
        }
        Self {
            nodes,
            _directory: directory,
        }
    }
}

fn code(error: AuthError) -> &'static str {
    error.refusal().code.as_str()
}

#[tokio::test]
async fn the_same_device_is_the_same_player_on_every_node() {
    let cluster = Cluster::start(Policy::Open).await;
    let first = cluster.nodes[0].guest(Some("phone"), None).await.unwrap();
    let second = cluster.nodes[1].guest(Some("phone"), None).await.unwrap();
    assert_eq!(first.player, second.player);
    assert!(first.player.name.starts_with("guest-"), "{}", first.player.name);
    assert_ne!(first.refresh_token, second.refresh_token);
    assert_ne!(
        cluster.nodes[0].guest(Some("tablet"), None).await.unwrap().player.id,
        first.player.id
    );
    assert_ne!(
        cluster.nodes[0].guest(None, None).await.unwrap().player.id,
        first.player.id
    );
    let named = cluster.nodes[0].guest(Some("phone"), Some("  Ana ")).await.unwrap();
    assert_eq!((named.player.id, named.player.name.as_str()), (first.player.id, "Ana"));
    assert_eq!(
        cluster.nodes[1].guest(Some("phone"), None).await.unwrap().player.name,
        "Ana"
    );
}

#[tokio::test]
async fn a_token_counts_on_every_node_until_the_sign_in_ends() {
    let cluster = Cluster::start(Policy::Open).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(b.clone().run(shutdown.clone()));
    let tickets = a.guest(None, Some("Ana")).await.unwrap();
    let identity = b.authenticate(&tickets.access_token).await.unwrap();
    assert_eq!((identity.player, identity.name.as_str()), (tickets.player.id, "Ana"));
    let resume = b.resume_token(&ResumeToken {
        session: rookery_protocol::SessionId::from_parts(1, 2),
        identity: identity.clone(),
        attachment: 7,
    });
    assert_eq!(a.verify_resume(&resume).unwrap().attachment, 7);

    a.logout(&tickets.refresh_token).await.unwrap();
    assert_eq!(a.verify(&tickets.access_token), Err(TokenError::Revoked));
    let until = Instant::now() + Duration::from_secs(10);
    while !b.is_revoked(&identity) {
        assert!(Instant::now() < until, "the other node never heard of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(b.verify(&tickets.access_token), Err(TokenError::Revoked));
    assert_eq!(b.verify_resume(&resume), Err(TokenError::Revoked));
    assert_eq!(
        code(b.refresh(&tickets.refresh_token).await.unwrap_err()),
        "unauthenticated"
    );
    shutdown.cancel();
    task.await.unwrap();
    // A node that starts later knows it from the beginning.
    a.read_revocations(0).await.unwrap();
    assert!(a.is_revoked(&identity));
}

#[tokio::test]
async fn a_registered_player_signs_in_by_password_only() {
    let cluster = Cluster::start(Policy::Open).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let registered = a.register("Ana", "correct horse").await.unwrap();
    assert_eq!(
        b.login("ana ", "correct horse").await.unwrap().player,
        registered.player
    );
    assert_eq!(
        code(b.register("ANA", "another password").await.unwrap_err()),
        "name.taken"
    );
    let wrong = b.login("Ana", "wrong password").await.unwrap_err();
    let unknown = b.login("Bob", "correct horse").await.unwrap_err();
    assert_eq!(wrong.to_string(), unknown.to_string());
    assert_eq!(code(wrong), "unauthenticated");
}

#[tokio::test]
async fn a_lost_answer_to_a_refresh_is_told_again_by_a_node_that_signs_with_the_next_secret() {
    let (old, new) = ([3; 32], [4; 32]);
    let keys = [
        TokenKeys::of_cluster(&old, Some(&new)),
        TokenKeys::of_cluster(&new, Some(&old)),
    ];
    let cluster = Cluster::start_with(Policy::Open, keys).await;
    for (asked, asked_again) in [(0, 1), (1, 0)] {
        let [asked, asked_again] = [&cluster.nodes[asked], &cluster.nodes[asked_again]];
        let first = asked.guest(None, None).await.unwrap();
        let second = asked.refresh(&first.refresh_token).await.unwrap();
        let again = asked_again.refresh(&first.refresh_token).await.unwrap();
        assert_eq!(again.refresh_token, second.refresh_token);
        // It goes on from there, on either node.
        let third = asked_again.refresh(&second.refresh_token).await.unwrap();
        assert!(asked.refresh(&third.refresh_token).await.is_ok());
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_shown_again_later_ends_the_sign_in() {
    let cluster = Cluster::start(Policy::Open).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let first = a.guest(None, None).await.unwrap();
    let second = b.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(second.player, first.player);
    // The answer was lost and the client asks once more, elsewhere.
    assert_eq!(
        a.refresh(&first.refresh_token).await.unwrap().refresh_token,
        second.refresh_token
    );
    let third = a.refresh(&second.refresh_token).await.unwrap();
    assert!(a.verify(&third.access_token).is_ok());
    assert_eq!(
        code(a.refresh(&first.refresh_token).await.unwrap_err()),
        "unauthenticated"
    );
    assert_eq!(a.verify(&third.access_token), Err(TokenError::Revoked));
    assert_eq!(
        code(b.refresh(&third.refresh_token).await.unwrap_err()),
        "unauthenticated"
    );
}

#[tokio::test]
async fn a_closed_server_knows_its_players_and_takes_no_new_ones() {
    let cluster = Cluster::start(Policy::Open).await;
    let guest = cluster.nodes[0].guest(Some("phone"), None).await.unwrap();
    cluster.nodes[0].register("Ana", "correct horse").await.unwrap();
    let options = AuthOptions {
        keys: TokenKeys::of_cluster(&[3; 32], None),
        policy: Policy::Closed,
        quota: Quota::per_second(NonZeroU32::MIN),
        rate_limited: prometheus::IntCounter::new("refused", "not exported").unwrap(),
    };
    let closed = Accounts::open(cluster.nodes[0].store.clone(), options).await.unwrap();
    assert_eq!(closed.guest(Some("phone"), None).await.unwrap().player, guest.player);
    closed.login("Ana", "correct horse").await.unwrap();
    closed.refresh(&guest.refresh_token).await.unwrap();
    for refused in [
        closed.guest(Some("tablet"), None).await,
        closed.guest(None, None).await,
        closed.register("Bob", "correct horse").await,
    ] {
        assert_eq!(code(refused.unwrap_err()), "forbidden");
    }
}

#[tokio::test]
async fn a_subject_of_another_issuer_is_one_player_on_every_node() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, pair.public_key());
    let file = tempfile::NamedTempFile::new().unwrap();
    let set = serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]});
    std::fs::write(file.path(), set.to_string()).unwrap();
    let cluster = Cluster::start(Policy::External(ExternalOptions {
        key_file: file.path().to_owned(),
        issuer: "https://id.example".into(),
        audience: None,
    }))
    .await;
    let token = |subject: &str, name: &str| {
        let claims =
            serde_json::json!({"iss": "https://id.example", "sub": subject, "name": name, "exp": 4_000_000_000u64});
        jsonwebtoken::encode(
            &Header::new(Algorithm::EdDSA),
            &claims,
            &EncodingKey::from_ed_der(document.as_ref()),
        )
        .unwrap()
    };
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let ana = a.authenticate(&token("1", "Ana")).await.unwrap();
    assert_eq!(ana.name, "Ana");
    assert_eq!(b.authenticate(&token("1", "Ana")).await.unwrap(), ana);
    assert_eq!(a.authenticate(&token("1", "Ana")).await.unwrap(), ana);
    let bob = a.authenticate(&token("2", "\u{202e}boB")).await.unwrap();
    assert_ne!(bob.player, ana.player);
    assert!(bob.name.starts_with("guest-"), "{}", bob.name);
    for refused in [
        a.guest(None, None).await,
        a.register("Ana", "correct horse").await,
        a.login("Ana", "correct horse").await,
    ] {
        assert_eq!(code(refused.unwrap_err()), "forbidden");
    }
    assert_eq!(code(a.authenticate("x.y.z").await.unwrap_err()), "unauthenticated");
}

#[tokio::test]
async fn an_address_is_limited_and_others_are_not() {
    let cluster = Cluster::start(Policy::Open).await;
    let accounts = &cluster.nodes[0];
    let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
    for _ in 0..5 {
        accounts.admit(v4("10.0.0.1")).unwrap();
    }
    match accounts.admit(v4("::ffff:10.0.0.1")) {
        Err(AuthError::RateLimited { retry }) => assert!(retry <= Duration::from_millis(50), "{retry:?}"),
        other => panic!("{other:?}"),
    }
    accounts.admit(v4("10.0.0.2")).unwrap();
    // A subscriber's network is one address.
    for host in 0..5 {
        accounts.admit(v4(&format!("2001:db8:0:1::{host}"))).unwrap();
    }
    accounts.admit(v4("2001:db8:0:1::ffff")).unwrap_err();
    accounts.admit(v4("2001:db8:0:2::1")).unwrap();
}

#[test]
fn a_name_is_what_people_can_see() {
    let ok = |name: &str, expected: &str| assert_eq!(checked_name(name).unwrap(), expected);
    ok("Ana", "Ana");
    ok("  Ana Zoë 🦀  ", "Ana Zoë 🦀");
    ok(&"ü".repeat(32), &"ü".repeat(32));
    for refused in [
        "",
        "   ",
        "a\nb",
        "a\tb",
        "a\0",
        "a\u{202e}b",
        "\u{200b}",
        "\u{3164}",
        "a\u{a0}b",
        &"x".repeat(33),
    ] {
        assert!(checked_name(refused).is_err(), "{refused:?}");
    }
}
