//! The arena itself: who is where, what is taken, who bumps into whom. It knows neither bytes nor the server; time and chance are
//! given. Movers are kept by seat and pellets by place, so that the same steps always give the same world.

use std::collections::BTreeMap;

use rookery_sdk::Seat;
use rookery_sdk::context::Random;

pub(crate) const WIDTH: u16 = 1_000;
pub(crate) const HEIGHT: u16 = 600;

const PELLETS: usize = 12;
const MOVER_RADIUS: f32 = 16.0;
const PELLET_RADIUS: f32 = 7.0;
const SPEED_PER_S: f32 = 220.0;
const DASH_FACTOR: f32 = 2.6;
const DASH_MS: u32 = 220;
/// From the start of a dash to the next one.
const DASH_AGAIN_MS: u32 = 1_400;
/// Two movers that stay close bump once in this time, not 20 times a second.
const BUMP_AGAIN_MS: u64 = 500;
/// How far two movers that bump are pushed apart beyond touching.
const BUMP_PUSH: f32 = 10.0;
/// A match that slept (a take-over, a slow machine) goes on with one ordinary step and not with a leap through its walls.
const STEP_MS_MAX: u32 = 200;

/// A point in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) x: f32,
    pub(crate) y: f32,
}

impl Place {
    pub(crate) fn rounded(self) -> (u16, u16) {
        (self.x.round() as u16, self.y.round() as u16)
    }

    pub(crate) fn distance(self, other: Self) -> f32 {
        let (x, y) = (self.x - other.x, self.y - other.y);
        (x * x + y * y).sqrt()
    }

    fn random(random: &mut Random<'_>) -> Self {
        let margin = 2.0 * MOVER_RADIUS;
        let along = |size: u16, unit: f64| margin + unit as f32 * (f32::from(size) - 2.0 * margin);
        Self {
            x: along(WIDTH, random.unit()),
            y: along(HEIGHT, random.unit()),
        }
    }

    fn inside(self) -> Self {
        Self {
            x: self.x.clamp(MOVER_RADIUS, f32::from(WIDTH) - MOVER_RADIUS),
            y: self.y.clamp(MOVER_RADIUS, f32::from(HEIGHT) - MOVER_RADIUS),
        }
    }
}

/// Who moves.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    pub(crate) seat: Seat,
    pub(crate) is_bot: bool,
    pub(crate) place: Place,
    pub(crate) hue: u8,
    pub(crate) score: u16,
    /// Where to and how fast: at most length 1.
    heading: (f32, f32),
    /// What is left of the dash, and of the wait for the next one.
    dash_ms: u32,
    dash_again_ms: u32,
    /// A bot goes on until then before it thinks again.
    pub(crate) decided_until_ms: u64,
}

impl Mover {
    pub(crate) fn is_dashing(&self) -> bool {
        self.dash_ms > 0
    }

    /// Steers to a direction of any length; longer than 1 counts as 1.
    pub(crate) fn head(&mut self, x: f32, y: f32) {
        let length = (x * x + y * y).sqrt();
        let scale = if length > 1.0 { 1.0 / length } else { 1.0 };
        self.heading = (x * scale, y * scale);
    }
}

/// What the players should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Scored { seat: Seat, score: u16 },
    Bumped { a: Seat, b: Seat },
}

#[derive(Debug)]
pub(crate) struct World {
    movers: BTreeMap<Seat, Mover>,
    pellets: Vec<Place>,
    /// When two movers may bump again.
    bump_again_ms: BTreeMap<(Seat, Seat), u64>,
    /// Something changed since the last step, though nobody moved.
    touched: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            movers: BTreeMap::new(),
            pellets: Vec::new(),
            bump_again_ms: BTreeMap::new(),
            touched: false,
        }
    }

    /// Lays the pellets out.
    pub(crate) fn scatter(&mut self, random: &mut Random<'_>) {
        self.pellets = (0..PELLETS).map(|_| Place::random(random)).collect();
    }

    pub(crate) fn movers(&self) -> impl ExactSizeIterator<Item = &Mover> + DoubleEndedIterator {
        self.movers.values()
    }

    pub(crate) fn movers_mut(&mut self) -> impl Iterator<Item = &mut Mover> {
        self.movers.values_mut()
    }

    pub(crate) fn pellets(&self) -> &[Place] {
        &self.pellets
    }

    pub(crate) fn enter(&mut self, seat: Seat, is_bot: bool, random: &mut Random<'_>) {
        let mover = Mover {
            seat,
            is_bot,
            place: Place::random(random),
            // Neighbouring seats differ clearly: a step of about 100 of 256 around the circle of hues.
            hue: (seat.0.wrapping_mul(97) % 256) as u8,
            score: 0,
            heading: (0.0, 0.0),
            dash_ms: 0,
            dash_again_ms: 0,
            decided_until_ms: 0,
        };
        self.movers.insert(seat, mover);
        self.touched = true;
    }

    /// Removes a mover; false when there was none.
    pub(crate) fn exit(&mut self, seat: Seat) -> bool {
        self.bump_again_ms.retain(|(a, b), _| *a != seat && *b != seat);
        self.movers.remove(&seat).is_some()
    }

    pub(crate) fn steer(&mut self, seat: Seat, dx: i8, dy: i8) {
        if let Some(mover) = self.movers.get_mut(&seat) {
            mover.head(f32::from(dx) / 127.0, f32::from(dy) / 127.0);
        }
    }

    pub(crate) fn dash(&mut self, seat: Seat) {
        if let Some(mover) = self.movers.get_mut(&seat).filter(|mover| mover.dash_again_ms == 0) {
            mover.dash_ms = DASH_MS;
            mover.dash_again_ms = DASH_AGAIN_MS;
            self.touched = true;
        }
    }

    pub(crate) fn paint(&mut self, seat: Seat, hue: u8) {
        if let Some(mover) = self.movers.get_mut(&seat) {
            mover.hue = hue;
            self.touched = true;
        }
    }

    /// Lets time pass; true when anything looks different afterwards.
    pub(crate) fn step(
        &mut self,
        now_ms: u64,
        elapsed_ms: u32,
        random: &mut Random<'_>,
        happenings: &mut Vec<Happening>,
    ) -> bool {
        let elapsed_ms = elapsed_ms.min(STEP_MS_MAX);
        let mut changed = std::mem::take(&mut self.touched);
        for mover in self.movers.values_mut() {
            changed |= mover.advance(elapsed_ms);
        }
        changed |= self.bump(now_ms, happenings);
        changed |= self.take_pellets(random, happenings);
        changed
    }

    /// Pushes movers that touch apart.
    fn bump(&mut self, now_ms: u64, happenings: &mut Vec<Happening>) -> bool {
        let mut moved = false;
        let seats: Vec<Seat> = self.movers.keys().copied().collect();
        for (index, a) in seats.iter().enumerate() {
            for b in &seats[index + 1..] {
                let (at_a, at_b) = (self.movers[a].place, self.movers[b].place);
                let distance = at_a.distance(at_b);
                if distance >= 2.0 * MOVER_RADIUS {
                    continue;
                }
                // On the very same spot there is no direction: apart along x, the lower seat to the left.
                let (x, y) = if distance > 0.0 {
                    ((at_b.x - at_a.x) / distance, (at_b.y - at_a.y) / distance)
                } else {
                    (1.0, 0.0)
                };
                let push = (2.0 * MOVER_RADIUS - distance + BUMP_PUSH) / 2.0;
                for (seat, sign) in [(a, -push), (b, push)] {
                    if let Some(mover) = self.movers.get_mut(seat) {
                        mover.place = Place {
                            x: mover.place.x + x * sign,
                            y: mover.place.y + y * sign,
                        }
                        .inside();
                    }
                }
                moved = true;
                let again_ms = self.bump_again_ms.entry((*a, *b)).or_insert(0);
                if now_ms >= *again_ms {
                    *again_ms = now_ms + BUMP_AGAIN_MS;
                    happenings.push(Happening::Bumped { a: *a, b: *b });
                }
            }
        }
        moved
    }

    /// Gives each pellet that somebody touches to the nearest mover, and lays another one.
    fn take_pellets(&mut self, random: &mut Random<'_>, happenings: &mut Vec<Happening>) -> bool {
        let mut taken = false;
        for pellet in &mut self.pellets {
            let reach = MOVER_RADIUS + PELLET_RADIUS;
            let nearest = self
                .movers
                .values_mut()
                .map(|mover| (mover.place.distance(*pellet), mover))
                .filter(|(distance, _)| *distance < reach)
                .min_by(|(left, _), (right, _)| left.total_cmp(right));
            if let Some((_, mover)) = nearest {
                mover.score = mover.score.saturating_add(1);
                happenings.push(Happening::Scored {
                    seat: mover.seat,
                    score: mover.score,
                });
                *pellet = Place::random(random);
                taken = true;
            }
        }
        taken
    }
}

impl Mover {
    /// Moves for this long; true when anything looks different afterwards.
    fn advance(&mut self, elapsed_ms: u32) -> bool {
        let (was_at, was_dashing) = (self.place, self.is_dashing());
        let speed = SPEED_PER_S * if was_dashing { DASH_FACTOR } else { 1.0 };
        let way = speed * elapsed_ms as f32 / 1_000.0;
        let place = Place {
            x: self.place.x + self.heading.0 * way,
            y: self.place.y + self.heading.1 * way,
        };
        self.place = place.inside();
        self.dash_ms = self.dash_ms.saturating_sub(elapsed_ms);
        self.dash_again_ms = self.dash_again_ms.saturating_sub(elapsed_ms);
        was_at.rounded() != self.place.rounded() || was_dashing != self.is_dashing()
    }
}
