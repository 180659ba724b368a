//! One mesh node as a child process: how it is started, what it is told, what it said, and its end.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::lines::each_line;
use crate::{
    Answer, Event, EventKind, Lines, Numbered, Order, PATIENCE, Pace, Report, Running, Said, Setup, Try, free_ports,
    workspace_binary,
};

/// Log lines printed of each node when a test fails.
const PRINTED_LINES: usize = 200;

/// Any 32 bytes or more will do.
const SECRET: &str = "a secret that only this test cluster knows";

/// Returns the path of the `mesh_node` binary: `ROOKERY_MESH_NODE` if it is set, else this workspace's, built once a test process.
pub fn mesh_node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("ROOKERY_MESH_NODE") {
        Some(path) => path.into(),
        None => workspace_binary("rookery-mesh-tests", "mesh_node"),
    })
}

/// How a mesh node is started.
#[derive(Debug, Clone)]
pub struct MeshSpec {
    /// What it is told.
    pub setup: Setup,
    /// A command that the node is started by, such as one that enters a network namespace; empty for none.
    pub by: Vec<String>,
    /// What it logs, as `RUST_LOG` says it.
    pub log: String,
}

impl MeshSpec {
    /// A node alone, with the lan profile. Port 0 of loopback is a free port, another one each time that it is started.
    pub fn new(name: &str) -> Self {
        Self {
            setup: Setup {
                name: name.into(),
                generation: 0,
                profile: Pace::Lan,
                cluster_name: "rookery".into(),
                secret: SECRET.into(),
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                advertise: None,
                seeds: Vec::new(),
                dns: Vec::new(),
                // As the server has it.
                poll_ms: 10_000,
            },
            by: Vec::new(),
            log: "info,rookery_gossip=debug,chitchat=warn".into(),
        }
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Panics
    /// When there is no such process to be had.
    pub fn spawn(&self) -> MeshProcess {
        let mut spec = self.clone();
        if spec.setup.listen == SocketAddr::from(([127, 0, 0, 1], 0)) {
            spec.setup.listen.set_port(free_ports(1)[0]);
        }
        let setup = serde_json::to_string(&spec.setup).expect("a setup has a form in JSON");
        let program = mesh_node_binary().to_str().expect("our paths are text");
        let mut words = self.by.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words).arg(setup).env("RUST_LOG", &self.log);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let name = &self.setup.name;
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (heard, logged) = (Arc::new(Heard::default()), Lines::default());
        let said = Arc::clone(&heard);
        each_line(child.stdout.take().expect("it is piped"), move |line| said.take(&line));
        logged.collect(child.stderr.take().expect("it is piped"));
        MeshProcess {
            spec,
            stdin: Mutex::new(child.stdin.take().expect("it is piped")),
            running: Running::new(child),
            heard,
            logged,
            next_id: AtomicU64::new(0),
            ready: None,
        }
    }
}

/// A mesh node that was started. Dropping it kills the process; if the test is failing then, its log is printed.
#[derive(Debug)]
pub struct MeshProcess {
    spec: MeshSpec,
    running: Running,
    stdin: Mutex<ChildStdin>,
    heard: Arc<Heard>,
    logged: Lines,
    next_id: AtomicU64,
    ready: Option<Ready>,
}

#[derive(Debug, Clone)]
struct Ready {
    at_us: u64,
    generation: u64,
    addr: String,
}

/// What the node has said.
#[derive(Debug, Default)]
struct Heard {
    events: Mutex<Vec<Event>>,
    /// Rings at each event.
    more: Notify,
    answers: Mutex<BTreeMap<u64, oneshot::Sender<(u64, Answer)>>>,
}

impl Heard {
    fn take(&self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Event(event)) => {
                self.events().push(event);
                self.more.notify_waiters();
            }
            Ok(Said::Answer { id, at_us, answer }) => {
                if let Some(waiting) = self.answers().remove(&id) {
                    // Whoever asked has stopped waiting.
                    let _ = waiting.send((at_us, answer));
                }
            }
            Err(error) => eprintln!("a mesh node said what cannot be read ({error}): {line}"),
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("no thread panics holding it")
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<(u64, Answer)>>> {
        self.answers.lock().expect("no thread panics holding it")
    }
}

impl MeshProcess {
    pub fn name(&self) -> &str {
        &self.spec.setup.name
    }

    pub fn spec(&self) -> &MeshSpec {
        &self.spec
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits until the mesh runs.
    ///
    /// # Panics
    /// When the process ends instead, or takes longer than tests have patience.
    pub async fn ready(&mut self) -> &mut Self {
        let what = format!("{} is ready", self.name());
        let ready = self.until_event(PATIENCE, &what, 0, |event| match &event.kind {
            EventKind::Ready { generation, addr } => Some(Ready {
                at_us: event.at_us,
                generation: *generation,
                addr: addr.clone(),
            }),
            _ => None,
        });
        self.ready = Some(ready.await);
        self
    }

    /// The address under which others know it.
    pub fn addr(&self) -> &str {
        &self.ready.as_ref().expect("wait for `ready` first").addr
    }

    /// Which of the node's lives this process is.
    pub fn generation(&self) -> u64 {
        self.ready.as_ref().expect("wait for `ready` first").generation
    }

    /// When its mesh ran.
    pub fn ready_us(&self) -> u64 {
        self.ready.as_ref().expect("wait for `ready` first").at_us
    }

    /// Gives an order and returns when it was answered, and how.
    ///
    /// # Panics
    /// When there is no answer within `within`.
    pub async fn tell(&self, order: Order, within: Duration) -> (u64, Answer) {
        let what = format!("{order:?}");
        let answer = self.give(order);
        match timeout(within, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => panic!("{} ended before it answered {what}", self.name()),
            Err(_) => panic!("{} did not answer {what} within {within:?}", self.name()),
        }
    }

    /// Gives an order without waiting for its answer.
    pub fn give(&self, order: Order) -> oneshot::Receiver<(u64, Answer)> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.heard.answers().insert(id, answer);
        let mut line = serde_json::to_vec(&Numbered { id, order }).expect("an order has a form in JSON");
        line.push(b'\n');
        let mut stdin = self.stdin.lock().expect("no thread panics holding it");
        if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
            // It has ended: nobody will answer.
            self.heard.answers().remove(&id);
        }
        answered
    }

    /// Gives an order that is answered with nothing more than that it was carried out; returns when.
    ///
    /// # Panics
    /// When it was not.
    pub async fn does(&self, order: Order) -> u64 {
        let what = format!("{order:?}");
        match self.tell(order, PATIENCE).await {
            (at_us, Answer::Done) => at_us,
            (_, answer) => panic!("{} answered {what} with {answer:?}", self.name()),
        }
    }

    /// Joins groups, and returns when it had done so.
    pub async fn join(&self, groups: impl IntoIterator<Item = impl Into<String>>) -> u64 {
        let groups = groups.into_iter().map(Into::into).collect();
        self.does(Order::Join { groups }).await
    }

    /// Leaves groups, and returns when it had done so.
    pub async fn leave(&self, groups: impl IntoIterator<Item = impl Into<String>>) -> u64 {
        let groups = groups.into_iter().map(Into::into).collect();
        self.does(Order::Leave { groups }).await
    }

    /// The nodes of a group, as this node sees them.
    pub async fn nodes(&self, group: &str) -> Vec<String> {
        let groups = vec![group.to_owned()];
        match self.tell(Order::Groups { groups }, PATIENCE).await.1 {
            Answer::Groups { mut nodes } => nodes.remove(group).unwrap_or_default(),
            answer => panic!("{} answered {answer:?}", self.name()),
        }
    }

    pub async fn report(&self) -> Report {
        match self.tell(Order::Report, PATIENCE).await.1 {
            Answer::Report(report) => *report,
            answer => panic!("{} answered {answer:?}", self.name()),
        }
    }

    /// Asks another node every so often for so long, each time with this deadline.
    pub async fn ask(&self, to: &str, every: Duration, deadline: Duration, lasts: Duration) -> Vec<Try> {
        let order = Order::Ask {
            to: to.into(),
            every_ms: every.as_millis() as u64,
            deadline_ms: deadline.as_millis() as u64,
            for_ms: lasts.as_millis() as u64,
        };
        match self.tell(order, lasts + deadline + PATIENCE).await.1 {
            Answer::RoundTrips { tries } => tries,
            answer => panic!("{} answered {answer:?}", self.name()),
        }
    }

    /// Everything that the node has said by itself so far.
    pub fn events(&self) -> Vec<Event> {
        self.heard.events().clone()
    }

    /// What it has said by itself since then.
    pub fn events_since(&self, since_us: u64) -> Vec<Event> {
        let events = self.heard.events();
        events.iter().filter(|event| event.at_us >= since_us).cloned().collect()
    }

    /// Waits for an event at or after `since_us` of which `look` makes something.
    ///
    /// # Panics
    /// When there is none within `within`, or the process ends.
    pub async fn until_event<T>(
        &self,
        within: Duration,
        what: &str,
        since_us: u64,
        look: impl Fn(&Event) -> Option<T>,
    ) -> T {
        let waiting = async {
            let mut looked_at = 0;
            loop {
                let more = self.heard.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                {
                    let events = self.heard.events();
                    let new = events[looked_at..].iter().filter(|event| event.at_us >= since_us);
                    if let Some(found) = new.into_iter().find_map(&look) {
                        return found;
                    }
                    looked_at = events.len();
                }
                more.await;
            }
        };
        let found = timeout(within, waiting).await;
        found.unwrap_or_else(|_| panic!("within {within:?} it did not come true that {what}"))
    }

    /// All that it logged so far.
    pub fn log(&self) -> String {
        self.logged.text()
    }

    /// The process's status, if it has ended.
    pub fn try_exited(&mut self) -> Option<std::process::ExitStatus> {
        self.running.try_exited()
    }

    /// `kill -9`: the process is gone when this returns.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn stop(&mut self) {
        self.running.stop();
    }

    /// SIGCONT, after [`MeshProcess::stop`].
    pub fn cont(&mut self) {
        self.running.cont();
    }

    /// A new life of this node at the address that it had. This one is killed if it lives.
    pub fn restart(&mut self) -> MeshProcess {
        self.kill();
        let mut spec = self.spec.clone();
        if let Some(Ready { generation, .. }) = &self.ready
            && spec.setup.generation != 0
        {
            spec.setup.generation = generation + 1;
        }
        spec.spawn()
    }
}

impl Drop for MeshProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} (pid {})", self.name(), self.pid());
            self.logged.print_last(PRINTED_LINES, self.name());
        }
    }
}
