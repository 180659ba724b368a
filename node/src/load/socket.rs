//! One connection of the generator: a non-blocking socket, what has not been written yet, and the piece of a frame that has not all
//! arrived. It answers pings by itself and hands everything else on; what messages mean is not its business.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, bail};
use mio::net::TcpStream;

use super::websocket::{self, Opcode};

/// More than this unread by the server means that it has stopped reading; the generator says so rather than growing.
const UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Open,
    Closed,
}

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    stage: Stage,
    /// The start of a frame whose rest is still under way.
    partial: Vec<u8>,
    out: Outgoing,
}

/// Frames that wait for the socket to take them.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
}

impl Outgoing {
    /// Queues a frame; it leaves with the next flush.
    pub(crate) fn push(&mut self, opcode: Opcode, payload: &[u8]) {
        websocket::write_frame(&mut self.bytes, opcode, payload);
    }
}

impl Socket {
    /// Begins to connect, with the upgrade request already queued.
    pub(crate) fn connect(addr: SocketAddr, upgrade_request: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("cannot open a connection to {addr}"))?;
        let out = Outgoing {
            bytes: upgrade_request.as_bytes().to_vec(),
        };
        Ok(Self {
            stream,
            stage: Stage::Connecting,
            partial: Vec::new(),
            out,
        })
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// The queue of what leaves with the next flush.
    pub(crate) fn out(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// The socket reports that it can be written, or has failed to connect.
    pub(crate) fn writable(&mut self) -> anyhow::Result<()> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error).context("the connection was refused");
            }
            self.stream.set_nodelay(true)?;
            self.stage = Stage::Upgrading;
        }
        self.flush()
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        if matches!(self.stage, Stage::Connecting | Stage::Closed) {
            return Ok(());
        }
        while !self.out.bytes.is_empty() {
            match self.stream.write(&self.out.bytes) {
                Ok(written) if written == self.out.bytes.len() => self.out.bytes.clear(),
                // The move of the rest is paid only when the server is behind.
                Ok(written) => drop(self.out.bytes.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the connection broke"),
            }
        }
        if self.out.bytes.len() > UNWRITTEN_BYTES_MAX {
            bail!("the server has stopped reading");
        }
        Ok(())
    }

    /// Reads all that has arrived and hands on each message, with the queue for answers. `scratch` is shared by all
    /// connections, so that ten thousand idle ones own no buffers.
    pub(crate) fn read(
        &mut self,
        scratch: &mut Vec<u8>,
        mut on_message: impl FnMut(&mut Outgoing, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let kept = self.partial.len();
            if scratch.len() < kept * 2 {
                scratch.resize(kept * 2, 0);
            }
            scratch[..kept].copy_from_slice(&self.partial);
            let count = match self.stream.read(&mut scratch[kept..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the connection broke"),
            };
            let whole = kept + count;
            let used = self.consume(&scratch[..whole], &mut on_message)?;
            self.partial.clear();
            self.partial.extend_from_slice(&scratch[used..whole]);
            // A short read has emptied the socket, and readiness is reported anew when more comes: no need to ask again.
            if whole < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Takes whole frames off the front of `bytes` and says how much they were.
    fn consume(
        &mut self,
        bytes: &[u8],
        on_message: &mut impl FnMut(&mut Outgoing, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        if self.stage != Stage::Open {
            let Some(answer) = websocket::read_upgrade(bytes)? else {
                return Ok(0);
            };
            used = answer;
            self.stage = Stage::Open;
        }
        while let Some(frame) = websocket::read_frame(&bytes[used..])? {
            match frame.opcode {
                Opcode::Text | Opcode::Binary => on_message(&mut self.out, frame.payload)?,
                Opcode::Ping => self.out.push(Opcode::Pong, frame.payload),
                Opcode::Pong => {}
                Opcode::Close => {
                    let (code, reason) = frame.payload.split_at_checked(2).unwrap_or((&[0, 0], b""));
                    let code = u16::from_be_bytes([code[0], code[1]]);
                    bail!(
                        "the server closed the connection: {code} {}",
                        String::from_utf8_lossy(reason)
                    );
                }
            }
            used += frame.bytes;
        }
        Ok(used)
    }

    /// Takes no more part; called when the connection has failed.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.out.bytes.clear();
        // The other side may be gone already, which is what we want.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
