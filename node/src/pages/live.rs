//! The picture of the cluster for the demo page: which nodes there are and who owns which match. Served on the client listener
//! only when `node.demo_page` is set, since it tells strangers more than they need to know.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::operations::Operator;
use crate::ops::Operations;
use crate::ops::view::PageRequest;
use crate::session::hub::Hub;

/// Matches in the picture.
const MATCHES_MAX: u32 = 50;

#[derive(Serialize)]
struct Picture {
    cluster: String,
    /// The node that answers.
    node: String,
    nodes: Vec<Node>,
    matches: Vec<Match>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    state: String,
    client: String,
    sessions: u64,
    matches: u64,
}

#[derive(Serialize)]
struct Match {
    #[serde(rename = "match")]
    id: String,
    module: String,
    /// The registered name, as `village/square` for a zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    owner: String,
    players: u32,
}

/// The route of the picture.
pub fn routes(hub: Arc<Hub>) -> Router {
    let operator = Arc::new(Operator::new(Arc::clone(&hub)));
    Router::new().route(
        "/v1/demo/cluster",
        get(move || async move { Json(picture(&hub, &operator).await) }),
    )
}

async fn picture(hub: &Hub, operator: &Operator) -> Picture {
    let nodes = operator
        .cluster()
        .await
        .map(|cluster| cluster.nodes)
        .unwrap_or_default();
    let page = PageRequest {
        limit: Some(MATCHES_MAX),
        ..PageRequest::default()
    };
    let matches = operator
        .matches(page)
        .await
        .map(|page| page.matches)
        .unwrap_or_default();
    Picture {
        cluster: hub.config().cluster.name.clone(),
        node: hub.local().name.to_string(),
        nodes: nodes
            .into_iter()
            .map(|node| Node {
                name: node.name,
                state: node.state,
                client: node.client,
                sessions: node.sessions,
                matches: node.matches,
            })
            .collect(),
        matches: matches
            .into_iter()
            .map(|view| Match {
                id: view.id.to_string(),
                module: view.module,
                name: view.name,
                owner: view.owner,
                players: view.players,
            })
            .collect(),
    }
}
