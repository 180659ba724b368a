//! What Prometheus relies on: every family is there from the start, is well-formed, and moves from its cause.

use std::io::Write;
use std::process::{Command, Stdio};

use rookery_tests::harness::{Encoding, NodeSpec, Ops, TestCluster, eventually, hostile};
use serde_json::json;

/// Every family of the contract, and its kind.
const FAMILIES: [(&str, &str); 33] = [
    ("rookery_members", "gauge"),
    ("rookery_gossip_keys", "gauge"),
    ("rookery_suspicions_total", "counter"),
    ("rookery_false_suspicions_total", "counter"),
    ("rookery_peer_connections", "gauge"),
    ("rookery_peer_messages_total", "counter"),
    ("rookery_peer_queue_dropped_total", "counter"),
    ("rookery_peer_rtt_seconds", "histogram"),
    ("rookery_discovery_failures_total", "counter"),
    ("rookery_sessions", "gauge"),
    ("rookery_sessions_resumed_total", "counter"),
    ("rookery_client_messages_total", "counter"),
    ("rookery_client_slow_closed_total", "counter"),
    ("rookery_rate_limited_total", "counter"),
    ("rookery_matches", "gauge"),
    ("rookery_match_events_total", "counter"),
    ("rookery_match_event_seconds", "histogram"),
    ("rookery_match_tick_late_total", "counter"),
    ("rookery_match_traps_total", "counter"),
    ("rookery_matches_moved_total", "counter"),
    ("rookery_matches_taken_over_total", "counter"),
    ("rookery_matches_lost_total", "counter"),
    ("rookery_match_pause_seconds", "histogram"),
    ("rookery_replication_lag_events", "gauge"),
    ("rookery_ownership_conflicts_total", "counter"),
    ("rookery_tickets", "gauge"),
    ("rookery_ticket_wait_seconds", "histogram"),
    ("rookery_zones", "gauge"),
    ("rookery_zone_moves_total", "counter"),
    ("rookery_leader", "gauge"),
    ("rookery_store_seconds", "histogram"),
    ("rookery_store_up", "gauge"),
    ("rookery_build_info", "gauge"),
];

/// Samples whose labels come from closed sets: a rate over them works from the first event on.
const FROM_THE_START: [&str; 36] = [
    "rookery_members{state=\"joining\"}",
    "rookery_members{state=\"ready\"}",
    "rookery_members{state=\"draining\"}",
    "rookery_members{state=\"leaving\"}",
    "rookery_members{state=\"suspect\"}",
    "rookery_members{state=\"dead\"}",
    "rookery_peer_messages_total{direction=\"in\"}",
    "rookery_peer_messages_total{direction=\"out\"}",
    "rookery_discovery_failures_total{source=\"seed\"}",
    "rookery_discovery_failures_total{source=\"dns\"}",
    "rookery_sessions_resumed_total{from=\"this_node\"}",
    "rookery_sessions_resumed_total{from=\"other_node\"}",
    "rookery_client_messages_total{direction=\"in\"}",
    "rookery_client_messages_total{direction=\"out\"}",
    "rookery_rate_limited_total{class=\"inputs\"}",
    "rookery_rate_limited_total{class=\"control\"}",
    "rookery_rate_limited_total{class=\"chat\"}",
    "rookery_rate_limited_total{class=\"accounts\"}",
    "rookery_matches_moved_total{reason=\"drain\"}",
    "rookery_matches_moved_total{reason=\"operator\"}",
    "rookery_match_pause_seconds_count{reason=\"take_over\"}",
    "rookery_match_pause_seconds_count{reason=\"store\"}",
    "rookery_zones{state=\"running\"}",
    "rookery_store_seconds_count{operation=\"create_match\"}",
    "rookery_store_seconds_count{operation=\"finish_match\"}",
    "rookery_suspicions_total",
    "rookery_false_suspicions_total",
    "rookery_peer_queue_dropped_total",
    "rookery_client_slow_closed_total",
    "rookery_matches_taken_over_total",
    "rookery_matches_lost_total",
    "rookery_ownership_conflicts_total",
    "rookery_zone_moves_total",
    "rookery_replication_lag_events",
    "rookery_leader",
    "rookery_sessions",
];

/// One module's samples, there once a match of it has started.
const OF_A_MODULE: [&str; 17] = [
    "rookery_matches{module=\"echo\",role=\"owner\"}",
    "rookery_matches{module=\"echo\",role=\"backup\"}",
    "rookery_match_events_total{module=\"echo\"}",
    "rookery_match_event_seconds_count{module=\"echo\"}",
    "rookery_match_undo_seconds_count{module=\"echo\"}",
    "rookery_match_tick_late_total{module=\"echo\"}",
    "rookery_match_tick_late_seconds_count{module=\"echo\"}",
    "rookery_match_rest_seconds_count{module=\"echo\"}",
    "rookery_match_log_dropped_total{module=\"echo\"}",
    "rookery_match_traps_total{kind=\"trap\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"time\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"memory\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"host_calls\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"bytes\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"log_lines\",module=\"echo\"}",
    "rookery_match_traps_total{kind=\"bad_output\",module=\"echo\"}",
    "rookery_match_event_seconds_sum{module=\"echo\"}",
];

fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// A sample that must be there.
async fn sample(ops: &Ops, sample: &str) -> f64 {
    let text = ops.metrics().await;
    value(&text, sample).unwrap_or_else(|| panic!("{sample} is not in /metrics"))
}

/// Waits until a sample is more than it was.
async fn rises(ops: &Ops, name: &str, from: f64) {
    eventually(&format!("{name} rises above {from}"), async || {
        sample(ops, name).await > from
    })
    .await;
}

/// `promtool check metrics` has nothing to object to. Where it is not installed that is said, and in CI it is a failure.
fn check_with_promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "promtool (Debian's prometheus package): {error}"
            );
            eprintln!("skipped: promtool (Debian's prometheus package) is not installed");
            return;
        }
    };
    promtool
        .stdin
        .take()
        .expect("it is piped")
        .write_all(text.as_bytes())
        .expect("promtool reads");
    let checked = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.trim().is_empty(), "promtool: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_there_from_the_start_and_promtool_finds_no_fault() {
    let cluster = TestCluster::start(1).await;
    let ops = cluster.ops(0);
    let fresh = ops.metrics().await;
    for (family, kind) in FAMILIES {
        assert_eq!(
            fresh.matches(&format!("# TYPE {family} {kind}\n")).count(),
            1,
            "{family}"
        );
        assert_eq!(fresh.matches(&format!("# HELP {family} ")).count(), 1, "{family}");
    }
    for name in FROM_THE_START {
        assert!(value(&fresh, name).is_some(), "{name} is not there from the start");
    }
    assert_eq!(value(&fresh, "rookery_store_up"), Some(1.0));
    assert_eq!(value(&fresh, "rookery_members{state=\"ready\"}"), Some(1.0));
    assert!(
        fresh.contains("rookery_build_info{version=\""),
        "the build says which it is"
    );
    check_with_promtool(&fresh);
    for name in OF_A_MODULE {
        assert_eq!(value(&fresh, name), None, "{name} before any match of the module");
    }
    // Every module's samples are there with its first match, and ids are in no label.
    cluster.publish("echo").await;
    let client = cluster.node(0).guest(Encoding::Json).await;
    let target = client.create("echo").await;
    client.join(&target).await.unwrap();
    let used = ops.metrics().await;
    for name in OF_A_MODULE {
        assert!(value(&used, name).is_some(), "{name} is not there with the first match");
    }
    for id in [target.as_str(), client.player(), cluster.node(0).name()] {
        assert!(!used.contains(id), "{id} is in a label");
    }
    check_with_promtool(&used);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_players_do_moves_the_counts_of_players_and_matches() {
    let cluster = TestCluster::builder(2)
        .set("limits.inputs", "5/s burst 5")
        .set("limits.control", "20/s burst 60")
        .set("limits.accounts", "1/s burst 20")
        .start()
        .await;
    cluster.publish("echo").await;
    cluster.publish("ticker").await;
    cluster.ops(0).publish(hostile()).await;
    let (here, there) = (cluster.ops(0), cluster.ops(1));
    let both = async |name: &str| {
        let (a, b) = (here.metric(name).await, there.metric(name).await);
        a.unwrap_or_default() + b.unwrap_or_default()
    };

    // A session, and its messages.
    let messages_in = sample(&here, "rookery_client_messages_total{direction=\"in\"}").await;
    let messages_out = sample(&here, "rookery_client_messages_total{direction=\"out\"}").await;
    let accounts = sample(&here, "rookery_store_seconds_count{operation=\"open_account\"}").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    assert_eq!(sample(&here, "rookery_sessions").await, 1.0);
    assert_eq!(sample(&here, "rookery_connections").await, 1.0);
    assert_eq!(sample(&there, "rookery_sessions").await, 0.0);
    rises(&here, "rookery_client_messages_total{direction=\"in\"}", messages_in).await;
    rises(&here, "rookery_client_messages_total{direction=\"out\"}", messages_out).await;
    rises(
        &here,
        "rookery_store_seconds_count{operation=\"open_account\"}",
        accounts,
    )
    .await;

    // A match of the other node, so that its messages cross: created until it is placed there.
    let created = sample(&here, "rookery_store_seconds_count{operation=\"create_match\"}").await;
    let target = loop {
        let target = ana.create("echo").await;
        if here.match_view(&target).await["owner"] == cluster.node(1).name() {
            break target;
        }
    };
    rises(
        &here,
        "rookery_store_seconds_count{operation=\"create_match\"}",
        created,
    )
    .await;
    assert!(sample(&there, "rookery_matches{module=\"echo\",role=\"owner\"}").await >= 1.0);
    let events = sample(&there, "rookery_match_events_total{module=\"echo\"}").await;
    let timed = sample(&there, "rookery_match_event_seconds_count{module=\"echo\"}").await;
    let crossed = [
        (&here, "rookery_peer_messages_total{direction=\"out\"}"),
        (&here, "rookery_peer_messages_total{direction=\"in\"}"),
        (&there, "rookery_peer_messages_total{direction=\"out\"}"),
        (&there, "rookery_peer_messages_total{direction=\"in\"}"),
    ];
    let mut before = Vec::new();
    for (ops, name) in crossed {
        before.push(sample(ops, name).await);
    }
    ana.join(&target).await.unwrap();
    ana.ask("match.send", json!({"match": target, "n": 1, "data": "hello"}))
        .await
        .unwrap();
    rises(&there, "rookery_match_events_total{module=\"echo\"}", events + 1.0).await;
    rises(
        &there,
        "rookery_match_event_seconds_count{module=\"echo\"}",
        timed + 1.0,
    )
    .await;
    for ((ops, name), before) in crossed.into_iter().zip(before) {
        rises(ops, name, before).await;
    }

    // Its end.
    let matches = both("rookery_matches{module=\"echo\",role=\"owner\"}").await;
    let finished = sample(&there, "rookery_store_seconds_count{operation=\"finish_match\"}").await;
    here.post(&format!("/v1/matches/{target}/end"), json!({})).await;
    ana.push_of("match.ended").await;
    eventually("one match less is counted", async || {
        both("rookery_matches{module=\"echo\",role=\"owner\"}").await == matches - 1.0
    })
    .await;
    rises(
        &there,
        "rookery_store_seconds_count{operation=\"finish_match\"}",
        finished,
    )
    .await;

    // Traps, twenty a second until there are too many.
    let bad = ana.create("hostile").await;
    ana.join(&bad).await.unwrap();
    ana.send(&bad, 1, json!({"do": "trap", "in": "tick"})).await;
    ana.push_of("match.failed").await;
    assert_eq!(
        both("rookery_match_traps_total{kind=\"trap\",module=\"hostile\"}").await,
        50.0
    );
    // The last one was put back for the recording, but the match did not go on.
    assert_eq!(both("rookery_match_undo_seconds_count{module=\"hostile\"}").await, 49.0);
    assert_eq!(both("rookery_matches_failed_total").await, 1.0);

    // Too much of everything.
    let ben = cluster.node(0).guest(Encoding::MsgPack).await;
    let quick = ben.create("echo").await;
    ben.join(&quick).await.unwrap();
    for _ in 0..20 {
        ben.send_unnumbered(&quick, json!("again")).await;
    }
    assert_eq!(ben.push_of("error").await["code"], "rate_limited");
    rises(&here, "rookery_rate_limited_total{class=\"inputs\"}", 0.0).await;
    for _ in 0..200 {
        ben.tell("match.list", json!({})).await;
    }
    rises(&here, "rookery_rate_limited_total{class=\"control\"}", 0.0).await;
    let http = Ops::new(cluster.node(0).client_address());
    eventually("an account call is refused", async || {
        http.post("/v1/auth/guest", json!({})).await.0 == 429
    })
    .await;
    rises(&here, "rookery_rate_limited_total{class=\"accounts\"}", 0.0).await;

    drop((ana, ben));
    eventually("nobody is counted", async || {
        sample(&here, "rookery_sessions").await == 0.0 && sample(&here, "rookery_connections").await == 0.0
    })
    .await;
    check_with_promtool(&here.metrics().await);
    check_with_promtool(&there.metrics().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_nodes_moves_the_counts_of_the_mesh() {
    let mut cluster = TestCluster::start(3).await;
    cluster.publish("ticker").await;
    let ops = cluster.ops(0);
    assert_eq!(sample(&ops, "rookery_members{state=\"ready\"}").await, 3.0);
    assert!(sample(&ops, "rookery_gossip_keys").await > 0.0);
    assert!(sample(&ops, "rookery_gossip_lives").await >= 1.0);
    assert!(sample(&ops, "rookery_gossip_bytes").await > 0.0);
    // A control and a data connection for each peer, data ones when there is something to say.
    assert!(sample(&ops, "rookery_peer_connections").await >= 2.0);
    rises(&ops, "rookery_peer_rtt_seconds_count", 0.0).await;

    // Seeds and names that lead nowhere.
    for (key, address, source) in [
        ("cluster.seeds", "127.0.0.1:1", "seed"),
        ("cluster.dns", "nobody.invalid:7701", "dns"),
    ] {
        let mut lost = NodeSpec::new(&format!("lost-{source}"), cluster.dir());
        lost.set(key, address)
            .set("cluster.secret", "a secret that nobody else in these tests has");
        // Nobody answers there.
        lost.set("cluster.dns_resolver", "127.0.0.1:1");
        let mut lost = lost.spawn();
        lost.ready().await;
        rises(
            &lost.ops(),
            &format!("rookery_discovery_failures_total{{source=\"{source}\"}}"),
            0.0,
        )
        .await;
    }

    // A node that stands still for a moment is suspected, and cleared.
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = loop {
        let target = ana.create("ticker").await;
        if ops.match_view(&target).await["owner"] == cluster.node(2).name() {
            break target;
        }
    };
    ana.join(&target).await.unwrap();
    let suspected = sample(&ops, "rookery_suspicions_total").await;
    let late_of = cluster.ops(2);
    let late = sample(&late_of, "rookery_match_tick_late_total{module=\"ticker\"}").await;
    let cleared = sample(&ops, "rookery_false_suspicions_total").await;
    cluster.node_mut(2).stop();
    rises(&ops, "rookery_suspicions_total", suspected).await;
    cluster.node_mut(2).cont();
    rises(&ops, "rookery_false_suspicions_total", cleared).await;
    cluster.settled().await;
    // Its matches missed ticks meanwhile.
    rises(&late_of, "rookery_match_tick_late_total{module=\"ticker\"}", late).await;

    // A node that is gone is dead, and its matches are lost: somebody counts each once.
    cluster.node_mut(2).kill();
    ana.push_of("match.lost").await;
    let (here, there) = (cluster.ops(0), cluster.ops(1));
    eventually("the dead node is counted", async || {
        sample(&here, "rookery_members{state=\"ready\"}").await == 2.0
    })
    .await;
    assert!(sample(&here, "rookery_members{state=\"dead\"}").await <= 1.0);
    let lost =
        async || sample(&here, "rookery_matches_lost_total").await + sample(&there, "rookery_matches_lost_total").await;
    eventually("a lost match is counted", async || lost().await >= 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_through_its_own_death_drops_the_match_that_is_no_longer_its_own() {
    let mut cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = loop {
        let target = ana.create("echo").await;
        if cluster.ops(0).match_view(&target).await["owner"] == cluster.node(2).name() {
            break target;
        }
    };
    ana.join(&target).await.unwrap();
    cluster.node_mut(2).stop();
    ana.push_of("match.lost").await;
    cluster.node_mut(2).cont();
    let sleeper = cluster.ops(2);
    rises(&sleeper, "rookery_ownership_conflicts_total", 0.0).await;
    assert_eq!(cluster.ops(0).match_view(&target).await["status"], "lost");
    // Nobody is sent to what is left of it, on any node.
    cluster.settled().await;
    for node in cluster.nodes() {
        let player = node.guest(Encoding::MsgPack).await;
        eventually("the lost match is in no list", async || {
            let listed = player
                .ask("match.list", json!({"module": "echo"}))
                .await
                .expect("lists are served");
            let matches = listed["matches"].as_array().expect("a list");
            matches.iter().all(|listed| listed["match"] != target.as_str())
        })
        .await;
        let refused = player.join(&target).await.expect_err("nobody gets in");
        assert_eq!(
            (refused.code.as_str(), &refused.details["status"]),
            ("match.closed", &json!("lost"))
        );
    }
    eventually("the sleeper owns only what the store says", async || {
        let placed = sample(&sleeper, "rookery_matches{module=\"echo\",role=\"owner\"}").await;
        let (_, cluster) = sleeper.get("/v1/cluster").await;
        let nodes = cluster["nodes"].as_array().expect("a list of nodes");
        nodes
            .iter()
            .any(|node| node["name"] == "node-3" && node["matches"].as_f64() == Some(placed))
            && placed == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_an_owner_that_does_not_answer_is_counted_until_it_is_answered() {
    let mut cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = loop {
        let target = ana.create("echo").await;
        if cluster.ops(0).match_view(&target).await["owner"] == cluster.node(1).name() {
            break target;
        }
    };
    ana.join(&target).await.unwrap();
    let here = cluster.ops(0);
    assert_eq!(sample(&here, "rookery_held_requests").await, 0.0);
    cluster.node_mut(1).kill();
    for n in 1..=10 {
        ana.send(&target, n, json!(n)).await;
    }
    rises(&here, "rookery_held_requests", 9.0).await;
    ana.push_of("match.lost").await;
    eventually("nothing is held any more", async || {
        sample(&here, "rookery_held_requests").await == 0.0
    })
    .await;
}
