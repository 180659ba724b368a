//! `rookery drain`: takes a node out of the cluster, and waits until it is gone.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::operator::{OpsError, OpsOptions, pretty, segment};
use super::say;
use crate::config::parse_duration;
use crate::ops::view::{ClusterView, DrainOrdered, DrainRequest};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How much longer than its deadline a node may take to be gone: it stops, and the others hear of it.
const GRACE: Duration = Duration::from_secs(15);

/// Drain a node: its players are sent to the others, its matches end or are handed over, and it stops.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery drain node-2 --deadline 60s")]
pub(super) struct Drain {
    /// The node; the one that is asked when none is named.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// How long it may take, as in 25s or 5m; the node's `drain.deadline` when it is not given.
    #[arg(long, value_parser = read_deadline)]
    deadline: Option<Duration>,
    #[command(flatten)]
    ops: OpsOptions,
}

fn read_deadline(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

impl Drain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.ops.client()?;
        let path = format!("/v1/nodes/{}/drain", segment(self.node.as_deref().unwrap_or("*")));
        let request = DrainRequest {
            deadline_ms: self.deadline.map(|deadline| deadline.as_millis() as u64),
        };
        let DrainOrdered {
            node,
            deadline_ms,
            generation,
            told_by,
        } = client.post(&path, request)?;
        if !self.ops.json {
            say(format!("{node} drains, within {} s", deadline_ms.div_ceil(1_000)));
        }
        let began = Instant::now();
        let mut shown = None;
        loop {
            match client.get::<ClusterView>("/v1/cluster") {
                Ok(cluster) => {
                    let here = cluster
                        .nodes
                        .iter()
                        .find(|seen| seen.name == node && seen.generation == generation);
                    // A node that is leaving has said goodbye and still ends; whoever starts it again needs its ports.
                    let Some(here) = here.filter(|seen| seen.state != "dead") else {
                        break;
                    };
                    let progress = (here.state.clone(), here.sessions, here.matches);
                    if shown.as_ref() != Some(&progress) && !self.ops.json {
                        say(format!(
                            "{node}: {}, {} sessions, {} matches",
                            progress.0, progress.1, progress.2
                        ));
                    }
                    shown = Some(progress);
                }
                Err(OpsError::Unreachable { .. }) if told_by == node => break,
                Err(error) => return Err(error.into()),
            }
            if began.elapsed() > Duration::from_millis(deadline_ms) + GRACE {
                bail!("{node} is still there after its deadline; `rookery status` shows what it says");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        if self.ops.json {
            let took_ms = began.elapsed().as_millis() as u64;
            let answer: BTreeMap<_, _> = [
                ("node", json!(node)),
                ("drained", json!(true)),
                ("took_ms", json!(took_ms)),
            ]
            .into();
            say(pretty(&answer));
        } else {
            say(format!("{node} is gone"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
