//! What a run found, as named figures. Every name carries its unit, so that the text for people and the JSON for programs are the same
//! list. A run with a complaint has failed, whatever its figures.

use std::process::ExitCode;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

/// Latencies are told apart to three digits, up to this.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// The result of one run.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    figures: Vec<(&'static str, Value)>,
    complaints: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            figures: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Adds a figure; fractions keep four digits that mean something.
    pub(crate) fn figure(&mut self, name: &'static str, value: f64) {
        let value = if value.fract() == 0.0 && value.abs() < 1e15 {
            Value::from(value as i64)
        } else {
            let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 6);
            let scale = 10f64.powi(digits);
            Value::from((value * scale).round() / scale)
        };
        self.figures.push((name, value));
    }

    /// Adds a whole number.
    pub(crate) fn count(&mut self, name: &'static str, value: u64) {
        self.figures.push((name, Value::from(value)));
    }

    /// Adds a number that must be 0, and complains when it is not.
    pub(crate) fn must_be_zero(&mut self, name: &'static str, value: u64) {
        self.count(name, value);
        if value > 0 {
            self.complain(format!("{name}: {value}"));
        }
    }

    /// Adds the quantiles that people ask for, in milliseconds.
    pub(crate) fn latency(&mut self, latency: &Latency) {
        for (name, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)] {
            self.figure(name, latency.at_ms(quantile));
        }
    }

    /// Says what was wrong; the run has failed.
    pub(crate) fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    /// The figure of this name, if the run has it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|(figure, _)| *figure == name)
            .and_then(|(_, value)| value.as_f64())
    }

    /// What was wrong, if anything.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Success only when there is nothing to complain of.
    pub fn exit_code(&self) -> ExitCode {
        if self.complaints.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let mut map: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        map.insert("scenario".to_owned(), Value::from(self.scenario));
        map.insert("complaints".to_owned(), Value::from(self.complaints.clone()));
        Value::Object(map).to_string()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        let width = self.figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.figures {
            writeln!(f, "  {name:width$}  {value:>12}")?;
        }
        match self.complaints.as_slice() {
            [] => write!(f, "  all is well"),
            complaints => write!(f, "  FAILED: {}", complaints.join("; ")),
        }
    }
}

/// How long things took.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        let max_ns = LATENCY_MAX.as_nanos() as u64;
        Self(Histogram::new_with_bounds(1_000, max_ns, 3).expect("the bounds are in order and the digits few"))
    }

    /// Takes one; longer ones than can be told apart count as the longest.
    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// The time within which this share of all was done, in milliseconds.
    pub(crate) fn at_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_complaints_decide_the_exit() {
        let mut report = Report::new("echo");
        report.figure("rate_per_s", 123_456.0);
        report.figure("cpu_us", 7.123_456);
        report.figure("small_us", 0.001_234_56);
        report.must_be_zero("lost", 0);
        let mut latency = Latency::new();
        (1..=1_000).for_each(|i| latency.record_ns(i * 1_000));
        latency.record_ns(u64::MAX);
        report.latency(&latency);
        assert_eq!(report.get("cpu_us"), Some(7.123));
        assert_eq!(report.get("small_us"), Some(0.001_235));
        assert!((report.get("p50_ms").unwrap() - 0.5).abs() < 0.01);
        assert!(report.get("max_ms").unwrap() >= 60_000.0);
        assert_eq!(report.exit_code(), ExitCode::SUCCESS);
        assert!(report.to_string().ends_with("all is well"));
        report.must_be_zero("doubled", 2);
        assert_eq!(report.exit_code(), ExitCode::FAILURE);
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            (&json["rate_per_s"], &json["complaints"][0]),
            (&123_456.into(), &"doubled: 2".into())
        );
    }
}
