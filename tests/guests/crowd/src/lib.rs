//! A match to be measured (`scripts/bench runtime`): a hundred movers, and as much memory as it is told to keep.
//!
//! A tick moves everyone and sends 1,200 bytes to all. The first byte of a message says what it is: `h` and a `u32` keeps so many KiB,
//! a quarter of them noise; `t` and a `u32` changes one byte in each of so many pages of 4 KiB; everything else comes back.

use rookery_sdk::prelude::*;

const MOVERS: usize = 100;
const SIDE: f32 = 1_000.0;
const PAGE: usize = 4 << 10;

struct Mover {
    x: f32,
    y: f32,
    dx: f32,
    dy: f32,
}

struct Crowd {
    movers: Vec<Mover>,
    kept: Vec<u8>,
    touches: u8,
}

impl Match for Crowd {
    fn manifest() -> Manifest {
        Manifest::binary("crowd").players(1..=10).tick_hz(10)
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        let mover = |n: usize| Mover {
            x: (n * 37 % 1_000) as f32,
            y: (n * 91 % 1_000) as f32,
            dx: (n % 7) as f32 - 3.0,
            dy: (n % 5) as f32 - 2.0,
        };
        Ok(Self {
            movers: (0..MOVERS).map(mover).collect(),
            kept: Vec::new(),
            touches: 0,
        })
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        match (input.first(), number(&input)) {
            (Some(b'h'), Some(kib)) => self.keep(kib),
            (Some(b't'), Some(pages)) => self.touch(pages),
            _ => ctx.send(from, &input),
        }
    }

    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        let seconds = elapsed_ms as f32 / 1_000.0;
        let mut told = [0; 12 * MOVERS];
        for (n, (mover, bytes)) in self.movers.iter_mut().zip(told.chunks_mut(12)).enumerate() {
            mover.step(seconds);
            bytes[..4].copy_from_slice(&(n as u32).to_le_bytes());
            bytes[4..8].copy_from_slice(&mover.x.to_le_bytes());
            bytes[8..].copy_from_slice(&mover.y.to_le_bytes());
        }
        ctx.send(To::Everyone, &told);
    }
}

impl Mover {
    fn step(&mut self, seconds: f32) {
        self.x += self.dx * seconds;
        self.y += self.dy * seconds;
        if !(0.0..SIDE).contains(&self.x) {
            self.dx = -self.dx;
        }
        if !(0.0..SIDE).contains(&self.y) {
            self.dy = -self.dy;
        }
    }
}

impl Crowd {
    fn keep(&mut self, kib: usize) {
        let mut noise = 1_u32;
        let byte = |at: usize| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match at / 1_024 % 4 {
                0 => (noise >> 24) as u8,
                _ => (at / 64) as u8,
            }
        };
        self.kept = (0..kib << 10).map(byte).collect();
    }

    fn touch(&mut self, pages: usize) {
        self.touches = self.touches.wrapping_add(1);
        for page in self.kept.chunks_mut(PAGE).take(pages) {
            page[usize::from(self.touches)] = self.touches;
        }
    }
}

/// What stands behind the first byte.
fn number(input: &[u8]) -> Option<usize> {
    let bytes = input.get(1..5)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes) as usize)
}

rookery_sdk::export!(Crowd);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_keeps_and_answers() {
        let mut host = mock::Host::<Crowd>::start(Vec::new()).unwrap();
        let ana = host.join("ana").unwrap();
        host.message(ana, b"echo".to_vec());
        host.message(ana, [&b"h"[..], &64_u32.to_le_bytes()].concat());
        host.message(ana, [&b"t"[..], &3_u32.to_le_bytes()].concat());
        assert_eq!(host.game().kept.len(), 64 << 10);
        assert_eq!(&host.heard(ana)[0][..], b"echo");
        host.tick();
        assert_eq!(host.heard(ana)[1].len(), 1_200);
    }
}
