//! Players' own values over their sockets, in both encodings and on both databases.

use rookery_tests::harness::{Account, Builder, Client, Encoding, TestCluster, courier, until};
use serde_json::{Value, json};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

fn limited() -> Builder {
    let builder = TestCluster::builder(2).set("limits.storage_value", "1KiB");
    builder.set("limits.storage_values", 5)
}

async fn code(client: &Client, kind: &str, fields: Value) -> String {
    let refused = client.ask(kind, fields.clone()).await;
    refused.expect_err(&format!("{kind} {fields}")).code
}

async fn check_values(cluster: &TestCluster) {
    for (here, there) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        // One player on two nodes, in both encodings.
        let account = Account::guest(cluster.node(0).client_address()).await;
        let ana = Client::open(cluster.node(0).client_address(), here, &account).await;
        let also_ana = Client::open(cluster.node(1).client_address(), there, &account).await;
        let ben = cluster.node(1).guest(here).await;
        let deck = |key: &str| json!({"collection": "deck", "key": key});
        let with = |key: &str, more: Value| {
            let mut fields = deck(key);
            fields
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            fields
        };

        assert_eq!(code(&ana, "storage.get", deck("one")).await, "storage.not_found");
        let value = json!({"cards": [1, 2.5, "três"], "open": null});
        let stored = ana
            .ask("storage.put", with("one", json!({"value": value})))
            .await
            .unwrap();
        assert_eq!(stored["type"], "storage.stored");
        let version = stored["version"].as_str().expect("a version").to_owned();
        for client in [&ana, &also_ana] {
            let got = client.ask("storage.get", deck("one")).await.unwrap();
            assert_eq!(
                (&got["type"], &got["value"]),
                (&json!("storage.value"), &value),
                "{got}"
            );
            assert_eq!((&got["version"], &got["key"]), (&json!(version), &json!("one")));
        }
        assert_eq!(
            code(&ben, "storage.get", deck("one")).await,
            "storage.not_found",
            "not another player's"
        );

        // Compare and set: of two who read the same version, one writes.
        let newer = also_ana
            .ask("storage.put", with("one", json!({"value": 2, "version": version})))
            .await
            .unwrap();
        let stale = with("one", json!({"value": 3, "version": version}));
        let refused = ana.ask("storage.put", stale).await.unwrap_err();
        assert_eq!(refused.code, "storage.conflict");
        assert_eq!(refused.details["version"], newer["version"]);
        assert_eq!(
            code(&ana, "storage.put", with("one", json!({"value": 3, "version": ""}))).await,
            "storage.conflict"
        );
        assert_eq!(
            code(&ana, "storage.delete", with("one", json!({"version": version}))).await,
            "storage.conflict"
        );
        let none = ana
            .ask("storage.put", with("none", json!({"value": 3, "version": version})))
            .await
            .unwrap_err();
        assert_eq!(
            (none.code.as_str(), &none.details["version"]),
            ("storage.conflict", &json!(""))
        );
        assert_eq!(code(&ana, "storage.delete", deck("none")).await, "storage.not_found");

        // Lists by prefix, by pages.
        for key in ["a/1", "a/2", "a/3", "b"] {
            ana.ask("storage.put", with(key, json!({"value": key, "version": ""})))
                .await
                .unwrap();
        }
        let keys = |listed: &Value| -> Vec<String> {
            assert_eq!(listed["type"], "storage.listed");
            let values = listed["values"].as_array().expect("a list").iter();
            values
                .map(|value| value["key"].as_str().expect("a key").to_owned())
                .collect()
        };
        let all = also_ana
            .ask("storage.list", json!({"collection": "deck"}))
            .await
            .unwrap();
        assert_eq!(keys(&all), ["a/1", "a/2", "a/3", "b", "one"]);
        assert_eq!(
            (&all["values"][1]["value"], &all["values"][4]["value"]),
            (&json!("a/2"), &json!(2))
        );
        assert!(all.get("cursor").is_none_or(Value::is_null), "{all}");
        let page = json!({"collection": "deck", "key": "a/", "limit": 2});
        let page = ana.ask("storage.list", page).await.unwrap();
        assert_eq!(keys(&page), ["a/1", "a/2"]);
        let rest = json!({"collection": "deck", "key": "a/", "limit": 2, "cursor": page["cursor"]});
        assert_eq!(keys(&ana.ask("storage.list", rest).await.unwrap()), ["a/3"]);
        assert_eq!(
            keys(&ben.ask("storage.list", json!({"collection": "deck"})).await.unwrap()),
            [""; 0]
        );

        // Limits, and names that are none.
        let sixth = ana
            .ask("storage.put", with("sixth", json!({"value": 1})))
            .await
            .unwrap_err();
        assert_eq!(
            (sixth.code.as_str(), &sixth.details["values"]),
            ("storage.too_large", &json!(5))
        );
        let large = with("b", json!({"value": "x".repeat(1_100)}));
        assert_eq!(code(&ana, "storage.put", large).await, "storage.too_large");
        for (kind, wrong) in [
            ("storage.get", json!({"collection": "", "key": "a"})),
            ("storage.get", json!({"collection": "de ck", "key": "a"})),
            ("storage.put", json!({"collection": "deck", "key": "", "value": 1})),
            (
                "storage.put",
                json!({"collection": "deck", "key": "a\u{0}", "value": 1}),
            ),
            ("storage.delete", json!({"collection": "deck", "key": "x".repeat(200)})),
            ("storage.list", json!({"collection": "deck", "key": "\u{0}"})),
            ("storage.list", json!({"collection": "deck", "cursor": "\n"})),
            ("storage.list", json!({"collection": 7})),
        ] {
            assert_eq!(code(&ana, kind, wrong.clone()).await, "bad_message", "{kind} {wrong}");
        }

        let gone = ana
            .ask("storage.delete", with("one", json!({"version": newer["version"]})))
            .await
            .unwrap();
        assert_eq!(gone["type"], "storage.deleted");
        assert_eq!(code(&also_ana, "storage.get", deck("one")).await, "storage.not_found");
        // There is room for another one now.
        ana.ask("storage.put", with("sixth", json!({"value": 1})))
            .await
            .unwrap();
    }
}

/// What a module keeps for its players: read by them, written by its matches.
async fn check_modules_values(cluster: &TestCluster) {
    cluster.publish("echo").await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let wins = json!({"collection": "wins", "key": "all", "module": "echo"});
        assert_eq!(code(&ana, "storage.get", wins.clone()).await, "storage.not_found");
        let mut put = wins.clone();
        put["value"] = 7.into();
        assert_eq!(code(&ana, "storage.put", put).await, "forbidden");
        assert_eq!(code(&ana, "storage.delete", wins).await, "forbidden");
        let nobody = json!({"collection": "wins", "key": "all", "module": "nobody"});
        assert_eq!(code(&ana, "storage.get", nobody.clone()).await, "module.not_found");
        assert_eq!(code(&ana, "storage.list", nobody).await, "module.not_found");
        let listed = ana
            .ask("storage.list", json!({"collection": "wins", "module": "echo"}))
            .await
            .unwrap();
        assert_eq!(listed["values"], json!([]));
    }
}

/// What a client sends without waiting for answers is done in its order.
async fn check_order(cluster: &TestCluster) {
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        for no in 0..20 {
            ana.tell("storage.put", json!({"collection": "deck", "key": "one", "value": no}))
                .await;
        }
        let got = ana
            .ask("storage.get", json!({"collection": "deck", "key": "one"}))
            .await
            .unwrap();
        assert_eq!(got["value"], 19);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_players_values_are_the_same_on_every_node() {
    let cluster = limited().start().await;
    check_values(&cluster).await;
    check_modules_values(&cluster).await;
    check_order(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_players_values_are_the_same_on_every_node_with_postgres() {
    if let Some(builder) = limited().postgres() {
        let cluster = builder.start().await;
        check_values(&cluster).await;
        check_modules_values(&cluster).await;
        check_order(&cluster).await;
    }
}

/// The courier's next answer about what it keeps, or why it does not.
async fn kept(player: &Client) -> Value {
    let is_answer = |push: &Value| push["data"]["kept"].is_number() || push["data"]["answer"].is_number();
    let push = player.push_where("an answer to the match", is_answer).await;
    match &push["data"]["error"] {
        Value::Null => push["data"]["values"][0].clone(),
        error => error.clone(),
    }
}

/// What a match wrote for a player is read by that player over the socket, and versions are compared.
async fn check_what_a_match_wrote(cluster: &TestCluster) {
    cluster.ops(0).publish(courier()).await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let game_match = until("a courier is placed on the other node", async || {
            let made = ana.create("courier").await;
            (cluster.ops(0).match_view(&made).await["owner"] == cluster.node(1).name()).then_some(made)
        })
        .await;
        ana.join(&game_match).await.unwrap();
        let keep = async |value: u64, version: Value| {
            let order = json!({"keep": "coin", "value": value, "version": version});
            ana.send_unnumbered(&game_match, order).await;
            kept(&ana).await
        };
        let coin = json!({"collection": "keepsakes", "key": "coin", "module": "courier"});
        let first = keep(5, json!("")).await;
        assert_eq!((&first[0], &first[2]), (&json!("coin"), &Value::Null));
        let got = ana.ask("storage.get", coin.clone()).await.unwrap();
        assert_eq!((&got["value"], &got["version"]), (&json!(5), &first[1]));
        assert_eq!(
            code(&ben, "storage.get", coin.clone()).await,
            "storage.not_found",
            "it is ana's"
        );

        // Only if absent, only if unchanged, and whatever there is.
        assert_eq!(keep(6, json!("")).await, "Conflict");
        let second = keep(7, first[1].clone()).await;
        assert_ne!(second[1], first[1], "every write has a version of its own");
        assert_eq!(keep(8, first[1].clone()).await, "Conflict");
        ana.send_unnumbered(&game_match, json!({"recall": "coin"})).await;
        assert_eq!(kept(&ana).await, json!(["coin", second[1], 7]));
        let third = keep(9, Value::Null).await;
        let listed = json!({"collection": "keepsakes", "module": "courier"});
        let listed = ana.ask("storage.list", listed).await.unwrap();
        let values = listed["values"].as_array().unwrap();
        assert_eq!(values.len(), 1, "{listed}");
        assert_eq!((&values[0]["value"], &values[0]["version"]), (&json!(9), &third[1]));

        // The player reads it and does not write it; a value of their own under the same key is another one.
        let mut put = coin.clone();
        put["value"] = 1_000.into();
        assert_eq!(code(&ana, "storage.put", put).await, "forbidden");
        assert_eq!(code(&ana, "storage.delete", coin.clone()).await, "forbidden");
        let own = json!({"collection": "keepsakes", "key": "coin", "value": 1, "version": ""});
        ana.ask("storage.put", own).await.unwrap();
        assert_eq!(ana.ask("storage.get", coin).await.unwrap()["value"], 9);
        ana.send_unnumbered(&game_match, json!({"recall": "coin"})).await;
        assert_eq!(kept(&ana).await, json!(["coin", third[1], 9]));
        ana.send_unnumbered(&game_match, json!({"recall": "hat"})).await;
        assert_eq!(kept(&ana).await, Value::Null, "nothing is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_match_wrote_for_a_player_is_read_over_the_socket() {
    check_what_a_match_wrote(&TestCluster::start(2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_match_wrote_for_a_player_is_read_over_the_socket_with_postgres() {
    if let Some(builder) = TestCluster::builder(2).postgres() {
        check_what_a_match_wrote(&builder.start().await).await;
    }
}

/// Without the store, values are `unavailable` and play goes on; with it again all is as it was. `reads`: they are served meanwhile.
async fn check_outage(cluster: &TestCluster, reads: bool) {
    cluster.ops(0).publish(courier()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let game_match = ana.create("courier").await;
    ana.join(&game_match).await.unwrap();
    let one = json!({"collection": "deck", "key": "one"});
    let with = |value: u64| json!({"collection": "deck", "key": "one", "value": value});
    let list = json!({"collection": "deck"});
    for player in [&ana, &ben] {
        player.ask("storage.put", with(1)).await.unwrap();
    }
    ana.send_unnumbered(&game_match, json!({"keep": "coin", "value": 5}))
        .await;
    let coin = kept(&ana).await;

    let outage = cluster.take_store().await;
    for player in [&ana, &ben] {
        assert_eq!(code(player, "storage.put", with(2)).await, "unavailable");
        assert_eq!(code(player, "storage.delete", one.clone()).await, "unavailable");
        for (kind, fields) in [("storage.get", &one), ("storage.list", &list)] {
            match player.ask(kind, fields.clone()).await {
                Ok(_) => assert!(reads, "{kind} was served without the store"),
                Err(refused) => assert!(!reads && refused.code == "unavailable", "{kind}: {refused:?}"),
            }
        }
    }
    ana.send_unnumbered(&game_match, json!({"keep": "coin", "value": 6, "version": coin[1]}))
        .await;
    ana.send_unnumbered(&game_match, json!({"ask": true})).await;
    ana.push_where("the match plays on", |push| push["data"]["held"] == json!(0))
        .await;
    assert_eq!(kept(&ana).await, "Unavailable");
    outage.end().await;

    // What was refused may have been done all the same, but nothing between.
    for player in [&ana, &ben] {
        until("values are served again", async || {
            match player.ask("storage.get", one.clone()).await {
                Ok(got) => [json!(1), json!(2)].contains(&got["value"]).then_some(()),
                Err(refused) => (refused.code == "storage.not_found").then_some(()),
            }
        })
        .await;
        let stored = until("values are written again", async || {
            player.ask("storage.put", with(3)).await.ok()
        })
        .await;
        let got = player.ask("storage.get", one.clone()).await.unwrap();
        assert_eq!((&got["value"], &got["version"]), (&json!(3), &stored["version"]));
    }
    ana.send_unnumbered(&game_match, json!({"keep": "coin", "value": 7}))
        .await;
    assert_eq!(kept(&ana).await[0], "coin");
    ana.send_unnumbered(&game_match, json!({"recall": "coin"})).await;
    assert_eq!(kept(&ana).await[2], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_values_are_unavailable_and_with_it_again_they_are_as_they_were() {
    check_outage(&TestCluster::start(2).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_values_are_unavailable_and_with_it_again_they_are_as_they_were_with_postgres() {
    if let Some(builder) = TestCluster::builder(2).postgres() {
        check_outage(&builder.start().await, false).await;
    }
}
