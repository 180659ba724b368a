//! What may be published and what may run, on a real store and a real engine.

use sqlx::Connection;
use tempfile::TempDir;

use super::signature::SigningKey;
use super::*;
use crate::store::StoreOptions;
use crate::wasm::EngineConfig;
use crate::wasm::testing::Guest;

/// A store that several nodes share, and keys to sign with.
struct World {
    dir: TempDir,
    ours: SigningKey,
    next: SigningKey,
    others: SigningKey,
}

impl World {
    fn new() -> Self {
        let key = || SigningKey::from_pem(SigningKey::generate().as_bytes()).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            ours: key(),
            next: key(),
            others: key(),
        }
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("shared.db").display())
    }

    fn rules(&self, keys: &[&SigningKey]) -> Rules {
        Rules {
            keys: Keys::new(keys.iter().map(|key| key.public()).collect()),
            bytes_max: 1 << 20,
            limits: ModuleLimits {
                names_max: 2,
                versions_max: 2,
            },
            ahead_bytes_max: 1 << 20,
        }
    }

    /// A node under these rules. What it compiles is kept under its name.
    async fn node(&self, name: &str, rules: Rules) -> Modules {
        let store = Store::open(&self.url(), StoreOptions::default()).await.unwrap();
        let engine = Engine::new(EngineConfig {
            cache_dir: Some(self.dir.path().join(name)),
        });
        Modules::new(engine.unwrap(), store, rules, Metrics::new())
    }

    /// Writes into the store as no node does.
    async fn tamper(&self, sql: &str) {
        let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
}

fn component(name: &str, version: &str) -> Bytes {
    let mut guest = Guest::new(name);
    guest.version = version.into();
    guest.component().into()
}

async fn publish(node: &Modules, component: &Bytes, signature: Option<String>) -> Result<Digest, Refusal> {
    let publication = Publication {
        component: component.clone(),
        signature,
    };
    node.publish(publication).await.map(|module| module.digest())
}

fn signature(key: &SigningKey, component: &Bytes) -> Option<String> {
    Some(key.sign(&digest_of(component)).to_string())
}

/// A code, and the detail `reason` where there is one.
fn why<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> (ErrorCode, String) {
    let refusal = refused.unwrap_err();
    let reason = refusal.details.get("reason").and_then(|reason| reason.as_str());
    (refusal.code, reason.unwrap_or_default().to_owned())
}

fn count(node: &Modules, sample: &str) -> u64 {
    let text = node.inner.metrics.render();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

#[tokio::test]
async fn where_keys_are_set_only_what_one_of_them_signed_is_published() {
    let world = World::new();
    let node = world.node("a", world.rules(&[&world.ours, &world.next])).await;
    let (duel, other) = (component("duel", "1.0.0"), component("duel", "1.1.0"));
    let unsigned = |reason: &str| (ErrorCode::ModuleUnsigned, reason.to_owned());
    let cases = [
        (None, unsigned("unsigned")),
        (Some(String::new()), unsigned("malformed")),
        (Some("no base64".into()), unsigned("malformed")),
        (signature(&world.others, &duel), unsigned("other_key")),
        (signature(&world.ours, &other), unsigned("other_key")),
    ];
    for (signature, expected) in cases {
        assert_eq!(
            why(publish(&node, &duel, signature.clone()).await),
            expected,
            "{signature:?}"
        );
    }
    assert_eq!(count(&node, "rookery_publications_total{outcome=\"unsigned\"}"), 5);
    assert_eq!(node.list().await.unwrap(), []);
    assert_eq!(why(node.resolve("duel").await).0, ErrorCode::ModuleNotFound);

    // Either key will do, and the key is told with the module.
    for key in [&world.ours, &world.next] {
        publish(&node, &duel, signature(key, &duel)).await.unwrap();
    }
    publish(&node, &other, signature(&world.next, &other)).await.unwrap();
    assert_eq!(count(&node, "rookery_publications_total{outcome=\"taken\"}"), 3);
    let row = node.resolve("duel").await.unwrap().row;
    assert_eq!(node.trust(&row), Ok(Some(world.next.public().id())));
    assert_eq!(row.signatures[0].key_id, Some(world.next.public().id().to_string()));
}

#[tokio::test]
async fn without_keys_everything_runs_and_signatures_are_kept_for_the_day_when_there_are() {
    let world = World::new();
    let before = world.node("a", world.rules(&[])).await;
    let (signed, bare) = (component("signed", "1.0.0"), component("bare", "1.0.0"));
    let refused = publish(&before, &signed, Some("no base64".into())).await;
    assert_eq!(why(refused).0, ErrorCode::BadMessage);
    let signed_digest = publish(&before, &signed, signature(&world.ours, &signed))
        .await
        .unwrap();
    let bare_digest = publish(&before, &bare, None).await.unwrap();
    let foreign = signature(&world.others, &bare);
    assert_eq!(publish(&before, &bare, foreign).await, Ok(bare_digest));
    before.resolve("bare").await.unwrap();

    // The same node with keys, and one that has never compiled anything.
    let rules = || world.rules(&[&world.ours]);
    let (same, fresh) = (world.node("a", rules()).await, world.node("b", rules()).await);
    for node in [&same, &fresh] {
        let row = node.resolve("signed").await.unwrap().row;
        assert_eq!(node.trust(&row), Ok(Some(world.ours.public().id())));
        node.load(signed_digest, Purpose::NewMatch).await.unwrap();
        let unsigned = (ErrorCode::ModuleUnsigned, "other_key".to_owned());
        assert_eq!(why(node.resolve("bare").await), unsigned);
        assert_eq!(why(node.load(bare_digest, Purpose::NewMatch).await), unsigned);
    }
    // What ran here when it could goes on; nothing that only the store speaks for is brought in.
    same.load(bare_digest, Purpose::RunningMatch).await.unwrap();
    assert_eq!(
        why(same.load(bare_digest, Purpose::NewMatch).await).0,
        ErrorCode::ModuleUnsigned
    );
    assert_eq!(
        why(fresh.load(bare_digest, Purpose::RunningMatch).await).0,
        ErrorCode::ModuleUnsigned
    );

    // Signed after all: both go on at once where they hear of it.
    publish(&same, &bare, signature(&world.ours, &bare)).await.unwrap();
    fresh.forget("bare");
    for node in [&same, &fresh] {
        node.resolve("bare").await.unwrap();
        node.load(bare_digest, Purpose::NewMatch).await.unwrap();
        node.load(bare_digest, Purpose::RunningMatch).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_put_back_is_published_only_if_its_author_says_so() {
    let world = World::new();
    let node = world.node("a", world.rules(&[])).await;
    let growing = || {
        Guest::new("growing")
            .with("(table $t 1 funcref)")
            .on("tick", "(drop (table.grow $t (ref.null func) (i32.const 1)))")
            .ticking(20)
    };
    let (code, reason) = why(publish(&node, &growing().component().into(), None).await);
    assert_eq!(code, ErrorCode::ModuleInvalid);
    assert!(
        reason.contains("changes a table (`table.grow`) while a match runs")
            && reason.contains("(\"image\", \"none\")"),
        "{reason}"
    );
    assert!(node.resolve("growing").await.is_err());
    let declined = growing().declining_images().component().into();
    publish(&node, &declined, None).await.unwrap();
}

#[tokio::test]
async fn what_somebody_has_written_into_the_store_does_not_run() {
    let world = World::new();
    let rules = || world.rules(&[&world.ours]);
    let writer = world.node("a", rules()).await;
    let (duel, arena) = (component("duel", "1.0.0"), component("arena", "1.0.0"));
    let duel_digest = publish(&writer, &duel, signature(&world.ours, &duel)).await.unwrap();
    let arena_digest = publish(&writer, &arena, signature(&world.ours, &arena)).await.unwrap();

    // Other bytes under a signed digest, and signed bytes under another's name.
    let evil = component("duel", "6.6.6");
    let hex: String = evil.iter().map(|byte| format!("{byte:02x}")).collect();
    world
        .tamper(&format!(
            "update modules set component = x'{hex}' where digest = '{duel_digest}'"
        ))
        .await;
    world
        .tamper("update modules set name = 'lobby' where name = 'arena'")
        .await;
    let fresh = world.node("b", rules()).await;
    for digest in [duel_digest, arena_digest] {
        for purpose in [Purpose::NewMatch, Purpose::RunningMatch] {
            let (code, reason) = why(fresh.load(digest, purpose).await);
            assert_eq!(code, ErrorCode::ModuleInvalid);
            assert!(reason.contains("stored"), "{reason}");
        }
    }
    assert_eq!(count(&fresh, "rookery_module_faults_total{reason=\"damaged\"}"), 4);
    // Also where nobody asks for signatures.
    let unkeyed = world.node("c", world.rules(&[])).await;
    assert_eq!(
        why(unkeyed.load(duel_digest, Purpose::NewMatch).await).0,
        ErrorCode::ModuleInvalid
    );

    // A row of their own, with a signature of their own.
    let digest = digest_of(&evil);
    let signature = signature(&world.others, &evil).unwrap();
    world
        .tamper(&format!(
            "insert into modules select '{digest}', 'duel', '6.6.6', manifest, x'{hex}', 1 from modules limit 1;
             update module_heads set digest = '{digest}' where name = 'duel';
             insert into module_signatures values ('{digest}', '{signature}', '{}', 1)",
            world.ours.public().id()
        ))
        .await;
    assert_eq!(why(fresh.resolve("duel").await).0, ErrorCode::ModuleUnsigned);
    for purpose in [Purpose::NewMatch, Purpose::RunningMatch] {
        assert_eq!(why(fresh.load(digest, purpose).await).0, ErrorCode::ModuleUnsigned);
    }
}

#[tokio::test]
async fn a_refusal_of_a_publication_says_what_to_do() {
    let world = World::new();
    let node = world.node("a", world.rules(&[])).await;
    let said = async |component: Bytes| publish(&node, &component, None).await.unwrap_err();
    let large = said(vec![0; (1 << 20) + 1].into()).await;
    assert_eq!(
        (large.code, large.details["limit"].as_u64()),
        (ErrorCode::TooLarge, Some(1 << 20))
    );
    assert!(large.message.contains("limits.module"), "{large}");
    let duels: Vec<Bytes> = ["1.0.0", "1.1.0", "1.2.0"]
        .map(|version| component("duel", version))
        .into();
    let digests = [
        publish(&node, &duels[0], None).await.unwrap(),
        publish(&node, &duels[1], None).await.unwrap(),
    ];
    let versions = said(duels[2].clone()).await;
    assert_eq!(versions.code, ErrorCode::ModuleTooMany);
    for part in ["versions of duel", "limits.module_versions", "rookery module remove"] {
        assert!(versions.message.contains(part), "{versions}");
    }
    publish(&node, &component("arena", "1.0.0"), None).await.unwrap();
    let names = said(component("echo", "1.0.0")).await;
    assert!(names.message.contains("limits.modules)"), "{names}");
    for (outcome, counted) in [("too_large", 1), ("too_many", 2), ("taken", 3), ("invalid", 0)] {
        let sample = format!("rookery_publications_total{{outcome=\"{outcome}\"}}");
        assert_eq!(count(&node, &sample), counted, "{outcome}");
    }

    let newest = node.remove(&format!("duel@{}", digests[1])).await;
    assert_eq!(why(newest).0, ErrorCode::ModuleInUse);
    for reference in ["duel", "duel@beef", "@", ""] {
        assert_eq!(
            why(node.remove(reference).await).0,
            ErrorCode::BadMessage,
            "{reference}"
        );
    }
    let old = format!("duel@{}", digests[0]);
    node.resolve(&old).await.unwrap();
    assert_eq!(node.remove(&old).await.unwrap(), "duel");
    assert_eq!(why(node.resolve(&old).await).0, ErrorCode::ModuleNotFound);
    assert_eq!(
        why(node.load(digests[0], Purpose::NewMatch).await).0,
        ErrorCode::ModuleNotFound
    );
    assert_eq!(why(node.remove(&old).await).0, ErrorCode::ModuleNotFound);
    publish(&node, &duels[2], None).await.unwrap();
}

/// Runs what compiles ahead until this is so.
async fn ahead_until(node: &Modules, what: &str, is_so: impl AsyncFn() -> bool) {
    let until = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = task::run(node.clone()) => unreachable!("it never ends"),
        done = tokio::time::timeout(Duration::from_secs(60), until) => done.unwrap_or_else(|_| panic!("{what}")),
    }
}

#[tokio::test]
async fn what_is_published_is_compiled_ahead_of_its_use_and_what_nothing_needs_is_let_go() {
    let world = World::new();
    let rules = || world.rules(&[&world.ours]);
    let (writer, reader) = (world.node("a", rules()).await, world.node("b", rules()).await);
    let (old, new) = (component("duel", "1.0.0"), component("duel", "1.1.0"));
    let old_digest = publish(&writer, &old, signature(&world.ours, &old)).await.unwrap();
    ahead_until(&reader, "the first version is compiled", async || {
        reader.is_compiled(&old_digest)
    })
    .await;
    // A match holds on to it, and somebody who has no key makes a row of their own.
    let in_use = reader.load(old_digest, Purpose::NewMatch).await.unwrap();
    let new_digest = publish(&writer, &new, signature(&world.ours, &new)).await.unwrap();
    world
        .tamper(&format!(
            "insert into modules select '{evil}', 'evil', version, manifest, component, 9 from modules limit 1;
             insert into module_heads values ('evil', '{evil}', 9)",
            evil = Digest([0xee; 32])
        ))
        .await;
    reader.forget("duel");
    ahead_until(&reader, "the second version is compiled", async || {
        reader.is_compiled(&new_digest)
    })
    .await;
    assert!(reader.is_compiled(&old_digest), "a match uses it");
    drop(in_use);
    reader.forget("duel");
    ahead_until(&reader, "the first version is let go", async || {
        !reader.is_compiled(&old_digest)
    })
    .await;
    assert_eq!(reader.compiled_digests(), [new_digest]);
    reader.load(new_digest, Purpose::NewMatch).await.unwrap();
    for (work, counted) in [("ahead", 2), ("use", 0), ("publication", 0)] {
        let sample = format!("rookery_module_compile_seconds_count{{for=\"{work}\"}}");
        assert_eq!(count(&reader, &sample), counted, "{work}");
    }
    assert_eq!(count(&reader, "rookery_modules_waiting"), 0);
    assert_eq!(count(&reader, "rookery_module_faults_total{reason=\"unsigned\"}"), 0);
}

#[tokio::test]
async fn what_has_no_room_is_compiled_by_its_first_use() {
    let world = World::new();
    let writer = world.node("a", world.rules(&[])).await;
    let (large, small) = (component("large-by-its-name", "1.0.0"), component("small", "1.0.0"));
    let large_digest = publish(&writer, &large, None).await.unwrap();
    let small_digest = publish(&writer, &small, None).await.unwrap();
    let rules = Rules {
        ahead_bytes_max: small.len() as u64,
        ..world.rules(&[])
    };
    let reader = world.node("b", rules).await;
    ahead_until(&reader, "there is room for one", async || {
        reader.is_compiled(&small_digest)
    })
    .await;
    assert!(!reader.is_compiled(&large_digest));
    reader.load(large_digest, Purpose::NewMatch).await.unwrap();
    assert_eq!(count(&reader, "rookery_module_compile_seconds_count{for=\"use\"}"), 1);
}
