//! The demo's bots: clients like any other, over the client protocol, that play the arena on all nodes and walk about the village.
//! In the arena they steer to the nearest pellet, not very well. A thread each: a handful of them does not need more.

mod walker;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::Ports;
use walker::Walker;

const NAMES: [&str; 8] = [
    "Corvin",
    "Maggie",
    "Jack",
    "Daw",
    "Chough",
    "Nutcracker",
    "Pica",
    "Bran",
];
const WALKERS: [&str; 4] = ["Rosalind", "Silas", "Edda", "Barnaby"];
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a bot waits for a frame before it thinks; also how soon it notices that the demo ends.
const READ_WITHIN: Duration = Duration::from_millis(50);
/// As often as a person changes direction.
const STEER_EVERY: Duration = Duration::from_millis(150);
/// After a lost connection or match.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// One steering in so many is a whim.
const WHIM: u32 = 6;
/// One steering in so many is a dash too.
const DASH: u32 = 25;

/// All bots; they stop when it is dropped.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    bots: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts so many bots in the arena, and the walkers of the village.
    pub(super) fn start(ports: &[Ports], movers: usize) -> std::io::Result<Self> {
        let mut crowd = Self {
            stop: Arc::default(),
            bots: Vec::with_capacity(movers + WALKERS.len()),
        };
        let in_arena = (0..movers).map(|index| {
            let name = format!("{} {}", NAMES[index % NAMES.len()], index / NAMES.len() + 1);
            (name, Game::Arena)
        });
        let in_village = WALKERS.map(|name| (name.to_owned(), Game::Village));
        for (index, (name, game)) in in_arena.chain(in_village).enumerate() {
            let bot = Bot {
                name,
                game,
                addresses: ports
                    .iter()
                    .map(|ports| SocketAddr::from((Ipv4Addr::LOCALHOST, ports.client)))
                    .collect(),
                stop: crowd.stop.clone(),
            };
            let run = move || bot.run(index);
            crowd
                .bots
                .push(std::thread::Builder::new().name(format!("bot-{index}")).spawn(run)?);
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Not joined: a bot may be in the middle of connecting, and the process ends in a moment.
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Game {
    Arena,
    Village,
}

struct Bot {
    name: String,
    game: Game,
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
}

type Socket = WebSocket<TcpStream>;

impl Bot {
    /// Plays until the demo ends; after a lost connection on the next node.
    fn run(&self, index: usize) {
        let mut at = index;
        while !self.is_stopped() {
            let address = self.addresses[at % self.addresses.len()];
            let played = match self.game {
                Game::Arena => self.play(address),
                Game::Village => self.walk(address),
            };
            if let Err(error) = played {
                tracing::debug!(bot = %self.name, %address, error = format!("{error:#}"), "the bot starts again");
            }
            at += 1;
            std::thread::sleep(RETRY_AFTER);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One connection: one match after the other until it breaks.
    fn play(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut socket = self.open(address)?;
        while !self.is_stopped() {
            send(&mut socket, json!({"type": "match.quick", "id": 2, "module": "arena"}))?;
            let joined = self.answer(&mut socket, 2)?;
            let game_match = joined["match"]
                .as_str()
                .context("match.joined names no match")?
                .to_owned();
            let mut mover = Mover {
                game_match,
                seat: joined["seat"].as_u64().unwrap_or_default(),
                n: joined["n"].as_u64().unwrap_or_default(),
                steered: Instant::now(),
                target: None,
            };
            while !self.is_stopped() {
                if let Some(frame) = receive(&mut socket)?
                    && mover.hears(&frame) == Heard::Over
                {
                    break;
                }
                if mover.steered.elapsed() >= STEER_EVERY {
                    mover.steer(&mut socket)?;
                }
            }
            std::thread::sleep(RETRY_AFTER);
        }
        Ok(())
    }

    /// One connection: in the village until it breaks, or until the player's zone is gone.
    fn walk(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut socket = self.open(address)?;
        send(&mut socket, json!({"type": "world.enter", "id": 2, "world": "village"}))?;
        let mut walker = Walker::new(&self.answer(&mut socket, 2)?);
        while !self.is_stopped() {
            if let Some(frame) = receive(&mut socket)?
                && walker.hears(&frame) == Heard::Over
            {
                break;
            }
            walker.act(&mut socket)?;
        }
        Ok(())
    }

    fn open(&self, address: SocketAddr) -> anyhow::Result<Socket> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(CONNECT_WITHIN))
            .build()
            .new_agent();
        let account: Value = agent
            .post(format!("http://{address}/v1/auth/guest"))
            .send_json(json!({"name": self.name}))?
            .body_mut()
            .read_json()?;
        let stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_WITHIN))?;
        let (mut socket, _) = tungstenite::client::client(format!("ws://{address}/v1/ws"), stream)?;
        socket.get_ref().set_read_timeout(Some(READ_WITHIN))?;
        send(
            &mut socket,
            json!({"type": "session.open", "id": 1, "token": account["access_token"]}),
        )?;
        self.answer(&mut socket, 1)?;
        Ok(socket)
    }

    fn answer(&self, socket: &mut Socket, id: u64) -> anyhow::Result<Value> {
        let deadline = Instant::now() + CONNECT_WITHIN;
        while Instant::now() < deadline && !self.is_stopped() {
            match receive(socket)? {
                Some(frame) if frame["id"] == id && frame["type"] == "error" => bail!("refused: {frame}"),
                Some(frame) if frame["id"] == id => return Ok(frame),
                Some(_) | None => {}
            }
        }
        bail!("no answer")
    }
}

fn send(socket: &mut Socket, frame: Value) -> anyhow::Result<()> {
    Ok(socket.send(Message::text(frame.to_string()))?)
}

/// The next frame; none when there is none yet.
fn receive(socket: &mut Socket) -> anyhow::Result<Option<Value>> {
    match socket.read() {
        Ok(Message::Text(text)) => Ok(Some(serde_json::from_str(&text)?)),
        // Pings are answered by the library with the next write or read.
        Ok(_) => Ok(None),
        Err(tungstenite::Error::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    News,
    /// The match is over for this bot.
    Over,
}

/// A bot in a match.
#[derive(Debug)]
struct Mover {
    game_match: String,
    seat: u64,
    /// The number of the last input sent.
    n: u64,
    steered: Instant,
    /// From here to the nearest pellet.
    target: Option<(i32, i32)>,
}

impl Mover {
    fn hears(&mut self, frame: &Value) -> Heard {
        if frame["match"] != self.game_match.as_str() {
            return Heard::News;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "match.data" if frame["key"] == "w" => {
                let world = frame["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
                self.target = world.and_then(|world| World(&world).nearest_pellet(self.seat));
                Heard::News
            }
            "match.resend" => {
                self.n = frame["n"].as_u64().map_or(self.n, |next| next.saturating_sub(1));
                Heard::News
            }
            "match.ended" | "match.lost" | "match.failed" | "match.kicked" => Heard::Over,
            _ => Heard::News,
        }
    }

    fn steer(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        self.steered = Instant::now();
        let direction = match self.target {
            Some(target) if !rand::random_ratio(1, WHIM) => target,
            Some(_) | None => (rand::random_range(-100..=100), rand::random_range(-100..=100)),
        };
        let [dx, dy] = unit(direction);
        self.input(socket, &[1, dx.cast_unsigned(), dy.cast_unsigned()])?;
        if rand::random_ratio(1, DASH) {
            self.input(socket, &[2])?;
        }
        Ok(())
    }

    fn input(&mut self, socket: &mut Socket, bytes: &[u8]) -> anyhow::Result<()> {
        self.n += 1;
        let data = STANDARD.encode(bytes);
        send(
            socket,
            json!({"type": "match.send", "match": self.game_match, "n": self.n, "data": data}),
        )
    }
}

/// A direction as the arena takes it: a unit vector in 127ths.
fn unit((dx, dy): (i32, i32)) -> [i8; 2] {
    let (dx, dy) = (f64::from(dx), f64::from(dy));
    let length = dx.hypot(dy).max(1.0);
    [dx, dy].map(|part| (part / length * 127.0) as i8)
}

/// The arena's published state (examples/arena): version, width, height; movers of 12 bytes; pellets of 4.
struct World<'a>(&'a [u8]);

impl World<'_> {
    /// The way from this seat's mover to the pellet next to it.
    fn nearest_pellet(&self, seat: u64) -> Option<(i32, i32)> {
        const HEADER: usize = 5;
        const MOVER: usize = 12;
        let bytes = self.0;
        if *bytes.first()? != 1 {
            return None;
        }
        let count = usize::from(*bytes.get(HEADER)?);
        let movers = bytes.get(HEADER + 1..HEADER + 1 + count * MOVER)?;
        let own = movers.chunks_exact(MOVER).find(|mover| {
            let [a, b, c, d, ..] = *mover else { return false };
            u64::from(u32::from_le_bytes([*a, *b, *c, *d])) == seat
        })?;
        let point = |bytes: &[u8]| match *bytes {
            [x0, x1, y0, y1, ..] => Some((u16::from_le_bytes([x0, x1]), u16::from_le_bytes([y0, y1]))),
            _ => None,
        };
        let (x, y) = point(&own[4..])?;
        let pellets = bytes.get(HEADER + 2 + count * MOVER..)?;
        let ways = pellets.chunks_exact(4).filter_map(point).map(|(to_x, to_y)| {
            let way = (i32::from(to_x) - i32::from(x), i32::from(to_y) - i32::from(y));
            (way.0 * way.0 + way.1 * way.1, way)
        });
        ways.min().map(|(_, way)| way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two movers, seats 3 and 4, and pellets at these places.
    fn world(pellets: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = vec![1, 0xe8, 0x03, 0x58, 0x02, 2];
        for (seat, x, y) in [(3u32, 100u16, 100u16), (4, 900, 500)] {
            bytes.extend(seat.to_le_bytes());
            bytes.extend([x, y].map(u16::to_le_bytes).concat());
            bytes.extend([7, 1, 0, 0]);
        }
        bytes.push(pellets.len() as u8);
        bytes.extend(
            pellets
                .iter()
                .flat_map(|(x, y)| [x.to_le_bytes(), y.to_le_bytes()].concat()),
        );
        bytes
    }

    #[test]
    fn a_bot_goes_to_the_pellet_next_to_its_own_mover() {
        let bytes = world(&[(800, 500), (110, 80), (300, 300)]);
        assert_eq!(World(&bytes).nearest_pellet(3), Some((10, -20)));
        assert_eq!(World(&bytes).nearest_pellet(4), Some((-100, 0)));
        assert_eq!(World(&bytes).nearest_pellet(5), None);
        assert_eq!(World(&world(&[])).nearest_pellet(3), None);
        for length in 0..bytes.len() {
            // A shorter state is no reason to panic.
            let _ = World(&bytes[..length]).nearest_pellet(4);
        }
        assert_eq!(unit((-300, 0)), [-127, 0]);
        assert_eq!(unit((0, 0)), [0, 0]);
    }

    #[test]
    fn a_bot_goes_on_from_where_the_node_asks_and_leaves_what_is_over() {
        let mut mover = Mover {
            game_match: "m".into(),
            seat: 3,
            n: 9,
            steered: Instant::now(),
            target: None,
        };
        let state =
            json!({"type": "match.data", "match": "m", "key": "w", "data": STANDARD.encode(world(&[(90, 100)]))});
        assert_eq!(mover.hears(&state), Heard::News);
        assert_eq!(mover.target, Some((-10, 0)));
        assert_eq!(
            mover.hears(&json!({"type": "match.resend", "match": "m", "n": 5})),
            Heard::News
        );
        assert_eq!(mover.n, 4);
        assert_eq!(
            mover.hears(&json!({"type": "match.lost", "match": "another"})),
            Heard::News
        );
        for kind in ["match.ended", "match.lost", "match.failed", "match.kicked"] {
            assert_eq!(mover.hears(&json!({"type": kind, "match": "m"})), Heard::Over, "{kind}");
        }
    }
}
