//! Publishing: nobody waits for a compiler, and on a cluster with keys only what was signed by one of them runs, on every node,
//! whatever the store says.

use std::path::Path;
use std::process::Command;

use rookery_tests::harness::{Client, Encoding, TestCluster, bundled, eventually, rookery_binary, until};
use serde_json::{Value, json};
use sqlx::Connection;

/// Runs `rookery module …`, and returns whether it went well and what it said.
async fn module(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(rookery_binary());
    command.arg("module").args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    let output = ran.await.expect("the command does not panic");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("it is text"))
}

/// Writes a new private key there, and returns the public one.
async fn keygen(path: &Path) -> String {
    let (made, public) = module(&["keygen", "--out", path.to_str().unwrap()]).await;
    assert!(made, "{public}");
    public.trim().to_owned()
}

/// Runs statements on the cluster's database that no node would.
async fn tamper(cluster: &TestCluster, sql: &str) {
    let mut connection = sqlx::SqliteConnection::connect(cluster.store_url()).await.unwrap();
    let sql = sqlx::AssertSqlSafe(format!("pragma busy_timeout = 30000; {sql}"));
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

/// A match on the node with this index.
async fn match_on(cluster: &TestCluster, player: &Client, module: &str, index: usize) -> String {
    let ops = cluster.ops(0);
    until("a match is placed there", async || {
        let game_match = player.create(module).await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(index).name()).then_some(game_match)
    })
    .await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn metric(cluster: &TestCluster, index: usize, sample: &str) -> f64 {
    let value = cluster.ops(index).metric(sample).await;
    value.unwrap_or_else(|| panic!("there is no {sample}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_a_cluster_runs_what_one_of_them_signed_and_nothing_else() {
    let keys = tempfile::tempdir().unwrap();
    let path = |name: &str| keys.path().join(name);
    let (ours, next) = (keygen(&path("ours")).await, keygen(&path("next")).await);
    keygen(&path("others")).await;
    let mut cluster = TestCluster::builder(3)
        .set("modules.keys", format!("{ours},{next}"))
        .start()
        .await;
    std::fs::write(path("echo.wasm"), bundled("echo")).unwrap();
    let publish = async |index: usize, key: Option<&str>| {
        let ops = format!("http://{}", cluster.node(index).ops_address());
        let (file, key) = (path("echo.wasm"), key.map(path));
        let mut arguments = vec!["publish", file.to_str().unwrap(), "--ops", &ops];
        if let Some(key) = &key {
            arguments.extend(["--key", key.to_str().unwrap()]);
        }
        module(&arguments).await
    };
    for (index, key, reason) in [(0, None, "reason: unsigned"), (1, Some("others"), "reason: other_key")] {
        let (taken, said) = publish(index, key).await;
        assert!(
            !taken && said.contains("module.unsigned") && said.contains(reason),
            "{said}"
        );
        let (status, body) = cluster.ops(index).put("/v1/modules", bundled("echo")).await;
        assert_eq!((status, &body["code"]), (403, &json!("module.unsigned")), "{body}");
        let refused = metric(&cluster, index, "rookery_publications_total{outcome=\"unsigned\"}").await;
        assert_eq!(refused, 2.0);
    }
    for key in ["ours", "next"] {
        let (taken, said) = publish(0, Some(key)).await;
        assert!(taken && said.starts_with("echo "), "{said}");
    }

    // Every node compiles it by itself, and then it is played on each without another glance at it.
    for node in cluster.nodes() {
        eventually("the module is compiled everywhere", async || {
            node.ops().metric("rookery_modules_compiled").await == Some(1.0)
        })
        .await;
    }
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let mut matches = Vec::new();
    for index in 0..3 {
        let game_match = match_on(&cluster, &ana, "echo", index).await;
        ana.join(&game_match).await.unwrap();
        ana.send(&game_match, 1, json!({"all": index})).await;
        assert_eq!(ana.push_of("match.data").await["data"], json!({"all": index}));
        matches.push(game_match);
    }
    let compiled_for = |index: usize, what: &str| {
        let sample = format!("rookery_module_compile_seconds_count{{for=\"{what}\"}}");
        let cluster = &cluster;
        async move { metric(cluster, index, &sample).await }
    };
    for index in 0..3 {
        let used = compiled_for(index, "use").await;
        assert_eq!(used, 0.0, "somebody waited for the compiler of node {index}");
    }
    assert_eq!(compiled_for(0, "publication").await, 2.0);
    assert_eq!(
        (compiled_for(1, "ahead").await, compiled_for(2, "ahead").await),
        (1.0, 1.0)
    );
    let (_, listed) = cluster.ops(2).get("/v1/modules").await;
    let echo = &listed["modules"][0];
    assert_eq!(
        (&echo["name"], &echo["bytes"]),
        (&json!("echo"), &json!(bundled("echo").len()))
    );
    assert_eq!(echo["signed_by"].as_str().map(str::len), Some(16), "{echo}");
    assert_eq!(echo["refused"], Value::Null);
    assert_eq!(echo["compiled"], json!(["node-1", "node-2", "node-3"]));
    assert!(echo["matches"].as_u64() >= Some(3), "{echo}");
    let ops = format!("http://{}", cluster.node(1).ops_address());
    let (_, table) = module(&["list", "--ops", &ops]).await;
    assert!(table.contains("node-1 node-2 node-3"), "{table}");
    let in_use = format!("echo@{}", echo["digest"].as_str().unwrap());
    let (removed, said) = module(&["remove", &in_use, "--ops", &ops]).await;
    assert!(!removed && said.contains("module.in_use"), "{said}");

    // Somebody with the database's password puts in a module of their own, and other bytes for ours.
    let evil = bundled("duel");
    let digest = hex(ring::digest::digest(&ring::digest::SHA256, evil).as_ref());
    let (text, id) = (echo["signed_by"].as_str().unwrap(), "A".repeat(86) + "==");
    tamper(
        &cluster,
        &format!(
            "begin immediate;
             insert into modules select '{digest}', 'evil', '6.6.6', manifest, x'{}', 1 from modules limit 1;
             insert into module_heads values ('evil', '{digest}', 1);
             insert into module_signatures values ('{digest}', '{id}', '{text}', 1);
             update modules set component = x'{}' where name = 'echo';
             commit",
            hex(evil),
            hex(evil),
        ),
    )
    .await;
    for node in cluster.nodes() {
        let client = node.guest(Encoding::MsgPack).await;
        let refused = client.create_with(json!({"module": "evil"})).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["reason"]),
            ("module.unsigned", &json!("other_key"))
        );
        let wanted = json!({"module": format!("evil@{digest}")});
        assert_eq!(client.create_with(wanted).await.unwrap_err().code, "module.unsigned");
    }
    let (_, listed) = cluster.ops(1).get("/v1/modules").await;
    let find = |name: &str| {
        listed["modules"]
            .as_array()
            .unwrap()
            .iter()
            .find(|module| module["name"] == name)
    };
    assert!(
        find("evil").unwrap()["refused"]
            .as_str()
            .unwrap()
            .contains("no signature"),
        "{listed}"
    );

    // A node that has to fetch our module gets bytes that are not its own, and runs none of them; what runs goes on.
    cluster.restart(2).await;
    cluster.settled().await;
    let ben = cluster.node(2).guest(Encoding::Json).await;
    eventually("the node says that the stored module is damaged", async || {
        // Two of three tries are placed elsewhere, where the module has been compiled all along.
        if let Err(refused) = ben.create_with(json!({"module": "echo"})).await {
            assert_eq!(refused.code, "module.invalid", "{refused:?}");
        }
        metric(&cluster, 2, "rookery_module_faults_total{reason=\"damaged\"}").await > 0.0
    })
    .await;
    let lost = cluster.node(2).log_lines("a stored module is not what it should be");
    assert!(!lost.is_empty());
    for (n, game_match) in matches[..2].iter().enumerate() {
        ana.send(game_match, 2, json!({"all": format!("still {n}")})).await;
        let heard = ana
            .push_where("the echo", |push| push["data"]["all"] == format!("still {n}"))
            .await;
        assert_eq!(heard["match"], game_match.as_str());
    }
}
