//! What the playground of `rookery dev` shows besides what its players are told: which module there is to play, and one match as its
//! operators see it. Served on the client listener only when `node.playground` is set, since it tells strangers more than they need
//! to know.

use std::sync::Arc;

use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::operations::Operator;
use crate::ops::Operations;
use crate::ops::view::{MatchView, ModuleView};
use crate::session::hub::Hub;

#[derive(Deserialize)]
struct Asked {
    /// By id or name.
    #[serde(rename = "match")]
    target: Option<String>,
}

#[derive(Serialize)]
struct View {
    /// The version that was published last.
    module: Option<ModuleView>,
    #[serde(rename = "match")]
    game_match: Option<MatchView>,
}

/// The routes of the playground.
pub fn routes(hub: Arc<Hub>) -> Router {
    let operator = Arc::new(Operator::new(hub));
    let show = move |Query(asked): Query<Asked>| async move { Json(view(&operator, asked).await) };
    super::routes_of(super::PLAYGROUND).route("/v1/dev", get(show))
}

async fn view(operator: &Operator, asked: Asked) -> View {
    let published = operator.modules().await.map(|view| view.modules).unwrap_or_default();
    let newest = published.into_iter().filter(|module| module.newest);
    let game_match = match asked.target {
        Some(target) => operator.match_view(&target).await.ok(),
        None => None,
    };
    View {
        module: newest.max_by_key(|module| module.published_at),
        game_match,
    }
}
