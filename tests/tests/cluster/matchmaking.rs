//! Queues and parties over the whole cluster: whoever queues on whichever node, in whichever encoding, is matched once, is told
//! once on each connection, and is not forgotten when a node dies.

mod deaths;
mod measured;

use futures_util::StreamExt as _;
use rookery_tests::harness::{Account, Builder, Client, Encoding, TestCluster, eventually};
use serde_json::{Value, json};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

/// Nodes with a queue of duels.
fn duels(nodes: usize) -> Builder {
    TestCluster::builder(nodes)
        .set("queues.duel.module", "duel")
        .set("queues.duel.match_on", "mode")
}

async fn queue(client: &Client, queue: &str, properties: Value) -> String {
    let joined = client
        .ask("queue.join", json!({"queue": queue, "properties": properties}))
        .await;
    joined.unwrap()["ticket"].as_str().unwrap().to_owned()
}

/// Waits until the player has no such ticket any more.
async fn is_gone(client: &Client, ticket: &str) {
    let gone = async || {
        let state = client.ask("queue.status", json!({"ticket": ticket})).await;
        state.is_err_and(|refused| refused.code == "queue.unknown")
    };
    eventually("the ticket is gone", gone).await;
}

async fn refused(client: &Client, kind: &str, fields: Value) -> String {
    client.ask(kind, fields).await.unwrap_err().code
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_queue_on_different_nodes_meet() {
    meet(duels(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_queue_on_different_nodes_meet_on_postgresql() {
    if let Some(builder) = duels(2).postgres() {
        meet(builder).await;
    }
}

async fn meet(builder: Builder) {
    let cluster = builder.start().await;
    cluster.publish("duel").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let tickets = [
        queue(&ana, "duel", json!({"mode": "ranked"})).await,
        queue(&ben, "duel", json!({"mode": "ranked"})).await,
    ];
    let mut heard = Vec::new();
    for (client, ticket) in [&ana, &ben].into_iter().zip(&tickets) {
        let matched = client.push_of("queue.matched").await;
        assert_eq!(&matched["ticket"], ticket);
        let mut players: Vec<&str> = matched["players"]
            .as_array()
            .unwrap()
            .iter()
            .map(|player| player["player"].as_str().unwrap())
            .collect();
        players.sort_unstable();
        let mut expected = [ana.player(), ben.player()];
        expected.sort_unstable();
        assert_eq!(players, expected);
        heard.push(matched["match"].as_str().unwrap().to_owned());
    }
    assert_eq!(heard[0], heard[1]);
    for client in [&ana, &ben] {
        let joined = client.join(&heard[0]).await.unwrap();
        assert_eq!(joined["module"], "duel");
    }
    let begin = ana
        .push_where("the duel begins", |push| push["data"]["event"] == "begin")
        .await;
    assert_eq!(begin["match"], heard[0]);
    for (client, ticket) in [&ana, &ben].into_iter().zip(&tickets) {
        is_gone(client, ticket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_queues_is_answered_or_refused_in_both_encodings() {
    let cluster = duels(2)
        .set("queues.duel.skill.property", "skill")
        .set("queues.duel.skill.window", 100)
        .set("queues.small.module", "duel")
        .set("queues.small.max_waiting", 1)
        .set("queues.none.module", "not-published")
        .start()
        .await;
    cluster.publish("duel").await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let mode = format!("{encoding:?}");
        let ticket = queue(&ana, "duel", json!({"mode": mode, "skill": 1})).await;
        let state = ana.ask("queue.status", json!({"ticket": ticket})).await.unwrap();
        assert_eq!(
            (&state["type"], &state["state"]),
            (&json!("queue.state"), &json!("waiting"))
        );
        assert_eq!((&state["queue"], state["waited_ms"].is_u64()), (&json!("duel"), true));
        let again = ana.ask("queue.join", json!({"queue": "duel"})).await.unwrap_err();
        assert_eq!(
            (again.code.as_str(), &again.details["ticket"]),
            ("queue.already_waiting", &json!(ticket))
        );
        assert_eq!(
            refused(&ana, "queue.join", json!({"queue": "nowhere"})).await,
            "queue.unknown"
        );
        assert_eq!(
            refused(&ana, "queue.join", json!({"queue": "none"})).await,
            "module.not_found"
        );
        for (field, value) in [
            ("properties", json!({"skill": "high"})),
            ("query", json!({"skill": {"most": 1}})),
            ("properties", json!([1])),
            ("properties", json!({"long": "x".repeat(5_000)})),
        ] {
            let asked = json!({"queue": "duel", field: value});
            assert_eq!(refused(&ben, "queue.join", asked).await, "bad_message");
        }
        assert_eq!(
            refused(&ben, "queue.join", json!({"queue": "duel", "party": "NONE"})).await,
            "party.not_found"
        );
        // Others' tickets are nobody's business.
        for kind in ["queue.status", "queue.leave"] {
            assert_eq!(refused(&ben, kind, json!({"ticket": ticket})).await, "queue.unknown");
            assert_eq!(refused(&ben, kind, json!({"ticket": "no id"})).await, "queue.unknown");
        }
        let left = ana.ask("queue.leave", json!({"ticket": ticket})).await.unwrap();
        assert_eq!((&left["type"], &left["ticket"]), (&json!("queue.left"), &json!(ticket)));
        assert_eq!(
            refused(&ana, "queue.status", json!({"ticket": ticket})).await,
            "queue.unknown"
        );
        let only = queue(&ana, "small", json!({})).await;
        assert_eq!(
            refused(&ben, "queue.join", json!({"queue": "small"})).await,
            "queue.full"
        );
        ana.ask("queue.leave", json!({"ticket": only})).await.unwrap();
    }
}

fn scaled(figure: usize) -> usize {
    let percent = std::env::var("ROOKERY_SCALE")
        .ok()
        .and_then(|percent| percent.parse::<usize>().ok());
    figure * percent.unwrap_or(100) / 100
}

/// A cluster on which thousands may come from one address.
fn crowded() -> Builder {
    duels(3)
        .set("limits.accounts", "100000/s burst 100000")
        .set("limits.created_per_player", 100_000)
}

/// Opens this many sessions, turn by turn on all nodes and in both encodings.
async fn sessions(cluster: &TestCluster, count: usize) -> Vec<Client> {
    let addresses: Vec<_> = cluster.nodes().iter().map(|node| node.client_address()).collect();
    let opened = futures_util::stream::iter(0..count).map(|no| {
        let address = addresses[no % addresses.len()];
        let encoding = BOTH[no / addresses.len() % 2];
        async move {
            let account = Account::guest(address).await;
            Client::open(address, encoding, &account).await
        }
    });
    opened.buffer_unordered(32).collect().await
}

/// Everything a player hears of parties and queues until this fits.
async fn hears(client: &Client, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    client.push_where(kind, |push| push["type"] == kind && fits(push)).await
}

fn members(state: &Value) -> Vec<&str> {
    let members = state["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_is_the_same_on_all_nodes_and_queues_together() {
    let cluster = duels(2).start().await;
    cluster.publish("duel").await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let cleo = cluster.node(1).guest(encoding).await;
        for (kind, fields) in [
            ("party.join", json!({"code": "NOBODY"})),
            ("party.leave", json!({})),
            ("party.kick", json!({"player": ben.player()})),
        ] {
            assert_eq!(refused(&ana, kind, fields).await, "party.not_found");
        }
        let party = ana.ask("party.create", json!({})).await.unwrap();
        assert_eq!(
            (&party["type"], &party["leader"]),
            (&json!("party.state"), &json!(ana.player()))
        );
        let code = party["code"].as_str().unwrap();
        assert_eq!(
            ana.ask("party.create", json!({})).await.unwrap()["code"],
            code,
            "it is in one already"
        );
        let joined = ben
            .ask("party.join", json!({"code": code.to_lowercase()}))
            .await
            .unwrap();
        assert_eq!(members(&joined), [ana.player(), ben.player()]);
        hears(&ana, "party.state", |state| members(state).len() == 2).await;
        assert_eq!(
            refused(&ben, "party.kick", json!({"player": ana.player()})).await,
            "forbidden"
        );
        assert_eq!(
            refused(&ana, "party.kick", json!({"player": cleo.player()})).await,
            "party.not_found"
        );

        // Both are queued by one of them, and play together.
        let party = json!({"queue": "duel", "properties": {"mode": "party"}, "party": code});
        assert_eq!(refused(&ben, "queue.join", party.clone()).await, "forbidden");
        let ticket = ana.ask("queue.join", party).await.unwrap()["ticket"].clone();
        let matched = hears(&ana, "queue.matched", |_| true).await;
        assert_eq!(matched["ticket"], ticket);
        let other = hears(&ben, "queue.matched", |_| true).await;
        assert_eq!(other["match"], matched["match"]);
        assert_ne!(other["ticket"], ticket);
        for client in [&ana, &ben] {
            client.join(matched["match"].as_str().unwrap()).await.unwrap();
        }

        // Three are too many for this queue.
        cleo.ask("party.join", json!({"code": code})).await.unwrap();
        let party = json!({"queue": "duel", "party": code});
        assert_eq!(refused(&ana, "queue.join", party).await, "party.full");
        // Who leaves hears the party without them, and the others too; the next one leads.
        let left = ana.ask("party.leave", json!({})).await.unwrap();
        assert_eq!(members(&left), [ben.player(), cleo.player()]);
        let state = hears(&cleo, "party.state", |state| members(state).len() == 2).await;
        assert_eq!(state["leader"], ben.player());
        let kicked = ben.ask("party.kick", json!({"player": cleo.player()})).await.unwrap();
        assert_eq!(members(&kicked), [ben.player()]);
        hears(&cleo, "party.state", |state| !members(state).contains(&cleo.player())).await;
        // On a new connection the party is heard of again, on whichever node.
        let token = json!({"resume": {"token": ben.opened()["resume_token"]}});
        let ben = Client::open_with(cluster.node(0).client_address(), encoding, token).await;
        hears(&ben, "party.state", |state| members(state) == [ben.player()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_has_sixteen_places_and_one_that_breaks_up_waits_no_more() {
    let cluster = duels(2)
        .set("queues.raid.module", "echo")
        .set("queues.raid.min_players", 20)
        .set("queues.raid.max_players", 20)
        .start()
        .await;
    cluster.publish("echo").await;
    let leader = cluster.node(0).guest(Encoding::Json).await;
    let party = leader.ask("party.create", json!({})).await.unwrap();
    let mut others = Vec::new();
    for no in 1..16 {
        let member = cluster.node(no % 2).guest(BOTH[no % 2]).await;
        member.ask("party.join", json!({"code": party["code"]})).await.unwrap();
        others.push(member);
    }
    let late = cluster.node(1).guest(Encoding::MsgPack).await;
    assert_eq!(
        refused(&late, "party.join", json!({"code": party["code"]})).await,
        "party.full"
    );
    leader
        .ask("queue.join", json!({"queue": "raid", "party": party["code"]}))
        .await
        .unwrap();
    let mut tickets = Vec::new();
    for member in &others {
        let state = hears(member, "queue.state", |state| state["state"] == "waiting").await;
        tickets.push(state["ticket"].clone());
    }
    others[3].ask("party.leave", json!({})).await.unwrap();
    for (member, ticket) in others.iter().zip(&tickets) {
        let expired = hears(member, "queue.expired", |_| true).await;
        assert_eq!(expired["ticket"], *ticket);
    }
    hears(&leader, "queue.expired", |_| true).await;
}

/// Another connection of the same player, when the one that there was is gone.
async fn again(cluster: &TestCluster, node: usize, gone: Client) -> Client {
    let fields = json!({"resume": {"token": gone.opened()["resume_token"]}});
    let encoding = gone.encoding();
    drop(gone);
    Client::open_with(cluster.node(node).client_address(), encoding, fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_ticket_is_told_on_the_next_connection_until_it_is_used() {
    let cluster = duels(2)
        .set("queues.short.module", "duel")
        .set("queues.short.expires", "1s")
        .start()
        .await;
    cluster.publish("duel").await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let ticket = queue(&ana, "duel", json!({})).await;
        // Its player is gone for a moment, and may be matched all the same.
        let gone = ana;
        let elsewhere = json!({"resume": {"token": gone.opened()["resume_token"]}});
        let (address, encoding) = (cluster.node(1).client_address(), gone.encoding());
        drop(gone);
        queue(&ben, "duel", json!({})).await;
        let target = hears(&ben, "queue.matched", |_| true).await["match"].clone();
        let ana = Client::open_with(address, encoding, elsewhere).await;
        let told = hears(&ana, "queue.matched", |_| true).await;
        assert_eq!((&told["ticket"], &told["match"]), (&json!(ticket), &target));
        let ana = again(&cluster, 0, ana).await;
        hears(&ana, "queue.matched", |told| told["match"] == target).await;
        ana.join(target.as_str().unwrap()).await.unwrap();
        is_gone(&ana, &ticket).await;

        // Expired while nobody listened: heard once.
        let short = queue(&ana, "short", json!({})).await;
        let gone = json!({"resume": {"token": ana.opened()["resume_token"]}});
        drop(ana);
        let waits = async || cluster.ops(1).get("/v1/queues").await.1["queues"][1]["waiting"] == 0;
        eventually("the ticket has expired", waits).await;
        let ana = Client::open_with(address, encoding, gone).await;
        let expired = hears(&ana, "queue.expired", |_| true).await;
        assert_eq!(expired["ticket"], short);
        is_gone(&ana, &short).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_is_kept_for_a_while_and_then_free_for_others() {
    let cluster = duels(2).set("queues.reserve", "2s").start().await;
    cluster.publish("duel").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let cleo = cluster.node(1).guest(Encoding::Json).await;
    queue(&ana, "duel", json!({})).await;
    let missed = queue(&ben, "duel", json!({})).await;
    let target = hears(&ana, "queue.matched", |_| true).await["match"]
        .as_str()
        .unwrap()
        .to_owned();
    ana.join(&target).await.unwrap();
    assert_eq!(
        cleo.join(&target).await.unwrap_err().code,
        "match.full",
        "the seat is kept"
    );
    let expired = hears(&ben, "queue.expired", |_| true).await;
    assert_eq!(expired["ticket"], missed);
    let free = async || cleo.join(&target).await.is_ok();
    eventually("the seat is free", free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_who_waits_and_where_matches_are_formed() {
    let cluster = duels(2).start().await;
    cluster.publish("duel").await;
    let former = async || {
        let (_, queues) = cluster.ops(1).get("/v1/queues").await;
        queues["queues"][0]["former"].as_str().map(str::to_owned)
    };
    let former = rookery_tests::harness::until("somebody forms", former).await;
    let former = cluster.index_of(&former);
    let ana = cluster.node(0).guest(Encoding::Json).await;
    queue(&ana, "duel", json!({})).await;
    for node in 0..2 {
        let (status, queues) = cluster.ops(node).get("/v1/queues").await;
        let duel = &queues["queues"][0];
        assert_eq!(
            (status, &duel["queue"], &duel["waiting"]),
            (200, &json!("duel"), &json!(1))
        );
        assert!(duel["oldest_ms"].is_u64(), "{duel}");
    }
    let ops = cluster.ops(former);
    let shown = async || ops.metric("rookery_tickets{queue=\"duel\"}").await == Some(1.0);
    eventually("the former counts the ticket", shown).await;
    let ben = cluster.node(1).guest(Encoding::Json).await;
    queue(&ben, "duel", json!({})).await;
    hears(&ben, "queue.matched", |_| true).await;
    assert_eq!(
        ops.metric("rookery_ticket_wait_seconds_count{queue=\"duel\"}").await,
        Some(2.0)
    );
    assert_eq!(
        cluster.ops(1 - former).metric("rookery_tickets{queue=\"duel\"}").await,
        Some(0.0)
    );
}
