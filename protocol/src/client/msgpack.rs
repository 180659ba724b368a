//! MessagePack as far as the client protocol needs it: reading the head of a value, stepping over a value, and writing heads.
//! Nothing here allocates for a length that a frame merely claims, and nothing recurses: nesting costs a counter, not stack.

use super::value::Fault;

/// What a value is, read from its first bytes. Lengths are in bytes for `Str`, `Bin` and `Ext`, in items for `Array`, and in
/// pairs for `Map`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Head {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Always below zero; other integers are `Unsigned`, whatever their format was.
    Negative(i64),
    Float(f64),
    Str(u32),
    Bin(u32),
    Ext(u32),
    Array(u32),
    Map(u32),
}

const TRUNCATED: Fault = Fault::fixed("the frame ends in the middle of a value");

/// What is left of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, len: u32) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len as usize).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.bytes().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// Reads the head of the next value; its contents follow.
    pub(super) fn head(&mut self) -> Result<Head, Fault> {
        let signed = |value: i64| match u64::try_from(value) {
            Ok(value) => Head::Unsigned(value),
            Err(_) => Head::Negative(value),
        };
        Ok(match self.u8()? {
            byte @ 0x00..=0x7f => Head::Unsigned(byte.into()),
            byte @ 0x80..=0x8f => Head::Map((byte & 0x0f).into()),
            byte @ 0x90..=0x9f => Head::Array((byte & 0x0f).into()),
            byte @ 0xa0..=0xbf => Head::Str((byte & 0x1f).into()),
            0xc0 => Head::Nil,
            0xc1 => return Err(Fault::fixed("0xc1 is not a MessagePack value")),
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4 => Head::Bin(self.u8()?.into()),
            0xc5 => Head::Bin(self.u16()?.into()),
            0xc6 => Head::Bin(self.u32()?),
            0xc7 => self.ext(|cursor| cursor.u8().map(u32::from))?,
            0xc8 => self.ext(|cursor| cursor.u16().map(u32::from))?,
            0xc9 => self.ext(Self::u32)?,
            0xca => Head::Float(f32::from_be_bytes(self.bytes()?).into()),
            0xcb => Head::Float(f64::from_be_bytes(self.bytes()?)),
            0xcc => Head::Unsigned(self.u8()?.into()),
            0xcd => Head::Unsigned(self.u16()?.into()),
            0xce => Head::Unsigned(self.u32()?.into()),
            0xcf => Head::Unsigned(u64::from_be_bytes(self.bytes()?)),
            0xd0 => signed(i8::from_be_bytes(self.bytes()?).into()),
            0xd1 => signed(i16::from_be_bytes(self.bytes()?).into()),
            0xd2 => signed(i32::from_be_bytes(self.bytes()?).into()),
            0xd3 => signed(i64::from_be_bytes(self.bytes()?)),
            0xd4 => self.ext(|_| Ok(1))?,
            0xd5 => self.ext(|_| Ok(2))?,
            0xd6 => self.ext(|_| Ok(4))?,
            0xd7 => self.ext(|_| Ok(8))?,
            0xd8 => self.ext(|_| Ok(16))?,
            0xd9 => Head::Str(self.u8()?.into()),
            0xda => Head::Str(self.u16()?.into()),
            0xdb => Head::Str(self.u32()?),
            0xdc => Head::Array(self.u16()?.into()),
            0xdd => Head::Array(self.u32()?),
            0xde => Head::Map(self.u16()?.into()),
            0xdf => Head::Map(self.u32()?),
            byte @ 0xe0..=0xff => Head::Negative(i64::from(byte as i8)),
        })
    }

    /// An extension's head: its length, then its type byte, which means nothing to us.
    fn ext(&mut self, len: impl FnOnce(&mut Self) -> Result<u32, Fault>) -> Result<Head, Fault> {
        let len = len(self)?;
        self.u8()?;
        Ok(Head::Ext(len))
    }

    /// Steps over one value with all that is in it, and returns its bytes.
    pub(super) fn value(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.rest;
        let mut pending: u64 = 1;
        while pending > 0 {
            pending -= 1;
            match self.head()? {
                Head::Nil | Head::Bool(_) | Head::Unsigned(_) | Head::Negative(_) | Head::Float(_) => {}
                Head::Str(len) | Head::Bin(len) | Head::Ext(len) => {
                    self.take(len)?;
                }
                Head::Array(items) => pending += u64::from(items),
                Head::Map(pairs) => pending += 2 * u64::from(pairs),
            }
            // Every value takes a byte at least, so a claim beyond what is left is a lie and is refused before it is walked.
            if pending > self.rest.len() as u64 {
                return Err(TRUNCATED);
            }
        }
        Ok(&start[..start.len() - self.rest.len()])
    }
}

pub(super) fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
    }
}

pub(super) fn write_signed(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => write_unsigned(out, value as u64),
        -32..0 => out.push(value as u8),
        -0x80..-32 => out.extend([0xd0, value as u8]),
        -0x8000..-0x80 => {
            out.push(0xd1);
            out.extend((value as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend((value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
    }
}

pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    out.push(0xcb);
    out.extend(value.to_be_bytes());
}

pub(super) fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub(super) fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(super) fn write_str(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=0x1f => out.push(0xa0 | len as u8),
        len @ 0x20..=0xff => out.extend([0xd9, len as u8]),
        len => write_len(out, len, 0xda),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..=0xff => out.extend([0xc4, len as u8]),
        len => write_len(out, len, 0xc5),
    }
    out.extend_from_slice(bytes);
}

pub(super) fn write_array(out: &mut Vec<u8>, items: usize) {
    match items {
        0..=0x0f => out.push(0x90 | items as u8),
        _ => write_len(out, items, 0xdc),
    }
}

pub(super) fn write_map(out: &mut Vec<u8>, pairs: usize) {
    match pairs {
        0..=FIX_MAP_MAX => out.push(FIX_MAP | pairs as u8),
        _ => write_len(out, pairs, 0xde),
    }
}

/// A map of up to 15 pairs has its count in the low bits of this one byte.
pub(super) const FIX_MAP: u8 = 0x80;
pub(super) const FIX_MAP_MAX: usize = 15;

/// Writes a 16-bit length behind `marker`, or a 32-bit one behind the marker after it, as the format has it for all four kinds.
fn write_len(out: &mut Vec<u8>, len: usize, marker: u8) {
    match u16::try_from(len) {
        Ok(len) => {
            out.push(marker);
            out.extend(len.to_be_bytes());
        }
        Err(_) => {
            out.push(marker + 1);
            out.extend(u32::try_from(len).expect("no message comes near 4 GiB").to_be_bytes());
        }
    }
}
