//! What `deploy/` and docs/load-balancers.md promise: names of metrics exist, rules and configurations are accepted by the
//! programs that read them, and a load balancer's cookie changes nothing but the way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use rookery_tests::harness::{NodeSpec, TestCluster};

fn deploy(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// Every metric that a text names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    text.match_indices("rookery_")
        .map(|(at, _)| text[at..].chars().take_while(|c| is_name(*c)).collect::<String>())
        .map(|name| {
            let family = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            family.map(str::to_owned).unwrap_or(name)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_name_metrics_that_exist_and_the_dashboard_shows_them_all() {
    let cluster = TestCluster::start(1).await;
    let text = cluster.ops(0).metrics().await;
    let families: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let dashboard = read("grafana/rookery.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
    let (shown, alarmed) = (metrics_in(&dashboard), metrics_in(&read("prometheus/alerts.yml")));
    for name in shown.union(&alarmed) {
        assert!(families.contains(name), "{name} is no metric of a node");
    }
    let hidden: Vec<&String> = families.difference(&shown).collect();
    assert_eq!(
        hidden,
        Vec::<&String>::new(),
        "families that the dashboard does not show"
    );
}

/// Runs a checker of Debian's; `scripts/test` installs them, and under CI a missing one is a failure.
fn accepts(program: &str, arguments: &[&str]) {
    match Command::new(program).args(arguments).current_dir(deploy("")).output() {
        Ok(output) => assert!(
            output.status.success(),
            "{program} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => {
            let message = format!("{program} could not be run ({error}); Debian has it");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{message}");
            eprintln!("not checked: {message}");
        }
    }
}

#[test]
fn prometheus_accepts_the_rules_and_they_fire_when_they_should() {
    accepts("promtool", &["check", "rules", "prometheus/alerts.yml"]);
    accepts("promtool", &["test", "rules", "prometheus/alerts.test.yml"]);
    accepts("promtool", &["check", "config", "prometheus/prometheus.yml"]);
}

#[test]
fn nginx_and_haproxy_accept_their_configurations() {
    let (nginx, haproxy) = (
        deploy("load-balancers/nginx.conf"),
        deploy("load-balancers/haproxy.cfg"),
    );
    let text = |path: &PathBuf| path.to_str().expect("the path is text").to_owned();
    accepts(
        "nginx",
        &[
            "-t",
            "-q",
            "-c",
            &text(&nginx),
            "-g",
            "pid /dev/null; error_log stderr;",
        ],
    );
    accepts("haproxy", &["-c", "-q", "-f", &text(&haproxy)]);
}

#[test]
fn the_container_files_are_yaml_and_say_what_the_documents_say() {
    let documents = |path: &str| {
        use saphyr::LoadableYamlNode;
        saphyr::Yaml::load_from_str(&read(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
    };
    let kubernetes = documents("kubernetes/rookery.yaml");
    let kinds: Vec<&str> = kubernetes
        .iter()
        .filter_map(|document| document["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Service", "Service", "PodDisruptionBudget", "StatefulSet"]);
    let peers = &kubernetes[0]["spec"];
    assert_eq!(
        peers["clusterIP"].as_str(),
        Some("None"),
        "the peers' service is headless"
    );
    let pod = &kubernetes[3]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let pre_stop = container["lifecycle"]["preStop"]["exec"]["command"]
        .as_sequence()
        .unwrap();
    assert_eq!(pre_stop[1].as_str(), Some("drain"));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"].as_str(), Some("/readyz"));
    assert!(
        pod["terminationGracePeriodSeconds"].as_integer() > Some(25),
        "a drain is not cut short"
    );
    assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));

    let compose = documents("compose.yaml");
    let services = compose[0]["services"].as_mapping().expect("compose has services");
    assert_eq!(services.len(), 5);
    let token = compose[0]["x-environment"]["ROOKERY_OPS__TOKEN"].as_str();
    assert_eq!(
        token,
        Some(read("prometheus/ops-token").trim()),
        "Prometheus has the token that the nodes ask for"
    );
    let ingress = documents("load-balancers/ingress.yaml");
    assert_eq!(ingress[0]["kind"].as_str(), Some("Ingress"));
    let image = read("Dockerfile");
    assert!(
        image.contains("\nUSER 10001\n") && image.contains("HEALTHCHECK") && image.contains("\"rookery\", \"health\"")
    );
}

/// Asks for an upgrade with these cookies, and returns the answer's head.
async fn upgrade(client: std::net::SocketAddr, cookie: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(client).await.unwrap();
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{cookie}\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).await.unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sets_its_cookie_once_and_serves_those_who_bring_anothers() {
    let cluster = TestCluster::builder(1).start().await;
    let node = cluster.node(0);
    let set = format!(
        "set-cookie: rookery_node={}; Path=/; HttpOnly; SameSite=Lax\r\n",
        node.name()
    );
    let fresh = upgrade(node.client_address(), "").await;
    assert!(fresh.starts_with("HTTP/1.1 101 ") && fresh.contains(&set), "{fresh}");
    let stranger = upgrade(node.client_address(), "cookie: rookery_node=a-node-that-is-gone\r\n").await;
    assert!(
        stranger.starts_with("HTTP/1.1 101 ") && stranger.contains(&set),
        "{stranger}"
    );
    let again = upgrade(
        node.client_address(),
        &format!("cookie: rookery_node={}\r\n", node.name()),
    )
    .await;
    assert!(
        again.starts_with("HTTP/1.1 101 ") && !again.contains("set-cookie"),
        "{again}"
    );

    let dir = tempfile::tempdir().unwrap();
    let mut spec = NodeSpec::new("quiet", dir.path());
    spec.set("listen.affinity_cookie", "off");
    let mut quiet = spec.spawn();
    quiet.ready().await;
    let head = upgrade(quiet.client_address(), "").await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && !head.contains("set-cookie"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_command_says_whether_a_node_takes_players() {
    let cluster = TestCluster::start(1).await;
    let binary = rookery_tests::harness::rookery_binary();
    let ops = format!("http://{}", cluster.node(0).ops_address());
    let health = |arguments: &[&str], ops: &str| {
        let output = Command::new(binary)
            .arg("health")
            .args(arguments)
            .args(["--ops", ops])
            .output();
        let output = output.expect("the binary runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    assert_eq!(health(&[], &ops), (Some(0), "ready".to_owned()));
    assert_eq!(health(&["--alive"], &ops).0, Some(0));
    let (status, said) = health(&["--json"], &ops);
    assert_eq!((status, said.as_str()), (Some(0), r#"{"ok":true,"said":"ready"}"#));
    assert_eq!(health(&[], "http://127.0.0.1:9").0, Some(1), "nobody answers there");
}
