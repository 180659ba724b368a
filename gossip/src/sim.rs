//! A network in memory that carries real QUIC in virtual time: sockets by address, and between each two of them, in each direction, a
//! path that delays, reorders, loses, doubles or cuts. All chance comes from one seed.
//!
//! Sockets take their time from tokio's clock, so under a paused clock (`tokio::time::pause`) a datagram costs no real time. Nodes may
//! share one runtime; or each has one of its own, so that it can be stopped and dropped like a process, and then whoever drives the
//! runtimes must keep their clocks within the least delay of a path of each other. A datagram that comes when the receiver's clock is
//! past it already is delivered at once.
//!
//! It is not a model of a kernel: there is no send buffer that fills up, no ICMP, and bandwidth is unlimited.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::listen::Listen;

/// Datagrams that wait at one socket; what comes when it is full is lost. A kernel with 4 MiB of buffer keeps about as many.
const INBOX_LEN_MAX: usize = 2_048;

/// The longest datagram that gets through: Ethernet's MTU without the headers of IP and UDP.
const DATAGRAM_LEN_MAX: usize = 1_472;

/// Says what happens to datagrams on their way from one address to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// How long each is under way at least.
    pub delay: Duration,
    /// How much longer some are: evenly distributed, so that datagrams overtake each other.
    pub jitter: Duration,
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// The share that comes twice, from 0 to 1.
    pub doubled: f64,
    /// Nothing gets through at all.
    pub is_cut: bool,
}

impl Default for Path {
    /// Returns a path as within a data centre: 5 ms, and nothing is lost.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            doubled: 0.0,
            is_cut: false,
        }
    }
}

/// Counts what became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Of these, how many were lost: by chance, by a cut, or because nobody or too much was at the other end.
    pub lost: u64,
    /// Bytes of all that were sent.
    pub bytes: u64,
}

/// Is the network. Cloning is cheap, and gives the same network.
#[derive(Clone)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

struct State {
    random: u64,
    everywhere: Path,
    paths: BTreeMap<(SocketAddr, SocketAddr), Path>,
    plugged: BTreeMap<SocketAddr, Plugged>,
    sockets_made: u64,
    datagrams_made: u64,
    carried: Carried,
    trace: u64,
}

/// A socket as the network sees it.
struct Plugged {
    number: u64,
    /// By the time at which they are due, then in the order in which they were sent.
    inbox: BTreeMap<(Duration, u64), Datagram>,
    waker: Option<Waker>,
    /// Until when the socket sleeps, if nothing comes that is due earlier.
    asleep_until: Option<Duration>,
}

struct Datagram {
    from: SocketAddr,
    bytes: Box<[u8]>,
}

impl Fabric {
    /// Returns a network in which every path is `everywhere`.
    pub fn new(seed: u64, everywhere: Path) -> Self {
        let state = State {
            random: seed,
            everywhere,
            paths: BTreeMap::new(),
            plugged: BTreeMap::new(),
            sockets_made: 0,
            datagrams_made: 0,
            carried: Carried::default(),
            trace: seed,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Returns a socket at this address, in place of one that was there before. To be called within the runtime that is to drive it;
    /// `now` is the network's time at this moment, by which the clocks of several runtimes are compared.
    pub fn bind(&self, addr: SocketAddr, now: Duration) -> Listen {
        let mut state = self.state();
        state.sockets_made += 1;
        let number = state.sockets_made;
        let plugged = Plugged {
            number,
            inbox: BTreeMap::new(),
            waker: None,
            asleep_until: None,
        };
        state.plugged.insert(addr, plugged);
        Listen::from_abstract(Arc::new(Socket {
            fabric: self.clone(),
            addr,
            number,
            bound_at: Instant::now(),
            bound_at_network: now,
            sleep: Mutex::new(None),
        }))
    }

    /// Takes away the socket at this address, as a crash does: it sends and hears nothing any more.
    pub fn unplug(&self, addr: SocketAddr) {
        let unplugged = self.state().plugged.remove(&addr);
        // Not under the lock: with its waker a task may go.
        drop(unplugged);
    }

    /// Changes every path that is not set by itself.
    pub fn set_everywhere(&self, path: Path) {
        self.state().everywhere = path;
    }

    /// Changes one direction between two addresses.
    pub fn set_path(&self, from: SocketAddr, to: SocketAddr, path: Path) {
        self.state().paths.insert((from, to), path);
    }

    /// Makes one direction between two addresses as all others are.
    pub fn reset_path(&self, from: SocketAddr, to: SocketAddr) {
        self.state().paths.remove(&(from, to));
    }

    /// Returns the path from one address to another.
    pub fn path(&self, from: SocketAddr, to: SocketAddr) -> Path {
        self.state().path(from, to)
    }

    /// Returns what has been carried so far.
    pub fn carried(&self) -> Carried {
        self.state().carried
    }

    /// Returns a digest of everything that was sent so far: when, from where, to where, which bytes, and what became of it. Two runs
    /// with the same digest were the same.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }
}

impl State {
    fn path(&self, from: SocketAddr, to: SocketAddr) -> Path {
        self.paths.get(&(from, to)).copied().unwrap_or(self.everywhere)
    }

    fn note(&mut self, word: u64) {
        self.trace = mix(self.trace ^ word);
    }

    /// A number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn send(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.carried.sent += 1;
        self.carried.bytes += bytes.len() as u64;
        self.note(now.as_micros() as u64);
        self.note(u64::from(from.port()) << 16 | u64::from(to.port()));
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.note(u64::from_le_bytes(word));
        }
        let path = self.path(from, to);
        let copies = if path.is_cut || bytes.len() > DATAGRAM_LEN_MAX || self.draw() < path.loss {
            0
        } else if path.doubled > 0.0 && self.draw() < path.doubled {
            2
        } else {
            1
        };
        let mut lost = copies == 0;
        for _ in 0..copies {
            // Whole milliseconds, as tokio's timers know them: what comes in one of them is delivered together.
            let jitter = path.jitter.mul_f64(self.draw());
            let due_ms = (now + path.delay + jitter).as_micros().div_ceil(1_000) as u64;
            lost |= !self.deliver(Duration::from_millis(due_ms), from, to, bytes);
        }
        self.carried.lost += u64::from(lost);
        self.note(u64::from(lost));
    }

    fn deliver(&mut self, due: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        self.datagrams_made += 1;
        let number = self.datagrams_made;
        self.note(due.as_millis() as u64);
        let Some(plugged) = self.plugged.get_mut(&to) else {
            return false;
        };
        if plugged.inbox.len() >= INBOX_LEN_MAX {
            return false;
        }
        let datagram = Datagram {
            from,
            bytes: bytes.into(),
        };
        plugged.inbox.insert((due, number), datagram);
        if plugged.asleep_until.is_none_or(|until| due < until)
            && let Some(waker) = plugged.waker.take()
        {
            waker.wake();
        }
        true
    }
}

/// The last step of splitmix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// One end, as QUIC sees it.
struct Socket {
    fabric: Fabric,
    addr: SocketAddr,
    /// Tells it from another one at the same address.
    number: u64,
    bound_at: Instant,
    bound_at_network: Duration,
    sleep: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Socket {
    fn now(&self) -> Duration {
        self.bound_at_network + self.bound_at.elapsed()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let mut state = self.fabric.state();
        // A node that was unplugged does not notice, as one whose cable is out does not.
        let is_plugged = state
            .plugged
            .get(&self.addr)
            .is_some_and(|plugged| plugged.number == self.number);
        if is_plugged {
            state.send(self.now(), self.addr, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.fabric.state();
        let plugged = state.plugged.get_mut(&self.addr);
        let Some(plugged) = plugged.filter(|plugged| plugged.number == self.number) else {
            return Poll::Pending;
        };
        let mut sleep = self.sleep.lock().expect("nothing panics under this lock");
        loop {
            let now = self.now();
            let mut count = 0;
            while count < bufs.len().min(meta.len())
                && let Some(first) = plugged.inbox.first_entry()
                && first.key().0 <= now
            {
                let datagram = first.remove();
                let len = datagram.bytes.len();
                bufs[count][..len].copy_from_slice(&datagram.bytes);
                meta[count] = RecvMeta {
                    addr: datagram.from,
                    len,
                    stride: len,
                    ecn: None,
                    dst_ip: None,
                };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            plugged.waker = Some(cx.waker().clone());
            plugged.asleep_until = plugged.inbox.first_key_value().map(|((due, _), _)| *due);
            let Some(due) = plugged.asleep_until else {
                *sleep = None;
                return Poll::Pending;
            };
            let deadline = self.bound_at + due.saturating_sub(self.bound_at_network);
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated socket {} at {}", self.number, self.addr)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
