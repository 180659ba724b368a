//! Several mesh nodes that are one cluster.

use std::time::Duration;

use tokio::time::Instant;

use crate::faults::Network;
use crate::{LOOK_EVERY, MeshProcess, MeshSpec, PATIENCE, Pace};

/// A running cluster of mesh nodes. Dropping it kills them.
#[derive(Debug)]
pub struct MeshCluster {
    nodes: Vec<MeshProcess>,
}

impl MeshCluster {
    /// Starts nodes n0, n1, … on loopback, each seeded with the first, and waits until each sees all of them ready.
    pub async fn start(nodes: usize, profile: Pace) -> Self {
        let specs = (0..nodes).map(|index| {
            let mut spec = MeshSpec::new(&format!("n{index}"));
            spec.setup.profile = profile;
            spec
        });
        Self::start_from(specs.collect()).await
    }

    /// As `start`, with a node at each place of a network.
    pub async fn start_on(network: &impl Network, profile: Pace) -> Self {
        let specs = (0..network.nodes()).map(|index| {
            let mut spec = MeshSpec::new(&format!("n{index}"));
            spec.setup.profile = profile;
            spec.setup.listen = network.listen(index);
            spec.setup.advertise = Some(network.advertised(index).to_string());
            spec.by = network.enter(index);
            spec
        });
        Self::start_from(specs.collect()).await
    }

    /// Starts these nodes, the first one first. Those that name no seed are seeded with the first.
    pub async fn start_from(specs: Vec<MeshSpec>) -> Self {
        let mut nodes: Vec<MeshProcess> = Vec::new();
        for mut spec in specs {
            if let Some(first) = nodes.first().filter(|_| spec.setup.seeds.is_empty()) {
                spec.setup.seeds = vec![first.addr().to_owned()];
            }
            let mut node = spec.spawn();
            node.ready().await;
            nodes.push(node);
        }
        let cluster = Self { nodes };
        cluster.settled(PATIENCE).await;
        cluster
    }

    pub fn nodes(&self) -> &[MeshProcess] {
        &self.nodes
    }

    pub fn node(&self, index: usize) -> &MeshProcess {
        &self.nodes[index]
    }

    pub fn node_mut(&mut self, index: usize) -> &mut MeshProcess {
        &mut self.nodes[index]
    }

    pub fn nodes_mut(&mut self) -> &mut [MeshProcess] {
        &mut self.nodes
    }

    /// The nodes but this one.
    pub fn others(&self, index: usize) -> impl Iterator<Item = &MeshProcess> {
        let others = self.nodes.iter().enumerate().filter(move |(other, _)| *other != index);
        others.map(|(_, node)| node)
    }

    /// `kill -9` and a new life at the same address, of which it waits for no more than that its mesh runs.
    pub async fn restart(&mut self, index: usize) {
        let mut node = self.nodes[index].restart();
        node.ready().await;
        self.nodes[index] = node;
    }

    /// Waits until every node sees exactly these lives, all ready.
    ///
    /// # Panics
    /// With what a node sees instead, when that takes longer than `within`.
    pub async fn settled(&self, within: Duration) {
        let since = Instant::now();
        let expected: Vec<(&str, u64)> = self.nodes.iter().map(|node| (node.name(), node.generation())).collect();
        for node in &self.nodes {
            loop {
                let members = node.report().await.members;
                let is_ready = |(name, generation): &(&str, u64)| {
                    let seen = members.get(*name);
                    seen.is_some_and(|seen| seen.generation == *generation && seen.state == "ready")
                };
                if members.len() == expected.len() && expected.iter().all(is_ready) {
                    break;
                }
                assert!(
                    since.elapsed() < within,
                    "within {within:?} {} did not see {expected:?} ready, but {members:#?}",
                    node.name()
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}
