//! A bot in the village: it walks about and says something now and then, as people do who have nothing to do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Heard, Socket, send};

/// Between two things that a walker does, and as much again by chance.
const ACTS_EVERY: Duration = Duration::from_secs(4);
/// One act in so many is a word, the others are steps.
const SPEAKS: u32 = 4;
const SAYS: [&str; 5] = [
    "Lovely day for a walk.",
    "Which way to the mill?",
    "I could have sworn there was a door here.",
    "Has anybody seen Wren?",
    "The bread smells good today.",
];

#[derive(Debug)]
pub(super) struct Walker {
    game_match: String,
    /// The number of the last input sent.
    n: u64,
    acts_at: Instant,
    /// The ways out of where it is.
    exits: Vec<String>,
}

impl Walker {
    pub(super) fn new(joined: &Value) -> Self {
        Self {
            game_match: joined["match"].as_str().unwrap_or_default().to_owned(),
            n: joined["n"].as_u64().unwrap_or_default(),
            acts_at: Instant::now() + pause(),
            exits: Vec::new(),
        }
    }

    pub(super) fn hears(&mut self, frame: &Value) -> Heard {
        if frame["match"] != self.game_match.as_str() {
            return Heard::News;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "match.data" if frame["key"] == "view" => {
                let exits = frame["data"]["exits"].as_array().into_iter().flatten();
                self.exits = exits
                    .filter_map(|exit| exit["go"].as_str().map(str::to_owned))
                    .collect();
            }
            // Another zone, and another numbering.
            "match.moved" => {
                self.game_match = frame["to"].as_str().unwrap_or_default().to_owned();
                self.n = frame["n"].as_u64().unwrap_or_default();
            }
            "match.resend" => self.n = frame["n"].as_u64().map_or(self.n, |next| next.saturating_sub(1)),
            "match.reset" => self.n = frame["n"].as_u64().unwrap_or(self.n),
            "match.ended" | "match.lost" | "match.failed" | "match.kicked" => return Heard::Over,
            _ => {}
        }
        Heard::News
    }

    /// Does something when it is time to.
    pub(super) fn act(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        if Instant::now() < self.acts_at {
            return Ok(());
        }
        self.acts_at = Instant::now() + pause();
        let line = if self.exits.is_empty() || rand::random_ratio(1, SPEAKS) {
            format!("say {}", SAYS[rand::random_range(0..SAYS.len())])
        } else {
            format!("go {}", self.exits[rand::random_range(0..self.exits.len())])
        };
        self.n += 1;
        send(
            socket,
            json!({"type": "match.send", "match": self.game_match, "n": self.n, "data": line}),
        )
    }
}

fn pause() -> Duration {
    ACTS_EVERY + rand::random_range(Duration::ZERO..ACTS_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walker_follows_its_player_to_the_next_zone() {
        let mut walker = Walker::new(&json!({"match": "square", "n": 3}));
        let view = json!({"type": "match.data", "match": "square", "key": "view", "data": {"exits": [{"go": "north"}, {"go": "in"}]}});
        assert_eq!(walker.hears(&view), Heard::News);
        assert_eq!(walker.exits, ["north", "in"]);
        let elsewhere = json!({"type": "match.lost", "match": "mill"});
        assert_eq!(walker.hears(&elsewhere), Heard::News);
        let moved = json!({"type": "match.moved", "match": "square", "to": "mill", "n": 0});
        assert_eq!(walker.hears(&moved), Heard::News);
        assert_eq!((walker.game_match.as_str(), walker.n), ("mill", 0));
        assert_eq!(walker.hears(&elsewhere), Heard::Over);
    }
}
