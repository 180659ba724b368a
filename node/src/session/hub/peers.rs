//! Asking other nodes, one or all.

use std::sync::Arc;
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::NodeName;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, PeerAnswer, PeerRequest};
use tracing::Instrument;

use super::{Hub, node_id};
use crate::traces::TARGET;

/// How long a node may take to answer another one's question.
const ASK_WITHIN: Duration = Duration::from_secs(3);

impl Hub {
    /// Asks another node, or this one.
    ///
    /// # Errors
    /// `unavailable` when there is no answer in time.
    pub async fn ask(
        self: &Arc<Self>,
        node: &NodeName,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerAnswer, Refusal> {
        if *node == self.local().name {
            return Ok(crate::peer::answer(Arc::clone(self), request.clone()).await);
        }
        self.ask_other(node, request, within).await
    }

    /// Asks another node.
    ///
    /// # Errors
    /// `unavailable` when there is no answer in time.
    pub async fn ask_other(
        &self,
        node: &NodeName,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerAnswer, Refusal> {
        let none = |problem: &str| Refusal::new(ErrorCode::Unavailable, format!("node {node} {problem}"));
        let id = node_id(node).ok_or_else(|| none("is not a member"))?;
        let span = tracing::info_span!(target: TARGET, "ask", node = node.as_str());
        let asking = self.cluster().request(&id, peer::encode(request), within);
        let answer = asking.instrument(span).await;
        let answer = answer.map_err(|_| none("does not answer"))?;
        peer::decode(&answer).map_err(|_| none("answers in a way that this version does not know"))
    }

    /// Asks every other ready or draining node at once, and returns the answers that came in time.
    pub async fn ask_all(self: &Arc<Self>, request: &PeerRequest) -> Vec<(NodeName, PeerAnswer)> {
        self.ask_all_within(request, ASK_WITHIN).await
    }

    /// The same, by when this time has passed: who has not answered by then is not among the answers.
    pub async fn ask_all_within(
        self: &Arc<Self>,
        request: &PeerRequest,
        within: Duration,
    ) -> Vec<(NodeName, PeerAnswer)> {
        let members = self.cluster().members().borrow().clone();
        let mut asking = tokio::task::JoinSet::new();
        for member in members.iter() {
            let reachable = match member.state {
                MemberState::Ready | MemberState::Draining | MemberState::Joining => true,
                MemberState::Leaving | MemberState::Suspect | MemberState::Dead => false,
            };
            let Ok(name) = member.peer.node.as_str().parse::<NodeName>() else {
                continue;
            };
            if reachable && name != self.local().name {
                let (hub, request) = (Arc::clone(self), request.clone());
                asking.spawn(async move { (name.clone(), hub.ask(&name, &request, within).await) });
            }
        }
        let mut answers = Vec::new();
        while let Some(asked) = asking.join_next().await {
            if let Ok((name, Ok(answer))) = asked {
                answers.push((name, answer));
            }
        }
        answers
    }
}
