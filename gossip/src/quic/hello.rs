//! The hello: by which each end of a connection says which life of its node it is, where the certificates are an operator's and cannot
//! say so. It is the first stream of each end and comes before the welcome. TLS says that it comes from who holds the certificate; that
//! the certificate names the node is checked in `quic.rs`.
//!
//! Fields are only added, and unknown ones are ignored.

use quinn::Connection;
use serde::{Deserialize, Serialize};

use super::{DialError, tls};
use crate::peer::{Identity, NodeId, Peer};

/// Longer than any hello: two names and two addresses.
const HELLO_LEN_MAX: usize = 4 << 10;

/// The most fingerprints that are read from a hello; a node has one secret, or two while it changes.
const SECRETS_MAX: usize = 8;

/// What one end says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    pub(crate) addr: String,
    pub(crate) gossip_addr: String,
    pub(crate) cluster: String,
    /// The fingerprints of the cluster secrets it holds, the current one first. With an operator's certificates the secret lets nobody in,
    /// but players' tokens are signed with it.
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
}

impl Hello {
    pub(crate) fn new(local: &Identity, cluster_name: &str, secrets: Vec<String>) -> Self {
        Self {
            node: local.peer.node.clone(),
            generation: local.peer.generation,
            addr: local.peer.addr.clone(),
            gossip_addr: local.gossip_addr.to_string(),
            cluster: cluster_name.to_owned(),
            secrets,
        }
    }

    /// Whom it is about; none when it makes no sense.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Some(Identity {
            peer: Peer {
                node: self.node.clone(),
                generation: self.generation,
                addr: self.addr.clone(),
            },
            gossip_addr: self.gossip_addr.parse().ok()?,
        })
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a hello is plain data")
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let hello: Self = rmp_serde::from_slice(bytes).ok()?;
        let is_sound = hello.secrets.len() <= SECRETS_MAX
            && hello.secrets.iter().all(|secret| tls::is_fingerprint(secret))
            // It goes into our log.
            && hello.cluster.chars().all(|c| !c.is_control());
        is_sound.then_some(hello)
    }
}

/// Says ours and hears theirs. The caller bounds the time.
pub(super) async fn exchange(connection: &Connection, ours: &Hello) -> Result<Hello, DialError> {
    let failed = |error: &dyn std::fmt::Display| DialError::Failed(error.to_string());
    let said = async {
        let mut stream = connection.open_uni().await?;
        // An error here is one of the connection, which the other half hears of.
        if stream.write_all(&ours.write()).await.is_ok() {
            let _ = stream.finish();
        }
        Ok::<_, quinn::ConnectionError>(())
    };
    let heard = async {
        let mut stream = connection.accept_uni().await?;
        let bytes = stream.read_to_end(HELLO_LEN_MAX).await.map_err(|error| {
            connection
                .close_reason()
                .map_or_else(|| failed(&error), DialError::from)
        })?;
        Hello::read(&bytes).ok_or_else(|| DialError::Failed("the peer's hello cannot be read".into()))
    };
    let (said, heard) = tokio::join!(said, heard);
    said?;
    heard
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        let local = Identity {
            peer: Peer {
                node: "n-1".parse().unwrap(),
                generation: 7,
                addr: "host:1".into(),
            },
            gossip_addr: "[::1]:1".parse().unwrap(),
        };
        Hello::new(&local, "rookery", vec!["0123456789abcdef".into()])
    }

    #[test]
    fn a_hello_survives_the_wire_and_ignores_what_it_does_not_know() {
        let ours = hello();
        let bytes = rmp_serde::to_vec_named(&ours).unwrap();
        assert_eq!(Hello::read(&bytes), Some(ours.clone()));
        assert_eq!(ours.identity().unwrap().peer.generation, 7);

        #[derive(Serialize)]
        struct Later {
            #[serde(flatten)]
            hello: Hello,
            colour: &'static str,
        }
        let later = rmp_serde::to_vec_named(&Later {
            hello: ours.clone(),
            colour: "blue",
        });
        assert_eq!(Hello::read(&later.unwrap()), Some(ours));
    }

    #[test]
    fn a_hello_that_would_spoil_the_log_or_memory_is_not_read() {
        let read = |hello: &Hello| Hello::read(&rmp_serde::to_vec_named(hello).unwrap());
        let mut wrong = hello();
        wrong.cluster = "a\nb".into();
        assert_eq!(read(&wrong), None);
        let mut wrong = hello();
        wrong.secrets = vec!["x".into()];
        assert_eq!(read(&wrong), None);
        let mut wrong = hello();
        wrong.secrets = vec!["0123456789abcdef".into(); 9];
        assert_eq!(read(&wrong), None);
        let mut wrong = hello();
        wrong.gossip_addr = "nowhere".into();
        assert_eq!(read(&wrong).unwrap().identity(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Hello::read(&bytes);
        }
    }
}
