//! One executor thread: its rooms, when each wakes next, and what goes out of them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rookery_protocol::client::ListedMatch;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{Budget, Down, DownFrame, MatchView, Up};
use rookery_protocol::{MatchId, NodeLife};

use super::command::{Command, MailCommand, RoomCommand};
use super::outside::{EffectOf, Outside, Under};
use super::shard::Shard;
use super::{Frozen, Listing, NewMatch, Origin, Restored, Seats, busy};
use crate::matches::machine::Match;
use crate::matches::part::HostPart;
use crate::metrics::ModuleMetrics;
use crate::owner::fence::Fence;
use crate::owner::room::{Room, RoomEffect};
use crate::store::Save;
use crate::wasm::Module;

/// Messages that wait for a match that is being handed over. Further ones are dropped: gateways say them again.
const WAITING_MAX: usize = 4_096;

/// Commands taken between two looks at the clock.
const SLICE: usize = 64;

/// Commands handled before what they caused is sent.
const PASS: usize = 1_024;

/// How long a thread does one thing after another before it looks at what is due and sends what was said. Where calls are short it
/// comes to `PASS` first; one call that takes all of its budget is a turn by itself, so that ticks of other matches wait for one
/// such call and not for all that have come in.
const TURN: Duration = Duration::from_millis(4);

/// One thread's own things.
pub(super) struct Worker {
    lane: usize,
    /// Something was said that no room said, and waits in the lane.
    spoke: bool,
    /// When the clock was last read, since `epoch`.
    clock: Duration,
    /// When the turn began, since `epoch`.
    turn_began: Duration,
    shard: Arc<Shard>,
    outside: Arc<dyn Outside>,
    fence: Fence,
    /// Whether the fence was open when it was last looked at: in each round and before anything goes out.
    is_fence_open: bool,
    /// How many rooms are heard only while it is.
    leased: usize,
    epoch: Instant,
    rooms: Vec<Option<Owned>>,
    free: Vec<usize>,
    by_id: HashMap<MatchId, usize>,
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    dirty: Vec<usize>,
    effects: Vec<RoomEffect>,
}

impl Worker {
    pub(super) fn new(lane: usize, shard: Arc<Shard>, outside: Arc<dyn Outside>, fence: Fence, epoch: Instant) -> Self {
        Self {
            lane,
            spoke: false,
            clock: Duration::ZERO,
            turn_began: Duration::ZERO,
            shard,
            outside,
            fence,
            is_fence_open: true,
            leased: 0,
            epoch,
            rooms: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            wakes: BinaryHeap::new(),
            dirty: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Reads the clock. Between two readings time stands still: one call after another is measured from where the last one ended.
    fn now_us(&mut self) -> u64 {
        self.clock = self.epoch.elapsed();
        self.clock.as_micros() as u64
    }

    pub(super) fn run(mut self) {
        let _ = self.shard.thread.set(std::thread::current());
        let mut taken: Vec<Command> = Vec::new();
        while !self.shard.stop.load(Ordering::Acquire) {
            std::mem::swap(
                &mut taken,
                &mut *self.shard.inbox.lock().expect("no thread panics holding it"),
            );
            self.now_us();
            self.turn_began = self.clock;
            if taken.is_empty() {
                self.look_at_fence();
                self.run_due();
                self.flush();
                self.sleep();
                continue;
            }
            self.look_at_fence();
            for (index, command) in taken.drain(..).enumerate() {
                if index % SLICE == 0 || self.is_turn_over() {
                    self.run_due();
                }
                if index % PASS == PASS - 1 || self.is_turn_over() {
                    self.flush();
                }
                self.command(command);
            }
            self.run_due();
            self.flush();
        }
    }

    /// As far as the clock was read.
    fn is_turn_over(&self) -> bool {
        self.clock.saturating_sub(self.turn_began) >= TURN
    }

    /// Asks the clock only where somebody is concerned.
    fn look_at_fence(&mut self) {
        if self.leased > 0 {
            self.is_fence_open = self.fence.is_open();
        }
    }

    /// Whether the room stands still: the lease has lapsed, and what it says now may not be heard.
    fn is_held(&self, slot: usize) -> bool {
        let owned = self.rooms.get(slot).and_then(Option::as_ref);
        owned.is_some_and(|owned| owned.frozen.is_some() || (owned.room.config().leased && !self.is_fence_open))
    }

    fn sleep(&mut self) {
        self.shard.asleep.store(true, Ordering::Release);
        let waits = !self.shard.inbox.lock().expect("no thread panics holding it").is_empty()
            || self.shard.stop.load(Ordering::Acquire);
        if waits {
            self.shard.asleep.store(false, Ordering::Release);
            return;
        }
        match self.wakes.peek().copied() {
            Some(Reverse((due_us, _))) => {
                let now_us = self.now_us();
                if due_us > now_us {
                    std::thread::park_timeout(Duration::from_micros(due_us - now_us));
                }
            }
            None => std::thread::park(),
        }
        self.shard.asleep.store(false, Ordering::Release);
    }

    /// Wakes the rooms whose time has come, in the order in which it came, until the turn is over; one in any case.
    fn run_due(&mut self) {
        let mut is_first = true;
        loop {
            let now_us = self.now_us();
            if !std::mem::take(&mut is_first) && self.is_turn_over() {
                return;
            }
            match self.wakes.peek() {
                Some(Reverse((due_us, _))) if *due_us <= now_us => {}
                Some(_) | None => return,
            }
            let Some(Reverse((due_us, slot))) = self.wakes.pop() else {
                return;
            };
            match self.rooms.get_mut(slot) {
                Some(Some(owned)) if owned.wake_us == Some(due_us) => owned.wake_us = None,
                Some(_) | None => continue,
            }
            // Its wake-up is set again when the lease holds again.
            if !self.is_held(slot) {
                let (epoch, until) = (self.epoch, self.clock + TURN);
                let has_time = || epoch.elapsed() < until;
                self.step_room(slot, |room, now_ms, out| room.wake(now_ms, has_time, out));
                self.give_waiting(slot);
            }
        }
    }

    /// Steps a room that is in the middle of nothing, and does what it says at once.
    fn in_room<T>(&mut self, slot: usize, step: impl FnOnce(&mut Room, u64, &mut Vec<RoomEffect>) -> T) -> Option<T> {
        self.step_room(slot, |room, now_ms, out| {
            room.finish_busy(now_ms, out);
            step(room, now_ms, out)
        })
    }

    /// The same of one that may be: for what causes no event of its match, or goes on with what is under way.
    fn step_room<T>(&mut self, slot: usize, step: impl FnOnce(&mut Room, u64, &mut Vec<RoomEffect>) -> T) -> Option<T> {
        let began = self.clock;
        let owned = self.rooms.get_mut(slot)?.as_mut()?;
        let now_ms = owned.match_ms(began.as_micros() as u64);
        let mut effects = std::mem::take(&mut self.effects);
        let result = step(&mut owned.room, now_ms, &mut effects);
        if !owned.dirty {
            owned.dirty = true;
            self.dirty.push(slot);
        }
        let counts = owned.room.take_counts();
        self.clock = self.epoch.elapsed();
        if counts.events > 0 {
            let took = (self.clock - began) / counts.events as u32;
            (0..counts.events).for_each(|_| owned.metrics.event(took));
            owned.longest = owned.longest.max(took);
            (0..counts.undone).for_each(|_| owned.metrics.undo_seconds.observe(took.as_secs_f64()));
            owned.metrics.ticks_late.inc_by(counts.ticks_late);
            if let Some(late_ms) = counts.tick_late_ms {
                owned.metrics.tick_began(late_ms);
            }
            owned.metrics.log_dropped.inc_by(counts.log_dropped);
            if counts.rest > Duration::ZERO {
                let module = owned.room.game().part().start().digest;
                let rest = self.shard.debts().add(module, counts.rest, self.clock);
                owned.room.rest(now_ms, rest);
                owned.metrics.rest_seconds.observe(rest.as_secs_f64());
            }
            if owned.room.took(self.clock - began) {
                let since = self.clock;
                owned.room.renew_base();
                // What that took is not the next event's.
                self.clock = self.epoch.elapsed();
                owned.room.base_took(self.clock - since);
            }
        }
        if !effects.is_empty() {
            self.perform(slot, &mut effects);
        }
        self.effects = effects;
        Some(result)
    }

    fn perform(&mut self, slot: usize, effects: &mut Vec<RoomEffect>) {
        let Some(Some(owned)) = self.rooms.get_mut(slot) else {
            return;
        };
        let (target, epoch) = (owned.room.id(), owned.room.epoch());
        let released = owned.room.is_open();
        let module: Arc<str> = owned.room.module().into();
        for effect in effects.drain(..) {
            match effect {
                RoomEffect::Perform { id, effect } => {
                    let request = effect.request();
                    let wanted = EffectOf {
                        target,
                        epoch,
                        module: Arc::clone(&module),
                        id,
                        effect,
                    };
                    if owned.frozen.is_some() || (owned.room.config().leased && !self.fence.is_open()) {
                        owned.held.push(wanted);
                    } else if !self.outside.perform(wanted) {
                        let answer = request.map(|request| (request, Err("busy".to_owned())));
                        self.shard.push_always(Command::Answer { target, id, answer });
                    }
                }
                RoomEffect::Save(saved) => {
                    let save = Save {
                        id: target,
                        epoch,
                        incarnation: owned.room.game().part().start().incarnation.into(),
                        event: saved.event,
                        saved_by: owned.room.config().version.to_string(),
                        state: saved.state,
                        part: saved.part,
                    };
                    if !self.outside.save(save) {
                        let written = false;
                        self.shard.push_always(Command::Saved { target, epoch, written });
                    }
                }
                RoomEffect::Find { name } => self.outside.find(target, name),
                // What a lapsed lease or an upgrade holds back is said again when it holds.
                RoomEffect::Letter(_) | RoomEffect::Receipt { .. } | RoomEffect::Call { .. }
                    if owned.frozen.is_some() || (owned.room.config().leased && !self.fence.is_open()) => {}
                RoomEffect::Letter(letter) => {
                    let number = letter.number;
                    if self.outside.post(*letter) {
                        owned.room.carried(number);
                    }
                }
                RoomEffect::Receipt { to, receipt } => self.outside.receipt(&to, receipt),
                RoomEffect::Call { to, from, session } => {
                    let arrived = Down::Arrived {
                        target,
                        epoch,
                        from,
                        session,
                    };
                    // Lost with a full queue: it is said again.
                    self.spoke = true;
                    self.outside.down(self.lane, &to, arrived);
                }
                // A match that was never released has no row that says `running`: its creator hears of it.
                RoomEffect::Over(verdict) if released => self.outside.over(target, epoch, verdict),
                RoomEffect::Over(_) => {}
                RoomEffect::Seated { player } => self.outside.seated(target, player),
                RoomEffect::Log { level, line } => self.outside.logged(target, &module, level, line),
                RoomEffect::Keep(taken) => self.outside.keep(target, *taken),
                RoomEffect::Failure(failure) => self.outside.failed(target, &module, &failure),
            }
        }
    }

    fn slot(&self, target: MatchId) -> Option<usize> {
        self.by_id.get(&target).copied()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Create { new, reply } => {
                let _ = reply.send(self.create(*new));
            }
            Command::Release { target } => self.release(target),
            Command::Mail { target, mail } => self.mail(target, mail),
            Command::MailAgain => {
                let posts = |owned: &Owned| !owned.room.game().part().posted().is_empty();
                for slot in 0..self.rooms.len() {
                    if self.rooms[slot].as_ref().is_some_and(posts) {
                        self.tell_room(slot, RoomCommand::Mail(MailCommand::Again));
                    }
                }
            }
            Command::Saved { target, epoch, written } => {
                if let Some(slot) = self.slot(target) {
                    self.step_room(slot, |room, _, _| {
                        if room.epoch() == epoch {
                            room.saved(written);
                        }
                    });
                }
            }
            Command::SaveAll { reply } => {
                let mut saves = 0;
                self.in_every_room(|room, now_ms, out| {
                    let waiting = out.len();
                    room.save_last(now_ms, out);
                    saves += usize::from(out.len() > waiting);
                });
                let _ = reply.send(saves);
            }
            Command::Lifted => self.lifted(),
            Command::Up { from, up } => self.up(from, up),
            Command::GatewayGone { node, generation } => self.tell_rooms(|| RoomCommand::GatewayGone {
                node: node.clone(),
                generation,
            }),
            Command::LinkLost { node } => self.tell_rooms(|| RoomCommand::LinkLost { node: node.clone() }),
            Command::Writable { node } => self.tell_rooms(|| RoomCommand::Writable { node: node.clone() }),
            Command::ContentChanged { collection, key } => {
                for slot in 0..self.rooms.len() {
                    // It is a hint, which a match that is being handed over may miss.
                    let has_read = |owned: &Owned| owned.frozen.is_none() && owned.room.has_read(&collection);
                    if self.rooms[slot].as_ref().is_some_and(has_read) {
                        self.in_room(slot, |room, now_ms, out| {
                            room.content_changed(now_ms, &collection, &key, out);
                        });
                    }
                }
            }
            Command::Answer { target, id, answer } => {
                if let Some(slot) = self.slot(target) {
                    self.tell_room(slot, RoomCommand::Answer { id, answer });
                }
            }
            Command::View { target, reply } => {
                let view = self
                    .slot(target)
                    .and_then(|slot| self.rooms[slot].as_mut())
                    .map(Owned::view);
                let _ = reply.send(view);
            }
            Command::TakeDown { target, reply } => {
                let owned = self.slot(target).and_then(|slot| self.rooms[slot].as_mut());
                let _ = reply.send(owned.map(|owned| owned.room.take_down()));
            }
            Command::Seats { target, player, reply } => {
                let seats = self
                    .slot(target)
                    .and_then(|slot| self.rooms[slot].as_ref())
                    .filter(|owned| owned.room.is_open())
                    .map(|owned| {
                        let part = owned.room.game().part();
                        Seats {
                            players: part.human_count() as u32,
                            is_seated: player.is_some_and(|player| part.seat_of(player).is_some()),
                        }
                    });
                let _ = reply.send(seats);
            }
            Command::Standing { target, player, reply } => {
                // One that is being handed over, or whose lease has lapsed, may go on elsewhere by now: it knows only who was there.
                let slot = self.slot(target).filter(|slot| !self.is_held(*slot));
                let standing = slot
                    .and_then(|slot| self.rooms[slot].as_ref())
                    .filter(|owned| owned.room.is_open())
                    .map(|owned| owned.room.standing_of(player));
                let _ = reply.send(standing);
            }
            Command::End { target, reason, reply } => match self.slot(target) {
                Some(slot) => self.tell_room(slot, RoomCommand::End { reason, reply }),
                None => drop(reply.send(false)),
            },
            Command::Kick {
                target,
                player,
                reason,
                reply,
            } => match self.slot(target) {
                Some(slot) => self.tell_room(slot, RoomCommand::Kick { player, reason, reply }),
                None => drop(reply.send(false)),
            },
            Command::Freeze { target, reply } => {
                let frozen = self.slot(target).and_then(|slot| self.freeze(slot));
                let _ = reply.send(frozen);
            }
            Command::Thaw { target, epoch } => {
                if let Some(slot) = self.slot(target) {
                    self.thaw(slot, epoch);
                }
            }
            Command::Upgrade { target, module, reply } => {
                let upgraded = self.slot(target).map(|slot| self.upgrade(slot, &module));
                let _ = reply.send(upgraded.unwrap_or_else(|| Err(not_now())));
            }
            Command::Drop { target, epoch } => {
                let is_older = |owned: &Owned| owned.room.epoch() <= epoch;
                if let Some(slot) = self.slot(target)
                    && self.rooms[slot].as_ref().is_some_and(is_older)
                {
                    self.drop_room(slot);
                }
            }
        }
    }

    fn mail(&mut self, target: MatchId, mail: MailCommand) {
        let slot = self.slot(target);
        // Of a match whose lease has lapsed another node may be the owner: it hears nothing until it is sure.
        let hears =
            |slot: &usize| !self.is_held(*slot) && self.rooms[*slot].as_ref().is_some_and(|owned| owned.room.is_open());
        match (slot, mail) {
            (slot, MailCommand::Letter { from, letter }) => match slot.filter(hears) {
                Some(slot) => self.tell_room(slot, RoomCommand::Mail(MailCommand::Letter { from, letter })),
                None => self.outside.not_here(&from, &letter),
            },
            (Some(slot), mail) => self.tell_room(slot, RoomCommand::Mail(mail)),
            // It was said for a match that is elsewhere now, or over: who goes on with it asks again.
            (None, _) => {}
        }
    }

    fn tell_rooms(&mut self, command: impl Fn() -> RoomCommand) {
        for slot in 0..self.rooms.len() {
            self.tell_room(slot, command());
        }
    }

    /// Gives a room what is for it, or keeps it while the match is being handed over, or is in the middle of something.
    fn tell_room(&mut self, slot: usize, command: RoomCommand) {
        let Some(Some(owned)) = self.rooms.get_mut(slot) else {
            return;
        };
        let is_end = matches!(command, RoomCommand::End { .. });
        let has_to_wait = owned.has_to_wait(self.clock);
        let waiting = match &mut owned.frozen {
            Some(frozen) => Some(frozen),
            // Of a match that is to end nothing needs to be finished.
            None if is_end => None,
            None if has_to_wait || !owned.waiting.is_empty() => Some(&mut owned.waiting),
            None => None,
        };
        if let Some(waiting) = waiting {
            // The messages of gateways are said again; the rest is bounded by what there is.
            let is_said_again = matches!(
                command,
                RoomCommand::Up { .. } | RoomCommand::Mail(MailCommand::Letter { .. } | MailCommand::Receipt { .. })
            );
            if waiting.len() < WAITING_MAX || !is_said_again {
                waiting.push_back(command);
            }
            return;
        }
        self.give(slot, command);
    }

    /// Gives a room what came while it was in the middle of something, as long as the turn is not over and it is in the middle of nothing.
    fn give_waiting(&mut self, slot: usize) {
        while !self.is_turn_over() {
            let Some(Some(owned)) = self.rooms.get_mut(slot) else {
                return;
            };
            if owned.has_to_wait(self.clock) || owned.frozen.is_some() {
                return;
            }
            let Some(command) = owned.waiting.pop_front() else {
                return;
            };
            self.give(slot, command);
        }
    }

    fn give(&mut self, slot: usize, command: RoomCommand) {
        match command {
            RoomCommand::Up { from, up } => {
                self.in_room(slot, |room, now_ms, out| room.up(now_ms, &from, up, out));
            }
            RoomCommand::Answer { id, answer } => {
                self.in_room(slot, |room, now_ms, out| room.answer(now_ms, id, answer, out));
            }
            RoomCommand::Mail(mail) => {
                self.in_room(slot, |room, now_ms, out| match mail {
                    MailCommand::Letter { from, letter } => room.letter(now_ms, &from, *letter, out),
                    MailCommand::Receipt { from, receipt } => room.receipt(now_ms, &from, receipt, out),
                    MailCommand::Found { name, found } => room.found(now_ms, &name, found, out),
                    MailCommand::Gone { to, absence } => room.target_gone(now_ms, to, absence, out),
                    MailCommand::NotHeard { number } => room.not_heard(number),
                    MailCommand::Again => room.mail_again(now_ms, out),
                });
            }
            RoomCommand::GatewayGone { node, generation } => {
                self.in_room(slot, |room, now_ms, out| {
                    room.gateway_gone(now_ms, &node, generation, out)
                });
            }
            RoomCommand::LinkLost { node } => {
                self.in_room(slot, |room, _, _| room.link_lost(&node));
            }
            RoomCommand::Writable { node } => {
                self.in_room(slot, |room, now_ms, out| room.writable(now_ms, &node, out));
            }
            RoomCommand::End { reason, reply } => {
                let found = self.step_room(slot, |room, now_ms, out| room.end(now_ms, reason, out));
                let _ = reply.send(found.is_some());
            }
            RoomCommand::Kick { player, reason, reply } => {
                let found = self.in_room(slot, |room, now_ms, out| room.kick(now_ms, player, &reason, out));
                let _ = reply.send(found.unwrap_or(false));
            }
        }
    }

    fn freeze(&mut self, slot: usize) -> Option<Frozen> {
        // What was said before goes out first: nothing does afterwards.
        self.flush();
        let owned = self.rooms.get(slot)?.as_ref()?;
        if owned.frozen.is_some() || self.is_held(slot) {
            return None;
        }
        let (epoch, version) = (owned.room.epoch(), Arc::clone(&owned.room.config().version));
        let room = self.in_room(slot, |room, now_ms, out| room.hand_over(now_ms, out))??;
        let owned = self.rooms.get_mut(slot)?.as_mut()?;
        owned.frozen = Some(std::mem::take(&mut owned.waiting));
        Some(Frozen { epoch, version, room })
    }

    fn thaw(&mut self, slot: usize, epoch: u64) {
        let Some(Some(owned)) = self.rooms.get_mut(slot) else {
            return;
        };
        let Some(waiting) = owned.frozen.take() else { return };
        self.step_room(slot, |room, _, _| room.stay(epoch));
        self.perform_held(slot);
        // Its mail was held back too.
        self.tell_room(slot, RoomCommand::Mail(MailCommand::Again));
        waiting.into_iter().for_each(|command| self.tell_room(slot, command));
    }

    /// Puts another version of the module under a match. It is frozen first: what the new version asks for waits with what comes.
    fn upgrade(&mut self, slot: usize, module: &Module) -> Result<u64, Refusal> {
        self.flush();
        let is_held = self.is_held(slot);
        let Some(Some(owned)) = self.rooms.get_mut(slot).filter(|_| !is_held) else {
            return Err(not_now());
        };
        let epoch = owned.room.epoch();
        owned.frozen = Some(std::mem::take(&mut owned.waiting));
        owned.listing = None;
        let upgraded = self.in_room(slot, |room, now_ms, out| room.upgrade(now_ms, module, out));
        if let Some(Err(reason)) = upgraded {
            self.thaw(slot, epoch);
            let refusal = Refusal::new(
                ErrorCode::MatchRefused,
                "the match stays with its version of the module",
            );
            return Err(refusal.with("reason", reason));
        }
        Ok(epoch)
    }

    fn in_every_room(&mut self, mut step: impl FnMut(&mut Room, u64, &mut Vec<RoomEffect>)) {
        for slot in 0..self.rooms.len() {
            self.in_room(slot, &mut step);
        }
    }

    fn create(&mut self, new: NewMatch) -> Result<(), Refusal> {
        let NewMatch {
            module,
            origin,
            config,
            metrics,
        } = new;
        let target = origin.start().match_id;
        if let Some(slot) = self.slot(target) {
            let epoch = self.rooms[slot].as_ref().map_or(0, |owned| owned.room.epoch());
            if epoch >= config.epoch {
                return Ok(());
            }
            // Ours of an earlier epoch: another had it meanwhile, or we begin it anew.
            self.forget(slot);
        }
        let name = origin.start().module.clone();
        let (part, load) = match origin {
            Origin::Start(start) => (HostPart::new(*start), None),
            Origin::Saved(restored) => {
                let Restored {
                    why,
                    saved_by,
                    state,
                    part,
                    streams,
                } = *restored;
                (part, Some((why, saved_by, state, streams)))
            }
        };
        let game = Match::restore(&module, part).map_err(|failure| {
            self.outside.not_created(target, &name, &failure);
            Refusal::new(ErrorCode::ModuleInvalid, "the match could not be created").with("reason", failure.message)
        })?;
        let began_ms = game.part().now_ms();
        let leased = config.leased;
        let room = Room::new(game, config);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(None);
            self.rooms.len() - 1
        });
        let origin_us = self.now_us() as i64 - began_ms as i64 * 1_000;
        metrics.owned.inc();
        self.leased += usize::from(leased);
        self.rooms[slot] = Some(Owned {
            room,
            origin_us,
            held: Vec::new(),
            frozen: None,
            waiting: VecDeque::new(),
            wake_us: None,
            dirty: false,
            listing: None,
            longest: Duration::ZERO,
            metrics,
        });
        self.by_id.insert(target, slot);
        self.shard.owned.fetch_add(1, Ordering::Relaxed);
        let started = self
            .in_room(slot, |room, now_ms, out| match load {
                None => room.start(now_ms, out),
                Some((why, saved_by, state, streams)) => {
                    room.take_streams(streams);
                    room.load(now_ms, why, saved_by, state, out)
                }
            })
            .unwrap_or_else(|| Err(busy()));
        if started.is_err() {
            self.forget(slot);
        }
        started
    }

    fn release(&mut self, target: MatchId) {
        if let Some(slot) = self.slot(target) {
            // A match that finished in `start` has its end to tell now.
            let verdict = self.in_room(slot, |room, now_ms, out| {
                room.release(now_ms, out);
                room.verdict().cloned().map(|verdict| (room.epoch(), verdict))
            });
            if let Some(Some((epoch, verdict))) = verdict {
                self.outside.over(target, epoch, verdict);
            }
        }
    }

    fn up(&mut self, from: NodeLife, up: Up) {
        let slot = self
            .slot(up.target)
            .filter(|slot| self.rooms[*slot].as_ref().is_some_and(|owned| owned.room.is_open()));
        match slot {
            // The gateway keeps what has a number, and says it again.
            Some(slot) if self.is_held(slot) => self.hold_up(slot, from, up),
            Some(slot) => self.tell_room(slot, RoomCommand::Up { from, up }),
            None => {
                // Lost with a full queue: the gateway asks again.
                self.spoke = true;
                self.outside.down(
                    self.lane,
                    &from,
                    Down::NotHere {
                        target: up.target,
                        stream: up.stream,
                        epoch: 0,
                    },
                );
            }
        }
    }

    /// Keeps a message for a match that is being handed over. One whose lease has lapsed hears nothing.
    fn hold_up(&mut self, slot: usize, from: NodeLife, up: Up) {
        if self.rooms[slot].as_ref().is_some_and(|owned| owned.frozen.is_some()) {
            self.tell_room(slot, RoomCommand::Up { from, up });
        }
    }

    /// Sends what the rooms have to say, notes what changed in lists, and sets their next wake-ups.
    fn flush(&mut self) {
        if self.dirty.is_empty() {
            if std::mem::take(&mut self.spoke) {
                self.outside.flushed(self.lane);
            }
            self.turn_began = self.clock;
            return;
        }
        self.spoke = false;
        // The moment of release: whatever the clock said when these words were made, it is asked again.
        self.look_at_fence();
        let now_us = self.now_us();
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some(Some(owned)) = self.rooms.get_mut(slot) else {
                continue;
            };
            owned.dirty = false;
            if owned.frozen.is_some() || (owned.room.config().leased && !self.is_fence_open) {
                owned.wake_us = None;
                continue;
            }
            let (lane, outside) = (self.lane, &self.outside);
            owned
                .room
                .flush(|gateway, frame: DownFrame| outside.down(lane, gateway, Down::Frame(frame)));
            if owned.room.is_open() {
                let stands = owned
                    .listing
                    .as_ref()
                    .is_some_and(|listed| owned.room.is_listed_as(listed.as_ref()));
                if !stands {
                    let listed = owned.room.listing();
                    let start = owned.room.game().part().start();
                    let listing = Listing {
                        epoch: owned.room.epoch(),
                        module: start.module.clone(),
                        listed: listed.clone(),
                        digest: start.digest,
                        quick: start.quick_play,
                        leased: owned.room.config().leased,
                    };
                    let over = owned.room.verdict().is_some();
                    let epoch = listing.epoch;
                    let before = {
                        let mut listings = self.shard.listings();
                        match over {
                            true => listings.remove(&start.match_id),
                            false => listings.insert(start.match_id, listing),
                        }
                    };
                    match (over, before) {
                        (true, Some(_)) => self.outside.gone(start.match_id),
                        (false, before) if before.as_ref().is_none_or(|before| before.epoch != epoch) => {
                            let incarnation = start.incarnation.into();
                            let under = Under { epoch, incarnation };
                            self.outside.here(start.match_id, under, start.name.as_deref());
                        }
                        (true, None) | (false, _) => {}
                    }
                    owned.listing = Some(listed);
                }
            }
            if owned.room.is_done(owned.match_ms(now_us)) {
                self.forget(slot);
                continue;
            }
            // One that has more to do than a turn takes goes behind all whose time has come: what it is late with is its own affair.
            let wake_us = owned.wake_us().map(|wake_us| wake_us.max(now_us));
            if wake_us != owned.wake_us {
                owned.wake_us = wake_us;
                if let Some(wake_us) = wake_us {
                    self.wakes.push(Reverse((wake_us, slot)));
                }
            }
        }
        self.dirty = dirty;
        self.outside.flushed(self.lane);
        self.now_us();
        self.turn_began = self.clock;
    }

    /// The lease holds again: what was held back goes out, and wake-ups are set.
    fn lifted(&mut self) {
        self.look_at_fence();
        for slot in 0..self.rooms.len() {
            let Some(Some(owned)) = self.rooms.get_mut(slot) else {
                continue;
            };
            if !owned.room.config().leased || owned.frozen.is_some() {
                continue;
            }
            if !owned.dirty {
                owned.dirty = true;
                self.dirty.push(slot);
            }
            self.perform_held(slot);
        }
    }

    fn perform_held(&mut self, slot: usize) {
        let Some(Some(owned)) = self.rooms.get_mut(slot) else {
            return;
        };
        let held = owned.held.drain(..);
        let mut held: Vec<RoomEffect> = held
            .map(|EffectOf { id, effect, .. }| RoomEffect::Perform { id, effect })
            .collect();
        self.perform(slot, &mut held);
    }

    /// Forgets the match, and tells who listens that it is not here any more.
    fn drop_room(&mut self, slot: usize) {
        let Some(owned) = self.rooms[slot].as_ref() else { return };
        let (target, epoch) = (owned.room.id(), owned.room.epoch());
        let mut told: BTreeSet<(&NodeLife, u64)> = owned.room.gateways().collect();
        for command in owned.frozen.iter().flatten().chain(&owned.waiting) {
            if let RoomCommand::Up { from, up } = command {
                told.insert((from, up.stream));
            }
        }
        for (gateway, stream) in told {
            // Lost with a full queue: the gateway hears it when it asks next.
            self.outside
                .down(self.lane, gateway, Down::NotHere { target, stream, epoch });
        }
        self.spoke = true;
        self.forget(slot);
    }

    fn forget(&mut self, slot: usize) {
        let Some(owned) = self.rooms[slot].take() else { return };
        self.leased -= usize::from(owned.room.config().leased);
        let target = owned.room.id();
        self.by_id.remove(&target);
        self.free.push(slot);
        if self.shard.listings().remove(&target).is_some() {
            self.outside.gone(target);
        }
        self.shard.owned.fetch_sub(1, Ordering::Relaxed);
        owned.metrics.owned.dec();
    }
}

fn not_now() -> Refusal {
    let message = "the match is not here, or being moved or upgraded, or its lease has lapsed";
    Refusal::new(ErrorCode::Unavailable, message)
}

/// A room and what the thread notes of it.
struct Owned {
    room: Room,
    /// Node time at which the match's time was 0, in microseconds since `epoch`; before it for a match that began elsewhere.
    origin_us: i64,
    /// What the match asked for while the lease had lapsed.
    held: Vec<EffectOf>,
    /// What came for it while it is being handed over; none while it is not.
    frozen: Option<VecDeque<RoomCommand>>,
    /// What came for it while its last event was not at its end, or while it rested; empty while it is frozen.
    waiting: VecDeque<RoomCommand>,
    /// The wake-up in the heap that counts; others are stale.
    wake_us: Option<u64>,
    dirty: bool,
    listing: Option<Option<ListedMatch>>,
    /// The longest that an event has taken here.
    longest: Duration,
    metrics: ModuleMetrics,
}

impl Owned {
    fn view(&mut self) -> MatchView {
        let mut view = self.room.view();
        if let Some(usage) = &mut view.usage {
            let limit_us = self.room.game().part().start().limits.call_cpu_us;
            let longest = Budget::new("call_us", self.longest.as_micros() as u64, limit_us);
            usage.budgets.push(longest);
        }
        view
    }

    /// Whether what comes for the match has to wait: it is in the middle of something, or rests.
    fn has_to_wait(&self, clock: Duration) -> bool {
        self.room.is_busy() || self.room.rests(self.match_ms(clock.as_micros() as u64))
    }

    fn match_ms(&self, now_us: u64) -> u64 {
        (now_us as i64).saturating_sub(self.origin_us).max(0) as u64 / 1_000
    }

    fn wake_us(&self) -> Option<u64> {
        let wake_ms = match self.waiting.is_empty() {
            true => self.room.next_wake_ms()?,
            false => self.room.rests_until_ms(),
        };
        Some((self.origin_us + wake_ms as i64 * 1_000).max(0) as u64)
    }
}
