//! A configuration before it has a meaning: one tree of what was written in the file, the environment and the flags, in which
//! each leaf knows where it came from. Later layers replace leaves of earlier ones; nothing is checked here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::faults::{Faults, Source};

/// A value or a table of them, and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) source: Source,
    pub(super) node: Node,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Table(BTreeMap<String, Raw>),
    /// A value from a file; never a table.
    Toml(toml::Value),
    /// Text from a variable or a flag; its type is the key's.
    Text(String),
}

impl Raw {
    pub(super) fn empty() -> Self {
        Self {
            source: Source::File(None),
            node: Node::Table(BTreeMap::new()),
        }
    }

    pub(super) fn from_toml(value: toml::Value, source: &Source) -> Self {
        let node = match value {
            toml::Value::Table(table) => {
                let entries = table.into_iter();
                Node::Table(
                    entries
                        .map(|(key, value)| (key, Self::from_toml(value, source)))
                        .collect(),
                )
            }
            other => Node::Toml(other),
        };
        Self {
            source: source.clone(),
            node,
        }
    }

    /// The file's tree; a file that is not TOML is one fault and reads as empty, so that the other layers are checked too.
    pub(super) fn from_file(path: &Path, faults: &mut Faults) -> Self {
        let source = Source::File(Some(path.to_owned()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                faults.value(&source, "", format!("cannot be read: {error}"));
                return Self::empty();
            }
        };
        Self::from_text(&text, &source, faults)
    }

    pub(super) fn from_text(text: &str, source: &Source, faults: &mut Faults) -> Self {
        match text.parse::<toml::Table>() {
            Ok(table) => Self::from_toml(toml::Value::Table(table), source),
            Err(error) => {
                faults.value(source, "", format!("not TOML: {}", error.to_string().trim_end()));
                Self::empty()
            }
        }
    }

    /// Lays the variables `ROOKERY_SECTION__KEY` over the tree. Without a double underscore a variable is not ours (Kubernetes
    /// injects `ROOKERY_PORT_7700_TCP` for a Service called `rookery`); an empty one counts as not set.
    pub(super) fn overlay_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        faults: &mut Faults,
    ) {
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = name.strip_prefix("ROOKERY_").filter(|key| key.contains("__")) else {
                continue;
            };
            let key = key.replace("__", ".").to_lowercase();
            match value.into_string() {
                Ok(value) if value.is_empty() => {}
                Ok(value) => self.set(&key, Source::Environment, value),
                Err(_) => faults.value(&Source::Environment, &key, "the value is not UTF-8"),
            }
        }
    }

    pub(super) fn set(&mut self, key: &str, source: Source, text: String) {
        let mut at = self;
        for segment in key.split('.') {
            if !matches!(at.node, Node::Table(_)) {
                at.node = Node::Table(BTreeMap::new());
            }
            let Node::Table(table) = &mut at.node else {
                unreachable!("made a table above")
            };
            let fresh = || Raw {
                source: source.clone(),
                node: Node::Table(BTreeMap::new()),
            };
            at = table.entry(segment.to_owned()).or_insert_with(fresh);
        }
        *at = Raw {
            source,
            node: Node::Text(text),
        };
    }

    /// What kind of value this is, for a message that wanted another.
    pub(super) fn kind(&self) -> &'static str {
        match &self.node {
            Node::Table(_) => "a table",
            Node::Text(_) => "text",
            Node::Toml(value) => match value {
                toml::Value::String(_) => "a string",
                toml::Value::Integer(_) => "an integer",
                toml::Value::Float(_) => "a number with a fraction",
                toml::Value::Boolean(_) => "a boolean",
                toml::Value::Datetime(_) => "a date",
                toml::Value::Array(_) => "an array",
                toml::Value::Table(_) => "a table",
            },
        }
    }
}
