//! What `deploy/` and docs/load-balancers.md promise: names of metrics exist, rules and configurations are accepted by the
//! programs that read them, and a load balancer's cookie changes nothing but the way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rookery_tests::harness::{
    Account, Client, Encoding, NodeSpec, TestCluster, eventually, free_ports, rookery_binary,
};
use serde_json::json;

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

/// Every variable that a container file sets, with a value in place of what is only known where it runs.
fn variables_of(environment: &saphyr::Yaml<'_>) -> Vec<(String, String)> {
    let secret = "a secret that is long enough to be one";
    let known_there = |name: &str| match name {
        "ROOKERY_STORE__URL" => "postgres://rookery:password@postgres/rookery",
        "ROOKERY_NODE__NAME" => "rookery-0",
        _ => secret,
    };
    if let Some(variables) = environment.as_sequence() {
        let variable = |entry: &saphyr::Yaml<'_>| {
            let name = entry["name"].as_str().expect("a variable has a name").to_owned();
            let value = entry.as_mapping_get("value").and_then(|value| value.as_str());
            let value = value.unwrap_or(known_there(&name));
            let value = value.replace("$(POD_IP)", "10.0.0.7");
            (name, value)
        };
        return variables.iter().map(variable).collect();
    }
    let variables = environment.as_mapping().expect("variables are a list or a map");
    let variables = variables.iter().filter(|(name, _)| name.as_str() != Some("<<"));
    variables
        .map(|(name, value)| {
            let text = |value: &saphyr::Yaml<'_>| value.as_str().expect("it is text").to_owned();
            (text(name), text(value))
        })
        .collect()
}

#[test]
fn the_container_files_set_what_the_binary_takes_and_run_commands_that_it_has() {
    use saphyr::LoadableYamlNode;
    let run = |arguments: &[&str], variables: &[(String, String)]| {
        let mut command = Command::new(rookery_binary());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOKERY_")) {
            command.env_remove(name);
        }
        let done = command
            .args(arguments)
            .envs(variables.iter().cloned())
            .output()
            .expect("the binary runs");
        let complained = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{arguments:?} with {variables:?}: {complained}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let (compose, kubernetes) = (read("compose.yaml"), read("kubernetes/rookery.yaml"));
    let compose = saphyr::Yaml::load_from_str(&compose).expect("it is YAML");
    let kubernetes = saphyr::Yaml::load_from_str(&kubernetes).expect("it is YAML");
    let container = &kubernetes[3]["spec"]["template"]["spec"]["containers"][0];

    let shared = variables_of(&compose[0]["x-environment"]);
    for node in ["rook-1", "rook-2", "rook-3"] {
        let own = variables_of(&compose[0]["services"][node]["environment"]);
        let all = [shared.clone(), own].concat();
        assert_eq!(run(&["config", "check"], &all), "ok\n");
        let printed = run(&["config", "print"], &all);
        assert!(printed.contains(&format!("name = \"{node}\"")), "{printed}");
    }
    let variables = variables_of(&container["env"]);
    assert_eq!(run(&["config", "check"], &variables), "ok\n");
    // The node's deadline fits into what the pod is given, and so does the hook's.
    let printed = run(&["config", "print"], &variables);
    assert!(printed.contains("deadline = \"25s\""), "{printed}");

    // `--help` behind a command only reads it.
    let words = |yaml: &saphyr::Yaml<'_>| -> Vec<String> {
        let words = yaml.as_sequence().expect("a command is a list").iter();
        words.map(|word| word.as_str().expect("of words").to_owned()).collect()
    };
    let hook = words(&container["lifecycle"]["preStop"]["exec"]["command"]);
    assert_eq!(hook[0], "rookery");
    for mut command in [
        hook[1..].to_vec(),
        words(&container["args"]),
        ["node", "--log-format", "json"].map(str::to_owned).to_vec(),
        ["health"].map(str::to_owned).to_vec(),
    ] {
        command.push("--help".into());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        assert!(run(&command, &[]).contains("Usage: "), "{command:?}");
    }
    let image = read("Dockerfile");
    assert!(
        image.contains(r#"CMD ["node", "--log-format", "json"]"#) && image.contains(r#"CMD ["rookery", "health"]"#)
    );
}

/// A load balancer that was started for a test, ended with it.
struct Balancer(std::process::Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the files, with this cluster's nodes in place of those that it names.
fn configured_for(cluster: &TestCluster, path: &str, listen: SocketAddr) -> String {
    let mut text = read(path)
        .replace("listen 8080", &format!("listen {listen}"))
        .replace("bind :8080", &format!("bind {listen}"));
    for (node, port) in cluster.nodes().iter().zip([7700, 7710, 7720]) {
        let ops = node.ops_address().port();
        text = text
            .replace(&format!("127.0.0.1:{port}"), &node.client_address().to_string())
            .replace(&format!("check port {}", port + 2), &format!("check port {ops}"));
    }
    // The nodes of a test are called otherwise.
    text.replace("rook-", "node-")
}

/// Whoever comes by the balancer gets a socket, a browser comes back to its node, and nobody is refused while a node drains.
async fn check_balancer(program: &str, path: &str, start: impl Fn(&Path, &Path) -> Command) {
    let cluster = TestCluster::start(3).await;
    let listen = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
    let file = cluster.dir().join("balancer.conf");
    std::fs::write(&file, configured_for(&cluster, path, listen)).expect("there is room");
    let mut command = start(&file, cluster.dir());
    let _balancer = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Balancer(child),
        Err(error) => {
            let message = format!("{program} could not be run ({error}); Debian has it");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{message}");
            return eprintln!("not checked: {message}");
        }
    };
    eventually("the balancer listens", async || {
        tokio::net::TcpStream::connect(listen).await.is_ok()
    })
    .await;

    for node in cluster.nodes() {
        let cookie = format!("cookie: rookery_node={}\r\n", node.name());
        eventually("a browser comes back to its node", async || {
            let head = upgrade(listen, &cookie).await;
            head.starts_with("HTTP/1.1 101 ") && !head.to_lowercase().contains("set-cookie")
        })
        .await;
    }
    let ana = Account::guest(listen).await;
    let ana = Client::open(listen, Encoding::Json, &ana).await;
    assert!(
        ana.opened()["node"]
            .as_str()
            .is_some_and(|node| node.starts_with("node-"))
    );

    let (status, ordered) = cluster
        .ops(0)
        .post("/v1/nodes/node-2/drain", json!({"deadline_ms": 8_000}))
        .await;
    assert_eq!(status, 200, "{ordered}");
    // Also before the balancer has noticed: the node refuses, and the next one is asked.
    eventually(
        "its browsers are sent elsewhere, and get a cookie of that node",
        async || {
            let head = upgrade(listen, "cookie: rookery_node=node-2\r\n").await.to_lowercase();
            head.starts_with("http/1.1 101 ")
                && head.contains("set-cookie: rookery_node=node-")
                && !head.contains("=node-2;")
        },
    )
    .await;
    for cookie in ["", "cookie: rookery_node=node-1\r\n", "cookie: rookery_node=node-2\r\n"] {
        let head = upgrade(listen, cookie).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{cookie}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_brings_players_to_nodes_that_take_them() {
    check_balancer("nginx", "load-balancers/nginx.conf", |file, dir| {
        let mut nginx = Command::new("nginx");
        let own = format!(
            "daemon off; master_process off; error_log stderr; pid {};",
            dir.join("nginx.pid").display()
        );
        nginx.arg("-c").arg(file).args(["-g", &own]);
        nginx
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_brings_players_to_nodes_that_take_them() {
    check_balancer("haproxy", "load-balancers/haproxy.cfg", |file, _| {
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(file);
        haproxy
    })
    .await;
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
