//! What a match's guest has in memory between two events: the pages of its linear memories and the mutable globals that differ from a
//! fresh instance of the same module. It is data: it can be kept, sent to another node and compared there. How it comes out of an
//! instance and back into one is `capture`.
//!
//! Invariants: the same state has the same hash, however the image came about; a decoded image is whole, page for page, so that
//! restoring it can fail only for reasons of the machine.

use std::sync::Arc;

use lz4_flex::block::{self, CompressTable};
use ring::digest::{Context, SHA256};
use rookery_protocol::Digest;
use xxhash_rust::xxh3::xxh3_128;

pub(super) mod capture;

/// The unit in which memory is compared and kept.
const PAGE_BYTES: usize = 4 << 10;

/// Our pages in one of WebAssembly's.
const PAGES_A_WASM_PAGE: u32 = 16;

/// All of a 32-bit memory.
const WASM_PAGES_MAX: u32 = 65_536;

/// The first byte of an encoding.
const VERSION: u8 = 1;

/// More memories than any component may have (`Limits::instances`), so that a damaged number is noticed before it is believed.
const MEMORIES_MAX: u32 = 1_024;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The state of a guest. Successive images share the pages that did not change between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The module whose fresh instance this is compared with.
    module: Digest,
    memories: Vec<Memory>,
    /// Words of mutable globals that differ, by number.
    words: Vec<(u32, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Memory {
    wasm_pages: u32,
    /// Those that differ, in ascending order.
    pages: Vec<(u32, Arc<Page>)>,
}

/// One page that differs from the fresh instance's.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    hash: u128,
    /// Compressed; as it is if its length is that of a page.
    data: Box<[u8]>,
}

/// These bytes are not an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("an image of version {0}, which this build does not know")]
    Version(u8),
    #[error("an image is damaged: {0}")]
    Damaged(&'static str),
}

impl Image {
    /// The module of whose matches this is one's state.
    pub fn module(&self) -> Digest {
        self.module
    }

    /// All linear memories together, in pages of 64 KiB.
    pub fn wasm_pages(&self) -> u32 {
        self.memories.iter().map(|memory| memory.wasm_pages).sum()
    }

    /// What it takes up, not counting that its pages may be shared with other images.
    pub fn bytes(&self) -> usize {
        let pages = self.memories.iter().flat_map(|memory| &memory.pages);
        let pages: usize = pages.map(|(_, page)| page.data.len() + size_of::<Page>() + 16).sum();
        pages + self.words.len() * size_of::<(u32, u64)>()
    }

    /// Names the content: two instances of a module whose images have the same hash go on alike.
    pub fn hash(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.module.0);
        for memory in &self.memories {
            context.update(&memory.wasm_pages.to_le_bytes());
            context.update(&(memory.pages.len() as u32).to_le_bytes());
            for (index, page) in &memory.pages {
                context.update(&index.to_le_bytes());
                context.update(&page.hash.to_le_bytes());
            }
        }
        for (word, value) in &self.words {
            context.update(&word.to_le_bytes());
            context.update(&value.to_le_bytes());
        }
        let digest = context.finish();
        Digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The image as bytes, with its hash at the end.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + 128);
        out.push(VERSION);
        out.extend_from_slice(&self.module.0);
        put_number(&mut out, self.memories.len() as u32);
        for memory in &self.memories {
            put_number(&mut out, memory.wasm_pages);
            put_number(&mut out, memory.pages.len() as u32);
            let mut next = 0;
            for (index, page) in &memory.pages {
                put_number(&mut out, index - next);
                next = index + 1;
                out.extend_from_slice(&page.hash.to_le_bytes());
                put_number(&mut out, page.data.len() as u32);
                out.extend_from_slice(&page.data);
            }
        }
        put_number(&mut out, self.words.len() as u32);
        let mut next = 0;
        for (word, value) in &self.words {
            put_number(&mut out, word - next);
            next = word + 1;
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.hash().0);
        out
    }

    /// Reads what [`Image::encode`] wrote, and checks every page of it. Takes no more memory than a small multiple of the input.
    pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
        let mut input = Input(bytes);
        let image = Self::content(&mut input)?;
        let hash = Digest(input.array()?);
        if !input.0.is_empty() {
            return Err(ImageError::Damaged("bytes follow its end"));
        }
        if image.hash() != hash {
            return Err(ImageError::Damaged("its hash is not that of its content"));
        }
        Ok(image)
    }

    /// All but the hash at the end.
    fn content(input: &mut Input<'_>) -> Result<Image, ImageError> {
        let version = input.byte()?;
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let module = Digest(input.array()?);
        let count = input.number()?;
        if count > MEMORIES_MAX {
            return Err(ImageError::Damaged("more memories than a module may have"));
        }
        let mut memories = Vec::new();
        for _ in 0..count {
            memories.push(input.memory()?);
        }
        let count = input.number()? as usize;
        // A word takes nine bytes at least.
        if count > input.0.len() / 9 {
            return Err(ImageError::Damaged("more globals than bytes"));
        }
        let mut words = Vec::with_capacity(count);
        let mut next = 0_u32;
        for _ in 0..count {
            let word = input.index(&mut next)?;
            words.push((word, u64::from_le_bytes(input.array()?)));
        }
        Ok(Image {
            module,
            memories,
            words,
        })
    }

    /// For the fuzzer, which does not guess hashes: reads what has none at its end.
    pub(crate) fn decode_unsealed(bytes: &[u8]) -> Result<Image, ImageError> {
        Self::content(&mut Input(bytes))
    }

    /// For the fuzzer too: one page of one memory, and a global.
    pub(crate) fn sample() -> Image {
        let mut page = ZEROS;
        page[1_000..1_005].copy_from_slice(b"hello");
        let page = Packer::new().pack(&page, xxh3_128(&page));
        let pages = vec![(17, Arc::new(page))];
        Image {
            module: Digest([7; 32]),
            memories: vec![Memory { wasm_pages: 17, pages }],
            words: vec![(1, 1_048_576)],
        }
    }
}

impl Page {
    /// Writes the page out; `to` has its size.
    fn unpack(&self, to: &mut [u8]) -> Result<(), ImageError> {
        if self.data.len() == PAGE_BYTES {
            to.copy_from_slice(&self.data);
            return Ok(());
        }
        match block::decompress_into(&self.data, to) {
            Ok(PAGE_BYTES) => Ok(()),
            Ok(_) | Err(_) => Err(ImageError::Damaged("a page does not unpack")),
        }
    }
}

/// Compresses pages, one after the other, with the same buffers.
struct Packer {
    table: CompressTable,
    buffer: Vec<u8>,
}

impl Packer {
    fn new() -> Packer {
        Packer {
            table: CompressTable::small(),
            buffer: vec![0; block::get_maximum_output_size(PAGE_BYTES)],
        }
    }

    fn pack(&mut self, page: &[u8], hash: u128) -> Page {
        let data = match block::compress_into_with_table(page, &mut self.buffer, &mut self.table) {
            Ok(len) if len < PAGE_BYTES => &self.buffer[..len],
            Ok(_) | Err(_) => page,
        };
        Page {
            hash,
            data: data.into(),
        }
    }
}

/// Seven bits a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left of an encoding.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], ImageError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(ImageError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, ImageError> {
        Ok(self.bytes(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("exactly so many bytes were taken"))
    }

    fn number(&mut self) -> Result<u32, ImageError> {
        let mut number = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            let bits = u32::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ImageError::Damaged("a number is too large"))
    }

    /// An index that is given by its distance from the first that it could be.
    fn index(&mut self, next: &mut u32) -> Result<u32, ImageError> {
        let index = next.checked_add(self.number()?);
        let after = index.and_then(|index| index.checked_add(1));
        let (Some(index), Some(after)) = (index, after) else {
            return Err(ImageError::Damaged("an index is too large"));
        };
        *next = after;
        Ok(index)
    }

    fn memory(&mut self) -> Result<Memory, ImageError> {
        let wasm_pages = self.number()?;
        if wasm_pages > WASM_PAGES_MAX {
            return Err(ImageError::Damaged("a memory is larger than memories can be"));
        }
        let count = self.number()?;
        // A page takes 18 bytes at least.
        if count > wasm_pages * PAGES_A_WASM_PAGE || count as usize > self.0.len() / 18 {
            return Err(ImageError::Damaged("more pages than there is room for"));
        }
        let mut pages = Vec::with_capacity(count as usize);
        let mut unpacked = [0; PAGE_BYTES];
        let mut next = 0;
        for _ in 0..count {
            let index = self.index(&mut next)?;
            if index >= wasm_pages * PAGES_A_WASM_PAGE {
                return Err(ImageError::Damaged("a page lies outside of its memory"));
            }
            let hash = u128::from_le_bytes(self.array()?);
            let len = self.number()? as usize;
            if len > PAGE_BYTES {
                return Err(ImageError::Damaged("a page is larger than pages are"));
            }
            let page = Page {
                hash,
                data: self.bytes(len)?.into(),
            };
            page.unpack(&mut unpacked)?;
            if xxh3_128(&unpacked) != hash {
                return Err(ImageError::Damaged("a page's hash is not that of its content"));
            }
            pages.push((index, Arc::new(page)));
        }
        Ok(Memory { wasm_pages, pages })
    }
}

#[cfg(test)]
mod tests;
