//! Gossip messages put together from parts, well-formed or not, for tests and fuzz targets: the library writes none that it would
//! not survive itself.

const MAGIC: u16 = 45_139;
const VERSION: u8 = 0;

/// The kinds of messages.
pub(crate) const SYN: u8 = 0;
pub(crate) const SYN_ACK: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const BAD_CLUSTER: u8 = 3;

const BLOCK_END: u8 = 0;
const BLOCK_COMPRESSED: u8 = 1;
const BLOCK_PLAIN: u8 = 2;

const OP_NODE: u8 = 0;
const OP_KEY_VALUE: u8 = 1;
const OP_MAX_VERSION: u8 = 2;

/// A message, or a part of one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Written(pub(crate) Vec<u8>);

impl Written {
    /// The beginning of a message of this kind.
    pub(crate) fn head(kind: u8) -> Self {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([VERSION, kind]);
        Self(bytes)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes();
        self.bytes(&len).bytes(text.as_bytes())
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A life at an address that is made of its generation.
    pub(crate) fn life(self, node: &str, generation: u64) -> Self {
        let port = (generation as u16).to_le_bytes();
        self.text(node)
            .number(generation)
            .bytes(&[4, 127, 0, 0, 1])
            .bytes(&port)
    }

    /// What is known of some lives: heartbeat, deletions, version.
    pub(crate) fn digest(self, lives: &[(&str, u64, [u64; 3])]) -> Self {
        let count = u16::try_from(lives.len()).unwrap_or(u16::MAX).to_le_bytes();
        lives
            .iter()
            .fold(self.bytes(&count), |out, (node, generation, numbers)| {
                numbers
                    .iter()
                    .fold(out.life(node, *generation), |out, number| out.number(*number))
            })
    }

    /// What follows is about this life: up to which version keys were forgotten, and after which this begins.
    pub(crate) fn node(self, node: &str, generation: u64, [forgotten, after]: [u64; 2]) -> Self {
        self.bytes(&[OP_NODE])
            .life(node, generation)
            .number(forgotten)
            .number(after)
    }

    pub(crate) fn key_value(self, key: &str, value: &str, version: u64, status: u8) -> Self {
        self.bytes(&[OP_KEY_VALUE])
            .text(key)
            .text(value)
            .number(version)
            .bytes(&[status])
    }

    pub(crate) fn max_version(self, version: u64) -> Self {
        self.bytes(&[OP_MAX_VERSION]).number(version)
    }

    /// Appends `ops` as blocks.
    pub(crate) fn blocks(self, ops: &Written, compressed: bool) -> Self {
        let block = |out: Self, block: &[u8]| {
            let packed = compressed.then(|| zstd::bulk::compress(block, 0).ok()).flatten();
            let (kind, bytes) = match &packed {
                Some(packed) => (BLOCK_COMPRESSED, &packed[..]),
                None => (BLOCK_PLAIN, block),
            };
            let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
            out.bytes(&[kind]).bytes(&len).bytes(bytes)
        };
        ops.0.chunks(16_384).fold(self, block).bytes(&[BLOCK_END])
    }
}
