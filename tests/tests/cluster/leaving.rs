//! A node that leaves by `rookery drain`, as an operator sees it and as the players of its zones do: the command waits until it is
//! gone, and a world of nine zones goes on elsewhere as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::Duration;

use rookery_tests::harness::{
    Account, Builder, Client, Encoding, TestCluster, counter, eventually, rookery_binary, until,
};
use serde_json::{Value, json};

const ZONES: usize = 9;

/// Outputs of one incarnation have numbers below this.
const INCARNATION: u64 = 1 << 40;

/// A command of this binary, asked of one node.
async fn command(cluster: &TestCluster, asked: usize, arguments: &[&str]) -> Output {
    let ops = format!("http://{}", cluster.node(asked).ops_address());
    let mut command = std::process::Command::new(rookery_binary());
    command.args(arguments).args(["--ops", &ops]);
    let ran = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    ran.await.expect("the command does not panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that went well printed.
fn said(output: &Output) -> String {
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}: {said}{complained}", output.status);
    said
}

/// Nine zones on three nodes, three each.
async fn nine_zones(mut builder: Builder) -> TestCluster {
    for no in 0..ZONES {
        builder = builder.set(&format!("worlds.w.zones.z{no}"), "counter");
    }
    let cluster = builder.start().await;
    cluster.ops(0).publish(counter()).await;
    eventually("each node has its share of the zones", async || {
        let owners = owners(&cluster, 0).await;
        let of = |name: &str| owners.values().filter(|owner| *owner == name).count();
        cluster.nodes().iter().all(|node| of(node.name()) == ZONES / 3)
    })
    .await;
    cluster
}

/// Which node has each zone, by the zone's match; only the zones that run.
async fn owners(cluster: &TestCluster, asked: usize) -> BTreeMap<String, String> {
    let (_, body) = cluster.ops(asked).get("/v1/worlds").await;
    let zones = body["worlds"][0]["zones"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    zones
        .iter()
        .filter(|zone| zone["state"] == "running")
        .filter_map(|zone| Some((text(&zone["match"])?, text(&zone["owner"])?)))
        .collect()
}

/// What these nodes counted between them.
async fn counted(cluster: &TestCluster, nodes: &[usize], sample: &str) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += cluster
            .ops(*node)
            .metric(sample)
            .await
            .expect("it is there from the start");
    }
    sum
}

/// What a player heard of the zones that it sits in.
#[derive(Debug, Default)]
struct Diary {
    /// The seat in each.
    seats: BTreeMap<String, u64>,
    /// The count that each said last, and its number.
    last: BTreeMap<String, (u64, u64)>,
}

impl Diary {
    /// Sits down in all zones.
    async fn begin(client: &Client) -> Self {
        let mut diary = Self::default();
        for no in 0..ZONES {
            let joined = client.join(&format!("w/z{no}")).await.expect("the zone runs");
            let target = joined["match"].as_str().expect("it is a match").to_owned();
            diary.seats.insert(target, joined["seat"].as_u64().expect("a seat"));
        }
        diary
    }

    /// Each count is one more than the one before, under a higher number of the same incarnation, and nothing else happens.
    fn note(&mut self, push: &Value) {
        let kind = push["type"].as_str().expect("a push has a type");
        match kind {
            "match.data" if push["data"]["count"].is_u64() => {
                let target = push["match"].as_str().expect("of a match").to_owned();
                let (seq, count) = (push["seq"].as_u64().unwrap(), push["data"]["count"].as_u64().unwrap());
                assert!(seq < INCARNATION, "the zone was restored: {push}");
                if let Some((before_seq, before)) = self.last.insert(target, (seq, count)) {
                    assert!(seq > before_seq && count == before + 1, "after {before}: {push}");
                }
            }
            // The published count, who came and went, that inputs wait a moment, and that another node goes.
            "match.data" | "match.players" | "match.ack" | "match.waiting" | "session.going_away" => {}
            other => panic!("{other} has no place here: {push}"),
        }
    }

    /// Reads on until every zone has counted on by this much.
    async fn count_on(&mut self, client: &Client, by: u64) {
        let goal: BTreeMap<String, u64> = self
            .seats
            .keys()
            .map(|target| {
                (
                    target.clone(),
                    self.last.get(target).map_or(0, |(_, count)| *count) + by,
                )
            })
            .collect();
        let is_there = |diary: &Self, target: &String, goal: u64| {
            let last = diary.last.get(target);
            last.is_some_and(|(_, count)| *count >= goal)
        };
        while !goal.iter().all(|(target, goal)| is_there(self, target, *goal)) {
            let push = client.next_push_within(Duration::from_secs(60)).await;
            let push = push.unwrap_or_else(|_| panic!("nothing more is heard; so far {self:#?}, wanted {goal:#?}"));
            self.note(&push.expect("the connection stays"));
        }
    }
}

async fn check_zones_leave(builder: Builder) {
    let mut cluster = nine_zones(builder).await;
    let before = owners(&cluster, 1).await;
    let leaving: BTreeSet<&String> = before
        .iter()
        .filter(|(_, owner)| *owner == "node-1")
        .map(|(target, _)| target)
        .collect();
    // One player whose node stays, in both encodings, and one on the node that goes.
    let (ana, ben) = (
        cluster.node(1).guest(Encoding::Json).await,
        cluster.node(2).guest(Encoding::MsgPack).await,
    );
    let account = Account::guest(cluster.node(0).client_address()).await;
    let cleo = Client::open(cluster.node(0).client_address(), Encoding::Json, &account).await;
    let mut diaries = [
        Diary::begin(&ana).await,
        Diary::begin(&ben).await,
        Diary::begin(&cleo).await,
    ];
    for (diary, client) in diaries.iter_mut().zip([&ana, &ben, &cleo]) {
        diary.count_on(client, 2).await;
    }

    // Whoever is sent away reads what was said until then, and goes elsewhere.
    let elsewhere = cluster.node(2).client_address();
    let follow = async |diary: &mut Diary| {
        while let Some(push) = cleo.next_push().await {
            diary.note(&push);
        }
        assert_eq!(cleo.closed().await.code, Some(1001));
        let back = Client::open(elsewhere, Encoding::Json, &account).await;
        let again = Diary::begin(&back).await;
        assert_eq!(again.seats, diary.seats, "the same seats");
    };
    let [ana_heard, ben_heard, cleo_heard] = &mut diaries;
    let drain = command(&cluster, 1, &["drain", "node-1", "--deadline", "6s"]);
    let (drained, ()) = tokio::join!(drain, follow(cleo_heard));
    let said = said(&drained);
    assert!(said.starts_with("node-1 drains, within 6 s\n"), "{said}");
    assert!(said.ends_with("node-1 is gone\n"), "{said}");
    assert_eq!(cluster.node_mut(0).exited(Duration::from_secs(5)).await.code(), Some(0));

    // Each zone goes on elsewhere, as the same match.
    let after = until("all zones run", async || {
        let owners = owners(&cluster, 1).await;
        (owners.len() == ZONES).then_some(owners)
    })
    .await;
    assert!(after.keys().eq(before.keys()), "zones keep their ids");
    assert!(after.values().all(|owner| owner != "node-1"), "{after:?}");
    // Those who stayed heard every count of every zone, and nothing else.
    ana_heard.count_on(&ana, 5).await;
    ben_heard.count_on(&ben, 5).await;
    // Counted where the zones went, for whoever looks when the node is gone.
    assert!(counted(&cluster, &[1, 2], "rookery_zone_moves_total").await >= leaving.len() as f64);
    let reason = "rookery_matches_moved_total{reason=\"drain\"}";
    assert!(counted(&cluster, &[1, 2], reason).await >= leaving.len() as f64);
    let taken_over = counted(&cluster, &[1, 2], "rookery_matches_taken_over_total").await;
    assert_eq!(taken_over, 0.0, "none had to be restored");

    // Its ports are free when the command says so; the next life gets its share.
    cluster.restart(0).await;
    cluster.settled().await;
    eventually("the node that is back has zones again", async || {
        let owners = owners(&cluster, 2).await;
        owners.len() == ZONES && owners.values().filter(|owner| *owner == "node-1").count() == ZONES / 3
    })
    .await;
    ana_heard.count_on(&ana, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_of_a_node_that_drains_go_on_elsewhere_and_nobody_in_them_notices() {
    check_zones_leave(TestCluster::builder(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_of_a_node_that_drains_go_on_elsewhere_and_nobody_in_them_notices_with_postgres() {
    if let Some(builder) = TestCluster::builder(3).postgres() {
        check_zones_leave(builder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_is_moved_by_hand_is_counted_where_it_went() {
    let cluster = nine_zones(TestCluster::builder(3)).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let mut diary = Diary::begin(&ana).await;
    diary.count_on(&ana, 1).await;
    // Before it, zones may have been evened out.
    let all = [0, 1, 2];
    let before = counted(&cluster, &all, "rookery_zone_moves_total").await;
    let there = cluster.ops(2).metric("rookery_zone_moves_total").await.unwrap();
    let from = owners(&cluster, 0).await;
    let (target, owner) = from.iter().find(|(_, owner)| *owner != "node-3").expect("three do");
    assert_ne!(owner, "node-3");
    let moved = command(&cluster, 1, &["match", "move", target, "--to", "node-3"]).await;
    assert_eq!(said(&moved), format!("{target} is on node-3\n"));
    assert_eq!(
        cluster.ops(2).metric("rookery_zone_moves_total").await,
        Some(there + 1.0)
    );
    let by_hand = "rookery_matches_moved_total{reason=\"operator\"}";
    assert_eq!(counted(&cluster, &all, by_hand).await, 1.0);
    // Four on one node and two on another: the leader evens them out, and counts that too.
    eventually("the zones are even again", async || {
        let evened = counted(&cluster, &all, "rookery_matches_moved_total{reason=\"rebalance\"}").await;
        let moves = counted(&cluster, &all, "rookery_zone_moves_total").await;
        evened >= 1.0 && moves >= before + 2.0
    })
    .await;
    diary.count_on(&ana, 3).await;
    // The name as it is, without %2F.
    let (status, moved) = cluster
        .ops(0)
        .post("/v1/matches/w/z0/move", json!({"to": "node-9"}))
        .await;
    assert_eq!((status, &moved["code"]), (404, &json!("node.not_found")), "{moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_command_shows_how_far_it_is_and_says_how_it_went_by_its_exit_code() {
    let mut cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;

    // What cannot be done is said on stderr, and nothing happens.
    for (arguments, code, remedy) in [
        (&["drain", "node-9"][..], 1, "no node of the cluster is called node-9"),
        (&["drain", "--deadline", "soon"], 64, "not a duration"),
        (&["drain", "node-1", "node-2"], 64, "unexpected argument"),
    ] {
        let refused = command(&cluster, 1, arguments).await;
        let complained = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {complained}");
        assert!(complained.contains(remedy), "{arguments:?}: {complained}");
        assert!(refused.stdout.is_empty(), "{}", text(&refused.stdout));
    }
    assert_eq!(cluster.ops(1).members("ready").await.len(), 2);

    // Asked itself, with a player who is told and a match that does not end by itself.
    let target = until("a match of that node", async || {
        let target = ana.create("echo").await;
        (cluster.ops(0).match_view(&target).await["owner"] == "node-1").then_some(target)
    })
    .await;
    ana.join(&target).await.expect("there is room");
    let (drained, told) = tokio::join!(
        command(&cluster, 0, &["drain", "--deadline", "8s"]),
        ana.push_of("session.going_away")
    );
    assert_eq!(told["reason"], "draining");
    let lines = said(&drained);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        (lines.first(), lines.last()),
        (Some(&"node-1 drains, within 8 s"), Some(&"node-1 is gone"))
    );
    assert!(
        lines.contains(&"node-1: draining, 1 sessions, 1 matches"),
        "how far it is: {lines:#?}"
    );
    assert_eq!(
        cluster.node_mut(0).exited(Duration::from_secs(10)).await.code(),
        Some(0)
    );

    // The last one, with nothing to wait for, for a program.
    let drained = command(&cluster, 1, &["drain", "node-2", "--json"]).await;
    let answer: Value = serde_json::from_str(&said(&drained)).expect("it is JSON");
    assert_eq!((&answer["node"], &answer["drained"]), (&json!("node-2"), &json!(true)));
    assert!(answer["took_ms"].is_u64(), "{answer}");
    assert_eq!(
        cluster.node_mut(1).exited(Duration::from_secs(10)).await.code(),
        Some(0)
    );
}
