//! Worlds and the leader: zones that exist once, whatever happens to nodes, and the way into them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rookery_tests::harness::{
    Account, Builder, Client, Encoding, Ops, TestCluster, counter, eventually, until, until_within,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// A lease of 6 s, a second in which others look again, and the write.
const NEW_LEADER_WITHIN: Duration = Duration::from_secs(10);

fn with_zones(mut builder: Builder, count: usize) -> Builder {
    for no in 0..count {
        builder = builder.set(&format!("worlds.w.zones.z{no:02}"), "counter");
    }
    builder
}

/// The only world, as a node's operators see it.
async fn world(ops: &Ops) -> Value {
    let (status, body) = ops.get("/v1/worlds").await;
    assert_eq!(status, 200, "{body}");
    body["worlds"][0].clone()
}

async fn is_online(ops: &Ops) -> bool {
    world(ops).await["online"] == json!(true)
}

async fn leader(ops: &Ops) -> Option<String> {
    ops.get("/v1/cluster").await.1["leader"].as_str().map(str::to_owned)
}

/// How many zones each owner has, by the owners' names.
async fn shares(ops: &Ops) -> Vec<(String, usize)> {
    let world = world(ops).await;
    let mut shares = std::collections::BTreeMap::new();
    for zone in world["zones"].as_array().expect("a list") {
        let owner = zone["owner"].as_str().unwrap_or("nobody").to_owned();
        *shares.entry(owner).or_insert(0) += 1;
    }
    shares.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_comes_online_by_itself_when_its_module_is_published() {
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let cluster = with_zones(TestCluster::builder(2), 3).start().await;
        let client = cluster.node(1).guest(encoding).await;
        let why = "zone z00: no module counter is published; and 2 more zones";
        eventually("the world says what it waits for", async || {
            let listed = client.ask("world.list", json!({})).await.expect("worlds are listed");
            let world = &listed["worlds"][0];
            let zones = world["zones"].as_array().expect("a list");
            assert_eq!((&world["world"], zones.len()), (&json!("w"), 3), "{world}");
            assert!(
                zones
                    .iter()
                    .all(|zone| zone["state"] == "missing" && zone["players"] == 0)
            );
            assert_eq!(world["online"], json!(false), "{world}");
            world["why"] == why
        })
        .await;
        let refused = client.ask("world.enter", json!({"world": "w"})).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["why"]),
            ("world.not_online", &json!(why))
        );
        assert!(refused.details["retry_ms"].is_number(), "{refused:?}");
        assert_eq!(world(&cluster.ops(0)).await["why"], why);

        cluster.ops(0).publish(counter()).await;
        eventually("the world is online", async || is_online(&cluster.ops(1)).await).await;
        let shares = shares(&cluster.ops(0)).await;
        let counts: Vec<usize> = shares.iter().map(|(_, count)| *count).collect();
        assert!(counts == [1, 2] || counts == [2, 1], "{shares:?}");

        // The way in, without a zone and by name.
        let joined = client
            .ask("world.enter", json!({"world": "w"}))
            .await
            .expect("it is online");
        assert_eq!(
            (&joined["type"], &joined["module"]),
            (&json!("match.joined"), &json!("counter"))
        );
        let square = world(&cluster.ops(0)).await["zones"][0]["match"].clone();
        assert_eq!(joined["match"], square, "the first zone is the entry");
        let beat = client
            .push_where("a beat", |push| push["data"]["count"].is_number())
            .await;
        assert_eq!(beat["match"], square);
        let by_name = cluster.node(0).guest(encoding).await;
        assert_eq!(by_name.join("w/z00").await.expect("a zone is a match")["match"], square);
        eventually("both are counted", async || {
            world(&cluster.ops(1)).await["zones"][0]["players"] == 2
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_is_in_one_zone_of_a_world_at_a_time() {
    let cluster = with_zones(TestCluster::builder(2), 3)
        .set("worlds.w.entry", "z01")
        .set("worlds.w.neighbours", r#"[["z01", "z00"], ["z01", "z02"]]"#)
        .start()
        .await;
    cluster.ops(0).publish(counter()).await;
    eventually("the world is online", async || is_online(&cluster.ops(0)).await).await;
    // Clients and operators are told the map.
    let beside = [json!(["z01"]), json!(["z00", "z02"]), json!(["z01"])];
    let guest = cluster.node(1).guest(Encoding::MsgPack).await;
    let listed = guest.ask("world.list", json!({})).await.expect("worlds are listed");
    for shown in [&listed["worlds"][0], &world(&cluster.ops(1)).await] {
        let zones = shown["zones"].as_array().expect("a list");
        let told: Vec<Value> = zones.iter().map(|zone| zone["neighbours"].clone()).collect();
        assert_eq!(told, beside, "{shown}");
    }
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let account = Account::guest(cluster.node(0).client_address()).await;
        let here = Client::open(cluster.node(0).client_address(), encoding, &account).await;
        for (fields, code) in [
            (json!({"world": "nowhere"}), "world.not_found"),
            (json!({"world": "w", "zone": "nowhere"}), "world.not_found"),
            (json!({"world": 7}), "bad_message"),
            (json!({"world": "w", "zone": 7}), "bad_message"),
            (json!({}), "bad_message"),
        ] {
            let refused = here.ask("world.enter", fields.clone()).await.unwrap_err();
            assert_eq!(refused.code, code, "{fields}: {refused:?}");
        }
        let joined = here
            .ask("world.enter", json!({"world": "w", "ctx": {"from": "afar"}}))
            .await;
        let target = joined.expect("it is online")["match"].clone();
        let zones = world(&cluster.ops(0)).await["zones"].clone();
        assert_eq!(zones[1]["match"], target, "z01 is the entry");

        // The same player by another session, on another node: into the same zone, and into no other.
        let there = Client::open(cluster.node(1).client_address(), encoding, &account).await;
        let refused = there
            .ask("world.enter", json!({"world": "w", "zone": "z02"}))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["zone"]),
            ("match.too_many", &json!("z01"))
        );
        assert_eq!(refused.details["match"], target);
        let again = there
            .ask("world.enter", json!({"world": "w"}))
            .await
            .expect("where the player sits");
        assert_eq!(again["match"], target);

        // Whoever left may enter another.
        there
            .ask("match.leave", json!({"match": target}))
            .await
            .expect("the seat is given up");
        let moved = there.ask("world.enter", json!({"world": "w", "zone": "z02"})).await;
        assert_eq!(moved.expect("the other is free")["match"], zones[2]["match"]);
        there.ask("session.close", json!({})).await.expect("the session closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_does_not_start_says_why_and_the_others_run() {
    let cluster = with_zones(TestCluster::builder(1), 2)
        .set("worlds.w.zones.z01.module", "counter")
        .set("worlds.w.zones.z01.params", r#"{"refuse": "no gate"}"#)
        .start()
        .await;
    cluster.ops(0).publish(counter()).await;
    let ops = cluster.ops(0);
    let seen = until("the reason is told", async || {
        let seen = world(&ops).await;
        let why = seen["why"].as_str().is_some_and(|why| why.contains("no gate"));
        (why && seen["zones"][0]["state"] == "running").then_some(seen)
    })
    .await;
    assert_eq!(
        (&seen["online"], &seen["zones"][1]["state"]),
        (&json!(false), &json!("missing"))
    );
    let client = cluster.node(0).guest(Encoding::Json).await;
    let refused = client
        .ask("world.enter", json!({"world": "w", "zone": "z00"}))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "world.not_online", "all zones have to run");
    assert!(client.join("w/z00").await.is_ok(), "a zone is a match like any other");
    eventually("both are counted", async || {
        let running = ops.metric(r#"rookery_zones{state="running"}"#).await;
        (running, ops.metric(r#"rookery_zones{state="missing"}"#).await) == (Some(1.0), Some(1.0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_ends_begins_anew() {
    let cluster = with_zones(TestCluster::builder(2), 2).start().await;
    cluster.ops(0).publish(counter()).await;
    eventually("the world is online", async || is_online(&cluster.ops(0)).await).await;
    let first = world(&cluster.ops(0)).await["zones"][0]["match"].clone();
    let (status, body) = cluster.ops(1).post("/v1/matches/w%2Fz00/end", json!({})).await;
    assert_eq!(status, 200, "{body}");
    eventually("it is there again, as another match", async || {
        let seen = world(&cluster.ops(1)).await;
        seen["online"] == json!(true) && seen["zones"][0]["match"] != first
    })
    .await;
    // Nobody is in it, and it stays all the same: `matches.empty_after` is for matches.
    assert_eq!(world(&cluster.ops(0)).await["zones"][0]["players"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_leads_and_another_one_soon_after_it_was_killed() {
    let mut cluster = TestCluster::start(3).await;
    let first = until("all agree on who leads", async || agreed(&cluster, &[0, 1, 2]).await).await;
    for round in 0..2 {
        let before = leader(&cluster.ops(0)).await.expect("somebody leads");
        let index = cluster.index_of(&before);
        let others: Vec<usize> = (0..3).filter(|no| *no != index).collect();
        cluster.node_mut(index).kill();
        let what = format!("another node leads (round {round})");
        let next = until_within(NEW_LEADER_WITHIN, &what, async || {
            agreed(&cluster, &others).await.filter(|next| *next != before)
        })
        .await;
        assert_eq!(
            cluster.ops(cluster.index_of(&next)).metric("rookery_leader").await,
            Some(1.0)
        );
        cluster.restart(index).await;
        cluster.settled().await;
        eventually("the one that is back knows it", async || {
            leader(&cluster.ops(index)).await.as_ref() == Some(&next)
        })
        .await;
    }
    assert!(!first.is_empty());

    // One that stops hands over at once.
    let before = leader(&cluster.ops(0)).await.expect("somebody leads");
    let index = cluster.index_of(&before);
    let others: Vec<usize> = (0..3).filter(|no| *no != index).collect();
    let since = Instant::now();
    cluster.node_mut(index).terminate();
    until("another node leads", async || {
        agreed(&cluster, &others).await.filter(|next| *next != before)
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

/// The leader, if these nodes agree on it and it is one of the living.
async fn agreed(cluster: &TestCluster, nodes: &[usize]) -> Option<String> {
    let mut named = Vec::new();
    for index in nodes {
        named.push(leader(&cluster.ops(*index)).await?);
    }
    named.dedup();
    match &named[..] {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// Two candidates, of which one or the other stands still for a second or for twenty, while zones end: every gap is filled once.
#[tokio::test(flavor = "multi_thread")]
async fn no_zone_is_placed_twice_while_leaders_stand_still() {
    // A process that stands still may hold the file of an embedded database.
    let Some(builder) = TestCluster::builder(3).postgres() else {
        return;
    };
    const COUNT: usize = 6;
    let seed: u64 = std::env::var("ROOKERY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = with_zones(builder, COUNT).start().await;
    cluster.ops(0).publish(counter()).await;
    eventually("the world is online", async || is_online(&cluster.ops(0)).await).await;
    let rounds = if std::env::var("ROOKERY_SCALE").as_deref() == Ok("full") {
        10
    } else {
        3
    };
    let mut ended = 0;
    for round in 0..rounds {
        // The leader, or the other of the two; the third one only looks on.
        let leading = leader(&cluster.ops(2)).await.map_or(0, |name| cluster.index_of(&name));
        let stopped = if random.random_bool(0.7) && leading != 2 {
            leading
        } else {
            random.random_range(0..2)
        };
        let for_secs = if round == 0 || random.random_bool(0.4) { 20 } else { 1 };
        let zones = world(&cluster.ops(2)).await["zones"].clone();
        cluster.node_mut(stopped).stop();
        let until = Instant::now() + Duration::from_secs(for_secs);
        // Two zones end that run on nodes which can be asked.
        let mut wanted = 2;
        for zone in zones.as_array().expect("a list") {
            if wanted > 0 && zone["owner"] != cluster.node(stopped).name() {
                let target = zone["match"].as_str().expect("it runs");
                let (status, _) = cluster
                    .ops(2)
                    .post(&format!("/v1/matches/{target}/end"), json!({}))
                    .await;
                wanted -= 1;
                ended += usize::from(status == 200);
            }
        }
        tokio::time::sleep_until(until).await;
        cluster.node_mut(stopped).cont();
        cluster.settled().await;
        let what = format!("the world is online (round {round}, node {stopped} stood still for {for_secs} s)");
        eventually(&what, async || is_online(&cluster.ops(2)).await).await;
    }
    assert!(ended >= rounds, "{ended} zones ended");
    // Whoever stood still has done what it was about to do by now.
    eventually("one leads, and all agree", async || {
        agreed(&cluster, &[0, 1, 2]).await.is_some()
    })
    .await;
    // Each gap was filled by one match: all that are over were ended by us, and one is left of each zone.
    let records = eventually_records(&cluster.ops(0), ended).await;
    assert_eq!(records, ended, "matches of zones that are over");
    eventually("six matches run", async || {
        let (_, page) = cluster.ops(0).get("/v1/matches?module=counter").await;
        page["matches"].as_array().is_some_and(|matches| matches.len() == COUNT)
    })
    .await;
}

/// How many matches of the module are over, once they are at least so many.
async fn eventually_records(ops: &Ops, at_least: usize) -> usize {
    until("what ended is on record", async || {
        let (_, page) = ops.get("/v1/records?module=counter&limit=1000").await;
        let count = page["records"].as_array().map_or(0, Vec::len);
        (count >= at_least).then_some(count)
    })
    .await
}
