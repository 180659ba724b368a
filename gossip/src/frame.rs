//! Messages on a channel's stream: four bytes of length, little-endian, then the message. Pure; knows no stream.
#![deny(clippy::disallowed_methods)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How many bytes stand before each message.
pub(crate) const HEADER_LEN: usize = 4;

/// Up to this length a message is copied behind its header; a longer one is cheaper to pass on than to copy.
const COPY_LEN_MAX: usize = 4 << 10;

/// A stream that does not follow the format, after which nothing on it can be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes, at most {max} are allowed")]
pub(crate) struct TooLong {
    len: usize,
    max: usize,
}

/// Collects messages into few chunks.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    chunks: Vec<Bytes>,
    small: BytesMut,
}

impl Encoder {
    pub(crate) fn push(&mut self, message: Bytes) {
        let len = u32::try_from(message.len()).expect("a message is checked before it is queued");
        self.small.put_u32_le(len);
        if message.len() <= COPY_LEN_MAX {
            self.small.extend_from_slice(&message);
        } else {
            self.chunks.push(self.small.split().freeze());
            self.chunks.push(message);
        }
    }

    /// Returns the chunks in order and starts anew.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
        std::mem::take(&mut self.chunks)
    }
}

/// Cuts what was read back into messages. A message that lies within one chunk is not copied.
#[derive(Debug)]
pub(crate) struct Decoder {
    message_len_max: usize,
    /// The beginning of a message that is not complete yet.
    partial: BytesMut,
    chunk: Bytes,
}

impl Decoder {
    pub(crate) fn new(message_len_max: usize) -> Self {
        Self {
            message_len_max,
            partial: BytesMut::new(),
            chunk: Bytes::new(),
        }
    }

    /// Takes what was read. Everything from before must have been taken out with `next` first.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the last chunk was not read to its end");
        self.chunk = chunk;
    }

    /// Returns the next complete message; none when more must be read.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.partial.is_empty() {
            let whole = match self.chunk.first_chunk::<HEADER_LEN>() {
                Some(header) => HEADER_LEN + self.checked_len(*header)?,
                None => usize::MAX,
            };
            if self.chunk.len() >= whole {
                let mut message = self.chunk.split_to(whole);
                message.advance(HEADER_LEN);
                return Ok(Some(message));
            }
        }
        self.take_into_partial(HEADER_LEN);
        let Some(header) = self.partial.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let whole = HEADER_LEN + self.checked_len(*header)?;
        self.take_into_partial(whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(HEADER_LEN);
        Ok(Some(message))
    }

    fn checked_len(&self, header: [u8; HEADER_LEN]) -> Result<usize, TooLong> {
        let len = u32::from_le_bytes(header) as usize;
        if len > self.message_len_max {
            return Err(TooLong {
                len,
                max: self.message_len_max,
            });
        }
        Ok(len)
    }

    /// Moves bytes from the chunk until the partial message has `len` bytes or the chunk is empty. Memory is taken only for bytes
    /// that have come, never for those that a header promises.
    fn take_into_partial(&mut self, len: usize) {
        let missing = len.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(missing));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_promise_of_too_much_is_refused_before_it_is_read() {
        let mut decoder = Decoder::new(100);
        decoder.feed(Bytes::from_static(&[101, 0, 0, 0]));
        assert_eq!(decoder.next(), Err(TooLong { len: 101, max: 100 }));
        let mut decoder = Decoder::new(100);
        decoder.feed(Bytes::from_static(&[0xff, 0xff, 0xff]));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(Bytes::from_static(&[0xff]));
        assert!(decoder.next().is_err());
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30),
            long in prop::collection::vec(any::<u8>(), COPY_LEN_MAX..COPY_LEN_MAX + 50),
            cuts in prop::collection::vec(1usize..60, 1..40),
        ) {
            let mut sent: Vec<Bytes> = messages.into_iter().map(Bytes::from).collect();
            sent.insert(sent.len() / 2, long.into());
            let mut encoder = Encoder::default();
            for message in &sent {
                encoder.push(message.clone());
            }
            let mut wire = encoder.take().concat();
            prop_assert!(encoder.take().is_empty());
            let mut decoder = Decoder::new(COPY_LEN_MAX + 50);
            let mut got = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !wire.is_empty() {
                let rest = wire.split_off(cuts.next().unwrap().min(wire.len()));
                decoder.feed(std::mem::replace(&mut wire, rest).into());
                while let Some(message) = decoder.next().unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, sent);
        }
    }
}
