//! Doors to this crate's decoders for the fuzz targets in `fuzz/node`; no part of the interface. Each function takes bytes as a
//! player, an operator or another node might send them and panics when a promise of the decoder is broken; each `…_seeds` returns
//! inputs as honest ones send them.

mod guest;
mod image;
mod journal;
mod operators;
mod request;

pub use self::guest::{MODULE_LEN_MAX, guest_image, guest_image_seeds, module, module_seeds};
pub use self::image::{image, image_seeds};
pub use self::journal::{journal, journal_seeds};
pub use self::request::{request, request_seeds};

use crate::auth::fuzzing as auth;
use crate::chat::name::ChannelName;
use crate::chat::requests::check_text;
use crate::config::{Config, Rate, Size, parse_duration, print_duration};
use crate::directory::read_named;
use crate::keys;
use crate::matchmaker::property::{Properties, Query};
use crate::operations::read_record_cursor;
use crate::wasm::Manifest;
use rookery_protocol::PlayerId;

/// Whoever asks.
const PLAYER: PlayerId = PlayerId::from_u128(7);

/// Tokens of players: ours and another issuer's.
pub fn token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        auth::token(text);
    }
}

/// Tokens of every kind.
pub fn token_seeds() -> Vec<Vec<u8>> {
    auth::token_seeds().into_iter().map(String::into_bytes).collect()
}

/// One text as everything that a text can be: the name of a channel, a collection or a key, a line of chat, a cursor, a ticket's
/// properties and what it asks for, a module's manifest, a configuration and its values, a key file.
pub fn text(input: &[u8]) {
    assert_eq!(read_named(input).is_some(), input.len() >= 24);
    auth::key_file(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    names(text);
    ticket(text);
    if let Ok(manifest) = serde_json::from_str::<Manifest>(text)
        && manifest.faults().is_empty()
    {
        let again = serde_json::to_vec(&manifest).expect("plain values");
        assert_eq!(serde_json::from_slice::<Manifest>(&again).ok(), Some(manifest));
    }
    configuration(text);
}

fn names(text: &str) {
    let (collection, key) = text.split_once('/').unwrap_or((text, text));
    if keys::check(collection, key).is_ok() {
        assert!(keys::check_part(key).is_ok() && keys::check_collection(collection).is_ok());
    }
    if let Ok(name) = ChannelName::read(text, PLAYER) {
        assert_eq!(ChannelName::parse(&name.to_string()).as_ref(), Some(&name));
        assert_eq!(ChannelName::read(&name.seen_by(PLAYER), PLAYER), Ok(name));
    }
    if let Some(name) = ChannelName::parse(text) {
        assert_eq!(ChannelName::parse(&name.to_string()), Some(name));
    }
    if check_text(text, 4_096).is_ok() {
        assert!(text.len() <= 4_096);
    }
    if let Some((ended_at, id)) = read_record_cursor(text) {
        assert_eq!(read_record_cursor(&format!("{ended_at}.{id}")), Some((ended_at, id)));
    }
}

fn ticket(text: &str) {
    let (properties, query) = (Properties::read(text), Query::read(text));
    let Ok(query) = query else { return };
    let properties = properties.expect("what is asked for is an object too");
    let accepted = query.accepts(&properties);
    assert!(accepted || !query.is_empty(), "nothing is asked for");
    for name in ["mode", "rank", "level"] {
        let (has, number) = (properties.has(name), properties.number(name));
        assert!(has || number.is_none());
        assert_eq!(has, !properties.text(name).is_empty());
    }
}

fn configuration(text: &str) {
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.to_string().parse(), Ok(rate));
    }
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
    }
    match Config::of_text(text) {
        Ok(config) => drop(config.to_toml()),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// Texts of each kind.
pub fn text_seeds() -> Vec<Vec<u8>> {
    let manifest = r#"{"name":"duel","version":"1.0.0","codec":"json","durability":"stored","tick_hz":20,"min_players":1,
        "max_players":2,"max_spectators":9,"grace_ms":5000,"quick_play":true,"listed":true,"extra":[["a","b"]]}"#;
    let texts = [
        "room:lobby",
        "match:01hf7yat000000000000000007",
        "world:village",
        "dm:01hf7yat010000000000000008",
        "dm:01hf7yat000000000000000007:01hf7yat010000000000000008",
        "items.v-2_b/sword é",
        "1700000000000.01hf7yat000000000000000007",
        r#"{"mode":"duel","rank":[1,2.5,"gold"],"level":{"min":3,"max":9}}"#,
        manifest,
        "300/s burst 600",
        "64KiB",
        "1h 30m",
        "[node]\nname = \"rook-1\"\nroles = [\"gateway\"]\n\n[cluster]\nseeds = [\"rook-2:7701\"]\n\n[limits]\nframe = \"64KiB\"\n",
        "[queues.duel]\nplayers = 2\n\n[worlds.village]\nmodule = \"village\"\n\n[worlds.village.zones.square]\n",
    ];
    let named = [&7_u128.to_be_bytes()[..], &3_u64.to_be_bytes()[..]].concat();
    let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.extend(auth::key_file_seeds().into_iter().map(String::into_bytes));
    seeds.push(named);
    seeds
}
