//! How a key's type reads and shows its value. A type reads from a file's value or from text (a variable, a flag), says what it
//! expected when it cannot, and never stops at the first fault. The `section!` macro makes a table of keys out of a struct, with
//! one place for a key's name, type, default and documentation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rookery_protocol::NodeName;

use super::faults::Faults;
use super::raw::{Node, Raw};
use super::units::{Rate, Secret, Size, parse_duration, print_duration};
use crate::modules::signature::PublicKey;

/// One key, as `docs/configuration.md` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// With `<name>` where an operator's own word stands.
    pub path: String,
    /// As TOML; none when the key is not set by default.
    pub default: Option<String>,
    pub doc: String,
}

pub(super) trait Setting: Sized {
    /// Reads the value written at the path `at`. None after at least one fault was reported.
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self>;
    /// The value as it would stand in a file, secrets masked; none when it is not set.
    fn show(&self) -> Option<toml::Value>;
    /// Lists the keys at and below `at`. A plain value is one key, whose default and documentation the section knows.
    fn list(&self, at: &str, doc: &str, keys: &mut Vec<KeyDoc>) {
        keys.push(KeyDoc {
            path: at.into(),
            default: self.show().map(|value| value.to_string()),
            doc: doc.into(),
        });
    }
}

/// Defines a section: a struct whose fields are keys. With `.. rest: Type` every other entry that is a table belongs to `rest`,
/// under a name of the operator's choice.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $name:ident {
            $($(#[doc = $key_doc:literal])* $key:ident: $type:ty = $default:expr,)*
            $(.. $(#[doc = $rest_doc:literal])* $rest:ident: $rest_type:ty,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $key_doc])* pub $key: $type,)*
            $($(#[doc = $rest_doc])* pub $rest: std::collections::BTreeMap<String, $rest_type>,)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($key: $default,)*
                    $($rest: std::collections::BTreeMap::new(),)?
                }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn read(
                raw: $crate::config::raw::Raw,
                at: &str,
                faults: &mut $crate::config::faults::Faults,
            ) -> Option<Self> {
                use $crate::config::setting::{child, table_of, unknown_leaves};
                #[allow(unused_mut, reason = "a section of names only sets no field")]
                let mut section = Self::default();
                for (key, raw) in table_of(raw, at, faults)? {
                    let path = child(at, &key);
                    match key.as_str() {
                        $(stringify!($key) => {
                            if let Some(value) = $crate::config::setting::Setting::read(raw, &path, faults) {
                                section.$key = value;
                            }
                        })*
                        $(_ if matches!(raw.node, $crate::config::raw::Node::Table(_)) => {
                            $crate::config::setting::check_name(&raw, &path, &key, faults);
                            let value = $crate::config::setting::Setting::read(raw, &path, faults);
                            if let Some(value) = value {
                                section.$rest.insert(key, value);
                            }
                        })?
                        _ => unknown_leaves(&raw, &path, faults),
                    }
                }
                Some(section)
            }

            fn show(&self) -> Option<toml::Value> {
                let mut table = toml::Table::new();
                $(if let Some(value) = $crate::config::setting::Setting::show(&self.$key) {
                    table.insert(stringify!($key).into(), value);
                })*
                $(for (name, value) in &self.$rest {
                    if let Some(value) = $crate::config::setting::Setting::show(value) {
                        table.insert(name.clone(), value);
                    }
                })?
                (!table.is_empty()).then_some(toml::Value::Table(table))
            }

            fn list(&self, at: &str, _doc: &str, keys: &mut Vec<$crate::config::setting::KeyDoc>) {
                use $crate::config::setting::child;
                $({
                    let doc = concat!($($key_doc, "\n",)* "").trim();
                    $crate::config::setting::Setting::list(&self.$key, &child(at, stringify!($key)), doc, keys);
                })*
                $({
                    let doc = concat!($($rest_doc, "\n",)* "").trim();
                    let entry = <$rest_type>::default();
                    $crate::config::setting::Setting::list(&entry, &child(at, "<name>"), doc, keys);
                })?
            }
        }
    };
}
pub(super) use section;

/// Defines a setting that is one of a few words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn read(
                raw: $crate::config::raw::Raw,
                at: &str,
                faults: &mut $crate::config::faults::Faults,
            ) -> Option<Self> {
                let words = [$(concat!("`", $word, "`")),*].join(", ");
                $crate::config::setting::read_text(raw, at, &format!("one of {words}"), faults, |text| match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("`{text}` is not one of {words}")),
                })
            }

            fn show(&self) -> Option<toml::Value> {
                Some(self.as_str().into())
            }
        }
    };
}
pub(super) use words;

/// The path of a key in a section.
pub(super) fn child(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.into()
    } else {
        format!("{at}.{key}")
    }
}

pub(super) fn table_of(raw: Raw, at: &str, faults: &mut Faults) -> Option<BTreeMap<String, Raw>> {
    match raw.node {
        Node::Table(table) => Some(table),
        Node::Toml(_) | Node::Text(_) => {
            faults.value(
                &raw.source,
                at,
                format!("expected a table of keys, found {}", raw.kind()),
            );
            None
        }
    }
}

/// Reports every key of an unknown section, so that each says what it was most likely meant to be.
pub(super) fn unknown_leaves(raw: &Raw, at: &str, faults: &mut Faults) {
    match &raw.node {
        Node::Table(table) if !table.is_empty() => {
            for (key, raw) in table {
                unknown_leaves(raw, &child(at, key), faults);
            }
        }
        Node::Table(_) | Node::Toml(_) | Node::Text(_) => faults.unknown(&raw.source, at, &super::known_keys()),
    }
}

/// Names of queues, worlds, zones and modules: what match.wit allows a module to be called.
pub(super) fn check_name(raw: &Raw, at: &str, name: &str, faults: &mut Faults) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        faults.value(
            &raw.source,
            at,
            format!("`{name}` is not a name: 1 to 64 of a-z, 0-9, '-', '_'"),
        );
    }
}

/// Reads a setting that is written as one string.
pub(super) fn read_text<T>(
    raw: Raw,
    at: &str,
    expected: &str,
    faults: &mut Faults,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = match &raw.node {
        Node::Text(text) | Node::Toml(toml::Value::String(text)) => text,
        Node::Table(_) | Node::Toml(_) => {
            faults.value(&raw.source, at, format!("expected {expected}, found {}", raw.kind()));
            return None;
        }
    };
    match parse(text) {
        Ok(value) => Some(value),
        Err(problem) => {
            faults.value(&raw.source, at, problem);
            None
        }
    }
}

macro_rules! text_setting {
    ($type:ty, $expected:literal, $parse:expr, $show:expr) => {
        impl Setting for $type {
            fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
                read_text(raw, at, $expected, faults, $parse)
            }

            fn show(&self) -> Option<toml::Value> {
                let show: fn(&Self) -> String = $show;
                Some(show(self).into())
            }
        }
    };
}

text_setting!(String, "a string", |text| Ok(text.to_owned()), |text| text.clone());
text_setting!(PathBuf, "a path", |text| Ok(text.into()), |path| path
    .display()
    .to_string());
text_setting!(Secret, "a string", |text| Ok(text.into()), |_| Secret::MASK.into());
text_setting!(Rate, "a rate such as `300/s burst 600`", str::parse, |rate| rate
    .to_string());
text_setting!(
    Duration,
    "a duration such as `30s`, with its unit",
    parse_duration,
    |duration| { print_duration(*duration) }
);
text_setting!(
    SocketAddr,
    "an IP address and a port",
    |text| text
        .parse()
        .map_err(|_| format!("`{text}` is not an IP address and a port such as `0.0.0.0:7700`")),
    |address| address.to_string()
);
text_setting!(
    NodeName,
    "a string",
    |text| text
        .parse()
        .map_err(|_| format!("`{text}` is not a node name: 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.'")),
    |name| name.to_string()
);

text_setting!(PublicKey, "a public key", str::parse, |key| key.to_string());

impl Setting for Size {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        match raw.node {
            Node::Toml(toml::Value::Integer(count)) => {
                let text = Node::Text(count.to_string());
                Self::read(Raw { node: text, ..raw }, at, faults)
            }
            Node::Toml(_) | Node::Text(_) | Node::Table(_) => {
                read_text(raw, at, "a size such as `64KiB`", faults, str::parse)
            }
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.to_string().into())
    }
}

impl Setting for u32 {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        let number = match &raw.node {
            Node::Toml(toml::Value::Integer(number)) => u32::try_from(*number).ok(),
            Node::Text(text) => text.trim().parse().ok(),
            Node::Toml(_) | Node::Table(_) => None,
        };
        if number.is_none() {
            faults.value(&raw.source, at, "expected a whole number from 0 to 4294967295");
        }
        number
    }

    fn show(&self) -> Option<toml::Value> {
        Some(i64::from(*self).into())
    }
}

impl Setting for f64 {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        let number = match &raw.node {
            Node::Toml(toml::Value::Integer(number)) => Some(*number as f64),
            Node::Toml(toml::Value::Float(number)) => Some(*number),
            Node::Text(text) => text.trim().parse().ok(),
            Node::Toml(_) | Node::Table(_) => None,
        };
        let number = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            faults.value(&raw.source, at, "expected a number");
        }
        number
    }

    fn show(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl Setting for bool {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        let value = match &raw.node {
            Node::Toml(toml::Value::Boolean(value)) => Some(*value),
            Node::Text(text) => text.trim().parse().ok(),
            Node::Toml(_) | Node::Table(_) => None,
        };
        if value.is_none() {
            faults.value(&raw.source, at, "expected `true` or `false`");
        }
        value
    }

    fn show(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        T::read(raw, at, faults).map(Some)
    }

    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(Setting::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    /// A TOML array; as text also a list with commas.
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        let items = match raw.node {
            Node::Toml(toml::Value::Array(items)) => items
                .into_iter()
                .map(|item| Raw::from_toml(item, &raw.source))
                .collect(),
            Node::Text(text) if text.trim_start().starts_with('[') => {
                return match format!("list = {text}").parse::<toml::Table>() {
                    Ok(mut table) => {
                        let list = table.remove("list").expect("the document has this one key");
                        Self::read(Raw::from_toml(list, &raw.source), at, faults)
                    }
                    Err(_) => {
                        faults.value(&raw.source, at, "begins like a TOML array and is none");
                        None
                    }
                };
            }
            Node::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                let item = |item: &str| Raw {
                    source: raw.source.clone(),
                    node: Node::Text(item.into()),
                };
                items.map(item).collect::<Vec<_>>()
            }
            Node::Toml(_) | Node::Table(_) => {
                faults.value(&raw.source, at, format!("expected a list, found {}", raw.kind()));
                return None;
            }
        };
        let count = items.len();
        let read: Vec<T> = items.into_iter().filter_map(|item| T::read(item, at, faults)).collect();
        (read.len() == count).then_some(read)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.iter().filter_map(Setting::show).collect()))
    }
}

impl<T: Setting + Default> Setting for BTreeMap<String, T> {
    /// Entries under names of the operator's choice.
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        let mut map = Self::new();
        for (name, raw) in table_of(raw, at, faults)? {
            let path = child(at, &name);
            check_name(&raw, &path, &name, faults);
            if let Some(value) = T::read(raw, &path, faults) {
                map.insert(name, value);
            }
        }
        Some(map)
    }

    fn show(&self) -> Option<toml::Value> {
        let entries = self
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.show()?)));
        let table: toml::Table = entries.collect();
        (!table.is_empty()).then_some(toml::Value::Table(table))
    }

    fn list(&self, at: &str, doc: &str, keys: &mut Vec<KeyDoc>) {
        T::default().list(&child(at, "<name>"), doc, keys);
    }
}
