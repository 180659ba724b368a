//! A network of the kernel's own: each node in a network namespace with an interface and an address, all of them on a switch in a
//! further namespace. Nothing of it is to be seen from outside, and dropping it takes everything away again.
//!
//! `partition` moves the cables to several switches, `isolate` takes the node's own interface down, and `cut_one_way` makes the sender
//! send into a hole, so the two ends see what they would see on machines of their own. It needs root (CAP_NET_ADMIN and
//! CAP_SYS_ADMIN) and `ip`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Network, side_of};

/// The port of every node's mesh: each has an address of its own.
const PORT: u16 = 7_701;

/// Namespaces of tests are named by this, their process, and a number.
const PREFIX: &str = "rookery-test-";

/// Set where a test that needs namespaces must not be passed over.
const DEMANDED: &str = "ROOKERY_NAMESPACES";

/// Namespaces for the nodes of one cluster. Dropping it deletes them; processes in it should have ended by then.
#[derive(Debug)]
pub struct Namespaces {
    switch: String,
    nodes: Vec<String>,
    broken: Mutex<Broken>,
}

/// What has to be repaired.
#[derive(Debug, Default)]
struct Broken {
    holes: BTreeSet<(usize, usize)>,
    down: BTreeSet<usize>,
    /// Nodes whose cable is not in the first switch.
    moved: BTreeSet<usize>,
}

impl Namespaces {
    /// Makes namespaces for that many nodes. None, said aloud, where that cannot be done.
    ///
    /// # Panics
    /// When it cannot be done and `ROOKERY_NAMESPACES` is set, as `scripts/test` does where it has seen that it can.
    pub fn start(nodes: usize) -> Option<Self> {
        match Self::try_start(nodes) {
            Ok(namespaces) => Some(namespaces),
            Err(why) if std::env::var_os(DEMANDED).is_some() => panic!("no network namespaces: {why}"),
            Err(why) => {
                eprintln!("NOT RUN, for there are no network namespaces: {why}");
                None
            }
        }
    }

    fn try_start(count: usize) -> Result<Self, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        delete_orphans();
        let stem = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut made = Self {
            switch: format!("{stem}-switch"),
            nodes: Vec::new(),
            broken: Mutex::default(),
        };
        ip(&["netns", "add", &made.switch])?;
        // There is one switch more than nodes, so that each node may have one of its own.
        for switch in 0..=count {
            made.at_switch(&["link", "add", &format!("switch{switch}"), "type", "bridge"])?;
            made.at_switch(&["link", "set", &format!("switch{switch}"), "up"])?;
        }
        for node in 0..count {
            let name = format!("{stem}-{node}");
            ip(&["netns", "add", &name])?;
            made.nodes.push(name.clone());
            let cable = format!("cable{node}");
            let pair = [
                "link",
                "add",
                &cable,
                "netns",
                &made.switch,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &name,
            ];
            ip(&pair)?;
            made.at_switch(&["link", "set", &cable, "master", "switch0", "up"])?;
            let address = format!("{}/24", made.listen(node).ip());
            ip(&["-n", &name, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(made)
    }

    fn at_switch(&self, words: &[&str]) -> Result<(), String> {
        ip(&[&["-n", &self.switch], words].concat())
    }

    fn at_node(&self, node: usize, words: &[&str]) {
        let done = ip(&[&["-n", &self.nodes[node]], words].concat());
        done.expect("what could be made can be changed");
    }

    fn plug(&self, node: usize, switch: usize) {
        let done = self.at_switch(&[
            "link",
            "set",
            &format!("cable{node}"),
            "master",
            &format!("switch{switch}"),
        ]);
        done.expect("what could be made can be changed");
    }

    /// The interface of a node goes down, as by `ip link set eth0 down` on it: its own sends fail.
    pub fn link_down(&self, node: usize) {
        self.broken().down.insert(node);
        self.at_node(node, &["link", "set", "eth0", "down"]);
    }

    /// Takes back `link_down`.
    pub fn link_up(&self, node: usize) {
        self.broken().down.remove(&node);
        self.at_node(node, &["link", "set", "eth0", "up"]);
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Broken> {
        self.broken.lock().expect("a failed command fails the test")
    }

    fn hole(&self, to: usize) -> String {
        format!("{}/32", self.listen(to).ip())
    }
}

impl Network for Namespaces {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn listen(&self, node: usize) -> SocketAddr {
        let host = u8::try_from(node + 1).expect("a network of tests is small");
        SocketAddr::from(([10, 77, 0, host], PORT))
    }

    fn advertised(&self, node: usize) -> SocketAddr {
        self.listen(node)
    }

    fn enter(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.nodes[node]].map(str::to_owned).to_vec()
    }

    fn cut_one_way(&self, from: usize, to: usize) {
        if self.broken().holes.insert((from, to)) {
            self.at_node(from, &["route", "add", "blackhole", &self.hole(to)]);
        }
    }

    fn heal_one_way(&self, from: usize, to: usize) {
        if self.broken().holes.remove(&(from, to)) {
            self.at_node(from, &["route", "del", "blackhole", &self.hole(to)]);
        }
    }

    fn partition(&self, sides: &[&[usize]]) {
        for node in 0..self.nodes.len() {
            let side = side_of(sides, node);
            self.plug(node, side);
            self.broken().moved.insert(node);
        }
    }

    fn isolate(&self, node: usize) {
        self.link_down(node);
    }

    fn heal_all(&self) {
        let Broken { holes, down, moved } = std::mem::take(&mut *self.broken());
        for node in down {
            self.at_node(node, &["link", "set", "eth0", "up"]);
        }
        for (from, to) in holes {
            self.at_node(from, &["route", "del", "blackhole", &self.hole(to)]);
        }
        for node in moved {
            self.plug(node, 0);
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.nodes.iter().chain([&self.switch]) {
            if let Err(why) = ip(&["netns", "del", name]) {
                eprintln!("a network namespace stays: {why}");
            }
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| format!("ip cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "ip {} ended with {}: {}",
        words.join(" "),
        output.status,
        said.trim()
    ))
}

/// Deletes what test processes that were killed left behind.
fn delete_orphans() {
    let Ok(names) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !std::path::Path::new("/proc").join(process).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}
