//! Chat over three nodes: lines are heard once and in order by those who are in the channel, wherever they are; and every request
//! of chat, in both encodings and on both databases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rookery_tests::harness::{Account, Builder, Client, Encoding, PATIENCE, TestCluster, eventually, until};
use serde_json::{Value, json};
use tokio::time::Instant;

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

/// A cluster whose players may talk as much as they like.
fn talkative(nodes: usize) -> Builder {
    TestCluster::builder(nodes)
        .set("limits.chat", "100000/s burst 100000")
        .set("limits.control", "100000/s burst 100000")
        .set("limits.accounts", "100000/s burst 100000")
}

async fn code(client: &Client, kind: &str, fields: Value) -> String {
    let refused = client.ask(kind, fields.clone()).await;
    refused.expect_err(&format!("{kind} {fields}")).code
}

async fn join(client: &Client, channel: &str) -> u64 {
    let joined = client.ask("channel.join", json!({"channel": channel})).await.unwrap();
    joined["last"].as_u64().expect("a channel has a last line")
}

async fn say(client: &Client, channel: &str, text: &str) -> u64 {
    let fields = json!({"channel": channel, "text": text});
    let sent = client.ask("channel.send", fields).await.unwrap();
    sent["message"].as_u64().expect("a line has a number")
}

/// The next line that a client hears.
async fn heard(client: &Client) -> (u64, Value) {
    let push = client.push_of("channel.message").await;
    (push["message"].as_u64().expect("a line has a number"), push)
}

async fn check_requests(cluster: &TestCluster) {
    cluster.publish("arena").await;
    for (no, (here, there)) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])].into_iter().enumerate() {
        let ana = cluster.node(0).guest(here).await;
        let ben = cluster.node(1).guest(there).await;
        let room = format!("room:Höhle {no}");

        // Joining, writing, hearing.
        let joined = ana.ask("channel.join", json!({"channel": room})).await.unwrap();
        assert_eq!(
            joined.as_object().unwrap().len(),
            5,
            "type, id, channel, last, members: {joined}"
        );
        assert_eq!(
            (&joined["last"], &joined["members"]),
            (&json!(0), &json!([ana.player()]))
        );
        let joined = ben.ask("channel.join", json!({"channel": room})).await.unwrap();
        let members: BTreeSet<_> = joined["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|player| player.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(members, [ana.player().to_owned(), ben.player().to_owned()].into());
        // The first push of each: nobody is told again of who is in their answer, themselves included.
        let came = ana.expect_push().await;
        let fields = json!({"type": "channel.members", "channel": room, "joined": [ben.player()], "left": []});
        assert_eq!(came, fields);
        let sent = ana
            .ask("channel.send", json!({"channel": room, "text": "hällo\n\"you\""}))
            .await
            .unwrap();
        assert_eq!((&sent["type"], &sent["message"]), (&json!("channel.sent"), &json!(1)));
        for client in [&ana, &ben] {
            let line = client.expect_push().await;
            assert_eq!(
                (&line["type"], &line["channel"]),
                (&json!("channel.message"), &json!(room))
            );
            assert_eq!((&line["message"], &line["from"]), (&json!(1), &json!(ana.player())));
            assert_eq!((&line["text"], &line["at"]), (&json!("hällo\n\"you\""), &sent["at"]));
        }
        for number in 2..=5 {
            assert_eq!(say(&ben, &room, &format!("line {number}")).await, number);
        }

        // What was said before.
        let history = |fields: Value| {
            let (ana, room) = (&ana, &room);
            async move {
                let mut all = json!({"channel": room});
                all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
                let answer = ana.ask("channel.history", all).await.unwrap();
                assert_eq!(answer["type"], "channel.messages");
                let lines = answer["messages"].as_array().unwrap().clone();
                lines
                    .iter()
                    .map(|line| line["message"].as_u64().unwrap())
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(history(json!({})).await, [1, 2, 3, 4, 5]);
        assert_eq!(history(json!({"before": 4, "limit": 2})).await, [2, 3]);

        // Leaving, and coming back for what was missed.
        let left = ben.ask("channel.leave", json!({"channel": room})).await.unwrap();
        assert_eq!(
            (&left["type"], &left["channel"]),
            (&json!("channel.left"), &json!(room))
        );
        ana.push_where("ben leaves", |push| push["left"] == json!([ben.player()]))
            .await;
        say(&ana, &room, "unheard").await;
        let late = cluster.node(1).guest(there).await;
        let fields = json!({"channel": room, "since": 3});
        let joined = late.ask("channel.join", fields).await.unwrap();
        assert_eq!((&joined["last"], &joined["truncated"]), (&json!(6), &Value::Null));
        for number in 4..=6 {
            assert_eq!(heard(&late).await.0, number);
        }

        // A world's channel is for everybody, a match's for those who are seated.
        assert_eq!(join(&ben, "world:village").await, join(&ana, "world:village").await);
        let target = ana.create("arena").await;
        let channel = format!("match:{target}");
        assert_eq!(
            code(&ana, "channel.join", json!({"channel": channel})).await,
            "channel.forbidden"
        );
        ana.join(&target).await.unwrap();
        ben.join(&target).await.unwrap();
        join(&ana, &channel).await;
        join(&ben, &channel).await;
        // Who comes and goes within one telling is not mentioned.
        ana.push_where("ben is in the match's channel", |push| {
            push["channel"] == json!(channel) && push["joined"] == json!([ben.player()])
        })
        .await;
        say(&ben, &channel, "to arms").await;
        let line = ana.push_where("the line", |push| push["text"] == "to arms").await;
        assert_eq!(line["channel"], json!(channel));
        ben.ask("match.leave", json!({"match": target})).await.unwrap();
        ana.push_where("ben is gone", |push| {
            push["channel"] == json!(channel) && push["left"] == json!([ben.player()])
        })
        .await;
        let fields = json!({"channel": channel, "text": "still here"});
        assert_eq!(code(&ben, "channel.send", fields).await, "channel.forbidden");
        assert_eq!(
            code(&ben, "channel.history", json!({"channel": channel})).await,
            "channel.forbidden"
        );

        // Refusals.
        let nobody = format!("dm:{}", "0".repeat(26));
        let own = format!("dm:{}", ana.player());
        for channel in ["hall", "room:", "hall:a", "world:nowhere", "match:none", &nobody, &own] {
            for (kind, fields) in [
                ("channel.join", json!({"channel": channel})),
                ("channel.send", json!({"channel": channel, "text": "x"})),
                ("channel.history", json!({"channel": channel})),
            ] {
                let refused = ana.ask(kind, fields).await.unwrap_err();
                assert_eq!(refused.code, "channel.invalid", "{kind} {channel}");
                assert_eq!(refused.details["channel"], json!(channel));
            }
        }
        assert_eq!(
            code(&ana, "channel.leave", json!({"channel": "hall"})).await,
            "channel.invalid"
        );
        let too_long = json!({"channel": room, "text": "x".repeat(2_049)});
        assert_eq!(code(&ana, "channel.send", too_long).await, "too_large");
        for text in ["", " \n", "a\u{0}b"] {
            assert_eq!(
                code(&ana, "channel.send", json!({"channel": room, "text": text})).await,
                "bad_message"
            );
        }
        for (kind, fields) in [
            ("channel.join", json!({})),
            ("channel.join", json!({"channel": 7})),
            ("channel.send", json!({"channel": room})),
        ] {
            assert_eq!(code(&ana, kind, fields).await, "bad_message");
        }
        // Two channels are taken: the room and the world. The match's was left with the match.
        join(&late, &room).await;
        for no in 0..31 {
            join(&late, &format!("room:{no}")).await;
        }
        join(&late, "room:0").await;
        assert_eq!(
            code(&late, "channel.join", json!({"channel": "room:one more"})).await,
            "channel.too_many"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_chat_is_served_and_refused_in_both_encodings() {
    let builder = || talkative(2).set("worlds.village.zones.square", "village");
    check_requests(&builder().start().await).await;
    if let Some(builder) = builder().postgres() {
        check_requests(&builder.start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_have_a_rate_of_their_own() {
    let cluster = TestCluster::builder(1).set("limits.chat", "1/s burst 3").start().await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let send = async || ana.ask("channel.send", json!({"channel": "room:a", "text": "x"})).await;
        for _ in 0..3 {
            send().await.unwrap();
        }
        let refused = send().await.unwrap_err();
        assert_eq!(refused.code, "rate_limited");
        assert!(refused.details["retry_ms"].as_u64().unwrap() <= 1_000);
        // Without a number too it is said what became of each line.
        for _ in 0..5 {
            ana.tell("channel.send", json!({"channel": "room:a", "text": "x"}))
                .await;
        }
        for _ in 0..5 {
            let said = ana.expect_push().await;
            assert!(
                said["type"] == "channel.sent" || said["code"] == "rate_limited",
                "{said}"
            );
        }
        // Joining is another class.
        join(&ana, "room:a").await;
    }
    let limited = cluster
        .ops(0)
        .metric("rookery_rate_limited_total{class=\"chat\"}")
        .await;
    assert!(limited.is_some_and(|limited| limited >= 2.0), "{limited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_heard_by_its_two_players_wherever_they_are() {
    let cluster = talkative(3).start().await;
    let (first, second) = (cluster.node(0).client_address(), cluster.node(1).client_address());
    let (ana, ben) = (Account::guest(first).await, Account::guest(first).await);
    let ana = Client::open(first, Encoding::Json, &ana).await;
    let sessions = [
        Client::open(first, Encoding::Json, &ben).await,
        Client::open(second, Encoding::MsgPack, &ben).await,
    ];
    let eve = cluster.node(2).guest(Encoding::Json).await;
    let (to_ben, to_ana) = (format!("dm:{}", ben.player), format!("dm:{}", ana.player()));
    // Nobody has joined anything.
    for number in 1..=20 {
        let (from, channel) = if number % 3 == 0 {
            (&sessions[1], &to_ana)
        } else {
            (&ana, &to_ben)
        };
        assert_eq!(say(from, channel, &format!("line {number}")).await, number);
    }
    for number in 1..=20 {
        for (client, channel) in [(&ana, &to_ben), (&sessions[0], &to_ana), (&sessions[1], &to_ana)] {
            let (heard, push) = heard(client).await;
            assert_eq!((heard, &push["channel"]), (number, &json!(channel)));
            assert_eq!(push["text"], json!(format!("line {number}")));
        }
    }
    let joined = sessions[0]
        .ask("channel.join", json!({"channel": to_ana, "since": 18}))
        .await
        .unwrap();
    assert_eq!(joined["last"], json!(20));
    assert_eq!((heard(&sessions[0]).await.0, heard(&sessions[0]).await.0), (19, 20));
    assert_eq!(say(&ana, &to_ben, "more").await, 21);
    assert_eq!(heard(&sessions[0]).await.0, 21);
    // Eve's channel with ana is another one, and she has heard nothing.
    assert_eq!(say(&eve, &to_ana, "hello").await, 1);
    assert_eq!(heard(&eve).await.0, 1);
}

/// Copies of lines that a node sent to others.
async fn copies(cluster: &TestCluster, node: usize) -> f64 {
    let copies = cluster.ops(node).metric("rookery_chat_copies_total").await;
    copies.expect("the metric is there from the start")
}

/// Lines that `writer` says, until one goes to as many other nodes as it should: the directory has heard of everybody then.
async fn say_until_copied(cluster: &TestCluster, writer: &Client, channel: &str, nodes: u32) -> u64 {
    until("a line goes where the players are", async || {
        let before = copies(cluster, 0).await;
        let number = say(writer, channel, "x").await;
        // What is not known where yet is told a quarter of a second later, to everyone at worst.
        tokio::time::sleep(Duration::from_millis(400)).await;
        (copies(cluster, 0).await - before == f64::from(nodes)).then_some(number)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_conversation_goes_once_to_each_node_where_its_players_are() {
    let cluster = talkative(3).start().await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let account = Account::guest(cluster.node(1).client_address()).await;
    let to_ben = format!("dm:{}", account.player);

    // Ben is nowhere: nobody else hears, and nothing is lost.
    let mut last = say_until_copied(&cluster, &ana, &to_ben, 0).await;
    let ben = Client::open(cluster.node(2).client_address(), Encoding::MsgPack, &account).await;
    let to_ana = format!("dm:{}", ana.player());
    let history = ben
        .ask("channel.history", json!({"channel": to_ana, "limit": 200}))
        .await
        .unwrap();
    let numbers = history["messages"].as_array().unwrap().iter();
    assert!(numbers.map(|line| line["message"].as_u64().unwrap()).eq(1..=last));
    let joined = ben
        .ask("channel.join", json!({"channel": to_ana, "since": 0}))
        .await
        .unwrap();
    assert_eq!(joined["last"], json!(last));
    ben.push_where("the last of the missed lines", |push| push["message"] == json!(last))
        .await;

    // One node of two others, five sessions.
    let mut sessions = vec![ben];
    for _ in 0..4 {
        sessions.push(Client::open(cluster.node(2).client_address(), Encoding::Json, &account).await);
    }
    last = say_until_copied(&cluster, &ana, &to_ben, 1).await;
    let before = copies(&cluster, 0).await;
    const LINES: u64 = 50;
    for number in last + 1..=last + LINES {
        assert_eq!(say(&ana, &to_ben, "x").await, number);
    }
    for session in &sessions {
        session
            .push_where("the first of many lines", |push| push["message"] == json!(last + 1))
            .await;
        for number in last + 2..=last + LINES {
            assert_eq!(heard(session).await.0, number);
        }
    }
    assert_eq!(copies(&cluster, 0).await - before, LINES as f64, "one copy a line");
    let began = Instant::now();
    say(&ana, &to_ben, "now").await;
    assert_eq!(heard(&sessions[0]).await.1["text"], json!("now"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // Both other nodes, and none when all have gone.
    let beside = Client::open(cluster.node(1).client_address(), Encoding::Json, &account).await;
    last = say_until_copied(&cluster, &ana, &to_ben, 2).await;
    beside
        .push_where("the last line", |push| push["message"] == json!(last))
        .await;
    drop(beside);
    drop(sessions);
    say_until_copied(&cluster, &ana, &to_ben, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_opens_while_a_conversation_goes_on_misses_nothing_and_hears_nothing_twice() {
    const ROOM: &str = "room:beside";
    let cluster = Arc::new(talkative(3).start().await);
    let account = Account::guest(cluster.node(1).client_address()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let (to_ben, to_ana) = (format!("dm:{}", account.player), format!("dm:{}", ana.player()));
    // Lines that were begun, each in the conversation and in a room, and whether they go on.
    let begun = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (begun, over) = (Arc::clone(&begun), Arc::clone(&over));
        async move {
            while !over.load(Ordering::SeqCst) {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                for channel in [&to_ben, ROOM] {
                    assert_eq!(say(&ana, channel, "x").await, number);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });

    // A client that joins nothing hears every line that is begun after it was let in.
    let (mut token, mut last) = (Value::Null, 0);
    for round in 0..6 {
        let address = cluster.node(1 + round % 2).client_address();
        let ben = Client::open(address, BOTH[round % 2], &account).await;
        let after = begun.load(Ordering::SeqCst) + 1;
        let (first, _) = heard(&ben).await;
        assert!(
            first <= after,
            "{first} was the first line heard, {after} was written after it came"
        );
        last = first + 20;
        for number in first + 1..=last {
            assert_eq!(heard(&ben).await.0, number);
        }
        token = ben.opened()["resume_token"].clone();
    }

    // One that says where it stood, by what it has heard, is served what it missed, and goes on from there.
    let mut lasts = BTreeMap::from([(to_ana, last), (ROOM.to_owned(), 0)]);
    for round in 0..12 {
        let address = cluster.node(1 + round % 2).client_address();
        let resume = json!({"token": token, "matches": {}, "channels": lasts});
        let fields = json!({"token": account.access_token, "resume": resume});
        let ben = Client::open_with(address, BOTH[round % 2], fields).await;
        token = ben.opened()["resume_token"].clone();
        let until: Vec<u64> = lasts.values().map(|last| last + 20).collect();
        while lasts.values().zip(&until).any(|(last, until)| last < until) {
            let (number, push) = heard(&ben).await;
            let channel = push["channel"].as_str().unwrap();
            let last = lasts.get_mut(channel).unwrap();
            *last += 1;
            assert_eq!(number, *last, "round {round}, {channel}");
        }
    }
    over.store(true, Ordering::SeqCst);
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_on_its_way_is_heard_also_where_another_session_is_served_it_first() {
    let cluster = talkative(3).start().await;
    for round in 0..12 {
        let address = cluster.node(1).client_address();
        let account = Account::guest(address).await;
        let ana = cluster.node(round % 2).guest(BOTH[round % 2]).await;
        let (to_ben, to_ana) = (format!("dm:{}", account.player), format!("dm:{}", ana.player()));
        let beside = Client::open(address, BOTH[round % 2], &account).await;
        let joining = Client::open(address, Encoding::MsgPack, &account).await;
        // Nobody on the node has heard of this conversation: the line comes when the directory has said where its players are.
        assert_eq!(say(&ana, &to_ben, "one").await, 1);
        let resume = json!({"token": beside.opened()["resume_token"], "matches": {}, "channels": {to_ana.clone(): 0}});
        let fields = json!({"token": account.access_token, "resume": resume});
        let (back, _) = tokio::join!(
            Client::open_with(address, Encoding::Json, fields),
            join(&joining, &to_ana)
        );
        assert_eq!(say(&ana, &to_ben, "two").await, 2);
        for client in [&back, &beside, &joining, &ana] {
            for number in 1..=2 {
                assert_eq!(heard(client).await.0, number, "round {round}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_refused_costs_no_line_of_a_conversation() {
    let cluster = talkative(2).set("limits.channels_per_session", 1).start().await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let (to_ben, to_ana) = (format!("dm:{}", ben.player()), format!("dm:{}", ana.player()));
    join(&ben, "room:a").await;
    const LINES: u64 = 200;
    let over = AtomicBool::new(false);
    let talking = async {
        for number in 1..=LINES {
            assert_eq!(say(&ana, &to_ben, "x").await, number);
        }
        over.store(true, Ordering::SeqCst);
    };
    let asking = async {
        let mut asked = 0;
        while !over.load(Ordering::SeqCst) {
            let fields = json!({"channel": to_ana, "since": 0});
            assert_eq!(code(&ben, "channel.join", fields).await, "channel.too_many");
            asked += 1;
        }
        asked
    };
    let ((), asked) = tokio::join!(talking, asking);
    println!("{asked} joins were refused");
    for number in 1..=LINES {
        assert_eq!(heard(&ben).await.0, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_for_what_was_missed_hears_nothing_later_before_it() {
    let cluster = talkative(2).start().await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let (to_ben, to_ana) = (format!("dm:{}", ben.player()), format!("dm:{}", ana.player()));
    let over = AtomicBool::new(false);
    let talking = async {
        while !over.load(Ordering::SeqCst) {
            say(&ana, &to_ben, "x").await;
        }
    };
    let asking = async {
        const ASKED: usize = 5;
        let mut next = 1;
        for _ in 0..20 {
            let since = next - 1;
            for _ in 0..ASKED {
                ben.tell("channel.join", json!({"channel": to_ana, "since": since}))
                    .await;
            }
            let mut joins: Vec<u64> = Vec::new();
            while joins.len() < ASKED {
                let push = ben.expect_push().await;
                if push["type"] == "channel.joined" {
                    if let Some(last) = joins.last() {
                        // A line may be said, and heard in its turn, before the node takes the next join.
                        assert!(next > *last, "it was served all that it missed: {next} after {last}");
                    }
                    joins.push(push["last"].as_u64().unwrap());
                    next = since + 1;
                } else if push["type"] == "channel.message" {
                    assert_eq!(push["message"], json!(next));
                    next += 1;
                }
            }
        }
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(talking, asking);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_goes_once_to_each_node_that_wants_to_hear_it() {
    let cluster = talkative(3).start().await;
    let writer = cluster.node(0).guest(Encoding::Json).await;
    let mut listeners = Vec::new();
    for _ in 0..5 {
        let listener = cluster.node(1).guest(Encoding::MsgPack).await;
        join(&listener, "room:a").await;
        listeners.push(listener);
    }
    let before = copies(&cluster, 0).await;
    const LINES: u64 = 50;
    for _ in 0..LINES {
        say(&writer, "room:a", "x").await;
    }
    for listener in &listeners {
        for number in 1..=LINES {
            assert_eq!(heard(listener).await.0, number);
        }
    }
    assert_eq!(
        copies(&cluster, 0).await - before,
        LINES as f64,
        "five listeners on one of two other nodes"
    );
    for listener in &listeners {
        listener
            .ask("channel.leave", json!({"channel": "room:a"}))
            .await
            .unwrap();
    }
    eventually("no node wants to hear it", async || {
        let before = copies(&cluster, 0).await;
        say(&writer, "room:a", "x").await;
        copies(&cluster, 0).await == before
    })
    .await;
    assert_eq!(cluster.ops(0).metric("rookery_chat_healed_total").await, Some(0.0));
    assert_eq!(cluster.ops(1).metric("rookery_chat_healed_total").await, Some(0.0));
}

/// What one member went through in one channel: the `last` of each of its joins, and all lines it heard, as they came.
#[derive(Default)]
struct Story {
    joins: Vec<u64>,
    heard: Vec<u64>,
    is_in: bool,
}

struct Member {
    client: Client,
    channels: BTreeMap<String, Story>,
    texts: BTreeMap<(String, u64), String>,
}

impl Member {
    fn note(&mut self, push: &Value) {
        if push["type"] == "channel.message" {
            let channel = push["channel"].as_str().unwrap().to_owned();
            let number = push["message"].as_u64().unwrap();
            self.texts
                .insert((channel.clone(), number), push["text"].as_str().unwrap().to_owned());
            self.channels.entry(channel).or_default().heard.push(number);
        }
    }

    async fn drain(&mut self, within: Duration) {
        while let Ok(Some(push)) = self.client.next_push_within(within).await {
            self.note(&push);
        }
    }

    async fn act(&mut self, random: &mut StdRng, channels: u32) {
        let joined: Vec<String> = self
            .channels
            .iter()
            .filter(|(_, in_it)| in_it.is_in)
            .map(|(name, _)| name.clone())
            .collect();
        let dice = random.random_range(0..10);
        if joined.is_empty() || (dice < 2 && joined.len() < 6) {
            let channel = format!("room:{}", random.random_range(0..channels));
            let account = self.channels.entry(channel.clone()).or_default();
            if !account.is_in {
                account.joins.push(join(&self.client, &channel).await);
                account.is_in = true;
            }
        } else {
            let channel = joined[random.random_range(0..joined.len())].clone();
            if dice < 4 {
                self.client
                    .ask("channel.leave", json!({"channel": channel}))
                    .await
                    .unwrap();
                self.channels.get_mut(&channel).unwrap().is_in = false;
            } else {
                let text = format!("{} {}", self.client.player(), random.random::<u64>());
                let number = say(&self.client, &channel, &text).await;
                self.texts.insert((channel, number), text);
            }
        }
    }

    /// Every line above the `last` of each join, once and in order, up to the next join.
    fn check(&self, lasts: &BTreeMap<String, u64>) -> u64 {
        let mut heard_total = 0;
        for (channel, Story { joins, heard, is_in }) in &self.channels {
            heard_total += heard.len() as u64;
            assert!(
                heard.is_sorted_by(|a, b| a < b),
                "{channel}: twice or out of order: {heard:?}"
            );
            for (no, last) in joins.iter().enumerate() {
                let next = joins.get(no + 1).copied().unwrap_or(u64::MAX);
                let run: Vec<u64> = heard
                    .iter()
                    .copied()
                    .filter(|number| number > last && *number <= next)
                    .collect();
                assert!(
                    run.iter().copied().eq(last + 1..last + 1 + run.len() as u64),
                    "{channel}: joined at {joins:?}, heard {run:?}"
                );
                if *is_in && next == u64::MAX {
                    assert_eq!(
                        last + run.len() as u64,
                        lasts[channel],
                        "{channel}: the last lines are missing"
                    );
                }
            }
            assert!(
                heard
                    .first()
                    .is_none_or(|first| joins.first().is_some_and(|last| first > last))
            );
        }
        heard_total
    }
}

/// 300 members in 30 channels over three nodes join, leave and talk at random. `ROOKERY_CHAT_SECONDS` makes it longer: the promise
/// is about a minute, which `ROOKERY_CHAT_SECONDS=60` runs.
async fn check_members(cluster: &TestCluster, members: usize, channels: u32, cut: bool) {
    let seconds = std::env::var("ROOKERY_CHAT_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12);
    let seed: u64 = std::env::var("ROOKERY_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("seed {seed}, {seconds} s");
    let mut opening = Vec::new();
    for no in 0..members {
        let node = cluster.node(no % cluster.nodes().len());
        opening.push(async move {
            Member {
                client: node.guest(BOTH[no / 3 % 2]).await,
                channels: BTreeMap::new(),
                texts: BTreeMap::new(),
            }
        });
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut acting = Vec::new();
    for (no, mut member) in join_all(opening).await.into_iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(no as u64));
        acting.push(tokio::spawn(async move {
            while Instant::now() < until {
                member.act(&mut random, channels).await;
                let pause = random.random_range(200..1_800);
                let next = Instant::now() + Duration::from_millis(pause);
                while let Ok(push) = tokio::time::timeout_at(next, member.client.expect_push()).await {
                    member.note(&push);
                }
            }
            member
        }));
    }
    if cut {
        let mut node = 0;
        while Instant::now() < until {
            let (status, answer) = cluster.ops(node % 3).post("/v1/faults/cut-data-links", json!({})).await;
            assert_eq!(status, 200, "{answer}");
            node += 1;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    }
    let mut members: Vec<Member> = join_all(acting)
        .await
        .into_iter()
        .map(|member| member.unwrap())
        .collect();
    // Nobody writes any more: the channels stand where they stand.
    let mut lasts = BTreeMap::new();
    for no in 0..channels {
        let channel = format!("room:{no}");
        let history = members[0]
            .client
            .ask("channel.history", json!({"channel": channel, "limit": 1}))
            .await
            .unwrap();
        let last = history["messages"]
            .as_array()
            .unwrap()
            .last()
            .map_or(0, |line| line["message"].as_u64().unwrap());
        lasts.insert(channel, last);
    }
    let since = Instant::now();
    for member in &mut members {
        while member.channels.iter().any(|(channel, account)| {
            let heard = account
                .heard
                .last()
                .copied()
                .max(account.joins.last().copied())
                .unwrap_or(0);
            account.is_in && heard < lasts[channel]
        }) {
            assert!(since.elapsed() < PATIENCE, "a member never hears the last lines");
            member.drain(Duration::from_millis(20)).await;
        }
    }
    let mut texts: BTreeMap<(String, u64), String> = BTreeMap::new();
    let mut heard = 0;
    for member in &mut members {
        member.drain(Duration::ZERO).await;
        heard += member.check(&lasts);
        for (line, text) in &member.texts {
            let first = texts.entry(line.clone()).or_insert_with(|| text.clone());
            assert_eq!(first, text, "{line:?} is not the same for all");
        }
    }
    let written: u64 = lasts.values().sum();
    let memberships: usize = members
        .iter()
        .flat_map(|member| member.channels.values())
        .map(|account| account.joins.len())
        .sum();
    println!("{written} lines were heard {heard} times in {memberships} memberships");
    assert!(written > members.len() as u64 && heard > written, "too little was said");
    if !cut {
        for node in 0..3 {
            let healed = cluster.ops(node).metric("rookery_chat_healed_total").await.unwrap();
            println!("{healed} lines were read from the store on node {node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_hears_every_line_of_its_membership_once_and_in_order() {
    check_members(&talkative(3).start().await, 300, 30, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_hears_every_line_of_its_membership_once_and_in_order_with_postgres() {
    if let Some(builder) = talkative(3).postgres() {
        check_members(&builder.start().await, 300, 30, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_a_cut_connection_lost_are_heard_all_the_same() {
    let builder = talkative(3).set("ops.faults", true);
    check_members(&builder.start().await, 60, 6, true).await;
}

/// Two nodes write to one channel as fast as they can, while a reader on the third pages through it.
async fn check_full_speed(cluster: &TestCluster) {
    const LINES: u64 = 2_000;
    const AT_ONCE: usize = 16;
    let mut writers = Vec::new();
    for node in [0, 1] {
        for _ in 0..4 {
            writers.push(Arc::new(cluster.node(node).guest(Encoding::MsgPack).await));
        }
    }
    let listener = cluster.node(2).guest(Encoding::MsgPack).await;
    join(&listener, "room:full").await;
    let began = Instant::now();
    let each = LINES / writers.len() as u64;
    let writing: Vec<_> = writers
        .iter()
        .map(|writer| {
            let writer = Arc::clone(writer);
            tokio::spawn(async move {
                let mut left = each;
                while left > 0 {
                    let batch = left.min(AT_ONCE as u64);
                    let sent = join_all((0..batch).map(|_| say(&writer, "room:full", "as fast as I can"))).await;
                    assert!(sent.is_sorted(), "one client's lines are in its order: {sent:?}");
                    left -= batch;
                }
            })
        })
        .collect();
    let reader = cluster.node(2).guest(Encoding::Json).await;
    let mut read = 0;
    let (mut pages, mut truncated) = (0, 0);
    while read < LINES {
        pages += 1;
        let joined = reader
            .ask("channel.join", json!({"channel": "room:full", "since": read}))
            .await
            .unwrap();
        let last = joined["last"].as_u64().unwrap();
        let is_truncated = joined["truncated"] == json!(true);
        if is_truncated {
            // More than 500 were written since the last page: the rest is history.
            truncated += 1;
            let history = reader
                .ask(
                    "channel.history",
                    json!({"channel": "room:full", "before": read + 201, "limit": 200}),
                )
                .await
                .unwrap();
            let lines = history["messages"].as_array().unwrap();
            let numbers: Vec<u64> = lines.iter().map(|line| line["message"].as_u64().unwrap()).collect();
            assert_eq!(numbers, (read + 1..=read + 200).collect::<Vec<_>>());
            read += 200;
        } else {
            while read < last {
                let (number, _) = heard(&reader).await;
                assert_eq!(number, read + 1, "a hole");
                read = number;
            }
        }
        reader
            .ask("channel.leave", json!({"channel": "room:full"}))
            .await
            .unwrap();
        // What came between the answer to the join and the leave.
        while let Ok(Some(push)) = reader.next_push_within(Duration::ZERO).await {
            if push["type"] == "channel.message" && !is_truncated {
                read += 1;
                assert_eq!(push["message"], json!(read), "once and in order");
            }
        }
    }
    for writing in writing {
        writing.await.unwrap();
    }
    let took = began.elapsed();
    for number in 1..=LINES {
        assert_eq!(heard(&listener).await.0, number, "the listener misses nothing");
    }
    println!("{LINES} lines in {took:?}, read in {pages} pages, {truncated} of them truncated");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_at_full_speed_leave_no_hole() {
    check_full_speed(&talkative(3).start().await).await;
    if let Some(builder) = talkative(3).postgres() {
        check_full_speed(&builder.start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_misses_nothing_even_when_its_node_was_killed() {
    let mut cluster = talkative(3).start().await;
    for encoding in BOTH {
        let room = format!("room:{encoding:?}");
        let account = Account::guest(cluster.node(0).client_address()).await;
        let ana = Client::open(cluster.node(2).client_address(), encoding, &account).await;
        let ben = cluster.node(1).guest(encoding).await;
        join(&ana, &room).await;
        join(&ben, &room).await;
        say(&ben, &room, "one").await;
        assert_eq!(heard(&ana).await.0, 1);
        let resume =
            json!({"token": ana.opened()["resume_token"], "matches": {}, "channels": {room.clone(): 1, "hall": 5}});
        cluster.node_mut(2).kill();
        for number in 2..=9 {
            assert_eq!(say(&ben, &room, &format!("line {number}")).await, number);
        }
        ben.push_where("ana is gone", |push| push["left"] == json!([account.player]))
            .await;
        let back = cluster.node(0).client_address();
        let ana = Client::open_with(back, encoding, json!({"token": account.access_token, "resume": resume})).await;
        // What was asked for in resuming is answered by pushes.
        let (mut numbers, mut refused, mut joined) = (Vec::new(), None, None);
        while numbers.len() < 8 || refused.is_none() {
            let push = ana.expect_push().await;
            match push["type"].as_str().unwrap() {
                "channel.message" => numbers.push(push["message"].as_u64().unwrap()),
                "channel.joined" => joined = Some(push),
                "error" => refused = Some(push),
                _ => {}
            }
        }
        assert_eq!(numbers, (2..=9).collect::<Vec<_>>());
        assert_eq!(joined.unwrap()["last"], json!(9));
        let refused = refused.unwrap();
        assert_eq!(
            (&refused["code"], &refused["details"]["channel"]),
            (&json!("channel.invalid"), &json!("hall"))
        );
        assert_eq!(say(&ben, &room, "ten").await, 10);
        assert_eq!(heard(&ana).await.0, 10);
        cluster.restart(2).await;
        cluster.settled().await;
    }
}
