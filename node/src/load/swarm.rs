//! All connections of a run, driven by one thread with one epoll. A scenario gives each turn a [`Play`] that hears the messages. A
//! connection that fails is closed and remembered, never reopened: a run with failures is a failed run, and says the first reason.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::socket::{Outgoing, Socket};
use super::wire::{Message, Request, Wire};

/// Connections and requests that are under way at once while a run is set up.
const SETTING_UP_MAX: usize = 128;

/// A run that cannot be set up within this time will not be.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// Descriptors besides the connections: epoll, standard streams, /proc.
const OTHER_FILES: u64 = 64;

/// Room for what one read takes; a server that bursts is read in few calls.
const SCRATCH_BYTES: usize = 256 * 1024;

/// The URL is of nothing that the generator can speak to; nobody was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url} is not an http:// URL; the generator does not speak TLS")]
pub struct BadUrl {
    url: String,
}

/// Where to connect: one node.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) addr: SocketAddr,
}

impl Target {
    /// Reads `http://host:port`.
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(BadUrl { url: url.into() }.into());
        };
        let host = rest.trim_end_matches('/');
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addrs = with_port
            .to_socket_addrs()
            .with_context(|| format!("cannot look up {host}"))?;
        let addr = addrs.next().with_context(|| format!("{host} has no address"))?;
        Ok(Self {
            host: host.to_owned(),
            addr,
        })
    }
}

/// What hears the messages of all connections.
pub(crate) trait Play {
    /// One message has arrived at connection `index`; what is pushed to `out` leaves when all that arrived with it is heard.
    fn message(&mut self, index: usize, out: &mut Outgoing, payload: &[u8]) -> anyhow::Result<()>;
}

/// All connections.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    sockets: Vec<Socket>,
    scratch: Vec<u8>,
    failed: u64,
    first_failure: Option<String>,
}

impl Swarm {
    /// A swarm without connections, with room for `connections` descriptors.
    pub(crate) fn new(connections: usize) -> anyhow::Result<Self> {
        allow_files(connections as u64 + OTHER_FILES)?;
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            sockets: Vec::with_capacity(connections),
            scratch: vec![0; SCRATCH_BYTES],
            failed: 0,
            first_failure: None,
        })
    }

    /// Opens `count` WebSockets, spread over the targets, and returns when all are upgraded.
    pub(crate) fn connect(
        &mut self,
        targets: &[Target],
        count: usize,
        subprotocol: Option<&str>,
        path: impl Fn(usize) -> String,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + SET_UP_TIMEOUT;
        let first = self.sockets.len();
        let end = first + count;
        // Everything below this index is open; connections open nearly in order, so this is a cheap lower bound.
        let mut open = first;
        while open < end {
            while self.sockets.len() < end && self.sockets.len() - open < SETTING_UP_MAX {
                let index = self.sockets.len();
                let target = &targets[index % targets.len()];
                let request = super::websocket::upgrade_request(&target.host, &path(index), subprotocol);
                let mut socket = Socket::connect(target.addr, &request)?;
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(socket.stream_mut(), Token(index), both)?;
                self.sockets.push(socket);
            }
            self.turn(Duration::from_millis(100), &mut Deaf)?;
            self.complain()?;
            while open < self.sockets.len() && self.sockets[open].is_open() {
                open += 1;
            }
            if Instant::now() > deadline {
                bail!(
                    "only {} of {count} connections opened in {} s",
                    open - first,
                    SET_UP_TIMEOUT.as_secs()
                );
            }
        }
        Ok(())
    }

    pub(crate) fn socket_mut(&mut self, index: usize) -> &mut Socket {
        &mut self.sockets[index]
    }

    /// Connections that failed, and why the first one did.
    pub(crate) fn failures(&self) -> (u64, Option<&str>) {
        (self.failed, self.first_failure.as_deref())
    }

    /// An error when any connection has failed: a run that is being set up cannot go on without it.
    fn complain(&self) -> anyhow::Result<()> {
        match &self.first_failure {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    /// Writes what was pushed to this connection.
    pub(crate) fn flush(&mut self, index: usize) {
        if let Err(error) = self.sockets[index].flush() {
            self.fail(index, &error);
        }
    }

    /// Waits for at most `timeout` and handles all that has arrived.
    pub(crate) fn turn(&mut self, timeout: Duration, play: &mut impl Play) -> anyhow::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("waiting for the sockets failed"),
        }
        for event in &events {
            let index = event.token().0;
            let socket = &mut self.sockets[index];
            let outcome = (|| {
                if event.is_writable() {
                    socket.writable()?;
                }
                if event.is_readable() {
                    socket.read(&mut self.scratch, |out, payload| play.message(index, out, payload))?;
                    socket.flush()?;
                }
                Ok(())
            })();
            if let Err(error) = outcome {
                self.fail(index, &error);
            }
        }
        self.events = events;
        Ok(())
    }

    fn fail(&mut self, index: usize, error: &anyhow::Error) {
        self.failed += 1;
        self.first_failure
            .get_or_insert_with(|| format!("connection {index}: {error:#}"));
        let socket = &mut self.sockets[index];
        // It may have failed before it was registered; either way no more events come from it.
        let _ = self.poll.registry().deregister(socket.stream_mut());
        socket.close();
    }

    /// Makes one request on each of `askers`, at most `in_flight` at once, and hands each answer to `answered`. A request that is
    /// refused for its rate is made again when the server says; any other refusal is an error.
    pub(crate) fn ask(
        &mut self,
        wire: Wire,
        askers: impl IntoIterator<Item = usize>,
        request: impl Fn(usize) -> Vec<u8>,
        mut answered: impl FnMut(usize, &Message<'_, &[u8]>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + SET_UP_TIMEOUT;
        let mut askers = askers.into_iter().peekable();
        let mut again: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
        let mut in_flight = 0;
        while in_flight > 0 || askers.peek().is_some() || !again.is_empty() {
            let now = Instant::now();
            while in_flight < SETTING_UP_MAX {
                let due = again.peek().is_some_and(|Reverse((when, _))| *when <= now);
                let next = if due {
                    again.pop().map(|Reverse((_, index))| index)
                } else {
                    askers.next()
                };
                let Some(index) = next else { break };
                self.sockets[index].out().push(wire.opcode(), &request(index));
                self.flush(index);
                in_flight += 1;
            }
            let mut asking = Asking {
                wire,
                in_flight: &mut in_flight,
                again: &mut again,
                answered: &mut answered,
            };
            self.turn(Duration::from_millis(10), &mut asking)?;
            self.complain()?;
            if now > deadline {
                bail!("{in_flight} requests had no answer in {} s", SET_UP_TIMEOUT.as_secs());
            }
        }
        Ok(())
    }
}

/// Hears nothing: for the time before anything may arrive, and for waiting.
pub(crate) struct Deaf;

impl Play for Deaf {
    fn message(&mut self, _: usize, _: &mut Outgoing, _: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Hears the answers of [`Swarm::ask`].
struct Asking<'a, F> {
    wire: Wire,
    in_flight: &'a mut usize,
    again: &'a mut BinaryHeap<Reverse<(Instant, usize)>>,
    answered: &'a mut F,
}

impl<F> Play for Asking<'_, F>
where
    F: FnMut(usize, &Message<'_, &[u8]>) -> anyhow::Result<()>,
{
    fn message(&mut self, index: usize, _: &mut Outgoing, payload: &[u8]) -> anyhow::Result<()> {
        let message = self.wire.read(payload)?;
        if message.id.is_none() {
            return if message.kind == "error" {
                Err(anyhow::anyhow!(message.describe()))
            } else {
                Ok(())
            };
        }
        *self.in_flight -= 1;
        if message.code == Some("rate_limited") {
            let wait = Duration::from_millis(message.details.retry_ms.unwrap_or(100).max(1));
            self.again.push(Reverse((Instant::now() + wait, index)));
            return Ok(());
        }
        if message.kind == "error" {
            bail!("{}", message.describe());
        }
        (self.answered)(index, &message)
    }
}

/// Opens every session: connection `i` with the `i`-th token.
pub(crate) fn open_sessions(swarm: &mut Swarm, wire: Wire, first: usize, tokens: &[String]) -> anyhow::Result<()> {
    let request = |index: usize| {
        let token = Some(tokens[index - first].as_str());
        wire.request(&Request {
            kind: "session.open",
            id: 1,
            token,
            ..Request::default()
        })
    };
    swarm
        .ask(wire, first..first + tokens.len(), request, |_, _| Ok(()))
        .context("cannot open the sessions")
}

/// Raises the limit on open files as far as needed, or says what to do.
fn allow_files(needed: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        bail!("{needed} open files are needed and the hard limit is lower: raise it with `ulimit -Hn {needed}`");
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        },
    )
    .context("cannot raise the limit on open files")
}
