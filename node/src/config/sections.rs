//! The keys: one struct a section, in which each key has its type, its default and what it does. `docs/configuration.md` is
//! this file as a table, and a test keeps them equal. Rules over several keys are in `rules.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rookery_protocol::NodeName;

use super::setting::{section, words};
use super::tables::{Module, Queue, World};
use super::units::{Rate, Secret, Size};
use crate::modules::signature::PublicKey;

section! {
    /// Everything that an operator may set. No key is needed to run one node.
    Config {
        node: NodeSection = NodeSection::default(),
        cluster: ClusterSection = ClusterSection::default(),
        listen: ListenSection = ListenSection::default(),
        advertise: AdvertiseSection = AdvertiseSection::default(),
        store: StoreSection = StoreSection::default(),
        tls: TlsSection = TlsSection::default(),
        ops: OpsSection = OpsSection::default(),
        auth: AuthSection = AuthSection::default(),
        limits: LimitsSection = LimitsSection::default(),
        matches: MatchesSection = MatchesSection::default(),
        modules: ModulesSection = ModulesSection::default(),
        queues: QueuesSection = QueuesSection::default(),
        worlds: WorldsSection = WorldsSection::default(),
        content: ContentSection = ContentSection::default(),
        chat: ChatSection = ChatSection::default(),
        drain: DrainSection = DrainSection::default(),
        telemetry: TelemetrySection = TelemetrySection::default(),
    }
}

section! {
    /// This node.
    NodeSection {
        /// What operators and other nodes call this node; unique in the cluster. The host name when it is not set: set it where
        /// several nodes share a host.
        name: Option<NodeName> = None,
        /// Where this node keeps its files: the default database, keys, compiled modules, and recordings of matches that failed.
        data_dir: PathBuf = PathBuf::from("./rookery-data"),
        /// Whether the client listener serves the demo page, and the picture of the cluster that it draws. `rookery demo` sets
        /// it; leave it off where strangers reach the listener.
        demo_page: bool = false,
        /// Whether the client listener serves the playground at `/dev`, and what it shows of matches. `rookery dev` sets it; leave it
        /// off where strangers reach the listener.
        playground: bool = false,
        /// Services that this node does not run: what is asked of them is answered `unavailable`. To see what depends on a service;
        /// leave it empty otherwise.
        without: Vec<Service> = Vec::new(),
    }
}

words! {
    /// What a node can be without.
    Service {
        Chat = "chat",
        Content = "content",
        Mail = "mail",
        Matchmaker = "matchmaker",
        Parties = "parties",
        Presence = "presence",
        Records = "records",
        Storage = "storage",
        Worlds = "worlds",
    }
}

section! {
    /// The mesh of nodes.
    ClusterSection {
        /// The cluster's name. Nodes of another name are refused: change it where two clusters could meet.
        name: String = "rookery".into(),
        /// What all nodes of the cluster share, at least 32 bytes; `rookery secret` prints one. Without it a node runs alone,
        /// with its peer listener on loopback.
        secret: Option<Secret> = None,
        /// A file that holds the secret, instead of `cluster.secret`: set it where secrets are mounted as files.
        secret_file: Option<PathBuf> = None,
        /// The secret to come, accepted beside the current one, so that a rotation is a rolling change.
        secret_next: Option<Secret> = None,
        /// A file that holds `cluster.secret_next`.
        secret_next_file: Option<PathBuf> = None,
        /// Your own authority for the certificates by which nodes know each other, a PEM file with one or several; together with
        /// `cluster.cert` and `cluster.key`, and on all nodes or on none. Set it where nodes must be let in and shut out one by one, which
        /// the secret alone cannot do. The secret stays needed: players' tokens are signed with it.
        ca: Option<PathBuf> = None,
        /// This node's certificate and those between it and the authority, a PEM file. One of its DNS names (or its common name) must be
        /// `node.name`, and it must be good for both servers and clients. The files are looked at every 2 s; a change needs no restart.
        cert: Option<PathBuf> = None,
        /// The private key of `cluster.cert`, a PEM file.
        key: Option<PathBuf> = None,
        /// Nodes to join through, as `host:port` of their peer listeners. Any one that answers is enough.
        seeds: Vec<String> = Vec::new(),
        /// DNS names to find nodes by: `name:port` (A and AAAA records) or `_service._udp.name` (SRV records).
        dns: Vec<String> = Vec::new(),
        /// The DNS server to ask, as `address:port`, instead of the system's: set it where a registry such as Consul answers on a
        /// port of its own.
        dns_resolver: Option<SocketAddr> = None,
        /// How often seeds and names are resolved again. A node that is alone asks every 2 s, whatever this says.
        poll_interval: Duration = Duration::from_secs(10),
        /// How soon silence becomes suspicion: `default` (gossip every 500 ms, phi 12) suits clouds, `lan` (200 ms, phi 12) one quiet
        /// network.
        profile: Profile = Profile::Default,
    }
}

words! {
    /// The mesh's timing.
    Profile {
        Default = "default",
        Lan = "lan",
    }
}

section! {
    /// Where this node listens. Port 0 takes a free port, which the ready line names.
    ListenSection {
        /// Players: HTTP and WebSocket.
        client: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7700)),
        /// Other nodes: QUIC over UDP.
        peer: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7701)),
        /// Operators: HTTP. Off loopback it needs `ops.token`.
        ops: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7702)),
        /// Browser origins that may use the client listener, as `scheme://host[:port]`; `*` allows all. Clients that are no browsers send
        /// no origin and are not concerned.
        origins: Vec<String> = vec!["*".into()],
        /// The name of the cookie by which a load balancer can send a browser back to the node it was on; its value is the node's name.
        /// `off` sets none. Nothing depends on it: any node serves any player.
        affinity_cookie: String = "rookery_node".into(),
    }
}

section! {
    /// What others are told, where that differs from what is listened on (a proxy, NAT, or `0.0.0.0`).
    AdvertiseSection {
        /// Where players reach this node: `host:port`, or a URL where a proxy speaks TLS for it. From `listen.client` when it is not set.
        client: Option<String> = None,
        /// Where nodes reach this node: `host:port`. From `listen.peer` when it is not set.
        peer: Option<String> = None,
    }
}

section! {
    /// The database.
    StoreSection {
        /// `sqlite://path` or `postgres://user:password@host/database`. A SQLite file `rookery.db` in `node.data_dir` when it is not set.
        /// Nodes of one cluster share one database; nodes on several machines need PostgreSQL.
        url: Option<String> = None,
    }
}

section! {
    /// TLS for players, served by the node itself. Both keys or neither.
    TlsSection {
        /// The certificate chain, a PEM file.
        cert: Option<PathBuf> = None,
        /// Its private key, a PEM file.
        key: Option<PathBuf> = None,
    }
}

section! {
    /// The operators' listener.
    OpsSection {
        /// The bearer token that operators present. Without it the listener must be on loopback.
        token: Option<Secret> = None,
        /// A file that holds the token.
        token_file: Option<PathBuf> = None,
        /// Whether operators may break things on purpose (`POST /v1/faults/cut-data-links`), to see them heal. For tests and game
        /// days.
        faults: bool = false,
    }
}

section! {
    /// Players' accounts.
    AuthSection {
        /// Who may make an account: `open` (anybody), `closed` (nobody new), `external` (another issuer's tokens are accepted; needs
        /// `auth.key`).
        registration: Registration = Registration::Open,
        /// The other issuer's public key: a PEM file or a JWKS file. For `external`.
        key: Option<PathBuf> = None,
        /// The `iss` that the other issuer's tokens must carry.
        issuer: Option<String> = None,
        /// The `aud` that the other issuer's tokens must carry.
        audience: Option<String> = None,
    }
}

words! {
    /// Who may make an account.
    Registration {
        Open = "open",
        Closed = "closed",
        External = "external",
    }
}

section! {
    /// What one client or one match may use. Raise one when honest traffic is refused (`rookery_rate_limited_total`).
    LimitsSection {
        /// Match inputs, a session.
        inputs: Rate = Rate { per_second: 300, burst: 600 },
        /// Other requests, a session.
        control: Rate = Rate { per_second: 100, burst: 200 },
        /// Chat lines, a session.
        chat: Rate = Rate { per_second: 10, burst: 20 },
        /// Account calls, an address. Raise it where many players share one address.
        accounts: Rate = Rate { per_second: 20, burst: 200 },
        /// One inbound frame.
        frame: Size = Size::kib(64),
        /// What may wait for a client that reads slowly; past it the socket is closed with `slow_consumer`.
        outbox: Size = Size::mib(1),
        /// Open sockets on this node; further ones are closed as they come. Raise the process's limit of open files with it.
        connections: u32 = 100_000,
        /// Matches that a session may have joined at once.
        matches_per_session: u32 = 64,
        /// Chat channels that a session may be in at once.
        channels_per_session: u32 = 32,
        /// Matches that a player may have created and that are still alive.
        created_per_player: u32 = 200,
        /// One value that a player keeps by `storage.put`, as JSON text.
        storage_value: Size = Size::kib(32),
        /// Values that a player keeps so, in all collections together. What modules keep for players does not count.
        storage_values: u32 = 1_000,
        /// Players whose presence a session may watch.
        presence_watches: u32 = 1_000,
        /// One component that is published, 256 MiB at most. It is in memory while it is compiled, and a row of the database. Raise it for
        /// languages that bring a large runtime along.
        module: Size = Size::mib(64),
        /// Names of published modules.
        modules: u32 = 1_000,
        /// Versions of one module; `rookery module remove` makes room. Raise it where every build is published.
        module_versions: u32 = 200,
        /// What components may take together that every node compiles ahead of their use, the newest version of each name; compiled code
        /// takes two to four times as much memory. What is over it is compiled when a match first needs it. Lower it where nodes have
        /// little memory; `0B` compiles nothing ahead.
        modules_ahead: Size = Size::mib(128),
        /// Linear memory of one match.
        match_memory: Size = Size::mib(64),
        /// Processor time of one call of a match. Raise it for modules with a heavy tick.
        match_cpu: Duration = Duration::from_millis(10),
    }
}

section! {
    /// How matches are run and kept.
    MatchesSection {
        /// A match with nobody seated or away for this long ends and frees its name. Zones never do.
        empty_after: Duration = Duration::from_secs(60),
        /// How often a match of durability `stored` is saved.
        store_every: Duration = Duration::from_secs(1),
        /// How long ended, lost and failed matches stay findable, with outcome and last state.
        records_for: Duration = Duration::from_secs(7 * 86_400),
        /// Threads that run match logic; 0 is one a processor. Lower it to leave processors to other programs.
        threads: u32 = 0,
    }
}

section! {
    /// Whose modules may run, and what each may be used for.
    ModulesSection {
        /// Public keys (ed25519, base64) of those whose modules may run. Without any every module may that an operator publishes. With
        /// some, a module needs a signature by one of them, which each node checks before it runs the module. Set it where the store or
        /// the operators' token is less trusted than your build machine; two keys while one replaces the other.
        keys: Vec<PublicKey> = Vec::new(),
        .. by_name: Module,
    }
}

section! {
    /// The matchmaker's queues.
    QueuesSection {
        /// How long a matched player's seat is kept.
        reserve: Duration = Duration::from_secs(30),
        .. by_name: Queue,
    }
}

section! {
    /// Sets of zones that should always exist.
    WorldsSection {
        .. by_name: World,
    }
}

section! {
    /// Shared content, of which every node keeps a copy in memory.
    ContentSection {
        /// What all values may take together, 128 bytes for each counted in; a write past it is refused with `too_large`. Raise it where
        /// every node has the memory.
        total: Size = Size::mib(64),
        /// One value.
        value: Size = Size::kib(256),
    }
}

section! {
    /// Chat.
    ChatSection {
        /// The longest line.
        text_max: Size = Size::kib(2),
        /// How long lines can be read back.
        keep: Duration = Duration::from_secs(30 * 86_400),
        /// How many lines of a channel can be read back. Lower it where a few channels are loud and the database is small.
        keep_lines: u32 = 100_000,
    }
}

section! {
    /// Leaving the cluster without dropping anybody.
    DrainSection {
        /// How long a drain may take, on SIGTERM and as the command's default. Keep it below what the supervisor waits before it kills
        /// (30 s in Kubernetes).
        deadline: Duration = Duration::from_secs(25),
    }
}

section! {
    /// Where traces go.
    TelemetrySection {
        /// The OpenTelemetry collector for traces, as `http://host:4318`: OTLP over HTTP, and `/v1/traces` is added to a URL without a
        /// path. Requests that wait for the store or another node are traced, messages of matches are not.
        otlp: Option<String> = None,
    }
}
