use std::net::SocketAddr;
use std::sync::Mutex;

use rookery_protocol::{Digest, MatchId};
use serde_json::Value;

use super::view::{LocalView, NodeView, SourceView, SuspicionView};
use super::*;

/// A node that does nothing but remember what it was told.
#[derive(Default)]
struct Node {
    not_ready: Mutex<Option<String>>,
    told: Mutex<Vec<String>>,
}

impl Node {
    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }
}

fn known_match() -> MatchView {
    MatchView {
        id: MatchId::from_parts(1, 1),
        module: "duel".into(),
        digest: Digest([7; 32]),
        name: Some("square".into()),
        owner: "node-1".into(),
        backup: None,
        epoch: 3,
        status: "running".into(),
        players: 2,
        durability: "replicated".into(),
        state_hash: None,
        outcome: None,
        reason: None,
        failures: Vec::new(),
        usage: None,
        record: None,
        saved: None,
    }
}

impl Operations for Node {
    fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn cluster(&self) -> Result<ClusterView, Refusal> {
        let node = NodeView {
            name: "node-1".into(),
            generation: 5,
            state: "ready".into(),
            version: "0.1.0".into(),
            client: "127.0.0.1:7700".into(),
            peer: "127.0.0.1:7701".into(),
            sessions: 1,
            players: 1,
            matches: 2,
            answered: true,
            wire: 2,
            since_ms: Some(9),
            heard_ms: Some(8),
            reachable: true,
            keys: 4,
            suspicion: Some(SuspicionView {
                since_ms: 1,
                probes: 2,
                helpers: 3,
                nacks: 1,
            }),
            ..NodeView::default()
        };
        let source = SourceView {
            source: "rook-9:7701".into(),
            kind: "seed".into(),
            last_error: Some("no answer".into()),
            failures: 5,
            ..SourceView::default()
        };
        let local = LocalView {
            name: "node-1".into(),
            keys: 4,
            keys_soft: 200,
            keys_hard: 1_000,
            cluster_keys: 8,
            ..LocalView::default()
        };
        Ok(ClusterView {
            cluster: "rookery".into(),
            leader: None,
            sessions: 1,
            players: 1,
            nodes: vec![node],
            local: Some(local),
            sources: vec![source],
        })
    }

    async fn matches(&self, page: PageRequest) -> Result<MatchPage, Refusal> {
        self.tell(format!("matches {:?} {:?} {:?}", page.limit, page.cursor, page.module));
        Ok(MatchPage {
            matches: vec![known_match()],
            cursor: Some("next".into()),
        })
    }

    async fn match_view(&self, target: &str) -> Result<MatchView, Refusal> {
        match target {
            "square" => Ok(known_match()),
            _ => Err(Refusal::new(ErrorCode::MatchNotFound, "no such match").with("match", target)),
        }
    }

    async fn end_match(&self, target: &str) -> Result<(), Refusal> {
        self.tell(format!("end {target}"));
        Ok(())
    }

    async fn kick(&self, target: &str, request: KickRequest) -> Result<(), Refusal> {
        self.tell(format!("kick {target} {} {:?}", request.player, request.reason));
        Ok(())
    }

    async fn move_match(&self, target: &str, request: MoveRequest) -> Result<Moved, Refusal> {
        self.tell(format!("move {target} {:?}", request.to));
        Ok(Moved {
            id: MatchId::from_u128(7),
            owner: request.to.unwrap_or_else(|| "another".into()),
        })
    }

    async fn upgrade_match(&self, target: &str, request: UpgradeRequest) -> Result<Upgraded, Refusal> {
        self.tell(format!("upgrade {target} {:?}", request.to));
        let digest = Digest([7; 32]);
        Ok(Upgraded {
            id: MatchId::from_u128(7),
            module: "duel".into(),
            version: "1.1.0".into(),
            digest,
            from: digest,
        })
    }

    async fn forget_node(&self, name: &str) -> Result<(), Refusal> {
        self.tell(format!("forget {name}"));
        Ok(())
    }

    async fn modules(&self) -> Result<ModulesView, Refusal> {
        Err(Refusal::new(ErrorCode::Unavailable, "the database does not answer"))
    }

    async fn publish(&self, publication: Publication) -> Result<Published, Refusal> {
        if let Some(signature) = &publication.signature {
            self.tell(format!("signed {signature}"));
        }
        match publication.component.len() {
            2 => Err(Refusal::new(ErrorCode::ModuleUnsigned, "not signed")),
            3 => Err(Refusal::new(ErrorCode::ModuleInvalid, "not a component")),
            length => Ok(Published {
                name: format!("{length} bytes"),
                version: "1.0.0".into(),
                digest: Digest([1; 32]),
            }),
        }
    }

    async fn remove_module(&self, reference: &str) -> Result<(), Refusal> {
        if reference.starts_with("used@") {
            return Err(Refusal::new(ErrorCode::ModuleInUse, "live matches use it"));
        }
        self.tell(format!("remove {reference}"));
        Ok(())
    }

    fn cut_data_links(&self) -> Result<(), Refusal> {
        Err(Refusal::new(ErrorCode::Forbidden, "not here"))
    }

    async fn drain(&self, name: &str, request: DrainRequest) -> Result<DrainOrdered, Refusal> {
        if name == "elsewhere" {
            return Err(Refusal::new(ErrorCode::NodeNotFound, "there is no such node"));
        }
        let deadline_ms = request.deadline_ms.unwrap_or(25_000);
        self.tell(format!("drain {name} {deadline_ms}"));
        Ok(DrainOrdered {
            node: name.into(),
            generation: 7,
            deadline_ms,
            told_by: "node-1".into(),
        })
    }

    async fn join_peer(&self, peer: &str) -> Result<(), Refusal> {
        self.tell(format!("join {peer}"));
        Ok(())
    }

    async fn records(&self, request: RecordRequest) -> Result<RecordPage, Refusal> {
        let RecordRequest {
            player,
            module,
            cursor,
            limit,
        } = request;
        self.tell(format!("records {player:?} {module:?} {cursor:?} {limit:?}"));
        Ok(RecordPage::default())
    }

    fn content(&self) -> Result<ContentSummary, Refusal> {
        Ok(ContentSummary::default())
    }

    fn content_list(&self, collection: &str, page: ContentPageRequest) -> Result<ContentPage, Refusal> {
        self.tell(format!(
            "list {collection} {:?} {:?} {:?}",
            page.prefix, page.cursor, page.limit
        ));
        Ok(ContentPage::default())
    }

    /// What was put last.
    fn content_get(&self, collection: &str, key: &str) -> Result<Item, Refusal> {
        let (content_type, value) = match key {
            "sword" => ("application/json", &br#"{"damage": 3}"#[..]),
            "song" => ("text/plain", "la la é".as_bytes()),
            "picture" => ("image/png", &[0x89, 0xff, 0x00][..]),
            _ => return Err(Refusal::new(ErrorCode::StorageNotFound, "no such value")),
        };
        self.tell(format!("get {collection} {key}"));
        Ok(Item {
            content_type: content_type.into(),
            value: Bytes::from_static(value),
            version: 7,
            updated_at_ms: 1,
        })
    }

    async fn content_put(&self, collection: &str, key: &str, put: PutContent) -> Result<u64, Refusal> {
        let length = put.value.len();
        self.tell(format!(
            "put {collection}/{key} {} {length} {:?}",
            put.content_type, put.expect
        ));
        Ok(8)
    }

    async fn content_delete(&self, collection: &str, key: &str, expect: Option<u64>) -> Result<u64, Refusal> {
        self.tell(format!("delete {collection}/{key} {expect:?}"));
        Ok(9)
    }
}

/// The listener on a free port, served until the test ends.
struct Listener {
    node: Arc<Node>,
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

impl Listener {
    async fn start(token: Option<&str>) -> Self {
        let node = Arc::new(Node::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(
            listener,
            router(node.clone(), Metrics::new(), token),
            shutdown.clone(),
        ));
        Self {
            node,
            address,
            _stop: shutdown.drop_guard(),
        }
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_vec()).unwrap();
        let sent = tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true);
            let mut answer = agent.build().new_agent().run(request).unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        });
        sent.await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, &[], b"").await
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn views_have_exactly_the_shape_of_the_contract() {
    let listener = Listener::start(None).await;
    let (status, body) = listener.get("/v1/cluster").await;
    let cluster: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"cluster": "rookery", "leader": null, "sessions": 1, "players": 1, "nodes": [{
        "name": "node-1", "generation": 5, "state": "ready", "version": "0.1.0", "client": "127.0.0.1:7700",
        "peer": "127.0.0.1:7701", "sessions": 1, "players": 1, "matches": 2, "rtt_ms": null,
        "answered": true, "wire": 2, "since_ms": 9, "heard_ms": 8, "reachable": true, "keys": 4,
        "suspicion": {"since_ms": 1, "probes": 2, "helpers": 3, "nacks": 1},
    }], "local": {"name": "node-1", "health": 0, "isolated": false, "keys": 4, "keys_soft": 200, "keys_hard": 1000,
        "cluster_keys": 8,
    }, "sources": [{"source": "rook-9:7701", "kind": "seed", "addresses": [], "last_error": "no answer", "failures": 5}]});
    assert_eq!((status, cluster), (200, expected));

    let (status, body) = listener.get("/v1/matches/square").await;
    let game_match: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({
        "match": MatchId::from_parts(1, 1), "module": "duel", "digest": "07".repeat(32), "name": "square",
        "owner": "node-1", "backup": null, "epoch": 3, "status": "running", "players": 2,
        "durability": "replicated", "state_hash": null,
    });
    assert_eq!((status, &game_match), (200, &expected));

    let (_, body) = listener.get("/v1/matches").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page, json!({"matches": [expected], "cursor": "next"}));
    for (path, expected) in [
        ("/v1/queues", json!({"queues": []})),
        ("/v1/worlds", json!({"worlds": []})),
    ] {
        let (status, body) = listener.get(path).await;
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, expected));
    }
}

#[tokio::test]
async fn refusals_carry_code_message_and_details_under_a_fitting_status() {
    let listener = Listener::start(None).await;
    let too_much = vec![b' '; REQUEST_BYTES_MAX + 1];
    let cases: &[(&str, &str, &[u8], u16, &str)] = &[
        ("GET", "/v1/matches/none", b"", 404, "match.not_found"),
        ("GET", "/v1/modules", b"", 503, "unavailable"),
        ("GET", "/v1/matches?limit=many", b"", 400, "bad_message"),
        ("PUT", "/v1/modules", b"abc", 400, "module.invalid"),
        ("PUT", "/v1/modules", b"ab", 403, "module.unsigned"),
        ("DELETE", "/v1/modules/used@7", b"", 409, "module.in_use"),
        ("POST", "/v1/matches/square/kick", b"{", 400, "bad_message"),
        ("POST", "/v1/matches/square/kick", b"{}", 400, "bad_message"),
        ("POST", "/v1/cluster/join", b"", 400, "bad_message"),
        ("POST", "/v1/cluster/join", &too_much, 413, "too_large"),
        ("POST", "/v1/matches/square/move", b"{", 400, "bad_message"),
        ("POST", "/v1/matches/square/upgrade", b"{", 400, "bad_message"),
        ("POST", "/v1/nodes/node-1/drain", b"{", 400, "bad_message"),
        ("POST", "/v1/nodes/elsewhere/drain", b"", 404, "node.not_found"),
        ("GET", "/v1/records?limit=many", b"", 400, "bad_message"),
        ("GET", "/v1/content/items/nothing", b"", 404, "storage.not_found"),
        ("PUT", "/v1/content/items/sword?version=x", b"", 400, "bad_message"),
        ("POST", "/v1/content/items/sword", b"", 405, "bad_message"),
        ("GET", "/v1/nothing", b"", 404, "unknown_type"),
        ("DELETE", "/v1/cluster", b"", 405, "bad_message"),
    ];
    for (method, path, body, status, code) in cases {
        let (found, text) = listener.request(method, path, &[JSON], body).await;
        let refusal: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
        assert_eq!(
            (found, refusal["code"].as_str()),
            (*status, Some(*code)),
            "{method} {path}: {text}"
        );
        assert!(
            refusal["message"].is_string() && refusal["details"].is_object(),
            "{text}"
        );
    }
    assert_eq!(
        listener.node.told.lock().unwrap().len(),
        0,
        "a refused request did nothing"
    );
}

#[tokio::test]
async fn orders_reach_the_node() {
    let listener = Listener::start(None).await;
    // What `curl -d` says of every body.
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    for (path, body, claimed) in [
        ("/v1/matches/village%2Fsquare/end", "", JSON),
        ("/v1/matches/square/kick", r#"{"player": "ana"}"#, JSON),
        ("/v1/nodes/rook-3/forget", "{}", JSON),
        ("/v1/cluster/join", r#"{"peer": "10.0.0.1:7701"}"#, JSON),
        ("/v1/matches/village/mill/end", "", JSON),
        ("/v1/matches/village/mill/kick", r#"{"player": "ben"}"#, FORM),
        ("/v1/cluster/join", r#"{"peer": "10.0.0.2:7701"}"#, FORM),
    ] {
        let answer = listener.request("POST", path, &[claimed], body.as_bytes()).await;
        assert_eq!(answer, (200, "{}".into()), "{path}");
    }
    for (body, owner) in [(r#"{"to": "rook-2"}"#, "rook-2"), ("", "another")] {
        let path = "/v1/matches/square/move";
        let (status, moved) = listener.request("POST", path, &[JSON], body.as_bytes()).await;
        let moved: Value = serde_json::from_str(&moved).unwrap();
        assert_eq!((status, &moved["owner"]), (200, &json!(owner)));
    }
    for (path, body) in [("square", r#"{"to": "beef"}"#), ("village/mill", "")] {
        let path = format!("/v1/matches/{path}/upgrade");
        let (status, upgraded) = listener.request("POST", &path, &[JSON], body.as_bytes()).await;
        let upgraded: Value = serde_json::from_str(&upgraded).unwrap();
        assert_eq!((status, &upgraded["version"]), (200, &json!("1.1.0")));
    }
    for (node, body, deadline_ms) in [("rook-2", r#"{"deadline_ms": 500}"#, 500), ("*", "", 25_000)] {
        let path = format!("/v1/nodes/{node}/drain");
        let (status, ordered) = listener.request("POST", &path, &[JSON], body.as_bytes()).await;
        let ordered: Value = serde_json::from_str(&ordered).unwrap();
        assert_eq!(
            (status, &ordered["node"], &ordered["deadline_ms"]),
            (200, &json!(node), &json!(deadline_ms))
        );
    }
    let removed = listener.request("DELETE", "/v1/modules/duel@07", &[], b"").await;
    assert_eq!(removed, (200, "{}".into()));
    for value in ["c2lnbmVk", "no base64"] {
        let header = ("x-rookery-signature", value);
        let (status, _) = listener.request("PUT", "/v1/modules", &[header], b"component").await;
        assert_eq!(status, 200);
    }
    listener.get("/v1/matches").await;
    listener.get("/v1/matches?limit=5000&cursor=c&module=duel").await;
    let expected = [
        "end village/square",
        "kick square ana \"\"",
        "forget rook-3",
        "join 10.0.0.1:7701",
        "end village/mill",
        "kick village/mill ben \"\"",
        "join 10.0.0.2:7701",
        "move square Some(\"rook-2\")",
        "move square None",
        "upgrade square Some(\"beef\")",
        "upgrade village/mill None",
        "drain rook-2 500",
        "drain * 25000",
        "remove duel@07",
        "signed c2lnbmVk",
        "signed no base64",
        "matches Some(100) None None",
        "matches Some(1000) Some(\"c\") Some(\"duel\")",
    ];
    assert_eq!(*listener.node.told.lock().unwrap(), expected);
    let component = vec![0; REQUEST_BYTES_MAX * 3];
    let (status, body) = listener.request("PUT", "/v1/modules", &[], &component).await;
    let published: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        published,
        json!({"name": "196608 bytes", "version": "1.0.0", "digest": "01".repeat(32)})
    );
}

#[tokio::test]
async fn readiness_says_why_not_and_health_does_not_care() {
    let listener = Listener::start(None).await;
    assert_eq!(listener.get("/readyz").await, (200, "ready\n".into()));
    *listener.node.not_ready.lock().unwrap() = Some("the database does not answer".into());
    assert_eq!(
        listener.get("/readyz").await,
        (503, "not ready: the database does not answer\n".into())
    );
    assert_eq!(listener.get("/healthz").await, (200, "alive\n".into()));
    let (status, text) = listener.get("/metrics").await;
    assert!(status == 200 && text.contains("rookery_build_info{version="), "{text}");
}

#[tokio::test]
async fn with_a_token_everything_but_health_and_readiness_asks_for_it() {
    let listener = Listener::start(Some("open sesame")).await;
    let ask = async |path: &str, authorization: &str| {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &headers[..0]
        } else {
            &headers[..]
        };
        listener.request("GET", path, headers, b"").await.0
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(path, "").await, 200, "{path}");
    }
    for path in ["/v1/cluster", "/metrics", "/v1/nothing", "/v1/records"] {
        for wrong in [
            "",
            "Bearer",
            "Bearer open",
            "Bearer open sesame!",
            "Basic open sesame",
            "open sesame",
        ] {
            assert_eq!(ask(path, wrong).await, 401, "{path} with `{wrong}`");
        }
        assert_ne!(ask(path, "bearer open sesame").await, 401, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_no_page_of_another_origin_is_served() {
    let listener = Listener::start(None).await;
    let own = format!("http://{}", listener.address);
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("host", "evil.example:7702")], 403),
        (
            &[("host", "evil.example:7702"), ("origin", "http://evil.example:7702")],
            403,
        ),
        (&[("host", "localhost:7702")], 200),
        (&[("host", "[::1]:7702")], 200),
        (&[("origin", &own)], 200),
        (&[], 200),
    ];
    for (headers, status) in cases {
        let (found, body) = listener.request("GET", "/v1/cluster", headers, b"").await;
        assert_eq!(found, *status, "{headers:?}: {body}");
    }
}

#[tokio::test]
async fn content_is_shown_as_what_it_is() {
    let listener = Listener::start(None).await;
    let value = async |key: &str| {
        let (status, body) = listener.get(&format!("/v1/content/items/{key}")).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let expected = json!({
        "collection": "items", "key": "sword", "version": 7, "content_type": "application/json", "encoding": "json",
        "value": {"damage": 3}, "updated_at": 1,
    });
    assert_eq!(value("sword").await, expected);
    assert_eq!(value("song").await["value"], "la la é");
    let picture = value("picture").await;
    assert_eq!(
        (&picture["encoding"], &picture["value"]),
        (&json!("base64"), &json!("if8A"))
    );
    let (status, raw) = listener.get("/v1/content/items/sword?raw=true").await;
    assert_eq!((status, raw.as_str()), (200, "{\"damage\": 3}"));
}

#[tokio::test]
async fn a_write_of_content_says_what_it_is_and_what_it_expects() {
    let listener = Listener::start(None).await;
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], Result<&'a str, ()>);
    let cases: &[Case<'_>] = &[
        ("items/a", &[], b"{}", Ok("put items/a application/json 2 None")),
        (
            "items/a%2Fb",
            &[],
            b"{",
            Ok("put items/a/b application/octet-stream 1 None"),
        ),
        // What curl says when nobody said anything.
        (
            "items/a",
            &[("content-type", "application/x-www-form-urlencoded")],
            b"1",
            Ok("put items/a application/json 1 None"),
        ),
        (
            "items/a?version=7",
            &[("content-type", "text/plain")],
            b"x",
            Ok("put items/a text/plain 1 Some(7)"),
        ),
        (
            "items/a",
            &[JSON, ("if-match", "\"7\"")],
            b"1",
            Ok("put items/a application/json 1 Some(7)"),
        ),
        (
            "items/a",
            &[JSON, ("if-none-match", "*")],
            b"1",
            Ok("put items/a application/json 1 Some(0)"),
        ),
        ("items/a", &[JSON], b"{", Err(())),
        ("items/a", &[JSON, ("if-match", "*")], b"1", Err(())),
        ("items/a", &[JSON, ("if-none-match", "\"7\"")], b"1", Err(())),
    ];
    for (path, headers, body, expected) in cases {
        let (status, answer) = listener
            .request("PUT", &format!("/v1/content/{path}"), headers, body)
            .await;
        let told = listener.node.told.lock().unwrap().drain(..).next_back();
        match expected {
            Ok(expected) => assert_eq!((status, told.as_deref()), (200, Some(*expected)), "{path}: {answer}"),
            Err(()) => assert_eq!((status, told), (400, None), "{path}: {answer}"),
        }
    }
    let (status, answer) = listener
        .request("PUT", "/v1/content/items/a", &[], &[0; content::CONTENT_BYTES_MAX + 1])
        .await;
    assert_eq!(status, 413, "{answer}");
    let (status, answer) = listener
        .request("DELETE", "/v1/content/items/a?version=4", &[], b"")
        .await;
    assert_eq!(
        (status, answer.as_str()),
        (200, r#"{"collection":"items","key":"a","version":9}"#)
    );
    assert_eq!(listener.get("/v1/content/items?prefix=s&limit=0").await.0, 200);
    let told = listener.node.told.lock().unwrap().clone();
    assert_eq!(told, ["delete items/a Some(4)", "list items Some(\"s\") None Some(1)"]);
}
