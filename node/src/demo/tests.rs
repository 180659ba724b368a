use super::*;
use crate::config::{Config, Profile, Sources};

#[test]
fn each_node_gets_its_ports_and_the_others_as_seeds() {
    let ports: Vec<Ports> = (0..3).map(|index| Ports::of(7700, index)).collect();
    let last = Ports {
        client: 7720,
        peer: 7721,
        ops: 7722,
    };
    assert_eq!(ports[2], last);
    let environment = environment(&ports, 1, &secret::fresh(), Path::new("/tmp/demo"));
    let loaded = Config::load(Sources {
        environment: environment
            .iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        ..Sources::default()
    });
    let config = loaded.unwrap();
    assert_eq!(config.node_name().as_str(), "node-2");
    assert_eq!(config.cluster.seeds, ["127.0.0.1:7701", "127.0.0.1:7721"]);
    assert_eq!(config.cluster.profile, Profile::Lan);
    assert_eq!(config.listen.client.to_string(), "127.0.0.1:7710");
    assert_eq!(config.store_url(), "sqlite:///tmp/demo/rookery.db");
    assert!(config.node.demo_page);
}

#[test]
fn the_village_of_the_demo_is_a_configuration_that_nodes_take() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rookery.toml");
    std::fs::write(&file, examples::WORLD).unwrap();
    let loaded = Config::load(Sources {
        file: Some(file),
        ..Sources::default()
    });
    let config = loaded.unwrap();
    let world = &config.worlds.by_name["village"];
    assert_eq!(world.zones.len(), 9);
    assert!(world.zones.values().all(|zone| zone.module == "village"));
    assert_eq!(world.neighbours.len(), 12);
    assert_eq!(config.queues.by_name["duel"].module.as_deref(), Some("duel"));
    let items: BTreeMap<String, Value> = serde_json::from_str(examples::ITEMS).unwrap();
    assert!(
        items
            .values()
            .all(|item| item["name"].is_string() && item["text"].is_string())
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = Ports {
        client: port,
        peer: port,
        ops: port,
    };
    let error = check_free(ports).unwrap_err().to_string();
    assert!(error.starts_with(&format!("port {port} is taken")), "{error}");
}
