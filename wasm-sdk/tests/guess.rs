//! The match that README.md shows, so that what it shows compiles and works.

use rookery_sdk::prelude::*;

struct Guess {
    secret: u32,
}

impl Match for Guess {
    fn manifest() -> Manifest {
        Manifest::json("guess").players(1..=8).quick_play()
    }

    fn start(ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        let secret = 1 + ctx.random().below(100);
        Ok(Guess { secret })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
        ctx.send_json(To::Everyone, &json!({ "welcome": player.name }));
        Ok(())
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        match input.json::<u32>() {
            Ok(guess) if guess == self.secret => ctx.finish_json(&json!({ "winner": from })),
            Ok(guess) => ctx.send_json(from, &json!({ "higher": guess < self.secret })),
            Err(_) => ctx.send_json(from, &json!({ "error": "a number from 1 to 100" })),
        }
    }
}
rookery_sdk::export!(Guess);

#[test]
fn the_right_guess_wins() {
    let mut host = mock::Host::<Guess>::start(json!(null)).unwrap();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!(0));
    assert_eq!(host.heard_json(ana).last(), Some(&json!({ "higher": true })));
    host.message(ana, json!(host.game().secret));
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ana })));
}

#[test]
fn the_readme_shows_this_match_and_it_has_30_lines() {
    let blocks: Vec<&str> = include_str!("../README.md")
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in &blocks {
        assert!(
            include_str!("guess.rs").contains(block),
            "another match is shown:\n{block}"
        );
    }
    assert!(blocks[0].lines().filter(|line| !line.is_empty()).count() <= 30);
}
