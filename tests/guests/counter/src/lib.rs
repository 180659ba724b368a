//! A `stored` match that counts its ticks, five a second, and tells everybody each count: `{"count", "lives", "at"}`, where `lives`
//! is how often it went on from a saved state and `at` is the time of day. Two that run at once are told apart by what they say at
//! the same `seq`, one that starts anew by its count. The newest count is published under `count` too.
//!
//! `"finish"` ends it, `{"refuse": "why"}` in the parameters keeps it from starting, and other inputs come back to their sender.

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    count: u64,
    lives: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    refuse: Option<String>,
}

#[derive(Debug, Serialize)]
struct Beat {
    count: u64,
    lives: u32,
    at: u64,
}

impl Match for Counter {
    fn manifest() -> Manifest {
        Manifest::json("counter")
            .players(1..=200)
            .tick_hz(5)
            .durability(Durability::Stored)
    }

    fn start(_ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = setup.params.json::<Option<Params>>()?.unwrap_or_default();
        match params.refuse {
            Some(why) => Err(why.as_str().into()),
            None => Ok(Self::default()),
        }
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        match input.json::<String>() {
            Ok(order) if order == "finish" => ctx.finish_json(&self.count),
            Ok(_) | Err(_) => ctx.send(from, &input),
        }
    }

    fn tick(&mut self, ctx: &mut Context, _elapsed_ms: u32) {
        self.count += 1;
        let beat = Beat {
            count: self.count,
            lives: self.lives,
            at: ctx.unix_ms(),
        };
        ctx.send_json(To::Everyone, &beat);
        ctx.publish_json("count", &self.count);
    }

    fn signal(&mut self, _ctx: &mut Context, signal: Signal) {
        if signal.topic == "match.resumed" {
            self.lives += 1;
        }
    }

    rookery_sdk::serde_state!();
}

rookery_sdk::export!(Counter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tick_is_one_more_and_everybody_hears_it() {
        let mut host = mock::Host::<Counter>::start(json!(null)).unwrap();
        let ana = host.join("ana").unwrap();
        host.tick();
        host.tick();
        let heard = host.heard_json(ana);
        assert_eq!(heard.last().unwrap()["count"], 2, "{heard:?}");
        host.message(ana, json!("hello"));
        assert_eq!(host.heard_json(ana).last(), Some(&json!("hello")));
        assert!(mock::Host::<Counter>::start(json!({"refuse": "no gate"})).is_err());
    }
}
