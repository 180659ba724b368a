//! The demo: a node of it that is drained or killed is back a moment later, and Ctrl-C leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rookery_tests::harness::{Ops, free_ports, rookery_binary, until_within};
use rustix::process::{Pid, Signal, kill_process};

/// A debug build on a busy machine takes its time to bring three nodes and a world up.
const WITHIN: Duration = Duration::from_secs(90);

/// A running demo. Dropping it kills the process; its nodes end when their pipes close.
struct Demo {
    child: Child,
    port: u16,
}

impl Demo {
    /// Starts one on ports that are free, and waits until it can be opened.
    async fn start() -> Self {
        for _ in 0..5 {
            // Node 1 has the first three, node 2 those from ten later, and node 3 those from twenty later.
            let port = free_ports(23)[0];
            let mut child = Command::new(rookery_binary())
                .args(["demo", "--no-bots", "--port", &port.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the binary starts");
            let said = child.stdout.take().expect("it is piped");
            let opened = tokio::task::spawn_blocking(move || {
                let mut lines = BufReader::new(said).lines().map_while(Result::ok);
                lines.any(|line| line.starts_with("open "))
            });
            if opened.await.expect("reading does not panic") {
                return Self { child, port };
            }
            // A port was taken: it says so and ends.
            let _ = child.wait();
        }
        panic!("no demo comes up");
    }

    /// The operators' side of node `index`, from 0.
    fn ops(&self, index: u16) -> Ops {
        Ops::new(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + 10 * index + 2)))
    }

    /// Waits until node 1 says that this node is ready under a later generation than that one, and returns its generation.
    async fn ready(&self, node: &str, after: u64) -> u64 {
        until_within(WITHIN, "the node is back", async || {
            let (_, cluster) = self.ops(0).get("/v1/cluster").await;
            let nodes = cluster["nodes"].as_array()?;
            let mut named = nodes
                .iter()
                .filter(|seen| seen["name"] == node && seen["state"] == "ready");
            let generation = named.next()?["generation"].as_u64()?;
            (generation > after).then_some(generation)
        })
        .await
    }

    /// Waits until all zones run.
    async fn online(&self) {
        until_within(WITHIN, "the world is online", async || {
            let (_, worlds) = self.ops(0).get("/v1/worlds").await;
            (worlds["worlds"][0]["online"] == true).then_some(())
        })
        .await;
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_demo_that_is_drained_is_back_and_the_world_with_it() {
    let mut demo = Demo::start().await;
    let first = demo.ready("node-3", 0).await;
    let url = format!("http://127.0.0.1:{}", demo.port + 2);
    let drained = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(rookery_binary());
        command.args(["drain", "node-3", "--deadline", "20s", "--ops", &url]);
        command.output().expect("the binary starts")
    });
    let drained = drained.await.expect("it does not panic");
    let said = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert!(
        drained.status.success() && said.trim_end().ends_with("node-3 is gone"),
        "{said}"
    );
    demo.ready("node-3", first).await;
    demo.online().await;

    let pid = Pid::from_raw(demo.child.id().cast_signed()).expect("it runs");
    kill_process(pid, Signal::INT).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || (demo.child.wait(), demo));
    let (status, _demo) = ended.await.expect("waiting does not panic");
    assert!(status.expect("it was waited for").success());
}
