//! What can go wrong at the crate's boundary: one enum for each kind of call, one variant for each thing a caller would do
//! differently.

use std::io;
use std::path::PathBuf;

use crate::peer::NodeId;

/// Text that is not a node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node name is 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.'")]
pub struct NodeIdError;

/// A cluster secret that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The secret could be guessed by trying.
    #[error("the cluster secret has {len} bytes, at least {min} are needed; `rookery secret` prints one")]
    TooShort {
        /// How many bytes it has.
        len: usize,
        /// How many it needs.
        min: usize,
    },
}

/// Certificates of an operator that this node cannot use. Nothing has changed: what was used before still is.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is not what it should be: {why}", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is another certificate's.
    #[error("{} is not the key of {}", .key.display(), .cert.display())]
    OtherKey {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Peers with the same authority would refuse the certificate.
    #[error("{} would be refused under {}: {why}", .cert.display(), .ca.display())]
    Unfit {
        /// The certificate's file.
        cert: PathBuf,
        /// The authorities' file.
        ca: PathBuf,
        /// Why they would.
        why: String,
    },
    /// The certificate is of a node of another name.
    #[error("{} does not name this node: neither a DNS name nor the common name is {node}", .cert.display())]
    OtherName {
        /// The certificate's file.
        cert: PathBuf,
        /// This node's name.
        node: NodeId,
    },
}

/// An advertised address that peers could not use.
#[derive(Debug, thiserror::Error)]
pub enum AdvertiseError {
    /// The text is not `host:port`.
    #[error("{addr:?} is not host:port")]
    Malformed {
        /// The text.
        addr: String,
    },
    /// The host does not resolve here.
    #[error("{addr} does not resolve")]
    Unresolved {
        /// The text.
        addr: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody can reach us at "every address" or port zero.
    #[error("{addr} is no address that a peer can reach")]
    Unreachable {
        /// The text.
        addr: String,
    },
}

/// A mesh that could not start. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster's name is empty or too long.
    #[error("a cluster name has 1 to {max} bytes")]
    ClusterName {
        /// The longest name.
        max: usize,
    },
    /// The advertised address cannot be used.
    #[error("the advertised address cannot be used")]
    Advertise(#[from] AdvertiseError),
    /// A seed or DNS name has the wrong form.
    #[error("{text:?} is neither host:port nor _service._proto.name")]
    Source {
        /// The text.
        text: String,
    },
    /// The certificates could not be made.
    #[error("certificates could not be made from the cluster secret")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operator's certificates cannot be used.
    #[error("the certificates of this node cannot be used")]
    CertificateFiles(#[from] CertificateError),
    /// No later life of the node could have a higher generation.
    #[error("generation {generation} is above {max}, which no later life of this node could exceed")]
    Generation {
        /// The generation.
        generation: u64,
        /// The highest one.
        max: u64,
    },
    /// The socket could not be used.
    #[error("the peer socket cannot be used")]
    Socket(#[source] io::Error),
    /// The system's resolver could not be set up.
    #[error("the resolver cannot be set up")]
    Resolver(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gossip library did not start.
    #[error("gossip did not start")]
    Gossip(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A fact that was not set. The old value stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// The key is empty, too long, or not printable ASCII.
    #[error("a key is 1 to {max} printable ASCII characters")]
    Key {
        /// The longest key.
        max: usize,
    },
    /// The value is too long.
    #[error("the value has {len} bytes, at most {max} are allowed")]
    Value {
        /// How long it is.
        len: usize,
        /// The longest value.
        max: usize,
    },
    /// The node already says as much as it may; facts that were taken back within the last quarter of an hour count.
    #[error("this node already states {max} facts and groups")]
    Budget {
        /// The hard limit.
        max: usize,
    },
}

/// A group that was not joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The name is empty or too long once encoded.
    #[error("a group name has 1 to {max} bytes once percent-encoded")]
    Name {
        /// The longest encoded name.
        max: usize,
    },
    /// The node is in as many groups as it may be. Leave some first; those that were left a moment ago still count.
    #[error("this node is already in {max} groups")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// A message that was not taken. Nothing was queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No live member has this name.
    #[error("node {node} is not a member")]
    UnknownNode {
        /// The name.
        node: NodeId,
    },
    /// The channel's queue is full; `LinkEvent::Writable` follows.
    #[error("the queue is full")]
    Full,
    /// The message is longer than a frame may be.
    #[error("the message has {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// How long it is.
        len: usize,
        /// The longest message.
        max: usize,
    },
    /// This node has left the mesh.
    #[error("this node has left the mesh")]
    Closed,
}

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No live member has this name. Nothing was sent.
    #[error("node {node} is not a member")]
    UnknownNode {
        /// The name.
        node: NodeId,
    },
    /// The request or its answer is longer than allowed.
    #[error("the message is longer than {max} bytes")]
    TooLarge {
        /// The longest message.
        max: usize,
    },
    /// No answer came in time. The request may have been carried out.
    #[error("no answer in time")]
    Deadline,
    /// The connection broke. The request may have been carried out.
    #[error("the connection broke before the answer")]
    Lost,
    /// This node has left the mesh.
    #[error("this node has left the mesh")]
    Closed,
}

/// A peer that could not be joined through now. It stays a seed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinPeerError {
    /// The text is not `host:port`.
    #[error("{addr:?} is not host:port")]
    Malformed {
        /// The text.
        addr: String,
    },
    /// The name does not resolve.
    #[error("{addr} does not resolve: {why}")]
    Unresolved {
        /// The text.
        addr: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody of this cluster answered there.
    #[error("no answer from {addr}: {why}")]
    NoAnswer {
        /// The text.
        addr: String,
        /// What happened.
        why: String,
    },
    /// This node has left the mesh.
    #[error("this node has left the mesh")]
    Closed,
}
