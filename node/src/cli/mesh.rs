//! `rookery status` and `rookery join`: the nodes of the cluster.

use std::process::ExitCode;

use clap::Args;
use rookery_protocol::error::Refusal;
use serde_json::{Value, json};

use super::operator::{OpsError, OpsOptions, pretty};
use super::say;
use super::table::{or_dash, table};
use crate::ops::view::{ClusterView, JoinPeerRequest, NodeView, QueueView, QueuesView};

/// Show the cluster's nodes, their states, versions and load, its leader, and the depths of its queues.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery status --ops http://127.0.0.1:7712")]
pub(super) struct Status {
    #[command(flatten)]
    ops: OpsOptions,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.ops.client()?;
        let cluster: ClusterView = client.get("/v1/cluster")?;
        // Tickets are rows: while the database is away, which is when somebody asks, the rest is known all the same.
        let queues = match client.get::<QueuesView>("/v1/queues") {
            Ok(view) => Ok(view.queues),
            Err(OpsError::Refused(refusal)) => Err(refusal),
            Err(error) => return Err(error.into()),
        };
        if self.ops.json {
            let mut both = json!(cluster);
            match queues {
                Ok(queues) => both["queues"] = json!(queues),
                Err(refusal) => {
                    both["queues"] = json!(null);
                    both["queues_why"] = json!(refusal.message);
                }
            }
            say(pretty(&both));
        } else {
            say(print(&cluster, &queues));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(cluster: &ClusterView, queues: &Result<Vec<QueueView>, Refusal>) -> String {
    let leader = cluster.leader.as_deref().unwrap_or("none");
    let has_why = cluster.nodes.iter().any(|node| node.why.is_some());
    let mut header = vec![
        "NODE", "STATE", "VERSION", "SESSIONS", "MATCHES", "RTT MS", "CLIENT", "PEER",
    ];
    header.extend(has_why.then_some("WHY"));
    let row = |node: &NodeView| {
        let mut row = vec![
            node.name.clone(),
            node.state.clone(),
            node.version.clone(),
            node.sessions.to_string(),
            node.matches.to_string(),
            or_dash(node.rtt_ms.map(|rtt_ms| format!("{rtt_ms:.2}"))),
            node.client.clone(),
            node.peer.clone(),
        ];
        row.extend(has_why.then(|| node.why.clone().unwrap_or_default()));
        row
    };
    let rows: Vec<_> = cluster.nodes.iter().map(row).collect();
    let mut text = format!(
        "cluster {}, leader {leader}\n\n{}",
        cluster.cluster,
        table(&header, &rows)
    );
    let row = |queue: &QueueView| {
        let former = or_dash(queue.former.as_deref());
        vec![
            queue.queue.clone(),
            queue.waiting.to_string(),
            queue.oldest_ms.to_string(),
            former,
        ]
    };
    match queues {
        Ok(queues) if queues.is_empty() => {}
        Ok(queues) => {
            let rows: Vec<_> = queues.iter().map(row).collect();
            text += &format!("\n\n{}", table(&["QUEUE", "WAITING", "OLDEST MS", "FORMER"], &rows));
        }
        Err(refusal) => text += &format!("\n\nqueues: not known now, {}", refusal.message),
    }
    text
}

/// Tell a running node to join through this peer.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery join 10.0.0.7:7701")]
pub(super) struct Join {
    /// A peer listener of the cluster to join.
    #[arg(value_name = "HOST:PORT")]
    peer: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Join {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let peer = self.peer.clone();
        let answer: Value = self.ops.client()?.post("/v1/cluster/join", JoinPeerRequest { peer })?;
        if self.ops.json {
            say(pretty(&answer));
        } else {
            say(format!(
                "the node joined through {}; `rookery status` shows who is there",
                self.peer
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
