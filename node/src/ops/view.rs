//! What the operators' HTTP says, as types: the shapes of the contract, written by the node and read by the commands.

use rookery_protocol::client::PayloadCodec;
use rookery_protocol::peer::{MatchFailure, MatchUsage};
use rookery_protocol::{Digest, MatchId, PlayerId};
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    pub cluster: String,
    /// The leading node's name; none before there is one.
    pub leader: Option<String>,
    /// Sessions on all nodes that answered.
    #[serde(default)]
    pub sessions: u64,
    /// Players online, each counted once however many sessions they have. A player who came or left within the last seconds may be
    /// missing or counted still.
    #[serde(default)]
    pub players: u64,
    pub nodes: Vec<NodeView>,
    /// The node that answers, and how far it trusts its own view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalView>,
    /// The seeds and DNS names of the node that answers.
    #[serde(default)]
    pub sources: Vec<SourceView>,
}

/// One node, as the answering node sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub generation: u64,
    /// `joining`, `ready`, `draining`, `leaving`, `suspect` or `dead`.
    pub state: String,
    pub version: String,
    /// Where players reach it.
    pub client: String,
    /// Where nodes reach it.
    pub peer: String,
    pub sessions: u64,
    /// Players with a session there.
    #[serde(default)]
    pub players: u64,
    pub matches: u64,
    /// None for the answering node itself, and before the first measurement.
    pub rtt_ms: Option<f64>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether it said itself how many sessions and matches it has; if not, they are 0 here and not known. A node of an earlier version
    /// does not tell the two apart.
    #[serde(default = "unless_told")]
    pub answered: bool,
    /// Up to which version it understands what the mesh says to itself.
    #[serde(default)]
    pub wire: u32,
    /// How long it has been in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// How long ago it gave a sign of life, by itself or through others; none for the answering node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// Whether it answers the answering node itself: false for one that only others can reach, and for the dead.
    #[serde(default)]
    pub reachable: bool,
    /// Keys that it states in gossip.
    #[serde(default)]
    pub keys: u64,
    /// While it is suspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<SuspicionView>,
}

fn unless_told() -> bool {
    true
}

/// What has been done to find out whether a suspected node is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspicionView {
    /// How long it has been suspected.
    pub since_ms: u64,
    /// Probes of the answering node's own.
    pub probes: u32,
    /// Nodes that were asked to probe it in this round, and those of them that say that it does not answer them either.
    pub helpers: u32,
    pub nacks: u32,
}

/// The node that answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalView {
    pub name: String,
    /// Lifeguard's local health: 0 is well, 8 the worst.
    pub health: u32,
    /// It trusts its own view less, gives no verdicts, and takes nothing over.
    pub isolated: bool,
    /// Facts and groups that it states in gossip, from how many on it warns, and how many there may be.
    pub keys: u64,
    pub keys_soft: u64,
    pub keys_hard: u64,
    /// Keys that all nodes state together.
    pub cluster_keys: u64,
}

/// How a seed or a DNS name fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// As it is configured.
    pub source: String,
    /// `seed` or `dns`.
    pub kind: String,
    pub addresses: Vec<AddressView>,
    /// Why its last look-up failed, or why nobody answers at its addresses; null when all is well.
    pub last_error: Option<String>,
    /// Failed look-ups and dials since the start.
    pub failures: u64,
}

/// How one address of a source fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    pub address: String,
    /// It is the answering node's own.
    pub is_ourselves: bool,
    /// Which node answered there last, and how long ago; 0 while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<u64>,
    /// Why the last dial came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Dials in a row that came to nothing.
    pub failures: u32,
}

/// One match, live or over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchView {
    #[serde(rename = "match")]
    pub id: MatchId,
    pub module: String,
    pub digest: Digest,
    pub name: Option<String>,
    pub owner: String,
    pub backup: Option<String>,
    pub epoch: u64,
    /// `starting`, `running`, `ended`, `failed` or `lost`.
    pub status: String,
    /// How many are seated.
    pub players: u32,
    /// `memory`, `replicated` or `stored`.
    pub durability: String,
    /// Hexadecimal; none when the match's owner could not be asked.
    pub state_hash: Option<String>,
    /// What the match came to, as the module wrote it; for matches that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<serde_json::Value>,
    /// Why it failed or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The latest calls of the match logic that were cut off, oldest first; kept by the owner while it has the match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<MatchFailure>,
    /// What it uses of its budgets; none when the match's owner could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<MatchUsage>,
    /// What else is kept of a match that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordView>,
    /// The last state of a match that is over, if any was stored: zones and matches of durability `stored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedView>,
}

/// The last stored state of a match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedView {
    /// Unix milliseconds.
    pub saved_at: u64,
    /// The last event that is in it, and the incarnation that it belongs to.
    pub event: u64,
    pub incarnation: u64,
    /// The version of the module that saved it.
    pub saved_by: String,
    pub bytes: u64,
    /// What the module saved: JSON, or base64 of bytes that are none. None when it is larger than 256 KiB.
    pub state: Option<serde_json::Value>,
}

/// What is kept of a match that is over, until `matches.records_for` has passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordView {
    #[serde(rename = "match")]
    pub id: MatchId,
    pub module: String,
    pub digest: Digest,
    pub name: Option<String>,
    /// `ended`, `failed` or `lost`.
    pub status: String,
    /// What the match came to, as the module wrote it: JSON, or base64 of bytes that are none.
    pub outcome: Option<serde_json::Value>,
    /// Why it failed or was lost.
    pub reason: Option<String>,
    /// Who played, at most 256.
    pub players: Vec<PlayerId>,
    /// The node that had it at the end.
    pub owner: String,
    pub epoch: u64,
    pub incarnation: u64,
    pub durability: String,
    /// Unix milliseconds.
    pub created_at: u64,
    /// None: it was never begun.
    pub started_at: Option<u64>,
    pub ended_at: u64,
}

/// `GET /v1/records`, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordPage {
    pub records: Vec<RecordView>,
    /// Names the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RecordRequest {
    pub player: Option<String>,
    pub module: Option<String>,
    pub cursor: Option<String>,
    pub limit: Option<u32>,
}

/// `GET /v1/matches`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MatchPage {
    pub matches: Vec<MatchView>,
    /// Names the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PageRequest {
    pub cursor: Option<String>,
    pub limit: Option<u32>,
    pub module: Option<String>,
}

/// `GET /v1/modules`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModulesView {
    pub modules: Vec<ModuleView>,
}

/// One version of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleView {
    pub name: String,
    pub version: String,
    pub digest: Digest,
    /// Whether the bare name means this version.
    pub newest: bool,
    pub codec: PayloadCodec,
    pub durability: String,
    pub tick_hz: u32,
    pub max_players: u32,
    /// Unix milliseconds.
    pub published_at: u64,
    /// Length of the component.
    #[serde(default)]
    pub bytes: u64,
    /// The key that it is signed by: of the keys that this node believes, or, where none are set, the one that was said when it was
    /// stored.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// How many signatures are kept with it, whether or not anybody has checked them.
    #[serde(default)]
    pub signatures: u64,
    /// Why new matches of it may not begin on this node, if they may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Live matches of it, in the whole cluster.
    #[serde(default)]
    pub matches: u64,
    /// The nodes that have it compiled in memory, of those that answered.
    #[serde(default)]
    pub compiled: Vec<String>,
}

/// The answer to `PUT /v1/modules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub name: String,
    pub version: String,
    pub digest: Digest,
}

/// `POST /v1/matches/{id}/kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickRequest {
    pub player: String,
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/matches/{id}/move`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRequest {
    /// The node that is to own it; another one than now when it is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    #[serde(rename = "match")]
    pub id: MatchId,
    /// The node that owns it now.
    pub owner: String,
}

/// `POST /v1/matches/{id}/upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRequest {
    /// The digest of the version that it is to run; the newest of its module when it is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    #[serde(rename = "match")]
    pub id: MatchId,
    pub module: String,
    /// What it runs now, and what it ran before. The same when there was nothing to do.
    pub version: String,
    pub digest: Digest,
    pub from: Digest,
}

/// `POST /v1/cluster/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPeerRequest {
    /// `host:port` of the peer listener to join through.
    pub peer: String,
}

/// `POST /v1/nodes/{name}/drain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// `drain.deadline` of the node that is asked when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The answer to `POST /v1/nodes/{name}/drain`: which life of which node leaves, and within how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrdered {
    pub node: String,
    pub generation: u64,
    pub deadline_ms: u64,
    /// The node that answers: when it is the one that leaves, its silence is the sign that it is gone.
    #[serde(default)]
    pub told_by: String,
}

/// `GET /v1/queues`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueuesView {
    pub queues: Vec<QueueView>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    pub queue: String,
    pub waiting: u64,
    pub oldest_ms: u64,
    /// The node that forms this queue's matches.
    pub former: Option<String>,
}

/// `GET /v1/worlds`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorldsView {
    pub worlds: Vec<WorldView>,
}

/// One world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorldView {
    pub world: String,
    pub online: bool,
    /// Why it is not online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub zones: Vec<ZoneView>,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneView {
    pub zone: String,
    #[serde(rename = "match")]
    pub id: Option<MatchId>,
    pub owner: Option<String>,
    /// `running`, `moving` or `missing`.
    pub state: String,
    pub players: u32,
    /// The zones that one may walk to from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<String>,
}

/// `GET /v1/content`: the copy of the answering node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentSummary {
    /// Two nodes with one version have the same content.
    pub version: u64,
    pub values: u64,
    /// What counts against `content.total`.
    pub bytes: u64,
    pub collections: Vec<ContentCollection>,
}

/// One collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentCollection {
    pub collection: String,
    pub values: u64,
    pub bytes: u64,
}

/// `GET /v1/content/{collection}`: its values without their bytes, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentPage {
    pub collection: String,
    pub values: Vec<ContentEntry>,
    /// Names the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One value without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentEntry {
    pub key: String,
    pub version: u64,
    pub content_type: String,
    pub bytes: u64,
    /// Unix milliseconds.
    pub updated_at: u64,
}

/// Which part of a collection is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ContentPageRequest {
    /// Only keys that begin so.
    pub prefix: Option<String>,
    pub cursor: Option<String>,
    pub limit: Option<u32>,
}

/// `GET /v1/content/{collection}/{key}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContentItem {
    pub collection: String,
    pub key: String,
    pub version: u64,
    pub content_type: String,
    /// How `value` is written: `json`, `text`, or `base64` for bytes that are neither.
    pub encoding: String,
    pub value: serde_json::Value,
    /// Unix milliseconds.
    pub updated_at: u64,
}

/// The answer to a write or a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentWritten {
    pub collection: String,
    pub key: String,
    pub version: u64,
}
