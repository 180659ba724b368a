//! What is wrong with a configuration: every fault at once, each with where it came from and, for an unknown key, the nearest
//! known one.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(Option<PathBuf>),
    Environment,
    Flag,
    /// No single place: a rule over several keys was broken.
    Rule,
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub source: Source,
    /// The key's path, `cluster.seeds`; empty when the fault is not about a key.
    pub key: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    UnknownKey { nearest: String },
    Value(String),
}

/// All that is wrong. Never empty when it is returned as an error.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    pub(super) fn value(&mut self, source: &Source, key: &str, problem: impl Into<String>) {
        self.0.push(Fault {
            source: source.clone(),
            key: key.into(),
            problem: Problem::Value(problem.into()),
        });
    }

    pub(super) fn rule(&mut self, key: &str, problem: impl Into<String>) {
        self.value(&Source::Rule, key, problem);
    }

    pub(super) fn unknown(&mut self, source: &Source, key: &str, known: &[String]) {
        self.0.push(Fault {
            source: source.clone(),
            key: key.into(),
            problem: Problem::UnknownKey {
                nearest: nearest(key, known),
            },
        });
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.key.as_str()) {
            (Source::File(Some(path)), "") => write!(f, "{}", path.display())?,
            (Source::File(Some(path)), key) => write!(f, "{}: {key}", path.display())?,
            (Source::Environment, key) => f.write_str(&variable(key))?,
            (Source::File(None) | Source::Flag | Source::Rule, key) => f.write_str(key)?,
        }
        match &self.problem {
            Problem::UnknownKey { nearest } => {
                f.write_str(": unknown key; the nearest known key is ")?;
                match self.source {
                    Source::Environment => write!(f, "{} ({nearest})", variable(nearest)),
                    Source::File(_) | Source::Flag | Source::Rule => f.write_str(nearest),
                }
            }
            Problem::Value(problem) => write!(f, ": {problem}"),
        }
    }
}

/// The environment variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("ROOKERY_{}", key.replace('.', "__").to_uppercase())
}

/// The known key that was most likely meant. Known keys may hold `<name>` where an operator's own word stands; the word that
/// was written there is put in. A right last word in the wrong section beats a key that merely looks alike.
fn nearest(key: &str, known: &[String]) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let written: Vec<&str> = key.split('.').collect();
    let with_names = |pattern: &String| {
        let segments = pattern.split('.').enumerate();
        let filled = segments.map(|(index, segment)| match written.get(index) {
            Some(word) if segment.starts_with('<') => word,
            Some(_) | None => segment,
        });
        filled.collect::<Vec<_>>().join(".")
    };
    let distance = |candidate: &String| {
        let whole = strsim::damerau_levenshtein(key, candidate);
        let by_last_word = strsim::damerau_levenshtein(&last(key), &last(candidate)) + 1;
        (whole.min(by_last_word), whole)
    };
    known.iter().map(with_names).min_by_key(distance).unwrap_or_default()
}
