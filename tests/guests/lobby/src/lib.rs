//! A match that many may find: `{"room": NAME}` in the parameters becomes its label, and it does nothing else but hold a hundred
//! players until nobody is there.

use rookery_sdk::prelude::*;
use serde::Deserialize;

struct Lobby;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    room: Option<String>,
}

impl Match for Lobby {
    fn manifest() -> Manifest {
        Manifest::json("lobby").players(1..=100).quick_play()
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = setup.params.json::<Option<Params>>()?.unwrap_or_default();
        if let Some(room) = &params.room {
            ctx.set_label(&[("room", room)]);
        }
        Ok(Self)
    }
}

rookery_sdk::export!(Lobby);
