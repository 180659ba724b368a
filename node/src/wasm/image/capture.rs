//! Takes images of instances and puts them back, through the accessor. All of it is the host's own work: no budget of the guest's is
//! touched, and the guest's code does not run.

use std::sync::Arc;

use rookery_protocol::Digest;
use wasmtime::component::{Component, ComponentExportIndex, Instance, Linker, WasmList};
use wasmtime::{Store, StoreContextMut};
use xxhash_rust::xxh3::xxh3_128;

use super::{Image, Memory, PAGE_BYTES, Packer, Page, ZEROS};
use crate::matches::event::TrapKind;
use crate::wasm::accessor::{HOST, IMAGE, Layout, MemoryNames, READ, SEEK, TAKE, WRITE};
use crate::wasm::host::HostState;
use crate::wasm::trap::Failure;

/// What is shown at once: a list may not be as long as a whole memory.
const SHOWN_BYTES: u64 = 64 << 20;

/// What is put at once, at most: pages that lie next to each other.
const RUN_PAGES: usize = 64;

/// How to take images of a module's instances, and what its fresh instance looks like. Shared by all of its matches.
pub(in crate::wasm) struct Capture {
    module: Digest,
    access: Access,
    base: Base,
}

/// Where the accessor's functions are.
pub(in crate::wasm) struct Access {
    seek: ComponentExportIndex,
    read: ComponentExportIndex,
    write: ComponentExportIndex,
    memories: Vec<MemoryAccess>,
    words: u32,
}

struct MemoryAccess {
    size: ComponentExportIndex,
    grow: ComponentExportIndex,
    show: ComponentExportIndex,
    put: ComponentExportIndex,
}

/// A fresh instance.
struct Base {
    memories: Vec<BaseMemory>,
    words: Vec<u64>,
}

/// Pages of zeros are none: most of a fresh memory is.
struct BaseMemory {
    pages: Vec<Option<Box<[u8]>>>,
}

impl BaseMemory {
    fn page(&self, index: usize) -> &[u8] {
        let page = self.pages.get(index).and_then(Option::as_deref);
        page.unwrap_or(&ZEROS)
    }
}

/// The host's side of the accessor.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.instance(HOST)?.func_wrap(
        TAKE,
        |mut store: StoreContextMut<'_, HostState>, (shown,): (WasmList<u8>,)| {
            store.data_mut().shown = Some(shown);
            Ok(())
        },
    )
}

impl Access {
    pub(in crate::wasm) fn of(component: &Component, layout: &Layout) -> wasmtime::Result<Access> {
        let index = |instance: Option<&ComponentExportIndex>, name: &str| {
            component
                .get_export_index(instance, name)
                .ok_or_else(|| wasmtime::Error::msg("the accessor lacks a function"))
        };
        let interface = index(None, IMAGE)?;
        let function = |name: &str| index(Some(&interface), name);
        let memory = |memory| {
            let names = MemoryNames::of(memory);
            Ok(MemoryAccess {
                size: function(&names.size)?,
                grow: function(&names.grow)?,
                show: function(&names.show)?,
                put: function(&names.put)?,
            })
        };
        Ok(Access {
            seek: function(SEEK)?,
            read: function(READ)?,
            write: function(WRITE)?,
            memories: (0..layout.memories).map(memory).collect::<wasmtime::Result<_>>()?,
            words: layout.words,
        })
    }

    /// The size of a memory in WebAssembly's pages, and its bytes, some at a time.
    fn show(
        &self,
        memory: &MemoryAccess,
        store: &mut Store<HostState>,
        instance: &Instance,
        mut each: impl FnMut(&[u8]),
    ) -> wasmtime::Result<u32> {
        let size = instance.get_typed_func::<(), (u32,)>(&mut *store, &memory.size)?;
        let show = instance.get_typed_func::<(u32, u32), ()>(&mut *store, &memory.show)?;
        let (wasm_pages,) = size.call(&mut *store, ())?;
        let bytes = u64::from(wasm_pages) << 16;
        let mut at = 0;
        while at < bytes {
            let len = SHOWN_BYTES.min(bytes - at);
            show.call(&mut *store, (at as u32, len as u32))?;
            let shown = store.data_mut().shown.take();
            let shown = shown.ok_or_else(|| wasmtime::Error::msg("the accessor showed nothing"))?;
            each(shown.as_le_slice(&*store));
            at += len;
        }
        Ok(wasm_pages)
    }

    fn words(&self, store: &mut Store<HostState>, instance: &Instance) -> wasmtime::Result<Vec<u64>> {
        let read = instance.get_typed_func::<(u32,), (u64,)>(&mut *store, &self.read)?;
        (0..self.words)
            .map(|word| Ok(read.call(&mut *store, (word,))?.0))
            .collect()
    }
}

impl Capture {
    /// Takes a fresh instance as what later images are compared with.
    pub(in crate::wasm) fn of_fresh(
        module: Digest,
        access: Access,
        store: &mut Store<HostState>,
        instance: &Instance,
    ) -> wasmtime::Result<Capture> {
        let mut memories = Vec::with_capacity(access.memories.len());
        for memory in &access.memories {
            let mut pages = Vec::new();
            access.show(memory, store, instance, |bytes| {
                let kept = bytes
                    .chunks(PAGE_BYTES)
                    .map(|page| (page != ZEROS).then(|| page.into()));
                pages.extend(kept);
            })?;
            memories.push(BaseMemory { pages });
        }
        let words = access.words(store, instance)?;
        Ok(Capture {
            module,
            access,
            base: Base { memories, words },
        })
    }

    /// What differs from a fresh instance. Pages that `previous` has already are shared with it.
    pub(in crate::wasm) fn image(
        &self,
        store: &mut Store<HostState>,
        instance: &Instance,
        previous: Option<&Image>,
    ) -> wasmtime::Result<Image> {
        let previous = previous.filter(|image| image.module == self.module);
        let mut packer = Packer::new();
        let mut memories = Vec::with_capacity(self.access.memories.len());
        for (index, memory) in self.access.memories.iter().enumerate() {
            let mut collector = Collector {
                packer: &mut packer,
                base: &self.base.memories[index],
                previous: previous
                    .and_then(|image| image.memories.get(index))
                    .map_or(&[], |memory| &memory.pages),
                pages: Vec::new(),
                next: 0,
            };
            let wasm_pages = self
                .access
                .show(memory, store, instance, |bytes| collector.collect(bytes))?;
            let pages = collector.pages;
            memories.push(Memory { wasm_pages, pages });
        }
        let words = self.access.words(store, instance)?;
        let words = (0..).zip(words).zip(&self.base.words);
        let words = words
            .filter(|((_, is), was)| is != *was)
            .map(|(word, _)| word)
            .collect();
        Ok(Image {
            module: self.module,
            memories,
            words,
        })
    }

    /// Makes a fresh instance what the image says.
    pub(in crate::wasm) fn restore(
        &self,
        store: &mut Store<HostState>,
        instance: &Instance,
        image: &Image,
    ) -> Result<(), Failure> {
        let fits = image.module == self.module
            && image.memories.len() == self.access.memories.len()
            && image.words.last().is_none_or(|(word, _)| *word < self.access.words);
        if !fits {
            return Err(Failure::new(TrapKind::Trap, "the image is of another module"));
        }
        let failed = |error| Failure::of_call(&error, None, None);
        for (memory, image) in self.access.memories.iter().zip(&image.memories) {
            self.grow(memory, store, instance, image.wasm_pages)?;
            self.put(memory, store, instance, &image.pages).map_err(failed)?;
        }
        self.write(store, instance, &image.words).map_err(failed)
    }

    fn grow(
        &self,
        memory: &MemoryAccess,
        store: &mut Store<HostState>,
        instance: &Instance,
        wasm_pages: u32,
    ) -> Result<(), Failure> {
        let mut call = || {
            let size = instance.get_typed_func::<(), (u32,)>(&mut *store, &memory.size)?;
            let (size,) = size.call(&mut *store, ())?;
            let Some(more) = wasm_pages.checked_sub(size) else {
                return Ok(Err(Failure::new(
                    TrapKind::Trap,
                    "the image has less memory than a fresh instance",
                )));
            };
            if more == 0 {
                return Ok(Ok(()));
            }
            let grow = instance.get_typed_func::<(u32,), (u32,)>(&mut *store, &memory.grow)?;
            Ok(match grow.call(&mut *store, (more,))? {
                (u32::MAX,) => {
                    let limit = store.data().part.start.limits.memory_bytes;
                    let message = format!("the image needs memory beyond {limit} bytes");
                    Err(Failure::new(TrapKind::Memory, message))
                }
                _ => Ok(()),
            })
        };
        call().unwrap_or_else(|error: wasmtime::Error| Err(Failure::of_call(&error, None, None)))
    }

    /// Only pages that differ are written, so that the others stay what they are in every instance: not even there.
    fn put(
        &self,
        memory: &MemoryAccess,
        store: &mut Store<HostState>,
        instance: &Instance,
        pages: &[(u32, Arc<Page>)],
    ) -> wasmtime::Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let seek = instance.get_typed_func::<(u32,), ()>(&mut *store, &self.access.seek)?;
        let mut buffer = vec![0; pages.len().min(RUN_PAGES) * PAGE_BYTES];
        for run in pages.chunk_by(|(before, _), (after, _)| before + 1 == *after) {
            for run in run.chunks(RUN_PAGES) {
                let bytes = &mut buffer[..run.len() * PAGE_BYTES];
                for (to, (_, page)) in bytes.chunks_mut(PAGE_BYTES).zip(run) {
                    page.unpack(to).map_err(wasmtime::Error::new)?;
                }
                seek.call(&mut *store, (run[0].0 * PAGE_BYTES as u32,))?;
                let put = instance.get_typed_func::<(&[u8],), ()>(&mut *store, &memory.put)?;
                put.call(&mut *store, (bytes,))?;
            }
        }
        Ok(())
    }

    fn write(&self, store: &mut Store<HostState>, instance: &Instance, words: &[(u32, u64)]) -> wasmtime::Result<()> {
        let write = instance.get_typed_func::<(u32, u64), ()>(&mut *store, &self.access.write)?;
        for word in words {
            write.call(&mut *store, *word)?;
        }
        Ok(())
    }
}

/// Gathers the pages of one memory that differ.
struct Collector<'a> {
    packer: &'a mut Packer,
    base: &'a BaseMemory,
    /// Those of the image before that have not been passed yet.
    previous: &'a [(u32, Arc<Page>)],
    pages: Vec<(u32, Arc<Page>)>,
    /// The first page of what comes next.
    next: u32,
}

impl<'a> Collector<'a> {
    fn collect(&mut self, bytes: &[u8]) {
        for page in bytes.chunks(PAGE_BYTES) {
            let index = self.next;
            self.next += 1;
            let before = self.take_previous(index);
            if page == self.base.page(index as usize) {
                continue;
            }
            let hash = xxh3_128(page);
            let kept = before.filter(|before| before.hash == hash).cloned();
            let kept = kept.unwrap_or_else(|| Arc::new(self.packer.pack(page, hash)));
            self.pages.push((index, kept));
        }
    }

    /// The page of this number in the image before; both are gone through in the same order.
    fn take_previous(&mut self, index: u32) -> Option<&'a Arc<Page>> {
        match self.previous {
            [(at, page), rest @ ..] if *at == index => {
                self.previous = rest;
                Some(page)
            }
            _ => None,
        }
    }
}
