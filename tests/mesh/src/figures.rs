//! Measured times, and how they are printed.

use std::fmt;

/// How many rows a histogram has.
const ROWS: u64 = 10;

/// Times in microseconds, in order.
#[derive(Debug, Clone)]
pub struct Figures(Vec<u64>);

impl Figures {
    /// # Panics
    /// When there is nothing to sum up.
    pub fn of(mut times_us: Vec<u64>) -> Self {
        assert!(!times_us.is_empty(), "something was measured");
        times_us.sort_unstable();
        Self(times_us)
    }

    /// The time that this share of all (0 to 1) did not exceed.
    pub fn at(&self, share: f64) -> u64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    pub fn max(&self) -> u64 {
        self.at(1.0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1_000.0;
        write!(
            f,
            "{} times, p50 {:.0} ms, p90 {:.0}, p99 {:.0}, max {:.0}",
            self.0.len(),
            ms(self.at(0.5)),
            ms(self.at(0.9)),
            ms(self.at(0.99)),
            ms(self.max())
        )?;
        let width = self.max() / ROWS + 1;
        for row in 0..ROWS {
            let range = row * width..(row + 1) * width;
            let count = self.0.iter().filter(|time| range.contains(time)).count();
            let bar = "#".repeat((count * 60).div_ceil(self.0.len()));
            write!(f, "\n    {:>7.0} ms {count:>5} {bar}", ms(range.end))?;
        }
        Ok(())
    }
}

/// Whether a test should run at the length that its promise is about, rather than at what every run of all tests can spend:
/// `ROOKERY_SCALE=full`.
pub fn full_scale() -> bool {
    std::env::var("ROOKERY_SCALE").is_ok_and(|scale| scale == "full")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_ranks() {
        let figures = Figures::of((1..=100).rev().collect());
        assert_eq!((figures.at(0.5), figures.at(0.99), figures.max()), (50, 99, 100));
        assert_eq!(Figures::of(vec![7]).at(0.5), 7);
    }
}
