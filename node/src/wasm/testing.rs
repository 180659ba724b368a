//! Guests for tests: match logic written as WebAssembly text, turned into components on the spot, so that the runtime's tests need no
//! wasm target. The text speaks the canonical ABI by hand, which lets a test say things that no compiler would.

use std::collections::BTreeMap;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A guest under construction: a manifest, and what each export does. Without more, every export does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) version: String,
    /// 0 is `json`, 1 is `binary`.
    pub(crate) codec: u8,
    pub(crate) durability: u8,
    pub(crate) tick_hz: u32,
    pub(crate) min_players: u32,
    pub(crate) max_players: u32,
    pub(crate) max_spectators: u32,
    bodies: BTreeMap<&'static str, String>,
    items: String,
    pages: u32,
    declines_images: bool,
}

/// Exports, their parameters, their result, and what they do when a test says nothing.
const EXPORTS: &[(&str, &str, &str, &str)] = &[
    ("describe", "", "i32", "(call $manifest)"),
    (
        "start",
        "(param $id i32) (param $id_len i32) (param $named i32) (param $name i32) (param $name_len i32) (param $params i32) \
         (param $params_len i32) (param $invited i32) (param $invited_len i32) (param $extra i32) (param $extra_len i32)",
        "i32",
        "(call $ok)",
    ),
    (
        "join",
        "(param $seat i32) (param $id i32) (param $id_len i32) (param $name i32) (param $name_len i32) (param $role i32) \
         (param $has_team i32) (param $team i32) (param $extra i32) (param $extra_len i32) (param $ptr i32) (param $len i32)",
        "i32",
        "(call $ok)",
    ),
    ("leave", "(param $seat i32) (param $reason i32)", "", ""),
    (
        "message",
        "(param $seat i32) (param $n i32) (param $ptr i32) (param $len i32)",
        "",
        "",
    ),
    ("tick", "(param $elapsed i32)", "", ""),
    ("timer", "(param $id i32)", "", ""),
    (
        "receive",
        "(param $from i32) (param $from_len i32) (param $ptr i32) (param $len i32)",
        "",
        "",
    ),
    (
        "answer",
        "(param $request i32) (param $is_error i32) (param $ptr i32) (param $len i32)",
        "",
        "",
    ),
    (
        "signal",
        "(param $topic i32) (param $topic_len i32) (param $ptr i32) (param $len i32)",
        "",
        "",
    ),
    ("resync", "(param $seat i32)", "", ""),
    ("save", "", "i32", "(call $bytes (i32.const 0) (i32.const 0))"),
    (
        "load",
        "(param $id i32) (param $id_len i32) (param $named i32) (param $name i32) (param $name_len i32) (param $params i32) \
         (param $params_len i32) (param $invited i32) (param $invited_len i32) (param $extra i32) (param $extra_len i32) \
         (param $by i32) (param $by_len i32) (param $ptr i32) (param $len i32)",
        "i32",
        "(call $ok)",
    ),
];

/// Every import, under the name by which the bodies call it.
const IMPORTS: &[(&str, &str, &str, &str)] = &[
    ("room", "send", "(param i32 i32 i32 i32 i32)", "$send"),
    ("room", "publish", "(param i32 i32 i32 i32 i32 i32 i32)", "$publish"),
    ("room", "kick", "(param i32 i32 i32)", "$kick"),
    ("room", "add-bot", "(param i32 i32 i32)", "$add_bot"),
    ("room", "set-joinable", "(param i32)", "$set_joinable"),
    ("room", "set-label", "(param i32 i32)", "$set_label"),
    ("room", "finish", "(param i32 i32)", "$finish"),
    ("clock", "now", "(result f64)", "$now"),
    ("clock", "unix", "(result f64)", "$unix"),
    ("clock", "set-timer", "(param i32 i32)", "$set_timer"),
    ("clock", "cancel-timer", "(param i32)", "$cancel_timer"),
    ("random", "bits", "(result i64)", "$bits"),
    ("random", "below", "(param i32) (result i32)", "$below"),
    ("random", "unit", "(result f64)", "$unit"),
    ("log", "write", "(param i32 i32 i32)", "$log"),
    ("mail", "tell", "(param i32 i32 i32 i32 i32)", "$tell"),
    ("mail", "transfer", "(param i32 i32 i32 i32 i32 i32)", "$transfer"),
    ("mail", "say", "(param i32 i32 i32 i32)", "$say"),
    ("mail", "claim", "(param i32 i32 i32)", "$claim"),
    ("mail", "release", "(param i32 i32)", "$release"),
    (
        "storage",
        "read",
        "(param i32 i32 i32 i32 i32 i32 i32 i32)",
        "$storage_read",
    ),
    (
        "storage",
        "write",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
        "$storage_write",
    ),
    (
        "storage",
        "scan",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)",
        "$storage_scan",
    ),
    ("content", "read", "(param i32 i32 i32 i32 i32)", "$content_read"),
    ("backfill", "open", "(param i32)", "$backfill_open"),
    ("backfill", "close", "", "$backfill_close"),
];

/// Where the manifest is put; results of other exports are at 256.
const MANIFEST: u32 = 512;
/// Where bodies may scribble.
pub(crate) const SCRATCH: u32 = 768;
/// Where texts begin.
const TEXTS: u32 = 1_024;
/// Where arguments are put; everything below belongs to the guest.
const HEAP: u32 = 65_536;

impl Guest {
    /// A guest of the `binary` codec for up to eight players and two spectators.
    pub(crate) fn new(name: &str) -> Guest {
        Guest {
            name: name.into(),
            version: "1.0.0".into(),
            codec: 1,
            durability: 0,
            tick_hz: 0,
            min_players: 1,
            max_players: 8,
            max_spectators: 2,
            bodies: BTreeMap::new(),
            items: String::new(),
            pages: 4,
            declines_images: false,
        }
    }

    pub(crate) fn json(self) -> Guest {
        Guest { codec: 0, ..self }
    }

    pub(crate) fn ticking(self, tick_hz: u32) -> Guest {
        Guest { tick_hz, ..self }
    }

    pub(crate) fn pages(self, pages: u32) -> Guest {
        Guest { pages, ..self }
    }

    /// With `extra` (image, none) in its manifest.
    pub(crate) fn declining_images(self) -> Guest {
        Guest {
            declines_images: true,
            ..self
        }
    }

    /// What an export does. `@'text'` in it stands for the address and the length of a text.
    pub(crate) fn on(mut self, export: &'static str, body: impl Into<String>) -> Guest {
        assert!(EXPORTS.iter().any(|(name, ..)| *name == export), "no export {export}");
        self.bodies.insert(export, body.into());
        self
    }

    /// More functions, globals, tables.
    pub(crate) fn with(mut self, items: &str) -> Guest {
        self.items.push_str(items);
        self
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        let core = wat::parse_str(self.wat()).unwrap_or_else(|error| panic!("{error}\n{}", self.wat()));
        component_of(core)
    }

    fn wat(&self) -> String {
        let mut texts = Texts::default();
        let mut wat = String::from("(module\n");
        for (interface, function, signature, name) in IMPORTS {
            wat += &format!("(import \"rookery:game/{interface}@1.0.0\" \"{function}\" (func {name} {signature}))\n");
        }
        wat += &format!(
            "(memory (export \"memory\") {})\n(global $heap (mut i32) (i32.const {HEAP}))\n",
            self.pages
        );
        wat += REALLOC;
        wat += &self.manifest(&mut texts);
        wat += &texts.place(&self.items);
        for (export, params, result, default) in EXPORTS {
            let body = self.bodies.get(export).map_or(*default, String::as_str);
            let body = texts.place(body);
            let result = if result.is_empty() {
                String::new()
            } else {
                format!("(result {result})")
            };
            let names: Vec<&str> = params.split(['(', ' ']).filter(|word| word.starts_with('$')).collect();
            let arguments: String = names.iter().map(|name| format!("(local.get {name}) ")).collect();
            wat += &format!(
                "(func $on_{export} {params} {result} (local $i i32) (local $x i64)\n{body})\n\
                 (func (export \"{export}\") {params} {result}\n\
                 (call $on_{export} {arguments}) (global.set $heap (i32.const {HEAP})))\n"
            );
        }
        wat += &texts.data;
        wat + ")"
    }

    fn manifest(&self, texts: &mut Texts) -> String {
        let mut body = String::new();
        let store =
            |offset: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))\n", MANIFEST + offset);
        let store8 =
            |offset: u32, value: u8| format!("(i32.store8 (i32.const {}) (i32.const {value}))\n", MANIFEST + offset);
        for (offset, text) in [(0, &self.name), (8, &self.version)] {
            let (at, len) = texts.add(text);
            body += &store(offset, at);
            body += &store(offset + 4, len);
        }
        body += &store8(16, self.codec);
        body += &store8(17, self.durability);
        let numbers = [
            self.tick_hz,
            self.min_players,
            self.max_players,
            self.max_spectators,
            15_000,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            body += &store(20 + 4 * index as u32, number);
        }
        body += &store8(40, 1);
        body += &store8(41, 1);
        if self.declines_images {
            for (offset, text) in [(52, "image"), (60, "none")] {
                let (at, len) = texts.add(text);
                body += &store(offset, at);
                body += &store(offset + 4, len);
            }
        }
        body += &store(44, MANIFEST + 52);
        body += &store(48, u32::from(self.declines_images));
        format!("(func $manifest (result i32)\n{body}(i32.const {MANIFEST}))\n")
    }
}

/// What the bodies have at hand besides the imports. With `$lie` set, arguments are to be put outside of memory.
const REALLOC: &str = r#"
(global $lie (mut i32) (i32.const 0))
(func $realloc (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
  (local $at i32)
  (if (global.get $lie) (then (return (i32.const 0x7fff0000))))
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
  (global.set $heap (i32.add (local.get $at) (local.get $len)))
  (block $fits
    (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
    (br_if $fits (i32.ne (i32.const -1)
      (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $len) (i32.const 65536))))))
    unreachable)
  (local.get $at))
(func $ok (result i32) (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256))
(func $refuse (param $ptr i32) (param $len i32) (result i32)
  (i32.store8 (i32.const 256) (i32.const 1))
  (i32.store (i32.const 260) (local.get $ptr)) (i32.store (i32.const 264) (local.get $len))
  (i32.const 256))
(func $bytes (param $ptr i32) (param $len i32) (result i32)
  (i32.store (i32.const 256) (local.get $ptr)) (i32.store (i32.const 260) (local.get $len))
  (i32.const 256))
(func $send_all (param $ptr i32) (param $len i32)
  (call $send (i32.const 0) (i32.const 0) (i32.const 0) (local.get $ptr) (local.get $len)))
(func $send_one (param $seat i32) (param $ptr i32) (param $len i32)
  (call $send (i32.const 3) (local.get $seat) (i32.const 0) (local.get $ptr) (local.get $len)))
(func $publish_all (param $key i32) (param $key_len i32) (param $ptr i32) (param $len i32)
  (call $publish (i32.const 0) (i32.const 0) (local.get $key) (local.get $key_len)
    (i32.const 1) (local.get $ptr) (local.get $len)))
(func $publish_one (param $seat i32) (param $key i32) (param $key_len i32) (param $ptr i32) (param $len i32)
  (call $publish (i32.const 1) (local.get $seat) (local.get $key) (local.get $key_len)
    (i32.const 1) (local.get $ptr) (local.get $len)))
(func $unpublish (param $key i32) (param $key_len i32)
  (call $publish (i32.const 0) (i32.const 0) (local.get $key) (local.get $key_len)
    (i32.const 0) (i32.const 0) (i32.const 0)))
"#;

/// Texts of a guest and where they lie.
#[derive(Default)]
struct Texts {
    data: String,
    len: u32,
}

impl Texts {
    fn add(&mut self, text: &str) -> (u32, u32) {
        let at = TEXTS + self.len;
        self.len += text.len() as u32;
        assert!(TEXTS + self.len < HEAP, "too much text");
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        self.data += &format!("(data (i32.const {at}) \"{escaped}\")\n");
        (at, text.len() as u32)
    }

    /// Replaces each `@'text'` by its address and length.
    fn place(&mut self, body: &str) -> String {
        let mut placed = String::new();
        let mut rest = body;
        while let Some((before, after)) = rest.split_once("@'") {
            let (text, after) = after.split_once('\'').expect("a closing quote");
            let (at, len) = self.add(text);
            placed += &format!("{before}(i32.const {at}) (i32.const {len})");
            rest = after;
        }
        placed + rest
    }
}

/// Makes a component of the match-logic world from a core module.
pub(crate) fn component_of(mut core: Vec<u8>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("match.wit", include_str!("../../../wasm-sdk/wit/match.wit"))
        .expect("match.wit is valid");
    let world = resolve
        .select_world(&[package], Some("match-logic"))
        .expect("the world is there");
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default().validate(true).module(&core);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .unwrap_or_else(|error| panic!("{error:#}"))
}
