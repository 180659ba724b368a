//! Values with a unit in them (`30s`, `64KiB`, `300/s burst 600`), and values that must not be shown. Each reads what it prints.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How often something may happen: a steady rate and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate such as `300/s burst 600`");
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) => (rate.trim(), Some(burst.trim())),
            None => (text.trim(), None),
        };
        let per_second: u32 = rate
            .strip_suffix("/s")
            .ok_or_else(wrong)?
            .trim()
            .parse()
            .map_err(|_| wrong())?;
        let burst: u32 = match burst {
            Some(burst) => burst.parse().map_err(|_| wrong())?,
            None => per_second,
        };
        if per_second == 0 || burst == 0 {
            return Err(format!(
                "`{text}` would refuse everything; the smallest rate is `1/s burst 1`"
            ));
        }
        Ok(Self { per_second, burst })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s burst {}", self.per_second, self.burst)
    }
}

/// A number of bytes: `64KiB`, `1MiB`, or a plain count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size as a length in memory; `usize::MAX` where the machine's words are too small for it.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err(format!("`{text}` is not a size such as `64KiB`")),
        }
    }
}

impl fmt::Display for Size {
    /// In the largest unit that gives a whole number, so that it reads back as the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// The longest duration: a hundred years of 365 days. One that is much longer could be read and not be printed.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Reads `30s`, `1m 30s`, `7d`. A bare number is refused: nobody knows whether it means seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a duration such as `30s` or `500ms`"))?;
    if duration > DURATION_MAX {
        return Err(format!("`{text}` is longer than a hundred years"));
    }
    Ok(duration)
}

/// Prints a duration in the short units that people write, and that [`parse_duration`] reads.
pub fn print_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
        (1, "ms"),
    ] {
        if ms > 0 && ms.is_multiple_of(unit_ms) && duration.subsec_nanos().is_multiple_of(1_000_000) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if duration.is_zero() {
        "0s".into()
    } else {
        format!("{}ns", duration.as_nanos())
    }
}

/// Text that opens doors. It prints as [`Secret::MASK`] wherever it is not asked for by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub const MASK: &'static str = "********";

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_sizes_and_durations_read_what_they_print() {
        for text in ["300/s burst 600", "1/s burst 1"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!(
            "20/s".parse(),
            Ok(Rate {
                per_second: 20,
                burst: 20
            })
        );
        for text in ["64KiB", "1MiB", "2GiB", "1000B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("65536".parse::<Size>().unwrap().to_string(), "64KiB");
        for text in ["30s", "500ms", "7d", "90s", "1m", "25h", "0s", "1500ns"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn what_has_no_unit_or_refuses_everything_is_refused() {
        for text in [
            "300",
            "300/m",
            "fast",
            "300/s burst",
            "300/s burst x",
            "0/s burst 1",
            "1/s burst 0",
            "-1/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["many", "64 parsecs", "", "-1KiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["30", "soon", "", "-1s", "2000000080.72m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let secret = Secret::from("the quick brown fox");
        assert!(!format!("{:?}", Some(&secret)).contains("fox"));
        assert_eq!(secret.expose(), "the quick brown fox");
    }
}
