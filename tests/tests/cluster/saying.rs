//! What matches say in chat, over real nodes: in rooms and in their own channel, in their name, each line once, whichever node
//! runs the match and whichever others it reaches. The courier (tests/guests/courier) says what it is told to.

use std::time::Duration;

use rookery_tests::harness::{Client, Encoding, Network, Relays, TestCluster, courier, eventually, until_within};
use serde_json::{Value, json};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

/// A courier with a name, so that it is held under a lease, on the node with this index. Those that were placed elsewhere stay, and
/// leave the next one for the node that has fewer.
async fn place(cluster: &TestCluster, player: &Client, index: usize, name: &str) -> String {
    let wanted = json!(cluster.node(index).name());
    let mut tries = 0;
    until_within(Duration::from_secs(30), "a courier is placed there", async || {
        tries += 1;
        let wish = json!({"module": "courier", "name": format!("{name}-{tries}")});
        let made = player.create_with(wish).await.unwrap();
        (cluster.ops(0).match_view(&made).await["owner"] == wanted).then_some(made)
    })
    .await
}

async fn join(client: &Client, channel: &str) {
    client.ask("channel.join", json!({"channel": channel})).await.unwrap();
}

/// Makes a match say something.
async fn say(player: &Client, game_match: &str, channel: &str, text: &str) {
    player
        .send_unnumbered(game_match, json!({"say": [channel, text]}))
        .await;
}

/// The next line that a client hears, and that it is the match's.
async fn heard(client: &Client, game_match: &str) -> (u64, Value) {
    let push = client.push_of("channel.message").await;
    assert_eq!(push["from"], json!(format!("match:{game_match}")), "{push}");
    assert!(push["at"].as_u64() > Some(0), "{push}");
    (
        push["message"].as_u64().expect("a line has a number"),
        push["text"].clone(),
    )
}

async fn lines(client: &Client, channel: &str) -> Vec<Value> {
    let history = client
        .ask("channel.history", json!({"channel": channel}))
        .await
        .unwrap();
    let messages = history["messages"].as_array().expect("a list");
    messages.iter().map(|line| line["text"].clone()).collect()
}

async fn check_saying(cluster: &TestCluster) {
    cluster.ops(0).publish(courier()).await;
    for (no, encoding) in BOTH.into_iter().enumerate() {
        // Two who listen and the match that speaks are on three nodes.
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let speaker = place(cluster, &ana, 2, &format!("speaker-{no}")).await;
        let other = place(cluster, &ana, 2, &format!("other-{no}")).await;
        ana.join(&speaker).await.unwrap();
        ben.join(&other).await.unwrap();
        let (room, own, others) = (
            format!("room:square {no}"),
            format!("match:{speaker}"),
            format!("match:{other}"),
        );
        for channel in [&room, &own] {
            join(&ana, channel).await;
        }
        for channel in [&room, &others] {
            join(&ben, channel).await;
        }
        let refused = ben.ask("channel.join", json!({"channel": own})).await.unwrap_err();
        assert_eq!(refused.code, "channel.forbidden");

        say(&ana, &speaker, &room, "hear, hear").await;
        for client in [&ana, &ben] {
            assert_eq!(heard(client, &speaker).await, (1, json!("hear, hear")));
        }
        say(&ana, &speaker, &own, "among us").await;
        assert_eq!(heard(&ana, &speaker).await, (1, json!("among us")));

        // What it may not say is not written anywhere, and holds up nothing: the next line is the next number.
        let to_ben = format!("dm:{}", ben.player());
        for refused in [others.as_str(), to_ben.as_str(), "world:nowhere", "no channel", ""] {
            say(&ana, &speaker, refused, "not for you").await;
        }
        for text in ["", "a\u{0}b"] {
            say(&ana, &speaker, &room, text).await;
        }
        say(&ana, &speaker, &room, "and again").await;
        for client in [&ana, &ben] {
            assert_eq!(heard(client, &speaker).await, (2, json!("and again")));
        }
        assert_eq!(lines(&ben, &room).await, ["hear, hear", "and again"]);
        assert_eq!(lines(&ben, &others).await, [Value::Null; 0]);
        assert_eq!(lines(&ben, &format!("dm:{}", ana.player())).await, [Value::Null; 0]);
        assert_eq!(lines(&ana, &own).await, ["among us"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_is_heard_in_rooms_and_in_its_own_channel_and_nowhere_else() {
    check_saying(&TestCluster::start(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_is_heard_in_rooms_and_in_its_own_channel_and_nowhere_else_with_postgres() {
    if let Some(builder) = TestCluster::builder(3).postgres() {
        check_saying(&builder.start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_match_says_on_a_node_that_is_cut_off_is_heard_by_all_and_once() {
    let relays = Relays::start(3).await;
    let cluster = TestCluster::builder(3).on(&relays).start().await;
    cluster.ops(0).publish(courier()).await;
    let ana = cluster.node(2).guest(Encoding::Json).await;
    let ben = cluster.node(0).guest(Encoding::MsgPack).await;
    let speaker = place(&cluster, &ana, 2, "speaker").await;
    ana.join(&speaker).await.unwrap();
    for client in [&ana, &ben] {
        join(client, "room:all").await;
    }
    for other in [0, 1] {
        relays.cut(other, 2);
    }
    // Nobody tells the others, who find the lines by comparing with the store.
    for number in 1..=3 {
        say(&ana, &speaker, "room:all", &format!("line {number}")).await;
    }
    for client in [&ana, &ben] {
        for number in 1..=3 {
            assert_eq!(heard(client, &speaker).await, (number, json!(format!("line {number}"))));
        }
    }
    assert!(relays.dropped() > 0, "the node was cut off");
    for other in [0, 1] {
        relays.heal(other, 2);
    }
    cluster.settled().await;
    // What was on its way when the links broke does not come again, and the numbers go on.
    say(&ana, &speaker, "room:all", "back").await;
    for client in [&ana, &ben] {
        assert_eq!(heard(client, &speaker).await, (4, json!("back")));
    }
    assert_eq!(lines(&ben, "room:all").await, ["line 1", "line 2", "line 3", "back"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_match_says_while_the_store_is_away_is_written_once_when_it_is_back() {
    let mut builders = vec![TestCluster::builder(2)];
    builders.extend(TestCluster::builder(2).postgres());
    for builder in builders {
        let cluster = builder.start().await;
        cluster.ops(0).publish(courier()).await;
        let ana = cluster.node(0).guest(Encoding::Json).await;
        let ben = cluster.node(1).guest(Encoding::MsgPack).await;
        let speaker = place(&cluster, &ana, 0, "speaker").await;
        ana.join(&speaker).await.unwrap();
        join(&ben, "room:all").await;
        let outage = cluster.take_store().await;
        say(&ana, &speaker, "room:all", "one").await;
        let refused = ben
            .ask("channel.send", json!({"channel": "room:all", "text": "?"}))
            .await;
        assert_eq!(refused.unwrap_err().code, "unavailable");
        // Meanwhile it plays on.
        let held = ana
            .ask("match.send", json!({"match": speaker, "data": {"ask": true}}))
            .await;
        assert!(held.is_ok(), "{held:?}");
        outage.end().await;
        // The nodes find out one after the other.
        for player in [&ana, &ben] {
            eventually("the store is back", async || {
                let history = player.ask("channel.history", json!({"channel": "room:all"})).await;
                history.is_ok()
            })
            .await;
        }
        say(&ana, &speaker, "room:all", "two").await;
        let mut said = Vec::new();
        while said.len() < 2 {
            let push = ben.push_of("channel.message").await;
            if push["from"] == json!(format!("match:{speaker}")) {
                said.push(push["text"].clone());
            }
        }
        assert_eq!(said, ["one", "two"]);
        let mut written = lines(&ben, "room:all").await;
        // A line that was answered `unavailable` may have been written all the same.
        written.retain(|text| text != "?");
        assert_eq!(written, ["one", "two"]);
    }
}
