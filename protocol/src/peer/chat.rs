//! What nodes say to each other about chat: who wants to hear which channel, the lines themselves, and who is in a channel.
//! Channels are named as the store names them.

use serde::{Deserialize, Serialize};

use crate::PlayerId;
use crate::client::ChatLine;

/// One message of chat. Ordered per pair of nodes; after a break of the connection the state is said anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ChatWord {
    /// Which channels the sender wants to hear from now on. Answered by [`ChatWord::Heard`].
    Interest {
        #[serde(rename = "s")]
        seq: u64,
        /// What was said before is void.
        #[serde(rename = "n", default)]
        anew: bool,
        /// The list goes on in the next message, which is the one to confirm.
        #[serde(rename = "m", default)]
        more: bool,
        #[serde(rename = "a", default)]
        add: Vec<String>,
        #[serde(rename = "d", default)]
        drop: Vec<String>,
    },
    /// Interest up to this number is known: lines written from now on are told.
    Heard {
        #[serde(rename = "s")]
        seq: u64,
    },
    Lines {
        #[serde(rename = "c")]
        channel: String,
        #[serde(rename = "l")]
        lines: Vec<ChatLine>,
    },
    /// Who came to a channel on the sender's node, and who left it; `anew`: `joined` is all who are there.
    Members {
        #[serde(rename = "c")]
        channel: String,
        #[serde(rename = "n", default)]
        anew: bool,
        #[serde(rename = "j", default)]
        joined: Vec<PlayerId>,
        #[serde(rename = "l", default)]
        left: Vec<PlayerId>,
    },
    /// Lines may have been lost on the way here: compare with the store.
    Check,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{decode, encode};
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn words_are_read_back_and_keep_their_bytes() {
        let player = PlayerId::from_u128(1);
        let line = ChatLine {
            message: 7,
            from: Arc::from("p"),
            text: Arc::from("hi"),
            at: 9,
        };
        let words = [
            (
                ChatWord::Interest {
                    seq: 3,
                    anew: true,
                    more: false,
                    add: vec!["room:a".into()],
                    drop: Vec::new(),
                },
                "81a8496e74657265737485a17303a16ec3a16dc2a16191a6726f6f6d3a61a16490",
            ),
            (ChatWord::Heard { seq: 3 }, "81a5486561726481a17303"),
            (
                ChatWord::Lines {
                    channel: "room:a".into(),
                    lines: vec![line],
                },
                "81a54c696e657382a163a6726f6f6d3a61a16c9184a16e07a166a170a174a26869a16109",
            ),
            (
                ChatWord::Members {
                    channel: "room:a".into(),
                    anew: false,
                    joined: vec![player],
                    left: Vec::new(),
                },
                "81a74d656d6265727384a163a6726f6f6d3a61a16ec2a16a91ba3030303030303030303030303030303030303030303030303031a16c90",
            ),
            (ChatWord::Check, "a5436865636b"),
        ];
        for (word, bytes) in words {
            let encoded = encode(&word);
            assert_eq!(hex(&encoded), bytes, "{word:?}");
            assert_eq!(decode::<ChatWord>(&encoded).unwrap(), word);
        }
    }

    #[test]
    fn what_an_older_version_left_out_has_its_default() {
        let encoded = rmp_serde::to_vec_named(&serde_json::json!({"Interest": {"s": 1}})).unwrap();
        let Ok(ChatWord::Interest {
            seq: 1,
            anew: false,
            more: false,
            add,
            drop,
        }) = decode(&encoded)
        else {
            panic!("not read")
        };
        assert!(add.is_empty() && drop.is_empty());
    }
}
