use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, Faults> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    Config::load(Sources {
        file: Some(path.path().to_owned()),
        environment: environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        flags: flags.iter().map(|(key, value)| (*key, (*value).into())).collect(),
    })
}

fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let faults = load(file, environment, &[]).expect_err("this configuration has faults");
    faults
        .iter()
        .map(|fault| {
            Fault {
                source: without_path(&fault.source),
                ..fault.clone()
            }
            .to_string()
        })
        .collect()
}

/// The temporary file's name differs from run to run.
fn without_path(source: &Source) -> Source {
    match source {
        Source::File(_) => Source::File(None),
        other => other.clone(),
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn with_nothing_set_a_node_runs_alone_on_loopback_with_the_documented_defaults() {
    let config = Config::load(Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.store_url(), "sqlite://./rookery-data/rookery.db");
    assert_eq!(config.listen.peer.to_string(), "127.0.0.1:7701");
    let defaults = [
        ("cluster.name", "\"rookery\""),
        ("cluster.seeds", "[]"),
        ("cluster.poll_interval", "\"10s\""),
        ("cluster.profile", "\"default\""),
        ("listen.client", "\"127.0.0.1:7700\""),
        ("listen.ops", "\"127.0.0.1:7702\""),
        ("listen.origins", "[\"*\"]"),
        ("auth.registration", "\"open\""),
        ("limits.inputs", "\"300/s burst 600\""),
        ("limits.control", "\"100/s burst 200\""),
        ("limits.chat", "\"10/s burst 20\""),
        ("limits.accounts", "\"20/s burst 200\""),
        ("limits.frame", "\"64KiB\""),
        ("limits.matches_per_session", "64"),
        ("limits.created_per_player", "200"),
        ("matches.empty_after", "\"1m\""),
        ("matches.store_every", "\"1s\""),
        ("matches.records_for", "\"7d\""),
        ("modules.<name>.create", "\"clients\""),
        ("queues.reserve", "\"30s\""),
        ("drain.deadline", "\"25s\""),
    ];
    let reference = Config::reference();
    for (path, default) in defaults {
        let key = reference
            .iter()
            .find(|key| key.path == path)
            .unwrap_or_else(|| panic!("no key {path}"));
        assert_eq!(key.default.as_deref(), Some(default), "{path}");
    }
    for key in &reference {
        assert!(!key.doc.is_empty(), "{} is not documented", key.path);
    }
}

#[test]
fn later_sources_win() {
    let file =
        "[node]\nname = \"from-file\"\n[limits]\nframe = 1024\ninputs = \"1/s burst 2\"\n[cluster]\nname = \"file\"";
    let environment = [("ROOKERY_NODE__NAME", "from-env"), ("ROOKERY_LIMITS__FRAME", "2KiB")];
    let config = load(file, &environment, &[("node.name", "from-flag")]).unwrap();
    assert_eq!(config.node_name().as_str(), "from-flag");
    assert_eq!(config.limits.frame, Size::kib(2));
    assert_eq!(
        config.limits.inputs,
        Rate {
            per_second: 1,
            burst: 2
        }
    );
    assert_eq!(config.cluster.name, "file");
}

#[test]
fn variables_are_read_by_the_type_of_their_key() {
    let environment = [
        ("ROOKERY_CLUSTER__SECRET", SECRET),
        ("ROOKERY_CLUSTER__SEEDS", "a:7701, b:7701"),
        ("ROOKERY_CLUSTER__DNS", "[\"c:7701\", \"_rookery._udp.example.org\"]"),
        ("ROOKERY_CLUSTER__NAME", "12345"),
        ("ROOKERY_LIMITS__CONNECTIONS", "12345"),
        ("ROOKERY_NODE__DEMO_PAGE", "true"),
        ("ROOKERY_MATCHES__RECORDS_FOR", "1d 12h"),
        ("ROOKERY_MODULES__DUEL__CREATE", "server"),
        (
            "ROOKERY_MODULES__KEYS",
            "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=, AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ),
        ("ROOKERY_ADVERTISE__PEER", ""),
    ];
    let config = load("", &environment, &[]).unwrap();
    assert_eq!(config.modules.keys.len(), 2);
    assert_eq!(config.cluster.seeds, ["a:7701", "b:7701"]);
    assert_eq!(config.cluster.dns, ["c:7701", "_rookery._udp.example.org"]);
    assert_eq!(config.cluster.name, "12345");
    assert_eq!(config.limits.connections, 12345);
    assert!(config.node.demo_page);
    assert_eq!(config.matches.records_for.as_secs(), 36 * 3600);
    assert_eq!(config.modules.by_name["duel"].create, Create::Server);
    assert_eq!(config.advertise.peer, None);
}

#[test]
fn what_kubernetes_injects_for_a_service_called_rookery_does_not_matter() {
    let environment = [
        ("ROOKERY_PORT", "tcp://10.0.0.1:7700"),
        ("ROOKERY_PORT_7700_TCP", "tcp://10.0.0.1:7700"),
        ("ROOKERY_PORT_7700_TCP_ADDR", "10.0.0.1"),
        ("ROOKERY_SERVICE_HOST", "10.0.0.1"),
        ("ROOKERY_SERVICE_PORT_CLIENT", "7700"),
        ("ROOKERY_OPS_TOKEN", "for the commands"),
    ];
    assert_eq!(load("", &environment, &[]).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let cases = [
        ("[cluster]\nsedes = []", "cluster.seeds"),
        ("[clutser]\nseeds = []", "cluster.seeds"),
        ("[node]\nseeds = []", "cluster.seeds"),
        ("seeds = []", "cluster.seeds"),
        ("[listen]\nclinet = \"127.0.0.1:1\"", "listen.client"),
        ("[queues]\nreserv = \"3s\"", "queues.reserve"),
        (
            "[queues.duel]\nmodule = \"duel\"\nmax_player = 3",
            "queues.duel.max_players",
        ),
        ("[modules.duel]\ncreated = \"server\"", "modules.duel.create"),
        (
            "[worlds.village.zones.square]\nmodule = \"v\"\nparam = 1",
            "worlds.village.zones.square.params",
        ),
    ];
    for (file, nearest) in cases {
        let faults = problems(file, &[]);
        assert_eq!(faults.len(), 1, "{file}: {faults:?}");
        assert!(
            faults[0].ends_with(&format!("unknown key; the nearest known key is {nearest}")),
            "{faults:?}"
        );
    }
    assert_eq!(
        problems("", &[("ROOKERY_CLUSTER__SEED", "a:1")]),
        ["ROOKERY_CLUSTER__SEED: unknown key; the nearest known key is ROOKERY_CLUSTER__SEEDS (cluster.seeds)"]
    );
}

#[test]
fn a_value_that_does_not_fit_says_what_was_expected() {
    let cases = [
        (
            "[matches]\nempty_after = 60",
            "matches.empty_after: expected a duration such as `30s`, with its unit, found an integer",
        ),
        (
            "[matches]\nempty_after = \"60\"",
            "matches.empty_after: `60` is not a duration such as `30s` or `500ms`",
        ),
        (
            "[limits]\nframe = \"big\"",
            "limits.frame: `big` is not a size such as `64KiB`",
        ),
        (
            "[limits]\ninputs = \"300\"",
            "limits.inputs: `300` is not a rate such as `300/s burst 600`",
        ),
        (
            "[limits]\nconnections = -1",
            "limits.connections: expected a whole number from 0 to 4294967295",
        ),
        ("[limits]\nconnections = 0", "limits.connections: must be at least 1"),
        (
            "[listen]\nclient = \"localhost\"",
            "listen.client: `localhost` is not an IP address and a port such as `0.0.0.0:7700`",
        ),
        (
            "[cluster]\nprofile = \"wan\"",
            "cluster.profile: `wan` is not one of `default`, `lan`",
        ),
        (
            "[cluster]\nseeds = \"a:1\"",
            "cluster.seeds: expected a list, found a string",
        ),
        ("cluster = 3", "cluster: expected a table of keys, found an integer"),
        (
            "[node]\nname = \"a b\"",
            "node.name: `a b` is not a node name: 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.'",
        ),
        (
            "[queues.\"a b\"]\nmodule = \"duel\"",
            "queues.a b: `a b` is not a name: 1 to 64 of a-z, 0-9, '-', '_'",
        ),
        (
            "[store]\nurl = \"mysql://x\"",
            "store.url: is neither `sqlite://path` nor `postgres://…`",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(problems(file, &[]), [expected]);
    }
}

#[test]
fn rules_over_several_keys_name_the_key_to_change() {
    let cases = [
        ("[cluster]\nsecret = \"short\"", "cluster.secret: 5 bytes are too few"),
        (
            "[cluster]\nseeds = [\"a:7701\"]",
            "cluster.secret: needed to join other nodes",
        ),
        (
            "[cluster]\ndns = [\"a:7701\"]",
            "cluster.secret: needed to join other nodes",
        ),
        (
            "[listen]\npeer = \"0.0.0.0:7701\"",
            "cluster.secret: needed because `listen.peer` is not on loopback",
        ),
        (
            "[listen]\nops = \"0.0.0.0:7702\"",
            "ops.token: needed because `listen.ops` is not on loopback",
        ),
        (
            "[listen]\norigins = [\"example.org\"]",
            "listen.origins: `example.org` is neither",
        ),
        (
            "[ops]\ntoken_file = \"/nonexistent/token\"",
            "ops.token_file: /nonexistent/token cannot be read",
        ),
        (
            "[tls]\nkey = \"/dev/null\"",
            "tls.cert: needed, because `tls.key` is set",
        ),
        (
            "[cluster]\nca = \"/dev/null\"\ncert = \"/dev/null\"\nsecret = \"0123456789abcdef0123456789abcdef\"",
            "cluster.key: needed, because `cluster.ca` is set",
        ),
        (
            "[auth]\nregistration = \"external\"",
            "auth.key: needed, because `auth.registration` is `external`",
        ),
        ("[auth]\nissuer = \"x\"", "auth.issuer: has an effect only when"),
        ("[limits]\nmodule = \"1GiB\"", "limits.module: must be at most 256 MiB"),
        (
            "[limits]\nmodule_versions = 0",
            "limits.module_versions: must be at least 1",
        ),
        (
            "[modules]\nkeys = [\"6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=\", \"6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=\"]",
            "modules.keys: `6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=` stands there twice",
        ),
        ("[queues.duel]\nteams = 1", "queues.duel.module: needed"),
        (
            "[queues.duel]\nmodule = \"duel\"\nteams = 3",
            "queues.duel.teams: 2 players do not split evenly into 3 teams",
        ),
        (
            "[queues.duel]\nmodule = \"duel\"\nskill = { property = \"elo\" }",
            "queues.duel.skill.window: needed",
        ),
        (
            "[queues.duel]\nmodule = \"duel\"\nskill = { property = \"elo\", window = 9, widen = 1 }",
            "queues.duel.skill.every: `widen` and `every` are needed both",
        ),
        (
            "[queues.duel]\nmodule = \"duel\"\nskill = { property = \"elo\", window = -1.5 }",
            "queues.duel.skill.window: must be at least 0",
        ),
        (
            "[queues.duel]\nmodule = \"duel\"\nmax_waiting = 0",
            "queues.duel.max_waiting: must be at least 1",
        ),
        ("[worlds.village]\nneighbours = []", "worlds.village.zones: needed"),
        (
            "[worlds.v]\nneighbours = [[\"a\", \"b\", \"c\"]]\nzones = { a = \"m\" }",
            "worlds.v.neighbours: `a, b, c` is not a pair",
        ),
        (
            "[telemetry]\notlp = \"collector:4318\"",
            "telemetry.otlp: `collector:4318` is no URL",
        ),
        (
            "[worlds.v]\nentry = \"b\"\nzones = { a = \"m\" }",
            "worlds.v.entry: `b` is no zone",
        ),
    ];
    for (file, expected) in cases {
        let faults = problems(file, &[]);
        assert_eq!(faults.len(), 1, "{file}: {faults:?}");
        assert!(faults[0].starts_with(expected), "{faults:?}");
    }
    for seed in ["a", "a:", ":1", "a:0", "a:99999", "http://a:1", "::1:7701", "[::g]:1"] {
        let file = format!("[cluster]\nsecret = \"{SECRET}\"\nseeds = [\"{seed}\", \"good:1\", \"[::1]:7701\"]");
        assert_eq!(
            problems(&file, &[]),
            [format!("cluster.seeds: `{seed}` is not `host:port`")]
        );
    }
}

/// What an operator may have copied from there: it names a neighbour that is no zone.
#[test]
fn the_tables_of_the_contract_are_taken_as_they_stand() {
    let config = load(
        r#"
        [queues.duel]
        module = "duel"
        min_players = 2
        max_players = 2
        teams = 1
        match_on = ["region", "mode"]
        skill = { property = "skill", window = 100, widen = 50, every = "5s" }
        expires = "60s"

        [worlds.village]
        neighbours = [["square", "mill"], ["square", "well"]]
        [worlds.village.zones]
        square = "village"
        mill = { module = "village", params = { gate = "north" } }
        "#,
        &[],
        &[],
    )
    .expect("every key is known");
    let village = &config.worlds.by_name["village"];
    assert_eq!(village.zones.keys().collect::<Vec<_>>(), ["mill", "square"]);
    assert_eq!(village.strangers().into_iter().collect::<Vec<_>>(), ["well"]);
}

#[test]
fn all_faults_are_reported_together() {
    let file = "[node]\nnmae = \"a\"\n[limits]\nframe = \"big\"\nconnections = \"many\"\n[cluster]\nsecret = \"short\"";
    let faults = problems(
        file,
        &[("ROOKERY_LISTEN__CLIENT", "nowhere"), ("ROOKERY_OPS__TOKNE", "x")],
    );
    for key in [
        "node.nmae",
        "limits.frame",
        "limits.connections",
        "cluster.secret",
        "ROOKERY_LISTEN__CLIENT",
        "ROOKERY_OPS__TOKNE",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(key)),
            "{key} is not in {faults:#?}"
        );
    }
    assert_eq!(faults.len(), 6, "{faults:#?}");
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_a_fault_and_the_rest_is_checked_too() {
    let faults = problems("node = [", &[("ROOKERY_LISTEN__CLIENT", "nowhere")]);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("not TOML"), "{faults:?}");
    let missing = Config::load(Sources {
        file: Some("/nonexistent/rookery.toml".into()),
        ..Sources::default()
    });
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .starts_with("/nonexistent/rookery.toml: cannot be read")
    );
}

#[test]
fn secrets_are_read_from_files_and_never_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let file = format!(
        "[cluster]\nsecret_file = \"{0}\"\nsecret_next = \"next-{SECRET}\"\n[ops]\ntoken = \"open sesame\"\n\
         [store]\nurl = \"postgres://rook:pass@word@db/rookery\"",
        path.display()
    );
    let config = load(&file, &[], &[]).unwrap();
    assert_eq!(config.cluster.secret.as_ref().unwrap().expose(), SECRET);
    let shown = [config.to_toml(), format!("{config:?}")].map(|text| text.replace("pass@word", "PASSWORD"));
    assert!(
        !shown[0].contains(SECRET) && !shown[0].contains("sesame") && !shown[0].contains("PASSWORD"),
        "{}",
        shown[0]
    );
    assert!(shown[0].contains("postgres://rook:********@db/rookery"), "{}", shown[0]);
    assert!(
        !shown[1].contains(SECRET) && !shown[1].contains("sesame"),
        "{}",
        shown[1]
    );

    let both = format!("[cluster]\nsecret = \"{SECRET}\"\nsecret_file = \"{}\"", path.display());
    assert_eq!(
        problems(&both, &[]),
        ["cluster.secret_file: cluster.secret is set too; keep one of the two"]
    );
}

#[test]
fn certificates_that_peers_would_refuse_are_faults() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(path("ca"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["n0".to_owned()]).unwrap();
    std::fs::write(path("cert"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    std::fs::write(path("junk"), "no key").unwrap();
    std::fs::write(path("foreign"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let file = |node: &str, key: &str, secret: &str| {
        format!(
            "[node]\nname = \"{node}\"\n[cluster]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n{secret}",
            path("ca").display(),
            path("cert").display(),
            path(key).display()
        )
    };
    let secret = format!("secret = \"{SECRET}\"");
    let good = load(&file("n0", "key", &secret), &[], &[]).unwrap();
    assert_eq!(good.certificate_files().unwrap().key, path("key"));
    for (node, key, secret, expected) in [
        ("n1", "key", secret.as_str(), "cluster.cert: "),
        ("n0", "foreign", secret.as_str(), "cluster.key: "),
        ("n0", "missing", secret.as_str(), "cluster.key: "),
        ("n0", "junk", secret.as_str(), "cluster.key: "),
        ("n0", "key", "", "cluster.secret: needed beside the certificates"),
    ] {
        let problems = problems(&file(node, key, secret), &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
    let unreadable = problems(&file("n0", "missing", &secret), &[]);
    assert!(
        unreadable[0].contains("missing cannot be read: No such file"),
        "{unreadable:?}"
    );
}

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let file = r#"
        [queues.duel]
        module = "duel"
        match_on = ["region", "mode"]
        skill = { property = "skill", window = 100, widen = 50, every = "5s" }
        expires = "60s"
        [worlds.village]
        entry = "square"
        neighbours = [["square", "mill"], ["square", "well"]]
        [worlds.village.zones]
        square = "village"
        well = "village"
        mill = { module = "village", params = { gate = "north", heights = [1, 2.5] } }
        [modules.duel]
        create = "server"
    "#;
    let first = load(file, &[], &[("node.name", "a")]).unwrap();
    assert_eq!(first.worlds.by_name["village"].zones["mill"].params["gate"], "north");
    assert_eq!(first.queues.by_name["duel"].skill.window, Some(100.0));
    let again = load(&first.to_toml(), &[], &[]).unwrap();
    let mut expected = first.clone();
    expected.store.url = Some(expected.store_url());
    assert_eq!(again, expected);
}

#[test]
fn addresses_that_others_are_told_can_be_dialled() {
    let bound = "127.0.0.1:4242".parse().unwrap();
    let mut config = Config::default();
    assert_eq!(config.advertised_peer(bound), "127.0.0.1:4242");
    assert_eq!(config.client_url(bound), "http://127.0.0.1:4242");
    assert!(
        !config
            .advertised_peer("0.0.0.0:4242".parse().unwrap())
            .starts_with("0.0.0.0")
    );
    config.advertise.client = Some("wss://play.example.org/".into());
    assert_eq!(config.client_url(bound), "https://play.example.org");
    config.advertise.client = Some("play.example.org:443".into());
    config.tls.cert = Some("cert.pem".into());
    assert_eq!(config.client_url(bound), "https://play.example.org:443");
}

#[test]
fn the_page_of_keys_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == Config::reference_page(),
        "run `rookery config reference > docs/configuration.md`"
    );
}
