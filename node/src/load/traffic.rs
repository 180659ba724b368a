//! Players who send and count what comes back: the engine of `echo` and `fanout`. Each payload names its sender, its number and its
//! time, so every receiver checks order, loss and doubles of every sender while the clock runs. A run warms up, measures, stops
//! sending, and waits until all that was sent has arrived; only then is anything called lost.

use std::time::{Duration, Instant};

use super::order::{Faults, Stream};
use super::report::{Latency, Report};
use super::socket::Outgoing;
use super::swarm::{Play, Swarm};
use super::websocket::Opcode;
use super::wire::{SendTemplate, Wire};
use super::{process, rooms};

/// When this long nothing has come after the last send, nothing more will.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A server so far behind that it still sends after this has failed anyhow.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Acknowledgements come at latest after 100 ms by contract; this allows for a busy machine.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// Who gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Its sender alone.
    Sender,
    /// All in the room, its sender among them.
    Room,
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) audience: Audience,
    pub(crate) connections: usize,
    pub(crate) room_size: usize,
    pub(crate) module: String,
    /// Messages a second and client; none: as fast as the answers come, with `window` under way.
    pub(crate) rate: Option<f64>,
    pub(crate) window: usize,
    pub(crate) numbered: bool,
    pub(crate) payload_bytes: usize,
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
}

/// Runs the plan against the servers and reports.
pub(crate) fn run(common: &super::Common, plan: &Plan) -> anyhow::Result<Report> {
    anyhow::ensure!(
        plan.connections > 0 && plan.room_size > 0,
        "there must be connections, and rooms for them"
    );
    anyhow::ensure!(
        plan.payload_bytes >= Payload::BYTES_MIN && plan.payload_bytes <= Payload::BYTES_MAX,
        "a payload has {} to {} bytes: it carries sender, number and time",
        Payload::BYTES_MIN,
        Payload::BYTES_MAX
    );
    let mut swarm = Swarm::new(plan.connections)?;
    let rooms = rooms::enter(&mut swarm, common, plan)?;
    let mut talk = Talk::new(common, plan, &rooms);

    let started = Instant::now();
    let measure_from = started + plan.warmup;
    let measure_until = measure_from + plan.measure;
    talk.begin(&mut swarm);
    talk.talk_until(&mut swarm, measure_from)?;
    talk.measuring = true;
    let before = Sample::take(common, &talk)?;
    talk.talk_until(&mut swarm, measure_until)?;
    let after = Sample::take(common, &talk)?;
    talk.measuring = false;
    talk.sending = false;
    talk.drain(&mut swarm)?;

    let mut report = Report::new(plan.scenario);
    before.report_until(&after, common, plan, &mut report);
    if !common.server_pid.is_empty() {
        report.count("server_rss_kib", process::rss_kib(&common.server_pid)?);
    }
    talk.report(&swarm, &mut report);
    Ok(report)
}

/// Counters at one moment.
struct Sample {
    at: Instant,
    sent: u64,
    delivered: u64,
    server_cpu: Duration,
    own_cpu: Duration,
}

impl Sample {
    fn take(common: &super::Common, talk: &Talk) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            sent: talk.sent,
            delivered: talk.delivered,
            server_cpu: process::cpu(&common.server_pid)?,
            own_cpu: process::own_cpu()?,
        })
    }

    fn report_until(&self, end: &Self, common: &super::Common, plan: &Plan, report: &mut Report) {
        let seconds = (end.at - self.at).as_secs_f64();
        let sent = (end.sent - self.sent) as f64;
        let delivered = (end.delivered - self.delivered) as f64;
        report.count("connections", plan.connections as u64);
        report.count("room_size", plan.room_size as u64);
        report.count("payload_bytes", plan.payload_bytes as u64);
        report.figure("seconds", seconds);
        report.figure("sent_per_s", (sent / seconds).round());
        report.figure("delivered_per_s", (delivered / seconds).round());
        if !common.server_pid.is_empty() {
            let cpu = (end.server_cpu - self.server_cpu).as_secs_f64();
            report.figure("server_cpu_percent", cpu / seconds * 100.0);
            report.figure("server_cpu_us_per_message", cpu * 1e6 / sent.max(1.0));
            report.figure("server_cpu_us_per_delivery", cpu * 1e6 / delivered.max(1.0));
        }
        let own = (end.own_cpu - self.own_cpu).as_secs_f64();
        report.figure("client_cpu_percent", own / seconds * 100.0);
    }
}

/// One connection's part.
struct Member {
    template: Option<SendTemplate>,
    sent: u64,
    /// What came from each member of the room, by place in it; with [`Audience::Sender`] only its own.
    heard: Vec<Stream>,
    seq: u64,
    acknowledged: u64,
}

/// The run while it lasts.
struct Talk {
    wire: Option<Wire>,
    opcode: Opcode,
    audience: Audience,
    room_size: usize,
    numbered: bool,
    window: usize,
    pacer: Option<Pacer>,
    payload: Payload,
    body: Vec<u8>,
    members: Vec<Member>,
    started: Instant,
    sending: bool,
    measuring: bool,
    sent: u64,
    delivered: u64,
    last_arrival: Instant,
    latency: Latency,
    pacer_late: Latency,
    stray: u64,
    seq_not_rising: u64,
    trouble: u64,
    first_trouble: Option<String>,
}

impl Talk {
    fn new(common: &super::Common, plan: &Plan, rooms: &[String]) -> Self {
        let wire = common.wire();
        let members = (0..plan.connections)
            .map(|index| {
                let room = index / plan.room_size;
                let mates = plan.room_size.min(plan.connections - room * plan.room_size);
                let streams = match plan.audience {
                    Audience::Sender => 1,
                    Audience::Room => mates,
                };
                Member {
                    template: wire.map(|wire| SendTemplate::new(wire, &rooms[room])),
                    sent: 0,
                    heard: vec![Stream::default(); streams],
                    seq: 0,
                    acknowledged: 0,
                }
            })
            .collect();
        let now = Instant::now();
        Self {
            wire,
            opcode: common.encoding.opcode(),
            audience: plan.audience,
            room_size: plan.room_size,
            numbered: plan.numbered && wire.is_some(),
            window: plan.window.max(1),
            pacer: plan.rate.map(|rate| Pacer::new(now, plan.connections, rate)),
            payload: Payload::new(plan.audience, plan.payload_bytes),
            body: Vec::new(),
            members,
            started: now,
            sending: true,
            measuring: false,
            sent: 0,
            delivered: 0,
            last_arrival: now,
            latency: Latency::new(),
            pacer_late: Latency::new(),
            stray: 0,
            seq_not_rising: 0,
            trouble: 0,
            first_trouble: None,
        }
    }

    /// Without a pace, each member starts with a full window, and every message that returns lets the next one go.
    fn begin(&mut self, swarm: &mut Swarm) {
        if self.pacer.is_some() {
            return;
        }
        for index in 0..self.members.len() {
            for _ in 0..self.window {
                self.send(index, swarm.socket_mut(index).out());
            }
            swarm.flush(index);
        }
    }

    fn talk_until(&mut self, swarm: &mut Swarm, end: Instant) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let mut timeout = end - now;
            if let Some(mut pacer) = self.pacer.take() {
                while let Some((index, due)) = pacer.next_due(now) {
                    if self.measuring {
                        self.pacer_late.record_ns(due.elapsed().as_nanos() as u64);
                    }
                    self.send(index, swarm.socket_mut(index).out());
                    swarm.flush(index);
                }
                timeout = timeout.min(pacer.next_at().saturating_duration_since(Instant::now()));
                self.pacer = Some(pacer);
            }
            swarm.turn(timeout, self)?;
        }
    }

    /// Waits for what is still under way.
    fn drain(&mut self, swarm: &mut Swarm) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.last_arrival = begun;
        let expected: u64 = self
            .members
            .iter()
            .map(|member| member.sent * self.copies_of(member))
            .sum();
        while self.delivered < expected && self.last_arrival.elapsed() < SILENCE_MAX && begun.elapsed() < DRAIN_MAX {
            swarm.turn(Duration::from_millis(20), self)?;
        }
        // What comes twice often comes late; acknowledgements may, too.
        let begun = Instant::now();
        let least = Duration::from_millis(100);
        while begun.elapsed() < least || self.unacknowledged() > 0 && begun.elapsed() < ACKNOWLEDGED_WITHIN {
            swarm.turn(Duration::from_millis(20), self)?;
        }
        Ok(())
    }

    /// How many receivers a message of this member has.
    fn copies_of(&self, member: &Member) -> u64 {
        member.heard.len() as u64
    }

    fn unacknowledged(&self) -> u64 {
        if !self.numbered {
            return 0;
        }
        self.members
            .iter()
            .map(|member| member.sent.saturating_sub(member.acknowledged))
            .sum()
    }

    fn send(&mut self, index: usize, out: &mut Outgoing) {
        let member = &mut self.members[index];
        let data = self.payload.write(index, member.sent, self.started.elapsed());
        member.sent += 1;
        self.sent += 1;
        match &member.template {
            Some(template) => {
                template.write(&mut self.body, self.numbered.then_some(member.sent), data);
                out.push(self.opcode, &self.body);
            }
            None => out.push(self.opcode, data),
        }
    }

    fn deliver(&mut self, index: usize, out: &mut Outgoing, data: &[u8]) {
        let Some(note) = self.payload.read(data) else {
            self.stray += 1;
            return;
        };
        let place = match self.audience {
            Audience::Sender => (note.sender == index).then_some(0),
            Audience::Room => {
                (note.sender / self.room_size == index / self.room_size).then_some(note.sender % self.room_size)
            }
        };
        let member = &mut self.members[index];
        let Some(stream) = place.and_then(|place| member.heard.get_mut(place)) else {
            self.stray += 1;
            return;
        };
        stream.arrived(note.number);
        self.delivered += 1;
        let now = Instant::now();
        self.last_arrival = now;
        if self.measuring {
            let arrived_ns = (now - self.started).as_nanos() as u64;
            self.latency.record_ns(arrived_ns.saturating_sub(note.sent_at_ns));
        }
        if note.sender == index && self.sending && self.pacer.is_none() {
            self.send(index, out);
        }
    }

    fn trouble(&mut self, what: String) {
        self.trouble += 1;
        self.first_trouble.get_or_insert(what);
    }

    fn report(&self, swarm: &Swarm, report: &mut Report) {
        report.latency(&self.latency);
        if self.pacer.is_some() {
            report.figure("pacer_late_p99_ms", self.pacer_late.at_ms(0.99));
        }
        let mut faults = Faults::default();
        for (index, member) in self.members.iter().enumerate() {
            let room = index / self.room_size * self.room_size;
            for (place, stream) in member.heard.iter().enumerate() {
                let sender = match self.audience {
                    Audience::Sender => index,
                    Audience::Room => room + place,
                };
                faults.add(stream.faults(self.members[sender].sent));
            }
        }
        report.count("sent", self.sent);
        report.count("delivered", self.delivered);
        report.must_be_zero("lost", faults.lost);
        report.must_be_zero("doubled", faults.doubled);
        report.must_be_zero("out_of_order", faults.out_of_order);
        report.must_be_zero("stray", self.stray);
        report.must_be_zero("seq_not_rising", self.seq_not_rising);
        if self.numbered {
            report.must_be_zero("unacknowledged", self.unacknowledged());
        }
        let (failed, why) = swarm.failures();
        report.must_be_zero("connections_failed", failed);
        why.into_iter().for_each(|why| report.complain(why.to_owned()));
        report.must_be_zero("refusals", self.trouble);
        self.first_trouble.iter().for_each(|why| report.complain(why.clone()));
        if self.delivered == 0 {
            report.complain("nothing was delivered".to_owned());
        }
    }
}

impl Play for Talk {
    fn message(&mut self, index: usize, out: &mut Outgoing, payload: &[u8]) -> anyhow::Result<()> {
        let Some(wire) = self.wire else {
            self.deliver(index, out, payload);
            return Ok(());
        };
        let message = wire.read(payload)?;
        if let Some(seq) = message.seq
            && message.kind != "match.ack"
        {
            let last = &mut self.members[index].seq;
            if seq <= *last {
                self.seq_not_rising += 1;
            }
            *last = seq.max(*last);
        }
        match message.kind {
            "match.data" => self.deliver(index, out, message.data.unwrap_or_default()),
            "match.ack" => {
                let n = message.n.unwrap_or_default();
                let Member { sent, acknowledged, .. } = self.members[index];
                if n < acknowledged || n > sent {
                    self.trouble(format!("acknowledged {n} after {acknowledged}, with {sent} sent"));
                } else {
                    self.members[index].acknowledged = n;
                }
            }
            // Others of the room came, or went away.
            "match.players" => {}
            _ => self.trouble(message.describe()),
        }
        Ok(())
    }
}

/// When each member sends: all at the same rate, each at a moment of its own. The moments are shuffled, so that members of a room do
/// not speak in chorus, which would let a server write several messages at once that real players send apart.
struct Pacer {
    started: Instant,
    between: Duration,
    order: Vec<usize>,
    next: u64,
}

impl Pacer {
    fn new(started: Instant, members: usize, rate: f64) -> Self {
        let mut order: Vec<usize> = (0..members).collect();
        // A fixed seed: every run and every server gets the same order.
        let mut random = <rand_xoshiro::SplitMix64 as rand::SeedableRng>::seed_from_u64(1);
        rand::seq::SliceRandom::shuffle(order.as_mut_slice(), &mut random);
        Self {
            started,
            between: Duration::from_secs_f64(1.0 / (rate * members as f64)),
            order,
            next: 0,
        }
    }

    fn next_at(&self) -> Instant {
        self.started + Duration::from_nanos((self.between.as_nanos() * u128::from(self.next)) as u64)
    }

    /// The next member whose moment has come, and that moment.
    fn next_due(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let due = self.next_at();
        if due > now {
            return None;
        }
        let index = self.order[(self.next % self.order.len() as u64) as usize];
        self.next += 1;
        Some((index, due))
    }
}

/// A JSON string that carries sender, number and time at fixed places, padded to the wanted size.
struct Payload {
    bytes: Vec<u8>,
    prefix: usize,
}

/// What a payload says.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    sender: usize,
    number: u64,
    sent_at_ns: u64,
}

impl Payload {
    /// Quotes, `all:`, and 8 + 8 + 16 digits.
    const BYTES_MIN: usize = 2 + 4 + 32;
    /// What is left of the default `limits.frame` for the rest of the message.
    const BYTES_MAX: usize = 60 * 1024;

    fn new(audience: Audience, bytes: usize) -> Self {
        // The echo module sends what begins with `"all:` to everyone, and anything else to its sender.
        let prefix: &[u8] = match audience {
            Audience::Sender => b"\"",
            Audience::Room => b"\"all:",
        };
        let mut text = prefix.to_vec();
        text.resize(bytes - 1, b'x');
        text.push(b'"');
        Self {
            bytes: text,
            prefix: prefix.len(),
        }
    }

    fn write(&mut self, sender: usize, number: u64, sent_at: Duration) -> &[u8] {
        let fields = &mut self.bytes[self.prefix..self.prefix + 32];
        write_hex(&mut fields[..8], sender as u64);
        write_hex(&mut fields[8..16], number);
        write_hex(&mut fields[16..], sent_at.as_nanos() as u64);
        &self.bytes
    }

    /// Reads a payload that a run has sent; none when it is not one of this run's form and size.
    fn read(&self, data: &[u8]) -> Option<Note> {
        if data.len() != self.bytes.len() || data[..self.prefix] != self.bytes[..self.prefix] {
            return None;
        }
        let fields = &data[self.prefix..self.prefix + 32];
        Some(Note {
            sender: read_hex(&fields[..8])? as usize,
            number: read_hex(&fields[8..16])?,
            sent_at_ns: read_hex(&fields[16..])?,
        })
    }
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value << 4 | u64::from((*digit as char).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_the_wanted_size_and_reads_back() {
        for audience in [Audience::Sender, Audience::Room] {
            for bytes in [Payload::BYTES_MIN, 64, 1024] {
                let mut payload = Payload::new(audience, bytes);
                let data = payload.write(999, 123_456, Duration::from_secs(100)).to_vec();
                assert_eq!(data.len(), bytes);
                let text: String = serde_json::from_slice(&data).unwrap();
                assert_eq!(text.starts_with("all:"), audience == Audience::Room);
                let note = Note {
                    sender: 999,
                    number: 123_456,
                    sent_at_ns: 100_000_000_000,
                };
                assert_eq!(payload.read(&data), Some(note));
                assert_eq!(payload.read(&data[1..]), None);
            }
        }
    }

    #[test]
    fn a_pacer_gives_every_member_the_same_share_at_the_wanted_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 20, 10.0);
        let mut sends = vec![0; 20];
        let mut last = start;
        while let Some((index, due)) = pacer.next_due(start + Duration::from_secs(2)) {
            assert!(due >= last);
            last = due;
            sends[index] += 1;
        }
        // The moment at exactly two seconds belongs to one member's twenty-first.
        assert!(sends.iter().all(|count| (20..=21).contains(count)), "{sends:?}");
        assert_eq!(sends.iter().sum::<i32>(), 401);
    }
}
