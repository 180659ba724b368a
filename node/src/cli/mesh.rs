//! `rookery status` and `rookery join`: the nodes of the cluster.

use std::process::ExitCode;

use clap::Args;
use rookery_protocol::error::Refusal;
use serde_json::{Value, json};

use super::operator::{OpsError, OpsOptions, pretty};
use super::say;
use super::table::{or_dash, table};
use crate::ops::view::{ClusterView, JoinPeerRequest, LocalView, NodeView, QueueView, QueuesView, SourceView};

/// Show the cluster's nodes, their states, versions and load, its leader, and the depths of its queues; and below, what is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery status --verbose --ops http://127.0.0.1:7712")]
pub(super) struct Status {
    /// Show all that the node knows of the others: generations, addresses, keys in gossip, every seed and DNS name.
    #[arg(long, short)]
    verbose: bool,
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
            say(print(&cluster, &queues, self.verbose));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(cluster: &ClusterView, queues: &Result<Vec<QueueView>, Refusal>, verbose: bool) -> String {
    let leader = cluster.leader.as_deref().unwrap_or("none");
    let mut parts = vec![
        format!("cluster {}, leader {leader}", cluster.cluster),
        nodes_table(&cluster.nodes, verbose),
    ];
    let troubles: Vec<String> = cluster.nodes.iter().filter_map(trouble).collect();
    if !troubles.is_empty() {
        parts.push(troubles.join("\n"));
    }
    parts.extend(cluster.local.as_ref().and_then(|local| local_line(local, verbose)));
    // A source that works is of no interest to whoever looks at the nodes.
    let shown = cluster
        .sources
        .iter()
        .filter(|source| verbose || source.last_error.is_some());
    let sources: Vec<String> = shown.map(|source| source_lines(source, verbose)).collect();
    if !sources.is_empty() {
        parts.push(sources.join("\n"));
    }
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
            parts.push(table(&["QUEUE", "WAITING", "OLDEST MS", "FORMER"], &rows));
        }
        Err(refusal) => parts.push(format!("queues: not known now, {}", refusal.message)),
    }
    parts.join("\n\n")
}

/// The table of nodes: without `verbose` 80 columns wide, as long as names have up to 24 characters.
fn nodes_table(nodes: &[NodeView], verbose: bool) -> String {
    let mut header = vec!["NODE", "STATE", "FOR", "VERSION", "SESSIONS", "MATCHES", "RTT MS"];
    if verbose {
        header.extend(["HEARD", "KEYS", "WIRE", "GENERATION", "CLIENT", "PEER"]);
    }
    let row = |node: &NodeView| {
        // What it did not say itself is not known, which is not 0.
        let said = |count: u64| or_dash(node.answered.then_some(count));
        let mut row = vec![
            node.name.clone(),
            node.state.clone(),
            or_dash(node.since_ms.map(short)),
            node.version.clone(),
            said(node.sessions),
            said(node.matches),
            or_dash(node.rtt_ms.map(|rtt_ms| format!("{rtt_ms:.2}"))),
        ];
        if verbose {
            row.extend([
                or_dash(node.heard_ms.map(short)),
                node.keys.to_string(),
                node.wire.to_string(),
                node.generation.to_string(),
                node.client.clone(),
                node.peer.clone(),
            ]);
        }
        row
    };
    table(&header, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// What is wrong with a node, in a line.
fn trouble(node: &NodeView) -> Option<String> {
    let name = &node.name;
    let heard = node
        .heard_ms
        .map_or_else(String::new, |ago| format!(", last heard of {} ago", short(ago)));
    if let Some(suspicion) = &node.suspicion {
        let mut line = format!(
            "{name}: suspected for {}, {} probes without an answer",
            short(suspicion.since_ms),
            suspicion.probes
        );
        if suspicion.helpers > 0 {
            line += &format!(
                ", {} of {} helpers do not reach it either",
                suspicion.nacks, suspicion.helpers
            );
        }
        return Some(line + &heard);
    }
    if let Some(why) = &node.why {
        return Some(format!("{name}: {why}"));
    }
    match node.state.as_str() {
        "dead" => Some(format!(
            "{name}: dead{heard}; `rookery node forget {name}` if it will not return"
        )),
        "leaving" => None,
        _ if !node.answered => Some(format!("{name}: did not answer within a second{heard}")),
        _ => None,
    }
}

/// The node that answers: how far its view is to be trusted, and how much it states in gossip.
fn local_line(local: &LocalView, verbose: bool) -> Option<String> {
    let LocalView {
        name,
        health,
        keys,
        keys_soft,
        keys_hard,
        cluster_keys,
        isolated,
    } = local;
    let mut said = Vec::new();
    if *isolated {
        said.push("it trusts its own view less, and gives no verdicts".to_owned());
    }
    if verbose || *health > 0 {
        said.push(format!("local health {health} (0 is well, 8 the worst)"));
    }
    if verbose || keys > keys_soft {
        said.push(format!(
            "{keys} keys in gossip of {keys_soft} soft and {keys_hard} hard, {cluster_keys} in the cluster"
        ));
    }
    (!said.is_empty()).then(|| format!("as {name} sees it: {}", said.join("; ")))
}

/// A source, and its addresses when there is something to say of them.
fn source_lines(source: &SourceView, verbose: bool) -> String {
    let kind = &source.kind;
    let mut lines = match &source.last_error {
        Some(why) => format!("{kind} {}: {why} ({} failures)", source.source, source.failures),
        None => format!("{kind} {}: answers", source.source),
    };
    for address in source.addresses.iter().filter(|_| verbose) {
        let how = match (&address.answered_by, address.answered_ms, &address.last_error) {
            _ if address.is_ourselves => "this node itself".to_owned(),
            (Some(node), Some(0), _) => format!("{node}, connected"),
            (_, _, Some(why)) => format!("{why} ({} in a row)", address.failures),
            (Some(node), Some(ago), None) => format!("{node}, {} ago", short(ago)),
            (_, _, None) => "not tried yet".to_owned(),
        };
        lines += &format!("\n    {}: {how}", address.address);
    }
    lines
}

/// A time in its largest unit: what matters is whether it is seconds, minutes or days.
fn short(ms: u64) -> String {
    match ms / 1_000 {
        0 => format!("{ms}ms"),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::view::{AddressView, SuspicionView};

    fn node(name: &str) -> NodeView {
        NodeView {
            name: name.into(),
            generation: 1_700_000_000_000,
            state: "ready".into(),
            version: "0.1.0".into(),
            client: "ws://127.0.0.1:7700/v1/ws".into(),
            peer: "127.0.0.1:7701".into(),
            sessions: 12_345,
            matches: 1_234,
            rtt_ms: Some(123.456),
            answered: true,
            since_ms: Some(3_600_000 * 23),
            reachable: true,
            ..NodeView::default()
        }
    }

    fn source(last_error: Option<&str>) -> SourceView {
        let address = AddressView {
            address: "10.0.0.9:7701".into(),
            last_error: last_error.map(Into::into),
            failures: 3,
            ..AddressView::default()
        };
        SourceView {
            source: "rook-9:7701".into(),
            kind: "seed".into(),
            addresses: vec![address],
            last_error: last_error.map(Into::into),
            failures: 14,
        }
    }

    #[test]
    fn the_table_fits_eighty_columns_and_says_what_is_wrong_below() {
        let suspicion = SuspicionView {
            since_ms: 2_500,
            probes: 3,
            helpers: 2,
            nacks: 1,
        };
        let suspect = NodeView {
            state: "suspect".into(),
            answered: false,
            heard_ms: Some(4_000),
            suspicion: Some(suspicion),
            ..node("node-2")
        };
        let silent = NodeView {
            answered: false,
            ..node("node-3")
        };
        let cluster = ClusterView {
            cluster: "rookery".into(),
            leader: Some("node-1".into()),
            nodes: vec![node("a-name-of-twenty-four-ch"), suspect, silent],
            local: Some(LocalView {
                name: "node-1".into(),
                keys: 5,
                keys_soft: 200,
                ..LocalView::default()
            }),
            sources: vec![source(None), source(Some("nobody answers"))],
            ..ClusterView::default()
        };
        let text = print(&cluster, &Ok(Vec::new()), false);
        let expected = "cluster rookery, leader node-1\n\n\
            NODE                      STATE    FOR  VERSION  SESSIONS  MATCHES  RTT MS\n\
            a-name-of-twenty-four-ch  ready    23h  0.1.0       12345     1234  123.46\n\
            node-2                    suspect  23h  0.1.0           -        -  123.46\n\
            node-3                    ready    23h  0.1.0           -        -  123.46\n\n\
            node-2: suspected for 2s, 3 probes without an answer, 1 of 2 helpers do not reach it either, last heard of 4s ago\n\
            node-3: did not answer within a second\n\n\
            seed rook-9:7701: nobody answers (14 failures)";
        assert_eq!(text, expected);
        let verbose = print(&cluster, &Ok(Vec::new()), true);
        for more in [
            "GENERATION",
            "1700000000000",
            "5 keys in gossip of 200 soft",
            "seed rook-9:7701: answers",
            "10.0.0.9:7701: not tried yet",
        ] {
            assert!(verbose.contains(more), "{more} is not in {verbose}");
        }
    }

    #[test]
    fn a_node_of_before_says_less() {
        let text = r#"{"cluster":"rookery","leader":null,"nodes":[{"name":"n","generation":1,"state":"ready","version":"0.0.9",
            "client":"","peer":"","sessions":1,"matches":2,"rtt_ms":null}]}"#;
        let cluster: ClusterView = serde_json::from_str(text).unwrap();
        let text = print(&cluster, &Ok(Vec::new()), false);
        assert_eq!(
            text.lines().last().unwrap(),
            "n     ready    -  0.0.9           1        2       -"
        );
    }

    #[test]
    fn times_are_short() {
        for (ms, text) in [
            (7, "7ms"),
            (59_999, "59s"),
            (60_000, "1m"),
            (3_600_000, "1h"),
            (86_400_000 * 3, "3d"),
        ] {
            assert_eq!(short(ms), text);
        }
    }
}
