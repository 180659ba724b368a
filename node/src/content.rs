//! Shared content on this node: a full copy of what the store has, and when to compare it. Items, skills, help texts: read by
//! matches at any moment, written by operators now and then.
//!
//! It is not the store's rows (`store::content`) and reads nothing itself: `task` does what [`Mirror`] says. Invariants: a
//! value never goes back to an older version while the copy grows, and a copy that has read up to a version lacks nothing
//! below it. A write is announced to all nodes; whoever misses the announcement finds the new version within
//! [`COMPARE_EVERY_MS`].

#![deny(clippy::disallowed_methods)]

// The driver has a clock.
#[allow(clippy::disallowed_methods)]
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

pub use self::task::{Content, GROUP};
use crate::store::{ContentPage, ContentRow, content_cost};

/// How often a node asks the store how far content is. Promised: an announcement that was missed heals within 10 s.
pub const COMPARE_EVERY_MS: u64 = 5_000;

/// Between two tries of the store while it is away.
pub const AGAIN_MS: u64 = 500;

/// Values in one read. At the default limit of 256 KiB a value, a page of the largest is 16 MiB.
pub const PAGE_LEN: u32 = 64;

/// A value as this node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub content_type: Arc<str>,
    pub value: Bytes,
    pub version: u64,
    pub updated_at_ms: u64,
}

/// A copy of all content, as of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    collections: BTreeMap<String, BTreeMap<String, Item>>,
    /// Everything up to this version is in it.
    version: u64,
    /// The deletions that were forgotten already when the first page of it was read.
    swept_at_start: u64,
    bytes: u64,
    items: u64,
}

/// How much a collection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub items: u64,
    pub bytes: u64,
}

impl Copy {
    pub fn get(&self, collection: &str, key: &str) -> Option<&Item> {
        self.collections.get(collection)?.get(key)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many values there are, and what they count against the limit.
    pub fn size(&self) -> Size {
        Size {
            items: self.items,
            bytes: self.bytes,
        }
    }

    /// The collections that hold anything, in order.
    pub fn collections(&self) -> impl Iterator<Item = (&str, Size)> {
        self.collections.iter().map(|(name, items)| {
            let bytes = items.iter().map(|(key, item)| content_cost(name, key, &item.value));
            let size = Size {
                items: items.len() as u64,
                bytes: bytes.sum(),
            };
            (name.as_str(), size)
        })
    }

    /// Values of a collection whose keys begin with `prefix` and come after `after`, in key order.
    pub fn scan<'a>(
        &'a self,
        collection: &str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Item)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let items = self.collections.get(collection).into_iter();
        items
            .flat_map(move |items| items.range::<str, _>((from, Bound::Unbounded)))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, item)| (key.as_str(), item))
    }

    /// Takes one change; true when the value is another one now.
    fn apply(&mut self, row: ContentRow) -> bool {
        self.version = self.version.max(row.version);
        let stands = self.get(&row.collection, &row.key);
        if stands.is_some_and(|item| item.version >= row.version) {
            return false;
        }
        let was = stands.map(|item| content_cost(&row.collection, &row.key, &item.value));
        if let Some(was) = was {
            self.items -= 1;
            self.bytes -= was;
        }
        let Some(value) = row.value else {
            if let Some(items) = self.collections.get_mut(&row.collection) {
                items.remove(&row.key);
                if items.is_empty() {
                    self.collections.remove(&row.collection);
                }
            }
            return was.is_some();
        };
        self.items += 1;
        self.bytes += content_cost(&row.collection, &row.key, &value);
        let item = Item {
            content_type: row.content_type.into(),
            value,
            version: row.version,
            updated_at_ms: row.updated_at_ms,
        };
        self.collections
            .entry(row.collection)
            .or_default()
            .insert(row.key, item);
        true
    }

    /// The keys under which the two differ.
    fn differences(&self, other: &Self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (one, another) in [(self, other), (other, self)] {
            for (collection, items) in &one.collections {
                for (key, item) in items {
                    let there = another.get(collection, key);
                    // What both have and differ in is noted once, by the first turn.
                    let is_new = there.is_none() || (std::ptr::eq(one, self) && there != Some(item));
                    if is_new {
                        found.push((collection.clone(), key.clone()));
                    }
                }
            }
        }
        found
    }
}

/// What happens to a mirror.
#[derive(Debug)]
pub enum Input {
    Wake,
    /// Some node has written this version.
    Heard {
        version: u64,
    },
    /// The answer to [`Effect::Read`].
    Page(ContentPage),
    /// The store did not answer [`Effect::Read`].
    Failed,
}

/// What a mirror wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Reads what changed after a version, at most [`PAGE_LEN`] values. One is under way at a time.
    Read { after: u64 },
    /// A value is another one, or gone. Not said of what was there when the node started.
    Changed { collection: String, key: String },
}

/// Keeps a copy equal to the store's content.
#[derive(Debug, Default)]
pub struct Mirror {
    copy: Copy,
    /// Read from the beginning, to replace the copy when it is whole: deletions were forgotten that the copy never heard of, or
    /// the database is an older one than before.
    anew: Option<Copy>,
    is_loaded: bool,
    is_reading: bool,
    /// The highest version that was announced, now and when the read under way began.
    heard: u64,
    heard_at_read: u64,
    due_ms: u64,
    /// After a failure announcements wait too: they must not make a flood of tries.
    is_failing: bool,
}

impl Mirror {
    pub fn copy(&self) -> &Copy {
        &self.copy
    }

    /// Whether the copy was whole once.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Takes one input, changes the state, and says what ought to happen.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wake => {
                if now_ms >= self.due_ms {
                    self.read(out);
                }
            }
            Input::Heard { version } => {
                self.heard = self.heard.max(version);
                if self.heard > self.copy.version && !self.is_failing {
                    self.read(out);
                }
            }
            Input::Page(page) => {
                self.is_reading = false;
                self.is_failing = false;
                self.page(now_ms, page, out);
            }
            Input::Failed => {
                self.is_reading = false;
                self.is_failing = true;
                self.due_ms = now_ms + AGAIN_MS;
            }
        }
    }

    /// When [`Input::Wake`] is due if nothing else comes first; none while a read is under way.
    pub fn next_wake_ms(&self) -> Option<u64> {
        (!self.is_reading).then_some(self.due_ms)
    }

    /// The copy that reads go into.
    fn target(&mut self) -> &mut Copy {
        self.anew.as_mut().unwrap_or(&mut self.copy)
    }

    fn read(&mut self, out: &mut Vec<Effect>) {
        if !self.is_reading {
            self.is_reading = true;
            self.heard_at_read = self.heard;
            let after = self.target().version;
            out.push(Effect::Read { after });
        }
    }

    fn page(&mut self, now_ms: u64, page: ContentPage, out: &mut Vec<Effect>) {
        let ContentPage { head, rows } = page;
        let is_last = rows.len() < PAGE_LEN as usize;
        let target = self.target();
        if target.version == 0 {
            target.swept_at_start = head.swept;
        }
        let is_older_database = target.version > head.last;
        let missed_deletions = head.swept > target.version.max(target.swept_at_start);
        if is_older_database || missed_deletions {
            self.anew = Some(Copy::default());
            return self.read(out);
        }
        let mut changed = Vec::new();
        for row in rows {
            let name = (row.collection.clone(), row.key.clone());
            if target.apply(row) {
                changed.push(name);
            }
        }
        if is_last {
            target.version = target.version.max(head.last);
        }
        if is_last && let Some(anew) = self.anew.take() {
            changed = self.copy.differences(&anew);
            self.copy = anew;
        }
        if self.is_loaded && self.anew.is_none() {
            out.extend(
                changed
                    .into_iter()
                    .map(|(collection, key)| Effect::Changed { collection, key }),
            );
        }
        self.is_loaded |= is_last;
        // What was announced while the page was on its way may not be in it; what was announced before, and is not, is not there.
        let is_behind = self.heard > self.heard_at_read && self.heard > self.copy.version;
        if !is_last || is_behind {
            return self.read(out);
        }
        self.heard = self.copy.version;
        self.due_ms = now_ms + COMPARE_EVERY_MS;
    }
}
