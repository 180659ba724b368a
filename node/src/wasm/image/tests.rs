//! Images of components that no compiler would write: every type of global, several memories, modules and instances; and what
//! becomes of an encoding on its way.

use proptest::prelude::*;
use rookery_protocol::MatchId;
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use super::capture::{Access, Capture, add_to_linker};
use super::*;
use crate::matches::part::{HostPart, StartRecord};
use crate::wasm::host::HostState;
use crate::wasm::{Engine, EngineConfig, Manifest, accessor};

/// Two core modules. `state` is instantiated twice, and has a memory and a global of each type; `mixer` uses the memory and the
/// functions of the first, and has a memory of its own. It reaches the second as compilers let a module reach what is made after it:
/// through a table of `shim` that `fixup` fills. `poke` changes all of it and says what came out.
const COMPONENT: &str = r#"(component
  (core module $state
    (memory (export "memory") 1 40)
    (memory $second 2 40)
    (global $i (mut i32) (i32.const 1))
    (global $l (mut i64) (i64.const -2))
    (global $f (mut f32) (f32.const 1.5))
    (global $d (mut f64) (f64.const -2.5))
    (global $v (mut v128) (v128.const i64x2 7 9))
    (data (i32.const 100) "what a fresh instance has")
    (func (export "poke") (param $x i32) (result i64)
      (global.set $i (i32.add (i32.mul (global.get $i) (i32.const 31)) (local.get $x)))
      (global.set $l (i64.xor (i64.rotl (global.get $l) (i64.const 7)) (i64.extend_i32_u (global.get $i))))
      ;; Any bits at all, signalling NaNs among them.
      (global.set $f (f32.reinterpret_i32 (i32.or (i32.const 0x7f800001) (global.get $i))))
      (global.set $d (f64.reinterpret_i64 (i64.or (i64.const 0xfff0000000000001) (global.get $l))))
      (global.set $v (i64x2.add (global.get $v) (i64x2.splat (global.get $l))))
      (global.set $v (i64x2.replace_lane 1 (global.get $v)
        (i64.mul (i64x2.extract_lane 1 (global.get $v)) (i64.const 6364136223846793005))))
      ;; Anywhere in both memories, which grow now and then.
      (if (i32.eqz (i32.and (local.get $x) (i32.const 15))) (then
        (drop (memory.grow (i32.const 1))) (drop (memory.grow $second (i32.const 2)))))
      (i64.store (call $anywhere (memory.size)) (global.get $l))
      (i64.store $second (call $anywhere (memory.size $second)) (i64x2.extract_lane 1 (global.get $v)))
      ;; What was there at first goes.
      (i32.store8 (i32.add (i32.const 100) (i32.rem_u (local.get $x) (i32.const 25))) (i32.const 0))
      (i64.xor (i64.load (call $anywhere (memory.size)))
        (i64.xor (i64.extend_i32_u (i32.reinterpret_f32 (global.get $f)))
          (i64.xor (i64.reinterpret_f64 (global.get $d)) (i64x2.extract_lane 0 (global.get $v))))))
    (func $anywhere (param $pages i32) (result i32)
      (i32.and (i32.const -8)
        (i32.rem_u (global.get $i) (i32.sub (i32.mul (local.get $pages) (i32.const 65536)) (i32.const 8))))))
  (core module $mixer
    (import "one" "poke" (func $one (param i32) (result i64)))
    (import "one" "memory" (memory 1))
    (import "two" "poke" (func $two (param i32) (result i64)))
    (memory $own 1)
    (global $count (mut i64) (i64.const 0))
    (table 2 funcref) (elem (i32.const 0) $one $two)
    (type $poke (func (param i32) (result i64)))
    (func (export "poke") (param $x i32) (result i64)
      (global.set $count (i64.add (global.get $count) (i64.const 1)))
      (i64.store $own (i32.and (local.get $x) (i32.const 0xfff8)) (global.get $count))
      (i64.store (i32.const 4096) (global.get $count))
      (i64.xor (i64.load $own (i32.const 1024))
        (call_indirect (type $poke) (local.get $x) (i32.and (local.get $x) (i32.const 1))))))
  (core module $shim
    (type $poke (func (param i32) (result i64)))
    (table (export "table") 1 1 funcref)
    (func (export "poke") (param i32) (result i64) (call_indirect (type $poke) (local.get 0) (i32.const 0))))
  (core module $fixup
    (import "" "table" (table 1 1 funcref))
    (import "" "poke" (func $poke (param i32) (result i64)))
    (elem (i32.const 0) func $poke))
  (core instance $one (instantiate $state))
  (core instance $shim (instantiate $shim))
  (core instance $mixer (instantiate $mixer (with "one" (instance $one)) (with "two" (instance $shim))))
  (core instance $two (instantiate $state))
  (alias core export $shim "table" (core table $table))
  (core instance $filled (export "table" (table $table)) (export "poke" (func $two "poke")))
  (core instance (instantiate $fixup (with "" (instance $filled))))
  (func (export "poke") (param "x" u32) (result u64) (canon lift (core func $mixer "poke"))))"#;

/// An instance of it, outside of any match.
struct Poked {
    store: Store<HostState>,
    instance: wasmtime::component::Instance,
    poke: TypedFunc<(u32,), (u64,)>,
}

impl Poked {
    fn new(engine: &Engine, component: &Component) -> Poked {
        let start = StartRecord::of_manifest(MatchId::from_u128(0), &Manifest::unknown(), Digest([0; 32]), 0, 0);
        let mut store = Store::new(engine.wasmtime(), HostState::new(HostPart::new(start)));
        store.limiter(|state| &mut state.guard);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
        let mut linker = Linker::new(engine.wasmtime());
        add_to_linker(&mut linker).unwrap();
        let instance = linker.instantiate(&mut store, component).unwrap();
        let poke = instance.get_typed_func(&mut store, "poke").unwrap();
        Poked { store, instance, poke }
    }

    fn poke(&mut self, x: u32) -> u64 {
        self.poke.call(&mut self.store, (x,)).unwrap().0
    }

    fn image(&mut self, capture: &Capture, previous: Option<&Image>) -> Image {
        capture.image(&mut self.store, &self.instance, previous).unwrap()
    }
}

struct World {
    engine: Engine,
    component: Component,
    capture: Capture,
}

impl World {
    fn new() -> World {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let accessor = accessor::append(&wat::parse_str(COMPONENT).unwrap()).unwrap();
        let component = Component::from_binary(engine.wasmtime(), &accessor.component).unwrap();
        let access = Access::of(&component, &accessor.layout).unwrap();
        let mut fresh = Poked::new(&engine, &component);
        let capture = Capture::of_fresh(Digest([7; 32]), access, &mut fresh.store, &fresh.instance).unwrap();
        World {
            engine,
            component,
            capture,
        }
    }

    fn fresh(&self) -> Poked {
        Poked::new(&self.engine, &self.component)
    }

    fn restored(&self, image: &Image) -> Poked {
        let mut poked = self.fresh();
        self.capture.restore(&mut poked.store, &poked.instance, image).unwrap();
        poked
    }

    fn image_after(&self, pokes: u32) -> Image {
        let mut poked = self.fresh();
        for x in 0..pokes {
            poked.poke(x.wrapping_mul(2_654_435_761));
        }
        poked.image(&self.capture, None)
    }
}

#[test]
fn a_fresh_instance_has_an_empty_image() {
    let world = World::new();
    let image = world.fresh().image(&world.capture, None);
    assert!(image.memories.iter().all(|memory| memory.pages.is_empty()) && image.words.is_empty());
    assert_eq!(image.memories.len(), 5);
    assert_eq!(image.wasm_pages(), 7);
}

#[test]
fn every_memory_and_every_global_of_every_instance_is_restored() {
    let world = World::new();
    let mut original = world.fresh();
    let mut image = original.image(&world.capture, None);
    for round in 0..60_u32 {
        for x in 0..=round {
            original.poke((round * 97 + x).wrapping_mul(2_654_435_761) >> 3);
        }
        let next = original.image(&world.capture, Some(&image));
        assert_ne!(next.hash(), image.hash());
        assert_eq!(
            next,
            original.image(&world.capture, None),
            "incremental and full differ"
        );
        image = next;
        let mut copy = world.restored(&Image::decode(&image.encode()).unwrap());
        assert_eq!(copy.image(&world.capture, None), image);
        for x in [1, 16, 77, 1 << 30] {
            assert_eq!(copy.poke(x), original.poke(x));
        }
        let after = original.image(&world.capture, Some(&image));
        assert_eq!(copy.image(&world.capture, Some(&image)), after);
        image = after;
    }
    // Every word of it was put to use: two times six, and the counter.
    assert_eq!(image.words.len(), 13);
    assert!(image.wasm_pages() > 7);
}

#[test]
fn successive_images_share_what_did_not_change() {
    let world = World::new();
    let mut poked = world.fresh();
    for x in 0..500_u32 {
        poked.poke(x.wrapping_mul(2_654_435_761));
    }
    let first = poked.image(&world.capture, None);
    poked.poke(2);
    let second = poked.image(&world.capture, Some(&first));
    let pages = |image: &Image| -> Vec<Arc<Page>> {
        let pages = image.memories.iter().flat_map(|memory| &memory.pages);
        pages.map(|(_, page)| page.clone()).collect()
    };
    let (first, second) = (pages(&first), pages(&second));
    let shared = second
        .iter()
        .filter(|page| first.iter().any(|other| Arc::ptr_eq(page, other)));
    let shared = shared.count();
    assert!(shared + 8 >= second.len(), "{shared} of {}", second.len());
    assert!(shared < second.len());
}

#[test]
fn an_image_of_another_module_is_refused() {
    let world = World::new();
    let refused = |image: &Image| {
        let mut poked = world.fresh();
        world
            .capture
            .restore(&mut poked.store, &poked.instance, image)
            .unwrap_err()
    };
    let image = world.image_after(20);
    let other = |change: &dyn Fn(&mut Image)| {
        let mut image = image.clone();
        change(&mut image);
        refused(&image)
    };
    other(&|image| image.module = Digest([8; 32]));
    other(&|image| image.words.push((13, 1)));
    other(&|image| image.memories.truncate(4));
    other(&|image| image.memories[0].wasm_pages = 0);
    // Its declared maximum is 40 pages.
    other(&|image| image.memories[0].wasm_pages = 41);
    // As the image before, one of another module is of no use, and does no harm.
    let mut foreign = image.clone();
    foreign.module = Digest([8; 32]);
    assert_eq!(
        world.fresh().image(&world.capture, Some(&foreign)),
        world.fresh().image(&world.capture, None)
    );
}

#[test]
fn whatever_is_changed_in_an_encoding_is_noticed_or_says_the_same() {
    let image = World::new().image_after(3);
    let bytes = image.encode();
    assert_eq!(Image::decode(&bytes).as_ref(), Ok(&image));
    let mut unnoticed = 0;
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            // A page can be compressed in more ways than one: zeros may be copied from here or from there.
            if let Ok(decoded) = Image::decode(&damaged) {
                assert_eq!(
                    decoded.hash(),
                    image.hash(),
                    "bit {bit} of byte {at} of {}",
                    bytes.len()
                );
                unnoticed += 1;
            }
        }
    }
    assert!(unnoticed * 10 < bytes.len(), "{unnoticed} of {}", bytes.len());
    for len in 0..bytes.len() {
        assert!(Image::decode(&bytes[..len]).is_err());
    }
    assert!(Image::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    let mut newer = bytes;
    newer[0] = VERSION + 1;
    assert_eq!(Image::decode(&newer), Err(ImageError::Version(VERSION + 1)));
}

fn page() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), PAGE_BYTES),
        (any::<u8>(), 0..PAGE_BYTES).prop_map(|(byte, at)| {
            let mut page = vec![byte; PAGE_BYTES];
            page[at] ^= 1;
            page
        }),
    ]
}

fn memory() -> impl Strategy<Value = Memory> {
    let pages = prop::collection::btree_map(0..160_u32, page(), 0..6);
    (pages, 10..70_000_u32).prop_map(|(pages, wasm_pages)| {
        let mut packer = Packer::new();
        let mut pack = |(index, page): (u32, Vec<u8>)| (index, Arc::new(packer.pack(&page, xxh3_128(&page))));
        Memory {
            wasm_pages: wasm_pages.min(WASM_PAGES_MAX),
            pages: pages.into_iter().map(&mut pack).collect(),
        }
    })
}

fn image() -> impl Strategy<Value = Image> {
    let words = prop::collection::btree_map(0..u32::MAX, any::<u64>(), 0..20);
    let memories = prop::collection::vec(memory(), 0..4);
    (any::<[u8; 32]>(), memories, words).prop_map(|(module, memories, words)| Image {
        module: Digest(module),
        memories,
        words: words.into_iter().collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_comes_back_as_it_was(image in image()) {
        let bytes = image.encode();
        let back = Image::decode(&bytes).unwrap();
        prop_assert_eq!(back.hash(), image.hash());
        prop_assert_eq!(back, image);
    }

    #[test]
    fn nonsense_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), module in any::<[u8; 32]>()) {
        bytes.splice(0..0, [VERSION].into_iter().chain(module));
        prop_assert!(Image::decode(&bytes).is_err());
    }
}
