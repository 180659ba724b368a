//! What identifies a node: its name, which of its lives this is, and where it says it can be reached. Identity is proved by the
//! certificate of a connection (see `quic/tls.rs`, and `quic/hello.rs` where the certificate is an operator's), never by a message.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::NodeIdError;

/// The longest node name, in bytes.
const NODE_ID_LEN_MAX: usize = 63;

/// The highest generation. Generations count milliseconds and rise by one at least, so this is reached after 285,000 years; what is
/// above could not be exceeded by a later life, and fits neither a database's integer nor a JSON number.
pub(crate) const GENERATION_MAX: u64 = (1 << 53) - 1;

/// Names a node for as long as its operator keeps the name: 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > NODE_ID_LEN_MAX || !text.chars().all(allowed) {
            return Err(NodeIdError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> String {
        node.0.as_ref().to_owned()
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Identifies one life of one node. Two peers with the same node and another generation are different processes, of which the one
/// with the higher generation is the real one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The node's name.
    pub node: NodeId,
    /// Which life of the node this is; rises at each start.
    pub generation: u64,
    /// Where the node says that it can be reached, `host:port`.
    pub addr: String,
}

impl Peer {
    /// Returns the part that tells this life from every other one.
    pub fn life(&self) -> Life {
        Life {
            node: self.node.clone(),
            generation: self.generation,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.generation)
    }
}

/// Is one life of a node, without its address: what rules and tables are keyed by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The node's name.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// Which life of the node this is.
    #[serde(rename = "g")]
    pub generation: u64,
}

/// A peer together with the resolved address that gossip knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) peer: Peer,
    pub(crate) gossip_addr: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_checked() {
        let longest = "a".repeat(63);
        for good in ["a", "node-1", "N_1.example", longest.as_str()] {
            assert_eq!(good.parse::<NodeId>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "a b", "a|b", "ä", "a/b", too_long.as_str()] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?} was taken");
        }
    }
}
