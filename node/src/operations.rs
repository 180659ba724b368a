//! What the node does for its operators, for the whole cluster from any node: it asks the node concerned, or the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use rookery_gossip::{AddressStatus, JoinPeerError, MemberState, SourceStatus, SuspicionReport};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, MoveCause, PeerAnswer, PeerRequest};
use rookery_protocol::{Digest, MatchId, NodeName, PlayerId};

use crate::config::Service;
use crate::content::Item;
use crate::modules::{Publication, unavailable};
use crate::ops::Operations;
use crate::ops::content::PutContent;
use crate::ops::view::{
    AddressView, ClusterView, ContentCollection, ContentEntry, ContentPage, ContentPageRequest, ContentSummary,
    DrainOrdered, DrainRequest, KickRequest, LocalView, MatchPage, MatchView, ModuleView, ModulesView, MoveRequest,
    Moved, NodeView, PageRequest, Published, QueuesView, RecordPage, RecordRequest, RecordView, SavedView, SourceView,
    SuspicionView, UpgradeRequest, Upgraded, WorldsView,
};
use crate::peer::MODULES_GROUP;
use crate::recordings;
use crate::session::hub::Hub;
use crate::store::{ContentWrite, MatchRow, RecordQuery, RecordRow, Saved};
use crate::wasm::Manifest;

/// How long the node concerned may take.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// How long the view of the cluster waits for a node that says nothing. It is looked at when something is wrong, and what the mesh knows
/// of such a node is in it all the same. Who is suspect or dead is not asked at all.
const VIEW_WITHIN: Duration = Duration::from_secs(1);

/// The largest stored state that is shown with its match.
const STATE_SHOWN_MAX: usize = 256 << 10;

/// The operators' side of a node.
pub struct Operator {
    hub: Arc<Hub>,
}

impl Operator {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    async fn row(&self, target: &str) -> Result<MatchRow, Refusal> {
        let row = self
            .hub
            .store()
            .get_match(target)
            .await
            .map_err(|error| unavailable(&error))?;
        row.ok_or_else(|| Refusal::new(ErrorCode::MatchNotFound, format!("there is no match {target}")))
    }

    /// Tells every node that what is published under a name has changed. Lost somewhere: that node believes the older digest for
    /// two more seconds.
    fn announce(&self, module: &str) {
        let _ = self
            .hub
            .cluster()
            .broadcast(MODULES_GROUP, &Bytes::from(module.to_owned()));
        self.hub.services().worlds.published();
    }

    /// Sends an order to the owner of a live match.
    async fn order(&self, target: &str, order: impl FnOnce(MatchId) -> PeerRequest) -> Result<(), Refusal> {
        let row = self.row(target).await?;
        if !row.status.is_live() {
            return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over").with("status", row.status.as_str()));
        }
        match self
            .hub
            .ask(&row.configuration.owner.name, &order(row.id), ASK_WITHIN)
            .await?
        {
            PeerAnswer::Done => Ok(()),
            PeerAnswer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::new(
                ErrorCode::Unavailable,
                "the match is not with its owner now; try again",
            )),
        }
    }
}

/// What is kept of a match that is over.
fn record_view(record: RecordRow) -> RecordView {
    let RecordRow { row, players } = record;
    RecordView {
        id: row.id,
        module: row.module,
        digest: row.digest,
        name: row.name,
        status: row.status.as_str().into(),
        outcome: row.outcome.map(|outcome| outcome_value(&outcome)),
        reason: row.reason,
        players,
        owner: row.configuration.owner.name.to_string(),
        epoch: row.configuration.epoch,
        incarnation: row.incarnation,
        durability: row.durability.as_str().into(),
        created_at: row.created_at_ms,
        started_at: row.started_at_ms,
        ended_at: row.ended_at_ms.unwrap_or_default(),
    }
}

fn saved_view(saved: Saved) -> SavedView {
    let shown = saved.state.len() <= STATE_SHOWN_MAX;
    SavedView {
        saved_at: saved.saved_at_ms,
        event: saved.event,
        incarnation: saved.incarnation,
        saved_by: saved.saved_by,
        bytes: saved.state.len() as u64,
        state: shown.then(|| outcome_value(&saved.state)),
    }
}

/// The cursor behind a record: its end and its id.
pub(crate) fn read_record_cursor(cursor: &str) -> Option<(u64, MatchId)> {
    let (ended_at, id) = cursor.split_once('.')?;
    // What PostgreSQL's numbers do not hold is none of ours.
    let ended_at = ended_at.parse().ok().filter(|at| *at <= i64::MAX as u64)?;
    Some((ended_at, id.parse().ok()?))
}

/// A match that nobody could be asked about, as its row has it.
fn view_of_row(row: MatchRow) -> MatchView {
    MatchView {
        id: row.id,
        module: row.module,
        digest: row.digest,
        name: row.name,
        owner: row.configuration.owner.name.to_string(),
        backup: row.configuration.backup.map(|backup| backup.name.to_string()),
        epoch: row.configuration.epoch,
        status: row.status.as_str().into(),
        players: 0,
        durability: row.durability.as_str().into(),
        state_hash: None,
        outcome: row.outcome.map(|outcome| outcome_value(&outcome)),
        reason: row.reason,
        failures: Vec::new(),
        usage: None,
        record: None,
        saved: None,
    }
}

/// An outcome for people: the JSON that it is, or its bytes in base64.
fn outcome_value(outcome: &[u8]) -> serde_json::Value {
    use base64::Engine;
    serde_json::from_slice(outcome).unwrap_or_else(|_| base64::engine::general_purpose::STANDARD.encode(outcome).into())
}

fn view_of_peer(view: peer::MatchView) -> MatchView {
    MatchView {
        id: view.target,
        module: view.module,
        digest: view.digest,
        name: view.name,
        owner: view.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        backup: view.backup.map(|backup| backup.to_string()),
        epoch: view.epoch,
        status: view.status,
        players: view.players,
        durability: view.durability,
        state_hash: view.state_hash,
        outcome: None,
        reason: None,
        failures: view.failures,
        usage: view.usage,
        record: None,
        saved: None,
    }
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn suspicion_view(suspicion: &SuspicionReport) -> SuspicionView {
    SuspicionView {
        since_ms: in_ms(suspicion.since),
        probes: suspicion.probes,
        helpers: suspicion.helpers,
        nacks: suspicion.nacks,
    }
}

fn source_view(status: SourceStatus) -> SourceView {
    let address = |address: AddressStatus| AddressView {
        address: address.addr.to_string(),
        is_ourselves: address.is_ourselves,
        answered_by: address.answered_by.map(|life| life.node.to_string()),
        answered_ms: address.answered_ago.map(in_ms),
        last_error: address.last_error,
        failures: address.failures,
    };
    SourceView {
        source: status.source,
        kind: status.kind.as_str().into(),
        addresses: status.addresses.into_iter().map(address).collect(),
        last_error: status.last_error,
        failures: status.failures,
    }
}

impl Operations for Operator {
    fn ready(&self) -> Result<(), String> {
        self.hub.why_not_ready().map_or(Ok(()), Err)
    }

    async fn cluster(&self) -> Result<ClusterView, Refusal> {
        let mut summaries: BTreeMap<NodeName, peer::NodeSummary> = BTreeMap::new();
        let mut note = |name: NodeName, answer: PeerAnswer| {
            if let PeerAnswer::Summary(summary) = answer {
                summaries.insert(name, summary);
            }
        };
        note(
            self.hub.local().name.clone(),
            peer_answer(&self.hub, PeerRequest::Summary).await,
        );
        let asked = self.hub.ask_all_within(&PeerRequest::Summary, VIEW_WITHIN);
        let report = tokio::time::timeout(VIEW_WITHIN, self.hub.cluster().report());
        let (answers, report) = tokio::join!(asked, report);
        for (name, answer) in answers {
            note(name, answer);
        }
        let report = report.ok().flatten();
        let members = self.hub.cluster().members().borrow().clone();
        let nodes = members
            .iter()
            .map(|member| {
                let name = member.peer.node.as_str();
                let summary = name.parse::<NodeName>().ok().and_then(|name| summaries.get(&name));
                let fact = |key: &str| member.facts.get(key).cloned().unwrap_or_default();
                let reported = report.as_ref().and_then(|report| {
                    let mut members = report.members.iter();
                    members.find(|reported| reported.peer.life() == member.peer.life())
                });
                NodeView {
                    name: name.into(),
                    generation: member.peer.generation,
                    state: member.state.as_str().into(),
                    version: summary.map_or_else(|| fact("ver"), |summary| summary.version.clone()),
                    client: fact("ep"),
                    peer: member.peer.addr.clone(),
                    sessions: summary.map_or(0, |summary| summary.sessions),
                    players: summary.map_or(0, |summary| summary.players),
                    matches: summary.map_or(0, |summary| summary.matches),
                    rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
                    why: summary.and_then(|summary| summary.why.clone()),
                    answered: summary.is_some(),
                    wire: member.mesh_version,
                    since_ms: reported.map(|reported| in_ms(reported.since)),
                    heard_ms: reported.and_then(|reported| reported.last_heard).map(in_ms),
                    reachable: reported.is_some_and(|reported| reported.reachable),
                    keys: reported.map_or(0, |reported| reported.keys as u64),
                    suspicion: reported
                        .and_then(|reported| reported.suspicion.as_ref())
                        .map(suspicion_view),
                }
            })
            .collect();
        let local = report.as_ref().map(|report| LocalView {
            name: self.hub.local().name.to_string(),
            health: report.own.health,
            isolated: report.own.isolated,
            keys: report.own.own_keys as u64,
            keys_soft: report.own.keys_soft as u64,
            keys_hard: report.own.keys_hard as u64,
            cluster_keys: report.own.cluster_keys as u64,
        });
        Ok(ClusterView {
            cluster: self.hub.config().cluster.name.clone(),
            leader: self.hub.services().leader.name().map(|name| name.to_string()),
            sessions: summaries.values().map(|summary| summary.sessions).sum(),
            players: summaries.values().map(|summary| summary.players_counted).sum(),
            nodes,
            local,
            sources: self
                .hub
                .cluster()
                .discovery_status()
                .into_iter()
                .map(source_view)
                .collect(),
        })
    }

    async fn matches(&self, page: PageRequest) -> Result<MatchPage, Refusal> {
        let after: Option<MatchId> = match page.cursor {
            None => None,
            Some(cursor) => {
                let wrong = |_| Refusal::new(ErrorCode::BadMessage, "cursor: not one of ours");
                Some(cursor.parse().map_err(wrong)?)
            }
        };
        let limit = page.limit.unwrap_or(100);
        let request = PeerRequest::Views {
            after,
            limit,
            module: page.module.clone(),
        };
        let mut answers = vec![peer_answer(&self.hub, request.clone()).await];
        answers.extend(self.hub.ask_all(&request).await.into_iter().map(|(_, answer)| answer));
        let mut matches: Vec<MatchView> = Vec::new();
        for answer in answers {
            if let PeerAnswer::Views(views) = answer {
                matches.extend(views.into_iter().map(view_of_peer));
            }
        }
        matches.sort_by_key(|view| view.id);
        matches.dedup_by_key(|view| view.id);
        matches.truncate(limit as usize);
        let cursor = (matches.len() == limit as usize)
            .then(|| matches.last().map(|last| last.id.to_string()))
            .flatten();
        // A node of an earlier version answers with all modules.
        matches.retain(|view| page.module.as_ref().is_none_or(|module| *module == view.module));
        Ok(MatchPage { matches, cursor })
    }

    async fn match_view(&self, target: &str) -> Result<MatchView, Refusal> {
        let row = self.row(target).await?;
        if row.status.is_live() {
            let request = PeerRequest::View { target: row.id };
            if let Ok(PeerAnswer::View(view)) = self.hub.ask(&row.configuration.owner.name, &request, ASK_WITHIN).await
            {
                return Ok(view_of_peer(*view));
            }
            // It may have ended while we asked.
            return Ok(view_of_row(self.row(target).await?));
        }
        let players = self.hub.store().players_of(&[row.id]).await;
        let players = players.map_err(|error| unavailable(&error))?.remove(&row.id);
        let record = record_view(RecordRow {
            row: row.clone(),
            players: players.unwrap_or_default(),
        });
        let saved = self.hub.store().read_save(row.id).await;
        let saved = saved.map_err(|error| unavailable(&error))?;
        Ok(MatchView {
            record: Some(record),
            saved: saved.map(saved_view),
            ..view_of_row(row)
        })
    }

    async fn recording(&self, target: &str) -> Result<Bytes, Refusal> {
        let row = self.row(target).await?;
        recordings::fetch(&self.hub, &row.configuration.owner.name, row.id).await
    }

    async fn records(&self, request: RecordRequest) -> Result<RecordPage, Refusal> {
        self.hub.services().check(Service::Records)?;
        let wrong = |what: &str| Refusal::new(ErrorCode::BadMessage, what);
        let player = match request.player.filter(|player| !player.is_empty()) {
            None => None,
            Some(player) => Some(player.parse().map_err(|_| wrong("player: not a player id"))?),
        };
        let module = request.module.filter(|module| !module.is_empty());
        if let Some(module) = &module {
            crate::keys::check_part(module)?;
        }
        let before = match request.cursor {
            None => None,
            Some(cursor) => Some(read_record_cursor(&cursor).ok_or_else(|| wrong("cursor: not one of ours"))?),
        };
        let limit = request.limit.unwrap_or(100);
        let query = RecordQuery {
            player,
            module,
            before,
            limit,
        };
        let records = self.hub.store().list_records(&query).await;
        let records: Vec<RecordView> = records
            .map_err(|error| unavailable(&error))?
            .into_iter()
            .map(record_view)
            .collect();
        let last = records.last().filter(|_| records.len() == limit as usize);
        Ok(RecordPage {
            cursor: last.map(|last| format!("{}.{}", last.ended_at, last.id)),
            records,
        })
    }

    async fn end_match(&self, target: &str) -> Result<(), Refusal> {
        self.order(target, |target| PeerRequest::End { target }).await
    }

    async fn kick(&self, target: &str, request: KickRequest) -> Result<(), Refusal> {
        let player: PlayerId = request
            .player
            .parse()
            .map_err(|_| Refusal::new(ErrorCode::BadMessage, "player: not a player id"))?;
        let reason = if request.reason.is_empty() {
            "operator".to_owned()
        } else {
            request.reason
        };
        self.order(target, |target| PeerRequest::Kick { target, player, reason })
            .await
    }

    async fn queues(&self) -> Result<QueuesView, Refusal> {
        self.hub.services().matchmaker.view().await
    }

    async fn move_match(&self, target: &str, request: MoveRequest) -> Result<Moved, Refusal> {
        let to = request.to.as_deref().map(node_name).transpose()?;
        let id = self.row(target).await?.id;
        let owner = self.hub.move_match(id, to, MoveCause::Operator).await?;
        Ok(Moved {
            id,
            owner: owner.to_string(),
        })
    }

    async fn upgrade_match(&self, target: &str, request: UpgradeRequest) -> Result<Upgraded, Refusal> {
        let row = self.row(target).await?;
        let modules = self.hub.modules();
        let published = match &request.to {
            None => modules.resolve(&row.module).await?,
            Some(digest) => modules.resolve(&format!("{}@{digest}", row.module)).await?,
        };
        let to = published.row.digest;
        self.hub.upgrade_match(&row, to).await?;
        Ok(Upgraded {
            id: row.id,
            module: row.module,
            version: published.row.version,
            digest: to,
            from: row.digest,
        })
    }

    async fn forget_node(&self, name: &str) -> Result<(), Refusal> {
        crate::takeover::forget(&self.hub, &node_name(name)?).await
    }

    async fn modules(&self) -> Result<ModulesView, Refusal> {
        let asked = self.hub.ask_all_within(&PeerRequest::Compiled, VIEW_WITHIN);
        let (answers, listed) = tokio::join!(asked, self.hub.modules().list());
        let modules = listed?;
        let live = self.hub.store().module_matches().await;
        let live = live.map_err(|error| unavailable(&error))?;
        let mut compiled: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let here = PeerAnswer::Compiled(self.hub.modules().compiled_digests());
        for (node, answer) in answers.into_iter().chain([(self.hub.local().name.clone(), here)]) {
            // A node of an earlier version does not know the question.
            if let PeerAnswer::Compiled(digests) = answer {
                for digest in digests {
                    compiled.entry(digest).or_default().push(node.to_string());
                }
            }
        }
        compiled.values_mut().for_each(|nodes| nodes.sort());
        let modules = modules
            .into_iter()
            .filter_map(|row| {
                let manifest: Manifest = serde_json::from_str(&row.manifest).ok()?;
                let trusted = self.hub.modules().trust(&row);
                let said = || row.signatures.iter().find_map(|signature| signature.key_id.clone());
                Some(ModuleView {
                    signed_by: match trusted {
                        Ok(Some(key)) => Some(key.to_string()),
                        Ok(None) => said(),
                        Err(_) => None,
                    },
                    signatures: row.signatures.len() as u64,
                    refused: trusted.err().map(|why| why.to_string()),
                    name: row.name,
                    version: row.version,
                    digest: row.digest,
                    newest: row.is_head,
                    codec: manifest.codec,
                    durability: manifest.durability.as_str().into(),
                    tick_hz: manifest.tick_hz,
                    max_players: manifest.max_players,
                    published_at: row.published_at_ms,
                    bytes: row.bytes,
                    matches: live.get(&row.digest).copied().unwrap_or_default(),
                    compiled: compiled.remove(&row.digest).unwrap_or_default(),
                })
            })
            .collect();
        Ok(ModulesView { modules })
    }

    async fn publish(&self, publication: Publication) -> Result<Published, Refusal> {
        let module = self.hub.modules().publish(publication).await?;
        let manifest = module.manifest();
        self.announce(&manifest.name);
        tracing::info!(module = manifest.name, digest = %module.digest(), "module published");
        Ok(Published {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: module.digest(),
        })
    }

    async fn remove_module(&self, reference: &str) -> Result<(), Refusal> {
        let name = self.hub.modules().remove(reference).await?;
        self.announce(&name);
        tracing::info!(module = reference, "module removed");
        Ok(())
    }

    async fn worlds(&self) -> Result<WorldsView, Refusal> {
        self.hub.services().check(Service::Worlds)?;
        self.hub.services().worlds.view().await
    }

    fn cut_data_links(&self) -> Result<(), Refusal> {
        if !self.hub.config().ops.faults {
            return Err(Refusal::new(ErrorCode::Forbidden, "ops.faults is not set on this node"));
        }
        self.hub.cluster().cut_data_links();
        Ok(())
    }

    fn content(&self) -> Result<ContentSummary, Refusal> {
        self.hub.services().content.read(|copy| {
            let collections = copy.collections().map(|(name, size)| ContentCollection {
                collection: name.into(),
                values: size.items,
                bytes: size.bytes,
            });
            ContentSummary {
                version: copy.version(),
                values: copy.size().items,
                bytes: copy.size().bytes,
                collections: collections.collect(),
            }
        })
    }

    fn content_list(&self, collection: &str, page: ContentPageRequest) -> Result<ContentPage, Refusal> {
        self.hub.services().check(Service::Content)?;
        crate::keys::check_collection(collection)?;
        let limit = page.limit.unwrap_or(100) as usize;
        let prefix = page.prefix.unwrap_or_default();
        let values: Vec<ContentEntry> = self.hub.services().content.read(|copy| {
            let found = copy.scan(collection, &prefix, page.cursor.as_deref()).take(limit);
            let entry = |(key, item): (&str, &Item)| ContentEntry {
                key: key.into(),
                version: item.version,
                content_type: item.content_type.to_string(),
                bytes: item.value.len() as u64,
                updated_at: item.updated_at_ms,
            };
            found.map(entry).collect()
        })?;
        let cursor = (values.len() == limit)
            .then(|| values.last().map(|last| last.key.clone()))
            .flatten();
        Ok(ContentPage {
            collection: collection.into(),
            values,
            cursor,
        })
    }

    fn content_get(&self, collection: &str, key: &str) -> Result<Item, Refusal> {
        self.hub.services().check(Service::Content)?;
        crate::keys::check(collection, key)?;
        let item = self.hub.services().content.get(collection, key)?;
        item.ok_or_else(|| Refusal::new(ErrorCode::StorageNotFound, "there is no such value"))
    }

    async fn content_put(&self, collection: &str, key: &str, put: PutContent) -> Result<u64, Refusal> {
        self.hub.services().check(Service::Content)?;
        crate::keys::check(collection, key)?;
        let value_max = self.hub.config().content.value.as_usize();
        if put.value.len() > value_max {
            let message = format!("a value of content is at most {value_max} bytes (content.value)");
            return Err(Refusal::new(ErrorCode::TooLarge, message).with("limit", value_max));
        }
        let write = ContentWrite {
            collection: collection.into(),
            key: key.into(),
            value: Some((put.content_type, put.value)),
            expect: put.expect,
            bytes_max: self.hub.config().content.total.bytes(),
        };
        self.hub.services().content.write(&write).await
    }

    async fn content_delete(&self, collection: &str, key: &str, expect: Option<u64>) -> Result<u64, Refusal> {
        self.hub.services().check(Service::Content)?;
        crate::keys::check(collection, key)?;
        let write = ContentWrite {
            collection: collection.into(),
            key: key.into(),
            value: None,
            expect,
            bytes_max: u64::MAX,
        };
        self.hub.services().content.write(&write).await
    }

    async fn drain(&self, name: &str, request: DrainRequest) -> Result<DrainOrdered, Refusal> {
        let hub = &self.hub;
        let local = hub.local();
        let unknown = || {
            Refusal::new(
                ErrorCode::NodeNotFound,
                format!("no node of the cluster is called {name}"),
            )
        };
        let life = if name == "*" || name == local.name.as_str() {
            local.clone()
        } else {
            let members = hub.cluster().members().borrow().clone();
            let node: NodeName = name.parse().map_err(|_| unknown())?;
            let member = crate::session::hub::node_id(&node).and_then(|node| members.get(&node).cloned());
            let is_there = |member: &rookery_gossip::Member| match member.state {
                MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Suspect => true,
                MemberState::Leaving | MemberState::Dead => false,
            };
            let member = member.filter(is_there).ok_or_else(unknown)?;
            crate::peer::life_of(&member.peer).ok_or_else(unknown)?
        };
        let default_ms = hub.config().drain.deadline.as_millis() as u64;
        let longest_ms = crate::drain::task::DEADLINE_MAX.as_millis() as u64;
        let deadline_ms = request.deadline_ms.unwrap_or(default_ms).min(longest_ms);
        match hub
            .ask(&life.name, &PeerRequest::Drain { deadline_ms }, ASK_WITHIN)
            .await?
        {
            PeerAnswer::Done => Ok(DrainOrdered {
                node: life.name.to_string(),
                generation: life.generation,
                deadline_ms,
                told_by: local.name.to_string(),
            }),
            PeerAnswer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::new(
                ErrorCode::Unavailable,
                format!("node {name} does not know the order"),
            )),
        }
    }

    async fn join_peer(&self, peer: &str) -> Result<(), Refusal> {
        let joined = self.hub.cluster().join_peer(peer).await;
        joined.map(|_| ()).map_err(|error| {
            let code = match error {
                JoinPeerError::Malformed { .. } => ErrorCode::BadMessage,
                JoinPeerError::Unresolved { .. } | JoinPeerError::NoAnswer { .. } | JoinPeerError::Closed => {
                    ErrorCode::Unavailable
                }
            };
            Refusal::new(code, error.to_string())
        })
    }
}

fn node_name(name: &str) -> Result<NodeName, Refusal> {
    name.parse()
        .map_err(|_| Refusal::new(ErrorCode::NodeNotFound, format!("no node is called {name}")))
}

async fn peer_answer(hub: &Arc<Hub>, request: PeerRequest) -> PeerAnswer {
    crate::peer::answer(Arc::clone(hub), request).await
}
