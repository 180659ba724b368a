//! JSON texts and MessagePack messages as trees whose leaves are bytes as they were written. Mutating the tree and writing it again
//! gives inputs that get past the first brackets. Reading is strict enough for that and no more; what it does not understand is
//! mutated as bytes.

use crate::mutate::Chance;
use crate::target::Shape;

/// Deeper inputs are left to mutations of bytes: this reader takes stack for each level.
const DEPTH_MAX: usize = 64;

/// A leaf keeps its bytes; numbers, texts and everything else are the same to a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Leaf(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl Tree {
    /// Reads an input of this shape; none when it is no such thing, or only its beginning is.
    pub fn read(shape: Shape, input: &[u8]) -> Option<Tree> {
        let (tree, rest) = match shape {
            Shape::Json => json(skip_spaces(input), DEPTH_MAX)?,
            Shape::MsgPack => msgpack(input, DEPTH_MAX)?,
            Shape::Bytes | Shape::Text => return None,
        };
        let rest = if shape == Shape::Json { skip_spaces(rest) } else { rest };
        rest.is_empty().then_some(tree)
    }

    /// Writes it as an input of this shape.
    pub fn write(&self, shape: Shape, out: &mut Vec<u8>) {
        match (self, shape) {
            (Tree::Leaf(bytes), _) => out.extend_from_slice(bytes),
            (Tree::List(items), Shape::MsgPack) => {
                header(out, items.len(), 0x90, 0xdc);
                items.iter().for_each(|item| item.write(shape, out));
            }
            (Tree::Map(pairs), Shape::MsgPack) => {
                header(out, pairs.len(), 0x80, 0xde);
                for (key, value) in pairs {
                    key.write(shape, out);
                    value.write(shape, out);
                }
            }
            (Tree::List(items), Shape::Json | Shape::Bytes | Shape::Text) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(shape, out);
                }
                out.push(b']');
            }
            (Tree::Map(pairs), Shape::Json | Shape::Bytes | Shape::Text) => {
                out.push(b'{');
                for (index, (key, value)) in pairs.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    key.write(shape, out);
                    out.push(b':');
                    value.write(shape, out);
                }
                out.push(b'}');
            }
        }
    }

    /// Changes something; `other` is a tree to take parts from.
    pub fn mutate(&mut self, shape: Shape, other: Option<&Tree>, chance: &mut Chance) {
        let donor = other.map(|other| other.nth(chance.below(other.count())).clone());
        let at = chance.below(self.count());
        let place = self.nth_mut(at);
        match (place, chance.below(8)) {
            (place, 0) => *place = donor.unwrap_or_else(|| leaf(shape, chance)),
            (place @ Tree::Leaf(_), 1..=4) => *place = leaf(shape, chance),
            (Tree::Leaf(bytes), _) => {
                if let Some(len) = bytes.len().checked_sub(1).filter(|len| *len > 0) {
                    let index = 1 + chance.below(len);
                    bytes[index] = chance.byte();
                }
            }
            (Tree::List(items), 1 | 2) if !items.is_empty() => {
                items.remove(chance.below(items.len()));
            }
            (Tree::List(items), 3) if !items.is_empty() => {
                let item = items[chance.below(items.len())].clone();
                let times = 1 << chance.below(8);
                items.extend(std::iter::repeat_n(item, times));
            }
            (Tree::List(items), _) => {
                let index = chance.below(items.len() + 1);
                items.insert(index, donor.unwrap_or_else(|| leaf(shape, chance)));
            }
            (Tree::Map(pairs), 1 | 2) if !pairs.is_empty() => {
                pairs.remove(chance.below(pairs.len()));
            }
            (Tree::Map(pairs), 3) if !pairs.is_empty() => {
                let pair = pairs[chance.below(pairs.len())].clone();
                pairs.push(pair);
            }
            (Tree::Map(pairs), 4) if !pairs.is_empty() => {
                let (a, b) = (chance.below(pairs.len()), chance.below(pairs.len()));
                let value = pairs[a].1.clone();
                pairs[b].1 = value;
            }
            (Tree::Map(pairs), _) => match other {
                Some(Tree::Map(others)) if !others.is_empty() => pairs.push(others[chance.below(others.len())].clone()),
                _ => pairs.push((leaf(shape, chance), leaf(shape, chance))),
            },
        }
        if chance.one_in(24) {
            let times = 1 << chance.below(11);
            let place = self.nth_mut(at.min(self.count() - 1));
            let inner = std::mem::replace(place, Tree::List(Vec::new()));
            *place = nest(inner, times, shape);
        }
    }

    fn count(&self) -> usize {
        match self {
            Tree::Leaf(_) => 1,
            Tree::List(items) => 1 + items.iter().map(Tree::count).sum::<usize>(),
            Tree::Map(pairs) => {
                1 + pairs
                    .iter()
                    .map(|(key, value)| key.count() + value.count())
                    .sum::<usize>()
            }
        }
    }

    fn nth(&self, n: usize) -> &Tree {
        let mut left = n;
        self.find(&mut left).expect("the caller counted")
    }

    fn find(&self, left: &mut usize) -> Option<&Tree> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Tree::Leaf(_) => None,
            Tree::List(items) => items.iter().find_map(|item| item.find(left)),
            Tree::Map(pairs) => pairs.iter().find_map(|(key, value)| match key.find(left) {
                Some(found) => Some(found),
                None => value.find(left),
            }),
        }
    }

    fn nth_mut(&mut self, n: usize) -> &mut Tree {
        let mut left = n;
        self.find_mut(&mut left).expect("the caller counted")
    }

    fn find_mut(&mut self, left: &mut usize) -> Option<&mut Tree> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Tree::Leaf(_) => None,
            Tree::List(items) => items.iter_mut().find_map(|item| item.find_mut(left)),
            Tree::Map(pairs) => pairs.iter_mut().find_map(|(key, value)| match key.find_mut(left) {
                Some(found) => Some(found),
                None => value.find_mut(left),
            }),
        }
    }
}

/// Brackets around a value, written down at once: a tree so deep could not be dropped.
fn nest(inner: Tree, times: usize, shape: Shape) -> Tree {
    let (open, close): (&[u8], &[u8]) = match shape {
        Shape::MsgPack => (&[0x91], &[]),
        Shape::Json | Shape::Bytes | Shape::Text => (b"[", b"]"),
    };
    let mut bytes = open.repeat(times);
    inner.write(shape, &mut bytes);
    bytes.extend(close.repeat(times));
    Tree::Leaf(bytes)
}

/// A leaf at the border of something.
fn leaf(shape: Shape, chance: &mut Chance) -> Tree {
    const JSON: &[&[u8]] = &[
        b"null",
        b"true",
        b"false",
        b"0",
        b"1",
        b"-1",
        b"-0",
        b"255",
        b"256",
        b"65535",
        b"65536",
        b"4294967295",
        b"4294967296",
        b"9007199254740993",
        b"9223372036854775807",
        b"9223372036854775808",
        b"18446744073709551615",
        b"18446744073709551616",
        b"-9223372036854775808",
        b"-9223372036854775809",
        b"1.0",
        b"1e3",
        b"1e308",
        b"1e999",
        b"-1e-999",
        b"0.1",
        b"\"\"",
        b"[]",
        b"{}",
        b"\"\\u0000\"",
        b"\"\\ud800\"",
        b"\"\\ud83d\\ude00\"",
        b"\"\\\"\"",
        b"\"a\"",
        b"\"AA==\"",
        b"\"AA\"",
        b"\"01hf7yat000000000000000007\"",
    ];
    const MSGPACK: &[&[u8]] = &[
        b"\xc0",
        b"\xc1",
        b"\xc2",
        b"\xc3",
        b"\x00",
        b"\x01",
        b"\x7f",
        b"\xff",
        b"\xe0",
        b"\xcc\xff",
        b"\xcd\xff\xff",
        b"\xce\xff\xff\xff\xff",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xcf\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xd0\x80",
        b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xca\x7f\xc0\x00\x00",
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xa0",
        b"\xa1a",
        b"\xa2\xc3\x28",
        b"\x80",
        b"\x90",
        b"\x81\xa1a\xc0",
        b"\xc4\x00",
        b"\xc4\x01x",
        b"\xd4\x00\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ];
    let leaves = match shape {
        Shape::MsgPack => MSGPACK,
        Shape::Json | Shape::Bytes | Shape::Text => JSON,
    };
    Tree::Leaf(leaves[chance.below(leaves.len())].to_vec())
}

fn header(out: &mut Vec<u8>, len: usize, fix: u8, wide: u8) {
    match u16::try_from(len) {
        Ok(len @ 0..16) => out.push(fix | len as u8),
        Ok(len) => {
            out.push(wide);
            out.extend(len.to_be_bytes());
        }
        Err(_) => {
            out.push(wide + 1);
            out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    &bytes[spaces..]
}

fn json(bytes: &[u8], depth: usize) -> Option<(Tree, &[u8])> {
    let depth = depth.checked_sub(1)?;
    match *bytes.first()? {
        b'"' => {
            let mut len = 1;
            loop {
                match *bytes.get(len)? {
                    b'"' => break,
                    b'\\' => len += 2,
                    _ => len += 1,
                }
            }
            let (text, rest) = bytes.split_at(len + 1);
            Some((Tree::Leaf(text.to_vec()), rest))
        }
        open @ (b'[' | b'{') => {
            let close = if open == b'[' { b']' } else { b'}' };
            let (mut items, mut pairs) = (Vec::new(), Vec::new());
            let mut rest = skip_spaces(&bytes[1..]);
            while *rest.first()? != close {
                if !(items.is_empty() && pairs.is_empty()) {
                    rest = skip_spaces(rest.strip_prefix(b",")?);
                }
                let (item, after) = json(rest, depth)?;
                rest = skip_spaces(after);
                if open == b'[' {
                    items.push(item);
                } else {
                    let (value, after) = json(skip_spaces(rest.strip_prefix(b":")?), depth)?;
                    rest = skip_spaces(after);
                    pairs.push((item, value));
                }
            }
            let tree = if open == b'[' {
                Tree::List(items)
            } else {
                Tree::Map(pairs)
            };
            Some((tree, &rest[1..]))
        }
        _ => {
            let len = bytes
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
                .count();
            let (scalar, rest) = bytes.split_at(len);
            (len > 0).then(|| (Tree::Leaf(scalar.to_vec()), rest))
        }
    }
}

fn msgpack(bytes: &[u8], depth: usize) -> Option<(Tree, &[u8])> {
    let depth = depth.checked_sub(1)?;
    let number = |at: usize, len: usize| -> Option<usize> {
        let digits = bytes.get(at..at + len)?;
        Some(digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))
    };
    let first = *bytes.first()?;
    let (items, pairs, leaf_len) = match first {
        0x80..=0x8f => (0, usize::from(first & 0x0f), 1),
        0x90..=0x9f => (usize::from(first & 0x0f), 0, 1),
        0xdc => (number(1, 2)?, 0, 3),
        0xdd => (number(1, 4)?, 0, 5),
        0xde => (0, number(1, 2)?, 3),
        0xdf => (0, number(1, 4)?, 5),
        _ => {
            let len = match first {
                0xa0..=0xbf => 1 + usize::from(first & 0x1f),
                0xc4 | 0xd9 => 2 + number(1, 1)?,
                0xc5 | 0xda => 3 + number(1, 2)?,
                0xc6 | 0xdb => 5 + number(1, 4)?,
                0xc7 => 3 + number(1, 1)?,
                0xc8 => 4 + number(1, 2)?,
                0xc9 => 6 + number(1, 4)?,
                0xcc | 0xd0 => 2,
                0xcd | 0xd1 => 3,
                0xca | 0xce | 0xd2 => 5,
                0xcb | 0xcf | 0xd3 => 9,
                0xd4..=0xd8 => 2 + (1 << (first - 0xd4)),
                _ => 1,
            };
            let (leaf, rest) = bytes.split_at_checked(len)?;
            return Some((Tree::Leaf(leaf.to_vec()), rest));
        }
    };
    let is_map = matches!(first, 0x80..=0x8f | 0xde | 0xdf);
    let mut rest = &bytes[leaf_len..];
    let (mut list, mut map) = (Vec::new(), Vec::new());
    for _ in 0..items {
        let (item, after) = msgpack(rest, depth)?;
        list.push(item);
        rest = after;
    }
    for _ in 0..pairs {
        let (key, after) = msgpack(rest, depth)?;
        let (value, after) = msgpack(after, depth)?;
        map.push((key, value));
        rest = after;
    }
    Some((if is_map { Tree::Map(map) } else { Tree::List(list) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, input: &[u8]) {
        let tree = Tree::read(shape, input).unwrap();
        let mut written = Vec::new();
        tree.write(shape, &mut written);
        assert_eq!(written, input);
        assert!(tree.count() > 1);
    }

    #[test]
    fn what_was_read_is_written_the_same() {
        check(Shape::Json, br#"{"a":[1,-2.5e3,"x\"y",null,true],"b":{},"c":[]}"#);
        check(
            Shape::MsgPack,
            b"\x83\xa1a\x93\x01\xcd\x01\x00\xc0\xa1b\x80\xa1c\xc4\x02xy",
        );
    }

    #[test]
    fn what_is_broken_is_left_to_mutations_of_bytes() {
        for broken in [&b"{"[..], b"[1,]", b"[1 2]", b"\"a", b"", b"{\"a\"}"] {
            assert_eq!(Tree::read(Shape::Json, broken), None, "{broken:?}");
        }
        assert_eq!(Tree::read(Shape::MsgPack, b"\x92\x01"), None);
        assert_eq!(Tree::read(Shape::MsgPack, b"\xdd\xff\xff\xff\xff"), None);
        assert_eq!(Tree::read(Shape::Json, "[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn mutations_of_a_tree_mostly_stay_well_formed() {
        let mut chance = Chance::new(7);
        let whole = Tree::read(Shape::Json, br#"{"a":[1,2,{"b":null}],"c":"d"}"#).unwrap();
        let well_formed = (0..1_000).filter(|_| {
            let mut tree = whole.clone();
            tree.mutate(Shape::Json, Some(&whole), &mut chance);
            let mut written = Vec::new();
            tree.write(Shape::Json, &mut written);
            Tree::read(Shape::Json, &written).is_some()
        });
        assert!(well_formed.count() > 700);
    }
}
