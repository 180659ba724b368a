//! Several nodes that are one cluster: one database, one secret, each seeded with the first. The database is a SQLite file, or one
//! of the cluster's own on the PostgreSQL server that the tests were given.

use std::path::Path;

use rookery_mesh_tests::LOOK_EVERY;
use rookery_mesh_tests::faults::Network;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::time::Instant;

use super::postgres::{self, Database};
use super::{NodeProcess, NodeSpec, Ops, PATIENCE, bundled};

/// Any 32 bytes or more will do.
pub(super) const SECRET: &str = "a secret that only this test cluster knows";

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    nodes: usize,
    settings: Vec<(Option<usize>, String, String)>,
    /// The PostgreSQL server that holds the cluster's database; none for a SQLite file.
    postgres: Option<String>,
}

impl Builder {
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            settings: Vec::new(),
            postgres: None,
        }
    }

    /// Gives the cluster a database of its own on the server of `ROOKERY_TEST_POSTGRES`, dropped with the cluster. None, said
    /// aloud, when there is no such server: `scripts/with-postgres` starts one.
    ///
    /// # Panics
    /// In CI, where the server has to be there.
    pub fn postgres(mut self) -> Option<Self> {
        self.postgres = Some(postgres::server()?);
        Some(self)
    }

    /// Sets a configuration key on every node.
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push((None, key.into(), value.to_string()));
        self
    }

    /// Sets a configuration key on one node.
    pub fn set_on(mut self, node: usize, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push((Some(node), key.into(), value.to_string()));
        self
    }

    /// Makes every node of the cluster speak to the others over this network.
    pub fn on(self, network: &impl Network) -> Self {
        let first = network.advertised(0);
        (0..self.nodes).fold(self, |builder, node| {
            let builder = builder.set_on(node, "listen.peer", network.listen(node)).set_on(
                node,
                "advertise.peer",
                network.advertised(node),
            );
            match node {
                0 => builder,
                _ => builder.set_on(node, "cluster.seeds", first),
            }
        })
    }

    fn names_seeds_of(&self, index: usize) -> bool {
        let of_node = |node: &Option<usize>| node.is_none_or(|node| node == index);
        let mut settings = self.settings.iter();
        settings.any(|(node, key, _)| key == "cluster.seeds" && of_node(node))
    }

    /// Starts the nodes, the first one first, and waits until each sees all of them ready.
    pub async fn start(self) -> TestCluster {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let database = match &self.postgres {
            Some(server) => Some(Database::create(server).await),
            None => None,
        };
        let store_url = match &database {
            Some(database) => database.url().to_owned(),
            None => sqlite_url(dir.path()),
        };
        let mut nodes: Vec<NodeProcess> = Vec::new();
        let mut rest = Vec::new();
        for index in 0..self.nodes {
            let mut spec = cluster_spec(&format!("node-{}", index + 1), dir.path(), &store_url);
            for (_, key, value) in self
                .settings
                .iter()
                .filter(|(node, _, _)| node.is_none_or(|node| node == index))
            {
                spec.set(key, value);
            }
            match nodes.first() {
                None => {
                    let mut first = spec.spawn();
                    first.ready().await;
                    nodes.push(first);
                }
                Some(first) => {
                    if !self.names_seeds_of(index) {
                        spec.set("cluster.seeds", first.peer_address());
                    }
                    rest.push(spec.spawn());
                }
            }
        }
        for mut node in rest {
            node.ready().await;
            nodes.push(node);
        }
        let common = self.settings.into_iter().filter(|(node, _, _)| node.is_none());
        let cluster = TestCluster {
            nodes,
            dir,
            store_url,
            settings: common.map(|(_, key, value)| (key, value)).collect(),
            database,
        };
        cluster.settled().await;
        cluster
    }
}

/// A node of the test cluster whose files are below `dir`, not started and without seeds.
fn cluster_spec(name: &str, dir: &Path, store_url: &str) -> NodeSpec {
    let mut spec = NodeSpec::new(name, dir);
    spec.set("store.url", store_url);
    spec.set("cluster.secret", SECRET).set("cluster.profile", "lan");
    spec
}

fn sqlite_url(dir: &Path) -> String {
    format!("sqlite://{}", dir.join("shared.db").display())
}

/// While this is there, the cluster's store takes nothing. On PostgreSQL nobody reads either; on SQLite another process has the
/// file for writing, and reads go on.
#[derive(Debug)]
#[must_use = "the outage ends when this is dropped, or is told to"]
pub enum Outage<'a> {
    Sqlite(sqlx::SqliteConnection),
    Postgres(&'a Database),
}

impl Outage<'_> {
    /// Gives the store back.
    ///
    /// # Panics
    /// When the store does not take it.
    pub async fn end(self) {
        match self {
            Self::Sqlite(mut connection) => {
                let done = sqlx::raw_sql("rollback").execute(&mut connection).await;
                done.expect("the transaction is ours");
            }
            Self::Postgres(database) => database.open().await,
        }
    }
}

/// A running cluster. Dropping it kills its nodes and removes its files and its database, in this order.
#[derive(Debug)]
pub struct TestCluster {
    nodes: Vec<NodeProcess>,
    dir: TempDir,
    store_url: String,
    /// What is set on every node.
    settings: Vec<(String, String)>,
    database: Option<Database>,
}

impl TestCluster {
    /// Starts a cluster with nothing configured beyond what makes it one.
    pub async fn start(nodes: usize) -> Self {
        Builder::new(nodes).start().await
    }

    pub fn builder(nodes: usize) -> Builder {
        Builder::new(nodes)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The database of all nodes, as `store.url` names it.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// Takes the store away from all nodes.
    ///
    /// # Panics
    /// When it cannot be had.
    pub async fn take_store(&self) -> Outage<'_> {
        if let Some(database) = &self.database {
            database.close().await;
            return Outage::Postgres(database);
        }
        let opened = sqlx::SqliteConnection::connect(&self.store_url).await;
        let mut connection = opened.expect("the file can be opened");
        // Waits for its turn, as the nodes do.
        let taken = sqlx::raw_sql("pragma busy_timeout = 30000; begin immediate")
            .execute(&mut connection)
            .await;
        taken.expect("the file can be had for writing");
        Outage::Sqlite(connection)
    }

    pub fn node(&self, index: usize) -> &NodeProcess {
        &self.nodes[index]
    }

    pub fn node_mut(&mut self, index: usize) -> &mut NodeProcess {
        &mut self.nodes[index]
    }

    pub fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    pub fn ops(&self, index: usize) -> Ops {
        self.nodes[index].ops()
    }

    /// The index of the node with this name.
    pub fn index_of(&self, name: &str) -> usize {
        let index = self.nodes.iter().position(|node| node.name() == name);
        index.unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// Publishes an example module through the first node.
    pub async fn publish(&self, name: &str) -> String {
        self.ops(0).publish(bundled(name)).await
    }

    /// A node that is not one of the cluster's yet: same secret, same database, configured as all nodes are, and seeded with
    /// the first.
    pub fn newcomer(&self, name: &str) -> NodeSpec {
        let mut spec = cluster_spec(name, self.dir.path(), &self.store_url);
        for (key, value) in &self.settings {
            spec.set(key, value);
        }
        spec.set("cluster.seeds", self.nodes[0].peer_address());
        spec
    }

    /// Starts one more node, and waits until all see each other ready.
    pub async fn add(&mut self, name: &str) {
        let mut node = self.newcomer(name).spawn();
        node.ready().await;
        self.nodes.push(node);
        self.settled().await;
    }

    /// Starts a node again under its name and on its addresses, and waits until it is ready.
    pub async fn restart(&mut self, index: usize) {
        let mut node = self.nodes[index].restart();
        node.ready().await;
        self.nodes[index] = node;
    }

    /// Waits until every node sees all others ready.
    ///
    /// # Panics
    /// With what the node sees, when it does not.
    pub async fn settled(&self) {
        let mut names: Vec<&str> = self.nodes.iter().map(NodeProcess::name).collect();
        names.sort_unstable();
        for node in &self.nodes {
            let (ops, since) = (node.ops(), Instant::now());
            while ops.members("ready").await != names {
                let sees = ops.get("/v1/cluster").await.1;
                assert!(
                    since.elapsed() < PATIENCE,
                    "{} does not see {names:?} ready, but {sees:#}",
                    node.name()
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}
