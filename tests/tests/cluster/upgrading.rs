//! Matches that go on under another version of their module while they are played: players lose nothing, and a version that does not
//! go on from what was saved changes nothing.

use rookery_tests::harness::{Encoding, TestCluster, eventually, ledger, until};
use serde_json::{Value, json};

/// The ledger as another version: the same rules under another digest.
fn another(note: u8) -> Vec<u8> {
    // A custom section of the component: its kind, its length, and a name of one byte.
    [ledger(), &[0, 3, 1, b'v', note]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn players_lose_nothing_when_their_match_goes_on_under_another_version() {
    const INPUTS: u64 = 200;
    let mut cluster = TestCluster::start(2).await;
    let ops = cluster.ops(0);
    let first = ops.publish(ledger()).await;
    let (ana, ben) = (
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(1).guest(Encoding::MsgPack).await,
    );
    // The order comes to one node, and the match is on the other.
    let game_match = until("a ledger is placed there", async || {
        let game_match = ana.create("ledger").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(1).name()).then_some(game_match)
    })
    .await;
    ana.join(&game_match).await.unwrap();
    ben.join(&game_match).await.unwrap();
    assert_eq!(ops.match_view(&game_match).await["digest"], first);

    let second = ops.publish(&another(2)).await;
    assert_ne!(first, second);
    assert_eq!(ops.match_view(&game_match).await["digest"], first, "it is pinned");
    let path = format!("/v1/matches/{game_match}/upgrade");
    let playing = async {
        for n in 1..=INPUTS {
            ana.send(&game_match, n, json!({"add": 1})).await;
            tokio::task::yield_now().await;
        }
    };
    let ((status, upgraded), ()) = tokio::join!(ops.post(&path, json!({})), playing);
    assert_eq!(status, 200, "{upgraded}");
    assert_eq!(
        (&upgraded["from"], &upgraded["digest"]),
        (&json!(first), &json!(second))
    );
    assert_eq!(ops.match_view(&game_match).await["digest"], second);

    for player in [&ana, &ben] {
        let (mut last_seq, mut sum, mut resumed) = (0, 0, false);
        while sum < INPUTS || !resumed {
            let push = player.expect_push().await;
            if push["match"] != game_match.as_str() {
                continue;
            }
            assert_ne!(push["type"], "match.reset", "{push}");
            assert_ne!(push["type"], "match.waiting", "{push}");
            resumed |= push["key"] == "resumed" && push["data"] == json!(["upgrade"]);
            if push["data"]["sum"].is_number() {
                sum += 1;
                assert_eq!(
                    push["data"]["sum"], sum,
                    "each input has its effect once, in order: {push}"
                );
                let seq = push["seq"].as_u64().unwrap();
                assert!(seq > last_seq, "{push}");
                last_seq = seq;
            }
        }
    }

    // The row says so too: whoever goes on with the match goes on with that version.
    let ops = cluster.ops(1);
    let saves = "rookery_match_saves_total{outcome=\"written\"}";
    let before = ops.metric(saves).await.unwrap_or_default();
    eventually("what came after the upgrade is saved", async || {
        ops.metric(saves).await.unwrap_or_default() >= before + 2.0
    })
    .await;
    cluster.node_mut(1).kill();
    ana.push_where("it is back", |push| {
        push["key"] == "resumed" && push["data"] == json!(["upgrade", "restored"])
    })
    .await;
    assert_eq!(cluster.ops(0).match_view(&game_match).await["digest"], second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_go_on_from_what_was_saved_leaves_the_match_as_it_was() {
    let cluster = TestCluster::start(1).await;
    let ops = cluster.ops(0);
    let first = ops.publish(ledger()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = ana.create("ledger").await;
    ana.join(&game_match).await.unwrap();
    ana.send(&game_match, 1, json!({"stubborn": true})).await;
    ana.send(&game_match, 2, json!({"add": 3})).await;
    ana.push_where("the sum", |push| push["data"]["sum"] == 3).await;
    let upgrade = async |to: &Value| {
        let (status, refusal) = ops.post(&format!("/v1/matches/{game_match}/upgrade"), to.clone()).await;
        (status, refusal["code"].clone(), refusal["details"]["reason"].clone())
    };

    let second = ops.publish(&another(2)).await;
    let reason = "the new version does not go on from what this one saved: stubborn on purpose";
    let refused = (409, json!("match.refused"), json!(reason));
    assert_eq!(upgrade(&json!({})).await, refused);
    assert_eq!(upgrade(&json!({"to": second})).await, refused);
    assert_eq!(upgrade(&json!({"to": "beef"})).await.1, "module.not_found");
    assert_eq!(ops.match_view(&game_match).await["digest"], first);

    // It plays on, and goes on under the new version once its state fits.
    ana.send(&game_match, 3, json!({"add": 4, "stubborn": false})).await;
    ana.push_where("the sum", |push| push["data"]["sum"] == 7).await;
    assert_eq!(upgrade(&json!({"to": second})).await.0, 200);
    assert_eq!(upgrade(&json!({"to": second})).await.0, 200, "there is nothing to do");
    ana.send(&game_match, 4, json!({"add": 1})).await;
    ana.push_where("the sum", |push| push["data"]["sum"] == 8).await;
    assert_eq!(ops.match_view(&game_match).await["digest"], second);
}
